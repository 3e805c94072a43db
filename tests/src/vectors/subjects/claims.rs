//! The claims of a proof, nonces among them.

use serde_json::{Value, json};
use taper_dpop::base64url_encode;

use crate::book::Book;
use crate::parts::{hash, mint};
use crate::scene::{NOW, Scene};

pub(crate) fn vectors(book: &mut Book) {
    claims(book);
    odd_claims(book);
    fractions(book);
    nonces(book);
}

fn claims(book: &mut Book) {
    let mut claim = |name: &str, description: &str, rule: &str, claim: &'static str, value: Option<Value>| {
        book.refuse(&format!("proof/{name}"), description, rule, "accepted", |s| {
            s.claims(move |claims| match value {
                Some(value) => drop(claims.insert(claim.into(), value)),
                None => drop(claims.remove(claim)),
            });
        });
    };
    claim("htm-get", "A proof for GET.", "R-05", "htm", Some(json!("GET")));
    claim(
        "htm-lower-case",
        "The method in lower case.",
        "R-05",
        "htm",
        Some(json!("post")),
    );
    claim("htm-empty", "An empty method.", "R-05", "htm", Some(json!("")));
    for (name, description, url) in [
        (
            "htu-other-path",
            "A proof for another server.",
            "https://proxy.example/web/mcp",
        ),
        (
            "htu-other-host",
            "A proof for another host.",
            "https://evil.example/git/mcp",
        ),
        (
            "htu-http",
            "A proof for plain HTTP.",
            "http://proxy.example/git/mcp",
        ),
        (
            "htu-other-port",
            "A proof for another port.",
            "https://proxy.example:8443/git/mcp",
        ),
        (
            "htu-slash",
            "A slash at the end.",
            "https://proxy.example/git/mcp/",
        ),
        (
            "htu-path-in-capitals",
            "The path in capitals.",
            "https://proxy.example/GIT/mcp",
        ),
        (
            "htu-user",
            "User information.",
            "https://user@proxy.example/git/mcp",
        ),
        (
            "htu-dots",
            "Dots that a client would take out.",
            "https://proxy.example/web/../git/mcp",
        ),
        ("htu-path-only", "The path alone.", "/git/mcp"),
        ("htu-empty", "An empty URL.", ""),
    ] {
        claim(name, description, "R-06", "htu", Some(json!(url)));
    }
    claim(
        "iat-too-old",
        "301 seconds old.",
        "R-07",
        "iat",
        Some(json!(NOW - 301)),
    );
    claim(
        "iat-in-the-future",
        "61 seconds ahead.",
        "R-07",
        "iat",
        Some(json!(NOW + 61)),
    );
    claim("iat-zero", "Of 1970.", "R-07", "iat", Some(json!(0)));
    claim("iat-negative", "Before 1970.", "R-07", "iat", Some(json!(-1)));
    claim(
        "iat-largest",
        "The largest integer of 64 bits.",
        "R-07",
        "iat",
        Some(json!(i64::MAX)),
    );
    claim(
        "iat-smallest",
        "The smallest integer of 64 bits.",
        "R-07",
        "iat",
        Some(json!(i64::MIN)),
    );
    claim(
        "iat-milliseconds",
        "Milliseconds.",
        "R-07",
        "iat",
        Some(json!(NOW * 1000)),
    );
    claim("jti-empty", "An empty `jti`.", "R-08", "jti", Some(json!("")));
    claim(
        "jti-too-long",
        "A `jti` of 257 bytes.",
        "R-08",
        "jti",
        Some(json!("j".repeat(257))),
    );
    claim(
        "jti-too-many-bytes",
        "A `jti` of 129 characters, which are 258 bytes.",
        "R-08",
        "jti",
        Some(json!("é".repeat(129))),
    );
    claim(
        "ath-of-another-token",
        "The hash of another token.",
        "R-09",
        "ath",
        Some(json!(hash(b"other"))),
    );
    claim("ath-missing", "No `ath`.", "R-09", "ath", None);
    claim("ath-empty", "An empty `ath`.", "R-09", "ath", Some(json!("")));
    for (name, description, bend) in [
        (
            "ath-padded",
            "The `ath` has padding.",
            (|ath| format!("{ath}=")) as fn(&str) -> String,
        ),
        ("ath-cut", "The `ath` lacks its last character.", |ath| {
            ath[..42].to_owned()
        }),
        (
            "ath-other-alphabet",
            "The `ath` in the standard alphabet.",
            |ath| ath.replace('-', "+").replace('_', "/"),
        ),
    ] {
        book.refuse(&format!("proof/{name}"), description, "R-09", "accepted", |s| {
            s.claims(move |claims| {
                let good = claims["ath"].as_str().unwrap().to_owned();
                let bent = bend(&good);
                assert_ne!(bent, good, "the vector shows nothing");
                claims.insert("ath".into(), json!(bent));
            });
        });
    }
    let mut good = |name: &str, description: &str, claim: &'static str, value: Value| {
        book.accept(&format!("proof/{name}"), description, |s| {
            s.claims(move |claims| {
                claims.insert(claim.into(), value);
            });
        });
    };
    good("iat-oldest", "300 seconds old.", "iat", json!(NOW - 300));
    good("iat-newest", "60 seconds ahead.", "iat", json!(NOW + 60));
    good(
        "jti-longest",
        "A `jti` of 256 bytes.",
        "jti",
        json!("j".repeat(256)),
    );
    good("jti-short", "A `jti` of one byte.", "jti", json!("j"));
    good(
        "htu-query-and-fragment",
        "Query and fragment are ignored.",
        "htu",
        json!("https://proxy.example/git/mcp?a=b#c"),
    );
    good(
        "htu-host-in-capitals",
        "Scheme and host in capitals.",
        "htu",
        json!("HTTPS://PROXY.example/git/mcp"),
    );
    good(
        "htu-default-port",
        "The port that the scheme has anyway.",
        "htu",
        json!("https://proxy.example:443/git/mcp"),
    );
    good("claims-extra", "Claims that nobody reads.", "exp", json!(1));
}

fn odd_claims(book: &mut Book) {
    for claim in ["htm", "htu", "iat", "jti"] {
        let (missing, other) = (
            format!("proof/{claim}-missing"),
            format!("proof/{claim}-of-another-type"),
        );
        book.refuse(
            &missing,
            &format!("There is no `{claim}`."),
            "R-01",
            "R-01",
            |s| {
                s.claims(move |claims| drop(claims.remove(claim)));
            },
        );
        book.refuse(
            &other,
            &format!("`{claim}` is of another type."),
            "R-01",
            "R-01",
            |s| {
                s.claims(move |claims| {
                    let other = if claim == "iat" {
                        json!(NOW.to_string())
                    } else {
                        json!(1)
                    };
                    claims.insert(claim.into(), other);
                });
            },
        );
    }
}

fn fractions(book: &mut Book) {
    for (name, description, iat) in [
        ("with-a-fraction", "`iat` has a fraction.", "1800000000.5"),
        (
            "with-a-zero-fraction",
            "`iat` has a fraction of nothing.",
            "1800000000.0",
        ),
        ("with-an-exponent", "`iat` has an exponent.", "18e8"),
    ] {
        book.refuse(&format!("proof/iat-{name}"), description, "R-01", "R-01", |s| {
            s.segments(move |[_, claims]| {
                let bent = claims.replace("\"iat\":1800000000", &format!("\"iat\":{iat}"));
                assert_ne!(*claims, bent, "the vector shows nothing");
                *claims = bent;
            });
        });
    }
}

fn nonces(book: &mut Book) {
    let demand = |s: &mut Scene| {
        let key = s.random::<64>();
        s.nonce = Some((key, true));
    };
    let with = |s: &mut Scene, nonce: String| {
        s.claims(move |claims| {
            claims.insert("nonce".into(), json!(nonce));
        });
    };
    for (name, description, age) in [
        ("fresh", "A nonce of this second.", 0),
        ("oldest", "A nonce 300 seconds old.", 300),
    ] {
        book.accept(&format!("nonce/{name}"), description, |s| {
            demand(s);
            let nonce = s.mint(NOW - age);
            with(s, nonce);
        });
    }
    book.accept(
        "nonce/not-demanded",
        "No nonce is demanded, and none is there.",
        |s| {
            let key = s.random::<64>();
            s.nonce = Some((key, false));
        },
    );
    book.accept(
        "nonce/given-undemanded",
        "No nonce is demanded, and a fresh one is there.",
        |s| {
            let key = s.random::<64>();
            s.nonce = Some((key, false));
            let nonce = s.mint(NOW);
            with(s, nonce);
        },
    );
    book.accept(
        "nonce/of-another-server-undemanded",
        "The server has nonces and demands none; another server's is ignored.",
        |s| {
            let key = s.random::<64>();
            s.nonce = Some((key, false));
            with(s, "any".into());
        },
    );
    book.accept(
        "nonce/of-another-server-unused",
        "The server has no nonces; one that is there is ignored.",
        |s| with(s, "any".into()),
    );
    book.refuse(
        "nonce/missing",
        "A nonce is demanded, and none is there.",
        "R-10",
        "accepted",
        |s| demand(s),
    );
    for (name, description, age) in [
        ("stale", "A nonce 301 seconds old.", 301),
        ("of-the-future", "A nonce of one second ahead.", -1),
    ] {
        book.refuse(&format!("nonce/{name}"), description, "R-10", "accepted", |s| {
            demand(s);
            let nonce = s.mint(NOW - age);
            with(s, nonce);
        });
    }
    book.refuse(
        "nonce/of-another-server",
        "Another server's nonce.",
        "R-10",
        "accepted",
        |s| {
            demand(s);
            let other = s.random::<64>();
            with(s, mint(&other, NOW));
        },
    );
    for (name, description, without, bend) in [
        (
            "cut",
            "The nonce's tag has 15 bytes.",
            "accepted",
            (|nonce| {
                let bytes = taper_dpop::base64url_decode(nonce).unwrap();
                base64url_encode(&bytes[..23])
            }) as fn(&str) -> String,
        ),
        (
            "time-changed",
            "The nonce's time is a second later than the tag says.",
            "accepted",
            |nonce| {
                let mut bytes = taper_dpop::base64url_decode(nonce).unwrap();
                bytes[7] ^= 1;
                base64url_encode(&bytes)
            },
        ),
        ("empty", "An empty nonce.", "R-10", |_| String::new()),
        ("not-base64", "A nonce that is no base64url.", "R-10", |nonce| {
            format!("{nonce}=")
        }),
    ] {
        book.refuse(&format!("nonce/{name}"), description, "R-10", without, |s| {
            demand(s);
            let nonce = bend(&s.mint(NOW - 100));
            with(s, nonce);
        });
    }
}
