//! What is said when something is refused.
//!
//! [`OAuthError`] is the answer to a caller, in the words of RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 9396 §5,
//! RFC 9449 §5 and RFC 7009 §2.2.1. [`WireError`] says what is wrong with a document that was read,
//! [`JwtError`] why a token or a key of another issuer is not accepted; the program that received them
//! chooses the code of the answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::json;

/// The longest description of an answer, in characters.
pub const MAX_DESCRIPTION: usize = 256;
const MAX_ERROR_BODY: usize = 16 * 1024;

/// An error code of the RFCs named in the module's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// RFC 6749 §5.2; also a bad subject or actor token (RFC 8693 §2.2.2).
    InvalidRequest,
    /// RFC 6749 §5.2: client authentication failed.
    InvalidClient,
    /// RFC 6749 §5.2.
    InvalidGrant,
    /// RFC 6749 §5.2: this client may not use this grant.
    UnauthorizedClient,
    /// RFC 6749 §5.2.
    UnsupportedGrantType,
    /// RFC 6749 §5.2: unknown, malformed or wider than can be granted.
    InvalidScope,
    /// RFC 8693 §2.2.2, RFC 8707 §2: the `resource` or `audience` is unknown.
    InvalidTarget,
    /// RFC 9449 §5.
    InvalidDpopProof,
    /// RFC 9449 §8: repeat with the nonce of the answer's `DPoP-Nonce` header.
    UseDpopNonce,
    /// RFC 9396 §5.
    InvalidAuthorizationDetails,
    /// RFC 7009 §2.2.1.
    UnsupportedTokenType,
    /// RFC 6750 §3.1, at a resource: missing, expired, revoked or badly proven.
    InvalidToken,
    /// RFC 6750 §3.1, at a resource: a wider grant would help.
    InsufficientScope,
    /// RFC 6749 §4.1.2.1: try again later.
    TemporarilyUnavailable,
    /// RFC 6749 §4.1.2.1.
    ServerError,
}

impl ErrorCode {
    /// Every code, in the order of declaration.
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::InvalidDpopProof,
        Self::UseDpopNonce,
        Self::InvalidAuthorizationDetails,
        Self::UnsupportedTokenType,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::TemporarilyUnavailable,
        Self::ServerError,
    ];

    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::InvalidAuthorizationDetails => "invalid_authorization_details",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// The HTTP status of an answer of the authorization server with this code. A resource server answers
    /// the two proof codes with 401 and a challenge instead (RFC 9449 §7.1, §9).
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidClient | Self::InvalidToken => 401,
            Self::InsufficientScope => 403,
            Self::TemporarilyUnavailable => 503,
            Self::ServerError => 500,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::InvalidDpopProof
            | Self::UseDpopNonce
            | Self::InvalidAuthorizationDetails
            | Self::UnsupportedTokenType => 400,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or(WireError::UnknownErrorCode)
    }
}

/// A refusal as the caller gets it. The description holds only characters that RFC 6749 §5.2 allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {description}")]
pub struct OAuthError {
    code: ErrorCode,
    description: String,
}

impl OAuthError {
    /// A refusal; what RFC 6749 does not allow in `description` is replaced, what is too long is cut.
    pub fn new(code: ErrorCode, description: impl AsRef<str>) -> Self {
        Self {
            code,
            description: sanitize(description.as_ref()),
        }
    }

    /// The error code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Why, for the developer of the client.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The HTTP status of the answer, see [`ErrorCode::status`].
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// The JSON body of the answer.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: self.code.as_str().to_owned(),
            error_description: Some(self.description.clone()),
        }
    }
}

/// The JSON form of a refusal (RFC 6749 §5.2), ours or another server's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The code, which may be one that is not ours.
    pub error: String,
    /// Why, when it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

impl ErrorBody {
    /// Reads the body of another server's refusal, at most 16 KiB. The texts are sanitised, so that they can
    /// be shown.
    ///
    /// # Errors
    /// [`WireError`] when it is not strict JSON or has no `error`.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let body: Self = json::read(bytes, MAX_ERROR_BODY)?;
        Ok(Self {
            error: sanitize(&body.error),
            error_description: body.error_description.as_deref().map(sanitize),
        })
    }

    /// The code, when it is one of ours.
    pub fn code(&self) -> Option<ErrorCode> {
        self.error.parse().ok()
    }
}

/// What is wrong with a document or a field that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than the limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not JSON, or JSON that two parsers could read differently.
    #[error("not strict json: {0}")]
    Json(String),
    /// A scope that is not `server:tool` or `server:*`.
    #[error("malformed scope `{0}`")]
    Scope(String),
    /// More scopes than [`crate::scope::MAX_SCOPES`].
    #[error("too many scopes")]
    TooManyScopes,
    /// An entry of `authorization_details` that is not understood completely.
    #[error("malformed authorization detail: {0}")]
    Detail(String),
    /// A URL that is malformed, or not allowed in its place.
    #[error("unusable url: {0}")]
    Url(&'static str),
    /// Metadata that names another issuer or resource than the one it was asked for.
    #[error("metadata names `{found}` where `{expected}` was asked")]
    Identity {
        /// What was asked for.
        expected: String,
        /// What the document says.
        found: String,
    },
    /// A `WWW-Authenticate` header that does not follow RFC 9110 §11.6.1.
    #[error("malformed challenge: {0}")]
    Challenge(&'static str),
    /// An error code that this crate does not know.
    #[error("unknown error code")]
    UnknownErrorCode,
    /// A JWS algorithm that is unknown, symmetric or `none`.
    #[error("unsupported signature algorithm `{0}`")]
    Algorithm(String),
}

/// Why a token or a key of another issuer is not accepted. No variant carries token text or claim values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Header, claims, key set or discovery document cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Not the compact form of a JWS (RFC 7515 §3.1).
    #[error("malformed jwt: {0}")]
    Malformed(&'static str),
    /// `crit` or `b64`: an extension that must be understood (RFC 7515 §4.1.11) and is not.
    #[error("the jwt header demands an extension")]
    CriticalHeader,
    /// A required claim is absent.
    #[error("claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim has the wrong type or an impossible value.
    #[error("claim `{0}` is malformed")]
    MalformedClaim(&'static str),
    /// More claims than are handed to a policy; dropping some could hide what a policy denies.
    #[error("too many claims")]
    TooManyClaims,
    /// `iss` is not the configured issuer, byte for byte.
    #[error("the token is from another issuer")]
    Issuer,
    /// The algorithm is not one that the configuration accepts from this issuer.
    #[error("algorithm `{0}` is not accepted from this issuer")]
    AlgorithmNotAccepted(crate::SigningAlgorithm),
    /// The key is not the one the header names, or not of the algorithm's type.
    #[error("the key does not fit the token")]
    KeyMismatch,
    /// The signature does not verify.
    #[error("the signature is invalid")]
    Signature,
    /// `typ` does not fit the declared token type (RULES 26).
    #[error("the `typ` of the token does not fit its declared type")]
    WrongType,
    /// `aud` does not name this server.
    #[error("the token is for another audience")]
    Audience,
    /// An ID token that does not come from a confidential client named in it (RULES 26).
    #[error("an id token is accepted only from the confidential client that it was issued to")]
    Client,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` lies in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `cnf` binds the token in a way that cannot be checked here.
    #[error("the token is bound by a confirmation method that is not supported")]
    Confirmation,
    /// A key set that must not be used.
    #[error("unusable key set: {0}")]
    KeySet(&'static str),
    /// The issuer is not configured.
    #[error("unknown issuer")]
    UnknownIssuer,
    /// An answer arrived that nobody asked for, or too late.
    #[error("no fetch is under way")]
    NotFetching,
}

/// Keeps `%x20-21 / %x23-5B / %x5D-7E` (RFC 6749 §5.2), replaces the rest, cuts at [`MAX_DESCRIPTION`].
fn sanitize(text: &str) -> String {
    text.chars()
        .take(MAX_DESCRIPTION)
        .map(|c| match c {
            '"' => '\'',
            '\\' => '/',
            ' '..='~' => c,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_read_back_and_have_a_status() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!((400..600).contains(&code.status()));
        }
        assert_eq!(
            "invalid_Request".parse::<ErrorCode>(),
            Err(WireError::UnknownErrorCode)
        );
        assert_eq!(ErrorCode::InvalidClient.status(), 401);
        assert_eq!(ErrorCode::UseDpopNonce.status(), 400);
        assert_eq!(ErrorCode::TemporarilyUnavailable.status(), 503);
    }

    #[test]
    fn the_json_form_is_the_rfcs() {
        let error = OAuthError::new(ErrorCode::InvalidScope, "no `x`");
        let json = serde_json::to_string(&error.body()).unwrap();
        assert_eq!(json, r#"{"error":"invalid_scope","error_description":"no `x`"}"#);
        assert_eq!(
            ErrorBody::parse(json.as_bytes()).unwrap().code(),
            Some(ErrorCode::InvalidScope)
        );
    }

    #[test]
    fn a_foreign_code_is_kept_as_text_and_made_printable() {
        let body = ErrorBody::parse(br#"{"error":"x\u001b[31m","error_uri":"https://e"}"#).unwrap();
        assert_eq!(
            (body.error.as_str(), body.code(), body.error_description),
            ("x?[31m", None, None)
        );
    }

    proptest! {
        #[test]
        fn a_description_is_always_within_the_grammar(text in any::<String>()) {
            let error = OAuthError::new(ErrorCode::InvalidRequest, text);
            prop_assert!(error.description().chars().count() <= MAX_DESCRIPTION);
            prop_assert!(error.description().chars().all(|c| matches!(c, ' '..='!' | '#'..='[' | ']'..='~')));
        }
    }
}
