use std::fs;
use std::sync::Arc;

use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::counters::CounterKey;
use crate::embedded::{EmbeddedStore, OpenReport, Settings};
use crate::record::tests::{allowed, decision, grant};
use crate::revocation::{NewRevocation, RevocationKey};
use crate::traits::{Audit as _, CallCounters as _, Grants as _, Revocations as _};
use crate::verify::read_records;

const ISSUER: &str = "https://issuer.example";
const COUNTER: CounterKey = CounterKey {
    branch: [1; 32],
    index: 0,
};

fn open(dir: &Path) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    let settings = Settings {
        segment_bytes: 1500,
        ..Settings::default()
    };
    EmbeddedStore::open_with(dir, "test", settings, Arc::new(|| 1000), OsRng)
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

async fn call(store: &EmbeddedStore) -> u64 {
    let calls = store.reserve(ISSUER, &[COUNTER.into()]).unwrap();
    let value = calls.values()[0];
    store.append_counted(allowed("call"), calls).await.unwrap();
    value
}

/// A closed store with a grant, five revocations, three counted calls and more, in several segments.
async fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    store.insert_grant(grant("g")).await.unwrap();
    for n in 0..5 {
        revoke(&store, &n.to_string()).await;
        store.append(decision(&n.to_string())).await.unwrap();
    }
    for n in 1..4 {
        assert_eq!(call(&store).await, n);
    }
    store.close().await.unwrap();
    dir
}

/// Flips a bit in the middle of a segment.
fn damage(dir: &Path, first: u64) {
    let path = segment::path(dir, first);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() * 3 / 4;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Every file below a folder with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

async fn all_is_known(dir: &Path) {
    let (store, report) = open(dir).unwrap();
    assert!(!report.created);
    assert!(store.grant(&grant("g").issuer, "g").await.unwrap().is_some());
    let page = store.revocations_after(0, 10).await.unwrap();
    assert_eq!(
        page.entries.iter().map(|e| e.seq).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(call(&store).await, 4, "counters go on");
    assert_eq!(call(&store).await, 5);
    assert_eq!(revoke(&store, "new").await, 6, "numbers go on");
    store.close().await.unwrap();
    assert!(verify_dir(dir).unwrap().is_ok());
}

#[tokio::test]
async fn a_damaged_store_goes_on_with_all_that_its_state_knows() {
    let dir = folder().await;
    let history = {
        let (store, _) = open(dir.path()).unwrap();
        let history = store.history_at(5).await.unwrap();
        store.close().await.unwrap();
        history
    };
    let segments = segment::list(dir.path()).unwrap();
    damage(dir.path(), segments[1]);
    let refused = open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("taper audit repair"), "{refused}");

    let before = content(dir.path());
    let dry = repair(dir.path(), None, true, 7, &mut OsRng).unwrap();
    assert_eq!(content(dir.path()), before, "a dry run changes nothing");
    assert_eq!((dry.evidence.as_ref(), dry.new_origin.as_ref()), (None, None));
    assert_eq!((dry.size, dry.state_size), (14, 14));
    assert_eq!(dry.lost.len(), 1, "{dry:?}");

    let done = repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    assert_eq!(
        (&done.lost, &done.kept, done.carried),
        (&dry.lost, &dry.kept, dry.carried)
    );
    assert_eq!(done.new_origin.as_deref(), Some("taper.invalid/journal/test/2"));
    let evidence = done.evidence.unwrap();
    for (path, bytes) in before {
        let name = path.strip_prefix(dir.path()).unwrap();
        if name.to_string_lossy().starts_with("journal-") || name.starts_with("state") {
            assert_eq!(
                fs::read(evidence.join(name)).unwrap(),
                bytes,
                "{}",
                name.display()
            );
        }
    }
    let first = read_records(dir.path()).unwrap().next().unwrap().unwrap().record;
    let RecordKind::Repaired(record) = first.kind else {
        panic!("{first:?}");
    };
    assert_eq!(
        (record.origin.as_str(), record.size),
        ("taper.invalid/journal/test", 14)
    );
    assert_eq!((first.at_ms, record.lost), (7, done.lost));
    all_is_known(dir.path()).await;
    let (store, _) = open(dir.path()).unwrap();
    assert_eq!(store.history_at(5).await.unwrap(), history, "the history goes on");
    store.close().await.unwrap();
    drop(store);
    let again = repair(dir.path(), None, false, 7, &mut OsRng);
    assert!(matches!(again, Err(StoreError::Intact { .. })), "{again:?}");

    damage(dir.path(), 0);
    let twice = repair(dir.path(), None, false, 8, &mut OsRng).unwrap();
    assert_eq!(twice.new_origin.as_deref(), Some("taper.invalid/journal/test/3"));
    assert_ne!(twice.evidence, Some(evidence));
}

#[tokio::test]
async fn without_a_state_what_can_be_read_is_what_is_known() {
    let dir = folder().await;
    fs::remove_dir_all(State::folder(dir.path())).unwrap();
    fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    let done = repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    assert_eq!((done.state_size, done.lost.len()), (0, 0), "{done:?}");
    all_is_known(dir.path()).await;
}

#[tokio::test]
async fn a_journal_that_is_gone_is_no_new_store_and_the_state_saves_it() {
    let dir = folder().await;
    for name in files(dir.path()).unwrap() {
        if name != "state" {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
    let refused = open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("its files are gone"), "{refused}");
    assert!(matches!(
        repair(dir.path(), None, false, 7, &mut OsRng),
        Err(StoreError::Name(_))
    ));
    let done = repair(dir.path(), Some("test"), false, 7, &mut OsRng).unwrap();
    assert_eq!((done.origin, done.lost), (None, vec![(0, 14)]));
    all_is_known(dir.path()).await;
}

#[tokio::test]
async fn a_foreign_state_is_of_no_use() {
    let (dir, other) = (folder().await, folder().await);
    let path = segment::path(dir.path(), *segment::list(dir.path()).unwrap().last().unwrap());
    // The checkpoint in the slots is damaged, the records are not.
    fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    assert!(path.exists());
    disk::remove_folder(&State::folder(dir.path())).unwrap();
    fs::rename(State::folder(other.path()), State::folder(dir.path())).unwrap();
    let done = repair(dir.path(), None, false, 7, &mut OsRng).unwrap();
    assert_eq!(done.state_size, 0);
    all_is_known(dir.path()).await;
}

/// A crash at any step of the moves: the store does not open, and another call finishes.
#[tokio::test]
async fn a_repair_that_broke_off_is_finished() {
    for step in 0..5 {
        let dir = folder().await;
        damage(dir.path(), segment::list(dir.path()).unwrap()[1]);
        let scratch = dir.path().join(SCRATCH);
        disk::create_empty_folder(&scratch).unwrap();
        let report = prepare(dir.path(), &scratch, None, false, 7, &mut OsRng).unwrap();
        let evidence = report.evidence.clone().unwrap();
        let (old, new) = (files(dir.path()).unwrap(), scratch.join(NEW));
        let away = match step {
            0 => 0,
            1 => 3,
            _ => old.len(),
        };
        disk::create_folder(&evidence).unwrap();
        for name in old.iter().take(away) {
            disk::move_file(&dir.path().join(name), &evidence.join(name)).unwrap();
        }
        // At step 4 all is away, and nothing says so yet.
        if [2, 3].contains(&step) {
            fs::write(scratch.join(MOVED_AWAY), "").unwrap();
        }
        if step == 3 {
            let name = files(&new).unwrap().remove(0);
            disk::move_file(&new.join(&name), &dir.path().join(&name)).unwrap();
        }
        for refused in [
            open(dir.path()).map(drop).unwrap_err(),
            repair(dir.path(), None, true, 7, &mut OsRng)
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(
                refused.to_string().contains("not finished"),
                "step {step}: {refused}"
            );
        }
        assert_eq!(
            State::folder(dir.path()).exists(),
            away < old.len(),
            "step {step}"
        );
        if step == 4 {
            drop(State::open(dir.path()).unwrap());
        }
        assert_eq!(
            repair(dir.path(), None, false, 7, &mut OsRng).unwrap(),
            report,
            "step {step}"
        );
        all_is_known(dir.path()).await;
    }
}

#[test]
fn many_ranges_are_few_in_the_record() {
    let ranges: Vec<(u64, u64)> = (0..2000).map(|n| (n * 2, n * 2 + 1)).collect();
    let few = bounded(ranges.clone(), 4000);
    assert_eq!((few.len(), few.last()), (RANGES, Some(&(1998, 4000))));
    assert_eq!(bounded(ranges[..3].to_vec(), 4000), ranges[..3]);
}
