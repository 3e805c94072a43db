//! Queryable state in sled, derived from the journal.
//!
//! Nothing here needs to survive: sled may lose its last half second, and the whole folder may be
//! deleted. Every batch carries, atomically with its data, how many records it includes and the root
//! of the tree at that size; at start the journal is replayed from there, or from the beginning when
//! the root is not the journal's. All calls block; they run on the writer thread or under
//! `spawn_blocking`.
//!
//! Keys of the one tree: `m/applied` → size and root; `g` ‖ SHA-256(issuer, id) → grant;
//! `i` ‖ owner ‖ grant → its id (`state/index.rs`); `s` ‖ number → revocation; `h` ‖ number → history; `k` ‖ fingerprint → number; `c` ‖ fingerprint → calls that count and the
//! number of the first record that is not among them, which makes replaying a record harmless.

mod index;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};
use sled::{Batch, IVec};
use tlog_tiles::tlog::{EMPTY_HASH, Hash};

use crate::error::StoreError;
use crate::frame::decode_record;
use crate::journal::Mark;
use crate::record::{GrantRecord, Record, RecordKind};
use crate::revocation::{NO_HISTORY, RevocationKey, RevocationRecord};
use crate::walk::{Chain, Link};

const FOLDER: &str = "state";
const APPLIED: &[u8] = b"m/applied";
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const REPLAY_CHUNK: usize = 1024;

/// How much of the journal the state includes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Applied {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// The sled database; clones share it.
#[derive(Clone)]
pub(crate) struct State {
    db: sled::Db,
    behind: Arc<OnceLock<()>>,
}

impl State {
    /// Opens the state in `dir`, or starts an empty one when it cannot be read. The second value
    /// says why it had to.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Option<String>), StoreError> {
        let path = dir.join(FOLDER);
        let open = || sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).open();
        let (db, rebuilt) = match open() {
            Ok(db) => (db, None),
            Err(error) if is_unreadable(&error) => {
                std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
                (open()?, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        Ok((
            Self {
                db,
                behind: Arc::new(OnceLock::new()),
            },
            rebuilt,
        ))
    }

    /// How much of the journal is included. A malformed entry counts as nothing.
    pub(crate) fn applied(&self) -> Result<Applied, StoreError> {
        let nothing = Applied {
            size: 0,
            root: EMPTY_HASH,
        };
        let Some(value) = self.db.get(APPLIED)? else {
            return Ok(nothing);
        };
        let Some((size, root)) = value.split_first_chunk::<8>() else {
            return Ok(nothing);
        };
        let Ok(root) = <[u8; 32]>::try_from(root) else {
            return Ok(nothing);
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
                // Also when it claims nothing: a replay that broke off leaves records without a claim.
                self.db.clear()?;
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

    /// Includes records that were just committed. After a failure the state is behind the journal
    /// and answers no more questions.
    pub(crate) fn apply(&self, records: &[Record], applied: Applied) -> Result<(), StoreError> {
        let first = applied.size.saturating_sub(records.len() as u64);
        self.write(records, first, Some(applied)).inspect_err(|_| {
            self.behind.get_or_init(|| ());
        })
    }

    /// The newest record of a grant.
    pub(crate) fn grant(&self, issuer: &str, grant_id: &str) -> Result<Option<GrantRecord>, StoreError> {
        self.check()?;
        self.db
            .get(grant_key(issuer, grant_id))?
            .map(|value| parse(&value))
            .transpose()
    }

    /// The number under which a key was revoked.
    pub(crate) fn revoked(&self, issuer: &str, key: &RevocationKey) -> Result<Option<u64>, StoreError> {
        self.check()?;
        self.db
            .get(fingerprint_key(&key.fingerprint(issuer)))?
            .map(|value| number(&value))
            .transpose()
    }

    /// How many calls count under the counter of this fingerprint.
    pub(crate) fn calls(&self, fingerprint: &[u8; 32]) -> Result<u64, StoreError> {
        self.check()?;
        Ok(self.counted(fingerprint)?.calls)
    }

    /// At most `limit` revocations above `seq`.
    pub(crate) fn revocations_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<RevocationRecord>, StoreError> {
        self.check()?;
        let Some(first) = seq.checked_add(1) else {
            return Ok(Vec::new());
        };
        let range = self.db.range(number_key(first)..=number_key(u64::MAX));
        range.take(limit).map(|entry| parse(&entry?.1)).collect()
    }

    /// The history up to a number, if it is known.
    pub(crate) fn history(&self, seq: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.check()?;
        if seq == 0 {
            return Ok(Some(NO_HISTORY));
        }
        let Some(value) = self.db.get(history_key(seq))? else {
            return Ok(None);
        };
        let malformed = |_| StoreError::State("a history is not 32 bytes".into());
        value.as_ref().try_into().map(Some).map_err(malformed)
    }

    /// The highest number given to a revocation; 0 if none was.
    pub(crate) fn head(&self) -> Result<u64, StoreError> {
        self.check()?;
        match self.db.range(history_key(0)..=history_key(u64::MAX)).next_back() {
            None => Ok(0),
            Some(entry) => number(entry?.0.get(1..).unwrap_or_default()),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.behind.get() {
            None => Ok(()),
            Some(()) => Err(StoreError::State("it could not follow the journal".into())),
        }
    }

    fn counted(&self, fingerprint: &[u8; 32]) -> Result<Counted, StoreError> {
        match self.db.get(counter_key(fingerprint))? {
            None => Ok(Counted::default()),
            Some(value) => Counted::from_bytes(&value),
        }
    }

    /// Includes records, of which the first has the number `first` in the journal.
    fn write(&self, records: &[Record], first: u64, applied: Option<Applied>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut counters: HashMap<[u8; 32], Counted> = HashMap::new();
        for (index, record) in (first..).zip(records) {
            match &record.kind {
                RecordKind::Grant(grant) => {
                    batch.insert(grant_key(&grant.issuer, &grant.grant_id).as_slice(), json(grant)?);
                    for key in index::keys(grant) {
                        batch.insert(key.as_slice(), grant.grant_id.as_bytes());
                    }
                }
                RecordKind::Revoked(record) => {
                    let revocation = &record.revocation;
                    let fingerprint = revocation.what.fingerprint(&revocation.issuer);
                    batch.insert(number_key(revocation.seq).as_slice(), json(record)?);
                    batch.insert(history_key(revocation.seq).as_slice(), &record.history);
                    batch.insert(
                        fingerprint_key(&fingerprint).as_slice(),
                        &revocation.seq.to_be_bytes(),
                    );
                }
                RecordKind::Decision(decision) => {
                    for key in &decision.counted {
                        let fingerprint = key.fingerprint(&decision.issuer);
                        let counted = match counters.entry(fingerprint) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(unknown) => unknown.insert(self.counted(&fingerprint)?),
                        };
                        counted.include(index);
                    }
                }
                RecordKind::Policy { .. } | RecordKind::Started { .. } => {}
            }
        }
        for (fingerprint, counted) in &counters {
            batch.insert(counter_key(fingerprint).as_slice(), counted.to_bytes().as_slice());
        }
        if let Some(applied) = applied {
            let mut value = applied.size.to_be_bytes().to_vec();
            value.extend_from_slice(&applied.root.0);
            batch.insert(APPLIED, value);
        }
        Ok(self.db.apply_batch(batch)?)
    }
}

/// The calls of one counter.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    calls: u64,
    /// Records below this number are among them.
    next: u64,
}

impl Counted {
    /// Counts the call of a record, once.
    fn include(&mut self, index: u64) {
        if index >= self.next {
            self.calls = self.calls.saturating_add(1);
            self.next = index.saturating_add(1);
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.calls) << 64 | u128::from(self.next)).to_be_bytes()
    }

    fn from_bytes(value: &[u8]) -> Result<Self, StoreError> {
        let malformed = || StoreError::State("a counter is not two numbers".into());
        let (calls, next) = value.split_first_chunk::<8>().ok_or_else(malformed)?;
        Ok(Self {
            calls: u64::from_be_bytes(*calls),
            next: u64::from_be_bytes(next.try_into().map_err(|_| malformed())?),
        })
    }
}

/// Whether the files are at fault, not the access to them: only then may they be thrown away.
fn is_unreadable(error: &sled::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::Unsupported(_) => true,
        sled::Error::Io(e) => matches!(e.kind(), InvalidData | InvalidInput | UnexpectedEof),
        sled::Error::CollectionNotFound(_) => false,
    }
}

fn grant_key(issuer: &str, grant_id: &str) -> [u8; 33] {
    let mut hash = Sha256::new();
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer.as_bytes());
    hash.update(grant_id.as_bytes());
    prefixed(b'g', &hash.finalize().into())
}

fn fingerprint_key(fingerprint: &[u8; 32]) -> [u8; 33] {
    prefixed(b'k', fingerprint)
}

fn counter_key(fingerprint: &[u8; 32]) -> [u8; 33] {
    prefixed(b'c', fingerprint)
}

fn number_key(seq: u64) -> [u8; 9] {
    prefixed(b's', &seq.to_be_bytes())
}

fn history_key(seq: u64) -> [u8; 9] {
    prefixed(b'h', &seq.to_be_bytes())
}

fn prefixed<const N: usize, const M: usize>(prefix: u8, rest: &[u8; N]) -> [u8; M] {
    let mut key = [prefix; M];
    for (to, from) in key.iter_mut().skip(1).zip(rest) {
        *to = *from;
    }
    key
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::State(e.to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(value: &IVec) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::State(e.to_string()))
}

fn number(value: &[u8]) -> Result<u64, StoreError> {
    let bytes = value
        .try_into()
        .map_err(|_| StoreError::State("a number is not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
