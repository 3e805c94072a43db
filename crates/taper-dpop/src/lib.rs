//! RFC 9449 proofs of possession, and the one key type that everyone shares.
//!
//! Pure: no IO, no clock, no ambient randomness; `now` (seconds since the Unix epoch) and `rng`
//! are arguments. A proof goes through three types, each obtainable only from the one before:
//!
//! ```text
//! header → Proof (parsed) → CheckedProof (claims fit the request) → VerifiedProof (signature)
//! ```
//!
//! The numbered rules (R-nn) are those of `spec/presentation.md`. Beside proofs there is one other
//! signature in JOSE form that is verified here, [`DetachedJws`], and one that is only made, [`sign_compact`].

mod digest;
mod encoding;
mod error;
pub mod json;
mod jws;
mod key;
mod nonce;
mod proof;
pub mod rule;

pub use digest::{ContentDigest, TokenHash};
pub use encoding::{base64url_decode, base64url_encode};
pub use error::Error;
pub use jws::{DetachedJws, JwsError, MAX_JWS_BYTES, sign_compact, sign_detached};
pub use key::{Algorithm, Jwk, PrivateKey, PublicKey, Thumbprint};
pub use nonce::{NONCE_LIFETIME, NonceKey, NonceKeys};
pub use proof::{
    CheckedProof, Expectation, Known, MAX_AGE, MAX_FUTURE, MAX_PROOF_BYTES, NonceRule, Proof, ProofClaims,
    VerifiedProof, head_of, htu_of,
};
pub use rule::RuleId;
