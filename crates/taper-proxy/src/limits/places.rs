//! How much runs at once: a place is taken before the work and given back at its end, whatever the end
//! is. The tables have an entry per place that is taken, so their size is bounded by the places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::{Caller, Key};
use crate::rules;

/// The places for one kind of work.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    per_grant: usize,
    per_holder: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    grants: HashMap<Key, usize>,
    holders: HashMap<Key, usize>,
}

/// Whose places are all taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Server,
    Grant,
    Holder,
}

impl Places {
    pub(super) fn new(max: usize, per_grant: usize, per_holder: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_grant,
            per_holder,
            taken: Mutex::default(),
        })
    }

    /// A place of the caller's; the narrowest that is full refuses.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller) -> Result<Place, Full> {
        let mut taken = self.lock();
        let has = |of: &HashMap<Key, usize>, key: &Key| of.get(key).copied().unwrap_or(0);
        if !rules::PLACES.holds(has(&taken.holders, &caller.holder) < self.per_holder) {
            return Err(Full::Holder);
        }
        if !rules::PLACES.holds(has(&taken.grants, &caller.grant) < self.per_grant) {
            return Err(Full::Grant);
        }
        if !rules::PLACES.holds(taken.all < self.max) {
            return Err(Full::Server);
        }
        taken.all = taken.all.saturating_add(1);
        let add = |of: &mut HashMap<Key, usize>, key: Key| {
            let count = of.entry(key).or_default();
            *count = count.saturating_add(1);
        };
        add(&mut taken.holders, caller.holder);
        add(&mut taken.grants, caller.grant);
        Ok(Place {
            places: Arc::clone(self),
            grant: caller.grant,
            holder: caller.holder,
        })
    }

    /// How many are taken.
    pub(super) fn in_use(&self) -> usize {
        self.lock().all
    }

    /// How many are taken, and by how many grants and holders.
    #[cfg(test)]
    pub(super) fn taken(&self) -> (usize, usize, usize) {
        let taken = self.lock();
        (taken.all, taken.grants.len(), taken.holders.len())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    grant: Key,
    holder: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        let remove = |of: &mut HashMap<Key, usize>, key: &Key| {
            let left = of.get(key).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                of.remove(key);
            } else {
                of.insert(*key, left);
            }
        };
        remove(&mut taken.grants, &self.grant);
        remove(&mut taken.holders, &self.holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(grant: u8, holder: u8) -> Caller {
        Caller {
            holder: Key::of(&[&[holder]]),
            grant: Key::of(&[&[grant]]),
            subject: Key::of(&[]),
        }
    }

    #[test]
    fn the_narrowest_bound_refuses_and_a_place_is_given_back() {
        let places = Places::new(4, 3, 2);
        let take = |grant: u8, holder: u8| places.take(&caller(grant, holder));
        let (one, _two) = (take(1, 1).unwrap(), take(1, 1).unwrap());
        assert_eq!(take(1, 1).unwrap_err(), Full::Holder);
        let _three = take(1, 2).unwrap();
        assert_eq!(take(1, 3).unwrap_err(), Full::Grant);
        let _four = take(2, 4).unwrap();
        assert_eq!(take(3, 5).unwrap_err(), Full::Server);
        assert_eq!(places.taken(), (4, 2, 3));
        drop(one);
        assert!(take(3, 5).is_ok());
        assert_eq!(places.taken(), (3, 2, 3), "the last one is free again too");
    }
}
