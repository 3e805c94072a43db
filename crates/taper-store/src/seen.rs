//! Proofs that were seen, so that none is accepted twice (RULES 22).
//!
//! A sharded table in memory answers; [`crate::seen_log`] makes it survive `kill -9`. Expired
//! entries leave a few at a time with later insertions, and all at once, at most once a second, when
//! a quota or the table seems full.
//!
//! What has expired is told by a clock that may be set. So it is kept for [`SLACK`] longer, and it is remembered of
//! what was forgotten until when it could be accepted: while the clock is right, all of that has passed. When it is set
//! back, some has not, and [`SeenProofs::doubt`] says so: it is then as after a start that found nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::disk::{self, FolderLock};
use crate::error::StoreError;
use crate::seen_log::{self, Entry, SeenLog};
use crate::traits::{Doubt, OpenFor, Seen, SeenProofs};

const SHARDS: usize = 16;
/// Expired entries that one insertion clears away; more than one, so that they cannot pile up.
const SWEEP: usize = 32;
const LOCK_FILE: &str = "seen.lock";
/// How long an entry is kept after its end, in seconds. A clock that is corrected by less has forgotten nothing
/// that could be accepted again.
pub(crate) const SLACK: i64 = 10;
/// How long after now a proof may be acceptable, in seconds: 300 s of age and two times 60 s for clocks that differ
/// . What ends later was taken while the clock was ahead.
pub const LONGEST_LIFE: i64 = 420;

/// How much is remembered: the table `[seen_proofs]` of a configuration file. A proof is kept for 370 s from its `iat`
/// on, so N a second need room for 370 N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeenLimits {
    /// Live proofs altogether, from 1,000 to 10,000,000; beyond that an error. Each takes about 230 bytes of memory.
    /// Default 1,000,000: 2,700 a second.
    #[serde(deserialize_with = "total")]
    pub total: usize,
    /// Live proofs of one grant, or of whoever else bears them, from 100 to 10,000,000; beyond that [`Seen::Quota`].
    /// Default 50,000: 135 a second.
    #[serde(deserialize_with = "per_grant")]
    pub per_grant: usize,
}

impl Default for SeenLimits {
    fn default() -> Self {
        Self {
            total: 1_000_000,
            per_grant: 50_000,
        }
    }
}

const MOST: usize = 10_000_000;

fn total<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    between(1_000, from)
}

fn per_grant<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    between(100, from)
}

fn between<'de, D: Deserializer<'de>>(least: usize, from: D) -> Result<usize, D::Error> {
    let given = usize::deserialize(from)?;
    if (least..=MOST).contains(&given) {
        return Ok(given);
    }
    let reason = format!("{given} is not from {least} to {MOST}");
    Err(serde::de::Error::custom(reason))
}

/// The table of seen proofs of one node.
pub struct SeenStore {
    shards: Vec<Mutex<Shard>>,
    grants: Mutex<HashMap<[u8; 8], usize>>,
    total: AtomicUsize,
    log: Mutex<SeenLog>,
    limits: SeenLimits,
    complete_since: Option<i64>,
    open_for: Option<OpenFor>,
    forgotten: Mutex<Forgotten>,
    removing: Mutex<()>,
    swept_at: AtomicI64,
    _lock: FolderLock,
}

/// Until when what was forgotten could be accepted. It is locked after a shard, never before.
#[derive(Debug)]
struct Forgotten {
    /// Of all.
    until: i64,
    /// Of what was forgotten since the clock was last seen to be set back.
    lately: i64,
    setbacks: u64,
    /// Nothing in the table ends later that is not noted.
    farthest: i64,
    far: Far,
}

/// What ends later than this was taken while the clock was ahead, and is noted. What is taken from then on is not of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    None,
    /// It is still in the table.
    Noted(i64),
    /// Somebody removes it.
    Leaving(i64),
}

#[derive(Default)]
struct Shard {
    live: HashMap<[u8; 32], Entry>,
    by_expiry: BTreeMap<i64, Vec<[u8; 32]>>,
}

enum Attempt {
    Done(Seen),
    OverQuota,
    Full,
}

/// An entry in memory.
struct Taken {
    /// The end of one under the same key that had expired.
    replaced: Option<i64>,
}

impl SeenStore {
    /// Opens the table in a folder of its own. A folder that does not exist yet has seen nothing.
    /// `now` is in seconds since the Unix epoch. It reads a file: not for a runtime thread.
    ///
    /// # Errors
    /// [`StoreError::InUse`] or an I/O error. Damage is no error, see
    /// [`SeenProofs::complete_since`].
    pub fn open(dir: &Path, limits: SeenLimits, now: i64) -> Result<Self, StoreError> {
        let new = !dir.exists();
        disk::create_folder(dir)?;
        Self::open_in(dir, limits, new, now)
    }

    /// Opens the table in an existing folder; `new` says that nothing can have been seen before.
    pub(crate) fn open_in(dir: &Path, limits: SeenLimits, new: bool, now: i64) -> Result<Self, StoreError> {
        let lock = FolderLock::take(dir, LOCK_FILE)?;
        let (log, loaded) = SeenLog::open(dir, seen_log::boot_id().as_deref(), limits.total, new, now)?;
        let store = Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            grants: Mutex::default(),
            total: AtomicUsize::new(loaded.entries.len()),
            log: Mutex::new(log),
            limits,
            complete_since: loaded.complete_since,
            open_for: None,
            forgotten: Mutex::new(Forgotten {
                until: loaded.forgotten_until,
                lately: i64::MIN,
                setbacks: 0,
                farthest: seen_log::last_end(&loaded.entries),
                far: Far::None,
            }),
            removing: Mutex::new(()),
            swept_at: AtomicI64::new(i64::MIN),
            _lock: lock,
        };
        for entry in loaded.entries {
            *locked(&store.grants).entry(entry.tag).or_default() += 1;
            if let Some(shard) = store.shard(&entry.key) {
                locked(shard).insert(entry);
            }
        }
        Ok(store)
    }

    /// With a clock that nobody sets, which tells how long it has been since now.
    pub(crate) fn with_steady_clock(mut self, open_for: OpenFor) -> Self {
        self.open_for = Some(open_for);
        self
    }

    /// When it was opened, by a clock that shows `now`: the clock may have been behind then.
    fn complete_since_at(&self, now: i64) -> Option<i64> {
        let since = self.complete_since?;
        let Some(open_for) = &self.open_for else {
            return Some(since);
        };
        let seconds = i64::try_from(open_for().as_secs()).unwrap_or(i64::MAX);
        Some(since.max(now.saturating_sub(seconds)))
    }

    /// How many proofs the table has.
    pub(crate) fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// How many proofs the table may have.
    pub(crate) fn limit(&self) -> usize {
        self.limits.total
    }

    /// Whether proofs can be recorded, if the last one could not be.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        locked(&self.log).check()
    }

    fn attempt(&self, entry: Entry, now: i64) -> Result<Attempt, StoreError> {
        let Some(shard) = self.shard(&entry.key) else {
            return Err(StoreError::SeenFull("no shard"));
        };
        // In memory first, so that of two equal proofs one is fresh, and without the file's write under the
        // lock of who only looks.
        let taken = match self.take(&mut locked(shard), entry, now) {
            Ok(taken) => taken,
            Err(attempt) => return Ok(attempt),
        };
        if let Err(error) = locked(&self.log).append(&entry, now) {
            // Who came with the same proof meanwhile was told that it is a replay, which is safe.
            let mut shard = locked(shard);
            if let Some(end) = taken.replaced {
                locked(&self.forgotten).note(end);
            }
            if shard.remove(&entry) {
                self.release(&[entry.tag]);
            }
            return Err(error);
        }
        Ok(Attempt::Done(Seen::Fresh))
    }

    /// Enters a proof, unless it is known or there is no room.
    fn take(&self, shard: &mut Shard, entry: Entry, now: i64) -> Result<Taken, Attempt> {
        let expired = shard.sweep(now, SWEEP, &self.forgotten);
        self.release(&expired);
        if shard
            .live
            .get(&entry.key)
            .is_some_and(|known| known.keep_until >= now)
        {
            return Err(Attempt::Done(Seen::Replay));
        }
        if let Some(attempt) = self.reserve(&entry.tag) {
            return Err(attempt);
        }
        locked(&self.forgotten).taken(entry.keep_until);
        let replaced = shard.insert(entry);
        if let Some(replaced) = &replaced {
            self.release(&[replaced.tag]);
        }
        Ok(Taken {
            replaced: replaced.map(|replaced| replaced.keep_until),
        })
    }

    /// Counts one more for the grant and altogether, or says what is full.
    fn reserve(&self, tag: &[u8; 8]) -> Option<Attempt> {
        let mut grants = locked(&self.grants);
        let live = grants.get(tag).copied().unwrap_or(0);
        if live >= self.limits.per_grant {
            return Some(Attempt::OverQuota);
        }
        // Only changed under the lock of `grants`.
        if self.total.load(Ordering::Relaxed) >= self.limits.total {
            return Some(Attempt::Full);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        grants.insert(*tag, live + 1);
        None
    }

    fn release(&self, tags: &[[u8; 8]]) {
        if tags.is_empty() {
            return;
        }
        let mut grants = locked(&self.grants);
        for tag in tags {
            self.total.fetch_sub(1, Ordering::Relaxed);
            let left = grants.get(tag).copied().unwrap_or(1).saturating_sub(1);
            if left == 0 {
                grants.remove(tag);
            } else {
                grants.insert(*tag, left);
            }
        }
    }

    /// Clears every expired entry away, unless that was done in this second already.
    fn sweep_all(&self, now: i64) {
        if self.swept_at.swap(now, Ordering::Relaxed) == now {
            return;
        }
        for shard in &self.shards {
            let expired = locked(shard).sweep(now, usize::MAX, &self.forgotten);
            self.release(&expired);
        }
    }

    /// Removes what was noted as far: it would count against quotas until the time that the clock showed.
    fn forget_far(&self, now: i64) {
        // One at a time; who comes meanwhile does not wait.
        if let Some((noted, _one)) = self.far_noted(now) {
            self.remove_far(noted);
        }
    }

    /// Until when ends are noted, if there is something far to remove.
    fn far_noted(&self, now: i64) -> Option<(i64, MutexGuard<'_, ()>)> {
        let mut forgotten = locked(&self.forgotten);
        forgotten.note_far(now);
        let Far::Noted(latest) = forgotten.far else {
            return None;
        };
        let one = self.removing.try_lock().ok()?;
        forgotten.far = Far::Leaving(latest);
        Some((forgotten.until, one))
    }

    fn remove_far(&self, noted: i64) {
        for shard in &self.shards {
            let gone = locked(shard).forget_far(noted, &self.forgotten);
            self.release(&gone);
        }
        let mut forgotten = locked(&self.forgotten);
        if let Far::Leaving(_) = forgotten.far {
            forgotten.far = Far::None;
        }
    }

    fn shard(&self, key: &[u8; 32]) -> Option<&Mutex<Shard>> {
        let [first, ..] = key;
        self.shards.get(usize::from(*first) % SHARDS)
    }
}

impl SeenProofs for SeenStore {
    fn insert_once(
        &self,
        issuer_grant: &str,
        jkt: [u8; 32],
        jti: &str,
        keep_until: i64,
        now: i64,
    ) -> Result<Seen, StoreError> {
        let mut tag = [0; 8];
        for (to, from) in tag.iter_mut().zip(Sha256::digest(issuer_grant)) {
            *to = from;
        }
        let entry = Entry {
            key: key_of(jkt, jti),
            tag,
            keep_until,
        };
        self.forget_far(now);
        if let Attempt::Done(seen) = self.attempt(entry, now)? {
            return Ok(seen);
        }
        self.sweep_all(now);
        match self.attempt(entry, now)? {
            Attempt::Done(seen) => Ok(seen),
            Attempt::OverQuota => Ok(Seen::Quota),
            Attempt::Full => Err(StoreError::SeenFull("the table is full")),
        }
    }

    fn is_seen(&self, jkt: [u8; 32], jti: &str, now: i64) -> bool {
        let key = key_of(jkt, jti);
        self.shard(&key).is_some_and(|shard| {
            let shard = locked(shard);
            shard.live.get(&key).is_some_and(|known| known.keep_until >= now)
        })
    }

    fn complete_since(&self) -> Option<i64> {
        self.complete_since
    }

    fn doubt(&self, now: i64) -> Doubt {
        let mut forgotten = locked(&self.forgotten);
        forgotten.note_far(now);
        forgotten.seen_at(now);
        Doubt {
            complete_since: self.complete_since_at(now),
            forgotten_until: forgotten.until,
            setbacks: forgotten.setbacks,
        }
    }
}

impl Forgotten {
    /// Entries are forgotten, the last of which has this end.
    fn note(&mut self, keep_until: i64) {
        self.until = self.until.max(keep_until);
        self.lately = self.lately.max(keep_until);
    }

    /// An entry with this end is put into its shard, which is locked.
    fn taken(&mut self, keep_until: i64) {
        self.farthest = self.farthest.max(keep_until);
        if let Far::Noted(latest) | Far::Leaving(latest) = &mut self.far {
            *latest = (*latest).max(keep_until);
        }
    }

    /// Notes what was taken while the clock was ahead of `now`, all of it at once and as soon as that is seen: nonces
    /// get a new key once, before one is handed out.
    fn note_far(&mut self, now: i64) {
        if self.farthest > latest_end(now) {
            self.note(self.farthest);
            // What stays ends no later, by a clock that may be a little behind as well.
            self.farthest = now.saturating_add(LONGEST_LIFE);
            self.far = Far::Noted(self.farthest);
        }
    }

    /// Counts a setback of the clock, if it shows `now`.
    fn seen_at(&mut self, now: i64) {
        if self.lately >= now {
            self.setbacks += 1;
            self.lately = i64::MIN;
        }
    }
}

/// No proof that may be accepted at `now`, or a little before, ends later.
pub(crate) const fn latest_end(now: i64) -> i64 {
    now.saturating_add(LONGEST_LIFE + SLACK)
}

fn key_of(jkt: [u8; 32], jti: &str) -> [u8; 32] {
    let mut key = Sha256::new();
    key.update(jkt);
    key.update(Sha256::digest(jti));
    key.finalize().into()
}

impl std::fmt::Debug for SeenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeenStore")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// Adds an entry; returns the one under the same key.
    fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.by_expiry
            .entry(entry.keep_until)
            .or_default()
            .push(entry.key);
        self.live.insert(entry.key, entry)
    }

    /// Removes this entry, if it is still there.
    fn remove(&mut self, entry: &Entry) -> bool {
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

    /// Removes entries that expired [`SLACK`] ago, about `limit` of them, and returns whose they were.
    fn sweep(&mut self, now: i64, limit: usize, forgotten: &Mutex<Forgotten>) -> Vec<[u8; 8]> {
        let before = now.saturating_sub(SLACK);
        let mut tags = Vec::new();
        let mut last = None;
        while tags.len() < limit {
            let Some(mut oldest) = self
                .by_expiry
                .first_entry()
                .filter(|oldest| *oldest.key() < before)
            else {
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
        tags
    }

    /// Removes entries that are far, and returns whose they were; an end up to `noted` is noted already.
    fn forget_far(&mut self, noted: i64, forgotten: &Mutex<Forgotten>) -> Vec<[u8; 8]> {
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

/// A panic elsewhere leaves counters at worst too high, which denies; the data stays usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    use super::*;
    use crate::seen_log::GENERATION;

    const ROUNDS: u64 = 5_000;
    const LIMITS: SeenLimits = SeenLimits {
        per_grant: 3,
        total: 5,
    };

    fn open(dir: &Path, now: i64) -> SeenStore {
        SeenStore::open(dir, LIMITS, now).unwrap()
    }

    /// When what was inserted at 0 is swept.
    const OVER: i64 = 60 + SLACK + 1;

    fn insert(store: &SeenStore, grant: &str, jti: &str, now: i64) -> Result<Seen, StoreError> {
        store.insert_once(grant, [1; 32], jti, now + 60, now)
    }

    #[test]
    fn a_proof_is_fresh_once_per_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        let seen = |key: u8, now: i64| store.is_seen([key; 32], "a", now);
        assert!(!seen(1, 0) && !seen(1, 0), "looking is not using");
        assert_eq!(insert(&store, "g", "a", 0).unwrap(), Seen::Fresh);
        assert!(seen(1, 60) && !seen(1, 61) && !seen(2, 0));
        assert_eq!(
            insert(&store, "g", "a", 60).unwrap(),
            Seen::Replay,
            "kept to the last second"
        );
        assert_eq!(
            insert(&store, "other", "a", 60).unwrap(),
            Seen::Replay,
            "whatever the grant"
        );
        assert_eq!(
            store.insert_once("g", [2; 32], "a", 60, 0).unwrap(),
            Seen::Fresh,
            "another key"
        );
        assert_eq!(
            insert(&store, "g", "a", 61).unwrap(),
            Seen::Fresh,
            "forgotten when its time is over"
        );
    }

    #[test]
    fn quota_and_total_hold_and_are_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        for jti in ["a", "b", "c"] {
            assert_eq!(insert(&store, "g", jti, 0).unwrap(), Seen::Fresh);
        }
        assert_eq!(insert(&store, "g", "d", 0).unwrap(), Seen::Quota);
        assert_eq!(
            insert(&store, "g", "a", 0).unwrap(),
            Seen::Replay,
            "a replay is told as one"
        );
        assert_eq!(insert(&store, "h", "e", 0).unwrap(), Seen::Fresh);
        assert_eq!(insert(&store, "h", "f", 0).unwrap(), Seen::Fresh);
        assert!(matches!(
            insert(&store, "i", "g", 0),
            Err(StoreError::SeenFull(_))
        ));
        for jti in ["a", "b", "c"] {
            assert_eq!(
                insert(&store, "g", jti, OVER).unwrap(),
                Seen::Fresh,
                "all were swept"
            );
        }
        assert_eq!(insert(&store, "g", "d", OVER).unwrap(), Seen::Quota);
    }

    #[test]
    fn reopening_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let store = open(&path, 0);
        assert_eq!(store.complete_since(), None, "a new folder has seen nothing");
        for jti in ["a", "b", "c"] {
            insert(&store, "g", jti, 0).unwrap();
        }
        assert!(matches!(
            SeenStore::open(&path, LIMITS, 0),
            Err(StoreError::InUse { .. })
        ));
        drop(store);
        let store = open(&path, 1);
        assert_eq!(store.complete_since(), None);
        assert_eq!(insert(&store, "g", "a", 1).unwrap(), Seen::Replay);
        assert_eq!(
            insert(&store, "g", "d", 1).unwrap(),
            Seen::Quota,
            "the quota is restored"
        );
        drop(store);
        std::fs::remove_file(path.join("seen.log")).unwrap();
        assert_eq!(open(&path, 9).complete_since(), Some(9));
    }

    #[test]
    fn a_clock_that_was_behind_at_the_start_leaves_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        drop(open(&path, 7_000));
        std::fs::remove_file(path.join("seen.log")).unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let store = open(&path, 0).with_steady_clock({
            let passed = Arc::clone(&passed);
            Arc::new(move || Duration::from_secs(passed.load(Ordering::SeqCst) as u64))
        });
        assert_eq!(store.doubt(0).complete_since, Some(0));
        passed.store(60, Ordering::SeqCst);
        assert_eq!(store.doubt(60).complete_since, Some(0), "time passes");
        assert_eq!(
            store.doubt(7_260).complete_since,
            Some(7_200),
            "the clock was set"
        );
        assert!(store.doubt(7_260).covers(7_000, 7_360, 60));
        assert_eq!(store.doubt(-9).complete_since, Some(0));
    }

    #[test]
    fn a_clock_that_was_ahead_leaves_doubt_about_what_it_forgot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let store = open(&path, 0);
        let ahead = 86_400;
        assert_eq!(insert(&store, "g", "a", 0).unwrap(), Seen::Fresh);
        store.sweep_all(ahead);
        assert!(!store.is_seen([1; 32], "a", 1), "it is forgotten");
        let doubt = store.doubt(1);
        assert_eq!((doubt.forgotten_until, doubt.setbacks), (60, 1));
        assert!(
            doubt.covers(0, 60, 5) && !doubt.covers(1, 61, 5),
            "what is younger is remembered"
        );
        assert_eq!(store.doubt(1), doubt, "it is told once");
        // A second time, with a proof that was taken in between: the first doubt covers it, its nonce would not.
        assert_eq!(store.insert_once("g", [1; 32], "b", 59, 1).unwrap(), Seen::Fresh);
        store.sweep_all(ahead + 1);
        let again = store.doubt(2);
        assert_eq!((again.forgotten_until, again.setbacks), (60, 2));
        assert!(again.covers(0, 59, 5));
        // A process that begins then knows it too.
        drop(store);
        let store = open(&path, ahead);
        assert_eq!(store.len(), 0);
        assert!(store.doubt(3).covers(0, 60, 5));
        drop(store);
        let store = open(&path, 3);
        assert!(store.doubt(3).covers(0, 60, 5), "and the one after it");
    }

    #[test]
    fn what_was_taken_while_the_clock_was_ahead_takes_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let store = open(&path, 0);
        let ahead = 86_400;
        for jti in ["a", "b", "c"] {
            assert_eq!(insert(&store, "g", jti, ahead).unwrap(), Seen::Fresh);
        }
        assert_eq!(insert(&store, "g", "d", ahead).unwrap(), Seen::Quota);
        assert_eq!(store.doubt(ahead).setbacks, 0);
        // A nonce shows that a proof is none of them.
        let doubt = store.doubt(1);
        assert_eq!((doubt.forgotten_until, doubt.setbacks), (ahead + 60, 1));
        for jti in ["d", "e", "f"] {
            assert_eq!(insert(&store, "g", jti, 1).unwrap(), Seen::Fresh);
            assert_eq!(
                store.doubt(1),
                doubt,
                "it is told once, and before a nonce is handed out"
            );
        }
        assert_eq!(store.len(), 3);
        drop(store);
        let store = open(&path, 1);
        assert_eq!((store.len(), store.doubt(1).forgotten_until), (3, ahead + 60));
        assert_eq!(insert(&store, "g", "d", 1).unwrap(), Seen::Replay);
    }

    #[test]
    fn who_finds_an_entry_gone_finds_doubt_about_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        // One clock goes to and fro, and somebody looks all the time.
        std::thread::scope(|scope| {
            for round in 0..200 {
                let jti = round.to_string();
                assert_eq!(insert(&store, "g", &jti, 0).unwrap(), Seen::Fresh);
                let looked = scope.spawn({
                    let (store, jti) = (&store, jti.clone());
                    move || {
                        while store.is_seen([1; 32], &jti, 0) {}
                        store.doubt(0)
                    }
                });
                store.doubt(0);
                for shard in &store.shards {
                    let expired = locked(shard).sweep(OVER, usize::MAX, &store.forgotten);
                    store.release(&expired);
                }
                let doubt = looked.join().unwrap();
                assert!(doubt.covers(0, 60, 5) && doubt.setbacks > round, "{doubt:?}");
            }
        });
    }

    #[test]
    fn a_clock_that_goes_on_or_is_corrected_leaves_no_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        for now in (0..1_000).step_by(40) {
            assert_eq!(insert(&store, "g", &now.to_string(), now).unwrap(), Seen::Fresh);
            store.sweep_all(now);
            let doubt = store.doubt(now - SLACK);
            assert_eq!(doubt.setbacks, 0, "at {now}");
            assert!(!doubt.covers(now - 60, now, 0), "at {now}");
        }
    }

    #[test]
    fn what_is_taken_after_the_clock_was_set_right_stays() {
        // At 1 the clock is seen to be right again. Who takes a proof at `now` passes who removes what is far, before
        // that one begins or in the middle.
        let check = |now: i64, begun: bool, key: u8| {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir.path().join("seen"), 0);
            assert_eq!(insert(&store, "g", "a", 86_400).unwrap(), Seen::Fresh);
            let doubt = store.doubt(1);
            assert_eq!((doubt.forgotten_until, doubt.setbacks), (86_460, 1));
            let entry = Entry {
                key: [key; 32],
                tag: [0; 8],
                keep_until: now + LONGEST_LIFE,
            };
            let attempt = || match store.attempt(entry, now).unwrap() {
                Attempt::Done(seen) => seen,
                _ => panic!("no room"),
            };
            let far = begun.then(|| store.far_noted(1).unwrap());
            assert_eq!(attempt(), Seen::Fresh);
            match far {
                Some((noted, _)) => store.remove_far(noted),
                None => store.forget_far(now),
            }
            assert_eq!(attempt(), Seen::Replay, "at {now}, {begun}, {key}");
            assert_eq!(store.len(), 1, "what was far is gone");
            assert_eq!(store.doubt(now), doubt, "it is told once");
        };
        for key in [0, 255] {
            for begun in [false, true] {
                check(1, begun, key);
                check(200, begun, key);
            }
        }
    }

    #[test]
    fn who_looks_at_once_finds_one_setback() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        let (start, end) = (Barrier::new(3), Barrier::new(3));
        std::thread::scope(|scope| {
            let look = || {
                for round in 1..=ROUNDS {
                    start.wait();
                    let setbacks = store.doubt(1).setbacks;
                    end.wait();
                    assert_eq!(setbacks, round);
                }
            };
            let looking = [scope.spawn(look), scope.spawn(look)];
            for round in 1..=ROUNDS {
                assert_eq!(
                    insert(&store, "g", &round.to_string(), 86_400).unwrap(),
                    Seen::Fresh
                );
                start.wait();
                end.wait();
            }
            looking.into_iter().for_each(|looked| looked.join().unwrap());
        });
    }

    #[test]
    fn a_write_that_failed_leaves_doubt_about_what_it_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let store = open(&path, 0);
        let end = GENERATION;
        assert_eq!(
            store.insert_once("g", [1; 32], "a", end, end - 60).unwrap(),
            Seen::Fresh
        );
        // A folder in the way of the next generation stands for a full disk.
        std::fs::create_dir(path.join("seen.next.log")).unwrap();
        assert!(insert(&store, "g", "a", end + SLACK).is_err());
        assert_eq!(store.len(), 0);
        assert_eq!(store.doubt(end + 1).setbacks, 0);
        let doubt = store.doubt(end);
        assert!(doubt.covers(end - 60, end, 5) && doubt.setbacks == 1, "{doubt:?}");
    }

    #[test]
    fn of_equal_proofs_at_the_same_time_one_is_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        let fresh = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| insert(&store, "g", "a", 0).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter(|s| *s == Seen::Fresh)
                .count()
        });
        assert_eq!(fresh, 1);
    }
}
