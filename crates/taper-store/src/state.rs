//! Queryable state in sled, derived from the journal.
//!
//! Nothing here needs to survive: the whole folder may be deleted. Every batch carries, atomically
//! with its data, how many records it includes and the root of the tree at that size; at start the
//! journal is replayed from there, or from the beginning when the root is not the journal's.
//!
//! That claim is believed only of a folder that lost nothing: sled's pages reach the disk in no order
//! that holds across a power cut, and then the claim can be there and older entries not. [`left`] keeps
//! how the folder was left; one that may have lost something is thrown away. All calls block; they run
//! on the writer thread or under `spawn_blocking`.
//!
//! What lies where is in [`crate::layout`].

mod all;
pub(crate) mod index;
mod left;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use sled::IVec;
use tlog_tiles::tlog::{EMPTY_HASH, Hash};

use crate::change::{Change, Lookup};
use crate::error::StoreError;
use crate::frame::decode_record;
use crate::journal::Mark;
use crate::kept::ClientRecord;
use crate::layout::{self, APPLIED, number, parse};
use crate::record::{Record, RecordKind};
use crate::revocation::RevocationRecord;
use crate::walk::{Chain, Link};

pub(crate) use left::{Found, Restored};

const FOLDER: &str = "state";
const REPLAY_CHUNK: usize = 1024;

/// How much of the journal the state includes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Applied {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl Applied {
    /// No record.
    pub(crate) const NOTHING: Self = Self {
        size: 0,
        root: EMPTY_HASH,
    };
}

/// The sled database; clones share it.
#[derive(Clone)]
pub(crate) struct State {
    folder: PathBuf,
    /// `None` once closed, for all clones at once: else sled would go on writing.
    tree: Arc<RwLock<Option<sled::Tree>>>,
    behind: Arc<OnceLock<()>>,
}

impl State {
    /// The folder of the state of the store in `dir`.
    pub(crate) fn folder(dir: &Path) -> PathBuf {
        dir.join(FOLDER)
    }

    /// The state in `dir` if it is to be believed, else an empty one. The second value says why what was
    /// there was thrown away.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Option<String>), StoreError> {
        Ok(match Self::find(dir)? {
            Found::Kept(state, _) => (state, None),
            Found::Lost { reason, .. } => (Self::create(dir)?, reason),
        })
    }

    fn of(folder: PathBuf, tree: sled::Tree) -> Self {
        Self {
            folder,
            tree: Arc::new(RwLock::new(Some(tree))),
            behind: Arc::default(),
        }
    }

    fn tree(&self) -> Result<sled::Tree, StoreError> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.clone().ok_or(StoreError::Closed)
    }

    /// Ends all use of the state and leaves it so that it is believed even after a power cut, unless it
    /// could not follow the journal. Waits for readers.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let (applied, is_whole) = (self.applied()?, self.check().is_ok());
        let taken = self.tree.write().unwrap_or_else(PoisonError::into_inner).take();
        let tree = taken.ok_or(StoreError::Closed)?;
        tree.flush()?;
        drop(tree);
        if is_whole {
            left::seal(&self.folder, applied)?;
        }
        Ok(())
    }

    /// How much of the journal is included. A malformed entry counts as nothing.
    pub(crate) fn applied(&self) -> Result<Applied, StoreError> {
        let Some(value) = self.tree()?.get(APPLIED)? else {
            return Ok(Applied::NOTHING);
        };
        let Some((size, root)) = value.split_first_chunk::<8>() else {
            return Ok(Applied::NOTHING);
        };
        let Ok(root) = <[u8; 32]>::try_from(root) else {
            return Ok(Applied::NOTHING);
        };
        Ok(Applied {
            size: u64::from_be_bytes(*size),
            root: Hash(root),
        })
    }

    /// Brings the state up to `to`, the journal's end. `at_applied` is the journal at the size that
    /// [`State::applied`] gave. Returns how many records were replayed.
    pub(crate) fn catch_up(&self, dir: &Path, at_applied: Option<Mark>, to: Mark) -> Result<u64, StoreError> {
        let applied = self.applied()?;
        let mut chain = match at_applied {
            Some(mark) if mark.size == applied.size && mark.root == applied.root && mark.size > 0 => {
                Chain::at(dir, mark.place)?
            }
            _ => {
                // Also when it claims nothing: a replay that broke off leaves records without a claim. The
                // claim goes first: what is left of the rest after a crash must not pass as complete.
                self.tree()?.remove(APPLIED)?;
                self.tree()?.flush()?;
                self.tree()?.clear()?;
                Chain::start(dir)
            }
        };
        let (mut chunk, mut replayed) = (Vec::new(), 0);
        loop {
            let place = chain.place();
            if place.index == to.size && chain.has_begun() {
                break;
            }
            match chain.step()? {
                Link::Segment(_) => continue,
                Link::Frame(frame) => {
                    let record = decode_record(&frame.payload);
                    chunk.push(record.map_err(|e| place.damaged(dir, e.to_string()))?);
                    replayed += 1;
                }
                _ => return Err(place.damaged(dir, "it changed while it was read")),
            }
            if chunk.len() == REPLAY_CHUNK {
                // Without the position: replaying a record twice changes nothing.
                self.write(&chunk, chain.place().index - chunk.len() as u64, None)?;
                chunk.clear();
            }
        }
        self.write(
            &chunk,
            to.size - chunk.len() as u64,
            Some(Applied {
                size: to.size,
                root: to.root,
            }),
        )?;
        Ok(replayed)
    }

    /// Includes what was just committed. After a failure the state is behind the journal and answers
    /// no more questions.
    pub(crate) fn apply(&self, change: Change<'_>, applied: Applied) -> Result<(), StoreError> {
        self.finish(change, Some(applied)).inspect_err(|_| {
            self.behind.get_or_init(|| ());
        })
    }

    /// Forgets what a sweep found, without regard to the journal.
    pub(crate) fn forget(&self, change: Change<'_>) -> Result<(), StoreError> {
        self.finish(change, None)
    }

    /// How many calls count under the counter of this fingerprint.
    pub(crate) fn calls(&self, fingerprint: &[u8; 32]) -> Result<u64, StoreError> {
        Ok(self.counted(fingerprint)?.unwrap_or_default().calls)
    }

    /// At most `limit` revocations above `seq`.
    pub(crate) fn revocations_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<RevocationRecord>, StoreError> {
        let Some(first) = seq.checked_add(1) else {
            return Ok(Vec::new());
        };
        let records = self.range(layout::revocation(first)..=layout::revocation(u64::MAX))?;
        records.take(limit).map(|entry| parse(&entry?.1)).collect()
    }

    /// The highest number given to a revocation; 0 if none was.
    pub(crate) fn head(&self) -> Result<u64, StoreError> {
        let mut histories = self.range(layout::history(0)..=layout::history(u64::MAX))?;
        match histories.next_back() {
            None => Ok(0),
            Some(entry) => number(entry?.0.get(1..).unwrap_or_default()),
        }
    }

    /// Whether a record has the number of a revocation that is another one here.
    pub(crate) fn contradicts(&self, record: &Record) -> Result<bool, StoreError> {
        let RecordKind::Revoked(other) = &record.kind else {
            return Ok(false);
        };
        let seq = other.revocation.seq;
        let ours = self.revocations_after(seq.saturating_sub(1), 1)?;
        Ok(ours
            .first()
            .is_some_and(|ours| ours.revocation.seq == seq && ours != other))
    }

    /// The newest record of each client of an issuer.
    pub(crate) fn clients(&self, issuer: &str) -> Result<Vec<ClientRecord>, StoreError> {
        self.check()?;
        let clients = self.tree()?.scan_prefix(layout::clients(issuer));
        clients.map(|entry| parse(&entry?.1)).collect()
    }

    /// The keys and values between two keys, in order.
    pub(crate) fn range(&self, keys: impl std::ops::RangeBounds<Vec<u8>>) -> Result<sled::Iter, StoreError> {
        self.check()?;
        Ok(self.tree()?.range::<Vec<u8>, _>(keys))
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.behind.get() {
            None => Ok(()),
            Some(()) => Err(StoreError::State("it could not follow the journal".into())),
        }
    }

    /// Includes records, of which the first has the number `first` in the journal.
    pub(crate) fn write(
        &self,
        records: &[Record],
        first: u64,
        applied: Option<Applied>,
    ) -> Result<(), StoreError> {
        let mut change = Change::of(self);
        for (index, record) in (first..).zip(records) {
            change.include(index, record)?;
        }
        self.finish(change, applied)
    }

    fn finish(&self, mut change: Change<'_>, applied: Option<Applied>) -> Result<(), StoreError> {
        if let Some(applied) = applied {
            let mut value = applied.size.to_be_bytes().to_vec();
            value.extend_from_slice(&applied.root.0);
            change.put(APPLIED.to_vec(), value);
        }
        Ok(self.tree()?.apply_batch(change.into_batch())?)
    }
}

impl Lookup for State {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.check()?;
        Ok(self.tree()?.get(key)?)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(crate) mod tests;
