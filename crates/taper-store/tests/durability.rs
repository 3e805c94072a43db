//! What was acknowledged survives `kill -9` (DESIGN G6).
//!
//! The test binary runs itself as a child that appends and prints each id once it is acknowledged.
//! The parent kills it at a random point and looks for every id that it was told. With the feature
//! `sabotage` and `TAPER_SABOTAGE=journal` this test must fail.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use taper_store::{
    Audit as _, CallCounters as _, CounterKey, DecisionRecord, EmbeddedStore, NewRevocation, Outcome, Record,
    RecordKind, RevocationKey, Revocations as _, Seen, SeenProofs as _, read_records, verify_dir,
};

const CHILD: &str = "TAPER_STORE_TEST_CHILD";
const ROUNDS: u32 = 25;

/// Waits for the locks of a store that was just closed: a child that another test is starting holds
/// every descriptor of this process for a moment.
fn open(dir: &Path) -> EmbeddedStore {
    let attempt = || EmbeddedStore::open(dir, "durability", Arc::new(|| 1_700_000_000_000), OsRng);
    for _ in 0..500 {
        match attempt() {
            Ok((store, _)) => return store,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    attempt().unwrap().0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn decision(id: &str) -> Record {
    let kind = RecordKind::Decision(DecisionRecord {
        decision_id: id.into(),
        outcome: Outcome::Allow,
        rule: None,
        reason: None,
        issuer: "https://issuer.example".into(),
        grant_id: "g".into(),
        holder_jkt: "h".into(),
        depth: 0,
        links: Vec::new(),
        server: "git".into(),
        method: "tools/call".into(),
        tool: Some("git_log".into()),
        resources: Vec::new(),
        body_sha256: None,
        token_sha256: "t".into(),
        policy_digest: "p".into(),
        client_ip: None,
        counted: Vec::new(),
    });
    Record { at_ms: 0, kind }
}

/// The child's half; without the environment variable it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let store = open(Path::new(&dir));
    let tag = format!("{:016x}", OsRng.next_u64());
    let append = async |kind: &str, n: u64| {
        let id = format!("{tag}-{kind}-{n}");
        match kind {
            "record" => drop(store.append(decision(&id)).await.unwrap()),
            "revoked" => {
                let what = RevocationKey::Grant(id.clone());
                store
                    .revoke(NewRevocation {
                        at: 0,
                        issuer: "i".into(),
                        what,
                    })
                    .await
                    .unwrap();
            }
            _ => assert_eq!(
                store.insert_once("g", [0; 32], &id, i64::MAX, 0).unwrap(),
                Seen::Fresh
            ),
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {id}").unwrap();
        out.flush().unwrap();
    };
    runtime().block_on(async {
        for n in 0.. {
            tokio::join!(
                append("record", n),
                append("revoked", n),
                append("proof", n),
                append("record", n + 1_000_000)
            );
        }
    });
}

/// Runs a child until it has told some ids, kills it and returns all that it told.
fn killed_child(test: &str, dir: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let take = 1 + OsRng.next_u32() as usize % 60;
    let mut acknowledged = Vec::new();
    let mut killed = false;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // Only a whole line is an acknowledgement.
        if let Some(id) = line.strip_prefix("ack ").and_then(|id| id.strip_suffix('\n')) {
            acknowledged.push(id.to_owned());
        }
        if acknowledged.len() >= take && !killed {
            // SIGKILL; what it still said before it died counts as well.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    acknowledged
}

#[test]
fn every_acknowledged_id_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        acknowledged.extend(killed_child("child", dir.path()));
        assert!(verify_dir(dir.path()).unwrap().is_ok(), "round {round}");
        let journal: std::collections::HashSet<String> = read_records(dir.path())
            .unwrap()
            .map(|stored| match stored.unwrap().record.kind {
                RecordKind::Decision(decision) => decision.decision_id,
                RecordKind::Revoked(revocation) => match revocation.what {
                    RevocationKey::Grant(id) => id,
                    _ => String::new(),
                },
                _ => String::new(),
            })
            .collect();
        for id in acknowledged.iter().filter(|id| !id.contains("-proof-")) {
            assert!(
                journal.contains(id),
                "round {round}: `{id}` was acknowledged and is lost"
            );
        }
    }

    let store = open(dir.path());
    assert_eq!(
        store.complete_since(),
        None,
        "the same boot, so no proof can be missing"
    );
    runtime().block_on(async {
        for id in &acknowledged {
            if id.contains("-revoked-") {
                let key = RevocationKey::Grant(id.clone());
                assert!(store.is_revoked("i", &[key]).await.unwrap().is_some(), "`{id}`");
            } else if id.contains("-proof-") {
                assert_eq!(
                    store.insert_once("g", [0; 32], id, i64::MAX, 0).unwrap(),
                    Seen::Replay,
                    "`{id}`"
                );
            }
        }
    });
    assert!(acknowledged.len() >= ROUNDS as usize);
}

const ISSUER: &str = "https://issuer.example";
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
async fn call(store: &EmbeddedStore, id: String) -> String {
    let both = store.reserve(ISSUER, &[LIMITED, FREE]).unwrap();
    let (id, calls) = if both.values().first().is_some_and(|value| *value <= LIMIT) {
        (format!("{id}-both"), both)
    } else {
        drop(both);
        (format!("{id}-free"), store.reserve(ISSUER, &[FREE]).unwrap())
    };
    store.append_counted(decision(&id), calls).await.unwrap();
    id
}

/// The child's half; without the environment variable it does nothing.
#[test]
fn calling_child() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let store = open(Path::new(&dir));
    let tag = format!("{:016x}", OsRng.next_u64());
    let tell = async |n: u64| {
        let id = call(&store, format!("{tag}-{n}")).await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {id}").unwrap();
        out.flush().unwrap();
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
            RecordKind::Decision(decision) if decision.counted.contains(&key) => Some(decision.decision_id),
            _ => None,
        };
        records
            .filter_map(|stored| id(stored.unwrap().record.kind))
            .collect()
    };
    let check = |acknowledged: &[String]| {
        let (limited, free) = (counted(LIMITED), counted(FREE));
        assert!(limited.len() as u64 <= LIMIT);
        for id in acknowledged {
            assert!(free.contains(id), "`{id}` was acknowledged and does not count");
            assert_eq!(limited.contains(id), id.ends_with("-both"), "`{id}`");
        }
        let store = open(dir.path());
        let next = store.reserve(ISSUER, &[LIMITED, FREE]).unwrap();
        assert_eq!(next.values(), [limited.len() as u64 + 1, free.len() as u64 + 1]);
        drop(next);
        store
    };
    let mut acknowledged = Vec::new();
    for _ in 0..ROUNDS / 2 {
        acknowledged.extend(killed_child("calling_child", dir.path()));
        runtime().block_on(check(&acknowledged).close()).unwrap();
    }
    let store = check(&acknowledged);
    runtime().block_on(async {
        while !call(&store, "last".into()).await.ends_with("-free") {}
        store.close().await.unwrap();
    });
    drop(store);
    assert_eq!(counted(LIMITED).len() as u64, LIMIT, "nothing given back is lost");
}
