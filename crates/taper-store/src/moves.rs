//! Moving a store and building its state anew: the journal is all that counts, the rest is derived.
//!
//! What is exported is the journal with its keys, up to one checkpoint, and how far feeds were followed: who
//! forgot that would believe an issuer that lost revocations (M-37). The state is built from the journal
//! again at the other end. Seen proofs stay behind: a store that was moved knows that it may lack some,
//! and asks for a nonce (RULES 22).

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{self, CHECKPOINT_FILE, HEAD_FILE, Head, KEY_FILE, PUB_FILE, Trust};
use crate::disk::{self, FolderLock};
use crate::error::StoreError;
use crate::frame;
use crate::journal::{self, LOCK_FILE};
use crate::position::copy_positions;
use crate::segment;
use crate::state::State;
use crate::verify::{read_heads, verify_dir};
use crate::walk::{Found, Walk};

/// Times that an export begins again when old records are dropped under its hands.
const ATTEMPTS: usize = 5;

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The origin line of the journal.
    pub origin: String,
    /// The number of the first record.
    pub first: u64,
    /// How many records the checkpoint signs for, dropped ones included.
    pub tree_size: u64,
    /// The root of their tree, base64.
    pub root: String,
    /// Records that were read into the state; none in an export.
    pub replayed: u64,
}

/// Writes the journal in `dir` with its keys and the positions in feeds into the new folder `out`, up to the newest
/// checkpoint, and verifies the copy. It needs no lock: the store may run. The copy can sign for the journal like the original, so only
/// one of them may go on being written.
///
/// # Errors
/// When `out` is not empty, when the journal is damaged, or a file cannot be read or written.
pub fn export(dir: &Path, out: &Path) -> Result<Moved, StoreError> {
    disk::create_empty_folder(out)?;
    let mut attempt = 1;
    loop {
        let begin = segment::list(dir)?.first().copied();
        let done = copy(dir, out).and_then(|moved| verified(out).map(|()| moved));
        if done.is_ok() {
            return done;
        }
        // Who finds it must not take it for an export.
        for name in [HEAD_FILE, CHECKPOINT_FILE] {
            disk::remove_if_exists(&out.join(name))?;
        }
        for first in segment::list(out)? {
            disk::remove_if_exists(&segment::path(out, first))?;
        }
        if segment::list(dir)?.first().copied() == begin {
            return done;
        }
        if attempt == ATTEMPTS {
            let reason = "old records are dropped faster than it can be copied; try again";
            return Err(StoreError::untrusted(dir, reason));
        }
        attempt += 1;
    }
}

/// Refuses a journal that is not as it was signed.
fn verified(dir: &Path) -> Result<(), StoreError> {
    let report = verify_dir(dir)?;
    if report.is_ok() {
        return Ok(());
    }
    let bad = report.first_bad.map(|bad| bad.reason);
    let problems = bad.into_iter().chain(report.checkpoint_problems);
    let reason = problems.collect::<Vec<_>>().join("; ");
    Err(StoreError::untrusted(dir, reason))
}

/// Makes a store in the new folder `dir` from an export in `from`: everything is verified and copied,
/// and the state built.
///
/// # Errors
/// When `dir` is not empty, and when the export is not as it was signed; then nothing is left in `dir`
/// that would open as a store.
pub fn import(from: &Path, dir: &Path) -> Result<Moved, StoreError> {
    verified(from)?;
    disk::create_empty_folder(dir)?;
    let lock = FolderLock::take(dir, LOCK_FILE)?;
    let mut moved = copy(from, dir)?;
    moved.replayed = build_state(dir, lock)?;
    Ok(moved)
}

/// Throws the state of the store in `dir` away and builds it from the journal. Returns how many
/// records were read.
///
/// # Errors
/// [`StoreError::InUse`] while the store runs; when the journal is damaged, and then the state is left
/// as it is.
pub fn rebuild(dir: &Path) -> Result<u64, StoreError> {
    let lock = FolderLock::take(dir, LOCK_FILE)?;
    build_state(dir, lock)
}

/// Builds the state of a journal; the lock is held until it is there.
fn build_state(dir: &Path, _lock: FolderLock) -> Result<u64, StoreError> {
    let end = journal::end_of(dir)?;
    let state = State::create(dir)?;
    let replayed = state.catch_up(dir, None, end)?;
    state.close()?;
    Ok(replayed)
}

/// Copies and verifies at once. The checkpoint comes first, so that what a crash leaves is no new store;
/// the keys and then the head come last, so that it is no store that could sign either.
fn copy(dir: &Path, out: &Path) -> Result<Moved, StoreError> {
    let trust = Trust::load(dir)?;
    let Some((head, note)) = read_heads(dir, &trust)?.newest else {
        return Err(StoreError::untrusted(dir, "there is no good checkpoint"));
    };
    let origin = trust.origin().to_owned();
    let slots = checkpoint::both_slots(note.as_bytes()).map_err(|e| StoreError::untrusted(dir, e))?;
    disk::replace(&out.join(CHECKPOINT_FILE), note.as_bytes())?;
    let first = copy_records(dir, out, trust, head)?;
    copy_positions(dir, out)?;
    for name in [KEY_FILE, PUB_FILE] {
        let path = dir.join(name);
        let key = disk::read_secret(&path)?;
        let key = key.ok_or_else(|| StoreError::untrusted(dir, format!("{name} is missing")))?;
        disk::replace(&out.join(name), &key)?;
    }
    disk::replace(&out.join(HEAD_FILE), &slots)?;
    Ok(Moved {
        origin,
        first,
        tree_size: head.size,
        root: head.root.to_string(),
        replayed: 0,
    })
}

fn copy_records(dir: &Path, out: &Path, trust: Trust, head: Head) -> Result<u64, StoreError> {
    let mut walk = Walk::start(dir, trust, head.size);
    let mut copy: Option<Copy> = None;
    let mut begin = None;
    loop {
        let place = walk.place();
        if copy.is_some() && place.index >= head.size {
            break;
        }
        match walk.step()? {
            Found::Segment => {
                let segment = walk.place().segment;
                begin.get_or_insert(segment);
                copy.take().map_or(Ok(()), Copy::finish)?;
                copy = Some(Copy::of(dir, out, segment, walk.place().offset)?);
            }
            Found::Frame(frame) => {
                let mut bytes = Vec::new();
                frame::encode(place.index, &frame.salt, &frame.payload, &mut bytes)?;
                if let Some(copy) = &mut copy {
                    copy.write(&bytes)?;
                }
            }
            Found::Bad(place, reason) => return Err(place.damaged(dir, reason)),
            Found::End | Found::Torn(_) => {
                return Err(place.damaged(dir, journal::ends_early(head.size)));
            }
        }
    }
    copy.take().map_or(Ok(()), Copy::finish)?;
    match walk.tree() {
        Some(tree) if (tree.size(), tree.root()) == (head.size, head.root) => Ok(begin.unwrap_or(0)),
        Some(tree) => Err(walk.place().damaged(dir, journal::contradiction(tree))),
        None => Err(StoreError::untrusted(dir, "there is no segment")),
    }
}

/// A segment that is being copied.
struct Copy {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Copy {
    /// Begins with the first `header` bytes of the segment.
    fn of(dir: &Path, out: &Path, first: u64, header: u64) -> Result<Self, StoreError> {
        let from = segment::path(dir, first);
        let bytes = disk::read_beginning(&from, header)?;
        let path = segment::path(out, first);
        let mut copy = Self {
            file: BufWriter::new(disk::open_rw(&path)?),
            path,
        };
        copy.write(&bytes)?;
        Ok(copy)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(StoreError::io("write", &self.path))
    }

    fn finish(self) -> Result<(), StoreError> {
        let Self { path, mut file } = self;
        file.flush().map_err(StoreError::io("write", &path))?;
        file.get_ref().sync_all().map_err(StoreError::io("sync", &path))
    }
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
