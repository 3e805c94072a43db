//! Checking of JWTs that other issuers signed: access tokens (RFC 9068), ID tokens, and plain JWTs.
//!
//! Two steps. [`UnverifiedJwt::parse`] yields what is needed to choose the configured issuer and its key;
//! [`UnverifiedJwt::verify`] yields [`SubjectClaims`], and nothing else does. Keys come from the issuer's
//! configuration only: `jku`, `jwk`, `x5u` and `x5c` in a header are never looked at. The library is used
//! for the bare signature; its own expiry check would read the clock.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::SigningAlgorithm;
use crate::claims::{self, SubjectClaims};
use crate::error::JwtError;
use crate::json;
use crate::jwk::{Jwk, MAX_KID};
use crate::secret::Secret;

/// The longest token that is looked at, in bytes.
pub const MAX_JWT: usize = 16 * 1024;
/// How far in the future `iat` and `nbf` may lie unless configured otherwise, in seconds.
pub const DEFAULT_SKEW: i64 = 60;

/// What the configuration says about an issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// Its identifier, compared with `iss` byte for byte.
    pub issuer: String,
    /// What `aud` of an access token or plain JWT must name: this server's issuer identifier, or what the
    /// operator configured. Empty accepts nothing.
    pub audiences: Vec<String>,
    /// Which algorithms are accepted.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Whether access tokens may have the `typ` `JWT` or none, as issuers older than RFC 9068 write them.
    pub allow_plain_typ: bool,
    /// The clients, by their ids at this issuer, whose ID tokens are accepted.
    pub id_token_clients: Vec<String>,
    /// How far in the future `iat` and `nbf` may lie, in seconds. `exp` has no tolerance.
    pub skew: i64,
}

/// What the request declares a token to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// An access token for this server.
    AccessToken,
    /// A JWT for this server. Whatever passes as an access token passes here, nothing more.
    Jwt,
    /// An ID token, presented by a client.
    IdToken {
        /// The client's id at the token's issuer, when the client is confidential and has authenticated.
        confidential_client: Option<&'a str>,
    },
}

/// A token that was taken apart and nothing more. What it claims is not to be believed.
pub struct UnverifiedJwt {
    text: Secret,
    algorithm: SigningAlgorithm,
    kid: Option<String>,
    typ: Option<String>,
    iss: String,
    claims: Map<String, Value>,
}

impl TrustedIssuer {
    /// An issuer with the usual algorithms (RS256, PS256, ES256, EdDSA), strict `typ`, no ID tokens and the
    /// usual skew.
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences,
            algorithms: vec![
                SigningAlgorithm::Rs256,
                SigningAlgorithm::Ps256,
                SigningAlgorithm::Es256,
                SigningAlgorithm::EdDsa,
            ],
            allow_plain_typ: false,
            id_token_clients: Vec::new(),
            skew: DEFAULT_SKEW,
        }
    }
}

impl UnverifiedJwt {
    /// Takes a compact JWS of at most [`MAX_JWT`] bytes apart.
    ///
    /// # Errors
    /// [`JwtError`]: too large, not three parts, not strict JSON, an algorithm that is symmetric or `none`,
    /// a critical extension, no `iss`.
    pub fn parse(text: &str) -> Result<Self, JwtError> {
        if text.len() > MAX_JWT {
            return Err(crate::WireError::TooLarge { limit: MAX_JWT }.into());
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed("a jwt has three parts"));
        };
        let header = json::parse_object(&decode(header)?, MAX_JWT)?;
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(JwtError::CriticalHeader);
        }
        let algorithm = header_text(&header, "alg")?
            .ok_or(JwtError::Malformed("`alg` is missing"))?
            .parse()?;
        let kid = header_text(&header, "kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(JwtError::Malformed("`kid` is too long"));
        }
        let typ = header_text(&header, "typ")?.map(media_type);
        let claims = json::parse_object(&decode(payload)?, MAX_JWT)?;
        Ok(Self {
            text: Secret::new(text),
            algorithm,
            kid: kid.map(str::to_owned),
            typ,
            iss: claims::required(&claims, "iss")?,
            claims,
        })
    }

    /// The claimed issuer: only to choose the configured one, by exact match.
    pub fn claimed_issuer(&self) -> &str {
        &self.iss
    }

    /// The key id of the header.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The algorithm of the header.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The `typ` of the header, in lower case and without `application/`.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// The token's text, for `ath` (RFC 9449 §4.3).
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// Checks the token: issuer, algorithm, key, signature, type, audience, times, then every claim that
    /// binds. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`JwtError`], the first check that fails.
    pub fn verify(
        &self,
        issuer: &TrustedIssuer,
        key: &Jwk,
        expected: Expected<'_>,
        now: i64,
    ) -> Result<SubjectClaims, JwtError> {
        if self.iss != issuer.issuer {
            return Err(JwtError::Issuer);
        }
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(JwtError::AlgorithmNotAccepted(self.algorithm));
        }
        if self.kid.is_some() && self.kid() != key.kid() {
            return Err(JwtError::KeyMismatch);
        }
        let (message, signature) = self
            .text
            .expose()
            .rsplit_once('.')
            .ok_or(JwtError::Malformed("a jwt has three parts"))?;
        key.verify(self.algorithm, message.as_bytes(), signature)?;

        self.check_type(issuer, expected)?;
        self.check_times(issuer, now)?;
        let claims = SubjectClaims::read(&self.claims)?;
        match expected {
            Expected::AccessToken | Expected::Jwt => check_audience(&claims, issuer)?,
            Expected::IdToken { confidential_client } => {
                self.check_client(&claims, issuer, confidential_client)?
            }
        }
        Ok(claims)
    }

    fn check_type(&self, issuer: &TrustedIssuer, expected: Expected<'_>) -> Result<(), JwtError> {
        let plain = self.typ().is_none_or(|typ| typ == "jwt");
        let fits = match expected {
            Expected::IdToken { .. } => plain,
            // An ID token says so by its hashes, whatever `typ` allows.
            Expected::AccessToken | Expected::Jwt => {
                self.typ() == Some("at+jwt")
                    || plain
                        && issuer.allow_plain_typ
                        && !["at_hash", "c_hash", "s_hash"]
                            .iter()
                            .any(|hash| self.claims.contains_key(*hash))
            }
        };
        if fits { Ok(()) } else { Err(JwtError::WrongType) }
    }

    fn check_times(&self, issuer: &TrustedIssuer, now: i64) -> Result<(), JwtError> {
        let horizon = now.saturating_add(issuer.skew);
        if now >= claims::time(&self.claims, "exp")?.ok_or(JwtError::MissingClaim("exp"))? {
            return Err(JwtError::Expired);
        }
        if claims::time(&self.claims, "nbf")?.is_some_and(|nbf| nbf > horizon) {
            return Err(JwtError::NotYetValid);
        }
        if claims::time(&self.claims, "iat")?.is_some_and(|iat| iat > horizon) {
            return Err(JwtError::IssuedInFuture);
        }
        Ok(())
    }

    /// OpenID Connect Core §3.1.3.7, seen from the client that presents the token: it must be in `aud`, and
    /// be the `azp` when there is one or when there are several audiences.
    fn check_client(
        &self,
        claims: &SubjectClaims,
        issuer: &TrustedIssuer,
        confidential_client: Option<&str>,
    ) -> Result<(), JwtError> {
        let client = confidential_client.ok_or(JwtError::Client)?;
        let authorized = match claims::string(&self.claims, "azp")? {
            Some(azp) => azp == client,
            None => claims.aud.len() == 1,
        };
        let accepted = issuer.id_token_clients.iter().any(|known| known == client);
        let named = claims.aud.iter().any(|aud| aud == client);
        if accepted && named && authorized {
            Ok(())
        } else {
            Err(JwtError::Client)
        }
    }
}

impl fmt::Debug for UnverifiedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedJwt")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .field("typ", &self.typ)
            .finish_non_exhaustive()
    }
}

fn check_audience(claims: &SubjectClaims, issuer: &TrustedIssuer) -> Result<(), JwtError> {
    if claims.aud.iter().any(|aud| issuer.audiences.contains(aud)) {
        Ok(())
    } else {
        Err(JwtError::Audience)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Malformed("a part is not base64url"))
}

fn header_text<'a>(header: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, JwtError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtError::Malformed("a header parameter is not a string")),
    }
}

/// `typ` is a media type: case-insensitive, and `application/` may be left out (RFC 7515 §4.1.9).
fn media_type(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    lower
        .strip_prefix("application/")
        .map(str::to_owned)
        .unwrap_or(lower)
}

#[cfg(test)]
mod tests;
