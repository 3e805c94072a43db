//! The form of a proof, its header and its key (R-01 to R-04).

use serde_json::{Map, Value, json};
use std::rc::Rc;
use taper_dpop::base64url_encode;

use crate::book::Book;
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    form(book);
    header(book);
    keys(book);
}

fn form(book: &mut Book) {
    let mut text = |name: &str, description: &str, bend: fn(&mut String)| {
        book.refuse(&format!("proof/{name}"), description, "R-01", "R-01", |s| {
            s.proof(bend)
        });
    };
    text("empty", "No proof at all.", String::clear);
    text("two-segments", "The signature is missing with its dot.", |p| {
        p.truncate(p.rfind('.').unwrap());
    });
    text("four-segments", "There is a fourth segment.", |p| {
        p.push_str(".AAAA")
    });
    text("padding", "The signature has padding.", |p| p.push_str("=="));
    text("newline", "A newline stands at the end.", |p| p.push('\n'));
    text("not-base64", "The header is not base64url.", |p| p.insert(0, '{'));
    text("json-serialization", "The JSON serialization of JWS.", |p| {
        let parts: Vec<&str> = p.split('.').collect();
        *p = format!(
            r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#,
            parts[0], parts[1], parts[2]
        );
    });
    book.accept("proof/longest", "A proof of 4,096 bytes.", |s| {
        long(s, 4096, 2649)
    });
    book.refuse(
        "proof/too-long",
        "A proof of 4,097 bytes.",
        "R-01",
        "accepted",
        |s| {
            long(s, 4097, 2650);
        },
    );
    let mut json = |name: &str, description: &str, bend: fn(&mut [String; 2])| {
        book.refuse(&format!("proof/{name}"), description, "R-01", "R-01", |s| {
            s.segments(bend)
        });
    };
    json("header-no-json", "The header is no JSON.", |[header, _]| {
        *header = "typ".into()
    });
    json("claims-no-json", "The claims are no JSON.", |[_, claims]| {
        claims.push('}')
    });
    json("header-array", "The header is an array.", |[header, _]| {
        *header = "[]".into()
    });
    json(
        "header-member-twice",
        "The header has `alg` twice, with one value.",
        |[header, _]| {
            *header = header.replacen(r#""alg""#, r#""alg":"EdDSA","alg""#, 1);
        },
    );
    json(
        "jwk-member-twice",
        "The key has `x` twice, with one value.",
        |[header, _]| {
            let x = header
                .split(r#""x":""#)
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned();
            *header = header.replacen(r#""x""#, &format!(r#""x":"{x}","x""#), 1);
        },
    );
    json(
        "claim-twice",
        "There are two `htm`, with one value.",
        |[_, claims]| {
            *claims = claims.replacen(r#""htm""#, r#""htm":"POST","htm""#, 1);
        },
    );
    json(
        "claim-twice-escaped",
        "There are two `htm`, of which one is escaped.",
        |[_, claims]| {
            *claims = claims.replacen(r#""htm""#, r#""ht\u006d":"POST","htm""#, 1);
        },
    );
    json(
        "unused-claim-twice",
        "There are two claims of a name that nobody reads.",
        |[_, claims]| {
            *claims = claims.replacen('{', r#"{"foo":1,"foo":1,"#, 1);
        },
    );
    json("claims-array", "The claims are an array.", |[_, claims]| {
        *claims = format!("[{claims}]")
    });
    json(
        "nul-in-a-claim",
        "A claim that nobody reads has a NUL.",
        |[_, claims]| {
            *claims = claims.replacen('{', r#"{"foo":"\u0000","#, 1);
        },
    );
    json(
        "too-deep-claim",
        "A claim that nobody reads is 30 levels deep.",
        |[_, claims]| {
            let deep = format!("{}{}", "[".repeat(30), "]".repeat(30));
            *claims = claims.replacen('{', &format!("{{\"foo\":{deep},"), 1);
        },
    );
}

/// A proof of exactly `length` bytes, by a claim that nobody reads.
fn long(s: &mut Scene, length: usize, filler: usize) {
    s.claims(move |claims| {
        claims.insert("filler".into(), json!("x".repeat(filler)));
    });
    s.proof(move |proof| assert_eq!(proof.len(), length, "the filler is not of the right length"));
}

fn header(book: &mut Book) {
    let mut member =
        |name: &str, description: &str, rule: &str, without: &str, bend: fn(&mut Map<String, Value>)| {
            book.refuse(&format!("proof/{name}"), description, rule, without, |s| {
                s.header(bend)
            });
        };
    let mut set = |name: &str, description: &str, rule: &str, without: &str, bend| {
        member(name, description, rule, without, bend);
    };
    set("typ-jwt", "`typ` is `JWT`.", "R-02", "accepted", |h| {
        h.insert("typ".into(), json!("JWT"));
    });
    set(
        "typ-in-capitals",
        "`typ` is in capitals.",
        "R-02",
        "accepted",
        |h| {
            h.insert("typ".into(), json!("DPOP+JWT"));
        },
    );
    set(
        "typ-long",
        "`typ` has the prefix `application/`.",
        "R-02",
        "accepted",
        |h| {
            h.insert("typ".into(), json!("application/dpop+jwt"));
        },
    );
    set("typ-missing", "There is no `typ`.", "R-02", "accepted", |h| {
        h.remove("typ");
    });
    set(
        "crit",
        "A `crit` demands an extension.",
        "R-02",
        "accepted",
        |h| {
            h.insert("crit".into(), json!(["exp"]));
        },
    );
    set(
        "crit-empty",
        "A `crit` that lists nothing.",
        "R-02",
        "accepted",
        |h| {
            h.insert("crit".into(), json!([]));
        },
    );
    set("crit-null", "A `crit` that is null.", "R-02", "accepted", |h| {
        h.insert("crit".into(), json!(null));
    });
    set("alg-none", "`alg` is `none`.", "R-03", "accepted", |h| {
        h.insert("alg".into(), json!("none"));
    });
    set("alg-missing", "There is no `alg`.", "R-03", "accepted", |h| {
        h.remove("alg");
    });
    set("alg-hs256", "`alg` is `HS256`.", "R-03", "accepted", |h| {
        h.insert("alg".into(), json!("HS256"));
    });
    set(
        "alg-of-the-other-kind",
        "`alg` is `ES256` and the key Ed25519.",
        "R-03",
        "accepted",
        |h| {
            h.insert("alg".into(), json!("ES256"));
        },
    );
    set(
        "alg-in-lower-case",
        "`alg` is `eddsa`.",
        "R-03",
        "accepted",
        |h| {
            h.insert("alg".into(), json!("eddsa"));
        },
    );
    set(
        "alg-ed25519",
        "`alg` is the name of RFC 9864.",
        "R-03",
        "accepted",
        |h| {
            h.insert("alg".into(), json!("Ed25519"));
        },
    );
    book.refuse(
        "proof/alg-none-unsigned",
        "`alg` is `none` and there is no signature.",
        "R-03",
        "R-11",
        |s| {
            s.header(|h| {
                h.insert("alg".into(), json!("none"));
            });
            s.signature(Vec::clear);
        },
    );
    book.accept(
        "proof/header-extra",
        "Members of the header that say nothing are ignored.",
        |s| {
            s.header(|h| {
                h.insert("kid".into(), json!("1"));
                h.insert("jku".into(), json!("https://evil.example/jwks"));
            });
        },
    );
}

fn keys(book: &mut Book) {
    book.accept("proof/p256", "A proof with a P-256 key.", p256);
    book.accept(
        "proof/jwk-extra",
        "Members of the key that say nothing are ignored.",
        |s| {
            s.header(|h| {
                jwk(h).insert("use".into(), json!("sig"));
                jwk(h).insert("kid".into(), json!("1"));
            });
        },
    );
    let mut ed25519 = |name: &str, description: &str, without: &str, bend: fn(&mut Map<String, Value>)| {
        book.refuse(&format!("proof/{name}"), description, "R-04", without, |s| {
            s.header(bend)
        });
    };
    ed25519("jwk-missing", "There is no key.", "R-04", |h| {
        h.remove("jwk");
    });
    ed25519(
        "jwk-private",
        "The key has its private member.",
        "accepted",
        |h| {
            jwk(h).insert("d".into(), json!(base64url_encode(&[7; 32])));
        },
    );
    ed25519(
        "jwk-private-null",
        "The private member is null.",
        "accepted",
        |h| {
            jwk(h).insert("d".into(), json!(null));
        },
    );
    ed25519("jwk-x25519", "A key for key agreement.", "R-04", |h| {
        jwk(h).insert("crv".into(), json!("X25519"));
    });
    ed25519(
        "jwk-of-other-kind",
        "An Ed25519 key that is called an EC key.",
        "R-04",
        |h| {
            jwk(h).insert("kty".into(), json!("EC"));
        },
    );
    ed25519("jwk-symmetric", "A symmetric key.", "R-04", |h| {
        h.insert(
            "jwk".into(),
            json!({"kty": "oct", "k": "AAAA", "crv": "", "x": ""}),
        );
    });
    ed25519("jwk-rsa", "An RSA key.", "R-04", |h| {
        h.insert("jwk".into(), json!({"kty": "RSA", "n": "AAAA", "e": "AQAB"}));
    });
    ed25519("jwk-weak", "The neutral point of Ed25519.", "R-04", |h| {
        let mut point = [0; 32];
        point[0] = 1;
        jwk(h).insert("x".into(), json!(base64url_encode(&point)));
    });
    ed25519(
        "jwk-second-spelling",
        "A coordinate that is not reduced.",
        "R-04",
        |h| {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (0xed + 3, 0x7f);
            jwk(h).insert("x".into(), json!(base64url_encode(&point)));
        },
    );
    ed25519("jwk-short", "A key of 31 bytes.", "R-04", |h| {
        jwk(h).insert("x".into(), json!(base64url_encode(&[7; 31])));
    });
    ed25519("jwk-padding", "The key's base64url has padding.", "R-04", |h| {
        let x = format!("{}=", jwk(h)["x"].as_str().unwrap());
        jwk(h).insert("x".into(), json!(x));
    });
    let mut p256_key = |name: &str, description: &str, bend: fn(&mut Map<String, Value>)| {
        book.refuse(&format!("proof/{name}"), description, "R-04", "R-04", |s| {
            p256(s);
            s.header(bend);
        });
    };
    p256_key("jwk-p384", "Another curve.", |h| {
        jwk(h).insert("crv".into(), json!("P-384"));
    });
    p256_key("jwk-without-y", "A P-256 key with one coordinate.", |h| {
        jwk(h).remove("y");
    });
    p256_key("jwk-off-the-curve", "A point that is not on the curve.", |h| {
        let x = jwk(h)["x"].clone();
        jwk(h).insert("y".into(), x);
    });
    p256_key("jwk-short-coordinate", "A coordinate of 31 bytes.", |h| {
        jwk(h).insert("y".into(), json!(base64url_encode(&[7; 31])));
    });
}

fn jwk(header: &mut Map<String, Value>) -> &mut Map<String, Value> {
    header["jwk"].as_object_mut().expect("a key is an object")
}

/// Pat holds and presents.
pub(super) fn p256(s: &mut Scene) {
    let pat = Rc::clone(&s.keys.pat);
    s.hand_over(&pat);
}
