//! When a clock is believed, and what a wrong one costs.

use std::sync::Arc;
use std::time::Duration;

use rand_core::OsRng;

use super::*;
use crate::{Audit as _, CallCounters as _, Revocations as _};
use crate::{Counter, CounterKey, DecisionRecord, NewRevocation, Outcome, Record, RecordKind, RevocationKey};

const T: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const STEP: i64 = 600;

fn seconds(running: i64) -> Duration {
    Duration::from_secs(u64::try_from(running).unwrap())
}

/// Observes every ten minutes, `running` from the first to before the second; `wall` by `running`.
fn run(clock: &mut SweepClock, from: i64, to: i64, wall: impl Fn(i64) -> i64) -> Vec<Option<i64>> {
    let times = (from..to).step_by(STEP as usize);
    times.map(|at| clock.observe(wall(at), seconds(at))).collect()
}

#[test]
fn a_time_is_believed_after_a_day_and_passes_as_the_process_runs() {
    let mut clock = SweepClock::new(None);
    let first = run(&mut clock, STEP, STEP + DAY, |at| T + at);
    assert!(first.iter().all(Option::is_none));
    for (at, time) in
        (STEP + DAY..3 * DAY)
            .step_by(STEP as usize)
            .zip(run(&mut clock, STEP + DAY, 3 * DAY, |at| T + at))
    {
        assert_eq!(time, Some(T + at));
    }
    // It jumps ahead: what was believed goes on, until the new time has held for a day.
    let (now, ahead) = (3 * DAY, 10 * DAY);
    for (at, time) in (now..now + DAY)
        .step_by(STEP as usize)
        .zip(run(&mut clock, now, now + DAY, |at| T + at + ahead))
    {
        assert_eq!(time, Some(T + at), "{at}");
    }
    let at = now + DAY;
    assert_eq!(clock.observe(T + at + ahead, seconds(at)), Some(T + at + ahead));
    // It steps back: at once, and what it said before is not believed by what it says later.
    let at = at + STEP;
    assert_eq!(clock.observe(T + at, seconds(at)), Some(T + at));
    let at = at + STEP;
    assert_eq!(clock.observe(T + at + ahead, seconds(at)), Some(T + at));
}

#[test]
fn one_moment_of_the_right_time_within_a_day_is_enough() {
    let mut clock = SweepClock::new(Some(T));
    for at in (STEP..10 * DAY).step_by(STEP as usize) {
        let wall = if at % DAY == 0 { T + at } else { T + at + 2 * DAY };
        assert_eq!(clock.observe(wall, seconds(at)), Some(T + at));
    }
}

#[test]
fn what_was_believed_before_a_restart_goes_on() {
    let check = |believed: i64, wall: i64, expected: i64| {
        let mut clock = SweepClock::new(Some(believed));
        assert_eq!(clock.observe(wall, seconds(STEP)), Some(expected));
    };
    check(T, T + STEP, T + STEP);
    check(T, T + STEP + 2 * DAY, T + STEP);
    check(T, T - DAY, T - DAY);
    check(i64::MAX, i64::MIN, i64::MIN);
    check(i64::MAX, i64::MAX, i64::MAX);
    // Down for a week: behind for a day.
    let mut clock = SweepClock::new(Some(T));
    let times = run(&mut clock, STEP, 2 * STEP + DAY, |at| T + at + 7 * DAY);
    assert_eq!(times.first(), Some(&Some(T + STEP)));
    assert_eq!(times.last(), Some(&Some(T + STEP + 8 * DAY)));
}

fn decision() -> Record {
    let decision = DecisionRecord {
        decision_id: "d".into(),
        outcome: Outcome::Allow,
        rule: None,
        reason: None,
        issuer: "https://i".into(),
        grant_id: "g".into(),
        holder_jkt: "h".into(),
        depth: 0,
        links: vec![],
        subject_iss: String::new(),
        subject: String::new(),
        client: String::new(),
        server: "s".into(),
        method: "m".into(),
        tool: None,
        resources: vec![],
        body_sha256: None,
        token_sha256: "t".into(),
        policy_digest: "p".into(),
        client_ip: None,
        counted: vec![],
    };
    Record {
        at_ms: T * 1000,
        kind: RecordKind::Decision(decision),
    }
}

/// Sweeps as a daemon does that runs between two times, and returns how much was forgotten.
async fn swept(store: &EmbeddedStore, from: i64, to: i64, wall: impl Fn(i64) -> i64) -> u64 {
    let mut clock = store.sweep_clock().await;
    let mut gone = 0;
    for at in (from..to).step_by(STEP as usize) {
        let time = store.sweep_time(&mut clock, wall(at), seconds(at)).await.unwrap();
        if let Some(time) = time {
            let swept = store.sweep(time).await.unwrap();
            gone += swept.revocations + swept.counters;
        }
    }
    gone
}

#[tokio::test]
async fn a_clock_that_was_ahead_at_the_start_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = EmbeddedStore::open(dir.path(), "issuer", Arc::new(|| T * 1000), OsRng).unwrap();
    let grant = RevocationKey::Grant("AAAAAAAAAAAAAAAAAAAAAA".into());
    let revocation = NewRevocation {
        at: T,
        issuer: "https://i".into(),
        what: grant.clone(),
        until: Some(T + HOUR),
        by: "x".into(),
    };
    store.revoke(revocation).await.unwrap();
    let key = CounterKey {
        branch: [1; 32],
        index: 0,
    };
    let counter = Counter {
        key,
        until: Some(T + HOUR),
    };
    let calls = store.reserve("https://i", &[counter]).unwrap();
    store.append_counted(decision(), calls).await.unwrap();

    let is_kept = async || {
        let calls = store.reserve("https://i", &[counter]).unwrap().values().to_vec();
        let revoked = store.is_revoked("https://i", std::slice::from_ref(&grant)).await;
        revoked.unwrap().is_some() && calls == [2]
    };
    assert!(is_kept().await);
    // Two starts with a clock that is ahead, half an hour each; then it is right.
    for _ in 0..2 {
        assert_eq!(swept(&store, STEP, HOUR / 2, |at| T + at + 2 * DAY).await, 0);
        assert!(is_kept().await);
    }
    assert_eq!(swept(&store, STEP, DAY + HOUR, |at| T + at).await, 0);
    assert!(is_kept().await);
    // A right one forgets a day after the end, also when no run lasts a day.
    assert_eq!(swept(&store, STEP, HOUR, |at| T + 10 * DAY + at).await, 2);
    assert!(!is_kept().await);
}

#[tokio::test]
async fn a_file_that_says_nothing_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = EmbeddedStore::open(dir.path(), "issuer", Arc::new(|| T * 1000), OsRng).unwrap();
    let path = dir.path().join(FILE);
    keep(&path, T).unwrap();
    assert_eq!(store.sweep_clock().await.believed, Some(T));
    for bad in ["", "{", "{\"believed\":null}", "{\"believed\":1,\"more\":1}"] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(store.sweep_clock().await.believed, None, "{bad}");
    }
}
