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

use rand_core::{OsRng, RngCore as _};
use taper_store::{
    Audit as _, DecisionRecord, EmbeddedStore, NewRevocation, Outcome, Record, RecordKind, RevocationKey,
    Revocations as _, Seen, SeenProofs as _, read_records, verify_dir,
};

const CHILD: &str = "TAPER_STORE_TEST_CHILD";
const ROUNDS: u32 = 25;

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, "durability", Arc::new(|| 1_700_000_000_000), OsRng)
        .unwrap()
        .0
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

#[test]
fn every_acknowledged_id_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let take = 1 + OsRng.next_u32() % 60;
        let mut told = 0;
        let mut killed = false;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                break;
            }
            // Only a whole line is an acknowledgement.
            if let Some(id) = line.strip_prefix("ack ").and_then(|id| id.strip_suffix('\n')) {
                acknowledged.push(id.to_owned());
                told += 1;
            }
            if told >= take && !killed {
                // SIGKILL; what it still said before it died counts as well.
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "round {round}: the child ended by itself");

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
