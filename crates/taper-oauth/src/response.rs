//! The answer to a token request (RFC 6749 §5.1, RFC 8693 §2.2.1): written by the issuer, read by the agent.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::details::McpDetail;
use crate::error::WireError;
use crate::exchange::TOKEN_TYPE_CAPABILITY;
use crate::json;
use crate::scope::{self, Scope};
use crate::secret::{self, Secret};

/// `token_type` of every answer: the token is bound to the key of the request's proof (RFC 9449 §5).
pub const TOKEN_TYPE_DPOP: &str = "DPoP";
/// The largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 256 * 1024;

/// The answer to a token request (RFC 8693 §2.2.1). Send it with `Cache-Control: no-store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The capability.
    #[serde(
        serialize_with = "secret::serialize_exposed",
        deserialize_with = "secret::deserialize"
    )]
    pub access_token: Secret,
    /// The URN of what `access_token` is. Required in the answer to an exchange.
    pub issued_token_type: String,
    /// How it is used: [`TOKEN_TYPE_DPOP`].
    pub token_type: String,
    /// Its remaining lifetime in seconds.
    pub expires_in: u64,
    /// What was granted, space-separated; may be narrower than what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What was granted, in long form (RFC 9396 §7).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_details: Vec<McpDetail>,
}

impl TokenResponse {
    /// The answer that carries a capability, valid for `expires_in` seconds. An empty scope is left out.
    pub fn capability(
        access_token: Secret,
        expires_in: u64,
        scope: &[Scope],
        authorization_details: Vec<McpDetail>,
    ) -> Self {
        Self {
            access_token,
            issued_token_type: TOKEN_TYPE_CAPABILITY.to_owned(),
            token_type: TOKEN_TYPE_DPOP.to_owned(),
            expires_in,
            scope: (!scope.is_empty()).then(|| scope::format_list(scope)),
            authorization_details,
        }
    }

    /// The body of the answer.
    ///
    /// # Errors
    /// [`WireError::Json`], never for parts made by this crate.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        serde_json::to_vec(self)
            .map(Zeroizing::new)
            .map_err(|error| WireError::Json(error.to_string()))
    }

    /// Reads the answer of an issuer, at most [`MAX_ANSWER`] bytes.
    ///
    /// # Errors
    /// [`WireError`] when it is not strict JSON or not an answer with a capability bound by DPoP.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let response: Self = json::read(bytes, MAX_ANSWER)?;
        // RFC 6749 §5.1: the value of `token_type` is case-insensitive.
        if !response.token_type.eq_ignore_ascii_case(TOKEN_TYPE_DPOP) {
            return Err(WireError::Json("`token_type` is not `DPoP`".to_owned()));
        }
        if response.issued_token_type != TOKEN_TYPE_CAPABILITY {
            return Err(WireError::Json(
                "`issued_token_type` is not a capability".to_owned(),
            ));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::TOKEN_TYPE_ACCESS_TOKEN;

    #[test]
    fn the_answer_is_the_rfcs() {
        let scope = scope::parse_list("git:git_log").unwrap();
        let response = TokenResponse::capability(Secret::new("En0K"), 300, &scope, Vec::new());
        let json = response.to_json().unwrap();
        assert_eq!(
            std::str::from_utf8(&json).unwrap(),
            r#"{"access_token":"En0K","issued_token_type":"urn:taper:params:oauth:token-type:capability","token_type":"DPoP","expires_in":300,"scope":"git:git_log"}"#
        );
        assert_eq!(TokenResponse::parse(&json).unwrap(), response);
    }

    #[test]
    fn a_bearer_answer_is_not_ours() {
        let check = |from: &str, to: &str| {
            let json = TokenResponse::capability(Secret::new("t"), 1, &[], Vec::new())
                .to_json()
                .unwrap();
            let json = String::from_utf8(json.to_vec()).unwrap();
            assert!(json.contains(from));
            TokenResponse::parse(json.replace(from, to).as_bytes()).is_ok()
        };
        assert!(check("\"DPoP\"", "\"dpop\""));
        assert!(!check("\"DPoP\"", "\"Bearer\""));
        assert!(!check(TOKEN_TYPE_CAPABILITY, TOKEN_TYPE_ACCESS_TOKEN));
        assert!(!check("\"expires_in\":1", "\"expires_in\":-1"));
    }

    #[test]
    fn a_token_does_not_print() {
        let response = TokenResponse::capability(Secret::new("hunter2"), 60, &[], Vec::new());
        assert!(!format!("{response:?}").contains("hunter2"));
    }
}
