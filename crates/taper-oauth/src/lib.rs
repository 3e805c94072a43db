//! OAuth on the wire as types, and the checking of JWTs.
//!
//! Pure: no IO, no clock, no randomness. Everything that arrives is bounded before it is parsed, parsed
//! strictly (no duplicate fields, no lossy decoding) and refused in the words of the RFC that names the
//! field. Time is `now`, seconds since the Unix epoch.
//!
//! - what arrives at a token endpoint: [`form`], [`client_auth`], [`exchange`], [`scope`], [`details`];
//! - what goes out: [`response`], [`error`], [`challenge`], [`metadata`];
//! - what a client of another authorization server sends and reads: [`assertion`], [`bearer`];
//! - tokens of other issuers: [`jwt`], [`claims`], [`mod@provenance`], with their keys in [`jwk`] and the cache
//!   of keys as a state machine in [`jwks`].

pub mod algorithm;
pub mod assertion;
pub mod bearer;
pub mod challenge;
pub mod claims;
pub mod client_auth;
pub mod details;
pub mod error;
pub mod exchange;
pub mod form;
pub mod json;
pub mod jwk;
pub mod jwks;
pub mod jwt;
pub mod metadata;
pub mod provenance;
pub mod response;
pub mod scope;
pub mod secret;
#[cfg(test)]
mod testing;
pub mod uri;

pub use algorithm::SigningAlgorithm;
pub use assertion::Assertion;
pub use bearer::BearerResponse;
pub use challenge::Challenge;
pub use claims::{Actor, MayAct, SubjectClaims};
pub use client_auth::ClientAuthentication;
pub use details::{McpDetail, ToolSelection, Wanted};
pub use error::{ErrorBody, ErrorCode, JwtError, OAuthError, WireError};
pub use exchange::{ExchangeRequest, TokenRequest, TokenType};
pub use form::Form;
pub use jwk::{Jwk, JwkSet};
pub use jwks::{FetchPlan, JwksCache, JwksLimits, KeyRefusal, KeySource, Lookup};
pub use jwt::{Expected, TrustedIssuer, UnverifiedJwt};
pub use metadata::{AuthorizationServerMetadata, ProtectedResourceMetadata};
pub use provenance::provenance;
pub use response::TokenResponse;
pub use scope::{Scope, ScopeTool};
pub use secret::Secret;
