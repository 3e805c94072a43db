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
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::revocation::hex32;

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

/// The counters with calls under way.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    live: Mutex<HashMap<[u8; 32], Live>>,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    /// Calls that count.
    count: u64,
    /// Calls that are reserved.
    pending: u64,
}

impl Ledger {
    /// Reserves one call under every key, or under none. `counted` reads from the state what a key
    /// has.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        issuer: &str,
        counters: &[Counter],
        counted: impl Fn(&[u8; 32]) -> Result<u64, StoreError>,
    ) -> Result<Reservation, StoreError> {
        let mut live = self.lock();
        let mut updates: HashMap<[u8; 32], Live> = HashMap::new();
        let (mut values, mut held) = (Vec::new(), Vec::new());
        for counter in counters {
            let name = counter.key.fingerprint(issuer);
            let now = match updates.entry(name) {
                Slot::Occupied(update) => *update.get(),
                Slot::Vacant(update) => {
                    let before = match live.get(&name) {
                        Some(entry) => *entry,
                        // Under the lock: in between, another call could count and leave memory.
                        None => Live {
                            count: counted(&name)?,
                            pending: 0,
                        },
                    };
                    held.push(name);
                    *update.insert(Live {
                        pending: before.pending.saturating_add(1),
                        ..before
                    })
                }
            };
            values.push(now.count.saturating_add(now.pending));
        }
        live.extend(updates);
        Ok(Reservation {
            ledger: Arc::clone(self),
            issuer: issuer.to_owned(),
            counters: counters.to_vec(),
            values,
            held,
        })
    }

    /// Ends one reservation under each name; `calls` of it count.
    fn end(&self, names: &[[u8; 32]], calls: u64) {
        let mut live = self.lock();
        for name in names {
            if let Slot::Occupied(mut entry) = live.entry(*name) {
                let Live { count, pending } = entry.get_mut();
                *count = count.saturating_add(calls);
                *pending = pending.saturating_sub(1);
                if *pending == 0 {
                    entry.remove();
                }
            }
        }
    }

    /// No panic is possible while it is held that would leave half of a change.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many counters have an entry.
    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
#[path = "counters_tests.rs"]
mod tests;
