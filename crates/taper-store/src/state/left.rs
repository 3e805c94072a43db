//! How the state's folder was left, which decides whether it is believed.
//!
//! A file beside sled's says one of two things. *Open* in a boot of the kernel: within that boot,
//! `kill -9` loses nothing of the page cache, and the folder is whole; after another boot it may not be.
//! *Closed* at a size and root: everything below the folder was on the disk before the file said so, and
//! it stops saying so before anything is written again. Any other folder is thrown away and made anew
//! from the journal, and so is one that sled cannot read: on damaged pages it may panic.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use tlog_tiles::tlog::Hash;

use super::{Applied, State};
use crate::disk;
use crate::error::StoreError;
use crate::journal::Mark;
use crate::seen_log::boot_id;

const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// What sled says when somebody has its lock.
const LOCKED: &str = "could not acquire lock";
/// How often, and how far apart, its lock is tried: ten seconds together.
const LOCK_ATTEMPTS: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const MARK: &str = "taper.mark";
const MAGIC: &str = "taper-state-1";
const MARK_LIMIT: u64 = 256;
/// sled's file; sled holds a lock on it for as long as anything of it lives.
const DATABASE: &str = "db";

/// What was there.
pub(crate) enum Found {
    /// A state to be believed, and what it includes.
    Kept(State, Applied),
    /// Nothing, or a folder that is not to be believed.
    Lost {
        /// Why it is not.
        reason: Option<String>,
        /// What it says that it includes. That much was on the disk once: the journal must have it.
        claim: Applied,
    },
}

/// A state that has caught up with the journal.
pub(crate) struct Restored {
    pub(crate) state: State,
    /// Records that were replayed.
    pub(crate) replayed: u64,
    /// Why what was there was thrown away, if it was.
    pub(crate) lost: Option<String>,
}

/// What the file beside sled's says.
#[derive(Debug, PartialEq)]
enum Left {
    Open(String),
    Closed(Applied),
}

impl Found {
    fn lost(reason: Option<String>) -> Self {
        Self::Lost {
            reason,
            claim: Applied::NOTHING,
        }
    }

    /// What the journal is to be compared with.
    pub(crate) fn applied(&self) -> Applied {
        match self {
            Self::Kept(_, applied) => *applied,
            Self::Lost { claim, .. } => *claim,
        }
    }

    /// Brings what was found up to `to`, the journal's end, or makes a new state from all of the
    /// journal. `at_applied` is the journal at the size of [`Found::applied`].
    pub(crate) fn restore(
        self,
        dir: &Path,
        at_applied: Option<Mark>,
        to: Mark,
    ) -> Result<Restored, StoreError> {
        let lost = match self {
            Self::Lost { reason, .. } => reason,
            Self::Kept(state, _) => match guarded(|| state.catch_up(dir, at_applied, to)) {
                Ok(Ok(replayed)) => {
                    return Ok(Restored {
                        state,
                        replayed,
                        lost: None,
                    });
                }
                Ok(Err(StoreError::State(reason))) | Err(reason) => Some(reason),
                Ok(Err(error)) => return Err(error),
            },
        };
        let state = State::create(dir)?;
        let replayed = state.catch_up(dir, None, to)?;
        Ok(Restored {
            state,
            replayed,
            lost,
        })
    }
}

impl State {
    /// Looks for a state in `dir` that is to be believed. One that is not is left as it is.
    pub(crate) fn find(dir: &Path) -> Result<Found, StoreError> {
        Self::find_in_boot(dir, boot_id().as_deref())
    }

    fn find_in_boot(dir: &Path, boot: Option<&str>) -> Result<Found, StoreError> {
        let folder = Self::folder(dir);
        if !folder.exists() {
            return Ok(Found::lost(None));
        }
        let lost = |reason: &str| Ok(Found::lost(Some(reason.to_owned())));
        let Some(left) = read(&folder)? else {
            return lost("nothing says how it was left");
        };
        match &left {
            Left::Closed(_) => unmark(&folder)?,
            Left::Open(then) if boot == Some(then.as_str()) => {}
            Left::Open(_) => {
                let read = guarded(|| Self::of(folder.clone(), open(&folder)?).applied());
                return Ok(Found::Lost {
                    reason: Some("it was not closed before the machine last started".to_owned()),
                    claim: read.ok().and_then(Result::ok).unwrap_or(Applied::NOTHING),
                });
            }
        }
        let opened = guarded(|| -> sled::Result<_> {
            let state = Self::of(folder.clone(), open(&folder)?);
            let applied = state.applied();
            Ok((state, applied))
        });
        let (state, applied) = match opened {
            Ok(Ok((state, Ok(applied)))) => (state, applied),
            Ok(Ok((_, Err(error)))) => return lost(&error.to_string()),
            Ok(Err(error)) if is_unreadable(&error) => return lost(&error.to_string()),
            Ok(Err(error)) => return Err(error.into()),
            Err(reason) => return lost(&reason),
        };
        match left {
            Left::Closed(then) if then != applied => lost("it is not as it was closed"),
            Left::Closed(_) => {
                mark_open(&folder, boot)?;
                Ok(Found::Kept(state, applied))
            }
            Left::Open(_) => Ok(Found::Kept(state, applied)),
        }
    }

    /// Makes an empty state in `dir`, in the place of what is there.
    pub(crate) fn create(dir: &Path) -> Result<Self, StoreError> {
        let folder = Self::folder(dir);
        Self::discard(dir)?;
        disk::create_folder(&folder)?;
        mark_open(&folder, boot_id().as_deref())?;
        let tree = open(&folder)?;
        Ok(Self::of(folder, tree))
    }

    /// Removes the state in `dir`; what a crash leaves of it is not believed.
    pub(crate) fn discard(dir: &Path) -> Result<(), StoreError> {
        let folder = Self::folder(dir);
        if folder.exists() {
            unmark(&folder)?;
        }
        disk::remove_folder(&folder)
    }
}

/// Puts everything below the folder of a closed state on the disk, and then says so.
pub(super) fn seal(folder: &Path, applied: Applied) -> Result<(), StoreError> {
    let path = folder.join(DATABASE);
    let database = File::open(&path).map_err(StoreError::io("open", &path))?;
    // A reader may still have sled, which then may still write.
    database.lock().map_err(StoreError::io("lock", &path))?;
    sync_all(folder)?;
    if let Some(dir) = folder.parent() {
        disk::sync_folder(dir)?;
    }
    write(folder, &Left::Closed(applied))
}

fn sync_all(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("sync", &path))?;
        }
    }
    disk::sync_folder(folder)
}

/// Opens sled's folder. The store's own lock is held, so nobody else uses it; but a database of this
/// process that was just dropped lives on in sled's threads for a moment, and keeps sled's lock.
fn open(folder: &Path) -> sled::Result<sled::Tree> {
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES);
    let mut attempts = LOCK_ATTEMPTS;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if attempts > 0 && error.to_string().contains(LOCKED) => {
                attempts -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            // The default tree: it keeps the database alive, and costs less to share.
            opened => return Ok(sled::Tree::clone(&*opened?)),
        }
    }
}

/// The result, or what a panic said: sled panics on some damaged pages.
fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic leaves half-done is dropped with all of the state.
    catch_unwind(AssertUnwindSafe(read)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        format!("sled panicked: {}", text.unwrap_or("without a word"))
    })
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

/// Without a boot id no opening can be told from another, and the state will not be believed.
fn mark_open(folder: &Path, boot: Option<&str>) -> Result<(), StoreError> {
    match boot {
        Some(boot) => write(folder, &Left::Open(boot.to_owned())),
        None => unmark(folder),
    }
}

fn write(folder: &Path, left: &Left) -> Result<(), StoreError> {
    let text = match left {
        Left::Open(boot) => format!("{MAGIC} open {boot}\n"),
        Left::Closed(Applied { size, root }) => format!("{MAGIC} closed {size} {root}\n"),
    };
    disk::replace(&folder.join(MARK), text.as_bytes())
}

fn unmark(folder: &Path) -> Result<(), StoreError> {
    disk::remove_if_exists(&folder.join(MARK))?;
    disk::sync_folder(folder)
}

fn read(folder: &Path) -> Result<Option<Left>, StoreError> {
    let bytes = match disk::read_small(&folder.join(MARK), MARK_LIMIT) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidData => None,
        read => read?,
    };
    Ok(bytes.and_then(|bytes| parse(std::str::from_utf8(&bytes).ok()?)))
}

fn parse(text: &str) -> Option<Left> {
    let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
    match words.as_slice() {
        [MAGIC, "open", boot] if !boot.is_empty() => Some(Left::Open((*boot).to_owned())),
        [MAGIC, "closed", size, root] => Some(Left::Closed(Applied {
            size: size.parse().ok()?,
            root: Hash::parse_hash(root).ok()?,
        })),
        _ => None,
    }
}

#[cfg(test)]
#[path = "left_tests.rs"]
mod tests;
