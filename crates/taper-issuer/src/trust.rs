//! Tokens of trusted issuers: keys fetched when they are needed, tokens verified (RULES 26).
//!
//! The cache of keys is a state machine of `taper-oauth`; this module does the fetching for it. A fetch runs
//! in a task of its own, so that a caller who hangs up does not end it for the others, and everyone who
//! waits looks again when it has reported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use taper_oauth::jwk::MAX_SET;
use taper_oauth::metadata::MAX_DOCUMENT;
use taper_oauth::{
    ErrorCode, Expected, FetchPlan, Jwk, JwksCache, JwksLimits, KeyRefusal, KeySource, Lookup,
    SigningAlgorithm, SubjectClaims, TokenType, TrustedIssuer, UnverifiedJwt,
};
use taper_service::clock::SharedClock;
use taper_service::config::resolve;
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::shutdown::Shutdown;
use tokio::sync::watch;

use crate::clients::Client;
use crate::config::Config;
use crate::error::{OpenError, Refusal};
use crate::rules;

/// How long one request waits for keys: discovery and key set, each within the fetcher's own limit.
const PATIENCE: Duration = Duration::from_secs(15);

/// Every trusted issuer.
pub(crate) struct Trust {
    issuers: BTreeMap<String, Arc<Source>>,
    clock: SharedClock,
    tasks: Shutdown,
}

/// One trusted issuer with its keys.
struct Source {
    rules: TrustedIssuer,
    cache: Mutex<JwksCache>,
    fetcher: Fetcher,
    /// Counts the fetches that have reported.
    reports: watch::Sender<u64>,
}

/// Which parameter of the request a token came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Subject,
    Actor,
}

impl Role {
    fn parameter(self) -> &'static str {
        match self {
            Self::Subject => "subject_token",
            Self::Actor => "actor_token",
        }
    }
}

impl Trust {
    pub(crate) fn new(
        config: &Config,
        folder: &Path,
        clock: SharedClock,
        tasks: Shutdown,
    ) -> Result<Self, OpenError> {
        let mut roots = Vec::new();
        for file in &config.outbound.ca_files {
            let path = resolve(folder, file);
            let bundle = std::fs::read(&path).map_err(|error| {
                OpenError::config("outbound.ca_files", format!("{}: {error}", path.display()))
            })?;
            roots.push(bundle);
        }
        let fetcher = |allow_loopback_http| {
            Fetcher::new(&FetchRules {
                allow_loopback_http,
                trusted_hosts: config.outbound.trusted_hosts.clone(),
                extra_roots: roots.clone(),
                ..FetchRules::default()
            })
        };
        let mut issuers = BTreeMap::new();
        for trusted in &config.trusted_issuers {
            let limits = JwksLimits {
                allow_loopback_http: trusted.insecure_loopback,
                ..JwksLimits::default()
            };
            let source = KeySource {
                issuer: trusted.issuer.clone(),
                jwks_uri: trusted.jwks_uri.clone(),
            };
            let cache = JwksCache::new(limits, [source])
                .map_err(|error| OpenError::config(format!("trusted_issuers.{}", trusted.issuer), error))?;
            let source = Source {
                rules: config.trusted(trusted),
                cache: Mutex::new(cache),
                fetcher: fetcher(trusted.insecure_loopback)?,
                reports: watch::Sender::new(0),
            };
            issuers.insert(trusted.issuer.clone(), Arc::new(source));
        }
        Ok(Self {
            issuers,
            clock,
            tasks,
        })
    }

    /// Whether tokens of this issuer are accepted.
    pub(crate) fn trusts(&self, issuer: &str) -> bool {
        self.issuers.contains_key(issuer)
    }

    /// Verifies the token that came as `role` and was declared as `declared`.
    pub(crate) async fn verify(
        &self,
        role: Role,
        text: &str,
        declared: TokenType,
        client: &Client,
    ) -> Result<SubjectClaims, Refusal> {
        let refused = |detail: &dyn std::fmt::Display| {
            let description = format!("`{}` is not acceptable: {detail}", role.parameter());
            Refusal::new(rules::TOKEN, ErrorCode::InvalidRequest, description)
        };
        let expected = match declared {
            TokenType::AccessToken => Expected::AccessToken,
            TokenType::Jwt => Expected::Jwt,
            TokenType::IdToken => Expected::IdToken {
                confidential_client: client.is_confidential().then(|| client.id()),
            },
            TokenType::Capability => {
                return Err(Refusal::new(
                    rules::NO_CAPABILITY,
                    ErrorCode::InvalidRequest,
                    "a capability is not exchanged for another one: narrow or delegate it, or exchange the \
                     subject's token again",
                ));
            }
        };
        let jwt = UnverifiedJwt::parse(text).map_err(|error| refused(&error))?;
        let source = self
            .issuers
            .get(jwt.claimed_issuer())
            .ok_or_else(|| refused(&KeyRefusal::UnknownIssuer))?;
        // Before any key is fetched for it.
        if !source.rules.algorithms.contains(&jwt.algorithm()) {
            return Err(refused(&taper_oauth::JwtError::AlgorithmNotAccepted(
                jwt.algorithm(),
            )));
        }
        let key = self
            .key(source, jwt.kid(), jwt.algorithm())
            .await
            .map_err(|refusal| match refusal {
                KeyRefusal::Unavailable => Refusal::new(
                    rules::TOKEN,
                    ErrorCode::TemporarilyUnavailable,
                    "the keys of the token's issuer are not available",
                ),
                refusal => refused(&refusal),
            })?;
        jwt.verify(&source.rules, &key, expected, self.clock.unix())
            .map_err(|error| refused(&error))
    }

    async fn key(
        &self,
        source: &Arc<Source>,
        kid: Option<&str>,
        algorithm: SigningAlgorithm,
    ) -> Result<Arc<Jwk>, KeyRefusal> {
        let looking = async {
            loop {
                // Subscribed before the lookup, so that a report in between is not missed.
                let mut reports = source.reports.subscribe();
                match source.lookup(kid, algorithm, self.clock.unix()) {
                    Lookup::Key(key) => return Ok(key),
                    Lookup::Refuse(refusal) => return Err(refusal),
                    Lookup::Wait => {}
                    Lookup::Fetch(plan) => {
                        let (source, clock) = (Arc::clone(source), Arc::clone(&self.clock));
                        self.tasks.spawn("issuer-keys", async move {
                            source.fetch(plan, &clock).await;
                            source.reports.send_modify(|count| *count = count.wrapping_add(1));
                        });
                    }
                }
                if reports.changed().await.is_err() {
                    return Err(KeyRefusal::Unavailable);
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking)
            .await
            .unwrap_or(Err(KeyRefusal::Unavailable))
    }
}

impl Source {
    fn lookup(&self, kid: Option<&str>, algorithm: SigningAlgorithm, now: i64) -> Lookup {
        self.with_cache(|cache| cache.lookup(&self.rules.issuer, kid, algorithm, now))
    }

    /// Does what was planned and reports it to the cache.
    async fn fetch(&self, plan: FetchPlan, clock: &SharedClock) {
        let issuer = self.rules.issuer.as_str();
        let done = match plan {
            FetchPlan::Jwks { url } => match self.document(&url, MAX_SET).await {
                Some(bytes) => {
                    self.with_cache(|cache| match cache.apply_jwks(issuer, &bytes, clock.unix()) {
                        Ok(skipped) => {
                            tracing::info!(
                                trusted.issuer = issuer,
                                keys.skipped = skipped.len(),
                                "keys fetched"
                            );
                            true
                        }
                        Err(error) => {
                            tracing::warn!(trusted.issuer = issuer, %error, "key set refused");
                            false
                        }
                    })
                }
                None => false,
            },
            FetchPlan::Discovery { urls } => self.discover(&urls, clock).await,
        };
        if !done {
            self.with_cache(|cache| cache.fetch_failed(issuer, clock.unix()));
        }
    }

    async fn discover(&self, urls: &[String], clock: &SharedClock) -> bool {
        let issuer = self.rules.issuer.as_str();
        for url in urls {
            let Some(bytes) = self.document(url, MAX_DOCUMENT).await else {
                continue;
            };
            match self.with_cache(|cache| cache.apply_discovery(issuer, &bytes, clock.unix())) {
                Ok(()) => return true,
                Err(error) => tracing::warn!(trusted.issuer = issuer, %error, "discovery document refused"),
            }
        }
        false
    }

    async fn document(&self, url: &str, max_bytes: usize) -> Option<bytes::Bytes> {
        match self.fetcher.get(url, max_bytes).await {
            Ok(fetched) if fetched.status.is_success() => Some(fetched.body),
            Ok(fetched) => {
                tracing::warn!(
                    trusted.issuer = self.rules.issuer,
                    status = fetched.status.as_u16(),
                    "fetch answered with an error"
                );
                None
            }
            Err(error) => {
                tracing::warn!(trusted.issuer = self.rules.issuer, %error, "fetch failed");
                None
            }
        }
    }

    /// The lock is held for a few map operations and never across an await.
    fn with_cache<T>(&self, f: impl FnOnce(&mut JwksCache) -> T) -> T {
        f(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
