//! Going on after damage: the damaged journal is set aside whole, and another one takes its place with
//! everything that is known to be alive.
//!
//! What is known is what the state had included, and the readable records behind that; where there is
//! no state, every readable record. The new journal has a key and an origin of its own, since the old
//! tree cannot go on. Its first record says what was lost. Numbers and history of the feed go on.
//!
//! Everything is prepared beside the store and then moved. From the moment that it is prepared until
//! all of it is moved the store does not open, and another call finishes the work.

use std::path::{Path, PathBuf};

use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, CHECKPOINT_FILE, HEAD_FILE, Heads, KEY_FILE, PUB_FILE, Signer, Trust};
use crate::disk::{self, FolderLock};
use crate::error::StoreError;
use crate::frame::encode_record;
use crate::journal::{self, Journal, LOCK_FILE, Options};
use crate::kept::RepairedRecord;
use crate::record::{Record, RecordKind};
use crate::rules;
use crate::salvage::{Salvaged, salvage};
use crate::segment;
use crate::state::State;
use crate::verify::verify_dir;

/// What a folder of damaged files is called before its number.
pub(crate) const EVIDENCE: &str = "damaged-";
const SCRATCH: &str = "repair.tmp";
/// In the scratch folder: the new journal; that it is whole, with the report; that the old one is away.
const NEW: &str = "new";
const READY: &str = "ready.json";
const MOVED_AWAY: &str = "moved-away";
/// Ranges that the record of a repair lists; the last one stands for the rest.
const RANGES: usize = 1000;
const BATCH: usize = 256;
const CHUNK: usize = 1024;
const REPORT_LIMIT: u64 = 1024 * 1024;

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// The origin line of the damaged journal, if its verifier key could be read.
    pub origin: Option<String>,
    /// Records that it had signed for, as far as that can be known.
    pub size: u64,
    /// Records that could be read, as (first, first that could not).
    pub kept: Vec<(u64, u64)>,
    /// Records that could not, as (first, first that could).
    pub lost: Vec<(u64, u64)>,
    /// The state knows what the records before this one said, lost or not; 0 if it is of no use.
    pub state_size: u64,
    /// Records that carry over what is alive.
    pub carried: u64,
    /// The origin line of the journal that goes on; absent after a dry run.
    pub new_origin: Option<String>,
    /// The folder with the damaged files; absent after a dry run.
    pub evidence: Option<PathBuf>,
}

/// Repairs the store in `dir`, or with `dry_run` says what that would come to and changes nothing.
/// `name` is the journal's name, needed only if `journal.pub` cannot be read.
///
/// # Errors
/// [`StoreError::InUse`] while the store runs, [`StoreError::Intact`] if there is nothing to repair, or
/// when files cannot be read or written.
pub fn repair(
    dir: &Path,
    name: Option<&str>,
    dry_run: bool,
    now_ms: i64,
    rng: &mut dyn CryptoRngCore,
) -> Result<RepairReport, StoreError> {
    let _lock = FolderLock::take(dir, LOCK_FILE)?;
    let scratch = dir.join(SCRATCH);
    if let Some(report) = begun(dir)? {
        return if dry_run {
            Err(unfinished(dir))
        } else {
            finish(dir, report)
        };
    }
    disk::remove_folder(&scratch)?;
    disk::create_empty_folder(&scratch)?;
    if is_intact(dir, &scratch)? {
        disk::remove_folder(&scratch)?;
        return Err(StoreError::Intact {
            path: dir.to_path_buf(),
        });
    }
    let prepared = prepare(dir, &scratch, name, dry_run, now_ms, rng);
    match prepared {
        Ok(report) if !dry_run => finish(dir, report),
        prepared => {
            disk::remove_folder(&scratch)?;
            prepared
        }
    }
}

/// Refuses a store whose repair was begun and not finished.
pub(crate) fn check_finished(dir: &Path) -> Result<(), StoreError> {
    if dir.join(SCRATCH).join(READY).exists() {
        return Err(unfinished(dir));
    }
    Ok(())
}

fn unfinished(dir: &Path) -> StoreError {
    let reason = format!(
        "a repair was begun and not finished; run `taper audit repair --dir {}` again",
        dir.display()
    );
    StoreError::untrusted(dir, rules::UNFINISHED.says(reason))
}

fn begun(dir: &Path) -> Result<Option<RepairReport>, StoreError> {
    let bytes = disk::read_small(&dir.join(SCRATCH).join(READY), REPORT_LIMIT)?;
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes));
    parsed
        .transpose()
        .map_err(|e| StoreError::untrusted(dir, format!("{SCRATCH}/{READY}: {e}")))
}

/// Whether the store opens, with its state and without.
fn is_intact(dir: &Path, scratch: &Path) -> Result<bool, StoreError> {
    let signs = Trust::load(dir).and_then(|trust| Signer::load(dir, &trust));
    if signs.is_err() || !verify_dir(dir).is_ok_and(|report| report.is_ok()) {
        return Ok(false);
    }
    let Ok(end) = journal::end_of(dir) else {
        return Ok(false);
    };
    copy_folder_of_state(dir, scratch)?;
    // Also what a state says that is not believed: the journal must have it.
    let known = State::find(scratch)?.applied();
    disk::remove_folder(&State::folder(scratch))?;
    Ok(journal::check_known(dir, (end.size, end.root), known).is_ok())
}

fn prepare(
    dir: &Path,
    scratch: &Path,
    name: Option<&str>,
    dry_run: bool,
    now_ms: i64,
    rng: &mut dyn CryptoRngCore,
) -> Result<RepairReport, StoreError> {
    let trust = Trust::load(dir).ok();
    let heads = match &trust {
        Some(trust) => Heads::read(dir, trust)?,
        None => Heads::default(),
    };
    let (state, state_size, found) = collect(dir, scratch, trust.as_ref())?;
    let signed = heads.newest.map(|(head, _)| (head.size, head.root));
    let newest = signed
        .into_iter()
        .chain(found.signed)
        .max_by_key(|(size, _)| *size);
    let readable = found.kept.last().map_or(0, |(_, end)| *end);
    let size = newest.map_or(0, |(size, _)| size).max(readable).max(state_size);
    let origin = trust.as_ref().map(|trust| trust.origin().to_owned());
    let mut report = RepairReport {
        origin: origin.clone(),
        size,
        lost: bounded(found.lost(size), size),
        kept: bounded(found.kept, readable),
        state_size,
        carried: 0,
        new_origin: None,
        evidence: None,
    };
    if dry_run {
        state.each(|_| {
            report.carried += 1;
            Ok(())
        })?;
        return Ok(report);
    }
    let (evidence, number) = evidence(dir);
    let (old_name, generation) = match &origin {
        Some(origin) => checkpoint::parse_origin(origin).unwrap_or((String::new(), 1)),
        None => (String::new(), 1),
    };
    let name = name.map_or(old_name, str::to_owned);
    let mut new = NewJournal::create(
        &scratch.join(NEW),
        &name,
        (generation + 1).max(number),
        now_ms,
        rng,
    )?;
    new.add(RecordKind::Repaired(RepairedRecord {
        origin: origin.unwrap_or_default(),
        size,
        root: newest.map(|(_, root)| root.to_string()),
        kept: report.kept.clone(),
        lost: report.lost.clone(),
    }))?;
    state.each(|state| {
        report.carried += 1;
        new.add(RecordKind::Carried { state })
    })?;
    report.new_origin = Some(new.close()?);
    report.evidence = Some(evidence);
    let json = serde_json::to_vec(&report).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    disk::replace(&scratch.join(READY), &json)?;
    Ok(report)
}

/// The store's state, copied into the scratch folder; an empty one if there is none.
fn copy_state(dir: &Path, scratch: &Path) -> Result<State, StoreError> {
    copy_folder_of_state(dir, scratch)?;
    Ok(State::open(scratch)?.0)
}

fn copy_folder_of_state(dir: &Path, scratch: &Path) -> Result<(), StoreError> {
    let from = State::folder(dir);
    if from.exists() {
        disk::copy_folder(&from, &State::folder(scratch))?;
    }
    Ok(())
}

/// What is known, as a state in the scratch folder; up to where the store's own state knew it; and what
/// of the journal could be read.
fn collect(dir: &Path, scratch: &Path, trust: Option<&Trust>) -> Result<(State, u64, Salvaged), StoreError> {
    let mut state = copy_state(dir, scratch)?;
    let mut known = state.applied()?;
    let mut is_foreign = false;
    let found = salvage(dir, trust, known.size, |_, record| {
        is_foreign |= state.contradicts(&record)?;
        Ok(())
    })?;
    if known.size > 0 && (is_foreign || found.root.is_some_and(|root| root != known.root)) {
        // It was made from another journal.
        drop(state);
        disk::remove_folder(&State::folder(scratch))?;
        state = State::open(scratch)?.0;
        known = state.applied()?;
    }
    let mut chunk: Vec<Record> = Vec::new();
    let mut next = 0;
    let include = |chunk: &mut Vec<Record>, next: u64| {
        let records = std::mem::take(chunk);
        state.write(&records, next - records.len() as u64, None)
    };
    let found = salvage(dir, trust, known.size, |index, record| {
        // Older records must not undo what newer ones said.
        if index < known.size {
            return Ok(());
        }
        if index != next || chunk.len() == CHUNK {
            include(&mut chunk, next)?;
        }
        chunk.push(record);
        next = index + 1;
        Ok(())
    })?;
    include(&mut chunk, next)?;
    Ok((state, known.size, found))
}

/// A journal that is being filled.
struct NewJournal<'a> {
    journal: Journal,
    origin: String,
    payloads: Vec<Vec<u8>>,
    now_ms: i64,
    rng: &'a mut dyn CryptoRngCore,
}

impl<'a> NewJournal<'a> {
    fn create(
        dir: &Path,
        name: &str,
        generation: u64,
        now_ms: i64,
        rng: &'a mut dyn CryptoRngCore,
    ) -> Result<Self, StoreError> {
        disk::create_empty_folder(dir)?;
        let lock = FolderLock::take(dir, LOCK_FILE)?;
        let options = Options {
            generation,
            ..Options::default()
        };
        let (journal, _) = Journal::open(dir, name, lock, options, rng)?;
        Ok(Self {
            journal,
            origin: checkpoint::origin(name, generation)?,
            payloads: Vec::new(),
            now_ms,
            rng,
        })
    }

    fn add(&mut self, kind: RecordKind) -> Result<(), StoreError> {
        let record = Record {
            at_ms: self.now_ms,
            kind,
        };
        self.payloads.push(encode_record(&record)?);
        if self.payloads.len() == BATCH {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let payloads = std::mem::take(&mut self.payloads);
        self.journal.commit(&payloads, self.rng)
    }

    fn close(mut self) -> Result<String, StoreError> {
        if !self.payloads.is_empty() {
            self.commit()?;
        }
        self.journal.close()?;
        Ok(self.origin)
    }
}

/// Moves the old files away and the new ones in their place.
fn finish(dir: &Path, report: RepairReport) -> Result<RepairReport, StoreError> {
    let scratch = dir.join(SCRATCH);
    let Some(evidence) = &report.evidence else {
        return Err(StoreError::untrusted(
            dir,
            format!("{SCRATCH}/{READY} is incomplete"),
        ));
    };
    let marker = scratch.join(MOVED_AWAY);
    if !marker.exists() {
        disk::create_folder(evidence)?;
        for name in files(dir)? {
            let (from, to) = (dir.join(&name), evidence.join(&name));
            // What was moved before is the evidence; whatever has the name again was made since.
            if !to.exists() {
                disk::move_file(&from, &to)?;
            } else if from.is_dir() {
                disk::remove_folder(&from)?;
            } else {
                disk::remove_if_exists(&from)?;
            }
        }
        disk::sync_folder(evidence)?;
        disk::sync_folder(dir)?;
        disk::replace(&marker, b"")?;
    }
    let new = scratch.join(NEW);
    for name in files(&new)? {
        disk::move_file(&new.join(&name), &dir.join(&name))?;
    }
    disk::sync_folder(dir)?;
    // At once: before, the store does not open, after, all is in its place.
    disk::move_file(&scratch, &evidence.join(SCRATCH))?;
    disk::sync_folder(dir)?;
    Ok(report)
}

/// The names of the files of a journal and of its state that are in `dir`.
fn files(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = segment::list(dir)?.into_iter().map(segment::name).collect();
    names.extend([HEAD_FILE, CHECKPOINT_FILE, KEY_FILE, PUB_FILE].map(str::to_owned));
    let state = State::folder(dir);
    names.extend(state.file_name().map(|name| name.to_string_lossy().into_owned()));
    names.retain(|name| dir.join(name).exists());
    Ok(names)
}

/// A folder for the damaged files that is not there yet, and its number.
fn evidence(dir: &Path) -> (PathBuf, u64) {
    let mut number = 1;
    loop {
        let folder = dir.join(format!("{EVIDENCE}{number}"));
        if !folder.exists() {
            return (folder, number);
        }
        number += 1;
    }
}

/// At most [`RANGES`] ranges; the last one then goes to the end.
fn bounded(mut ranges: Vec<(u64, u64)>, end: u64) -> Vec<(u64, u64)> {
    if ranges.len() > RANGES {
        ranges.truncate(RANGES);
        if let Some(last) = ranges.last_mut() {
            last.1 = end;
        }
    }
    ranges
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
