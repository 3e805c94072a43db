//! Opening beside a state that knows more than the journal has, and with head files that are not as the
//! store left them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::{CHECKPOINT_FILE, HEAD_FILE};
use crate::kept::RetiredRecord;
use crate::moves::{import, rebuild};
use crate::record::tests::decision;
use crate::repair::repair;
use crate::segment;
use crate::verify::{VerifyReport, verify_dir};

const ISSUER: &str = "https://issuer.example";

fn open(dir: &Path) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    let settings = Settings {
        segment_bytes: 1500,
        ..Settings::default()
    };
    EmbeddedStore::open_with(dir, "test", settings, Arc::new(|| 0), OsRng)
}

async fn fill(store: &EmbeddedStore, count: usize) {
    for n in 0..count {
        store.append(decision(&n.to_string())).await.unwrap();
    }
}

async fn revoke(store: &EmbeddedStore, id: &str) -> u64 {
    let revocation = NewRevocation {
        at: 1,
        issuer: ISSUER.into(),
        what: RevocationKey::Grant(id.into()),
        until: None,
        by: "admin".into(),
    };
    store.revoke(revocation).await.unwrap()
}

async fn is_revoked(store: &EmbeddedStore, id: &str) -> bool {
    let key = RevocationKey::Grant(id.into());
    store.is_revoked(ISSUER, &[key]).await.unwrap().is_some()
}

fn refused(dir: &Path) -> String {
    open(dir).map(drop).unwrap_err().to_string()
}

/// Twelve decisions, a revocation, twelve decisions, in several segments; closed.
async fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    fill(&store, 12).await;
    revoke(&store, "g1").await;
    fill(&store, 12).await;
    store.close().await.unwrap();
    dir
}

/// Puts the signed note of the newest segment that begins before the revocation into the head files.
/// Returns the beginning of that segment.
fn turn_back_heads(dir: &Path) -> u64 {
    let segments = segment::list(dir).unwrap();
    let target = *segments.iter().rfind(|first| **first <= 12).unwrap();
    assert!(target > 0 && Some(&target) != segments.last());
    let bytes = fs::read(segment::path(dir, target)).unwrap();
    let note = segment::read(&mut bytes.as_slice()).unwrap().note;
    fs::write(dir.join(HEAD_FILE), checkpoint::both_slots(&note).unwrap()).unwrap();
    fs::write(dir.join(CHECKPOINT_FILE), &note).unwrap();
    target
}

/// Cuts the journal back to what was signed before the revocation: it contradicts nothing of itself.
fn cut_back(dir: &Path) -> u64 {
    let target = turn_back_heads(dir);
    for first in segment::list(dir).unwrap() {
        if first >= target {
            fs::remove_file(segment::path(dir, first)).unwrap();
        }
    }
    assert!(verify_dir(dir).unwrap().is_ok(), "the files alone do not show it");
    target
}

fn slots(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(HEAD_FILE)).unwrap()
}

/// Where the slot with the newer note begins, then the other.
fn newer_first(slots: &[u8]) -> [usize; 2] {
    let size = |at: usize| {
        let text = String::from_utf8_lossy(&slots[at..at + 200]).into_owned();
        text.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    if size(0) > size(4096) {
        [0, 4096]
    } else {
        [4096, 0]
    }
}

#[tokio::test]
async fn a_journal_that_was_cut_back_is_refused_after_another_boot_as_well() {
    let dir = folder().await;
    let target = cut_back(dir.path());
    let mark = State::folder(dir.path()).join("taper.mark");
    fs::write(mark, "taper-state-1 open another-boot\n").unwrap();
    for _ in 0..2 {
        let said = refused(dir.path());
        let sizes = format!("the state knows 25 records, the journal has {target}");
        assert!(said.contains(&sizes) && said.contains("A-18"), "{said}");
    }
    // The state is not believed, so nothing of it is carried over; but it is said what is gone.
    let dry = repair(dir.path(), None, true, 7, &mut OsRng).unwrap();
    assert_eq!(dry.state_size, 0);
    rebuild(dir.path()).unwrap();
    assert!(
        !is_revoked(&open(dir.path()).unwrap().0, "g1").await,
        "the explicit way"
    );
}

#[tokio::test]
async fn a_journal_that_was_cut_back_is_refused_and_repair_goes_on_with_what_the_state_knows() {
    let dir = folder().await;
    let target = cut_back(dir.path());
    let before = (slots(dir.path()), segment::list(dir.path()).unwrap());
    for _ in 0..2 {
        let said = refused(dir.path());
        let sizes = format!("the state knows 25 records, the journal has {target}");
        assert!(said.contains(&sizes) && said.contains("A-18"), "{said}");
        assert!(
            said.contains("audit repair") && said.contains("store rebuild"),
            "{said}"
        );
    }
    assert_eq!(
        before,
        (slots(dir.path()), segment::list(dir.path()).unwrap()),
        "nothing is signed anew"
    );
    let dry = repair(dir.path(), None, true, 7, &mut OsRng).unwrap();
    assert_eq!((dry.state_size, dry.size, dry.lost), (25, 25, vec![(target, 25)]));
    repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    let (store, _) = open(dir.path()).unwrap();
    assert!(is_revoked(&store, "g1").await);
    assert_eq!(revoke(&store, "g2").await, 2, "numbers go on");
}

#[tokio::test]
async fn a_rebuild_accepts_the_shorter_journal() {
    let dir = folder().await;
    let target = cut_back(dir.path());
    assert!(refused(dir.path()).contains("A-18"));
    assert_eq!(rebuild(dir.path()).unwrap(), target);
    let (store, report) = open(dir.path()).unwrap();
    assert_eq!((report.records, report.replayed), (target, 0));
    assert!(!is_revoked(&store, "g1").await, "it was asked for");
}

#[tokio::test]
async fn a_journal_of_as_many_other_records_is_refused() {
    let (dir, other) = (folder().await, folder().await);
    let state = State::folder(dir.path());
    disk::remove_folder(&state).unwrap();
    fs::rename(State::folder(other.path()), &state).unwrap();
    let said = refused(dir.path());
    assert!(
        said.contains("25 that are others") && said.contains("A-18"),
        "{said}"
    );
    assert!(
        repair(dir.path(), None, true, 7, &mut OsRng).is_ok(),
        "not intact"
    );
    assert_eq!(rebuild(dir.path()).unwrap(), 25);
    let (store, _) = open(dir.path()).unwrap();
    assert!(is_revoked(&store, "g1").await);
}

#[tokio::test]
async fn a_larger_state_of_another_journal_does_not_take_the_place_of_the_records() {
    let (dir, other) = (folder().await, tempfile::tempdir().unwrap());
    let (store, _) = open(other.path()).unwrap();
    revoke(&store, "theirs").await;
    fill(&store, 40).await;
    store.close().await.unwrap();
    drop(store);
    let state = State::folder(dir.path());
    disk::remove_folder(&state).unwrap();
    fs::rename(State::folder(other.path()), &state).unwrap();
    assert!(refused(dir.path()).contains("A-18"));
    let done = repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    assert_eq!((done.state_size, done.lost), (0, Vec::new()));
    let (store, _) = open(dir.path()).unwrap();
    assert!(is_revoked(&store, "g1").await && !is_revoked(&store, "theirs").await);
}

#[tokio::test]
async fn the_last_record_does_not_vanish_with_the_slot_that_signs_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (store, _) = EmbeddedStore::open(dir, "test", Arc::new(|| 0), OsRng).unwrap();
    let published = fs::read(dir.join(CHECKPOINT_FILE)).unwrap();
    fill(&store, 4).await;
    let log = segment::path(dir, 0);
    let before = fs::metadata(&log).unwrap().len();
    revoke(&store, "g1").await;
    store.close().await.unwrap();
    drop(store);
    // As if the store had been killed: without the checkpoint that closing publishes.
    fs::write(dir.join(CHECKPOINT_FILE), published).unwrap();
    let mut bad = slots(dir);
    let at = newer_first(&bad)[0];
    bad[at..at + 1024].fill(0);
    fs::write(dir.join(HEAD_FILE), bad).unwrap();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.set_len(before).unwrap();
    let said = refused(dir);
    assert!(
        said.contains("the state knows 5 records, the journal has 4"),
        "{said}"
    );
}

#[tokio::test]
async fn head_files_that_are_older_than_the_newest_segment_are_refused() {
    let dir = folder().await;
    turn_back_heads(dir.path());
    let report = verify_dir(dir.path()).unwrap();
    assert!(
        !report.is_ok() && report.checkpoint_problems[0].contains("A-19"),
        "{report:?}"
    );
    assert!(refused(dir.path()).contains("A-19"));
    fs::remove_dir_all(State::folder(dir.path())).unwrap();
    assert!(refused(dir.path()).contains("A-19"), "also without a state");
    repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    let (store, _) = open(dir.path()).unwrap();
    assert!(is_revoked(&store, "g1").await);
}

#[tokio::test]
async fn a_torn_slot_is_told_and_healed_and_is_nothing_to_repair() {
    let dir = folder().await;
    let whole = slots(dir.path());
    let to = tempfile::tempdir().unwrap();
    for at in newer_first(&whole) {
        let mut torn = whole.clone();
        torn[at + 20..at + 600].fill(0);
        fs::write(dir.path().join(HEAD_FILE), torn).unwrap();
        let report = verify_dir(dir.path()).unwrap();
        assert!(report.torn_slot.is_some() && report.is_ok(), "{report:?}");
        for dry in [true, false] {
            let answer = repair(dir.path(), None, dry, 7, &mut OsRng);
            assert!(matches!(answer, Err(StoreError::Intact { .. })), "{answer:?}");
        }
        let moved = import(dir.path(), &to.path().join(at.to_string())).unwrap();
        assert_eq!(moved.tree_size, 25);
        let (store, report) = open(dir.path()).unwrap();
        assert_eq!((report.records, report.dropped_bytes), (25, 0));
        assert!(is_revoked(&store, "g1").await);
        store.close().await.unwrap();
        let healed = VerifyReport {
            torn_slot: None,
            ..verify_dir(dir.path()).unwrap()
        };
        assert_eq!(verify_dir(dir.path()).unwrap(), healed);
    }
}

#[tokio::test]
async fn an_older_state_and_a_retirement_that_broke_off_open_at_once() {
    let (dir, spare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let (store, _) = open(dir).unwrap();
    revoke(&store, "g1").await;
    fill(&store, 1).await;
    store.close().await.unwrap();
    drop(store);
    disk::copy_folder(&State::folder(dir), &State::folder(spare.path())).unwrap();
    let (store, _) = open(dir).unwrap();
    fill(&store, 20).await;
    let segments = segment::list(dir).unwrap();
    let end = *segments.last().unwrap();
    store.carry_names(vec![]).await.unwrap();
    let bytes = fs::read(segment::path(dir, end)).unwrap();
    let root = segment::read(&mut bytes.as_slice()).unwrap().tree.root().0;
    let retired = RetiredRecord { first: 0, end, root };
    store.note(RecordKind::Retired(retired)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    disk::remove_folder(&State::folder(dir)).unwrap();
    fs::rename(State::folder(spare.path()), State::folder(dir)).unwrap();
    let (store, report) = open(dir).unwrap();
    assert!(
        report.replayed > 0 && is_revoked(&store, "g1").await,
        "{report:?}"
    );
    assert_eq!(segment::list(dir).unwrap()[0], end, "what was retired is dropped");
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_header_of_a_segment_alone_is_no_checkpoint_to_read_or_copy_by() {
    let dir = folder().await;
    for name in [HEAD_FILE, CHECKPOINT_FILE] {
        fs::write(dir.path().join(name), "nothing").unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let read = crate::verify::read_records(dir.path()).map(drop);
    let copied = crate::moves::export(dir.path(), out.path()).map(drop);
    for answer in [read, copied] {
        let said = answer.unwrap_err().to_string();
        assert!(said.contains("no good checkpoint"), "{said}");
    }
    assert!(!verify_dir(dir.path()).unwrap().is_ok());
}
