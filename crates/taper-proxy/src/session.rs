//! Who owns a handle, of a session or a task: by (issuer, grant, last holder), insert-if-absent (RULES 21).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taper_capability::VerifiedChain;
use taper_dpop::Thumbprint;

/// The longest handle that is remembered, in bytes.
const MAX_HANDLE: usize = 512;

/// The smallest share of the handles that one grant has.
const LEAST_SHARE: usize = 16;
/// One grant has at most this part of the handles, but [`LEAST_SHARE`].
const GRANTS_SHARE: usize = 16;

/// The owner of a handle. A renewed capability keeps all three, so it keeps its handles.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    grant: GrantOf,
    holder: Thumbprint,
}

/// A grant of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GrantOf {
    issuer: String,
    id: String,
}

impl Owner {
    /// The one who presents this chain.
    pub(crate) fn of(chain: &VerifiedChain) -> Self {
        Self {
            grant: GrantOf {
                issuer: chain.issuer().to_owned(),
                id: chain.grant_id().to_owned(),
            },
            holder: chain.last_holder().thumbprint(),
        }
    }

    /// What all holders of its chain share.
    pub(crate) fn grant(&self) -> &GrantOf {
        &self.grant
    }
}

#[cfg(test)]
impl Owner {
    /// Another one with each call.
    pub(crate) fn with_grant(grant: &str) -> Self {
        use taper_dpop::{Algorithm, PrivateKey};
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut taper_service::rng::os());
        Self {
            grant: GrantOf {
                issuer: "i".into(),
                id: grant.into(),
            },
            holder: key.public().thumbprint(),
        }
    }
}

/// Handles of one server, their owners, and a value of each. When a grant is at its share, its own least
/// recently used handle leaves; when all are taken, that of everybody.
#[derive(Debug)]
pub(crate) struct Owners<T> {
    max: usize,
    share: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    owners: HashMap<Arc<str>, Owned<T>>,
    /// By when they were used last.
    used: Used,
    by_grant: HashMap<GrantOf, Used>,
    /// The time of the next use.
    next: u64,
}

type Used = BTreeMap<u64, Arc<str>>;

#[derive(Debug)]
struct Owned<T> {
    owner: Owner,
    used: u64,
    value: T,
}

impl<T> Owners<T> {
    /// No handles yet; at most `max` are kept.
    pub(crate) fn new(max: usize) -> Self {
        let state = State {
            owners: HashMap::new(),
            used: Used::new(),
            by_grant: HashMap::new(),
            next: 0,
        };
        Self {
            max: max.max(1),
            share: (max / GRANTS_SHARE).max(LEAST_SHARE),
            state: Mutex::new(state),
        }
    }

    /// Gives `handle` to `owner` unless another has it. Whether it is the owner's now. `value` is its value
    /// if it is new.
    pub(crate) fn claim(&self, handle: &str, owner: &Owner, value: T) -> bool {
        if handle.is_empty() || handle.len() > MAX_HANDLE {
            return false;
        }
        let mut state = self.lock();
        if state.owners.contains_key(handle) {
            return state.used_by(handle, owner).is_some();
        }
        if let Some(theirs) = state.by_grant.get(&owner.grant)
            && theirs.len() >= self.share
        {
            let oldest = theirs.first_key_value().map(|(_, oldest)| Arc::clone(oldest));
            oldest.into_iter().for_each(|oldest| state.remove(&oldest));
        }
        if state.owners.len() >= self.max {
            let oldest = state.used.first_key_value().map(|(_, oldest)| Arc::clone(oldest));
            oldest.into_iter().for_each(|oldest| state.remove(&oldest));
        }
        let (used, handle) = (state.tick(), Arc::<str>::from(handle));
        state.used.insert(used, Arc::clone(&handle));
        let theirs = state.by_grant.entry(owner.grant.clone()).or_default();
        theirs.insert(used, Arc::clone(&handle));
        let owner = owner.clone();
        state.owners.insert(handle, Owned { owner, used, value });
        true
    }

    /// Whether `handle` is known and `owner`'s. This is a use of it.
    pub(crate) fn is_owned(&self, handle: &str, owner: &Owner) -> bool {
        self.with(handle, owner, |_| ()).is_some()
    }

    /// What `f` makes of the value of a handle that is known and `owner`'s. This is a use of it.
    pub(crate) fn with<R>(&self, handle: &str, owner: &Owner, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.lock().used_by(handle, owner).map(f)
    }

    /// Forgets a handle.
    pub(crate) fn release(&self, handle: &str) {
        self.lock().remove(handle);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().owners.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn tick(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn used_by(&mut self, handle: &str, owner: &Owner) -> Option<&mut T> {
        let now = self.tick();
        let known = self
            .owners
            .get_mut(handle)
            .filter(|known| known.owner == *owner)?;
        let before = std::mem::replace(&mut known.used, now);
        let grants = self.by_grant.get_mut(&owner.grant);
        for uses in [Some(&mut self.used), grants].into_iter().flatten() {
            if let Some(handle) = uses.remove(&before) {
                uses.insert(now, handle);
            }
        }
        Some(&mut known.value)
    }

    fn remove(&mut self, handle: &str) {
        let Some(known) = self.owners.remove(handle) else {
            return;
        };
        self.used.remove(&known.used);
        if let Some(theirs) = self.by_grant.get_mut(&known.owner.grant) {
            theirs.remove(&known.used);
            if theirs.is_empty() {
                self.by_grant.remove(&known.owner.grant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owners: &Owners<()>, handle: &str, owner: &Owner) -> bool {
        owners.claim(handle, owner, ())
    }

    #[test]
    fn a_handle_has_one_owner() {
        let (owners, a, b) = (Owners::new(10), Owner::with_grant("g"), Owner::with_grant("g"));
        assert!(claim(&owners, "s", &a) && claim(&owners, "s", &a.clone()));
        assert!(!claim(&owners, "s", &b), "another holder of the same grant");
        assert!(owners.is_owned("s", &a) && !owners.is_owned("s", &b) && !owners.is_owned("t", &a));
        owners.release("s");
        assert!(!owners.is_owned("s", &a) && claim(&owners, "s", &b));
        assert!(!claim(&owners, "", &a) && !claim(&owners, &"x".repeat(MAX_HANDLE + 1), &a));
    }

    fn owned<const N: usize>(owners: &Owners<()>, handles: [&str; N], owner: &Owner) -> [bool; N] {
        let state = owners.lock();
        handles.map(|handle| {
            state
                .owners
                .get(handle)
                .is_some_and(|known| known.owner == *owner)
        })
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_leave() {
        let (owners, a, b) = (Owners::new(3), Owner::with_grant("g"), Owner::with_grant("h"));
        for handle in ["1", "2", "3"] {
            assert!(claim(&owners, handle, &a));
        }
        // A use is its owner's only.
        assert!(owners.is_owned("1", &a) && !owners.is_owned("2", &b) && !claim(&owners, "2", &b));
        assert!(claim(&owners, "4", &b));
        assert_eq!(owned(&owners, ["1", "2", "3"], &a), [true, false, true]);
        assert!(claim(&owners, "3", &a) && claim(&owners, "5", &b));
        assert_eq!(owned(&owners, ["1", "3"], &a), [false, true]);
        for n in 0..100 {
            let handle = format!("x{n}");
            claim(&owners, &handle, &a);
            owners.release(&handle);
        }
        let state = owners.lock();
        assert!(state.owners.len() <= 3 && state.by_grant.len() <= 2);
        let by_grant: usize = state.by_grant.values().map(BTreeMap::len).sum();
        assert_eq!(
            (state.used.len(), by_grant),
            (state.owners.len(), state.owners.len())
        );
    }

    #[test]
    fn a_grant_over_its_share_loses_its_own() {
        let owners = Owners::new(20 * GRANTS_SHARE);
        let (quiet, one) = (Owner::with_grant("quiet"), Owner::with_grant("g"));
        assert!(claim(&owners, "quiet", &quiet));
        for n in 0..19 {
            assert!(claim(&owners, &n.to_string(), &one));
        }
        assert!(owners.is_owned("0", &one));
        // Other holders of the grant share it.
        for n in 19..1_000 {
            assert!(claim(&owners, &n.to_string(), &Owner::with_grant("g")));
            assert!(owners.is_owned("0", &one));
        }
        assert_eq!(owned(&owners, ["0", "1"], &one), [true, false]);
        assert!(owners.is_owned("quiet", &quiet));
        assert_eq!(owners.lock().owners.len(), 21);
    }
}
