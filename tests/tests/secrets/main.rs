//! No secret is ever told: a whole story with everything logged, counted and traced, then a search.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod agent;
mod log;
mod telemetry;

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::Value;
use taper_dpop::{base64url_decode, base64url_encode};

const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// So many characters of a secret in a row are a leak of it.
const WINDOW: usize = 24;

/// Every run of [`WINDOW`] bytes of a log.
struct Search<'a>(HashSet<&'a [u8]>);

impl<'a> Search<'a> {
    fn of(log: &'a str) -> Self {
        Self(log.as_bytes().windows(WINDOW).collect())
    }

    /// Whether the log has a part of `secret`, in any spelling.
    fn finds(&self, secret: &str) -> bool {
        spellings(secret).iter().any(|spelling| {
            assert!(spelling.len() >= WINDOW, "too short to be searched for");
            spelling
                .as_bytes()
                .windows(WINDOW)
                .any(|part| self.0.contains(part))
        })
    }
}

/// A secret in the spellings in which a program may print it.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    let bytes = base64url_decode(secret).unwrap_or_else(|_| secret.as_bytes().to_vec());
    for bytes in [bytes, secret.as_bytes().to_vec()] {
        let mut hex = String::new();
        bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        all.push(hex.to_ascii_uppercase());
        all.push(hex);
        let debug = format!("{bytes:?}");
        all.push(debug.trim_matches(['[', ']']).to_owned());
        let encoded = base64url_encode(&bytes);
        all.push(encoded.replace('-', "+").replace('_', "/"));
        all.push(encoded);
    }
    all
}

/// The secret part of a private JWK.
fn d(jwk: &str) -> String {
    let jwk: Value = serde_json::from_str(jwk).unwrap();
    jwk["d"].as_str().expect("a private key").to_owned()
}

/// Every private JWK below a folder, by file name.
fn private_keys(dir: &std::path::Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            private_keys(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(Value::Object(jwk)) = serde_json::from_str(&text)
            && jwk.contains_key("d")
        {
            found.push((path.display().to_string(), d(&text)));
        }
    }
}

/// None of `secrets` is in any of `texts`, and each would be found there. Both have names.
#[track_caller]
fn assert_none(texts: &[(&str, &str)], secrets: &[(String, String)]) {
    for (place, told) in texts {
        let search = Search::of(told);
        for (name, secret) in secrets {
            assert!(!search.finds(secret), "{place} holds {name}:\n{told}");
            let planted = format!("{told}{secret}");
            assert!(
                Search::of(&planted).finds(secret),
                "{name} would not be found in {place}"
            );
        }
    }
}
