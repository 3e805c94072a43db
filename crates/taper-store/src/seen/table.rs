//! One part of the table of seen proofs, under a lock of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::forgotten::{Far, Forgotten};
use super::{SLACK, locked};
use crate::seen_log::Entry;

#[derive(Default)]
pub(super) struct Shard {
    pub(super) live: HashMap<[u8; 32], Entry>,
    pub(super) by_expiry: BTreeMap<i64, Vec<[u8; 32]>>,
}

impl Shard {
    /// Adds an entry; returns the one under the same key.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.by_expiry
            .entry(entry.keep_until)
            .or_default()
            .push(entry.key);
        self.live.insert(entry.key, entry)
    }

    /// Removes this entry, if it is still there.
    pub(super) fn remove(&mut self, entry: &Entry) -> bool {
        if self.live.get(&entry.key) != Some(entry) {
            return false;
        }
        self.live.remove(&entry.key);
        if let Some(keys) = self.by_expiry.get_mut(&entry.keep_until)
            && let Some(at) = keys.iter().rposition(|key| *key == entry.key)
        {
            keys.swap_remove(at);
        }
        true
    }

    /// Removes entries that expired [`SLACK`] ago, at most `limit` of them. Returns whose they were, and whether there
    /// may be more.
    pub(super) fn sweep(
        &mut self,
        now: i64,
        limit: usize,
        forgotten: &Mutex<Forgotten>,
    ) -> (Vec<[u8; 8]>, bool) {
        let before = now.saturating_sub(SLACK);
        let mut tags = Vec::new();
        let mut last = None;
        let mut more = true;
        // What was removed or has another place now counts too: looking at it takes as long.
        for _ in 0..limit {
            let Some(mut oldest) = self
                .by_expiry
                .first_entry()
                .filter(|oldest| *oldest.key() < before)
            else {
                more = false;
                break;
            };
            let keep_until = *oldest.key();
            last = Some(keep_until);
            let Some(key) = oldest.get_mut().pop() else {
                oldest.remove();
                continue;
            };
            // A key that was inserted again has a later expiry now, and another place in the order.
            if self
                .live
                .get(&key)
                .is_some_and(|entry| entry.keep_until == keep_until)
            {
                tags.extend(self.live.remove(&key).map(|entry| entry.tag));
            }
        }
        // Under the shard's lock: whoever finds an entry gone finds it noted.
        if let Some(last) = last {
            locked(forgotten).note(last);
        }
        (tags, more)
    }

    /// Removes entries that are far, and returns whose they were; an end up to `noted` is noted already.
    pub(super) fn forget_far(&mut self, noted: i64, forgotten: &Mutex<Forgotten>) -> Vec<[u8; 8]> {
        // Asked under this shard's lock: what was put in since the noting is not of it.
        let (Far::Noted(latest) | Far::Leaving(latest)) = locked(forgotten).far else {
            return Vec::new();
        };
        let far = self.by_expiry.split_off(&latest.saturating_add(1));
        if let Some((last, _)) = far.last_key_value().filter(|(last, _)| **last > noted) {
            locked(forgotten).note(*last);
        }
        let mut tags = Vec::new();
        for key in far.values().flatten() {
            if self.live.get(key).is_some_and(|entry| entry.keep_until > latest) {
                tags.extend(self.live.remove(key).map(|entry| entry.tag));
            }
        }
        tags
    }
}
