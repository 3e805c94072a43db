//! Proofs that were seen, so that none is accepted twice (RULES 22).
//!
//! A sharded table in memory answers; [`crate::seen_log`] makes it survive `kill -9`. Expired
//! entries leave a few at a time with later insertions, and all of them when a quota or the table seems
//! full, in rounds between which others come in.
//!
//! What has expired is told by a clock that may be set. So it is kept for [`SLACK`] longer, and it is remembered of
//! what was forgotten until when it could be accepted: while the clock is right, all of that has passed. When it is set
//! back, some has not, and [`SeenProofs::doubt`] says so: it is then as after a start that found nothing.

mod forgotten;
mod limits;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::disk::{self, FolderLock};
use crate::error::StoreError;
use crate::seen_log::{self, Entry, SeenLog};
use crate::traits::{Doubt, OpenFor, Seen, SeenProofs};
use forgotten::{Far, Forgotten};
pub use limits::SeenLimits;
use table::Shard;

const SHARDS: usize = 16;
/// Expired entries that one insertion clears away; more than one, so that they cannot pile up.
const SWEEP: usize = 32;
/// Expired entries that are cleared away under one lock when all of them are: who looks meanwhile waits for no more.
const ROUND: usize = 1_000;
const LOCK_FILE: &str = "seen.lock";
/// How long an entry is kept after its end, in seconds. A clock that is corrected by less has forgotten nothing
/// that could be accepted again.
pub(crate) const SLACK: i64 = 10;
/// How long after now a proof may be acceptable, in seconds: 300 s of age and two times 60 s for clocks that differ
/// . What ends later was taken while the clock was ahead.
pub const LONGEST_LIFE: i64 = 420;

/// The table of seen proofs of one node.
pub struct SeenStore {
    shards: Vec<Mutex<Shard>>,
    grants: Mutex<HashMap<[u8; 8], usize>>,
    total: AtomicUsize,
    log: Mutex<SeenLog>,
    /// Why the last entry could not be written, if it could not. It is set under the lock of `log`, and nothing that
    /// waits is done under its own.
    failure: Mutex<Option<Arc<str>>>,
    limits: SeenLimits,
    complete_since: Option<i64>,
    open_for: Option<OpenFor>,
    forgotten: Mutex<Forgotten>,
    removing: Mutex<()>,
    _lock: FolderLock,
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
            failure: Mutex::default(),
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

    /// Whether the last proof could be recorded. It waits for no disk and writes nothing: threads of the runtime ask.
    ///
    /// # Errors
    /// [`StoreError::Unrecorded`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &*locked(&self.failure) {
            Some(reason) => Err(StoreError::Unrecorded(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    /// Tries to write to the file, if the last proof could not be recorded: who asks [`Self::check`] may keep away the
    /// proofs with which that would be found to have ended. It waits for the disk: not for a runtime thread.
    pub(crate) fn retry(&self) {
        if self.check().is_ok() {
            return;
        }
        let mut log = locked(&self.log);
        let tried = log.retry();
        self.note(&tried);
    }

    fn append(&self, entry: &Entry, now: i64) -> Result<(), StoreError> {
        let mut log = locked(&self.log);
        let written = log.append(entry, now);
        self.note(&written);
        written
    }

    /// Keeps what came of the last write, for [`Self::check`]; the log is locked.
    fn note(&self, written: &Result<(), StoreError>) {
        let reason = written.as_ref().err().map(|error| error.to_string().into());
        *locked(&self.failure) = reason;
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
        if let Err(error) = self.append(&entry, now) {
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
        let (expired, _) = shard.sweep(now, SWEEP, &self.forgotten);
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

    /// Clears every expired entry away. When it returns, all of their room is given back, whoever else was at it.
    pub(crate) fn sweep_all(&self, now: i64) {
        // A round of each in turn: a lock that is taken again at once is never had by who waits for it.
        let mut left: Vec<_> = self.shards.iter().collect();
        while !left.is_empty() {
            left.retain(|shard| self.sweep_round(shard, now));
        }
    }

    /// Clears some expired entries of a shard away; whether there may be more.
    fn sweep_round(&self, shard: &Mutex<Shard>, now: i64) -> bool {
        let mut shard = locked(shard);
        let (expired, more) = shard.sweep(now, ROUND, &self.forgotten);
        // Under the shard's lock: whoever finds entries gone finds their room given back.
        self.release(&expired);
        more
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

/// A panic elsewhere leaves counters at worst too high, which denies; the data stays usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
