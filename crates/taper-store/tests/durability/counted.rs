//! Calls under a limit: what was acknowledged counts, and no limit is passed, whoever is killed.

use taper_store::{Audit as _, CallCounters as _, CounterKey, EmbeddedStore, RecordKind, read_records};

use crate::children::{Running, Work, say};
use crate::writes::{ISSUER, decision};
use crate::{open, rounds, runtime, tell};

/// A counter with a limit that several processes reach together, and one without.
const LIMITED: CounterKey = CounterKey {
    branch: [1; 32],
    index: 0,
};
const FREE: CounterKey = CounterKey {
    branch: [1; 32],
    index: 1,
};
const LIMIT: u64 = 120;

/// Makes one call, under both counters as long as the limit allows it. Its id, once it counts.
async fn call(store: &EmbeddedStore, id: String) -> (String, u64) {
    let both = store.reserve(ISSUER, &[LIMITED.into(), FREE.into()]).unwrap();
    let (id, calls) = if both.values().first().is_some_and(|value| *value <= LIMIT) {
        (format!("{id}-both"), both)
    } else {
        drop(both);
        (
            format!("{id}-free"),
            store.reserve(ISSUER, &[FREE.into()]).unwrap(),
        )
    };
    let receipt = store.append_counted(decision(&id), calls).await.unwrap();
    (id, receipt.index)
}

/// The child's half of the test below.
pub(crate) fn make_calls(store: &EmbeddedStore, tag: &str) {
    let tell = async |n: u64| {
        let (id, index) = call(store, format!("{tag}-{n}")).await;
        say(&format!("ack {id} {index}"));
    };
    runtime().block_on(async {
        for n in (0..).step_by(3) {
            tokio::join!(tell(n), tell(n + 1), tell(n + 2));
        }
    });
}

#[test]
fn counted_calls_survive_kill_9_and_no_limit_is_passed() {
    let dir = tempfile::tempdir().unwrap();
    // Ids in the journal under each counter.
    let counted = |key: CounterKey| -> Vec<String> {
        let records = read_records(dir.path()).unwrap();
        let id = |kind: RecordKind| match kind {
            RecordKind::Decision(decision) if decision.counted.contains(&key.into()) => {
                Some(decision.decision_id)
            }
            _ => None,
        };
        records
            .filter_map(|stored| id(stored.unwrap().record.kind))
            .collect()
    };
    let check = |acknowledged: &[String]| {
        let store = open(dir.path());
        let (limited, free) = (counted(LIMITED), counted(FREE));
        assert!(limited.len() as u64 <= LIMIT);
        for id in acknowledged {
            assert!(free.contains(id), "`{id}` was acknowledged and does not count");
            assert_eq!(limited.contains(id), id.ends_with("-both"), "`{id}`");
        }
        let next = store.reserve(ISSUER, &[LIMITED.into(), FREE.into()]).unwrap();
        assert_eq!(next.values(), [limited.len() as u64 + 1, free.len() as u64 + 1]);
        drop(next);
        store
    };
    let mut acknowledged = Vec::new();
    for _ in 0..rounds(12, 60) {
        let said = Running::start(dir.path(), Work::Calls, None).kill_somewhere(8);
        acknowledged.extend(said.acknowledged.into_iter().map(|(id, _)| id));
        runtime().block_on(check(&acknowledged).close()).unwrap();
    }
    let store = check(&acknowledged);
    runtime().block_on(async {
        while !call(&store, "last".into()).await.0.ends_with("-free") {}
        store.close().await.unwrap();
    });
    drop(store);
    assert_eq!(counted(LIMITED).len() as u64, LIMIT, "nothing given back is lost");
    tell(&format!(
        "counted calls: {} acknowledged, 0 lost",
        acknowledged.len()
    ));
}
