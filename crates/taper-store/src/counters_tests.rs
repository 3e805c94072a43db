use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::tests::Watched;
use crate::embedded::EmbeddedStore;
use crate::embedded::tests::{Gate, open, poll_once, wrapped};
use crate::journal::tests::Boxed;
use crate::record::tests::decision;
use crate::record::{Outcome, Record, RecordKind};
use crate::traits::{Audit as _, CallCounters as _};
use crate::verify::read_records;

const ISSUER: &str = "https://issuer.example";

fn key(n: u8) -> CounterKey {
    CounterKey {
        branch: [n; 32],
        index: 1,
    }
}

fn allowed(id: &str) -> Record {
    let mut record = decision(id);
    if let RecordKind::Decision(decision) = &mut record.kind {
        (decision.outcome, decision.rule) = (Outcome::Allow, None);
    }
    record
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn counters(keys: &[CounterKey]) -> Vec<Counter> {
    keys.iter().map(|key| Counter::from(*key)).collect()
}

fn reserve(store: &EmbeddedStore, keys: &[CounterKey]) -> Reservation {
    store.reserve(ISSUER, &counters(keys)).unwrap()
}

/// The value that the next call would have.
fn next(store: &EmbeddedStore, key: CounterKey) -> u64 {
    reserve(store, &[key]).values()[0]
}

fn store() -> (TempDir, EmbeddedStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap().0;
    (dir, store)
}

/// How often the journal counts a key.
fn in_journal(dir: &Path, wanted: CounterKey) -> u64 {
    let records = read_records(dir).unwrap().map(|stored| stored.unwrap().record);
    let used = |record: Record| match record.kind {
        RecordKind::Decision(decision) => decision.counted.contains(&wanted.into()),
        _ => false,
    };
    records.map(used).filter(|used| *used).count() as u64
}

#[test]
fn a_key_has_one_spelling_and_one_fingerprint() {
    let json = serde_json::to_string(&key(0xab)).unwrap();
    assert_eq!(json, format!(r#"{{"branch":"{}","index":1}}"#, "ab".repeat(32)));
    assert_eq!(serde_json::from_str::<CounterKey>(&json).unwrap(), key(0xab));
    assert!(serde_json::from_str::<CounterKey>(&json.to_uppercase()).is_err());
    assert!(serde_json::from_str::<CounterKey>(&json.replacen("ab", "", 1)).is_err());
    let other = CounterKey { index: 2, ..key(1) };
    assert_ne!(key(1).fingerprint("i"), key(1).fingerprint("j"));
    assert_ne!(key(1).fingerprint("i"), other.fingerprint("i"));
    assert_ne!(key(1).fingerprint("i"), key(2).fingerprint("i"));
}

#[tokio::test]
async fn calls_count_with_their_decision_and_are_given_back_without_it() {
    let (dir, store) = store();
    let first = reserve(&store, &[key(1), key(2)]);
    assert_eq!(first.values(), [1, 1]);
    let second = reserve(&store, &[key(2), key(2), key(3)]);
    assert_eq!(second.values(), [2, 2, 1], "one call counts once under a key");
    assert_eq!(next(&store, key(2)), 3);
    store.append_counted(allowed("a"), first).await.unwrap();
    assert_eq!(
        next(&store, key(2)),
        3,
        "one counts, one is under way, this is the third"
    );
    drop(second);
    assert_eq!([1, 2, 3].map(|n| next(&store, key(n))), [2, 2, 1]);
    let elsewhere = store.reserve("https://other.example", &[key(1).into()]).unwrap();
    assert_eq!(elsewhere.values(), [1], "keyed by issuer");
    drop(elsewhere);
    assert_eq!(store.ledger_live(), 0, "only what is under way is in memory");

    let lines = std::fs::read(crate::segment::path(dir.path(), 0)).unwrap();
    let counted = format!(r#""counted":[{{"branch":"{}","index":1}}"#, "01".repeat(32));
    assert!(String::from_utf8_lossy(&lines).contains(&counted));
}

#[tokio::test]
async fn only_the_decision_that_allowed_counts() {
    let (_dir, store) = store();
    let (_other_dir, other) = self::store();
    let mut sneaked = allowed("a");
    if let RecordKind::Decision(decision) = &mut sneaked.kind {
        decision.counted = vec![key(1).into()];
    }
    assert!(matches!(store.append(sneaked).await, Err(StoreError::NotPlain)));
    let started = Record {
        at_ms: 0,
        kind: RecordKind::Started { role: "proxy".into() },
    };
    for record in [decision("denied"), started] {
        let refused = store.append_counted(record, reserve(&store, &[key(1)])).await;
        assert!(matches!(refused, Err(StoreError::NotCounted)));
    }
    let foreign = other.reserve(ISSUER, &[key(1).into()]).unwrap();
    let refused = store.append_counted(allowed("a"), foreign).await;
    assert!(matches!(refused, Err(StoreError::NotCounted)), "another store's");
    let foreign = store.reserve("https://other.example", &[key(1).into()]).unwrap();
    let refused = store.append_counted(allowed("a"), foreign).await;
    assert!(matches!(refused, Err(StoreError::NotCounted)), "another issuer's");
    assert_eq!(next(&store, key(1)), 1);
    store.close().await.unwrap();
    assert!(matches!(
        store.reserve(ISSUER, &[key(1).into()]),
        Err(StoreError::Closed)
    ));
}

#[test]
fn old_records_count_nothing_and_stay_readable() {
    let mut record = serde_json::to_value(allowed("a")).unwrap();
    assert!(record.as_object_mut().unwrap().get("counted").is_none());
    let read: Record = serde_json::from_value(record).unwrap();
    assert_eq!(read, allowed("a"));
}

#[test]
fn of_calls_at_the_limit_as_many_pass_as_may() {
    const LIMIT: u64 = 5;
    let (dir, store) = store();
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (store, passed) = (&store, &passed);
            scope.spawn(move || {
                let calls = reserve(store, &[key(1)]);
                if calls.values()[0] <= LIMIT {
                    block_on(store.append_counted(allowed(&n.to_string()), calls)).unwrap();
                    passed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(passed.load(Ordering::SeqCst) as u64, LIMIT);
    assert_eq!(in_journal(dir.path(), key(1)), LIMIT);
    assert_eq!(next(&store, key(1)), LIMIT + 1);
}

/// The record reaches the journal although nobody waits for the answer any more.
#[tokio::test]
async fn a_caller_that_goes_away_gives_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let (entered_tx, entered) = mpsc::channel();
    let (go, go_rx) = mpsc::channel();
    let gate = Mutex::new(Some((entered_tx, go_rx)));
    let store = wrapped(dir.path(), |inner| {
        let first = gate.lock().unwrap().take();
        Box::new(Gate {
            inner: Boxed(inner),
            first,
            syncs: Arc::default(),
        })
    });
    let mut counted = store.append_counted(allowed("a"), reserve(&store, &[key(1)]));
    assert!(!poll_once(&mut counted));
    entered.recv().unwrap();
    drop(counted);
    assert_eq!(next(&store, key(1)), 2, "it is under way");
    go.send(()).unwrap();
    store.append(decision("later")).await.unwrap();
    assert_eq!((next(&store, key(1)), store.ledger_live()), (2, 0), "it counts");
    assert_eq!(in_journal(dir.path(), key(1)), 1);

    drop(store.append_counted(allowed("never"), reserve(&store, &[key(1)])));
    store.append(decision("last")).await.unwrap();
    assert_eq!((next(&store, key(1)), in_journal(dir.path(), key(1))), (2, 1));
}

#[tokio::test]
async fn a_store_that_failed_reserves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let store = wrapped(dir.path(), |inner| {
        Box::new(Watched {
            inner: Boxed(inner),
            syncs: Arc::default(),
            failing: Arc::clone(&failing),
        })
    });
    let calls = reserve(&store, &[key(1)]);
    failing.store(true, Ordering::SeqCst);
    assert!(matches!(
        store.append_counted(allowed("a"), calls).await,
        Err(StoreError::Poisoned(_))
    ));
    failing.store(false, Ordering::SeqCst);
    assert!(matches!(
        store.reserve(ISSUER, &[key(1).into()]),
        Err(StoreError::Poisoned(_))
    ));
}

#[test]
fn an_unreadable_count_reserves_nothing() {
    let ledger = Arc::new(Ledger::default());
    let bad = key(2).fingerprint(ISSUER);
    let refused = ledger.reserve(ISSUER, &counters(&[key(1), key(2)]), |name| match *name == bad {
        true => Err(StoreError::State("unreadable".into())),
        false => Ok(7),
    });
    assert!(refused.is_err());
    assert_eq!(ledger.live(), 0);
}

/// While one reads what a counter has, a call under the same counter comes to count and leaves memory.
#[test]
fn a_count_that_changed_while_it_was_read_is_read_again() {
    let ledger = Arc::new(Ledger::default());
    let stored = std::cell::Cell::new(7);
    let reads = std::cell::Cell::new(0);
    let read = |name: &[u8; 32]| {
        let before = stored.get();
        reads.set(reads.get() + 1);
        if reads.get() == 1 {
            let other = ledger
                .reserve(ISSUER, &counters(&[key(1)]), |_| Ok(before))
                .unwrap();
            assert_eq!(other.values(), [8]);
            stored.set(8);
            other.commit();
        }
        assert_eq!(*name, key(1).fingerprint(ISSUER));
        Ok(before)
    };
    let calls = ledger.reserve(ISSUER, &counters(&[key(1)]), read).unwrap();
    assert_eq!((calls.values(), reads.get()), (&[9][..], 2));
    drop(calls);
    assert_eq!(ledger.live(), 0);
}

/// What happens to a store, in any order.
#[derive(Debug, Clone)]
enum Step {
    /// Ask for a call under the keys whose bits are set.
    Reserve(u8),
    /// Decide one of the calls under way: it counts if every value is within the limit.
    Decide(prop::sample::Index),
    /// Give one of them back.
    Release(prop::sample::Index),
    /// End orderly and open again, without the state if so.
    Reopen { lose_state: bool },
    /// Die and open what the disk has: the journal as it is, the state as it was at the last start.
    Crash,
}

const LIMIT: u64 = 4;
const KEYS: [u8; 3] = [0, 1, 2];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_u8..8).prop_map(Step::Reserve),
        6 => any::<prop::sample::Index>().prop_map(Step::Decide),
        2 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<bool>().prop_map(|lose_state| Step::Reopen { lose_state }),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A store with the folders that it had: `seen` and `state` as they were at its start.
struct Life {
    dir: TempDir,
    at_start: TempDir,
    store: EmbeddedStore,
}

impl Life {
    fn begin(dir: TempDir) -> Self {
        let at_start = tempfile::tempdir().unwrap();
        copy(dir.path(), at_start.path());
        let store = open(dir.path()).unwrap().0;
        Self { dir, at_start, store }
    }

    fn end(self) -> TempDir {
        block_on(self.store.close()).unwrap();
        self.dir
    }

    fn crash(self) -> TempDir {
        let left = tempfile::tempdir().unwrap();
        copy(self.at_start.path(), left.path());
        for entry in std::fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
            }
        }
        left
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_calls_within_the_limit_count_and_all_of_them(steps in steps()) {
        let mut life = Life::begin(tempfile::tempdir().unwrap());
        let mut under_way: Vec<(Vec<u8>, Reservation)> = Vec::new();
        let mut counts = [0_u64; KEYS.len()];
        for step in steps {
            match step {
                Step::Reserve(bits) => {
                    let names: Vec<u8> = KEYS.into_iter().filter(|n| bits & 1 << n != 0).collect();
                    let keys: Vec<CounterKey> = names.iter().map(|n| key(*n)).collect();
                    let calls = reserve(&life.store, &keys);
                    for (name, value) in names.iter().zip(calls.values()) {
                        let pending = under_way.iter().filter(|(names, _)| names.contains(name)).count();
                        prop_assert_eq!(*value, counts[usize::from(*name)] + pending as u64 + 1);
                    }
                    under_way.push((names, calls));
                }
                Step::Decide(at) if !under_way.is_empty() => {
                    let (names, calls) = under_way.swap_remove(at.index(under_way.len()));
                    if calls.values().iter().all(|value| *value <= LIMIT) {
                        block_on(life.store.append_counted(allowed("a"), calls)).unwrap();
                        names.iter().for_each(|name| counts[usize::from(*name)] += 1);
                    }
                }
                Step::Release(at) if !under_way.is_empty() => {
                    drop(under_way.swap_remove(at.index(under_way.len())));
                }
                Step::Decide(_) | Step::Release(_) => {}
                Step::Reopen { lose_state } => {
                    under_way.clear();
                    let dir = life.end();
                    if lose_state {
                        std::fs::remove_dir_all(dir.path().join("state")).unwrap();
                    }
                    life = Life::begin(dir);
                }
                Step::Crash => {
                    let left = life.crash();
                    // Whatever was under way ends with its process.
                    under_way.clear();
                    life = Life::begin(left);
                }
            }
            prop_assert!(counts.iter().all(|count| *count <= LIMIT));
        }
        under_way.clear();
        prop_assert_eq!(life.store.ledger_live(), 0);
        for n in KEYS {
            let count = counts[usize::from(n)];
            prop_assert_eq!(next(&life.store, key(n)), count + 1);
            prop_assert_eq!(in_journal(life.dir.path(), key(n)), count);
        }
    }
}
