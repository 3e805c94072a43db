//! The issuers whose capabilities count: their root keys, and what they revoked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use taper_capability::{Party, Roots, UnverifiedToken, VerifiedChain, Verifier};
use taper_dpop::PublicKey;
use taper_oauth::json;
use taper_store::{RevocationKeys, RevocationPage, RevocationView};
use tokio::sync::{Notify, watch};

use crate::refusal::Refusal;
use crate::rules;

/// The largest key set that is read, in bytes.
pub(crate) const MAX_KEY_SET: usize = 64 * 1024;

/// All issuers. Every look-up is by the exact identifier.
#[derive(Debug)]
pub(crate) struct Issuers {
    all: BTreeMap<String, IssuerState>,
    verifier: RwLock<Arc<Verifier>>,
    /// Counts up with every revocation that was taken.
    changed: watch::Sender<u64>,
}

/// One issuer.
#[derive(Debug)]
pub(crate) struct IssuerState {
    issuer: String,
    servers: Option<Vec<String>>,
    keys: Mutex<Vec<(u32, PublicKey)>>,
    view: Option<RevocationView>,
    max_staleness: Duration,
    /// Somebody presented a key id that is not known.
    pub(crate) keys_wanted: Notify,
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
    /// An issuer without keys yet. `floor` is the highest number of its feed that was ever seen, `None`
    /// when it has no feed.
    pub(crate) fn new(
        issuer: &str,
        servers: Option<Vec<String>>,
        floor: Option<u64>,
        max_staleness: Duration,
    ) -> Self {
        Self {
            issuer: issuer.to_owned(),
            servers,
            keys: Mutex::default(),
            view: floor.map(|floor| RevocationView::new(issuer, floor)),
            max_staleness,
            keys_wanted: Notify::new(),
        }
    }

    fn has_keys(&self) -> bool {
        !self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn is_fresh(&self, now: i64) -> bool {
        let Some(view) = &self.view else { return true };
        let longest = i64::try_from(self.max_staleness.as_secs()).unwrap_or(i64::MAX);
        view.fresh_as_of()
            .is_some_and(|as_of| now.saturating_sub(as_of) <= longest)
    }

    /// Where the feed stands: the number after which the next page begins.
    pub(crate) fn head(&self) -> u64 {
        self.view.as_ref().map_or(0, RevocationView::head)
    }
}

impl Issuers {
    /// The set of all configured issuers; no token verifies before [`Self::set_keys`].
    pub(crate) fn new(all: Vec<IssuerState>) -> Self {
        Self {
            all: all.into_iter().map(|one| (one.issuer.clone(), one)).collect(),
            verifier: RwLock::new(Arc::new(Verifier::new(Roots::new()))),
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
            std::mem::replace(&mut *held, keys)
        };
        match self.roots() {
            Ok(roots) => {
                *verifier = Arc::new(Verifier::new(roots));
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

    /// Refuses early what cannot pass; nothing of `token` is verified yet.
    pub(crate) fn precheck(&self, token: &UnverifiedToken) -> Result<(), Refusal> {
        let state = self.all.get(token.issuer());
        let Some(state) = state else {
            return Err(Refusal::Issuer);
        };
        if !state.has_keys() {
            return Err(Refusal::IssuerNotReady);
        }
        let holders: Vec<[u8; 32]> = token
            .links()
            .iter()
            .map(|link| *link.holder.thumbprint().as_bytes())
            .collect();
        let subjects = parties(token.subject(), token.actor());
        state.refuse_revoked(&RevocationKeys {
            issuer: token.issuer(),
            grant: token.grant_id(),
            branches: &[],
            holders: &holders,
            client: token.client(),
            subjects: &subjects,
        })
    }

    /// Verifies a token against the root keys of all issuers. An unknown key id asks for a refresh.
    pub(crate) fn verify(&self, token: UnverifiedToken, now: i64) -> Result<VerifiedChain, Refusal> {
        let verifier = Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner));
        let issuer = token.issuer().to_owned();
        verifier.verify(token, now).map_err(|error| {
            if matches!(
                error,
                taper_capability::Error::Root | taper_capability::Error::Issuer
            ) && let Some(state) = self.all.get(&issuer)
            {
                state.keys_wanted.notify_one();
            }
            Refusal::Capability(error)
        })
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
        if rules::STALE.holds(state.is_fresh(now)) {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }

    /// Takes a page of an issuer's feed.
    ///
    /// # Errors
    /// Those of [`RevocationView::apply`].
    pub(crate) fn take_page(
        &self,
        issuer: &str,
        page: &RevocationPage,
        as_of: i64,
    ) -> Result<(), taper_store::StoreError> {
        if let Some(view) = self.all.get(issuer).and_then(|state| state.view.as_ref()) {
            view.apply(page, as_of)?;
            if !page.entries.is_empty() {
                self.changed.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        Ok(())
    }

    /// Learns of every change of any view.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What keeps the proxy from answering: issuers without keys or with a stale feed.
    pub(crate) fn unready(&self, now: i64) -> Vec<(&str, &'static str)> {
        let reason = |state: &IssuerState| match (state.has_keys(), state.is_fresh(now)) {
            (false, _) => Some("its keys are not known"),
            (_, false) => Some("its revocation feed is stale"),
            _ => None,
        };
        self.all
            .values()
            .filter_map(|state| reason(state).map(|reason| (state.issuer.as_str(), reason)))
            .collect()
    }
}

impl IssuerState {
    fn refuse_revoked(&self, keys: &RevocationKeys<'_>) -> Result<(), Refusal> {
        match self.view.as_ref().and_then(|view| view.is_revoked(keys)) {
            Some(kind) if !rules::REVOKED.holds(false) => Err(Refusal::Revoked(kind)),
            _ => Ok(()),
        }
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
    use taper_store::NO_HISTORY;

    fn set(root: &RootKey, kid: &str) -> Vec<u8> {
        let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
        key["kid"] = kid.into();
        serde_json::json!({ "keys": [key] }).to_string().into_bytes()
    }

    fn issuers(floor: Option<u64>) -> Issuers {
        let state = IssuerState::new("https://i", None, floor, Duration::from_secs(30));
        Issuers::new(vec![state])
    }

    #[test]
    fn keys_are_read_strictly_and_bad_ones_change_nothing() {
        let (one, issuers) = (RootKey::generate(1, &mut rng::os()), issuers(None));
        assert_eq!(issuers.unready(0), [("https://i", "its keys are not known")]);
        assert_eq!(issuers.set_keys("https://i", &set(&one, "1")), Ok(1));
        assert!(issuers.unready(0).is_empty());
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
    fn a_feed_is_fresh_for_its_time() {
        let issuers = issuers(Some(0));
        let root = RootKey::generate(1, &mut rng::os());
        issuers.set_keys("https://i", &set(&root, "1")).unwrap();
        let check = |now: i64, ready: bool| assert_eq!(issuers.unready(now).is_empty(), ready, "{now}");
        check(0, false);
        let page = RevocationPage {
            entries: Vec::new(),
            head: 0,
            upto: 0,
            history: NO_HISTORY,
        };
        issuers.take_page("https://i", &page, 1000).unwrap();
        check(1000, true);
        check(1030, true);
        check(1031, false);
    }
}
