//! Proofs in memory and on the disk, under clocks that go to and fro.

use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use super::*;
use crate::seen_log::GENERATION;

const ROUNDS: u64 = 5_000;
const LIMITS: SeenLimits = SeenLimits {
    per_grant: 3,
    total: 5,
};

fn open(dir: &Path, now: i64) -> SeenStore {
    SeenStore::open(dir, LIMITS, now).unwrap()
}

/// When what was inserted at 0 is swept.
const OVER: i64 = 60 + SLACK + 1;

fn insert(store: &SeenStore, grant: &str, jti: &str, now: i64) -> Result<Seen, StoreError> {
    store.insert_once(grant, [1; 32], jti, now + 60, now)
}

#[test]
fn a_proof_is_fresh_once_per_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    let seen = |key: u8, now: i64| store.is_seen([key; 32], "a", now);
    assert!(!seen(1, 0) && !seen(1, 0), "looking is not using");
    assert_eq!(insert(&store, "g", "a", 0).unwrap(), Seen::Fresh);
    assert!(seen(1, 60) && !seen(1, 61) && !seen(2, 0));
    assert_eq!(
        insert(&store, "g", "a", 60).unwrap(),
        Seen::Replay,
        "kept to the last second"
    );
    assert_eq!(
        insert(&store, "other", "a", 60).unwrap(),
        Seen::Replay,
        "whatever the grant"
    );
    assert_eq!(
        store.insert_once("g", [2; 32], "a", 60, 0).unwrap(),
        Seen::Fresh,
        "another key"
    );
    assert_eq!(
        insert(&store, "g", "a", 61).unwrap(),
        Seen::Fresh,
        "forgotten when its time is over"
    );
}

#[test]
fn quota_and_total_hold_and_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    for jti in ["a", "b", "c"] {
        assert_eq!(insert(&store, "g", jti, 0).unwrap(), Seen::Fresh);
    }
    assert_eq!(insert(&store, "g", "d", 0).unwrap(), Seen::Quota);
    assert_eq!(
        insert(&store, "g", "a", 0).unwrap(),
        Seen::Replay,
        "a replay is told as one"
    );
    assert_eq!(insert(&store, "h", "e", 0).unwrap(), Seen::Fresh);
    assert_eq!(insert(&store, "h", "f", 0).unwrap(), Seen::Fresh);
    assert!(matches!(
        insert(&store, "i", "g", 0),
        Err(StoreError::SeenFull(_))
    ));
    for jti in ["a", "b", "c"] {
        assert_eq!(
            insert(&store, "g", jti, OVER).unwrap(),
            Seen::Fresh,
            "all were swept"
        );
    }
    assert_eq!(insert(&store, "g", "d", OVER).unwrap(), Seen::Quota);
}

#[test]
fn reopening_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let store = open(&path, 0);
    assert_eq!(store.complete_since(), None, "a new folder has seen nothing");
    for jti in ["a", "b", "c"] {
        insert(&store, "g", jti, 0).unwrap();
    }
    assert!(matches!(
        SeenStore::open(&path, LIMITS, 0),
        Err(StoreError::InUse { .. })
    ));
    drop(store);
    let store = open(&path, 1);
    assert_eq!(store.complete_since(), None);
    assert_eq!(insert(&store, "g", "a", 1).unwrap(), Seen::Replay);
    assert_eq!(
        insert(&store, "g", "d", 1).unwrap(),
        Seen::Quota,
        "the quota is restored"
    );
    drop(store);
    std::fs::remove_file(path.join("seen.log")).unwrap();
    assert_eq!(open(&path, 9).complete_since(), Some(9));
}

#[test]
fn a_clock_that_was_behind_at_the_start_leaves_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    drop(open(&path, 7_000));
    std::fs::remove_file(path.join("seen.log")).unwrap();
    let passed = Arc::new(AtomicUsize::new(0));
    let store = open(&path, 0).with_steady_clock({
        let passed = Arc::clone(&passed);
        Arc::new(move || Duration::from_secs(passed.load(Ordering::SeqCst) as u64))
    });
    assert_eq!(store.doubt(0).complete_since, Some(0));
    passed.store(60, Ordering::SeqCst);
    assert_eq!(store.doubt(60).complete_since, Some(0), "time passes");
    assert_eq!(
        store.doubt(7_260).complete_since,
        Some(7_200),
        "the clock was set"
    );
    assert!(store.doubt(7_260).covers(7_000, 7_360, 60));
    assert_eq!(store.doubt(-9).complete_since, Some(0));
}

#[test]
fn a_clock_that_was_ahead_leaves_doubt_about_what_it_forgot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let store = open(&path, 0);
    let ahead = 86_400;
    assert_eq!(insert(&store, "g", "a", 0).unwrap(), Seen::Fresh);
    store.sweep_all(ahead);
    assert!(!store.is_seen([1; 32], "a", 1), "it is forgotten");
    let doubt = store.doubt(1);
    assert_eq!((doubt.forgotten_until, doubt.setbacks), (60, 1));
    assert!(
        doubt.covers(0, 60, 5) && !doubt.covers(1, 61, 5),
        "what is younger is remembered"
    );
    assert_eq!(store.doubt(1), doubt, "it is told once");
    // A second time, with a proof that was taken in between: the first doubt covers it, its nonce would not.
    assert_eq!(store.insert_once("g", [1; 32], "b", 59, 1).unwrap(), Seen::Fresh);
    store.sweep_all(ahead + 1);
    let again = store.doubt(2);
    assert_eq!((again.forgotten_until, again.setbacks), (60, 2));
    assert!(again.covers(0, 59, 5));
    // A process that begins then knows it too.
    drop(store);
    let store = open(&path, ahead);
    assert_eq!(store.len(), 0);
    assert!(store.doubt(3).covers(0, 60, 5));
    drop(store);
    let store = open(&path, 3);
    assert!(store.doubt(3).covers(0, 60, 5), "and the one after it");
}

#[test]
fn what_was_taken_while_the_clock_was_ahead_takes_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let store = open(&path, 0);
    let ahead = 86_400;
    for jti in ["a", "b", "c"] {
        assert_eq!(insert(&store, "g", jti, ahead).unwrap(), Seen::Fresh);
    }
    assert_eq!(insert(&store, "g", "d", ahead).unwrap(), Seen::Quota);
    assert_eq!(store.doubt(ahead).setbacks, 0);
    // A nonce shows that a proof is none of them.
    let doubt = store.doubt(1);
    assert_eq!((doubt.forgotten_until, doubt.setbacks), (ahead + 60, 1));
    for jti in ["d", "e", "f"] {
        assert_eq!(insert(&store, "g", jti, 1).unwrap(), Seen::Fresh);
        assert_eq!(
            store.doubt(1),
            doubt,
            "it is told once, and before a nonce is handed out"
        );
    }
    assert_eq!(store.len(), 3);
    drop(store);
    let store = open(&path, 1);
    assert_eq!((store.len(), store.doubt(1).forgotten_until), (3, ahead + 60));
    assert_eq!(insert(&store, "g", "d", 1).unwrap(), Seen::Replay);
}

#[test]
fn who_finds_an_entry_gone_finds_doubt_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    // One clock goes to and fro, and somebody looks all the time.
    std::thread::scope(|scope| {
        for round in 0..200 {
            let jti = round.to_string();
            assert_eq!(insert(&store, "g", &jti, 0).unwrap(), Seen::Fresh);
            let looked = scope.spawn({
                let (store, jti) = (&store, jti.clone());
                move || {
                    while store.is_seen([1; 32], &jti, 0) {}
                    store.doubt(0)
                }
            });
            store.doubt(0);
            for shard in &store.shards {
                while store.sweep_round(shard, OVER) {}
            }
            let doubt = looked.join().unwrap();
            assert!(doubt.covers(0, 60, 5) && doubt.setbacks > round, "{doubt:?}");
        }
    });
}

#[test]
fn a_clock_that_goes_on_or_is_corrected_leaves_no_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    for now in (0..1_000).step_by(40) {
        assert_eq!(insert(&store, "g", &now.to_string(), now).unwrap(), Seen::Fresh);
        store.sweep_all(now);
        let doubt = store.doubt(now - SLACK);
        assert_eq!(doubt.setbacks, 0, "at {now}");
        assert!(!doubt.covers(now - 60, now, 0), "at {now}");
    }
}

#[test]
fn what_is_taken_after_the_clock_was_set_right_stays() {
    // At 1 the clock is seen to be right again. Who takes a proof at `now` passes who removes what is far, before
    // that one begins or in the middle.
    let check = |now: i64, begun: bool, key: u8| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("seen"), 0);
        assert_eq!(insert(&store, "g", "a", 86_400).unwrap(), Seen::Fresh);
        let doubt = store.doubt(1);
        assert_eq!((doubt.forgotten_until, doubt.setbacks), (86_460, 1));
        let entry = Entry {
            key: [key; 32],
            tag: [0; 8],
            keep_until: now + LONGEST_LIFE,
        };
        let attempt = || match store.attempt(entry, now).unwrap() {
            Attempt::Done(seen) => seen,
            _ => panic!("no room"),
        };
        let far = begun.then(|| store.far_noted(1).unwrap());
        assert_eq!(attempt(), Seen::Fresh);
        match far {
            Some((noted, _)) => store.remove_far(noted),
            None => store.forget_far(now),
        }
        assert_eq!(attempt(), Seen::Replay, "at {now}, {begun}, {key}");
        assert_eq!(store.len(), 1, "what was far is gone");
        assert_eq!(store.doubt(now), doubt, "it is told once");
    };
    for key in [0, 255] {
        for begun in [false, true] {
            check(1, begun, key);
            check(200, begun, key);
        }
    }
}

#[test]
fn who_looks_at_once_finds_one_setback() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    let (start, end) = (Barrier::new(3), Barrier::new(3));
    std::thread::scope(|scope| {
        let look = || {
            for round in 1..=ROUNDS {
                start.wait();
                let setbacks = store.doubt(1).setbacks;
                end.wait();
                assert_eq!(setbacks, round);
            }
        };
        let looking = [scope.spawn(look), scope.spawn(look)];
        for round in 1..=ROUNDS {
            assert_eq!(
                insert(&store, "g", &round.to_string(), 86_400).unwrap(),
                Seen::Fresh
            );
            start.wait();
            end.wait();
        }
        looking.into_iter().for_each(|looked| looked.join().unwrap());
    });
}

#[test]
fn a_write_that_failed_leaves_doubt_about_what_it_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let store = open(&path, 0);
    let end = GENERATION;
    assert_eq!(
        store.insert_once("g", [1; 32], "a", end, end - 60).unwrap(),
        Seen::Fresh
    );
    // A folder in the way of the next generation stands for a full disk.
    std::fs::create_dir(path.join("seen.next.log")).unwrap();
    assert!(insert(&store, "g", "a", end + SLACK).is_err());
    assert_eq!(store.len(), 0);
    assert_eq!(store.doubt(end + 1).setbacks, 0);
    let doubt = store.doubt(end);
    assert!(doubt.covers(end - 60, end, 5) && doubt.setbacks == 1, "{doubt:?}");
}

#[test]
fn who_asks_whether_proofs_are_recorded_waits_for_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let store = Arc::new(open(&path, 0));
    // Who asks has an answer while somebody is writing, or nobody has for good.
    let check = || {
        let writing = locked(&store.log);
        let (told, answers) = mpsc::channel();
        let asking = Arc::clone(&store);
        std::thread::spawn(move || told.send(asking.check().is_ok()));
        let answer = answers.recv_timeout(Duration::from_secs(20));
        drop(writing);
        answer.expect("it waits for who writes")
    };
    assert!(check());
    // A folder in the way of the next generation stands for a full disk.
    let obstacle = path.join("seen.next.log");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(insert(&store, "g", "a", GENERATION).is_err());
    store.retry();
    assert!(!check());
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(
        !check() && !path.join("seen.older.log").exists(),
        "asking tries nothing"
    );
    store.retry();
    assert!(check() && path.join("seen.older.log").exists());
    // Or with the next proof.
    std::fs::create_dir(&obstacle).unwrap();
    assert!(insert(&store, "g", "a", 3 * GENERATION).is_err());
    assert!(!check());
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(insert(&store, "g", "a", 3 * GENERATION).unwrap(), Seen::Fresh);
    assert!(check());
}

#[test]
fn who_comes_while_ended_proofs_are_forgotten_has_their_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    let mut grant = [0; 8];
    grant.copy_from_slice(&Sha256::digest("g")[..8]);
    let enter = |shard: usize, n: u8, tag: [u8; 8]| {
        let mut key = [n; 32];
        key[0] = u8::try_from(shard).unwrap();
        let entry = Entry {
            key,
            tag,
            keep_until: 60,
        };
        assert!(matches!(store.attempt(entry, 0), Ok(Attempt::Done(Seen::Fresh))));
    };
    let left = |count: usize| {
        while store.len() > count {
            std::thread::yield_now();
        }
    };
    // The grant has all that it may in the last shard, and who comes belongs into the second one.
    (0..3).for_each(|n| enter(SHARDS - 1, n, grant));
    let mut names = (0..).map(|n: u32| n.to_string());
    let jti = names
        .find(|jti| usize::from(key_of([1; 32], jti)[0]) % SHARDS == 1)
        .unwrap();
    enter(SHARDS - 2, 0, [9; 8]);
    std::thread::scope(|scope| {
        let held = locked(store.shards.last().unwrap());
        scope.spawn(|| store.sweep_all(OVER));
        // It is past the second shard, and goes no further than to the last one.
        left(3);
        enter(1, 0, [9; 8]);
        let came = scope.spawn(|| insert(&store, "g", &jti, OVER).unwrap());
        // It has been in its shard, where there is no room for it yet.
        left(3);
        drop(held);
        assert_eq!(came.join().unwrap(), Seen::Fresh);
    });
    assert_eq!(store.len(), 1);
}

#[test]
fn ended_proofs_are_forgotten_in_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let many = 2 * ROUND + 1;
    let limits = SeenLimits {
        total: 2 * many,
        per_grant: many,
    };
    let store = SeenStore::open(&dir.path().join("seen"), limits, 0).unwrap();
    let fill = |now: i64| {
        let mut key = [0; 32];
        for n in 0..many {
            key[24..].copy_from_slice(&n.to_be_bytes());
            let (tag, keep_until) = ([1; 8], now + 60);
            let entry = Entry { key, tag, keep_until };
            assert!(matches!(
                store.attempt(entry, now),
                Ok(Attempt::Done(Seen::Fresh))
            ));
        }
    };
    fill(0);
    let shard = store.shard(&[0; 32]).unwrap();
    for left in [many - ROUND, many - 2 * ROUND] {
        assert!(store.sweep_round(shard, OVER));
        assert_eq!(store.len(), left);
    }
    assert!(!store.sweep_round(shard, OVER));
    assert_eq!((store.len(), locked(&store.grants).len()), (0, 0));
    fill(OVER);
    store.sweep_all(2 * OVER);
    assert_eq!(store.len(), 0, "all of them");
}

#[test]
fn of_equal_proofs_at_the_same_time_one_is_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("seen"), 0);
    let fresh = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| insert(&store, "g", "a", 0).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|s| *s == Seen::Fresh)
            .count()
    });
    assert_eq!(fresh, 1);
}
