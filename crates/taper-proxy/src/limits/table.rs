//! A table by caller that cannot grow without end: a delegator makes keys offline, as many as it likes.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use taper_capability::VerifiedChain;

/// Who is counted: a hash, so that an entry has one size whatever an issuer calls its subjects. It is keyed with what
/// only this process knows, so nobody can choose a name that counts as another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// The key of these parts, each with its length.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        // Two messages under one key: two states of one thread have keys that follow from each other.
        Self([0_u8, 1].map(|half| SECRET.hash_one((half, parts))))
    }
}

/// The keys of the one who presents a chain. All are an issuer's own: nobody else's tokens touch them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) holder: Key,
    pub(super) grant: Key,
    pub(super) subject: Key,
}

impl Caller {
    pub(super) fn of(chain: &VerifiedChain) -> Self {
        let issuer = chain.issuer().as_bytes();
        let holder = chain.last_holder().thumbprint();
        let subject = chain.subject();
        Self {
            holder: Key::of(&[b"holder", issuer, holder.as_bytes()]),
            grant: Key::of(&[b"grant", issuer, chain.grant_id().as_bytes()]),
            subject: Key::of(&[b"subject", issuer, subject.iss.as_bytes(), subject.sub.as_bytes()]),
        }
    }
}

/// At most `max` entries. Whoever finds it full shares one entry with all others that do.
#[derive(Debug)]
pub(super) struct Table<V> {
    max: usize,
    entries: Mutex<Entries<V>>,
}

#[derive(Debug)]
struct Entries<V> {
    own: HashMap<Key, V>,
    shared: Option<V>,
}

impl<V> Table<V> {
    pub(super) fn new(max: usize) -> Self {
        let (own, shared) = (HashMap::new(), None);
        Self {
            max: max.max(1),
            entries: Mutex::new(Entries { own, shared }),
        }
    }

    /// Gives `change` the caller's entry, and puts what it returns in its place, if anything.
    pub(super) fn change<T>(&self, key: &Key, change: impl FnOnce(Option<&V>) -> (T, Option<V>)) -> T {
        let mut entries = self.lock();
        let own = entries.own.get(key);
        let shares = own.is_none() && entries.own.len() >= self.max;
        let (answer, next) = change(if shares { entries.shared.as_ref() } else { own });
        if let Some(next) = next {
            if shares {
                entries.shared = Some(next);
            } else {
                entries.own.insert(*key, next);
            }
        }
        answer
    }

    /// Forgets the entries that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&V) -> bool) {
        let mut entries = self.lock();
        entries.own.retain(|_, value| keep(value));
        if entries.shared.as_ref().is_some_and(|value| !keep(value)) {
            entries.shared = None;
        }
    }

    /// How many entries there are, the shared one apart.
    pub(super) fn len(&self) -> usize {
        self.lock().own.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries<V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(table: &Table<u32>, name: &str) -> u32 {
        table.change(&Key::of(&[name.as_bytes()]), |count| {
            let next = count.copied().unwrap_or(0) + 1;
            (next, Some(next))
        })
    }

    #[test]
    fn a_full_table_has_one_entry_for_all_others() {
        let table = Table::new(2);
        let counts: Vec<u32> = ["a", "b", "c", "d", "c", "a"]
            .map(|name| add(&table, name))
            .to_vec();
        assert_eq!(counts, [1, 1, 1, 2, 3, 2], "c and d share, a and b do not");
        assert_eq!(table.len(), 2);
        table.retain(|count| *count == 2);
        assert_eq!(table.len(), 1, "b left, and the shared entry");
        assert_eq!((add(&table, "c"), add(&table, "d")), (1, 1));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_ne!(Key::of(&[b"a"]), Key::of(&[b"a", b""]));
    }
}
