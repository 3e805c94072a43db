//! Calls that are counted: how often each max-calls caveat was used (RULES 16).
//!
//! What was counted is the journal's: a decision that allowed names the counters that it used, and
//! the state keeps their sums. Here is what is under way. A call is **reserved** before it is
//! decided; the reservation goes into the journal with the decision, or is given back when it is
//! dropped. A counter has an entry in memory from its first reservation to the end of its last, so
//! memory is bounded by the calls that are being decided, and of two calls at the limit one passes.
//!
//! An entry leaves memory only after the state has what the journal has: [`crate::writer`] ends
//! reservations after it applied their records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::revocation::hex32;

const SHARDS: usize = 32;

/// What is counted: the calls under one caveat of one link. Always read together with the issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CounterKey {
    /// The branch id of the link (RULES 6); in JSON 64 lower-case hex digits.
    #[serde(with = "hex32")]
    pub branch: [u8; 32],
    /// The caveat's position among the link's checks.
    pub index: u32,
}

impl CounterKey {
    /// One fixed-size name for (issuer, key). The issuer is preceded by its length, and the rest has
    /// a fixed size, so that no two keys share it.
    pub(crate) fn fingerprint(&self, issuer: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((issuer.len() as u64).to_be_bytes());
        hash.update(issuer.as_bytes());
        hash.update(self.branch);
        hash.update(self.index.to_be_bytes());
        hash.finalize().into()
    }
}

/// A counter, and how long it can matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counter {
    /// Which one.
    #[serde(flatten)]
    pub key: CounterKey,
    /// When its link can never be used again, whatever is renewed, in seconds since the Unix epoch; the
    /// count is kept until then. The branch id of a link that was handed over or narrowed fixes its
    /// expiry; that of a grant does not, since a renewal keeps it, so its counters have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

impl From<CounterKey> for Counter {
    /// A counter that is kept for good.
    fn from(key: CounterKey) -> Self {
        Self { key, until: None }
    }
}

/// One call, reserved under its counters. It is given back when dropped, so neither an early return
/// nor a panic can use up a call; [`crate::Audit::append_counted`] makes it count.
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    ledger: Arc<Ledger>,
    issuer: String,
    counters: Vec<Counter>,
    values: Vec<u64>,
    held: Vec<[u8; 32]>,
}

impl Reservation {
    /// How many calls there are under each key, in the order in which they were asked for: those that
    /// count, those that are reserved and not ended, and this one.
    pub fn values(&self) -> &[u64] {
        &self.values
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn counters(&self) -> &[Counter] {
        &self.counters
    }

    pub(crate) fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        Arc::ptr_eq(&self.ledger, ledger)
    }

    /// The record is in the journal and in the state: the call counts.
    pub(crate) fn commit(mut self) {
        let held = std::mem::take(&mut self.held);
        self.ledger.end(&held, 1);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.end(&self.held, 0);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("counters", &self.counters)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

/// The counters with calls under way, in parts that are locked one at a time and never while the state
/// is read: a look-up that is slow holds up nobody.
#[derive(Default)]
pub(crate) struct Ledger {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    live: HashMap<[u8; 32], Live>,
    /// How many counters left memory. A count that was read from the state is the present one if nothing
    /// left in between: a call that came to count meanwhile would have had an entry, and have it still.
    left: u64,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    /// Calls that count.
    count: u64,
    /// Calls that are reserved.
    pending: u64,
}

impl Live {
    /// Reserves one more call. How many there are with it.
    fn reserve(&mut self) -> u64 {
        self.pending = self.pending.saturating_add(1);
        self.count.saturating_add(self.pending)
    }
}

impl Ledger {
    /// Reserves one call under every counter, or under none. `counted` reads from the state what a
    /// counter has.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        issuer: &str,
        counters: &[Counter],
        counted: impl Fn(&[u8; 32]) -> Result<u64, StoreError>,
    ) -> Result<Reservation, StoreError> {
        // What it holds is given back with it, also when a later counter cannot be read.
        let mut calls = Reservation {
            ledger: Arc::clone(self),
            issuer: issuer.to_owned(),
            counters: counters.to_vec(),
            values: Vec::new(),
            held: Vec::new(),
        };
        let mut known: HashMap<[u8; 32], u64> = HashMap::new();
        for counter in counters {
            let name = counter.key.fingerprint(issuer);
            let value = match known.get(&name) {
                Some(value) => *value,
                None => {
                    let value = self.take(&name, &counted)?;
                    calls.held.push(name);
                    known.insert(name, value);
                    value
                }
            };
            calls.values.push(value);
        }
        Ok(calls)
    }

    /// Reserves one call. How many there are with it.
    fn take(
        &self,
        name: &[u8; 32],
        counted: impl Fn(&[u8; 32]) -> Result<u64, StoreError>,
    ) -> Result<u64, StoreError> {
        loop {
            let left = {
                let mut shard = self.lock(name);
                if let Some(live) = shard.live.get_mut(name) {
                    return Ok(live.reserve());
                }
                shard.left
            };
            let count = counted(name)?;
            let mut shard = self.lock(name);
            if let Some(live) = shard.live.get_mut(name) {
                return Ok(live.reserve());
            }
            if shard.left == left {
                let mut live = Live { count, pending: 0 };
                let value = live.reserve();
                shard.live.insert(*name, live);
                return Ok(value);
            }
        }
    }

    /// Ends one reservation under each name; `calls` of it count.
    fn end(&self, names: &[[u8; 32]], calls: u64) {
        for name in names {
            let mut shard = self.lock(name);
            let Some(Live { count, pending }) = shard.live.get_mut(name) else {
                continue;
            };
            *count = count.saturating_add(calls);
            *pending = pending.saturating_sub(1);
            if *pending == 0 {
                shard.live.remove(name);
                shard.left = shard.left.wrapping_add(1);
            }
        }
    }

    /// No panic is possible while it is held that would leave half of a change.
    fn lock(&self, name: &[u8; 32]) -> MutexGuard<'_, Shard> {
        let ([first, ..], [any, ..]) = (name, &self.shards);
        let shard = self.shards.get(usize::from(*first) % SHARDS).unwrap_or(any);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many counters have an entry.
    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        let live = |shard: &Mutex<Shard>| shard.lock().unwrap().live.len();
        self.shards.iter().map(live).sum()
    }
}

#[cfg(test)]
#[path = "counters_tests.rs"]
mod tests;
