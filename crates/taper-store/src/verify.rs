//! Reading a journal without the store: verify, list, export.
//!
//! It trusts neither sled nor the writer, needs no lock, and may run while the writer does: the
//! checkpoints are read first, so the records behind them can only be more.
//!
//! [`verify_dir`] reads to the end before it says anything. [`read_records`] gives each record as it is
//! met, while that it is the one that was signed shows only when the next checkpoint is reached: who
//! acts on records must have come to the end without an error.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{Head, Heads, PUB_FILE, Trust, parse_origin};
use crate::error::StoreError;
use crate::frame::decode_record;
use crate::journal::{contradiction, ends_early};
use crate::record::{Record, RecordKind};
use crate::repair::EVIDENCE;
use crate::rules;
use crate::segment;
use crate::walk::{Found, Place, Walk};

/// Folders within folders that [`find_journals`] enters.
const MAX_DEPTH: usize = 16;
/// Times that something is read before it is believed to be bad: the writer may be in the middle.
const READS: usize = 5;

/// What [`verify_dir`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The folder.
    pub dir: PathBuf,
    /// The origin line of its checkpoints.
    pub origin: String,
    /// Files that hold its records.
    pub segments: u64,
    /// The number of the first record that is there; 0 unless older ones were dropped.
    pub first: u64,
    /// Good records, from the first on.
    pub records: u64,
    /// Records that the newest checkpoint signs for.
    pub tree_size: u64,
    /// The root computed at that size, base64 as in a checkpoint; `None` when it was not reached.
    pub root: Option<String>,
    /// Every checkpoint but for a torn slot has a good signature and the root that was computed.
    pub checkpoint_ok: bool,
    /// What is wrong with the one bad slot of `journal.head`, while all else is good: a crash within a
    /// commit leaves that, and opening the store heals it. A changed bit looks the same.
    pub torn_slot: Option<String>,
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
    /// Whether everything that was signed is there and as it was, so that the store opens. A torn slot
    /// does not hinder that.
    pub fn is_ok(&self) -> bool {
        self.checkpoint_ok && self.first_bad.is_none()
    }
}

/// Where a journal is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRecord {
    /// The file name of the segment.
    pub segment: String,
    /// The record's number, from 0.
    pub index: u64,
    /// Where it starts in the segment, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

/// A record as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The file name of its segment.
    pub segment: String,
    /// Its number, from 0.
    pub index: u64,
    /// Where it starts in the segment, in bytes.
    pub offset: u64,
    /// The salt of its entry.
    pub salt: [u8; 16],
    /// The exact JSON text; the tree's entry is SHA-256(salt ‖ payload).
    pub payload: String,
    /// The same, read.
    pub record: Record,
}

/// Reads the whole journal in `dir` and checks every frame, every record, every segment and every
/// checkpoint. Damage is part of the report.
///
/// # Errors
/// When there is no journal to read, or the system refuses to read it.
pub fn verify_dir(dir: &Path) -> Result<VerifyReport, StoreError> {
    verify(dir, None)
}

/// As [`verify_dir`], and compares with a checkpoint of the journal that was kept elsewhere: the
/// journal must still have at least as many records, and those up to there must be the ones that were
/// signed then. So a tail that was cut off together with its checkpoints is noticed, and a journal
/// that was written anew with the same key.
///
/// # Errors
/// As [`verify_dir`].
pub fn verify_against(dir: &Path, checkpoint: &[u8]) -> Result<VerifyReport, StoreError> {
    let kept = Trust::load(dir)?.verify(checkpoint);
    let mut report = verify(dir, Some(&kept))?;
    if let Ok(head) = kept
        && head.size < report.first
    {
        report.checkpoint_ok = false;
        report
            .checkpoint_problems
            .push(rules::KEPT_ELSEWHERE.says(format!(
                "the checkpoint kept elsewhere signs for {} records, but those before {} were dropped: \
             keep a newer one",
                head.size, report.first
            )));
    }
    Ok(report)
}

/// Adds a checkpoint that was kept elsewhere to those of the journal.
fn add_kept(heads: &mut Heads, kept: &Result<Head, String>) {
    match kept {
        Ok(head) => {
            let size = heads.size().unwrap_or(0);
            if head.size > size {
                heads.problems.push(rules::KEPT_ELSEWHERE.says(format!(
                    "the checkpoint kept elsewhere signs for {} records, those of the journal for {size}",
                    head.size
                )));
            }
            heads.valid.push(*head);
        }
        Err(reason) => heads
            .problems
            .push(format!("the checkpoint kept elsewhere: {reason}")),
    }
}

fn verify(dir: &Path, kept: Option<&Result<Head, String>>) -> Result<VerifyReport, StoreError> {
    let trust = Trust::load(dir)?;
    let mut attempt = 1;
    loop {
        let begin = segment::list(dir)?.first().copied();
        // Not before: the record that says what was dropped is signed before anything is.
        let mut heads = read_heads(dir, &trust)?;
        if let Some(kept) = kept {
            add_kept(&mut heads, kept);
        }
        let report = verify_once(dir, &trust, &heads)?;
        // The store may drop old records while they are read.
        let moved = segment::list(dir)?.first().copied() != begin;
        if report.is_ok() || !moved || attempt == READS {
            return Ok(report);
        }
        attempt += 1;
    }
}

fn verify_once(dir: &Path, trust: &Trust, heads: &Heads) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport {
        dir: dir.to_path_buf(),
        origin: trust.origin().to_owned(),
        segments: 0,
        first: 0,
        records: 0,
        tree_size: heads.size().unwrap_or(0),
        root: None,
        checkpoint_ok: false,
        torn_slot: heads.torn_slot.clone(),
        checkpoint_problems: heads.problems.clone(),
        uncheckpointed: 0,
        tail_bytes: 0,
        first_bad: None,
    };
    if heads.newest.is_none() {
        report
            .checkpoint_problems
            .push("there is no good checkpoint".into());
    }
    let walk = Walk::start(dir, trust.clone(), report.tree_size);
    check_records(walk, heads, &mut report)?;
    report.checkpoint_ok = report.checkpoint_problems.is_empty() && report.root.is_some();
    Ok(report)
}

/// The records of the journal in `dir` that a checkpoint signs for, in order. If one of them is not
/// there or not as it was signed, the last item is [`StoreError::Damaged`]; then those before it may not
/// be as they were signed either.
///
/// # Errors
/// When there is no journal to read, or no good checkpoint of it.
pub fn read_records(dir: &Path) -> Result<Records, StoreError> {
    let trust = Trust::load(dir)?;
    let mut attempt = 1;
    loop {
        let begin = segment::list(dir)?.first().copied();
        let heads = read_heads(dir, &trust)?;
        let Some(signed) = heads.newest.as_ref().map(|(head, _)| head.size) else {
            return Err(StoreError::untrusted(dir, "there is no good checkpoint"));
        };
        let mut walk = Walk::start(dir, trust.clone(), signed);
        let first = walk.step()?;
        let moved = segment::list(dir)?.first().copied() != begin;
        if moved && attempt < READS {
            // The store just dropped old records, and what says so is signed by a newer checkpoint.
            attempt += 1;
            continue;
        }
        return Ok(Records {
            dir: dir.to_path_buf(),
            walk: Some(walk),
            next: Some(first),
            heads,
            signed,
        });
    }
}

/// The iterator of [`read_records`].
pub struct Records {
    dir: PathBuf,
    walk: Option<Walk>,
    /// What the walk met already.
    next: Option<Found>,
    heads: Heads,
    signed: u64,
}

impl Records {
    fn read(&mut self) -> Result<Option<StoredRecord>, StoreError> {
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        loop {
            let place = walk.place();
            if self.next.is_none() && place.index >= self.signed {
                return match walk.beginning_is_bad() {
                    Some((place, reason)) => Err(place.damaged(&self.dir, reason)),
                    None => Ok(None),
                };
            }
            let found = match self.next.take() {
                Some(found) => found,
                None => walk.step()?,
            };
            let read = match found {
                Found::Segment => None,
                Found::Frame(frame) => {
                    let read = stored(place, frame.salt, frame.payload);
                    Some(read.map_err(|e| place.damaged(&self.dir, e))?)
                }
                Found::Bad(place, reason) => return Err(place.damaged(&self.dir, reason)),
                Found::End => return Err(place.damaged(&self.dir, ends_early(self.signed))),
                Found::Torn(reason) => return Err(place.damaged(&self.dir, reason)),
            };
            if let Some(tree) = walk.tree().filter(|tree| self.heads.contradict(tree)) {
                return Err(place.damaged(&self.dir, contradiction(tree)));
            }
            if read.is_some() {
                return Ok(read);
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose();
        if !matches!(read, Some(Ok(_))) {
            self.walk = None;
        }
        read
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records")
            .field("dir", &self.dir)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}

/// Every folder under `root`, itself included, that has a journal or what is left of one, sorted.
/// Symbolic links are not followed. What a repair set aside is left out, but only beside a journal that
/// says that it took the place of another: a damaged journal is not hidden by its folder's name.
///
/// # Errors
/// When a folder cannot be listed: a journal that was not looked at must not count as verified.
pub fn find_journals(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let is_journal = folder.join(PUB_FILE).exists() || !segment::list(&folder)?.is_empty();
        if is_journal {
            found.push(folder.clone());
        }
        let list = fs::read_dir(&folder).map_err(StoreError::io("list", &folder))?;
        for entry in list {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let kind = entry
                .file_type()
                .map_err(StoreError::io("inspect", &entry.path()))?;
            let name = entry.file_name();
            let is_set_aside = is_journal && is_evidence(&name.to_string_lossy()) && was_repaired(&folder);
            if kind.is_dir() && !is_set_aside && depth < MAX_DEPTH {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a repair gives that name to what it sets aside.
fn is_evidence(name: &str) -> bool {
    let number = name.strip_prefix(EVIDENCE).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit())
}

/// Whether the journal in `dir` took the place of another one: its first record says so, or, once that
/// was dropped, its origin.
fn was_repaired(dir: &Path) -> bool {
    let Some(Ok(first)) = read_records(dir).ok().and_then(|mut records| records.next()) else {
        return false;
    };
    match first.index {
        0 => matches!(first.record.kind, RecordKind::Repaired(_)),
        _ => Trust::load(dir)
            .ok()
            .and_then(|trust| parse_origin(trust.origin()))
            .is_some_and(|(_, generation)| generation > 1),
    }
}

pub(crate) fn read_heads(dir: &Path, trust: &Trust) -> Result<Heads, StoreError> {
    let mut heads = Heads::read(dir, trust)?;
    for _ in 1..READS {
        if heads.problems.is_empty() && heads.torn_slot.is_none() {
            break;
        }
        heads = Heads::read(dir, trust)?;
    }
    Ok(heads)
}

fn check_records(mut walk: Walk, heads: &Heads, report: &mut VerifyReport) -> Result<(), StoreError> {
    let signed = report.tree_size;
    loop {
        let place = walk.place();
        let (place, reason) = match walk.step()? {
            Found::Segment => {
                if report.segments == 0 {
                    report.first = walk.place().index;
                }
                report.segments += 1;
                check_tree(&walk, heads, report);
                continue;
            }
            Found::Frame(frame) => {
                if let Err(e) = decode_record(&frame.payload) {
                    report.first_bad = Some(bad(place, e.to_string()));
                    return Ok(());
                }
                report.records += 1;
                report.uncheckpointed = walk.place().index.saturating_sub(signed);
                check_tree(&walk, heads, report);
                continue;
            }
            Found::Bad(place, reason) => {
                report.first_bad = Some(bad(place, reason));
                return Ok(());
            }
            Found::End if place.index >= signed => return Ok(()),
            Found::End => (place, ends_early(signed)),
            Found::Torn(reason) => (place, reason),
        };
        if place.index < signed {
            report.first_bad = Some(bad(place, reason));
        } else {
            let path = segment::path(&report.dir, place.segment);
            let length = fs::metadata(&path)
                .map_err(StoreError::io("inspect", &path))?
                .len();
            report.tail_bytes = length.saturating_sub(place.offset);
        }
        return Ok(());
    }
}

/// Compares the tree with every checkpoint of its size.
fn check_tree(walk: &Walk, heads: &Heads, report: &mut VerifyReport) {
    let Some(tree) = walk.tree() else { return };
    if tree.size() == report.tree_size && heads.newest.is_some() {
        report.root = Some(tree.root().to_string());
    }
    // The end of a segment is the beginning of the next: the same tree twice.
    if heads.contradict(tree) {
        let problem = contradiction(tree);
        if !report.checkpoint_problems.contains(&problem) {
            report.checkpoint_problems.push(problem);
        }
    }
}

fn bad(place: Place, reason: String) -> BadRecord {
    BadRecord {
        segment: segment::name(place.segment),
        index: place.index,
        offset: place.offset,
        reason,
    }
}

fn stored(place: Place, salt: [u8; 16], payload: Vec<u8>) -> Result<StoredRecord, String> {
    let record = decode_record(&payload).map_err(|e| e.to_string())?;
    let payload = String::from_utf8(payload).map_err(|e| e.to_string())?;
    Ok(StoredRecord {
        segment: segment::name(place.segment),
        index: place.index,
        offset: place.offset,
        salt,
        payload,
        record,
    })
}

#[cfg(test)]
#[path = "forged_tests.rs"]
mod forged;
#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
