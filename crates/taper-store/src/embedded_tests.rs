use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::task::{Context, Waker};

use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::disk::Disk;
use crate::disk::tests::Watched;
use crate::journal::tests::Boxed;
use crate::record::tests::{decision, grant};
use crate::revocation::NO_HISTORY;
use crate::seen_log::GENERATION;
use crate::verify::{read_records, verify_dir};
use crate::writer::TOLD_EVERY;

const NOW: i64 = 1_700_000_000;

pub(crate) fn open(dir: &Path) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    EmbeddedStore::open(dir, "test", Arc::new(|| NOW * 1000), OsRng)
}

fn store() -> (TempDir, EmbeddedStore) {
    let dir = tempfile::tempdir().unwrap();
    let (store, report) = open(dir.path()).unwrap();
    assert!(report.created);
    (dir, store)
}

/// Closes, and waits until sled has let go of its files too.
async fn reopen(dir: &TempDir, store: EmbeddedStore) -> (EmbeddedStore, OpenReport) {
    store.close().await.unwrap();
    drop(store);
    open(dir.path()).unwrap()
}

pub(crate) fn revocation(what: RevocationKey) -> NewRevocation {
    NewRevocation {
        at: NOW,
        issuer: "i".into(),
        what,
        until: None,
        by: "admin".into(),
    }
}

pub(crate) fn key(id: &str) -> RevocationKey {
    RevocationKey::Grant(id.into())
}

impl EmbeddedStore {
    /// How many counters of calls are in memory.
    pub(crate) fn ledger_live(&self) -> usize {
        self.ledger.live()
    }
}

/// The contract of [`Grants`], for any store.
async fn check_grants(store: &dyn Grants) {
    let issuer = grant("a").issuer;
    assert_eq!(store.grant(&issuer, "a").await.unwrap(), None);
    store.insert_grant(grant("a")).await.unwrap();
    assert_eq!(store.grant(&issuer, "a").await.unwrap(), Some(grant("a")));
    assert_eq!(store.grant("https://other.example", "a").await.unwrap(), None);

    let mut renewed = GrantRecord {
        issued_at: grant("a").issued_at + 60,
        ..grant("a")
    };
    store.insert_grant(renewed.clone()).await.unwrap();
    renewed.renewal = true;
    assert_eq!(store.grant(&issuer, "a").await.unwrap(), Some(renewed.clone()));

    let stolen = GrantRecord {
        subject: "mallory".into(),
        ..grant("a")
    };
    assert!(matches!(
        store.insert_grant(stolen).await,
        Err(StoreError::GrantConflict { .. })
    ));
    assert_eq!(store.grant(&issuer, "a").await.unwrap(), Some(renewed));
}

/// The contract of [`Revocations`], for any store.
async fn check_revocations(store: &dyn Revocations) {
    let all = [
        key("g"),
        RevocationKey::Branch("0a".repeat(32)),
        RevocationKey::Holder("A".repeat(43)),
        RevocationKey::Client("c".into()),
        RevocationKey::Subject {
            iss: "idp".into(),
            sub: "alice".into(),
        },
    ];
    assert_eq!(
        store.revocations_after(0, 10).await.unwrap(),
        RevocationPage {
            entries: vec![],
            head: 0,
            upto: 0,
            history: NO_HISTORY,
        }
    );
    assert_eq!(store.is_revoked("i", &all).await.unwrap(), None);
    for (n, what) in all.iter().enumerate() {
        let waiting = store.wait_past(n as u64);
        assert_eq!(
            store.revoke(revocation(what.clone())).await.unwrap(),
            n as u64 + 1
        );
        assert_eq!(waiting.await.unwrap(), n as u64 + 1);
        assert_eq!(
            store.is_revoked("i", &all[n..]).await.unwrap(),
            Some(what.clone())
        );
        assert_eq!(
            store.is_revoked("j", &all).await.unwrap(),
            None,
            "keyed by issuer"
        );
    }
    assert_eq!(
        store.revoke(revocation(key("g"))).await.unwrap(),
        1,
        "a key keeps its first number"
    );
    let page = store.revocations_after(1, 2).await.unwrap();
    assert_eq!((page.head, page.upto), (5, 3));
    assert_eq!(store.history_at(3).await.unwrap(), Some(page.history));
    assert_eq!(store.history_at(6).await.unwrap(), None);
    assert_eq!(store.revocations_after(3, 2).await.unwrap().upto, 5);
    assert_eq!(page.entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(page.entries[0].what, all[1]);
    assert!(store.revocations_after(5, 2).await.unwrap().entries.is_empty());
    let malformed = store.revoke(revocation(RevocationKey::Branch("x".into()))).await;
    assert!(matches!(malformed, Err(StoreError::MalformedKey(_))));
}

/// The contract of [`Audit`], for any store.
async fn check_audit(store: &dyn Audit) {
    let first = store.append(decision("a")).await.unwrap().index;
    assert_eq!(store.append(decision("b")).await.unwrap().index, first + 1);
    let sneaked = Record {
        at_ms: 0,
        kind: RecordKind::Grant(grant("x")),
    };
    assert!(matches!(store.append(sneaked).await, Err(StoreError::NotPlain)));
    let huge = Record {
        at_ms: 0,
        kind: RecordKind::Started {
            role: "x".repeat(300_000),
        },
    };
    assert!(matches!(
        store.append(huge).await,
        Err(StoreError::RecordTooLarge { .. })
    ));
    assert_eq!(store.append(decision("c")).await.unwrap().index, first + 2);
}

#[tokio::test]
async fn the_embedded_store_keeps_every_contract_and_all_of_it_survives() {
    let (dir, store) = store();
    check_grants(&store).await;
    check_revocations(&store).await;
    check_audit(&store).await;
    assert_eq!(format!("{store:?}"), "EmbeddedStore { failed: None, .. }");
    assert_eq!(
        store.insert_once("g", [1; 32], "jti", NOW + 60, NOW).unwrap(),
        Seen::Fresh
    );

    let (store, report) = reopen(&dir, store).await;
    assert_eq!(
        (report.created, report.records, report.dropped_bytes),
        (false, 10, 0)
    );
    assert_eq!(
        (report.state_unreadable, report.seen_complete_since),
        (None, None)
    );
    assert!(store.grant(&grant("a").issuer, "a").await.unwrap().is_some());
    assert_eq!(store.revocations_after(0, 10).await.unwrap().entries.len(), 5);
    assert_eq!(store.wait_past(4).await.unwrap(), 5, "the head is known at once");
    assert_eq!(store.revoke(revocation(key("g"))).await.unwrap(), 1);
    assert_eq!(
        store.insert_once("g", [1; 32], "jti", NOW + 60, NOW).unwrap(),
        Seen::Replay
    );
    assert!(verify_dir(dir.path()).unwrap().is_ok());
    assert_eq!(read_records(dir.path()).unwrap().count(), 10);
}

#[tokio::test]
async fn a_lost_or_ruined_or_foreign_state_is_rebuilt() {
    let check = async |change: fn(&Path), expect_reason: bool| {
        let (dir, store) = store();
        check_revocations(&store).await;
        check_grants(&store).await;
        store.close().await.unwrap();
        drop(store);
        change(&dir.path().join("state"));
        let (store, report) = open(dir.path()).unwrap();
        assert_eq!(
            (report.replayed, report.state_unreadable.is_some()),
            (7, expect_reason)
        );
        assert_eq!(store.revocations_after(0, 10).await.unwrap().head, 5);
        assert!(store.grant(&grant("a").issuer, "a").await.unwrap().is_some());
    };
    check(|state| std::fs::remove_dir_all(state).unwrap(), false).await;
    check(
        |state| std::fs::write(state.join("conf"), "not sled's").unwrap(),
        true,
    )
    .await;
    check(
        |state| std::fs::write(state.join("db"), vec![0x5a; 600_000]).unwrap(),
        true,
    )
    .await;
    check(
        |state| {
            let mut bytes = std::fs::read(state.join("db")).unwrap();
            bytes.iter_mut().step_by(37).for_each(|byte| *byte ^= 0x55);
            std::fs::write(state.join("db"), bytes).unwrap();
        },
        true,
    )
    .await;
    // Another journal's state, with fewer records: its root gives it away.
    check(
        |state| {
            let other = tempfile::tempdir().unwrap();
            let (store, _) = open(other.path()).unwrap();
            let runtime = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for n in 0..6 {
                        store.revoke(revocation(key(&n.to_string()))).await.unwrap();
                    }
                    store.close().await.unwrap();
                });
            });
            runtime.join().unwrap();
            std::fs::remove_dir_all(state).unwrap();
            std::fs::rename(other.path().join("state"), state).unwrap();
        },
        false,
    )
    .await;
}

#[tokio::test]
async fn a_folder_has_one_process() {
    let (dir, store) = store();
    let said = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("in use by another process"), "{said}");
    let (store, _) = reopen(&dir, store).await;
    store.close().await.unwrap();
    assert!(matches!(
        store.append(decision("late")).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.check(), Err(StoreError::Closed)));
    assert!(matches!(store.wait_past(0).await, Err(StoreError::Closed)));
    assert!(matches!(
        EmbeddedStore::open(dir.path(), "Bad Name", Arc::new(|| 0), OsRng),
        Err(StoreError::Name(_))
    ));
}

/// A disk whose first sync tells that it began and waits for permission to end.
pub(crate) struct Gate {
    pub(crate) inner: Boxed,
    pub(crate) first: Option<(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)>,
    pub(crate) syncs: Arc<AtomicU64>,
}

impl Disk for Gate {
    fn write_some(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write_some(offset, bytes)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if let Some((entered, go)) = self.first.take() {
            entered.send(()).unwrap();
            go.recv().unwrap();
        }
        self.inner.sync()
    }
}

/// A store whose journal's disks are wrapped.
pub(crate) fn wrapped(dir: &Path, wrap: impl Fn(Box<dyn Disk>) -> Box<dyn Disk>) -> EmbeddedStore {
    let (mut journal, _) = crate::journal::tests::open(dir).unwrap();
    journal.wrap(wrap);
    let state = State::open(dir).unwrap().0;
    let seen = SeenStore::open_in(dir, SeenLimits::default(), true, NOW).unwrap();
    EmbeddedStore::start(journal, state, seen, Arc::new(|| 0), Box::new(OsRng)).unwrap()
}

pub(crate) fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> bool {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

#[tokio::test]
async fn one_commit_serves_everyone_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let (entered_tx, entered) = std_mpsc::channel();
    let (go, go_rx) = std_mpsc::channel();
    let gate = std::sync::Mutex::new(Some((entered_tx, go_rx)));
    let store = wrapped(dir.path(), |inner| {
        let first = gate.lock().unwrap().take();
        Box::new(Gate {
            inner: Boxed(inner),
            first,
            syncs: Arc::clone(&syncs),
        })
    });

    let mut first = store.append(decision("first"));
    assert!(!poll_once(&mut first));
    entered.recv().unwrap();
    let mut others: Vec<_> = (0..100).map(|n| store.append(decision(&n.to_string()))).collect();
    for other in &mut others {
        assert!(!poll_once(other), "nobody is answered before the sync");
    }
    assert!(!poll_once(&mut first), "not even the first");
    go.send(()).unwrap();
    first.await.unwrap();
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(other.await.unwrap().index, n as u64 + 1);
    }
    assert_eq!(
        syncs.load(Ordering::SeqCst),
        4,
        "two commits of two files for 101 records"
    );
}

#[tokio::test]
async fn equal_revocations_in_one_commit_have_one_number() {
    let dir = tempfile::tempdir().unwrap();
    let (entered_tx, entered) = std_mpsc::channel();
    let (go, go_rx) = std_mpsc::channel();
    let gate = std::sync::Mutex::new(Some((entered_tx, go_rx)));
    let store = wrapped(dir.path(), |inner| {
        let first = gate.lock().unwrap().take();
        Box::new(Gate {
            inner: Boxed(inner),
            first,
            syncs: Arc::default(),
        })
    });
    let mut first = store.append(decision("first"));
    assert!(!poll_once(&mut first));
    entered.recv().unwrap();
    let mut revokes: Vec<_> = ["a", "b", "a"].map(|id| store.revoke(revocation(key(id)))).into();
    let mut grants: Vec<_> = ["alice", "mallory"]
        .map(|subject| {
            store.insert_grant(GrantRecord {
                subject: subject.into(),
                ..grant("g")
            })
        })
        .into();
    revokes.iter_mut().for_each(|revoke| assert!(!poll_once(revoke)));
    grants.iter_mut().for_each(|grant| assert!(!poll_once(grant)));
    go.send(()).unwrap();
    first.await.unwrap();
    let mut numbers = Vec::new();
    for revoke in revokes {
        numbers.push(revoke.await.unwrap());
    }
    assert_eq!(numbers, [1, 2, 1]);
    let mut grants = grants.into_iter();
    assert!(grants.next().unwrap().await.is_ok());
    assert!(matches!(
        grants.next().unwrap().await,
        Err(StoreError::GrantConflict { .. })
    ));
    assert_eq!(read_records(dir.path()).unwrap().count(), 4);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let store = wrapped(dir.path(), |inner| {
        Box::new(Watched {
            inner: Boxed(inner),
            syncs: Arc::default(),
            failing: Arc::clone(&failing),
        })
    });
    store.revoke(revocation(key("a"))).await.unwrap();
    store.check().unwrap();
    failing.store(true, Ordering::SeqCst);
    assert!(matches!(
        store.append(decision("a")).await,
        Err(StoreError::Poisoned(_))
    ));
    failing.store(false, Ordering::SeqCst);
    assert!(matches!(
        store.append(decision("b")).await,
        Err(StoreError::Poisoned(_))
    ));
    assert!(matches!(
        store.insert_grant(grant("g")).await,
        Err(StoreError::Poisoned(_))
    ));
    assert!(matches!(
        store.revoke(revocation(key("a"))).await,
        Err(StoreError::Poisoned(_))
    ));
    assert!(matches!(store.check(), Err(StoreError::Poisoned(_))));
    assert_eq!(
        store.is_revoked("i", &[key("a")]).await.unwrap(),
        Some(key("a")),
        "what is known stays known"
    );
    assert!(store.close().await.is_err());
}

#[tokio::test]
async fn grants_are_found_by_subject_and_by_first_holder() {
    let (dir, store) = store();
    let of = |id: &str, client: &str, subject: &str| GrantRecord {
        client: client.into(),
        subject: subject.into(),
        ..grant(id)
    };
    for n in 0..5 {
        store
            .insert_grant(of(&format!("a{n}"), "dev", "alice"))
            .await
            .unwrap();
    }
    store.insert_grant(of("b", "dev", "bob")).await.unwrap();
    store.insert_grant(of("c", "other", "alice")).await.unwrap();
    store.insert_grant(of("a0", "dev", "alice")).await.unwrap();
    let issuer = grant("").issuer;
    let check =
        async |store: &EmbeddedStore, client: &str, subject: &str, limit: usize, expected: &[&str]| {
            let subject_iss = grant("").subject_iss;
            let whose = SubjectAt {
                issuer: &issuer,
                client,
                subject_iss: &subject_iss,
                subject,
            };
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.grants_of(whose, after.as_deref(), limit).await.unwrap();
                assert!(page.grants.len() <= limit);
                found.extend(page.grants.into_iter().map(|grant| grant.grant_id));
                if !page.more {
                    break;
                }
                after = page.last;
            }
            found.sort();
            assert_eq!(found, expected, "{client} {subject} by {limit}");
        };
    let all = ["a0", "a1", "a2", "a3", "a4"];
    for limit in [1, 2, 4, 5, 6] {
        check(&store, "dev", "alice", limit, &all).await;
    }
    check(&store, "dev", "bob", 9, &["b"]).await;
    check(&store, "other", "alice", 9, &["c"]).await;
    check(&store, "de", "valice", 9, &[]).await;
    assert!(store.is_first_holder(&issuer, &"h".repeat(43)).await.unwrap());
    assert!(!store.is_first_holder(&issuer, &"x".repeat(43)).await.unwrap());
    assert!(!store.is_first_holder("other", &"h".repeat(43)).await.unwrap());
    let (store, _) = reopen(&dir, store).await;
    check(&store, "dev", "alice", 2, &all).await;
}

#[tokio::test]
async fn the_records_of_revocations_say_who_asked() {
    let (_dir, store) = store();
    for id in ["a", "b", "c"] {
        store.revoke(revocation(key(id))).await.unwrap();
    }
    let records = store.revocation_records_after(1, 1).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].revocation.seq, records[0].by.as_str()), (2, "admin"));
}

#[tokio::test]
async fn a_revoked_actor_stops_rotation() {
    for (actor, sub) in [
        ("agent (https://idp.example)", "agent"),
        ("a (b) (https://idp.example)", "a (b)"),
    ] {
        let (_dir, store) = store();
        let granted = GrantRecord {
            actor: Some(actor.into()),
            ..grant("a")
        };
        let (issuer, end) = (granted.issuer.clone(), granted.end());
        store.insert_grant(granted).await.unwrap();
        let token = |n: u8| TokenHash([n; 32]);
        store.begin_family(&issuer, "a", token(0), end).await.unwrap();
        let rotated = store.rotate(token(0), token(1)).await.unwrap();
        assert!(
            matches!(rotated, crate::traits::Rotation::Rotated(_)),
            "{rotated:?}"
        );
        let what = RevocationKey::Subject {
            iss: "https://idp.example".into(),
            sub: sub.into(),
        };
        let revocation = NewRevocation {
            issuer,
            ..revocation(what)
        };
        store.revoke(revocation).await.unwrap();
        let rotated = store.rotate(token(1), token(2)).await.unwrap();
        assert_eq!(rotated, crate::traits::Rotation::Ended, "{actor}");
    }
}

#[tokio::test]
async fn a_grant_causes_a_bounded_number_of_revocations() {
    let (dir, store) = store();
    let within = async |store: &EmbeddedStore, id: &str, grant_id: &str, limit: u64| {
        let bound = Bound {
            grant_id: grant_id.to_owned(),
            limit,
        };
        let what = RevocationKey::Holder(format!("{id}{}", "A".repeat(42)));
        store.revoke_within(revocation(what), bound).await
    };
    let full = |done: Result<u64, StoreError>| matches!(done, Err(StoreError::TooManyRevocations { .. }));
    // Several at once: each sees those before it.
    let one = |id: &'static str| within(&store, id, "g", 3);
    let (a, b, c, d) = tokio::join!(one("a"), one("b"), one("c"), one("d"));
    assert_eq!([a, b, c].map(Result::unwrap), [1, 2, 3]);
    assert!(full(d));
    // One that is there keeps its number and does not count again; others have room of their own.
    assert_eq!(within(&store, "a", "g", 3).await.unwrap(), 1);
    assert_eq!(within(&store, "f", "g", 4).await.unwrap(), 4);
    assert_eq!(within(&store, "g", "other", 1).await.unwrap(), 5);
    assert!(full(within(&store, "h", "other", 1).await));
    // What is not asked for under a bound does not count.
    store.revoke(revocation(key("g"))).await.unwrap();
    assert_eq!(within(&store, "h", "g", 5).await.unwrap(), 7);

    // The same after a start, and after the state was lost; carried over as well.
    let (store, _) = reopen(&dir, store).await;
    assert!(full(within(&store, "i", "g", 5).await));
    let records = read_records(dir.path()).unwrap();
    let records: Vec<_> = records.map(|stored| stored.unwrap().record).collect();
    store.carry(&records).await.unwrap();
    assert!(full(within(&store, "i", "g", 5).await));
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(State::folder(dir.path())).unwrap();
    let (store, _) = open(dir.path()).unwrap();
    assert!(full(within(&store, "i", "g", 5).await));
    assert_eq!(within(&store, "i", "g", 6).await.unwrap(), 8);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_not_ready() {
    let (_dir, store) = store();
    store.check().unwrap();
    store.state.spoil(crate::layout::grant("i", "g"));
    assert!(matches!(store.grant("i", "g").await, Err(StoreError::State(_))));
    assert!(matches!(store.check(), Err(StoreError::State(_))));
}

#[tokio::test]
async fn the_state_learns_of_plain_decisions_later() {
    let (dir, store) = store();
    let applied = || store.state.applied().unwrap().size;
    let known = store.insert_grant(grant("a")).await.unwrap().index + 1;
    assert_eq!(applied(), known);
    for n in 1..=u64::from(TOLD_EVERY) {
        store.append(decision("d")).await.unwrap();
        let told = n == u64::from(TOLD_EVERY);
        assert_eq!(applied(), known + if told { n } else { 0 }, "after {n}");
    }
    store.append(decision("d")).await.unwrap();
    let last = store.insert_grant(grant("b")).await.unwrap().index;
    assert_eq!(applied(), last + 1, "with the next that matters");
    store.append(decision("d")).await.unwrap();
    assert_eq!(applied(), last + 1);
    let (_store, report) = reopen(&dir, store).await;
    assert_eq!((report.records, report.replayed), (last + 2, 0), "at the end");
}

#[tokio::test]
async fn proofs_that_ended_are_forgotten_without_another() {
    let (_dir, store) = store();
    let store = Arc::new(store);
    for n in 0..200 {
        let taken = store.insert_once("i g", [1; 32], &format!("jti {n}"), NOW + 60, NOW);
        assert_eq!(taken.unwrap(), Seen::Fresh);
    }
    store.forget_ended_proofs(NOW + 60).await;
    assert_eq!(store.seen.len(), 200, "they may still count");
    store.forget_ended_proofs(NOW + 3600).await;
    assert_eq!(store.seen.len(), 0);
    assert!(
        store.doubt(NOW).covers(NOW, NOW + 60, 0),
        "what was forgotten is noted"
    );
}

#[tokio::test]
async fn a_file_that_takes_proofs_again_is_found_without_one() {
    let (dir, store) = store();
    let store = Arc::new(store);
    let later = NOW + GENERATION;
    // A folder in the way of the next generation stands for a full disk.
    let obstacle = dir.path().join("seen.next.log");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(
        store
            .insert_once("i g", [1; 32], "jti", later + 60, later)
            .is_err()
    );
    let failed = |store: &EmbeddedStore| matches!(store.check(), Err(StoreError::Unrecorded(_)));
    assert!(failed(&store));
    store.forget_ended_proofs(later).await;
    assert!(failed(&store), "it still fails");
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(failed(&store), "nothing was tried");
    store.forget_ended_proofs(later).await;
    store.check().unwrap();
}
