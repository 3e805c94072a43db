use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::embedded::{EmbeddedStore, OpenReport, Settings};
use crate::feed::{FeedPosition, History};
use crate::position::{load_position, persist_position, position_file};
use crate::record::tests::{decision, grant};
use crate::revocation::{NewRevocation, RevocationKey};
use crate::traits::{Audit as _, Grants as _, Revocations as _};
use crate::verify::read_records;

fn open(dir: &Path) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    let settings = Settings {
        segment_bytes: 1,
        ..Settings::default()
    };
    EmbeddedStore::open_with(dir, "test", settings, Arc::new(|| 1_700_000_000_000), OsRng)
}

/// Something of every kind.
async fn fill(store: &EmbeddedStore, tag: &str) {
    store.insert_grant(grant(tag)).await.unwrap();
    store
        .revoke(NewRevocation {
            at: 1,
            issuer: "i".into(),
            what: RevocationKey::Grant(tag.into()),
            until: None,
            by: "admin".into(),
        })
        .await
        .unwrap();
    store.append(decision(tag)).await.unwrap();
}

async fn knows(store: &EmbeddedStore, tag: &str) -> bool {
    let key = RevocationKey::Grant(tag.into());
    let revoked = store.is_revoked("i", &[key]).await.unwrap().is_some();
    let granted = store.grant(&grant(tag).issuer, tag).await.unwrap().is_some();
    assert_eq!(revoked, granted);
    revoked
}

fn folders() -> (TempDir, PathBuf, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let paths = (at("store"), at("export"), at("moved"));
    (dir, paths.0, paths.1, paths.2)
}

#[tokio::test]
async fn a_store_moves_while_it_runs_and_the_copy_goes_on() {
    let (_dir, from, out, to) = folders();
    let (store, _) = open(&from).unwrap();
    fill(&store, "a").await;
    let (feed, position) = (
        position_file(&from, "0a"),
        FeedPosition {
            seq: 7,
            history: History([9; 32]),
        },
    );
    persist_position(&feed, "i", position).unwrap();
    let moved = export(&from, &out).unwrap();
    assert_eq!((moved.first, moved.tree_size), (0, 3));
    fill(&store, "b").await;
    store.close().await.unwrap();

    let imported = import(&out, &to).unwrap();
    assert_eq!((imported.replayed, &imported.root), (3, &moved.root));
    let feed = position_file(&to, "0a");
    assert_eq!(
        load_position(&feed, "i").unwrap(),
        position,
        "who goes on knows how far it was"
    );
    for name in [KEY_FILE, HEAD_FILE, &segment::name(0)] {
        let mode = fs::metadata(to.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let (store, report) = open(&to).unwrap();
    assert_eq!((report.created, report.records, report.replayed), (false, 3, 0));
    assert!(
        report.seen_complete_since.is_some(),
        "seen proofs were left behind, and the store knows"
    );
    assert!(knows(&store, "a").await && !knows(&store, "b").await);
    fill(&store, "c").await;
    store.close().await.unwrap();
    assert!(verify_dir(&to).unwrap().is_ok());
    let old: Vec<_> = read_records(&out).unwrap().map(Result::unwrap).collect();
    let new: Vec<_> = read_records(&to).unwrap().map(Result::unwrap).collect();
    assert_eq!(new[..3], old, "byte for byte");
}

#[tokio::test]
async fn nothing_is_moved_onto_something_nor_from_something_bad() {
    let (_dir, from, out, to) = folders();
    let (store, _) = open(&from).unwrap();
    fill(&store, "a").await;
    store.close().await.unwrap();
    drop(store);
    assert!(matches!(export(&from, &from), Err(StoreError::NotEmpty { .. })));
    export(&from, &out).unwrap();
    assert!(matches!(export(&from, &out), Err(StoreError::NotEmpty { .. })));
    assert!(matches!(import(&out, &from), Err(StoreError::NotEmpty { .. })));

    let path = segment::path(&out, 1);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = import(&out, &to).unwrap_err().to_string();
    assert!(said.contains("checksum"), "{said}");
    assert!(!to.exists(), "nothing was begun");
}

#[tokio::test]
async fn a_state_is_rebuilt_from_the_journal_alone() {
    let (_dir, from, _, _) = folders();
    let (store, _) = open(&from).unwrap();
    fill(&store, "a").await;
    assert!(matches!(rebuild(&from), Err(StoreError::InUse { .. })));
    store.close().await.unwrap();
    drop(store);
    fs::write(State::folder(&from).join("db"), "ruined").unwrap();
    assert_eq!(rebuild(&from).unwrap(), 3);
    let (store, report) = open(&from).unwrap();
    assert_eq!((report.replayed, report.state_unreadable), (0, None));
    assert!(knows(&store, "a").await);
    store.close().await.unwrap();
    drop(store);

    fs::remove_file(segment::path(&from, 1)).unwrap();
    let before = fs::read_dir(State::folder(&from)).unwrap().count();
    assert!(matches!(rebuild(&from), Err(StoreError::Damaged { .. })));
    assert_eq!(
        fs::read_dir(State::folder(&from)).unwrap().count(),
        before,
        "the state of a damaged journal is kept"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_beside_constant_retirement_is_good_or_says_that_it_is_not() {
    const EXPORTS: usize = 20;
    let (_dir, from, out, _) = folders();
    let (store, _) = open(&from).unwrap();
    fill(&store, "a").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, base) = (Arc::clone(&stop), from.clone());
    let exports = tokio::task::spawn_blocking(move || {
        let mut good = 0;
        for n in 0..EXPORTS {
            let out = out.with_extension(n.to_string());
            match export(&base, &out) {
                Ok(_) => {
                    let report = verify_dir(&out).unwrap();
                    assert!(report.is_ok(), "export {n}: {report:?}");
                    good += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("dropped faster"), "{error}");
                    assert!(segment::list(&out).unwrap().is_empty());
                }
            }
        }
        stopping.store(true, Ordering::SeqCst);
        good
    });
    let mut retired = 0;
    while !stop.load(Ordering::SeqCst) && !exports.is_finished() {
        for n in 0..3 {
            store.append(decision(&n.to_string())).await.unwrap();
        }
        retired += usize::from(store.retire(i64::MAX).await.unwrap().is_some());
    }
    let good = exports.await.unwrap();
    assert!(
        good > 0 && retired > 0,
        "{good} of {EXPORTS}, {retired} retirements"
    );
}

/// An import that a crash ends while it copies: what is there opens neither as the store nor as a new one.
#[tokio::test]
async fn what_an_import_that_broke_off_leaves_does_not_open() {
    let (_dir, from, out, to) = folders();
    let (store, _) = open(&from).unwrap();
    fill(&store, "a").await;
    store.close().await.unwrap();
    drop(store);
    export(&from, &out).unwrap();
    // Copying stops at the second segment, as if the process had ended there.
    fs::remove_file(segment::path(&out, 1)).unwrap();
    disk::create_empty_folder(&to).unwrap();
    assert!(copy(&out, &to).is_err());
    assert!(to.join(CHECKPOINT_FILE).exists() && segment::path(&to, 0).exists());
    for name in [KEY_FILE, PUB_FILE, HEAD_FILE] {
        assert!(!to.join(name).exists(), "{name}");
    }
    assert!(open(&to).is_err());
    // Nor after the keys, before the head.
    for name in [KEY_FILE, PUB_FILE] {
        fs::copy(out.join(name), to.join(name)).unwrap();
    }
    assert!(open(&to).is_err());
    fs::remove_file(segment::path(&to, 0)).unwrap();
    assert!(open(&to).is_err());
}
