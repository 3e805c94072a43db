//! The append-only file: opening with every check, and committing a batch durably.
//!
//! A commit is: frames, `fdatasync`, signed checkpoint into a slot, `fdatasync`; only then is it
//! acknowledged. Hence what lies behind the newest checkpoint was never acknowledged, and is the
//! only thing that opening may drop (RULES 30). Everything else that is not as it was signed is
//! damage: it is reported and the journal does not open.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_core::CryptoRngCore;
use tlog_tiles::tlog::Hash;

use crate::checkpoint::{self, CHECKPOINT_FILE, HEAD_FILE, Heads, PUBLISH_EVERY, Signer, Trust};
use crate::disk::{self, Disk, FolderLock};
use crate::error::StoreError;
use crate::frame::{self, Frame, FrameReader, MAGIC, Step};
use crate::tree::{self, Tree};

/// The file of records.
pub(crate) const LOG_FILE: &str = "journal.log";
/// The lock file.
pub(crate) const LOCK_FILE: &str = "journal.lock";

/// A size of the tree, with its root and the byte where the next record starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) offset: u64,
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The journal is new.
    pub(crate) created: bool,
    /// Bytes of a torn, never acknowledged tail that were cut off.
    pub(crate) dropped_bytes: u64,
    /// The tree at the size that was asked for, if it reaches that far.
    pub(crate) mark: Option<Mark>,
}

/// The journal of one folder, open for appending.
pub(crate) struct Journal {
    dir: PathBuf,
    log: Box<dyn Disk>,
    slots: Box<dyn Disk>,
    next_slot: u64,
    offset: u64,
    tree: Tree,
    signer: Signer,
    unpublished: u32,
    poison: Option<Arc<str>>,
    _lock: FolderLock,
}

impl Journal {
    /// Checks and opens the journal in `dir`, or makes one. `mark_at` is the size for
    /// [`Opened::mark`].
    pub(crate) fn open(
        dir: &Path,
        name: &str,
        lock: FolderLock,
        mark_at: u64,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(Self, Opened), StoreError> {
        let origin = checkpoint::origin(name)?;
        let created = is_new(dir)?;
        if created {
            create(dir, &origin, rng)?;
        }
        let trust = Trust::load(dir)?;
        if trust.origin() != origin {
            let reason = format!("it belongs to `{}`, not to `{origin}`", trust.origin());
            return Err(StoreError::untrusted(dir, reason));
        }
        let signer = Signer::load(dir, &trust)?;
        let heads = Heads::read(dir, &trust)?;
        let (Some(signed), Some(newest_slot), false) =
            (heads.size(), heads.newest_slot, heads.published_is_bad)
        else {
            return Err(StoreError::untrusted(dir, heads.problems.join("; ")));
        };

        let path = dir.join(LOG_FILE);
        let log = disk::open_rw(&path)?;
        let length = log.metadata().map_err(StoreError::io("inspect", &path))?.len();
        let scan = scan(dir, &log, &heads, signed, mark_at)?;
        let dropped_bytes = length.saturating_sub(scan.offset);
        if dropped_bytes > 0 {
            log.set_len(scan.offset)
                .map_err(StoreError::io("truncate", &path))?;
        }
        // Whole records behind the checkpoint are kept; they must be on the disk before it says so.
        log.sync_all().map_err(StoreError::io("sync", &path))?;

        let mut journal = Self {
            slots: Box::new(disk::open_rw(&dir.join(HEAD_FILE))?),
            dir: dir.to_path_buf(),
            log: Box::new(log),
            next_slot: newest_slot + 1,
            offset: scan.offset,
            tree: scan.tree,
            signer,
            unpublished: 0,
            poison: None,
            _lock: lock,
        };
        let note = journal.sign()?;
        journal.write_slot(&note)?;
        journal.publish(&note)?;
        Ok((
            journal,
            Opened {
                created,
                dropped_bytes,
                mark: scan.mark,
            },
        ))
    }

    /// Where the tree stands now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            size: self.tree.size(),
            root: self.tree.root(),
            offset: self.offset,
        }
    }

    /// Appends the payloads, in order, and returns when they and a checkpoint over them are on the
    /// disk. After a failure nothing is accepted any more: what the disk then holds is unknown.
    pub(crate) fn commit(
        &mut self,
        payloads: &[Vec<u8>],
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(), StoreError> {
        self.check_poison()?;
        self.try_commit(payloads, rng)
            .inspect_err(|error| self.poison = Some(error.to_string().into()))
    }

    /// Refuses once a commit has failed.
    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        match &self.poison {
            Some(reason) => Err(StoreError::Poisoned(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    /// Publishes the last checkpoint and gives the folder back.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.check_poison()?;
        self.publish(&self.sign()?)
    }

    fn try_commit(&mut self, payloads: &[Vec<u8>], rng: &mut dyn CryptoRngCore) -> Result<(), StoreError> {
        let mut tree = self.tree.clone();
        let mut bytes = Vec::new();
        for payload in payloads {
            let mut salt = [0; 16];
            rng.try_fill_bytes(&mut salt)
                .map_err(|e| StoreError::untrusted(&self.dir, format!("no randomness for a salt: {e}")))?;
            frame::encode(tree.size(), &salt, payload, &mut bytes)?;
            tree.push(&tree::entry(&salt, payload));
        }
        let path = self.dir.join(LOG_FILE);
        self.log
            .write_at(self.offset, &bytes)
            .map_err(StoreError::io("write", &path))?;
        self.log.sync().map_err(StoreError::io("sync", &path))?;
        self.offset += bytes.len() as u64;
        self.tree = tree;
        let note = self.sign()?;
        self.write_slot(&note)?;
        self.unpublished += 1;
        if self.unpublished >= PUBLISH_EVERY {
            self.publish(&note)?;
            self.unpublished = 0;
        }
        Ok(())
    }

    fn sign(&self) -> Result<Vec<u8>, StoreError> {
        self.signer
            .sign(&self.tree)
            .map_err(|reason| StoreError::untrusted(&self.dir, reason))
    }

    fn write_slot(&mut self, note: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join(HEAD_FILE);
        let (at, bytes) = checkpoint::slot(self.next_slot, note)
            .map_err(|reason| StoreError::untrusted(&self.dir, reason))?;
        self.slots
            .write_at(at, &bytes)
            .map_err(StoreError::io("write", &path))?;
        self.slots.sync().map_err(StoreError::io("sync", &path))?;
        self.next_slot = (self.next_slot + 1) % 2;
        Ok(())
    }

    fn publish(&self, note: &[u8]) -> Result<(), StoreError> {
        disk::replace(&self.dir.join(CHECKPOINT_FILE), note)
    }

    /// Puts a wrapper around both files, for tests that count or break syncs.
    #[cfg(test)]
    pub(crate) fn wrap(&mut self, wrap: impl Fn(Box<dyn Disk>) -> Box<dyn Disk>) {
        let nowhere = || Box::new(File::open("/dev/null").unwrap());
        self.log = wrap(std::mem::replace(&mut self.log, nowhere()));
        self.slots = wrap(std::mem::replace(&mut self.slots, nowhere()));
    }
}

/// The records of `dir` from a known position on. Only for ranges that [`Journal::open`] has
/// checked: the caller stops at the size that it knows.
pub(crate) fn frames_from(
    dir: &Path,
    index: u64,
    offset: u64,
) -> Result<FrameReader<BufReader<File>>, StoreError> {
    let path = dir.join(LOG_FILE);
    let mut log = File::open(&path).map_err(StoreError::io("open", &path))?;
    log.seek(SeekFrom::Start(offset))
        .map_err(StoreError::io("read", &path))?;
    Ok(FrameReader::at(BufReader::new(log), index, offset))
}

/// Where the first record starts, in bytes.
pub(crate) const FIRST_OFFSET: u64 = MAGIC.len() as u64;

/// Whether there is no journal yet. A log without any checkpoint is new only as long as it is empty,
/// which is how a crash during creation leaves it.
fn is_new(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join(LOG_FILE);
    let signed = dir.join(HEAD_FILE).exists() || dir.join(CHECKPOINT_FILE).exists();
    match std::fs::metadata(&path) {
        Ok(_) if signed => Ok(false),
        Ok(log) if log.len() <= FIRST_OFFSET => Ok(true),
        Ok(_) => Err(StoreError::untrusted(dir, "there are records, but no checkpoint")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && signed => Err(StoreError::untrusted(
            dir,
            "there is a checkpoint, but journal.log is missing",
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(StoreError::io("inspect", &path)(e)),
    }
}

/// Makes the files, the head last: until it is there, the journal counts as new.
fn create(dir: &Path, origin: &str, rng: &mut dyn CryptoRngCore) -> Result<(), StoreError> {
    Signer::create(dir, origin, rng)?;
    disk::replace(&dir.join(LOG_FILE), MAGIC)?;
    let signer = Signer::load(dir, &Trust::load(dir)?)?;
    let slots = signer
        .sign(&Tree::default())
        .and_then(|note| checkpoint::both_slots(&note))
        .map_err(|reason| StoreError::untrusted(dir, reason))?;
    disk::replace(&dir.join(HEAD_FILE), &slots)
}

struct Scan {
    tree: Tree,
    offset: u64,
    mark: Option<Mark>,
}

fn scan(dir: &Path, log: &File, heads: &Heads, signed: u64, mark_at: u64) -> Result<Scan, StoreError> {
    let path = dir.join(LOG_FILE);
    let damaged = |index: u64, offset: u64, reason: String| StoreError::Damaged {
        path: dir.to_path_buf(),
        index,
        offset,
        reason,
    };
    let read = FrameReader::new(BufReader::new(log)).map_err(StoreError::io("read", &path))?;
    let mut frames = read.map_err(|reason| damaged(0, 0, reason.to_owned()))?;
    let (mut tree, mut mark) = (Tree::default(), None);
    loop {
        let (index, offset) = (frames.index(), frames.offset());
        if index == mark_at {
            mark = Some(Mark {
                size: index,
                root: tree.root(),
                offset,
            });
        }
        if heads.contradict(&tree) {
            let reason = format!("the first {index} records are not the ones that were signed");
            return Err(damaged(index, offset, reason));
        }
        let reason = match frames.step().map_err(StoreError::io("read", &path))? {
            Step::Frame(Frame { salt, payload }) => {
                tree.push(&tree::entry(&salt, &payload));
                continue;
            }
            Step::End => format!("the file ends here, but {signed} records were signed"),
            Step::Torn => format!("the file ends within the record, but {signed} records were signed"),
            Step::Bad(reason) => reason.to_owned(),
        };
        if index < signed {
            return Err(damaged(index, offset, reason));
        }
        return Ok(Scan { tree, offset, mark });
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
pub(crate) mod tests;
