//! What somebody can do who may write the folder but has no key.

use std::path::Path;
use std::sync::Arc;

use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::CHECKPOINT_FILE;
use crate::embedded::{EmbeddedStore, OpenReport, Settings};
use crate::frame::{self, encode_record};
use crate::kept::RetiredRecord;
use crate::moves::{export, rebuild};
use crate::receipt::{Which, receipt};
use crate::record::RecordKind;
use crate::record::tests::decision;
use crate::revocation::{NewRevocation, RevocationKey};
use crate::state::State;
use crate::traits::{Audit as _, Revocations as _};

const ISSUER: &str = "https://issuer.example";

fn open(dir: &Path) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    let settings = Settings {
        segment_bytes: 1500,
        ..Settings::default()
    };
    EmbeddedStore::open_with(dir, "test", settings, Arc::new(|| 0), OsRng)
}

/// A closed store that revoked `g1` and then made `count` decisions.
async fn folder(count: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    let revocation = NewRevocation {
        at: 1,
        issuer: ISSUER.into(),
        what: RevocationKey::Grant("g1".into()),
        until: None,
        by: "admin".into(),
    };
    store.revoke(revocation).await.unwrap();
    for n in 0..count {
        store.append(decision(&n.to_string())).await.unwrap();
    }
    store.close().await.unwrap();
    dir
}

/// Appends a whole frame to the newest segment.
fn forge(dir: &Path, index: u64, kind: RecordKind) {
    let newest = *segment::list(dir).unwrap().last().unwrap();
    let path = segment::path(dir, newest);
    let mut bytes = fs::read(&path).unwrap();
    let payload = encode_record(&Record { at_ms: 0, kind }).unwrap();
    frame::encode(index, &[0; 16], &payload, &mut bytes).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_record_behind_the_newest_checkpoint_is_never_signed_nor_shown() {
    let dir = folder(4).await;
    let dir = dir.path();
    let kept = fs::read(dir.join(CHECKPOINT_FILE)).unwrap();
    let forged = Which::Decision("FORGED".into());
    forge(dir, 5, decision("FORGED").kind);
    let report = verify_dir(dir).unwrap();
    assert!(report.is_ok());
    assert_eq!((report.tree_size, report.uncheckpointed), (5, 1));
    assert_eq!(read_records(dir).unwrap().count(), 5);
    assert!(matches!(receipt(dir, &forged), Err(StoreError::NoSuchRecord(_))));
    assert_eq!(rebuild(dir).unwrap(), 5);

    let (store, report) = open(dir).unwrap();
    assert_eq!(report.records, 5);
    assert!(report.dropped_bytes > 0);
    store.append(decision("mine")).await.unwrap();
    store.close().await.unwrap();
    assert!(verify_against(dir, &kept).unwrap().is_ok());
    assert!(matches!(receipt(dir, &forged), Err(StoreError::NoSuchRecord(_))));
    receipt(dir, &Which::Decision("mine".into())).unwrap();
}

#[tokio::test]
async fn records_are_not_dropped_by_who_cannot_sign() {
    let dir = folder(20).await;
    let dir = dir.path();
    let segments = segment::list(dir).unwrap();
    let newest = *segments.last().unwrap();
    let bytes = fs::read(segment::path(dir, newest)).unwrap();
    let root = segment::read(&mut bytes.as_slice()).unwrap().tree.root().0;
    let retired = RetiredRecord {
        first: 0,
        end: newest,
        root,
    };
    forge(dir, 21, RecordKind::Retired(retired));
    for first in &segments[..segments.len() - 1] {
        fs::remove_file(segment::path(dir, *first)).unwrap();
    }
    fs::remove_dir_all(State::folder(dir)).unwrap();
    let expected = "no signed record says that they were dropped";
    let bad = verify_dir(dir).unwrap().first_bad.unwrap();
    assert!(bad.reason.contains(expected), "{bad:?}");
    let last = read_records(dir).unwrap().last().unwrap().unwrap_err();
    assert!(last.to_string().contains(expected), "{last}");
    let refused = open(dir).map(drop).unwrap_err().to_string();
    assert!(refused.contains(expected), "{refused}");
    let out = tempfile::tempdir().unwrap();
    assert!(export(dir, &out.path().join("export")).is_err());
}

/// A record that was signed, but says something else about what went.
#[tokio::test]
async fn what_was_dropped_has_the_root_of_what_is_left() {
    for right in [true, false] {
        let dir = folder(20).await;
        let dir = dir.path();
        let end = segment::list(dir).unwrap()[2];
        let bytes = fs::read(segment::path(dir, end)).unwrap();
        let mut root = segment::read(&mut bytes.as_slice()).unwrap().tree.root().0;
        root[0] ^= u8::from(!right);
        let (store, _) = open(dir).unwrap();
        let retired = RetiredRecord { first: 0, end, root };
        store.note(RecordKind::Retired(retired)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        for first in segment::list(dir)
            .unwrap()
            .into_iter()
            .filter(|first| *first < end)
        {
            fs::remove_file(segment::path(dir, first)).unwrap();
        }
        assert_eq!(verify_dir(dir).unwrap().is_ok(), right);
        assert_eq!(open(dir).is_ok(), right);
    }
}

#[tokio::test]
async fn changed_records_with_right_checksums_end_in_an_error() {
    for count in [0, 20] {
        let dir = folder(count).await;
        let dir = dir.path();
        let newest = *segment::list(dir).unwrap().last().unwrap();
        let path = segment::path(dir, newest);
        let bytes = fs::read(&path).unwrap();
        let length = segment::read(&mut bytes.as_slice()).unwrap().length;
        let mut changed = bytes[..usize::try_from(length).unwrap()].to_vec();
        let all: Vec<_> = read_records(dir).unwrap().map(Result::unwrap).collect();
        for stored in all.iter().filter(|stored| stored.index >= newest) {
            let other = stored.payload.replacen("\"at_ms\":", "\"at_ms\":9", 1);
            frame::encode(stored.index, &stored.salt, other.as_bytes(), &mut changed).unwrap();
        }
        fs::write(&path, changed).unwrap();
        let read: Vec<_> = read_records(dir).unwrap().collect();
        let (last, before) = read.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok));
        let said = last.as_ref().unwrap_err().to_string();
        assert!(said.contains("not the ones that were signed"), "{said}");
        assert!(receipt(dir, &Which::Decision("0".into())).is_err());
    }
}

#[tokio::test]
async fn without_a_good_checkpoint_no_record_is_shown() {
    let dir = folder(2).await;
    for name in [crate::checkpoint::HEAD_FILE, CHECKPOINT_FILE] {
        fs::write(dir.path().join(name), "nothing").unwrap();
    }
    assert!(matches!(
        read_records(dir.path()),
        Err(StoreError::Untrusted { .. })
    ));
}
