//! What an issuer revoked, as a proxy holds it in memory.
//!
//! One view follows one issuer's feed (RULES 29). Look-ups take no lock and wait for nobody: entries
//! lie in lock-free hash indexes, and what is added becomes visible entry by entry. A page is checked
//! before its first entry is added, and the view's position moves after its last one, so whoever reads
//! that the view is complete also finds what completed it.
//!
//! An entry is a name of 16 bytes (`names.rs`) and the minute in which it may be forgotten. Entries
//! that ended leave in small steps ([`RevocationView::sweep`]), a shard at a time.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use scc::HashIndex;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;
use crate::names::{Kind, Name, Namer, Unhashed};
use crate::traits::RevocationPage;

/// Parts of the table, a power of two. One step of a sweep looks at one of them: of ten million
/// entries, forty thousand.
const SHARDS: usize = 256;
/// How long an entry stays after its end, in seconds, whatever the clocks of issuer and proxy say.
const MARGIN: i64 = 300;
/// The minute of what is never forgotten.
const NEVER: u32 = u32::MAX;
/// `fresh_as_of` before the view was complete for the first time.
const NOT_YET: i64 = i64::MIN;

type Shard = HashIndex<Name, u32, std::hash::BuildHasherDefault<Unhashed>>;

/// Everything of one presentation that can be revoked.
#[derive(Debug, Clone, Copy)]
pub struct RevocationKeys<'a> {
    /// The issuer of the capability.
    pub issuer: &'a str,
    /// The grant id.
    pub grant: &'a str,
    /// The branch ids of the chain (RULES 6).
    pub branches: &'a [[u8; 32]],
    /// The thumbprint of every holder of the chain, in its order (RULES 28).
    pub holders: &'a [[u8; 32]],
    /// The client id.
    pub client: &'a str,
    /// The subject and, where there is one, the actor, each as (iss, sub).
    pub subjects: &'a [(&'a str, &'a str)],
}

/// The set of revocations of one issuer.
pub struct RevocationView {
    issuer: String,
    namer: Namer,
    shards: Vec<Shard>,
    /// Held while a page is taken: there is one writer.
    floor: Mutex<u64>,
    head: AtomicU64,
    fresh_as_of: AtomicI64,
    /// The shard that is swept next.
    cursor: AtomicUsize,
}

impl RevocationView {
    /// An empty view of the feed of `issuer`. `floor` is the highest sequence number that was ever
    /// seen ([`load_head`]), 0 if none was.
    pub fn new(issuer: impl Into<String>, floor: u64) -> Self {
        Self {
            issuer: issuer.into(),
            namer: Namer::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            floor: Mutex::new(floor),
            head: AtomicU64::new(0),
            fresh_as_of: AtomicI64::new(NOT_YET),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Adds a page. `as_of` is the issuer-signed time of the answer, in seconds since the Unix
    /// epoch; it counts for [`RevocationView::fresh_as_of`] when the page reaches the feed's head.
    /// Entries that are known are skipped.
    ///
    /// # Errors
    /// [`StoreError::Regression`] when the feed's head is below what was seen (RULES 29);
    /// [`StoreError::BadPage`] or [`StoreError::MalformedKey`] for a page of another issuer, out of
    /// order or beyond its head. Nothing of such a page is taken.
    pub fn apply(&self, page: &RevocationPage, as_of: i64) -> Result<(), StoreError> {
        let mut named = Vec::with_capacity(page.entries.len());
        let mut last = 0;
        for entry in &page.entries {
            if entry.issuer != self.issuer {
                return Err(StoreError::BadPage("an entry is of another issuer"));
            }
            if entry.seq <= last || entry.seq > page.head {
                return Err(StoreError::BadPage("its numbers are out of order"));
            }
            last = entry.seq;
            let (kind, name) = self.namer.of_key(&entry.what)?;
            named.push((kind, name, entry.until));
        }
        if page.upto < last || page.upto > page.head {
            return Err(StoreError::BadPage("it does not end where it says"));
        }
        let floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let head = self.head();
        let known = head.max(*floor);
        if page.head < known {
            return Err(StoreError::Regression {
                known,
                offered: page.head,
            });
        }
        for (kind, name, until) in named {
            self.insert(kind, name, until);
        }
        let reached = page.upto.max(head);
        self.head.store(reached, Ordering::Release);
        if reached == page.head {
            self.fresh_as_of.fetch_max(as_of, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The kind of the first key that is revoked, as [`crate::RevocationKey::kind`] says it. Keys of
    /// another issuer than this view's are answered `issuer`: it cannot know.
    pub fn is_revoked(&self, keys: &RevocationKeys<'_>) -> Option<&'static str> {
        if keys.issuer != self.issuer {
            return Some("issuer");
        }
        let namer = &self.namer;
        let revoked = |kind: Kind, name: Name| self.contains(name).then_some(kind.as_str());
        let branch = |id: &[u8; 32]| revoked(Kind::Branch, namer.branch(id));
        let holder = |jkt: &[u8; 32]| revoked(Kind::Holder, namer.holder(jkt));
        let subject = |(iss, sub): &(&str, &str)| revoked(Kind::Subject, namer.subject(iss, sub));
        let delegation = |pair: &[[u8; 32]]| match pair {
            [from, to] if from != to => revoked(Kind::Delegation, namer.delegation(keys.grant, from, to)),
            _ => None,
        };
        revoked(Kind::Grant, namer.grant(keys.grant))
            .or_else(|| keys.branches.iter().find_map(branch))
            .or_else(|| keys.holders.iter().find_map(holder))
            .or_else(|| revoked(Kind::Client, namer.client(keys.client)))
            .or_else(|| keys.subjects.iter().find_map(subject))
            .or_else(|| keys.holders.windows(2).find_map(delegation))
    }

    /// Forgets entries of one shard that ended more than five minutes before `now`, in seconds since
    /// the Unix epoch, and returns how many. Called [`RevocationView::SWEEP`] times it has seen the
    /// whole view. Look-ups go on meanwhile.
    pub fn sweep(&self, now: i64) -> usize {
        let minute = u32::try_from(now.saturating_sub(MARGIN).div_euclid(60)).unwrap_or_default();
        let next = self.cursor.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut gone = 0;
        if let Some(shard) = self.shards.get(next) {
            shard.retain_sync(|_, until| {
                let stays = *until >= minute;
                gone += usize::from(!stays);
                stays
            });
        }
        gone
    }

    /// The steps of one sweep through everything.
    pub const SWEEP: usize = SHARDS;

    /// How many entries there are. It counts them: for metrics, not for a request.
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashIndex::len).sum()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(HashIndex::is_empty)
    }

    /// The issuer whose feed this is.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The highest sequence number that was taken; the next page comes after it.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The issuer-signed time at which the view was complete; `None` until it is for the first time.
    /// A proxy denies when that is too long ago (DESIGN G5).
    pub fn fresh_as_of(&self) -> Option<i64> {
        Some(self.fresh_as_of.load(Ordering::Acquire)).filter(|as_of| *as_of != NOT_YET)
    }

    fn contains(&self, name: Name) -> bool {
        self.shard(name).is_some_and(|shard| shard.contains(&name))
    }

    /// Adds an entry; one that is known keeps the later of both ends.
    fn insert(&self, kind: Kind, name: Name, until: Option<i64>) {
        let minute = match until {
            Some(until) if kind.ends() => last_minute(until),
            _ => NEVER,
        };
        let Some(shard) = self.shard(name) else { return };
        match shard.entry_sync(name) {
            scc::hash_index::Entry::Vacant(free) => drop(free.insert_entry(minute)),
            scc::hash_index::Entry::Occupied(mut known) if *known.get() < minute => known.update(minute),
            scc::hash_index::Entry::Occupied(_) => {}
        }
    }

    fn shard(&self, name: Name) -> Option<&Shard> {
        self.shards.get(name.place(SHARDS))
    }
}

impl std::fmt::Debug for RevocationView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevocationView")
            .field("issuer", &self.issuer)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

/// The minute in which a time in seconds lies; what is beyond the last one is never forgotten.
fn last_minute(until: i64) -> u32 {
    u32::try_from(until.max(0).div_euclid(60)).unwrap_or(NEVER)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFile {
    issuer: String,
    head: u64,
}

/// Remembers the highest sequence number of an issuer's feed, durably. Blocks on the disk.
///
/// # Errors
/// When the file cannot be replaced.
pub fn persist_head(path: &Path, issuer: &str, head: u64) -> Result<(), StoreError> {
    let file = HeadFile {
        issuer: issuer.to_owned(),
        head,
    };
    let json = serde_json::to_vec(&file).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    disk::replace(path, &json)
}

/// What [`persist_head`] remembered; `None` if there is no file.
///
/// # Errors
/// When the file cannot be read or is another issuer's: then what was seen is unknown, and the
/// caller does not start.
pub fn load_head(path: &Path, issuer: &str) -> Result<Option<u64>, StoreError> {
    let Some(bytes) = disk::read_small(path, 4096)? else {
        return Ok(None);
    };
    let file: HeadFile =
        serde_json::from_slice(&bytes).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    if file.issuer != issuer {
        let reason = format!("`{}` is for the issuer `{}`", path.display(), file.issuer);
        return Err(StoreError::MalformedRecord(reason));
    }
    Ok(Some(file.head))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
