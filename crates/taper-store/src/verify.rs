//! Reading a journal without the store: verify, list, export.
//!
//! It trusts neither sled nor the writer, needs no lock, and may run while the writer does: the
//! checkpoints are read first, so the records behind them can only be more.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{Heads, PUB_FILE, Trust};
use crate::error::StoreError;
use crate::frame::{FrameReader, Step, decode_record};
use crate::journal::LOG_FILE;
use crate::record::Record;
use crate::tree::{self, Tree};

/// Folders within folders that [`find_journals`] enters.
const MAX_DEPTH: usize = 16;
/// Times that checkpoints are read before a bad one is believed: the writer may be in the middle.
const HEAD_READS: usize = 5;

/// What [`verify_dir`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The folder.
    pub dir: PathBuf,
    /// The origin line of its checkpoints.
    pub origin: String,
    /// Good records, from the first on.
    pub records: u64,
    /// Records that the newest checkpoint signs for.
    pub tree_size: u64,
    /// The root computed at that size, base64 as in a checkpoint; `None` when it was not reached.
    pub root: Option<String>,
    /// Every checkpoint has a good signature and the root that was computed.
    pub checkpoint_ok: bool,
    /// What is wrong with checkpoints.
    pub checkpoint_problems: Vec<String>,
    /// Good records behind the newest checkpoint: being written just now, or never acknowledged.
    pub uncheckpointed: u64,
    /// Bytes behind the last good record that are no record yet, and were never acknowledged.
    pub tail_bytes: u64,
    /// The first record that is not as it was acknowledged.
    pub first_bad: Option<BadRecord>,
}

impl VerifyReport {
    /// Whether everything that was acknowledged is there and as it was.
    pub fn is_ok(&self) -> bool {
        self.checkpoint_ok && self.first_bad.is_none()
    }
}

/// Where a journal is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRecord {
    /// The record's number, from 0.
    pub index: u64,
    /// Where it starts in `journal.log`, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

/// A record as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number, from 0.
    pub index: u64,
    /// Where it starts in `journal.log`, in bytes.
    pub offset: u64,
    /// The salt of its entry.
    pub salt: [u8; 16],
    /// The exact JSON text; the tree's entry is SHA-256(salt ‖ payload).
    pub payload: String,
    /// The same, read.
    pub record: Record,
}

/// Reads the whole journal in `dir` and checks every frame, every record, every checkpoint. Damage
/// is part of the report.
///
/// # Errors
/// When there is no journal to read, or the system refuses to read it.
pub fn verify_dir(dir: &Path) -> Result<VerifyReport, StoreError> {
    let trust = Trust::load(dir)?;
    let heads = read_heads(dir, &trust)?;
    let tree_size = heads.size().unwrap_or(0);
    let mut report = VerifyReport {
        dir: dir.to_path_buf(),
        origin: trust.origin().to_owned(),
        records: 0,
        tree_size,
        root: None,
        checkpoint_ok: false,
        checkpoint_problems: heads.problems.clone(),
        uncheckpointed: 0,
        tail_bytes: 0,
        first_bad: None,
    };
    if heads.valid.is_empty() {
        report
            .checkpoint_problems
            .push("there is no good checkpoint".into());
    }
    let bad = |index, offset, reason: String| {
        Some(BadRecord {
            index,
            offset,
            reason,
        })
    };
    let path = dir.join(LOG_FILE);
    match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            report.first_bad = bad(0, 0, "journal.log is missing".into());
        }
        Err(e) => return Err(StoreError::io("open", &path)(e)),
        Ok(log) => match FrameReader::new(BufReader::new(log)).map_err(StoreError::io("read", &path))? {
            Err(reason) => report.first_bad = bad(0, 0, reason.into()),
            Ok(frames) => check_frames(&path, frames, &heads, &mut report)?,
        },
    }
    report.checkpoint_ok = report.checkpoint_problems.is_empty() && report.root.is_some();
    Ok(report)
}

/// The records of the journal in `dir`, in order. The iterator ends after the last good record; if
/// that is before the newest checkpoint it yields [`StoreError::Damaged`] last.
///
/// # Errors
/// When there is no journal to read.
pub fn read_records(dir: &Path) -> Result<Records, StoreError> {
    let trust = Trust::load(dir)?;
    let signed = read_heads(dir, &trust)?.size().unwrap_or(0);
    let path = dir.join(LOG_FILE);
    let log = File::open(&path).map_err(StoreError::io("open", &path))?;
    let frames = FrameReader::new(BufReader::new(log)).map_err(StoreError::io("read", &path))?;
    let frames = frames.map_err(|reason| StoreError::Damaged {
        path: dir.to_path_buf(),
        index: 0,
        offset: 0,
        reason: reason.to_owned(),
    })?;
    Ok(Records {
        dir: dir.to_path_buf(),
        frames: Some(frames),
        signed,
    })
}

/// The iterator of [`read_records`].
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
    frames: Option<FrameReader<BufReader<File>>>,
    signed: u64,
}

impl Iterator for Records {
    type Item = Result<StoredRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frames = self.frames.as_mut()?;
        let (index, offset) = (frames.index(), frames.offset());
        let damaged = |reason: String| {
            Some(Err(StoreError::Damaged {
                path: self.dir.clone(),
                index,
                offset,
                reason,
            }))
        };
        let reason = match frames.step() {
            Ok(Step::Frame(frame)) => match stored(index, offset, frame.salt, frame.payload) {
                Ok(record) => return Some(Ok(record)),
                Err(reason) => {
                    self.frames = None;
                    return damaged(reason);
                }
            },
            Ok(Step::End | Step::Torn) => {
                format!("the file ends here, but {} records were signed", self.signed)
            }
            Ok(Step::Bad(reason)) => reason.to_owned(),
            Err(e) => {
                self.frames = None;
                return Some(Err(StoreError::io("read", &self.dir.join(LOG_FILE))(e)));
            }
        };
        self.frames = None;
        if index < self.signed {
            damaged(reason)
        } else {
            None
        }
    }
}

/// Every folder under `root`, itself included, that has a journal or what is left of one, sorted.
/// Symbolic links are not followed.
///
/// # Errors
/// When a folder cannot be listed: a journal that was not looked at must not count as verified.
pub fn find_journals(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if [LOG_FILE, PUB_FILE].iter().any(|name| folder.join(name).exists()) {
            found.push(folder.clone());
        }
        let list = fs::read_dir(&folder).map_err(StoreError::io("list", &folder))?;
        for entry in list {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let kind = entry
                .file_type()
                .map_err(StoreError::io("inspect", &entry.path()))?;
            if kind.is_dir() && depth < MAX_DEPTH {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_heads(dir: &Path, trust: &Trust) -> Result<Heads, StoreError> {
    let mut heads = Heads::read(dir, trust)?;
    for _ in 1..HEAD_READS {
        if heads.problems.is_empty() {
            break;
        }
        heads = Heads::read(dir, trust)?;
    }
    Ok(heads)
}

fn check_frames(
    path: &Path,
    mut frames: FrameReader<BufReader<File>>,
    heads: &Heads,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let mut tree = Tree::default();
    loop {
        let (index, offset) = (frames.index(), frames.offset());
        let bad = |reason: String| {
            Some(BadRecord {
                index,
                offset,
                reason,
            })
        };
        if index == report.tree_size && !heads.valid.is_empty() {
            report.root = Some(tree.root().to_string());
        }
        if heads.contradict(&tree) {
            let problem = format!("the first {index} records are not the ones that were signed");
            report.checkpoint_problems.push(problem);
        }
        let signed = report.tree_size;
        let reason = match frames.step().map_err(StoreError::io("read", path))? {
            Step::Frame(frame) => {
                tree.push(&tree::entry(&frame.salt, &frame.payload));
                if let Err(e) = decode_record(&frame.payload) {
                    report.first_bad = bad(e.to_string());
                    return Ok(());
                }
                report.records += 1;
                report.uncheckpointed = report.records.saturating_sub(signed);
                continue;
            }
            Step::End => {
                if index < signed {
                    report.first_bad = bad(format!("the file ends here, but {signed} records were signed"));
                }
                return Ok(());
            }
            Step::Torn => format!("the file ends within the record, but {signed} records were signed"),
            Step::Bad(reason) => reason.to_owned(),
        };
        if index < signed {
            report.first_bad = bad(reason);
        } else {
            let length = fs::metadata(path).map_err(StoreError::io("inspect", path))?.len();
            report.tail_bytes = length.saturating_sub(offset);
        }
        return Ok(());
    }
}

fn stored(index: u64, offset: u64, salt: [u8; 16], payload: Vec<u8>) -> Result<StoredRecord, String> {
    let record = decode_record(&payload).map_err(|e| e.to_string())?;
    let payload = String::from_utf8(payload).map_err(|e| e.to_string())?;
    Ok(StoredRecord {
        index,
        offset,
        salt,
        payload,
        record,
    })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
