//! Who owns a handle, of a session or a task: by (issuer, grant, last holder), insert-if-absent (RULES 21).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use taper_capability::VerifiedChain;
use taper_dpop::Thumbprint;

/// The longest handle that is remembered, in bytes.
const MAX_HANDLE: usize = 512;

/// The owner of a handle. A renewed capability keeps all three, so it keeps its handles.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    issuer: String,
    grant: String,
    holder: Thumbprint,
}

impl Owner {
    /// The one who presents this chain.
    pub(crate) fn of(chain: &VerifiedChain) -> Self {
        Self {
            issuer: chain.issuer().to_owned(),
            grant: chain.grant_id().to_owned(),
            holder: chain.last_holder().thumbprint(),
        }
    }
}

#[cfg(test)]
impl Owner {
    /// Another one with each grant.
    pub(crate) fn with_grant(grant: &str) -> Self {
        use taper_dpop::{Algorithm, PrivateKey};
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut taper_service::rng::os());
        Self {
            issuer: "i".into(),
            grant: grant.into(),
            holder: key.public().thumbprint(),
        }
    }
}

/// Handles of one server, their owners, and a value of each; the oldest leave when it is full.
#[derive(Debug)]
pub(crate) struct Owners<T> {
    max: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    owners: HashMap<String, Owned<T>>,
    order: VecDeque<(String, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Owned<T> {
    owner: Owner,
    number: u64,
    value: T,
}

impl<T> Owners<T> {
    /// No handles yet; at most `max` are kept.
    pub(crate) fn new(max: usize) -> Self {
        let state = State {
            owners: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
        };
        Self {
            max: max.max(1),
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
        if let Some(known) = state.owners.get(handle) {
            return known.owner == *owner;
        }
        state.next = state.next.wrapping_add(1);
        let number = state.next;
        let owned = Owned {
            owner: owner.clone(),
            number,
            value,
        };
        state.owners.insert(handle.to_owned(), owned);
        state.order.push_back((handle.to_owned(), number));
        while state.owners.len() > self.max || state.order.len() > self.max.saturating_mul(2) {
            let Some((oldest, number)) = state.order.pop_front() else {
                break;
            };
            // It may have been released and claimed again since.
            if state
                .owners
                .get(&oldest)
                .is_some_and(|current| current.number == number)
            {
                if state.owners.len() > self.max {
                    state.owners.remove(&oldest);
                } else {
                    state.order.push_back((oldest, number));
                }
            }
        }
        true
    }

    /// Whether `handle` is known and `owner`'s.
    pub(crate) fn is_owned(&self, handle: &str, owner: &Owner) -> bool {
        self.with(handle, owner, |_| ()).is_some()
    }

    /// What `f` makes of the value of a handle that is known and `owner`'s.
    pub(crate) fn with<R>(&self, handle: &str, owner: &Owner, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = self.lock();
        let known = state.owners.get_mut(handle)?;
        (known.owner == *owner).then(|| f(&mut known.value))
    }

    /// Forgets a handle.
    pub(crate) fn release(&self, handle: &str) {
        self.lock().owners.remove(handle);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn memory_is_bounded_and_the_oldest_leave() {
        let (owners, a) = (Owners::new(2), Owner::with_grant("g"));
        for handle in ["1", "2", "3"] {
            assert!(claim(&owners, handle, &a));
        }
        let owned: Vec<bool> = ["1", "2", "3"].iter().map(|h| owners.is_owned(h, &a)).collect();
        assert_eq!(owned, [false, true, true]);
        for n in 0..100 {
            let handle = format!("x{n}");
            claim(&owners, &handle, &a);
            owners.release(&handle);
        }
        assert!(owners.is_owned("3", &a));
        assert!(owners.lock().order.len() <= 4);
    }
}
