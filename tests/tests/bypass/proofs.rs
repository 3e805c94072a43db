//! Proofs for something else than this request, by somebody else, or for the second time.

use serde_json::{Value, json};
use taper_dpop::{Algorithm, PrivateKey, ProofClaims, base64url_encode};
use taper_tests::call::Call;

use crate::row::{Row, Sent, Wire, claiming, deliver, row};
use crate::world::{Era, World, new_key};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = claims();
    rows.extend(heads());
    rows.extend(replays());
    rows
}

fn claims() -> Vec<Row> {
    let t = "T-09";
    let claim = |name: &'static str, rule, change: fn(&World<'_>, &mut ProofClaims)| {
        row(t, name, claiming(change)).unauthorized(rule)
    };
    let mut rows = vec![
        claim("another method", "R-05", |_, c| c.htm = "GET".into()),
        claim("the method in small letters", "R-05", |_, c| {
            c.htm = "post".into()
        }),
        claim("an empty method", "R-05", |_, c| c.htm = String::new()),
        claim("another server", "R-06", |w, c| c.htu = w.base.url("notes")),
        claim("another path", "R-06", |_, c| {
            c.htu = c.htu.replace("/mcp", "/sse")
        }),
        claim("a slash more", "R-06", |_, c| c.htu.push('/')),
        claim("the path in capitals", "R-06", |_, c| {
            c.htu = c.htu.replace("/git/", "/GIT/")
        }),
        claim("an escaped path", "R-06", |_, c| {
            c.htu = c.htu.replace("/git/", "/%67it/")
        }),
        claim("another scheme", "R-06", |_, c| {
            c.htu = c.htu.replace("http:", "https:")
        }),
        claim("another host", "R-06", |_, c| {
            c.htu = c.htu.replace("127.0.0.1", "localhost")
        }),
        claim("another port", "R-06", |_, c| {
            c.htu = "http://127.0.0.1:1/git/mcp".into()
        }),
        claim("no port", "R-06", |_, c| {
            c.htu = "http://127.0.0.1/git/mcp".into()
        }),
        claim("where the proxy really listens", "R-06", |w, c| {
            c.htu = format!("{}/git/mcp", w.at)
        }),
        claim("a path alone", "R-06", |_, c| c.htu = "/git/mcp".into()),
        claim("user information in the URL", "R-06", |_, c| {
            c.htu = c.htu.replace("http://", "http://x@")
        }),
        claim("an empty URL", "R-06", |_, c| c.htu = String::new()),
        claim("the issuer's endpoint", "R-06", |w, c| {
            c.htu = format!("{}/token", w.base.up.issuer())
        }),
        claim("no token", "R-09", |_, c| c.ath = None),
        claim("another token", "R-09", |_, c| *c = c.clone().token("other")),
        claim("the parent's token", "R-09", |w, c| {
            *c = c.clone().token(w.dave.token.as_str())
        }),
        claim("an empty hash of the token", "R-09", |_, c| {
            c.ath = Some(String::new())
        }),
        claim("the token itself for its hash", "R-09", |w, c| {
            c.ath = Some(w.alice.token.as_str().into())
        }),
        claim("a padded hash of the token", "R-09", |_, c| {
            c.ath = c.ath.as_ref().map(|ath| format!("{ath}="));
        }),
        claim("no jti", "R-08", |_, c| c.jti = String::new()),
        claim("a jti of 257 bytes", "R-08", |_, c| c.jti = "A".repeat(257)),
        claim("the digest of another body", "R-12", |_, c| {
            *c = c.clone().body(b"other")
        }),
        claim("the digest of no body", "R-12", |_, c| *c = c.clone().body(b"")),
        claim("a digest by another function", "R-12", |_, c| {
            c.content_digest = c.content_digest.as_ref().map(|d| d.replace("sha-256", "sha-512"));
        }),
        claim("two digests", "R-12", |_, c| {
            c.content_digest = c.content_digest.as_ref().map(|d| format!("{d}, {d}"));
        }),
        claim("a digest without colons", "R-12", |_, c| {
            c.content_digest = c.content_digest.as_ref().map(|d| d.replace(':', ""));
        }),
        claim("a digest in capitals", "R-12", |_, c| {
            c.content_digest = c.content_digest.as_ref().map(|d| d.replace("sha", "SHA"));
        }),
        claim("an empty digest", "R-12", |_, c| {
            c.content_digest = Some(String::new())
        }),
    ];
    // A tool that changes something is bound to its body; one that the operator says only reads may go without.
    rows.push(
        row(
            "T-08",
            "no digest for a tool that writes",
            claiming(|_, claims| claims.content_digest = None),
        )
        .twin(|world, era| {
            let inner = r#""name":"git_push","arguments":{"owner":"acme","repo":"web"}"#;
            world.ask(&world.alice, era, "git", "tools/call", inner)
        })
        .unauthorized("M-14"),
    );
    rows.push(
        row(
            "T-08",
            "no digest at a server without tools that only read",
            claiming(|_, claims| claims.content_digest = None),
        )
        .twin(|world, era| {
            let inner = r#""name":"note_write","arguments":{"text":"x"}"#;
            world.ask(&world.alice, era, "notes", "tools/call", inner)
        })
        .unauthorized("M-14"),
    );
    for (name, from, to) in [
        ("a byte changed on the way", "acme/web", "acme/wec"),
        ("a space more on the way", "\"params\"", " \"params\""),
        ("the id changed on the way", "\"id\":1", "\"id\":2"),
        ("the tool changed on the way", "git_log", "git_lop"),
    ] {
        rows.push(
            row("T-08", name, move |_, _, call| {
                let proof = call.proof();
                call.edit(from, to).proofs(&[&proof])
            })
            .unauthorized("R-12"),
        );
    }
    for (name, seconds) in [
        ("a proof of 320 seconds ago", -320),
        ("a proof of an hour ago", -3_600),
        ("a proof of 80 seconds ahead", 80),
        ("a proof of a day ahead", 86_400),
    ] {
        rows.push(row("T-10", name, claiming(move |_, claims| claims.iat += seconds)).unauthorized("R-07"));
    }
    for (name, iat) in [
        ("the end of time", i64::MAX),
        ("before all time", i64::MIN),
        ("zero", 0),
        ("milliseconds", 1_800_000_000_000),
    ] {
        rows.push(
            row(
                "T-10",
                format!("a proof of {name}"),
                claiming(move |_, claims| claims.iat = iat),
            )
            .unauthorized("R-07"),
        );
    }
    rows
}

/// The proof with another header, signed all the same.
fn heading(change: impl Fn(&World<'_>, &mut Value)) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |world, _, call| {
        let key = call.key.clone().unwrap();
        let jwk = PrivateKey::from_jwk_str(&key).unwrap().public().to_jwk();
        let mut header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
        change(world, &mut header);
        let proof = jws(
            &key,
            &header.to_string(),
            &serde_json::to_string(&call.claims()).unwrap(),
        );
        call.proofs(&[&proof])
    }
}

fn jws(key: &str, header: &str, claims: &str) -> String {
    let signed = format!(
        "{}.{}",
        base64url_encode(header.as_bytes()),
        base64url_encode(claims.as_bytes())
    );
    let signature = PrivateKey::from_jwk_str(key).unwrap().sign(signed.as_bytes());
    format!("{signed}.{}", base64url_encode(&signature))
}

fn heads() -> Vec<Row> {
    let t = "T-52";
    let head = |name: &'static str, rule, change: fn(&World<'_>, &mut Value)| {
        row(t, name, heading(change)).unauthorized(rule)
    };
    let text = |name: &'static str, text: fn(&Call) -> String| {
        row(t, name, move |_, _, call| {
            let proof = text(&call);
            call.proofs(&[&proof])
        })
    };
    vec![
        head("another type", "R-02", |_, h| h["typ"] = json!("JWT")),
        head("the type in capitals", "R-02", |_, h| {
            h["typ"] = json!("DPOP+JWT")
        }),
        head("the type as a media type", "R-02", |_, h| {
            h["typ"] = json!("application/dpop+jwt")
        }),
        head("a critical extension", "R-02", |_, h| h["crit"] = json!(["exp"])),
        head("no critical extension at all", "R-02", |_, h| {
            h["crit"] = json!([])
        }),
        head("algorithm none", "R-03", |_, h| h["alg"] = json!("none")),
        head("algorithm HS256", "R-03", |_, h| h["alg"] = json!("HS256")),
        head("algorithm RS256", "R-03", |_, h| h["alg"] = json!("RS256")),
        head("the algorithm of another key", "R-03", |_, h| {
            h["alg"] = json!("ES256")
        }),
        head("the algorithm in capitals", "R-03", |_, h| {
            h["alg"] = json!("EDDSA")
        }),
        head("a weak key", "R-04", |_, h| h["jwk"]["x"] = json!("A".repeat(43))),
        head("a private key", "R-04", |_, h| {
            h["jwk"]["d"] = json!("A".repeat(43))
        }),
        head("a symmetric key", "R-04", |_, h| {
            h["jwk"] = json!({ "kty": "oct", "k": "AAAA" })
        }),
        head("a key on another curve", "R-04", |_, h| {
            h["jwk"]["crv"] = json!("Ed448")
        }),
        head("another key in the header", "R-14", |w, h| {
            h["jwk"] = serde_json::to_value(w.dave.public().to_jwk()).unwrap();
        }),
        text("an empty signature", |call| {
            let proof = call.proof();
            format!("{}.", proof.rsplit_once('.').unwrap().0)
        })
        .unauthorized("R-11"),
        text("the signature of another proof", |call| {
            let (first, second) = (call.proof(), call.proof());
            format!(
                "{}.{}",
                first.rsplit_once('.').unwrap().0,
                second.rsplit_once('.').unwrap().1
            )
        })
        .unauthorized("R-11"),
        text("a signature of zeros", |call| {
            let proof = call.proof();
            format!("{}.{}", proof.rsplit_once('.').unwrap().0, "A".repeat(86))
        })
        .unauthorized("R-11"),
        text("a letter of the claims changed", |call| {
            let key = call.key.clone().unwrap();
            let claims = serde_json::to_string(&call.claims()).unwrap();
            let jwk = PrivateKey::from_jwk_str(&key).unwrap().public().to_jwk();
            let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk }).to_string();
            let good = jws(&key, &header, &claims);
            let signature = good.rsplit_once('.').unwrap().1.to_owned();
            let at = claims.find("\"jti\":\"").unwrap() + 7;
            let letter = if &claims[at..=at] == "x" { "y" } else { "x" };
            let claims = format!("{}{letter}{}", &claims[..at], &claims[at + 1..]);
            format!(
                "{}.{}.{signature}",
                base64url_encode(header.as_bytes()),
                base64url_encode(claims.as_bytes())
            )
        })
        .unauthorized("R-11"),
        text("a claim twice", |call| {
            let key = call.key.clone().unwrap();
            let jwk = PrivateKey::from_jwk_str(&key).unwrap().public().to_jwk();
            let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk }).to_string();
            let claims = serde_json::to_string(&call.claims()).unwrap();
            jws(&key, &header, &claims.replacen('{', "{\"jti\":\"x\",", 1))
        })
        .unauthorized("R-01"),
        text("a time with a fraction", |call| {
            let key = call.key.clone().unwrap();
            let jwk = PrivateKey::from_jwk_str(&key).unwrap().public().to_jwk();
            let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk }).to_string();
            let claims = call.claims();
            let text = serde_json::to_string(&claims).unwrap();
            let iat = claims.iat.to_string();
            jws(&key, &header, &text.replacen(&iat, &format!("{iat}.5"), 1))
        })
        .unauthorized("R-01"),
        text("a padded signature", |call| format!("{}=", call.proof())).unauthorized("R-01"),
        text("four parts", |call| format!("{}.x", call.proof())).unauthorized("R-01"),
        text("a proof in JSON", |call| {
            let proof = call.proof();
            let parts: Vec<&str> = proof.split('.').collect();
            json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string()
        })
        .unauthorized("R-01"),
        text("5,000 bytes", |_| "A".repeat(5_000)).unauthorized("R-01"),
        row(t, "a stranger's proof", |_, _, call| Call {
            key: Some(new_key().to_jwk_string().to_string()),
            ..call
        })
        .unauthorized("R-14"),
        row(t, "a stranger's proof on another curve", |_, _, call| Call {
            key: Some(
                PrivateKey::generate(Algorithm::Es256, &mut rand_core::OsRng)
                    .to_jwk_string()
                    .to_string(),
            ),
            ..call
        })
        .unauthorized("R-14"),
    ]
}

/// The honest call with a proof that stays the same however often it is sent.
fn once(world: &World<'_>, era: Era) -> Call {
    let call = world.honest(era);
    let proof = call.proof();
    call.proofs(&[&proof])
}

fn replays() -> Vec<Row> {
    let t = "T-07";
    vec![
        row(t, "the same request again", |_, _, call| call)
            .twin(once)
            .again()
            .unauthorized("R-13"),
        row(t, "the same proof with another header", |_, _, call| {
            call.header("tracestate", "a=b")
        })
        .twin(once)
        .unauthorized("R-13"),
        row(t, "the same proof in the other era", |world, era, call| {
            let other = Era::BOTH.into_iter().find(|other| *other != era).unwrap();
            let proof = call.proofs.clone().unwrap();
            // The digest of the body is left out of the proof, so that one proof fits both messages.
            world.honest(other).proofs(&[&proof[0]])
        })
        .twin(unbound_once)
        .unauthorized("R-13"),
        row(t, "the same proof for another call", |_, era, call| {
            let proof = call.proofs.clone().unwrap();
            let other = r#""name":"git_log","arguments":{"repo_path":"acme/payroll"}"#;
            crate::world::said(call, era, "tools/call", other).proofs(&[&proof[0]])
        })
        .twin(unbound_once)
        .unauthorized("R-13"),
        row(t, "the same jti in another proof", |_, _, call| {
            let claims = claims_of(&call);
            let fresh = call.claims();
            let key = call.key.clone().unwrap();
            call.proven_by(
                &key,
                &ProofClaims {
                    jti: claims["jti"].as_str().unwrap().to_owned(),
                    iat: fresh.iat - 1,
                    ..fresh
                },
            )
        })
        .twin(once)
        .unauthorized("R-13"),
        row(t, "over the other version of HTTP", |world, _, call| {
            // The twin goes out over the wire of the row, and this over the other one before it.
            let fresh = once_like(&call);
            let answer = deliver(world, Wire::H1, &Sent::Call(fresh.clone()));
            assert_eq!(answer.status, 200, "{answer:?}");
            fresh
        })
        .unauthorized("R-13")
        .h2("the first one went over HTTP/1.1"),
    ]
    .into_iter()
    .chain(refused())
    .collect()
}

/// A proof is used up by a request that was denied, too.
fn refused() -> Vec<Row> {
    vec![
        row(
            "T-07",
            "a proof that a denied request used up",
            |world, era, call| {
                let proof = call.claims();
                let denied = crate::world::said(
                    call.clone(),
                    era,
                    "tools/call",
                    r#""name":"git_reset","arguments":{}"#,
                );
                let key = call.key.clone().unwrap();
                let mut claims = proof;
                claims.content_digest = None;
                let unread = r#""name":"git_show","arguments":{"repo_path":"acme/payroll"}"#;
                let denied = crate::world::said(denied, era, "tools/call", unread).proven_by(&key, &claims);
                let answer = deliver(world, Wire::H1, &Sent::Call(denied));
                assert_eq!(answer.status, 403, "{answer:?}");
                call.proven_by(&key, &claims)
            },
        )
        .unauthorized("R-13"),
    ]
}

fn once_like(call: &Call) -> Call {
    let proof = call.proof();
    call.clone().proofs(&[&proof])
}

fn unbound_once(world: &World<'_>, era: Era) -> Call {
    let call = world.honest(era);
    let mut claims = call.claims();
    claims.content_digest = None;
    let key = call.key.clone().unwrap();
    call.proven_by(&key, &claims)
}

fn claims_of(call: &Call) -> Value {
    let proof = &call.proofs.as_ref().unwrap()[0];
    let claims = taper_dpop::base64url_decode(proof.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}
