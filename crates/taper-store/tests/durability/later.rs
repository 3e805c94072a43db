//! Records that nobody waits for: an orderly end writes all of them, a kill loses only the newest.

use std::path::Path;

use taper_store::{Audit as _, EmbeddedStore, RecordKind, StoreError, read_records, verify_dir};

use crate::children::{Running, Work, say};
use crate::writes::decision;
use crate::{open, rounds, runtime, tell};

/// Of so many records one is waited for.
const WAITED_FOR: u64 = 100;

/// The child's half of the test of kills.
pub(crate) fn hand_over(store: &EmbeddedStore, tag: &str) {
    runtime().block_on(async {
        for n in 0.. {
            let id = format!("later-{tag}-{n}");
            // What waits for its turn is bounded; one that is waited for lets it pass.
            while let Err(error) = store.append_later(decision(&id)) {
                assert!(matches!(error, StoreError::QueueFull), "{error}");
                wait_for_one(store, tag, n).await;
            }
            say(&format!("later {id}"));
            if n % WAITED_FOR == 0 {
                wait_for_one(store, tag, n).await;
            }
        }
    });
}

async fn wait_for_one(store: &EmbeddedStore, tag: &str, n: u64) {
    let id = format!("record-{tag}-{n}");
    let receipt = store.append(decision(&id)).await.unwrap();
    say(&format!("ack {id} {}", receipt.index));
}

/// The ids of the decisions in the journal of `dir` that start with `start`, each with its place there.
fn written(dir: &Path, start: &str) -> Vec<(String, u64)> {
    let stored = read_records(dir).unwrap().map(Result::unwrap);
    let id = |kind: RecordKind| match kind {
        RecordKind::Decision(decision) => Some(decision.decision_id),
        _ => None,
    };
    stored
        .filter_map(|stored| Some((id(stored.record.kind)?, stored.index)))
        .filter(|(id, _)| id.starts_with(start))
        .collect()
}

fn ids(written: Vec<(String, u64)>) -> Vec<String> {
    written.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_clean_close_writes_what_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut handed_over = Vec::new();
    for round in 0..3 {
        let store = open(dir.path());
        for n in 0..1_000 {
            let id = format!("later-{round}-{n}");
            store.append_later(decision(&id)).unwrap();
            handed_over.push(id);
        }
        runtime().block_on(store.close()).unwrap();
        let refused = store.append_later(decision("later-too-late"));
        assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
        assert_eq!(ids(written(dir.path(), "later-")), handed_over);
    }
    let report = verify_dir(dir.path()).unwrap();
    assert!(report.is_ok(), "{report:?}");
}

#[test]
fn a_kill_loses_only_the_newest_of_what_nobody_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let (mut survived, mut lost, mut rounds_that_lost, mut waited_for) = (0, 0, 0, 0);
    let rounds = rounds(5, 20);
    for round in 0..rounds {
        let said = Running::start(&dir, Work::Later, None).kill_somewhere(u32::MAX);
        let store = open(&dir);
        let first = said
            .handed_over
            .first()
            .expect("one is handed over before one is waited for");
        let start = first.strip_suffix('0').unwrap();
        let left = ids(written(&dir, start));
        let expected: Vec<_> = (0..left.len()).map(|n| format!("{start}{n}")).collect();
        assert_eq!(
            left, expected,
            "round {round}: one is missing before the end, or out of order"
        );
        // The last one that was handed over may not have been said.
        assert!(
            left.len() <= said.handed_over.len() + 1,
            "round {round}: {}",
            left.len()
        );
        let tag = start.strip_prefix("later-").unwrap();
        let synced = written(&dir, &format!("record-{tag}"));
        for ack in &said.acknowledged {
            assert!(synced.contains(ack), "round {round}: {ack:?} was acknowledged");
        }
        let gone = said.handed_over.len().saturating_sub(left.len());
        survived += left.len();
        lost += gone;
        rounds_that_lost += u32::from(gone > 0);
        waited_for += said.acknowledged.len();
        // The next child finds a store that was closed, or one that was left.
        if round % 2 == 0 {
            runtime().block_on(store.close()).unwrap();
        }
    }
    tell(&format!(
        "records that nobody waits for: {rounds} kills, {survived} survived, {lost} newest ones lost in \
         {rounds_that_lost} rounds; {waited_for} that were waited for, 0 lost"
    ));
    assert!(survived > 0);
}
