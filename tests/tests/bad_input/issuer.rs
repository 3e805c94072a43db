//! What the issuer refuses at `/revoke`, the revocation feed and the admin listener.

use serde_json::{Value, json};
use taper_dpop::{PrivateKey, base64url_encode};
use taper_tests::call::Call;
use taper_tests::{Up, taper_ok};

use super::{Findings, Spoil, claiming, key, spoil, stranger};

/// `taper up`, an access token and a key.
pub(crate) struct Issuer {
    pub(crate) up: Up,
    pub(crate) access_token: String,
    pub(crate) key: String,
    findings: Findings,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let up = Up::start();
        up.keygen("alice");
        let token = taper_ok(
            up.dir(),
            &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
        );
        Self {
            access_token: token.trim().to_owned(),
            key: key(&up, "alice"),
            up,
            findings: Findings::default(),
        }
    }

    /// An exchange that passes.
    pub(crate) fn exchange(&self) -> Call {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("client_id", "dev"),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("scope", "git:*"),
            ("subject_token", &self.access_token),
        ];
        let form = form
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .join("&");
        Call::form(&format!("{}/token", self.up.issuer()), &form, &self.key)
    }

    /// A capability, new each time.
    pub(crate) fn capability(&self) -> String {
        let answer = self.exchange().send();
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// A revocation that passes.
    pub(crate) fn revocation(&self) -> Call {
        let token = self.capability();
        let url = format!("{}/revoke", self.up.issuer());
        Call {
            token: Some(token.clone()),
            ..Call::form(&url, &format!("client_id=dev&token={token}"), &self.key)
        }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.up.dir().join("up").join(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// A question to the feed that passes.
    pub(crate) fn feed(&self) -> Call {
        let call = Call::new("GET", &format!("{}/revocations?after=0&wait=0", self.up.issuer()));
        call.header("authorization", basic("proxy", &self.file("feed-secret")))
    }

    /// A revocation by the admin that passes.
    pub(crate) fn admin(&self) -> Call {
        let nobody = PrivateKey::from_jwk_str(&stranger())
            .unwrap()
            .public()
            .thumbprint()
            .to_string();
        Call::new(
            "POST",
            &format!("{}/admin/v1/revocations", self.up.process.text("/admin")),
        )
        .header("authorization", format!("Bearer {}", self.file("admin-token")))
        .header("content-type", "application/json")
        .body(json!({ "holder": nobody }).to_string())
    }

    pub(crate) fn pair(&self, name: &str, twin: &Call, bad: &Call, status: u16, says: &str) {
        self.findings.passed(name, &twin.send());
        self.findings.refused(name, &bad.send(), status, says);
        self.findings.healthy(name, &self.up.issuer());
    }

    pub(crate) fn end(self) {
        self.findings.end(self.up.process);
        self.findings.none();
    }
}

/// A form-encoded value.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    let mut text = base64url_encode(format!("{id}:{secret}").as_bytes())
        .replace('-', "+")
        .replace('_', "/");
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    format!("Basic {text}")
}

#[test]
fn revocations() {
    let issuer = Issuer::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| {
        issuer.pair(
            name,
            &issuer.revocation(),
            &spoil(issuer.revocation()),
            status,
            says,
        );
    };
    check(
        "no token",
        spoil(|call| call.edit("token=", "x=")),
        400,
        "invalid_request",
    );
    check(
        "two tokens",
        spoil(|call| call.edit("client_id", "token=x&client_id")),
        400,
        "invalid_request",
    );
    check(
        "JSON",
        spoil(|call| call.instead("content-type", "application/json")),
        400,
        "invalid_request",
    );
    check(
        "an unknown client",
        spoil(|call| call.edit("client_id=dev", "client_id=other")),
        401,
        "invalid_client",
    );
    check(
        "no proof",
        spoil(|call| call.proofs(&[])),
        400,
        "invalid_dpop_proof",
    );
    check(
        "no ath",
        claiming(|claims| claims.ath = None),
        400,
        "invalid_dpop_proof",
    );
    check(
        "a proof of a stranger",
        spoil(|call| Call {
            key: Some(stranger()),
            ..call
        }),
        400,
        "invalid_dpop_proof",
    );
    check("GET", spoil(|call| call.line("GET", "/revoke")), 405, "");
    // RFC 7009 section 2.2: nothing to revoke is not an error, and nothing is said about why.
    let unknown = Call {
        token: Some("AAAA".into()),
        ..issuer.revocation().body("client_id=dev&token=AAAA")
    };
    assert_eq!(unknown.send().status, 200);

    let introspect = format!("{}/introspect", issuer.up.issuer());
    let asked = Call::form(&introspect, "client_id=dev&token=AAAA", &issuer.key).send();
    issuer
        .findings
        .refused("a public client", &asked, 400, "unauthorized_client");
    issuer.end();
}

#[test]
fn feed() {
    let issuer = Issuer::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| {
        issuer.pair(name, &issuer.feed(), &spoil(issuer.feed()), status, says);
    };
    let ask = |query: &'static str| spoil(move |call: Call| call.line("GET", query));
    check(
        "nobody",
        spoil(|call| call.without("authorization")),
        401,
        "invalid_client",
    );
    check(
        "another secret",
        spoil(|call| call.instead("authorization", basic("proxy", "other"))),
        401,
        "invalid_client",
    );
    check(
        "no secret",
        spoil(|call| call.instead("authorization", basic("proxy", ""))),
        401,
        "invalid_client",
    );
    check(
        "a public client",
        spoil(|call| call.instead("authorization", basic("dev", ""))),
        401,
        "invalid_client",
    );
    check(
        "two authorizations",
        spoil(|call| call.header("authorization", basic("dev", ""))),
        401,
        "invalid_client",
    );
    check(
        "the secret as a bearer token",
        spoil(|call| call.instead("authorization", "Bearer x")),
        401,
        "invalid_client",
    );
    for query in [
        "after=-1",
        "after=x",
        "after=99999999999999999999",
        "wait=61",
        "wait=-1",
        "other=1",
        "after=1&after=2",
        "after=%zz",
    ] {
        let target = format!("/revocations?{query}");
        check(
            query,
            spoil(move |call| call.line("GET", &target)),
            400,
            "invalid_request",
        );
    }
    check("another path", ask("/revocations/"), 404, "");
    check("POST", spoil(|call| call.line("POST", "/revocations")), 405, "");
    issuer.end();
}

#[test]
fn admins() {
    let issuer = Issuer::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| {
        issuer.pair(name, &issuer.admin(), &spoil(issuer.admin()), status, says);
    };
    let body =
        |name: &str, body: Vec<u8>| check(name, spoil(move |call| call.body(&body)), 400, "invalid_request");
    check(
        "nobody",
        spoil(|call| call.without("authorization")),
        401,
        "invalid_token",
    );
    check(
        "another token",
        spoil(|call| call.instead("authorization", "Bearer other")),
        401,
        "invalid_token",
    );
    check(
        "an empty token",
        spoil(|call| call.instead("authorization", "Bearer ")),
        401,
        "invalid_token",
    );
    check(
        "two tokens",
        spoil(|call| call.header("authorization", "Bearer other")),
        401,
        "invalid_token",
    );
    let token = issuer.file("admin-token");
    let as_basic = basic("admin", &token);
    check(
        "the token as a password",
        spoil(move |call| call.instead("authorization", &as_basic)),
        401,
        "invalid_token",
    );
    let in_query = format!("/admin/v1/revocations?access_token={token}");
    check(
        "the token in the query",
        spoil(move |call| call.without("authorization").line("POST", &in_query)),
        401,
        "invalid_token",
    );
    check(
        "a form",
        spoil(|call| call.instead("content-type", "application/x-www-form-urlencoded")),
        400,
        "invalid_request",
    );
    check(
        "200,000 bytes",
        spoil(|call| {
            let mut call = call;
            call.body.resize(200_000, b' ');
            call
        }),
        413,
        "invalid_request",
    );
    body("no body", Vec::new());
    body("an array", b"[]".to_vec());
    body("a word", b"holder".to_vec());
    body("an unknown kind", br#"{"everything":true}"#.to_vec());
    body("two kinds", br#"{"client":"a","grant":"b"}"#.to_vec());
    body("a kind twice", br#"{"client":"a","client":"b"}"#.to_vec());
    body(
        "a byte order mark",
        "\u{feff}{\"client\":\"nobody\"}".as_bytes().to_vec(),
    );
    body("invalid UTF-8", b"{\"client\":\"\xff\"}".to_vec());
    body("a short thumbprint", br#"{"holder":"AAAA"}"#.to_vec());
    body("a branch that is none", br#"{"branch":"zz"}"#.to_vec());
    body("an empty client", br#"{"client":""}"#.to_vec());
    body(
        "depth 100,000",
        [b"{\"client\":".to_vec(), vec![b'['; 100_000]].concat(),
    );
    check(
        "an unknown grant",
        spoil(|call| call.body(format!("{{\"grant\":\"{}\"}}", "A".repeat(22)))),
        404,
        "",
    );
    check(
        "PUT",
        spoil(|call| call.line("PUT", "/admin/v1/revocations")),
        405,
        "",
    );
    check(
        "a list with another query",
        spoil(|call| call.line("GET", "/admin/v1/revocations?before=1")),
        400,
        "",
    );
    check(
        "a list for somebody else",
        spoil(|call| {
            call.line("GET", "/admin/v1/revocations")
                .without("authorization")
                .header("authorization", "Bearer wrong")
        }),
        401,
        "",
    );
    for target in [
        "/admin/v1/revocations/",
        "//admin/v1/revocations",
        "/admin/v2/revocations",
        "/admin",
        "/token",
        "/admin/v1/%72evocations",
    ] {
        check(target, spoil(move |call| call.line("POST", target)), 404, "");
    }
    let grant = |id: &str| issuer.admin().line("GET", &format!("/admin/v1/grants/{id}"));
    for id in ["x", "..%2f..%2fadmin-token", "%00", "%ff"] {
        let answer = grant(id).send();
        assert!(matches!(answer.status, 400 | 404), "{id}: {answer:?}");
    }
    let nobody = grant("x").without("authorization").send();
    issuer
        .findings
        .refused("a grant for nobody", &nobody, 401, "invalid_token");
    issuer.end();
}
