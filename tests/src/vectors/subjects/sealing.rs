//! What a proof's signature and digest hold together.

use std::rc::Rc;

use serde_json::{Map, Value, json};
use taper_dpop::base64url_encode;

use super::proof::p256;
use crate::book::Book;
use crate::kit;
use crate::parts::digest;

pub(crate) fn vectors(book: &mut Book) {
    signatures(book);
    bodies(book);
}

fn signatures(book: &mut Book) {
    let mut bend = |name: &str, description: &str, p256_key: bool, bend: fn(&mut Vec<u8>)| {
        book.refuse(
            &format!("proof/signature-{name}"),
            description,
            "R-11",
            "accepted",
            |s| {
                if p256_key {
                    p256(s);
                }
                s.signature(bend);
            },
        );
    };
    bend("bit", "One bit of the signature is flipped.", false, |sig| {
        sig[10] ^= 1
    });
    bend(
        "bit-p256",
        "One bit of a P-256 signature is flipped.",
        true,
        |sig| sig[10] ^= 1,
    );
    bend("empty", "The signature has no bytes.", false, Vec::clear);
    bend("cut", "The signature has 63 bytes.", false, |sig| {
        sig.truncate(63)
    });
    bend("zero", "All bytes of the signature are zero.", false, |sig| {
        sig.fill(0)
    });
    bend(
        "zero-p256",
        "r and s of a P-256 signature are zero.",
        true,
        |sig| sig.fill(0),
    );
    bend(
        "plus-order",
        "The second half of the signature is larger than the order of the group.",
        false,
        |sig| *sig = kit::plus_order(sig),
    );
    bend("der", "A P-256 signature in DER.", true, |sig| {
        *sig = kit::der(sig.as_slice().try_into().unwrap());
    });
    book.accept(
        "proof/signature-high-s",
        "A P-256 signature with a high s.",
        |s| {
            p256(s);
            s.signature(|sig| *sig = kit::high_s(sig.as_slice().try_into().unwrap()).to_vec());
        },
    );
    book.refuse(
        "proof/signature-by-another-key",
        "The key is the holder's, the signature a thief's.",
        "R-11",
        "accepted",
        |s| {
            let holder = s.keys.alice.public().to_jwk();
            s.presenter = Rc::clone(&s.keys.mallory);
            s.header(move |h| {
                h.insert("jwk".into(), serde_json::to_value(holder).unwrap());
            });
        },
    );
    book.refuse(
        "proof/claims-changed",
        "A captured proof with another `jti`.",
        "R-11",
        "accepted",
        |s| {
            s.proof(|proof| {
                let parts: Vec<&str> = proof.split('.').collect();
                let claims = taper_dpop::base64url_decode(parts[1]).unwrap();
                let mut claims: Map<String, Value> = serde_json::from_slice(&claims).unwrap();
                claims.insert("jti".into(), json!("another"));
                let claims = base64url_encode(Value::Object(claims).to_string().as_bytes());
                *proof = format!("{}.{claims}.{}", parts[0], parts[2]);
            });
        },
    );
}

fn bodies(book: &mut Book) {
    book.accept(
        "body/no-digest",
        "A proof of plain DPoP carries no digest.",
        |s| {
            s.claims(|claims| drop(claims.remove("content_digest")));
        },
    );
    book.accept("body/empty", "The digest of an empty body.", |s| {
        s.ask("plumbing", "GET");
        s.method = "GET";
        s.body = Some(Vec::new());
    });
    let mut other = |name: &str, description: &str, body: &'static [u8]| {
        book.refuse(&format!("body/{name}"), description, "R-12", "accepted", |s| {
            s.claims(move |claims| {
                claims.insert("content_digest".into(), json!(digest(body)));
            });
        });
    };
    other("of-another", "The digest of another body.", b"{}");
    other("of-nothing", "The digest of an empty body.", b"");
    let mut spelling = |name: &str, description: &str, bend: fn(&str) -> String| {
        book.refuse(&format!("body/{name}"), description, "R-12", "accepted", |s| {
            s.claims(move |claims| {
                let good = claims["content_digest"].as_str().unwrap().to_owned();
                claims.insert("content_digest".into(), json!(bend(&good)));
            });
        });
    };
    spelling("sha-512-label", "The digest says to be another one.", |d| {
        d.replace("256", "512")
    });
    spelling("two-members", "The digest has two members.", |d| {
        format!("{d}, {d}")
    });
    spelling("no-colons", "The digest has no colons.", |d| d.replace(':', ""));
    spelling("no-padding", "The digest's base64 has no padding.", |d| {
        d.replace("=:", ":").replace("256:", "256=:")
    });
    spelling("capitals", "The name of the digest in capitals.", |d| {
        d.replace("sha", "SHA")
    });
    spelling("empty-digest", "An empty digest.", |_| String::new());
}
