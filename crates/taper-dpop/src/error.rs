//! Why a key, a digest or a proof was refused.

use crate::rule::{RuleId, r};

/// Why a key, a digest or a proof was refused. No message carries a secret or a whole token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not base64url without padding.
    #[error("not base64url without padding")]
    Base64,
    /// A key of an unknown kind, a wrong length, not on the curve, or a weak one.
    #[error("unusable key: {0}")]
    Key(&'static str),
    /// Not `sha-256=:…:`.
    #[error("not a `sha-256=:…:` digest")]
    Digest,
    /// The proof is not a compact JWS of at most the allowed size.
    #[error("the proof is not a compact JWS of at most {max} bytes")]
    Form {
        /// The limit in bytes.
        max: usize,
    },
    /// A segment of the proof is not the JSON that RFC 9449 section 4.2 asks for.
    #[error("the proof's {part} is not valid: {reason}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// What the JSON parser objected to (a position, never a value).
        reason: String,
    },
    /// `typ` is not `dpop+jwt`, or there is a `crit`.
    #[error("the proof's `typ` is not `dpop+jwt`, or it has a `crit`")]
    Typ,
    /// `alg` is not `EdDSA` or `ES256`, or does not fit the key.
    #[error("the proof's `alg` is not `EdDSA` or `ES256`, or does not fit its key")]
    Alg,
    /// The header's `jwk` is not usable.
    #[error("the proof's `jwk` is not usable: {0}")]
    Jwk(&'static str),
    /// `htm` differs.
    #[error("the proof is for another method")]
    Htm,
    /// `htu` differs.
    #[error("the proof is for another URL, `{expected}` is wanted")]
    Htu {
        /// The URL this endpoint is known by.
        expected: String,
    },
    /// `iat` is outside the window.
    #[error("the proof's `iat` is {0}")]
    Iat(&'static str),
    /// `jti` is missing, empty or too long.
    #[error("the proof's `jti` is empty or longer than 256 bytes")]
    Jti,
    /// `ath` is missing, or of another token.
    #[error("the proof's `ath` is not the hash of this token")]
    Ath,
    /// A nonce is demanded, or the one given is not ours or stale.
    #[error("a fresh server nonce is required")]
    Nonce,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// `content_digest` is missing or of another body.
    #[error("the proof does not carry the digest of this body")]
    ContentDigest,
}

impl Error {
    /// The rule that was broken. Errors about bare keys and texts count as a malformed proof.
    #[must_use]
    pub fn rule(&self) -> RuleId {
        match self {
            Self::Base64 | Self::Form { .. } | Self::Json { .. } => r::FORM,
            Self::Typ => r::TYP,
            Self::Alg => r::ALG,
            Self::Key(_) | Self::Jwk(_) => r::JWK,
            Self::Htm => r::HTM,
            Self::Htu { .. } => r::HTU,
            Self::Iat(_) => r::IAT,
            Self::Jti => r::JTI,
            Self::Ath => r::ATH,
            Self::Nonce => r::NONCE,
            Self::Signature => r::SIGNATURE,
            Self::Digest | Self::ContentDigest => r::CONTENT_DIGEST,
        }
    }
}
