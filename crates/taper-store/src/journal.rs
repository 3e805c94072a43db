//! The journal, open for appending: opening with every check, and committing a batch durably.
//!
//! A commit is: frames, `fdatasync`, signed checkpoint into a slot, `fdatasync`; only then is it
//! acknowledged. Hence what lies behind the newest checkpoint was never acknowledged. Opening drops all
//! of it (RULES 30), whole records too: whoever may write the file but has no key could have put them
//! there, and the next checkpoint would sign for them. Everything else that is not as it was signed is
//! damage: it is reported and the journal does not open.
//!
//! A commit that finds the newest segment large enough begins another one first, which is complete
//! and durable under its name before anything is written to it. While no more files can be open, that waits,
//! and so does the plain checkpoint; a commit itself opens none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_core::CryptoRngCore;
use tlog_tiles::tlog::Hash;

use crate::checkpoint::{self, CHECKPOINT_FILE, HEAD_FILE, Heads, PUBLISH_EVERY, Signer, Trust};
use crate::disk::{self, Disk, Folder, FolderLock, SystemFolder};
use crate::error::StoreError;
use crate::frame;
use crate::repair;
use crate::rules;
use crate::segment;
use crate::state::Applied;
use crate::tree::{self, Tree};
use crate::walk::{Found, Place, Walk};

/// The lock file.
pub(crate) const LOCK_FILE: &str = "journal.lock";
/// Bytes of a segment after which another one is begun.
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// A size of the tree, with its root and the place of the next record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) place: Place,
}

/// How a journal is opened.
pub(crate) struct Options {
    /// What the state knows: the size for [`Opened::mark`], and what the journal must have.
    pub(crate) known: Applied,
    /// Bytes of a segment after which another one is begun.
    pub(crate) segment_bytes: u64,
    /// Which generation a new journal is of.
    pub(crate) generation: u64,
    /// The files' folder.
    pub(crate) folder: Box<dyn Folder>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            known: Applied::NOTHING,
            segment_bytes: SEGMENT_BYTES,
            generation: 1,
            folder: Box::<SystemFolder>::default(),
        }
    }
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The journal is new.
    pub(crate) created: bool,
    /// Bytes behind the newest checkpoint that were cut off: they were never acknowledged.
    pub(crate) dropped_bytes: u64,
    /// The tree at the size that was asked for, if it is among those that are left.
    pub(crate) mark: Option<Mark>,
    /// Up to where records were dropped, or are to be once the state has them: a crash may have come
    /// between the record that says so and the removal of the files.
    pub(crate) retired: u64,
}

/// The journal of one folder, open for appending.
pub(crate) struct Journal {
    dir: PathBuf,
    folder: Box<dyn Folder>,
    log: Box<dyn Disk>,
    slots: Box<dyn Disk>,
    next_slot: u64,
    segment: u64,
    segment_bytes: u64,
    offset: u64,
    tree: Tree,
    signer: Signer,
    unpublished: u32,
    poison: Option<Arc<str>>,
    _lock: FolderLock,
}

/// Refuses a journal that lacks records from which the state was made. The state gets a record only
/// once its checkpoint is on the disk, so something that was acknowledged is gone.
pub(crate) fn check_known(dir: &Path, (size, root): (u64, Hash), known: Applied) -> Result<(), StoreError> {
    let what = if known.size > size {
        format!(
            "the state knows {} records, the journal has {size}: the others are gone from it",
            known.size
        )
    } else if known.size == size && size > 0 && known.root != root {
        format!(
            "the state knows {} records, and the journal has {size} that are others",
            known.size
        )
    } else {
        return Ok(());
    };
    let folder = dir.display();
    let reason = format!(
        "{what}; put the newer journal files back, or go on with what the state knows \
         (`taper audit repair --dir {folder} --dry-run` says what that comes to), or accept the journal \
         as it is and lose the rest (`taper store rebuild --dir {folder}`)"
    );
    Err(StoreError::untrusted(dir, rules::AHEAD.says(reason)))
}

impl Journal {
    /// Checks and opens the journal in `dir`, or makes one.
    pub(crate) fn open(
        dir: &Path,
        name: &str,
        lock: FolderLock,
        options: Options,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(Self, Opened), StoreError> {
        let Options {
            known,
            segment_bytes,
            generation,
            mut folder,
        } = options;
        let origin = checkpoint::origin(name, generation)?;
        repair::check_finished(dir)?;
        let created = is_new(dir)?;
        if created && known.size > 0 {
            let reason = format!(
                "its files are gone, but the state was made from {} records of it",
                known.size
            );
            return Err(StoreError::untrusted(dir, rules::GONE.says(reason)));
        }
        if created {
            create(dir, &mut *folder, &origin, rng)?;
        }
        let trust = Trust::load(dir)?;
        if checkpoint::parse_origin(trust.origin()).is_none_or(|(of, _)| of != name) {
            let reason = format!("it belongs to `{}`, not to `{origin}`", trust.origin());
            return Err(StoreError::untrusted(dir, rules::KEYS.says(reason)));
        }
        let signer = Signer::load(dir, &trust)?;
        let heads = Heads::read(dir, &trust)?;
        let (signed, newest_slot) = heads.usable(dir)?;

        let scan = scan(dir, &trust, &heads, signed, known.size)?;
        // Before anything is cut off or signed.
        check_known(dir, (scan.tree.size(), scan.tree.root()), known)?;
        let path = segment::path(dir, scan.end.segment);
        let log = disk::open_rw(&path)?;
        let length = log.metadata().map_err(StoreError::io("inspect", &path))?.len();
        let dropped_bytes = length.saturating_sub(scan.end.offset);
        if dropped_bytes > 0 {
            log.set_len(scan.end.offset)
                .map_err(StoreError::io("truncate", &path))?;
        }
        // What was cut off must not come back behind records that follow.
        log.sync_all().map_err(StoreError::io("sync", &path))?;

        let open =
            |folder: &mut dyn Folder, path: &Path| folder.open(path).map_err(StoreError::io("open", path));
        let mut journal = Self {
            log: open(&mut *folder, &path)?,
            slots: open(&mut *folder, &dir.join(HEAD_FILE))?,
            dir: dir.to_path_buf(),
            folder,
            next_slot: newest_slot + 1,
            segment: scan.end.segment,
            segment_bytes,
            offset: scan.end.offset,
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
                retired: scan.retired,
            },
        ))
    }

    /// The journal's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the tree stands now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            size: self.tree.size(),
            root: self.tree.root(),
            place: Place {
                segment: self.segment,
                index: self.tree.size(),
                offset: self.offset,
            },
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
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        self.check_poison()?;
        let note = self.sign()?;
        self.publish(&note)
    }

    fn try_commit(&mut self, payloads: &[Vec<u8>], rng: &mut dyn CryptoRngCore) -> Result<(), StoreError> {
        if self.offset >= self.segment_bytes && self.tree.size() > self.segment {
            // The newest segment takes more until there are descriptors again.
            unless_short_of_files(self.roll_over())?;
        }
        let mut tree = self.tree.clone();
        let mut bytes = Vec::new();
        for payload in payloads {
            let mut salt = [0; 16];
            rng.try_fill_bytes(&mut salt)
                .map_err(|e| StoreError::untrusted(&self.dir, format!("no randomness for a salt: {e}")))?;
            frame::encode(tree.size(), &salt, payload, &mut bytes)?;
            tree.push(&tree::entry(&salt, payload));
        }
        let path = segment::path(&self.dir, self.segment);
        self.log
            .write_at(self.offset, &bytes)
            .map_err(StoreError::io("write", &path))?;
        self.log.sync().map_err(StoreError::io("sync", &path))?;
        self.offset += bytes.len() as u64;
        self.tree = tree;
        let note = self.sign()?;
        self.write_slot(&note)?;
        self.unpublished = self.unpublished.saturating_add(1);
        if self.unpublished >= PUBLISH_EVERY {
            // It may be behind; the next commit tries again.
            if unless_short_of_files(self.publish(&note))? {
                self.unpublished = 0;
            }
        }
        Ok(())
    }

    /// Begins another segment. Everything before it is on the disk and signed for.
    fn roll_over(&mut self) -> Result<(), StoreError> {
        let first = self.tree.size();
        let bytes = segment::encode(&self.tree, &self.sign()?)?;
        self.log = disk::place(&mut *self.folder, &segment::path(&self.dir, first), &bytes)?;
        self.segment = first;
        self.offset = bytes.len() as u64;
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

    fn publish(&mut self, note: &[u8]) -> Result<(), StoreError> {
        disk::place(&mut *self.folder, &self.dir.join(CHECKPOINT_FILE), note).map(drop)
    }

    /// Puts a wrapper around both files, for tests that count or break syncs.
    #[cfg(test)]
    pub(crate) fn wrap(&mut self, wrap: impl Fn(Box<dyn Disk>) -> Box<dyn Disk>) {
        let nowhere = || Box::new(std::fs::File::open("/dev/null").unwrap());
        self.log = wrap(std::mem::replace(&mut self.log, nowhere()));
        self.slots = wrap(std::mem::replace(&mut self.slots, nowhere()));
    }
}

/// Whether it was done. That no more files can be open says nothing about the disk, and nothing was done then: what can
/// wait is done later.
fn unless_short_of_files(done: Result<(), StoreError>) -> Result<bool, StoreError> {
    match done {
        Err(error) if error.is_short_of_files() => Ok(false),
        done => done.map(|()| true),
    }
}

/// Whether there is no journal yet. Records without any checkpoint are new only as long as there are
/// none, which is how a crash during creation leaves the folder.
fn is_new(dir: &Path) -> Result<bool, StoreError> {
    let signed = dir.join(HEAD_FILE).exists() || dir.join(CHECKPOINT_FILE).exists();
    match (segment::list(dir)?.as_slice(), signed) {
        ([], false) => Ok(true),
        ([], true) => Err(StoreError::untrusted(
            dir,
            rules::GONE.says("there is a checkpoint, but no segment `journal-….log`"),
        )),
        (_, true) => Ok(false),
        ([0], false) => {
            let path = segment::path(dir, 0);
            let length = std::fs::metadata(&path)
                .map_err(StoreError::io("inspect", &path))?
                .len();
            // A first segment is placed whole: neither a record nor a bad header is left by a crash.
            match empty_length(&path)? {
                Some(empty) if empty == length => Ok(true),
                _ => Err(no_checkpoint(dir)),
            }
        }
        (_, false) => Err(no_checkpoint(dir)),
    }
}

fn no_checkpoint(dir: &Path) -> StoreError {
    StoreError::untrusted(dir, rules::GONE.says("there are records, but no checkpoint"))
}

/// Bytes of a segment's header; `None` when it has none that can be read.
fn empty_length(path: &Path) -> Result<Option<u64>, StoreError> {
    let mut file = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
    match segment::read(&mut file) {
        Ok(header) => Ok(Some(header.length)),
        Err(segment::Unread::Bad(_)) => Ok(None),
        Err(segment::Unread::Io(e)) => Err(StoreError::io("read", path)(e)),
    }
}

/// Makes the files, the head last: until it is there, the journal counts as new.
fn create(
    dir: &Path,
    folder: &mut dyn Folder,
    origin: &str,
    rng: &mut dyn CryptoRngCore,
) -> Result<(), StoreError> {
    Signer::create(dir, origin, rng)?;
    let signer = Signer::load(dir, &Trust::load(dir)?)?;
    let untrusted = |reason| StoreError::untrusted(dir, reason);
    let tree = Tree::default();
    let note = signer.sign(&tree).map_err(untrusted)?;
    let slots = checkpoint::both_slots(&note).map_err(untrusted)?;
    let first = segment::encode(&tree, &note)?;
    disk::place(folder, &segment::path(dir, 0), &first)?;
    disk::place(folder, &dir.join(HEAD_FILE), &slots).map(drop)
}

/// Checks the journal in `dir` as opening does, changes nothing, and returns where it would go on.
pub(crate) fn end_of(dir: &Path) -> Result<Mark, StoreError> {
    repair::check_finished(dir)?;
    let trust = Trust::load(dir)?;
    let heads = Heads::read(dir, &trust)?;
    let (signed, _) = heads.usable(dir)?;
    let scan = scan(dir, &trust, &heads, signed, 0)?;
    Ok(Mark {
        size: scan.tree.size(),
        root: scan.tree.root(),
        place: scan.end,
    })
}

struct Scan {
    tree: Tree,
    end: Place,
    /// Up to where records were dropped, or are to be.
    retired: u64,
    mark: Option<Mark>,
}

/// Reads and checks what is signed for. What lies behind was never acknowledged, and whoever may write
/// the file but has no key could have put it there: nothing of it is read.
fn scan(dir: &Path, trust: &Trust, heads: &Heads, signed: u64, mark_at: u64) -> Result<Scan, StoreError> {
    let newest = segment::list(dir)?.last().copied().unwrap_or(0);
    // A segment is begun behind what is signed for, and its header says so too.
    let signed = signed.max(newest);
    let mut walk = Walk::start(dir, trust.clone(), signed);
    let mut mark = None;
    loop {
        let reason = match walk.step()? {
            Found::Segment | Found::Frame(_) => None,
            Found::Bad(place, reason) => return Err(place.damaged(dir, reason)),
            Found::End => Some(ends_early(signed)),
            Found::Torn(reason) => Some(reason),
        };
        let place = walk.place();
        if let Some(reason) = reason {
            return Err(place.damaged(dir, reason));
        }
        let Some(tree) = walk.tree() else {
            return Err(StoreError::untrusted(dir, "there is no segment"));
        };
        if tree.size() == mark_at {
            mark = Some(Mark {
                size: mark_at,
                root: tree.root(),
                place,
            });
        }
        if heads.contradict(tree) {
            return Err(place.damaged(dir, contradiction(tree)));
        }
        if place.segment < newest || place.index < signed {
            continue;
        }
        if let Some((place, reason)) = walk.beginning_is_bad() {
            return Err(place.damaged(dir, reason));
        }
        return Ok(Scan {
            tree: tree.clone(),
            end: place,
            retired: walk.retired(),
            mark,
        });
    }
}

/// What is said when a checkpoint is of another tree.
pub(crate) fn contradiction(tree: &Tree) -> String {
    rules::ROOT.says(format!(
        "the first {} records are not the ones that were signed",
        tree.size()
    ))
}

/// What is said when the journal ends before its newest checkpoint.
pub(crate) fn ends_early(signed: u64) -> String {
    rules::COMPLETE.says(format!("the journal ends here, but {signed} records were signed"))
}

#[cfg(test)]
#[path = "journal_faults.rs"]
mod faults;
#[cfg(test)]
#[path = "journal_tests.rs"]
pub(crate) mod tests;
