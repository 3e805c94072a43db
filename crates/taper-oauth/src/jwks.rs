//! The keys of trusted issuers, kept as a state machine: it says what to fetch and when, and never fetches.
//!
//! ```text
//! lookup → Key                         use it
//!        → Fetch(plan)                 fetch, then apply_discovery / apply_jwks, or fetch_failed; look up again
//!        → Wait                        another caller is fetching; look up again when it has finished
//!        → Refuse                      no key, and no reason to fetch
//! ```
//!
//! Keys live for [`JwksLimits::max_age`]. An unknown key id refreshes them, but never sooner than
//! [`JwksLimits::floor`] after the last attempt at this issuer, whatever key ids are asked for: a sender of
//! made-up tokens cannot cause more than one fetch per floor. When an issuer cannot be reached, its last keys
//! serve for [`JwksLimits::stale`] longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::algorithm::SigningAlgorithm;
use crate::error::{JwtError, WireError};
use crate::jwk::{Jwk, JwkSet};
use crate::{json, metadata, uri};

/// Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JwksLimits {
    /// How long fetched keys are used without asking again.
    pub max_age: i64,
    /// How long a discovery document is used without asking again.
    pub discovery_max_age: i64,
    /// The least time between two refreshes of one issuer. Also how long a fetch may take before another
    /// caller may try.
    pub floor: i64,
    /// How much longer than `max_age` keys serve while they cannot be refreshed.
    pub stale: i64,
    /// Whether an issuer and its keys may be on plain http at a loopback host. For development.
    pub allow_loopback_http: bool,
}

impl Default for JwksLimits {
    fn default() -> Self {
        Self {
            max_age: 600,
            discovery_max_age: 3600,
            floor: 30,
            stale: 3600,
            allow_loopback_http: false,
        }
    }
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The issuer's identifier.
    pub issuer: String,
    /// The address of its keys, when it is configured; otherwise it is discovered.
    pub jwks_uri: Option<String>,
}

/// The keys of all configured issuers.
#[derive(Debug)]
pub struct JwksCache {
    limits: JwksLimits,
    issuers: BTreeMap<String, Entry>,
}

/// The answer to a lookup.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The key.
    Key(Arc<Jwk>),
    /// This caller fetches, reports, and looks up again.
    Fetch(FetchPlan),
    /// Another caller is fetching. Look up again when it has reported.
    Wait,
    /// There is no key.
    Refuse(KeyRefusal),
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchPlan {
    /// Try these addresses in order; give the first document that arrives to
    /// [`JwksCache::apply_discovery`], and the next one when it is not accepted.
    Discovery {
        /// OpenID Connect Discovery §4, then RFC 8414 §3.
        urls: Vec<String>,
    },
    /// Fetch this address and give the document to [`JwksCache::apply_jwks`].
    Jwks {
        /// The address of the keys.
        url: String,
    },
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The issuer is not configured.
    #[error("the issuer is not trusted")]
    UnknownIssuer,
    /// Its current keys do not hold this one.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The token names no key and several fit.
    #[error("the token names no key and several fit")]
    Ambiguous,
    /// Its keys could not be fetched lately. Trying later may help.
    #[error("the issuer's keys are not available")]
    Unavailable,
}

#[derive(Debug, Default)]
struct Entry {
    configured_uri: Option<String>,
    discovered: Option<(String, i64)>,
    keys: Option<(JwkSet, i64)>,
    last_attempt: Option<i64>,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    Discovering,
    /// Discovery succeeded and nobody has taken on the keys yet.
    Discovered,
    FetchingKeys,
}

enum Found {
    Key(Arc<Jwk>),
    Ambiguous,
    Missing,
}

impl JwksCache {
    /// A cache for these issuers, with nothing fetched.
    ///
    /// # Errors
    /// [`WireError::Url`] when an issuer or the address of its keys is not https, or loopback http where
    /// that is allowed.
    pub fn new(limits: JwksLimits, sources: impl IntoIterator<Item = KeySource>) -> Result<Self, WireError> {
        let mut issuers = BTreeMap::new();
        for source in sources {
            uri::issuer(&source.issuer, limits.allow_loopback_http)?;
            if let Some(jwks_uri) = &source.jwks_uri {
                uri::secure(jwks_uri, limits.allow_loopback_http)?;
            }
            issuers.insert(
                source.issuer,
                Entry {
                    configured_uri: source.jwks_uri,
                    ..Entry::default()
                },
            );
        }
        Ok(Self { limits, issuers })
    }

    /// The key for a token: by its key id, or the only one that fits the algorithm when it names none.
    pub fn lookup(
        &mut self,
        issuer: &str,
        kid: Option<&str>,
        algorithm: SigningAlgorithm,
        now: i64,
    ) -> Lookup {
        let limits = self.limits;
        let Some(entry) = self.issuers.get_mut(issuer) else {
            return Lookup::Refuse(KeyRefusal::UnknownIssuer);
        };
        let found = entry.find(kid, algorithm);
        let fresh = entry.keys_within(limits.max_age, now);
        match found {
            Found::Key(key) if fresh => return Lookup::Key(key),
            Found::Ambiguous if fresh => return Lookup::Refuse(KeyRefusal::Ambiguous),
            _ => {}
        }
        if let Some(plan) = entry.start(issuer, &limits, now) {
            return Lookup::Fetch(plan);
        }
        let usable = fresh || entry.keys_within(limits.max_age.saturating_add(limits.stale), now);
        match found {
            Found::Key(key) if usable => Lookup::Key(key),
            Found::Ambiguous if usable => Lookup::Refuse(KeyRefusal::Ambiguous),
            _ if entry.step != Step::Idle => Lookup::Wait,
            _ if usable => Lookup::Refuse(KeyRefusal::UnknownKey),
            _ => Lookup::Refuse(KeyRefusal::Unavailable),
        }
    }

    /// Takes a discovery document of this issuer. On an error the fetch is still under way: give the next
    /// document, or report [`JwksCache::fetch_failed`].
    ///
    /// # Errors
    /// [`JwtError`]: nobody asked for it, it cannot be read, it names another issuer, or its `jwks_uri` is
    /// not https (or loopback http where that is allowed).
    pub fn apply_discovery(&mut self, issuer: &str, bytes: &[u8], now: i64) -> Result<(), JwtError> {
        let allow_loopback_http = self.limits.allow_loopback_http;
        let entry = self.fetching(issuer, Step::Discovering)?;
        let document: Discovery = json::read(bytes, metadata::MAX_DOCUMENT)?;
        metadata::same(issuer, &document.issuer)?;
        uri::secure(&document.jwks_uri, allow_loopback_http)?;
        entry.discovered = Some((document.jwks_uri, now));
        entry.step = Step::Discovered;
        Ok(())
    }

    /// Takes the key set of this issuer and returns why keys in it are not used, for the operator. On an
    /// error the fetch has failed and the keys from before stay.
    ///
    /// # Errors
    /// [`JwtError`]: nobody asked for it, it cannot be read, it must not be used.
    pub fn apply_jwks(
        &mut self,
        issuer: &str,
        bytes: &[u8],
        now: i64,
    ) -> Result<Vec<&'static str>, JwtError> {
        let entry = self.fetching(issuer, Step::FetchingKeys)?;
        entry.step = Step::Idle;
        let set = JwkSet::parse(bytes)?;
        let skipped = set.skipped().to_vec();
        entry.keys = Some((set, now));
        Ok(skipped)
    }

    /// Reports that what was to be fetched did not arrive or was not accepted. The next attempt is due one
    /// floor after the start of this one, or after `now` when the clock was set back.
    pub fn fetch_failed(&mut self, issuer: &str, now: i64) {
        if let Some(entry) = self.issuers.get_mut(issuer) {
            entry.step = Step::Idle;
            entry.last_attempt = entry.last_attempt.map(|attempt| attempt.min(now));
        }
    }

    fn fetching(&mut self, issuer: &str, step: Step) -> Result<&mut Entry, JwtError> {
        let entry = self.issuers.get_mut(issuer).ok_or(JwtError::UnknownIssuer)?;
        if entry.step == step {
            Ok(entry)
        } else {
            Err(JwtError::NotFetching)
        }
    }
}

impl Entry {
    fn find(&self, kid: Option<&str>, algorithm: SigningAlgorithm) -> Found {
        let Some((set, _)) = &self.keys else {
            return Found::Missing;
        };
        let Some(kid) = kid else {
            let mut fitting = set.supporting(algorithm);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Found::Key(Arc::clone(key)),
                (Some(_), Some(_)) => Found::Ambiguous,
                (None, _) => Found::Missing,
            };
        };
        set.find(kid)
            .map_or(Found::Missing, |key| Found::Key(Arc::clone(key)))
    }

    fn keys_within(&self, age: i64, now: i64) -> bool {
        self.keys
            .as_ref()
            .is_some_and(|(_, fetched)| within(*fetched, age, now))
    }

    /// The fetch that this caller is to do, if one is due and nobody is at it.
    fn start(&mut self, issuer: &str, limits: &JwksLimits, now: i64) -> Option<FetchPlan> {
        let resting = self
            .last_attempt
            .is_some_and(|attempt| within(attempt, limits.floor, now));
        // The keys after a discovery belong to the attempt that began with it.
        if resting && self.step != Step::Discovered {
            return None;
        }
        if !resting {
            self.last_attempt = Some(now);
        }
        let discovered = match (&self.discovered, self.step) {
            (Some((uri, _)), Step::Discovered) => Some(uri),
            (Some((uri, at)), _) if within(*at, limits.discovery_max_age, now) => Some(uri),
            _ => None,
        };
        if let Some(url) = self.configured_uri.as_ref().or(discovered) {
            self.step = Step::FetchingKeys;
            return Some(FetchPlan::Jwks { url: url.clone() });
        }
        let urls = [
            uri::openid_configuration(issuer),
            uri::authorization_server_metadata(issuer),
        ];
        self.step = Step::Discovering;
        Some(FetchPlan::Discovery {
            urls: urls.into_iter().flatten().map(String::from).collect(),
        })
    }
}

/// The part of a discovery document that is used.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// A time from the future, after the clock was set back, is not within any age.
fn within(then: i64, age: i64, now: i64) -> bool {
    (0..age).contains(&now.saturating_sub(then))
}

#[cfg(test)]
mod tests;
