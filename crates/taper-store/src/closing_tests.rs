//! The end of a store, and what the next start believes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use super::tests::{key, open, revocation};
use super::*;
use crate::moves::rebuild;
use crate::record::tests::{decision, grant};
use crate::verify::read_records;

#[tokio::test]
async fn what_was_taken_before_the_end_is_written() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path()).unwrap();
        let store = Arc::new(store);
        let (began, has_begun) = std_mpsc::channel();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (store, began) = (Arc::clone(&store), began.clone());
                std::thread::spawn(move || {
                    let mut taken = 0;
                    loop {
                        match store.append_later(decision("d")) {
                            Ok(()) => taken += 1,
                            Err(StoreError::QueueFull) => std::thread::yield_now(),
                            Err(StoreError::Closed) => return taken,
                            Err(error) => panic!("{error}"),
                        }
                        let _ = began.send(());
                    }
                })
            })
            .collect();
        has_begun.recv().unwrap();
        // It ends, although the records do not.
        store.close().await.unwrap();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(read_records(dir.path()).unwrap().count(), taken);
        assert_eq!(store.later_waiting(), 0);
    }
}

/// Between two steps of one who hands a record in, the writer may take it: then it wakes to nothing, and has
/// to hear of the next one all the same.
#[tokio::test]
async fn a_wake_that_comes_too_late_is_not_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    store.later.woken().store(true, Ordering::SeqCst);
    store.commands.send(Command::Wake).await.unwrap();
    let forgotten = async {
        while store.later.woken().load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    assert!(tokio::time::timeout(patience, forgotten).await.is_ok());
    store.append_later(decision("d")).unwrap();
    let written = async {
        while store.later_waiting() > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(patience, written).await.is_ok());
}

const N: u64 = 150;

/// All that the state answers with, for comparison.
async fn all(store: &EmbeddedStore) -> String {
    let mut said = format!("{:?}", store.revocations_after(0, usize::MAX).await.unwrap());
    for n in 0..N {
        let id = n.to_string();
        let grant = store.grant(&grant("g").issuer, &id).await.unwrap();
        let revoked = store
            .is_revoked(&revocation(key(&id)).issuer, &[key(&id)])
            .await
            .unwrap();
        let history = store.history_at(n).await.unwrap();
        said.push_str(&format!("{grant:?} {revoked:?} {history:?}"));
    }
    said
}

#[tokio::test]
async fn a_state_that_a_power_cut_may_have_harmed_is_made_anew() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("none", |_| {}),
        ("cut", |bytes| bytes.truncate(used(bytes) / 2)),
        ("a short tail", |bytes| bytes.truncate(used(bytes) - 100)),
        ("zeros to the end", |bytes| {
            let at = used(bytes) / 4096 / 2 * 4096;
            bytes[at..].fill(0);
        }),
        ("one page of zeros", |bytes| bytes[4096..8192].fill(0)),
        ("bits", |bytes| {
            bytes.iter_mut().step_by(509).for_each(|byte| *byte ^= 4)
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    for n in 0..N {
        store.insert_grant(grant(&n.to_string())).await.unwrap();
        store.revoke(revocation(key(&n.to_string()))).await.unwrap();
    }
    let known = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    let (folder, mark) = (State::folder(dir.path()), "taper.mark");
    for (name, damage) in damages {
        let mut bytes = std::fs::read(folder.join("db")).unwrap();
        damage(&mut bytes);
        std::fs::write(folder.join("db"), bytes).unwrap();
        std::fs::write(folder.join(mark), "taper-state-1 open another-boot\n").unwrap();
        let (store, report) = open(dir.path()).unwrap();
        assert_eq!(report.replayed, 2 * N, "{name}");
        assert!(report.state_unreadable.is_some(), "{name}");
        assert_eq!(all(&store).await, known, "{name}");
        store.check().unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(reopened(dir.path()).await, (0, None), "{name}");
    }
    assert_eq!(rebuild(dir.path()).unwrap(), 2 * N);
    assert_eq!(reopened(dir.path()).await, (0, None), "a rebuilt state is closed");
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

async fn reopened(dir: &Path) -> (u64, Option<String>) {
    let (store, report) = open(dir).unwrap();
    store.close().await.unwrap();
    (report.replayed, report.state_unreadable)
}
