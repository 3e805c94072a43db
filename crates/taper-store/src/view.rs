//! What an issuer revoked, as a proxy holds it in memory.
//!
//! One view follows one issuer's feed (RULES 29). Look-ups take no lock and wait for nobody: entries
//! lie in lock-free hash indexes, and what is added becomes visible entry by entry. A page is checked
//! before its first entry is added, and the view's position moves after its last one, so whoever reads
//! that the view is complete also finds what completed it.
//!
//! An entry is a name of 16 bytes (`names.rs`) and the minute in which it may be forgotten. Entries
//! that ended leave in small steps ([`RevocationView::sweep`]), a shard at a time.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use scc::HashIndex;

use crate::error::StoreError;
use crate::feed::{FeedPage, FeedPosition};
use crate::names::{Kind, Name, Namer, Unhashed};

/// Parts of the table, a power of two. One step of a sweep looks at one of them: of ten million
/// entries, forty thousand.
const SHARDS: usize = 256;
/// How long an entry stays after its end, in seconds, whatever the clocks of issuer and proxy say.
const MARGIN: i64 = 300;
/// The minute of what is never forgotten.
const NEVER: u32 = u32::MAX;
/// `fresh_as_of` before the view was complete for the first time.
const NOT_YET: i64 = i64::MIN;

/// An entry as it goes into the table: its kind, its name, its end.
type Named = (Kind, Name, Option<i64>);
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
    position: Mutex<Position>,
    fresh_as_of: AtomicI64,
    /// The shard that is swept next.
    cursor: AtomicUsize,
}

struct Position {
    /// Up to where the view is complete.
    reached: FeedPosition,
    /// Up to where it was enforced before a restart.
    floor: FeedPosition,
}

impl RevocationView {
    /// An empty view of the feed of `issuer`. `floor` is what was enforced before a restart
    /// ([`crate::load_position`]): the view is not complete before it has that much again.
    pub fn new(issuer: impl Into<String>, floor: FeedPosition) -> Self {
        Self {
            issuer: issuer.into(),
            namer: Namer::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            position: Mutex::new(Position {
                reached: FeedPosition::START,
                floor,
            }),
            fresh_as_of: AtomicI64::new(NOT_YET),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Where the next page begins: the view has everything up to this number.
    pub fn reached(&self) -> FeedPosition {
        self.position().reached
    }

    /// The furthest that was ever enforced, also before a restart. A page must tell the same of it.
    pub fn known(&self) -> FeedPosition {
        self.position().known()
    }

    /// Whether the feed still tells what it told (RULES 29): its head is no lower, and its history up to
    /// what was enforced is the same.
    ///
    /// # Errors
    /// [`StoreError::Regression`], [`StoreError::Forked`]; [`StoreError::BadPage`] for a page that answers
    /// another question than one after [`RevocationView::reached`] and [`RevocationView::known`], or that
    /// has another history than its entries.
    pub fn continues(&self, page: &FeedPage) -> Result<(), StoreError> {
        let position = self.position();
        self.answers(page, &position)?;
        let known = position.known();
        if page.head < known.seq {
            return Err(StoreError::Regression {
                known: known.seq,
                offered: page.head,
            });
        }
        let forked = Err(StoreError::Forked { seq: known.seq });
        let told = page.known.and_then(|told| told.history);
        if known.seq > 0 && told != Some(known.history) {
            return forked;
        }
        if page.upto == known.seq && page.history != known.history {
            return forked;
        }
        // A page that leaves nothing out carries all that its history is made of.
        let is_gapless = page.upto.checked_sub(page.after) == Some(page.entries.len() as u64);
        if is_gapless {
            let mut entries = page.entries.iter();
            let history = entries.try_fold(position.reached.history, |before, entry| {
                (entry.issuer == page.issuer).then(|| entry.history(before))
            });
            if history.is_some_and(|history| history != page.history) {
                return Err(StoreError::BadPage("its history is not that of its entries"));
            }
        }
        Ok(())
    }

    /// Adds a page that [`RevocationView::continues`] the feed. `as_of` is the issuer-signed time of the
    /// answer, in seconds since the Unix epoch, where it can be believed; it counts for
    /// [`RevocationView::fresh_as_of`] when the page reaches the feed's head.
    ///
    /// # Errors
    /// [`StoreError::BadPage`] or [`StoreError::MalformedKey`] for a page of another issuer, one that does
    /// not begin where the view ends, or out of order. Nothing of such a page is taken.
    pub fn apply(&self, page: &FeedPage, as_of: Option<i64>) -> Result<(), StoreError> {
        let mut position = self.position();
        let named = self.read(page, &position)?;
        for (kind, name, until) in named {
            self.insert(kind, name, until);
        }
        position.reached = FeedPosition {
            seq: page.upto,
            history: page.history,
        };
        if let Some(as_of) = as_of.filter(|_| page.upto == page.head) {
            self.fresh_as_of.fetch_max(as_of, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Whether [`RevocationView::apply`] would take a page, without taking it.
    ///
    /// # Errors
    /// Those of [`RevocationView::apply`].
    pub fn check(&self, page: &FeedPage) -> Result<(), StoreError> {
        self.read(page, &self.position()).map(drop)
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

    /// The issuer-signed time at which the view was complete; `None` until it is for the first time.
    /// A proxy denies when that is too long ago (DESIGN G5).
    pub fn fresh_as_of(&self) -> Option<i64> {
        Some(self.fresh_as_of.load(Ordering::Acquire)).filter(|as_of| *as_of != NOT_YET)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a page is an answer to what was asked: an old one, though it was signed, is not.
    fn answers(&self, page: &FeedPage, position: &Position) -> Result<(), StoreError> {
        let known = position.known().seq;
        if page.issuer != self.issuer {
            return Err(StoreError::BadPage("it is of another issuer"));
        }
        if page.after != position.reached.seq {
            return Err(StoreError::BadPage("it does not begin where the last one ended"));
        }
        if known > 0 && page.known.is_none_or(|told| told.seq != known) {
            return Err(StoreError::BadPage("it does not say what it told before"));
        }
        Ok(())
    }

    fn read(&self, page: &FeedPage, position: &Position) -> Result<Vec<Named>, StoreError> {
        self.answers(page, position)?;
        let mut last = page.after;
        let mut named = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            if entry.issuer != self.issuer {
                return Err(StoreError::BadPage("an entry is of another issuer"));
            }
            if entry.seq <= last {
                return Err(StoreError::BadPage("its numbers are out of order"));
            }
            last = entry.seq;
            let (kind, name) = self.namer.of_key(&entry.what)?;
            named.push((kind, name, entry.until));
        }
        if page.upto < last || page.upto > page.head {
            return Err(StoreError::BadPage("it does not end where it says"));
        }
        if page.upto == page.after && page.upto < page.head {
            return Err(StoreError::BadPage("it brings nothing, though there is more"));
        }
        Ok(named)
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

impl Position {
    fn known(&self) -> FeedPosition {
        if self.floor.seq > self.reached.seq {
            self.floor
        } else {
            self.reached
        }
    }
}

impl std::fmt::Debug for RevocationView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevocationView")
            .field("issuer", &self.issuer)
            .field("reached", &self.reached().seq)
            .finish_non_exhaustive()
    }
}

/// The minute in which a time in seconds lies; what is beyond the last one is never forgotten.
fn last_minute(until: i64) -> u32 {
    u32::try_from(until.max(0).div_euclid(60)).unwrap_or(NEVER)
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
