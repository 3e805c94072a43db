//! The issuers whose capabilities count: their root keys, and what they revoked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use taper_capability::{Party, Roots, UnverifiedToken, VerifiedChain, Verifier};
use taper_dpop::{DetachedJws, JwsError, PublicKey};
use taper_oauth::json;
use taper_store::{FEED_SIGNATURE, FEED_TYP, FeedPage, FeedPosition, RevocationKeys, StoreError};
use tokio::sync::{Notify, watch};

use crate::followed::Followed;
use crate::refusal::Refusal;

/// The largest key set that is read, in bytes.
pub(crate) const MAX_KEY_SET: usize = 64 * 1024;

/// All issuers. Every look-up is by the exact identifier.
#[derive(Debug)]
pub(crate) struct Issuers {
    all: BTreeMap<String, IssuerState>,
    /// With the number of the set of root keys that it trusts.
    verifier: RwLock<(u64, Arc<Verifier>)>,
    /// Counts up with every revocation that was taken.
    changed: watch::Sender<u64>,
}

/// One issuer.
#[derive(Debug)]
pub(crate) struct IssuerState {
    issuer: String,
    servers: Option<Vec<String>>,
    keys: Mutex<Vec<(u32, PublicKey)>>,
    /// When they were taken last, in seconds since the Unix epoch; 0 before.
    keys_at: AtomicI64,
    feed: Option<Followed>,
    /// A token or a page names a key id that is not known.
    pub(crate) keys_wanted: Notify,
    /// Counts up with every set of keys that was taken.
    keys_changed: watch::Sender<u64>,
}

/// Why a page of a feed is not believed (M-36).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsigned {
    /// Not exactly one signature.
    #[error("a page has one `{FEED_SIGNATURE}` header")]
    Missing,
    /// By a key that is not, or not yet, one of the issuer's.
    #[error("no root key with the id `{0}` is known")]
    UnknownKey(String),
    /// A signature that does not hold.
    #[error(transparent)]
    Jws(#[from] JwsError),
}

/// Why root keys are not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootKeysError {
    /// Not a JWK set.
    #[error("it is not a JWK set: {0}")]
    Document(String),
    /// A key without a usable id, or not a public key.
    #[error("a key is not a root key: {0}")]
    Key(String),
    /// The keys cannot stand together.
    #[error("the keys are refused: {0}")]
    Roots(String),
}

impl IssuerState {
    /// An issuer without keys yet. `floor` is the position in its feed that was ever enforced, `None` when
    /// it has no feed.
    pub(crate) fn new(
        issuer: &str,
        servers: Option<Vec<String>>,
        floor: Option<FeedPosition>,
        max_staleness: Duration,
    ) -> Self {
        Self {
            issuer: issuer.to_owned(),
            servers,
            keys: Mutex::default(),
            keys_at: AtomicI64::new(0),
            feed: floor.map(|floor| Followed::new(issuer, floor, max_staleness)),
            keys_wanted: Notify::new(),
            keys_changed: watch::Sender::new(0),
        }
    }

    fn has_keys(&self) -> bool {
        !self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Notes that the keys are those of the issuer at `now`.
    pub(crate) fn keys_taken(&self, now: i64) {
        self.keys_at.store(now, Ordering::Relaxed);
    }

    /// When its keys were taken last, in seconds since the Unix epoch; 0 before they were.
    pub(crate) fn keys_at(&self) -> i64 {
        self.keys_at.load(Ordering::Relaxed)
    }

    /// What it revoked, where it has a feed.
    pub(crate) fn feed(&self) -> Option<&Followed> {
        self.feed.as_ref()
    }

    /// Learns of every new set of root keys.
    pub(crate) fn key_changes(&self) -> watch::Receiver<u64> {
        self.keys_changed.subscribe()
    }

    /// Verifies the signature over the exact bytes of a page (M-36); nothing of them is read before. An
    /// unknown key id asks for a refresh.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub(crate) fn verify_page(&self, signature: Option<&str>, body: &[u8]) -> Result<(), Unsigned> {
        let signature = DetachedJws::parse(signature.ok_or(Unsigned::Missing)?, FEED_TYP)?;
        let key = {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let mut named = keys.iter().filter(|(id, _)| id.to_string() == signature.kid());
            named.next().map(|(_, key)| key.clone())
        };
        let Some(key) = key else {
            self.keys_wanted.notify_one();
            return Err(Unsigned::UnknownKey(signature.kid().to_owned()));
        };
        Ok(signature.verify(&key, body)?)
    }

    fn refuse_revoked(&self, keys: &RevocationKeys<'_>) -> Result<(), Refusal> {
        self.feed
            .as_ref()
            .map_or(Ok(()), |feed| feed.refuse_revoked(keys))
    }

    fn refuse_doubt(&self, now: i64) -> Result<(), Refusal> {
        self.feed.as_ref().map_or(Ok(()), |feed| feed.refuse_doubt(now))
    }
}

impl Issuers {
    /// The set of all configured issuers; no token verifies before [`Self::set_keys`].
    pub(crate) fn new(all: Vec<IssuerState>) -> Self {
        Self {
            all: all.into_iter().map(|one| (one.issuer.clone(), one)).collect(),
            verifier: RwLock::new((0, Arc::new(Verifier::new(Roots::new())))),
            changed: watch::Sender::new(0),
        }
    }

    /// One of them.
    pub(crate) fn get(&self, issuer: &str) -> Option<&IssuerState> {
        self.all.get(issuer)
    }

    /// Their identifiers.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.all.keys().map(String::as_str).collect()
    }

    /// Replaces an issuer's root keys by those of a JWK set.
    ///
    /// # Errors
    /// [`RootKeysError`]; the keys from before then stay in use.
    pub(crate) fn set_keys(&self, issuer: &str, document: &[u8]) -> Result<usize, RootKeysError> {
        let keys = read_keys(document)?;
        let count = keys.len();
        let Some(state) = self.all.get(issuer) else {
            return Err(RootKeysError::Document(
                "of an issuer that is not configured".into(),
            ));
        };
        // Held throughout, so that two issuers' updates do not undo each other.
        let mut verifier = self.verifier.write().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut held = state.keys.lock().unwrap_or_else(PoisonError::into_inner);
            // With another number every chain would have to verify anew.
            if *held == keys {
                let taken = |count: &mut u64| *count = count.wrapping_add(1);
                state.keys_changed.send_modify(taken);
                return Ok(count);
            }
            std::mem::replace(&mut *held, keys)
        };
        match self.roots() {
            Ok(roots) => {
                *verifier = (verifier.0.wrapping_add(1), Arc::new(Verifier::new(roots)));
                state
                    .keys_changed
                    .send_modify(|count| *count = count.wrapping_add(1));
                Ok(count)
            }
            Err(error) => {
                *state.keys.lock().unwrap_or_else(PoisonError::into_inner) = before;
                Err(RootKeysError::Roots(error.to_string()))
            }
        }
    }

    fn roots(&self) -> Result<Roots, taper_capability::Error> {
        let mut roots = Roots::new();
        for state in self.all.values() {
            for (id, key) in state.keys.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                roots = roots.trust(&state.issuer, *id, key.clone(), state.servers.clone())?;
            }
        }
        Ok(roots)
    }

    /// Refuses early what cannot pass; nothing of `token` is verified yet. What is revoked is not looked
    /// at here: anybody can name a grant, a key or a subject in a token of its own making, and would
    /// learn of each whether it is revoked.
    pub(crate) fn precheck(&self, token: &UnverifiedToken) -> Result<(), Refusal> {
        let state = self.all.get(token.issuer()).ok_or(Refusal::Issuer)?;
        if state.has_keys() {
            Ok(())
        } else {
            Err(Refusal::IssuerNotReady)
        }
    }

    /// The number of the set of root keys that is trusted now.
    pub(crate) fn roots_version(&self) -> u64 {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Verifies a token against the root keys of all issuers, and says which set of them that was. An
    /// unknown key id asks for a refresh.
    pub(crate) fn verify(&self, token: UnverifiedToken, now: i64) -> Result<(VerifiedChain, u64), Refusal> {
        let (version, verifier) = self
            .verifier
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let issuer = token.issuer().to_owned();
        let verified = verifier.verify(token, now).map_err(|error| {
            if matches!(
                error,
                taper_capability::Error::Root | taper_capability::Error::Issuer
            ) && let Some(state) = self.all.get(&issuer)
            {
                state.keys_wanted.notify_one();
            }
            Refusal::Capability(error)
        })?;
        Ok((verified, version))
    }

    /// Refuses a chain of which anything is revoked, or of which that cannot be known (M-12, M-13).
    pub(crate) fn check_revocation(&self, chain: &VerifiedChain, now: i64) -> Result<(), Refusal> {
        let Some(state) = self.all.get(chain.issuer()) else {
            return Err(Refusal::Issuer);
        };
        let holders: Vec<[u8; 32]> = chain
            .links()
            .iter()
            .map(|link| *link.holder.thumbprint().as_bytes())
            .collect();
        let subjects = parties(chain.subject(), chain.actor());
        state.refuse_revoked(&RevocationKeys {
            issuer: chain.issuer(),
            grant: chain.grant_id(),
            branches: chain.branch_ids(),
            holders: &holders,
            client: chain.client(),
            subjects: &subjects,
        })?;
        state.refuse_doubt(now)
    }

    /// Whether what `keys` name is revoked, or nobody could say so.
    pub(crate) fn is_revoked(&self, keys: &RevocationKeys<'_>) -> bool {
        let state = self.all.get(keys.issuer);
        state.is_none_or(|state| state.refuse_revoked(keys).is_err())
    }

    /// Takes a page of an issuer's feed whose signature held, as [`Followed::take`] does.
    ///
    /// # Errors
    /// Those of [`Followed::take`].
    pub(crate) fn take_page(
        &self,
        issuer: &str,
        page: &FeedPage,
        now: i64,
        keep: impl FnOnce(FeedPosition) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(feed) = self.all.get(issuer).and_then(IssuerState::feed) {
            let taken = feed.take(page, now, keep);
            // What refuses every call cuts every stream.
            if !page.entries.is_empty() || feed.refuse_doubt(now).is_err() {
                self.changed.send_modify(|count| *count = count.wrapping_add(1));
            }
            return taken;
        }
        Ok(())
    }

    /// Learns of every change of any view.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What keeps the proxy from answering: a line for every issuer without keys, and for every one whose
    /// revocations are not known.
    pub(crate) fn unready(&self, now: i64) -> Vec<String> {
        let mut lines = Vec::new();
        for state in self.all.values() {
            if !state.has_keys() {
                lines.push(format!("{}: its root keys are not known", state.issuer));
            }
            if let Some(reason) = state.feed.as_ref().and_then(|feed| feed.unready(now)) {
                lines.push(format!("{}: {reason}", state.issuer));
            }
        }
        lines
    }
}

/// The root keys of a JWK set: `kid` is the decimal root key id.
fn read_keys(document: &[u8]) -> Result<Vec<(u32, PublicKey)>, RootKeysError> {
    let document =
        json::parse_object(document, MAX_KEY_SET).map_err(|e| RootKeysError::Document(e.to_string()))?;
    let keys = document.get("keys").and_then(serde_json::Value::as_array);
    let keys = keys.ok_or_else(|| RootKeysError::Document("there is no array `keys`".into()))?;
    if keys.is_empty() {
        return Err(RootKeysError::Document("there is no key".into()));
    }
    let read = |key: &serde_json::Value| {
        let id = key.get("kid").and_then(serde_json::Value::as_str);
        let id = id.and_then(|id| id.parse::<u32>().ok().filter(|number| number.to_string() == id));
        let id = id.ok_or_else(|| RootKeysError::Key("its `kid` is not a decimal number".into()))?;
        let key = PublicKey::from_jwk_str(&key.to_string()).map_err(|e| RootKeysError::Key(e.to_string()))?;
        Ok((id, key))
    };
    keys.iter().map(read).collect()
}

/// The subject, and the actor where there is one: a revocation of either counts.
fn parties<'a>(subject: &'a Party, actor: Option<&'a Party>) -> Vec<(&'a str, &'a str)> {
    std::iter::once(subject)
        .chain(actor)
        .map(|party| (party.iss.as_str(), party.sub.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_capability::RootKey;
    use taper_service::rng;

    fn set(root: &RootKey, kid: &str) -> Vec<u8> {
        let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
        key["kid"] = kid.into();
        serde_json::json!({ "keys": [key] }).to_string().into_bytes()
    }

    fn issuers(floor: Option<FeedPosition>) -> Issuers {
        let state = IssuerState::new("https://i", None, floor, Duration::from_secs(30));
        Issuers::new(vec![state])
    }

    #[test]
    fn keys_are_read_strictly_and_bad_ones_change_nothing() {
        let (one, issuers) = (RootKey::generate(1, &mut rng::os()), issuers(None));
        assert_eq!(issuers.unready(0), ["https://i: its root keys are not known"]);
        assert_eq!(issuers.set_keys("https://i", &set(&one, "1")), Ok(1));
        assert!(issuers.unready(0).is_empty());
        let version = issuers.roots_version();
        assert_eq!(issuers.set_keys("https://i", &set(&one, "1")), Ok(1));
        assert_eq!(issuers.roots_version(), version, "the same keys");
        let other = RootKey::generate(1, &mut rng::os());
        assert_eq!(issuers.set_keys("https://i", &set(&other, "1")), Ok(1));
        assert_ne!(issuers.roots_version(), version);
        for bad in ["01", "-1", "x", "4294967296", ""] {
            assert!(issuers.set_keys("https://i", &set(&one, bad)).is_err(), "{bad}");
        }
        assert!(issuers.set_keys("https://j", &set(&one, "1")).is_err());
        assert!(issuers.set_keys("https://i", b"{\"keys\":[]}").is_err());
        assert!(
            issuers
                .set_keys("https://i", b"{\"keys\":[],\"keys\":[]}")
                .is_err()
        );
        assert!(issuers.unready(0).is_empty());
    }

    #[test]
    fn a_page_is_signed_by_a_key_of_its_issuer() {
        let (one, two) = (
            RootKey::generate(1, &mut rng::os()),
            RootKey::generate(2, &mut rng::os()),
        );
        let issuers = issuers(Some(FeedPosition::START));
        let state = issuers.get("https://i").unwrap();
        let check = |signature: &str, body: &[u8], expected: Result<(), Unsigned>| {
            assert_eq!(state.verify_page(Some(signature), body), expected);
        };
        let good = one.sign_detached(FEED_TYP, b"{}").unwrap();
        check(&good, b"{}", Err(Unsigned::UnknownKey("1".into())));
        issuers.set_keys("https://i", &set(&one, "1")).unwrap();
        check(&good, b"{}", Ok(()));
        check(&good, b"{ }", Err(Unsigned::Jws(JwsError::Signature)));
        let typ = JwsError::Typ { expected: FEED_TYP };
        check(
            &one.sign_detached("at+jwt", b"{}").unwrap(),
            b"{}",
            Err(Unsigned::Jws(typ)),
        );
        check(
            &two.sign_detached(FEED_TYP, b"{}").unwrap(),
            b"{}",
            Err(Unsigned::UnknownKey("2".into())),
        );
        let stranger = RootKey::generate(1, &mut rng::os());
        check(
            &stranger.sign_detached(FEED_TYP, b"{}").unwrap(),
            b"{}",
            Err(Unsigned::Jws(JwsError::Signature)),
        );
        assert_eq!(state.verify_page(None, b"{}"), Err(Unsigned::Missing));
    }
}
