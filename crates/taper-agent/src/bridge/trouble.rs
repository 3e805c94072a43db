//! What the bridge answers by itself, in the words of JSON-RPC.

use http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use taper_capability::escaped;
use taper_service::fetch::FetchError;

use crate::Error;

/// The longest text of another party that is passed on in an error, in characters.
const MAX_TEXT: usize = 512;

/// Why a request has no answer of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// There is no capability to present.
    #[error("the bridge has no usable capability: {0}")]
    Credential(String),
    /// The proxy does not accept the capability or its proof.
    #[error("the proxy does not accept the bridge's capability: {0}")]
    Refused(String),
    /// The grant itself has no such right.
    #[error(
        "the bridge's capability has no right to this{}; start the bridge with a capability that has it",
        wanted(scope.as_ref())
    )]
    Scope {
        /// What would be needed, as the proxy says.
        scope: Option<String>,
    },
    /// Nothing was sent.
    #[error("{0}; try again, and see whether the proxy runs and the bridge's `--url` is right")]
    Unreachable(String),
    /// No capability for now.
    #[error("no capability can be had from the issuer: {0}; try again")]
    Issuer(String),
    /// The request was sent, and there is no whole answer.
    #[error("{0}; the request may have been carried out, so look before it is sent again")]
    Broken(String),
    /// The request was sent, and there is no answer in time.
    #[error(
        "the proxy did not answer in time; the request may have been carried out, so look before it is sent again"
    )]
    TimedOut,
    /// The client has too many requests under way.
    #[error("{0} requests of this client are under way, which is the bridge's limit; wait for one to end")]
    Busy(usize),
    /// The message of the client is too large.
    #[error("the message is larger than {0} bytes, which is the bridge's limit")]
    TooLarge(usize),
    /// The message of the client did not arrive.
    #[error("the message did not arrive whole and in time")]
    Incomplete,
    /// The message of the client is no JSON.
    #[error("the message is not JSON")]
    NotJson,
    /// The message of the client is no request, notification or answer.
    #[error("the message is not one of JSON-RPC: {0}")]
    Malformed(&'static str),
    /// The client is not one of this listener.
    #[error("{0}")]
    Stranger(&'static str),
    /// What came is no answer.
    #[error("the answer is not usable: {0}")]
    Answer(String),
}

impl Trouble {
    /// The code of the JSON-RPC error: 4401 for what is to be put right at the bridge, 4403 and 4503 as
    /// the proxy says them.
    pub fn code(&self) -> i64 {
        match self {
            Self::Credential(_) | Self::Refused(_) => 4401,
            Self::Scope { .. } => 4403,
            Self::Unreachable(_) | Self::Issuer(_) | Self::Busy(_) => 4503,
            Self::NotJson => -32700,
            Self::TooLarge(_) | Self::Incomplete | Self::Malformed(_) | Self::Stranger(_) => -32600,
            Self::Broken(_) | Self::TimedOut | Self::Answer(_) => -32603,
        }
    }

    /// The HTTP status. Never 401: a client would begin to log in, and cannot.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Credential(_) | Self::Refused(_) | Self::Scope { .. } | Self::Stranger(_) => {
                StatusCode::FORBIDDEN
            }
            Self::Unreachable(_) | Self::Issuer(_) | Self::Broken(_) | Self::Answer(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::NotJson | Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The JSON-RPC error that answers the request `id`.
    pub fn to_message(&self, id: &Value) -> Value {
        json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": {"code": self.code(), "message": self.to_string()},
        })
    }
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::TimedOut { .. } => Self::TimedOut,
            other @ (FetchError::Connect { .. } | FetchError::Address { .. } | FetchError::Url(_)) => {
                Self::Unreachable(cut(&other.to_string()))
            }
            other => Self::Broken(cut(&other.to_string())),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Fetch(error) => Self::Issuer(cut(&error.to_string())),
            other => Self::Credential(cut(&other.to_string())),
        }
    }
}

/// Text of another party, printable and bounded.
pub(super) fn cut(text: &str) -> String {
    let short: String = text.chars().take(MAX_TEXT).collect();
    escaped(&short).to_string()
}

/// The id of the request that `body` is, as far as it can be told; `null` else.
pub(super) fn id_of(body: &[u8]) -> Value {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Head<'_>>(body)
        .ok()
        .and_then(|head| serde_json::from_str(head.id?.get()).ok())
        .filter(|id: &Value| id.is_string() || id.is_number())
        .unwrap_or_default()
}

fn wanted(scope: Option<&String>) -> String {
    scope.map(|scope| format!(" (`{scope}`)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answers_its_request() {
        for (body, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"x"}"#, json!(7)),
            (r#"{"id":"a"}"#, json!("a")),
            (r#"{"method":"x"}"#, Value::Null),
            (r#"{"id":null}"#, Value::Null),
            (r#"{"id":{}}"#, Value::Null),
            (r#"{"id":1,"id":2}"#, Value::Null),
            ("[]", Value::Null),
            ("", Value::Null),
            ("\u{feff}{\"id\":1}", Value::Null),
        ] {
            assert_eq!(id_of(body.as_bytes()), id, "{body}");
        }
        let message = Trouble::Busy(64).to_message(&json!(7));
        assert_eq!(message["id"], 7);
        assert_eq!(message["error"]["code"], 4503);
    }

    #[test]
    fn no_trouble_makes_a_client_log_in() {
        let all = [
            Trouble::Credential("x".into()),
            Trouble::Refused("x".into()),
            Trouble::Scope { scope: None },
            Trouble::Unreachable("x".into()),
            Trouble::Issuer("x".into()),
            Trouble::Broken("x".into()),
            Trouble::TimedOut,
            Trouble::Busy(1),
            Trouble::TooLarge(1),
            Trouble::Incomplete,
            Trouble::NotJson,
            Trouble::Malformed("x"),
            Trouble::Stranger("x"),
            Trouble::Answer("x".into()),
        ];
        for trouble in all {
            assert_ne!(trouble.status(), StatusCode::UNAUTHORIZED, "{trouble}");
            let code = trouble.code();
            assert!(matches!(code, -32700 | -32603 | -32600) || code > 0, "{trouble}");
        }
        // What may have been carried out is not to be tried again.
        let failed = |cause: &str| FetchError::Failed {
            host: "h".into(),
            cause: cause.into(),
        };
        for trouble in [failed("reset").into(), Trouble::TimedOut] {
            let text: String = Trouble::to_string(&trouble);
            assert!(
                !text.contains("try again") && text.contains("carried out"),
                "{text}"
            );
            assert_ne!(trouble.code(), 4503);
        }
        assert_eq!(cut("a\u{1b}[2J"), "a\\u{1b}[2J");
        assert_eq!(cut(&"x".repeat(1000)).len(), MAX_TEXT);
    }
}
