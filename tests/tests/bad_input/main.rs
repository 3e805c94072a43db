//! Malformed requests over raw sockets. Each is sent next to an honest twin, from which it differs in
//! the one point that its name says: the twin passes, the other is refused as the table says, and the
//! daemon goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bodies;
mod credentials;
mod heads;
mod issuer;
mod proxies;
mod slow;
mod token;

use std::sync::Mutex;

use rand_core::OsRng;
use serde_json::{Value, json};
use taper_dpop::{Algorithm, PrivateKey, ProofClaims, base64url_encode};
use taper_tests::call::Call;
use taper_tests::{Answer, Running, Up, get};

/// What did not come out as a table says; told all at once at the end.
#[derive(Default)]
struct Findings(Mutex<Vec<String>>);

impl Findings {
    /// Notes `what` unless it holds.
    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.lock().unwrap().push(what());
        }
    }

    /// A refusal: its status, and words of its head or body.
    fn refused(&self, name: &str, answer: &Answer, status: u16, says: &str) {
        let told = answer.status == status && (answer.head.contains(says) || answer.body.contains(says));
        self.expect(told, || {
            format!("{name}: expected {status} {says}, got {answer:?}")
        });
    }

    /// The twin of a refused request.
    fn passed(&self, name: &str, answer: &Answer) {
        self.expect(answer.status == 200, || format!("the twin of {name}: {answer:?}"));
    }

    fn healthy(&self, name: &str, url: &str) {
        self.expect(get(url, "/healthz").status == 200, || {
            format!("{url} is not healthy after {name}")
        });
    }

    /// Ends a daemon: with success, and nothing in it panicked.
    fn end(&self, running: Running) {
        let (success, log) = running.stop_for_log();
        self.expect(success, || format!("it ended with a failure\n{log}"));
        self.expect(!log.contains("panicked"), || format!("it panicked\n{log}"));
    }

    #[track_caller]
    fn none(&self) {
        let found = self.0.lock().unwrap();
        assert!(
            found.is_empty(),
            "{} findings:\n{}",
            found.len(),
            found.join("\n")
        );
    }
}

/// The private JWK `NAME.jwk`.
fn key(up: &Up, name: &str) -> String {
    std::fs::read_to_string(up.dir().join(format!("{name}.jwk"))).unwrap()
}

/// A private JWK that nobody knows.
fn stranger() -> String {
    PrivateKey::generate(Algorithm::EdDsa, &mut OsRng)
        .to_jwk_string()
        .to_string()
}

/// A JWS with any header, signed all the same.
fn jws(key: &str, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url_encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = PrivateKey::from_jwk_str(key).unwrap().sign(signed.as_bytes());
    format!("{signed}.{}", base64url_encode(&signature))
}

/// A way to spoil a request.
type Spoil = Box<dyn Fn(Call) -> Call>;

fn spoil(with: impl Fn(Call) -> Call + 'static) -> Spoil {
    Box::new(with)
}

/// The request with changed claims in its proof, signed by the right key.
fn claiming(change: impl Fn(&mut ProofClaims) + 'static) -> Spoil {
    spoil(move |call| {
        let mut claims = call.claims();
        change(&mut claims);
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    })
}

/// The request with a changed header in its proof, signed by the right key.
fn heading(change: impl Fn(&mut Value) + 'static) -> Spoil {
    spoil(move |call| {
        let key = call.key.clone().unwrap();
        let jwk = PrivateKey::from_jwk_str(&key).unwrap().public().to_jwk();
        let mut header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
        change(&mut header);
        let proof = jws(&key, &header, &serde_json::to_value(call.claims()).unwrap());
        call.proofs(&[&proof])
    })
}

/// Proofs that are wrong for issuer and proxy alike, with the proxy's rule.
fn bad_proofs() -> Vec<(&'static str, Spoil, &'static str)> {
    let text = |text: String| spoil(move |call: Call| call.proofs(&[&text]));
    vec![
        ("an empty proof", text(String::new()), "R-01"),
        ("a proof of one letter", text("x".into()), "R-01"),
        ("a proof of three letters", text("a.b.c".into()), "R-01"),
        (
            "a proof of five parts",
            text("e30.e30.e30.e30.e30".into()),
            "R-01",
        ),
        (
            "a proof of objects without members",
            text("e30.e30.e30".into()),
            "R-0",
        ),
        ("a proof of 5,000 bytes", text("A".repeat(5_000)), "R-01"),
        (
            "another typ",
            heading(|header| header["typ"] = json!("JWT")),
            "R-02",
        ),
        (
            "a critical extension",
            heading(|header| header["crit"] = json!(["exp"])),
            "R-02",
        ),
        (
            "alg none",
            heading(|header| header["alg"] = json!("none")),
            "R-03",
        ),
        (
            "alg HS256",
            heading(|header| header["alg"] = json!("HS256")),
            "R-03",
        ),
        (
            "alg of another key",
            heading(|header| header["alg"] = json!("ES256")),
            "R-03",
        ),
        ("no key", heading(|header| header["jwk"] = json!({})), "R-0"),
        ("a null key", heading(|header| header["jwk"] = Value::Null), "R-0"),
        (
            "a weak key",
            heading(|header| header["jwk"]["x"] = json!("A".repeat(43))),
            "R-04",
        ),
        (
            "a private key",
            heading(|header| header["jwk"]["d"] = json!("A".repeat(43))),
            "R-04",
        ),
        (
            "another method",
            claiming(|claims| claims.htm = "GET".into()),
            "R-05",
        ),
        (
            "another URL",
            claiming(|claims| claims.htu = "http://127.0.0.1:1/git/mcp".into()),
            "R-06",
        ),
        (
            "an htu without scheme",
            claiming(|claims| claims.htu = "/git/mcp".into()),
            "R-06",
        ),
        ("an old proof", claiming(|claims| claims.iat -= 400), "R-07"),
        (
            "a proof of the future",
            claiming(|claims| claims.iat += 120),
            "R-07",
        ),
        (
            "a proof of the end of time",
            claiming(|claims| claims.iat = i64::MAX),
            "R-07",
        ),
        (
            "a proof of before all time",
            claiming(|claims| claims.iat = i64::MIN),
            "R-07",
        ),
        ("no jti", claiming(|claims| claims.jti = String::new()), "R-08"),
        (
            "a jti of 257 bytes",
            claiming(|claims| claims.jti = "A".repeat(257)),
            "R-08",
        ),
        (
            "a digest of another body",
            claiming(|claims| *claims = claims.clone().body(b"other")),
            "R-12",
        ),
        (
            "a digest of no kind",
            claiming(|claims| claims.content_digest = Some("md5=:AAAA:".into())),
            "R-12",
        ),
        (
            "a claim twice",
            spoil(|call| {
                let key = call.key.clone().unwrap();
                let good = call.proof();
                let mut parts = good.split('.').map(str::to_owned).collect::<Vec<_>>();
                let claims =
                    serde_json::to_string(&call.claims())
                        .unwrap()
                        .replacen('{', "{\"jti\":\"x\",", 1);
                parts[1] = base64url_encode(claims.as_bytes());
                let signed = format!("{}.{}", parts[0], parts[1]);
                let signature = PrivateKey::from_jwk_str(&key).unwrap().sign(signed.as_bytes());
                call.proofs(&[&format!("{signed}.{}", base64url_encode(&signature))])
            }),
            "R-01",
        ),
        (
            "a signature of another proof",
            spoil(|call| {
                let (first, second) = (call.proof(), call.proof());
                let signature = second.rsplit_once('.').unwrap().1;
                let signed = first.rsplit_once('.').unwrap().0;
                call.proofs(&[&format!("{signed}.{signature}")])
            }),
            "R-11",
        ),
        (
            "a signature that is cut",
            spoil(|call| {
                let proof = call.proof();
                call.proofs(&[&proof[..proof.len() - 4]])
            }),
            "R-",
        ),
    ]
}
