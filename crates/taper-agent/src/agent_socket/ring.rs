//! The keys of an agent, and what is done with them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taper_capability::Token;
use taper_dpop::{Algorithm, PrivateKey, ProofClaims, PublicKey};
use taper_service::clock::SharedClock;
use taper_service::rng;

use super::wire::{Answer, Ask, Listed};
use crate::{Error, KeySource, Step};

/// The most keys that an agent holds.
const MAX_KEYS: usize = 64;

/// The keys of an agent. They are wiped when they are forgotten.
pub struct KeyRing {
    clock: SharedClock,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    keys: Vec<Entry>,
    locked: bool,
}

struct Entry {
    key: Arc<PrivateKey>,
    listed: Listed,
}

/// How a key is added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added {
    /// For how many seconds; without it until the agent ends.
    pub lifetime: Option<u64>,
    /// Whether it signs hand-overs; without it only proofs and narrowings.
    pub delegate: bool,
}

impl KeyRing {
    /// No keys yet.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
        }
    }

    /// Adds a key. One that is there already keeps what bounds it: it gets neither hand-overs nor a later
    /// end, unless it is removed first.
    ///
    /// # Errors
    /// [`Error::Agent`] when the agent is locked or full.
    pub fn add(&self, key: PrivateKey, name: &str, added: Added) -> Result<Listed, Error> {
        let public = key.public();
        let now = self.clock.unix();
        let listed = Listed {
            thumbprint: public.thumbprint().to_string(),
            jwk: public.to_jwk(),
            name: name.to_owned(),
            until: added.lifetime.map(|seconds| now.saturating_add_unsigned(seconds)),
            delegate: added.delegate,
        };
        let mut kept = self.kept(now);
        if kept.locked {
            return Err(Error::Agent("it is locked; start another agent".to_owned()));
        }
        if let Some(entry) = kept.keys.iter_mut().find(|entry| entry.key.public() == public) {
            entry.listed.delegate &= listed.delegate;
            entry.listed.until = match (entry.listed.until, listed.until) {
                (Some(old), Some(new)) => Some(old.min(new)),
                (old, new) => old.or(new),
            };
            return Ok(entry.listed.clone());
        }
        if kept.keys.len() >= MAX_KEYS {
            return Err(Error::Agent(format!(
                "it holds {MAX_KEYS} keys, which is the most"
            )));
        }
        kept.keys.push(Entry {
            key: Arc::new(key),
            listed: listed.clone(),
        });
        Ok(listed)
    }

    /// Adds the key that `source` names.
    ///
    /// # Errors
    /// As [`KeySource::open`] and [`Self::add`]; [`Error::Agent`] for the key of another agent.
    pub async fn add_source(&self, source: &KeySource, added: Added) -> Result<Listed, Error> {
        self.add(source.private().await?, &source.to_string(), added)
    }

    /// Adds a new Ed25519 key.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn generate(&self, added: Added) -> Result<Listed, Error> {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        self.add(key, "generated", added)
    }

    /// When the next key is to be forgotten, in seconds since the Unix epoch.
    pub fn next_end(&self) -> Option<i64> {
        let kept = self.kept(self.clock.unix());
        kept.keys.iter().filter_map(|entry| entry.listed.until).min()
    }

    /// How many seconds until then, at least one.
    pub(super) fn seconds_to_next_end(&self) -> Option<u64> {
        let left = self.next_end()?.saturating_sub(self.clock.unix());
        Some(u64::try_from(left).unwrap_or(0).max(1))
    }

    /// Does what is asked for.
    pub async fn answer(&self, ask: Ask) -> Answer {
        match self.done(ask).await {
            Ok(answer) => answer,
            Err(Error::Agent(reason)) => Answer::Error(reason),
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    async fn done(&self, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::List {} => {
                let kept = self.kept(self.clock.unix());
                Ok(Answer::Keys(
                    kept.keys.iter().map(|entry| entry.listed.clone()).collect(),
                ))
            }
            Ask::Prove {
                key,
                htm,
                htu,
                ath,
                nonce,
                content_digest,
            } => {
                let (key, _) = self.find(&key)?;
                let claims = ProofClaims {
                    ath,
                    content_digest,
                    ..ProofClaims::new(&htm, &htu, self.clock.unix(), &mut rng::os())
                };
                Ok(Answer::Proof(claims.nonce(nonce.as_deref()).sign(&key)?))
            }
            Ask::Append {
                key,
                token,
                to,
                until,
                caveats,
                max_depth,
                note,
            } => {
                let (key, listed) = self.find(&key)?;
                if to.is_some() && !listed.delegate {
                    return Err(Error::Agent(
                        "this key signs no hand-overs here; start the agent with `--delegate`, or narrow \
                         with `--own-key`"
                            .to_owned(),
                    ));
                }
                let step = Step {
                    to: to.as_ref().map(PublicKey::from_jwk).transpose()?,
                    until,
                    caveats,
                    max_depth,
                    note,
                };
                let added = step.sign(&Token::parse(&token)?, &key)?;
                Ok(Answer::Token(added.as_str().to_owned()))
            }
            Ask::Add {
                private,
                name,
                lifetime,
                delegate,
            } => {
                let key = PrivateKey::from_jwk_str(private.expose())?;
                Ok(Answer::Key(self.add(key, &name, Added { lifetime, delegate })?))
            }
            Ask::Generate { lifetime, delegate } => {
                Ok(Answer::Key(self.generate(Added { lifetime, delegate })?))
            }
            Ask::Remove { key } => {
                let mut kept = self.kept(self.clock.unix());
                let before = kept.keys.len();
                kept.keys.retain(|entry| entry.listed.thumbprint != key);
                Ok(Answer::Removed(before - kept.keys.len()))
            }
            Ask::Lock {} => {
                let mut kept = self.kept(self.clock.unix());
                kept.locked = true;
                Ok(Answer::Removed(std::mem::take(&mut kept.keys).len()))
            }
        }
    }

    /// Adds a copy of `key`.
    #[cfg(test)]
    pub(super) fn add_private(&self, key: &PrivateKey, added: Added) {
        let copy = PrivateKey::from_bytes(key.algorithm(), &key.to_bytes()).unwrap();
        self.add(copy, "test", added).unwrap();
    }

    fn find(&self, thumbprint: &str) -> Result<(Arc<PrivateKey>, Listed), Error> {
        let kept = self.kept(self.clock.unix());
        let found = kept
            .keys
            .iter()
            .find(|entry| entry.listed.thumbprint == thumbprint);
        let found = found.map(|entry| (entry.key.clone(), entry.listed.clone()));
        found.ok_or_else(|| Error::Agent("it has no such key (any more)".to_owned()))
    }

    /// The keys whose time has not come.
    fn kept(&self, now: i64) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keys
            .retain(|entry| entry.listed.until.is_none_or(|until| now < until));
        kept
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing(…)")
    }
}
