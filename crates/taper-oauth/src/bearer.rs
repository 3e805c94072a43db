//! The answer of another authorization server to a token request of ours, of which a bearer token is
//! wanted (RFC 6749 §5.1, RFC 8693 §2.2.1).

use serde::Deserialize;

use crate::error::WireError;
use crate::exchange::{TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT};
use crate::json;
use crate::secret::{self, Secret};

/// The largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The longest token, in bytes: it has to fit into a header.
pub const MAX_TOKEN: usize = 8 * 1024;

/// A bearer token and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BearerResponse {
    /// The token, of the characters that RFC 6750 §2.1 allows.
    #[serde(deserialize_with = "secret::deserialize")]
    pub access_token: Secret,
    /// How it is used; `Bearer` in any case of letters.
    pub token_type: String,
    /// Its lifetime in seconds, where the server says it.
    #[serde(default)]
    pub expires_in: Option<u64>,
    /// The URN of what it is, in the answer to an exchange.
    #[serde(default)]
    pub issued_token_type: Option<String>,
}

impl BearerResponse {
    /// Reads the answer, at most [`MAX_ANSWER`] bytes. Members that are not known here are ignored.
    ///
    /// # Errors
    /// [`WireError`]: too large, not strict JSON, another type of token, a token that is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let response: Self = json::read(bytes, MAX_ANSWER)?;
        let refused = |reason: &str| Err(WireError::Json(reason.to_owned()));
        if !response.token_type.eq_ignore_ascii_case("Bearer") {
            return refused("`token_type` is not `Bearer`");
        }
        let token = response.access_token.expose();
        if token.is_empty() || token.len() > MAX_TOKEN || !is_b64token(token) {
            return refused("`access_token` is not a bearer token");
        }
        Ok(response)
    }

    /// As [`BearerResponse::parse`], of the answer to an exchange: it says what was issued, and that is an
    /// access token (RFC 8693 §2.2.1).
    ///
    /// # Errors
    /// [`WireError`].
    pub fn parse_exchanged(bytes: &[u8]) -> Result<Self, WireError> {
        let response = Self::parse(bytes)?;
        match response.issued_token_type.as_deref() {
            Some(TOKEN_TYPE_ACCESS_TOKEN | TOKEN_TYPE_JWT) => Ok(response),
            _ => Err(WireError::Json(
                "`issued_token_type` is not an access token".to_owned(),
            )),
        }
    }
}

/// RFC 6750 §2.1.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, plain: bool, exchanged: bool) {
        assert_eq!(BearerResponse::parse(json.as_bytes()).is_ok(), plain, "{json}");
        let got = BearerResponse::parse_exchanged(json.as_bytes());
        assert_eq!(got.is_ok(), exchanged, "{json}");
    }

    #[test]
    fn only_a_bearer_token_is_one() {
        let answer = |token: &str, kind: &str, more: &str| {
            format!(r#"{{"access_token":"{token}","token_type":"{kind}"{more}}}"#)
        };
        check(
            &answer("t.a-_~+/=", "bearer", r#","expires_in":5,"x":1"#),
            true,
            false,
        );
        check(&answer("t", "Bearer", ""), true, false);
        for (urn, exchanged) in [
            (TOKEN_TYPE_ACCESS_TOKEN, true),
            (TOKEN_TYPE_JWT, true),
            (crate::exchange::TOKEN_TYPE_ID_TOKEN, false),
            ("urn:ietf:params:oauth:token-type:refresh_token", false),
        ] {
            let more = format!(r#","issued_token_type":"{urn}""#);
            check(&answer("t", "Bearer", &more), true, exchanged);
        }
        for bad in ["", "a b", "a\\r\\nx: y", "=", "ä", "a,b"] {
            check(&answer(bad, "Bearer", ""), false, false);
        }
        check(&answer(&"t".repeat(MAX_TOKEN + 1), "Bearer", ""), false, false);
        check(&answer("t", "DPoP", ""), false, false);
        check(&answer("t", "N_A", ""), false, false);
        check(&answer("t", "Bearer", r#","expires_in":-1"#), false, false);
        check(&answer("t", "Bearer", r#","expires_in":"9""#), false, false);
        check(&answer("t", "Bearer", r#","token_type":"Bearer""#), false, false);
        check("<html>", false, false);
        check(&" ".repeat(MAX_ANSWER + 1), false, false);
    }

    #[test]
    fn a_token_does_not_print() {
        let answer = br#"{"access_token":"hunter2","token_type":"Bearer"}"#;
        let response = BearerResponse::parse(answer).unwrap();
        assert!(!format!("{response:?}").contains("hunter2"));
    }
}
