//! What durability costs: acknowledged writes beside raw `fdatasync` on the same disk, reads of a full
//! state, and the time to start.
//!
//! ```text
//! cargo bench -p taper-store --bench store [-- RECORDS [SECONDS]]
//! ```
//!
//! RECORDS (one million) grants fill the store, SECONDS (five) is the length of each run of writers.
//! `-- 20000 1` takes less than a minute. The folder is made where `TMPDIR` says.
//!
//! A commit is two writes with an `fdatasync` each: records at the end of a file, and the checkpoint over
//! them in place. The raw figure is the same two with nothing around them, taken before each run of
//! writers, since a disk that others use is not the same twice. More commits than that would say that
//! something is not synced. Records are above it as soon as several writers share a commit.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::OsRng;
use taper_store::{
    Audit as _, DecisionRecord, EmbeddedStore, GrantRecord, Grants as _, NewRevocation, OpenReport, Outcome,
    Record, RecordKind, RevocationKey, Revocations as _,
};
use tokio::runtime::Runtime;

const ISSUER: &str = "https://issuer.example";
const NOW: i64 = 1_700_000_000;
/// Grants that are handed in at once while the store is filled.
const FILLERS: u64 = 512;
const READS: u64 = 20_000;
/// Bytes of a place for a checkpoint.
const SLOT: usize = 512;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let records = numbers.first().copied().unwrap_or(1_000_000);
    let run = Duration::from_secs(numbers.get(1).copied().unwrap_or(5));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bytes = serde_json::to_vec(&decision(0)).unwrap().len();
    println!("a record of a decision has {bytes} bytes\n");
    for writers in [1, 8, 64] {
        raw(dir.path(), bytes, run);
        write(
            &runtime,
            &dir.path().join(format!("writers-{writers}")),
            writers,
            run,
        );
    }
    let folder = dir.path().join("full");
    fill(&runtime, &folder, records);
    read(&runtime, &folder, records);
    start(&runtime, &folder);
}

/// What a commit of one record does to the disk, as fast as it goes.
fn raw(dir: &Path, bytes: usize, run: Duration) {
    let (log, slots) = (
        File::create(dir.join("log")).unwrap(),
        File::create(dir.join("slots")).unwrap(),
    );
    slots.write_all_at(&[0; 2 * SLOT], 0).unwrap();
    slots.sync_all().unwrap();
    let (record, note, started) = (vec![b'x'; bytes], [b'x'; SLOT], Instant::now());
    let mut took = Vec::new();
    while started.elapsed() < run {
        let at = took.len() as u64 * bytes as u64;
        took.push(nanos(|| {
            log.write_all_at(&record, at).unwrap();
            log.sync_data().unwrap();
            slots
                .write_all_at(&note, took.len() as u64 % 2 * SLOT as u64)
                .unwrap();
            slots.sync_data().unwrap();
        }));
    }
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    println!("raw writes of a commit    {rate:8.0} a second   {}", spread(took));
}

/// Writers that each wait for their record before they hand in the next one.
fn write(runtime: &Runtime, dir: &Path, writers: u64, run: Duration) {
    let store = Arc::new(open(dir).0);
    let started = Instant::now();
    let took: Vec<u64> = runtime.block_on(async {
        let writer = |n: u64| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut took = Vec::new();
                while started.elapsed() < run {
                    let record = decision(n);
                    let before = Instant::now();
                    store.append(record).await.unwrap();
                    took.push(before.elapsed().as_nanos() as u64);
                }
                took
            })
        };
        let tasks: Vec<_> = (0..writers).map(writer).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let seconds = started.elapsed().as_secs_f64();
    let (records, commits) = (took.len() as f64 / seconds, store.commits() as f64 / seconds);
    println!(
        "{writers:2} writers: acknowledged   {records:8.0} a second   {}   {commits:.0} commits a second",
        spread(took)
    );
    runtime.block_on(store.close()).unwrap();
}

/// Grants, and a revocation for every hundredth.
fn fill(runtime: &Runtime, dir: &Path, records: u64) {
    let store = Arc::new(open(dir).0);
    let started = Instant::now();
    runtime.block_on(async {
        let filler = |first: u64| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in (first..records).step_by(FILLERS as usize) {
                    store.insert_grant(grant(n)).await.unwrap();
                    if n.is_multiple_of(100) {
                        store.revoke(revocation(n)).await.unwrap();
                    }
                }
            })
        };
        let tasks: Vec<_> = (0..FILLERS).map(filler).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "\n{records} grants by {FILLERS} writers in {seconds:.1} s, {:.0} a second",
        records as f64 / seconds
    );
    runtime.block_on(store.close()).unwrap();
}

fn read(runtime: &Runtime, dir: &Path, records: u64) {
    let store = open(dir).0;
    let head = runtime.block_on(store.revocations_after(0, 1)).unwrap().head;
    // Spread over everything, in no order that the disk knows.
    let places = |n: u64| move |read: u64| read.wrapping_mul(0x9e37_79b9_7f4a_7c15) % n;
    let (of_grants, of_feed) = (places(records), places(head));
    println!("reads, one after the other:");
    let show = |what: &str, took: Vec<u64>| println!("  {what:42} {}", spread(took));
    let reads = |read: &dyn Fn(u64)| (0..READS).map(|n| nanos(|| read(n))).collect();
    show(
        "a grant",
        reads(&|n| {
            let id = id(of_grants(n));
            assert!(runtime.block_on(store.grant(ISSUER, &id)).unwrap().is_some());
        }),
    );
    show(
        "whether one of five keys is revoked",
        reads(&|n| {
            let key = |k: u64| RevocationKey::Grant(format!("other-{}", n + k));
            let keys: Vec<RevocationKey> = (0..5).map(key).collect();
            assert!(
                runtime
                    .block_on(store.is_revoked(ISSUER, &keys))
                    .unwrap()
                    .is_none()
            );
        }),
    );
    show(
        "a page of a hundred revocations",
        reads(&|n| {
            let page = runtime.block_on(store.revocations_after(of_feed(n), 100));
            assert!(page.unwrap().upto <= head);
        }),
    );
    show(
        "a history",
        reads(&|n| {
            assert!(runtime.block_on(store.history_at(of_feed(n))).unwrap().is_some());
        }),
    );
    runtime.block_on(store.close()).unwrap();
}

fn start(runtime: &Runtime, dir: &Path) {
    let timed = |what: &str| {
        let started = Instant::now();
        let (store, report) = open(dir);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "start {what}: {seconds:.2} s, {} records checked, {} replayed",
            report.records, report.replayed
        );
        runtime.block_on(store.close()).unwrap();
    };
    println!();
    timed("with its state");
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    timed("without a state");
}

fn open(dir: &Path) -> (EmbeddedStore, OpenReport) {
    EmbeddedStore::open(dir, "bench", Arc::new(|| NOW * 1000), OsRng).unwrap()
}

fn id(n: u64) -> String {
    format!("{n:032x}")
}

fn grant(n: u64) -> GrantRecord {
    GrantRecord {
        issuer: ISSUER.into(),
        grant_id: id(n),
        subject_iss: "https://idp.example".into(),
        subject: format!("subject-{}", n % 1000),
        client: "agents".into(),
        actor: None,
        holder_jkt: format!("{n:043}"),
        audiences: vec!["https://mcp.example/git/mcp".into()],
        rights: vec!["git:git_log".into(), "git:git_show".into()],
        issued_at: NOW,
        expires_at: NOW + 3600,
        ends_at: Some(NOW + 86_400),
        renewal: false,
        max_depth: 3,
        policy_digest: "p".repeat(64),
    }
}

fn revocation(n: u64) -> NewRevocation {
    NewRevocation {
        at: NOW,
        issuer: ISSUER.into(),
        what: RevocationKey::Grant(id(n)),
        until: Some(NOW + 86_400),
        by: "admin".into(),
    }
}

fn decision(n: u64) -> Record {
    let kind = RecordKind::Decision(DecisionRecord {
        decision_id: id(n),
        outcome: Outcome::Allow,
        rule: None,
        reason: None,
        issuer: ISSUER.into(),
        grant_id: id(n),
        holder_jkt: "h".repeat(43),
        depth: 0,
        links: Vec::new(),
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "agents".into(),
        server: "git".into(),
        method: "tools/call".into(),
        tool: Some("git_log".into()),
        resources: vec![("repo".into(), "acme/web".into())],
        body_sha256: Some("b".repeat(64)),
        token_sha256: "t".repeat(64),
        policy_digest: "p".repeat(64),
        client_ip: None,
        counted: Vec::new(),
    });
    Record {
        at_ms: NOW * 1000,
        kind,
    }
}

fn nanos(work: impl FnOnce()) -> u64 {
    let before = Instant::now();
    work();
    before.elapsed().as_nanos() as u64
}

/// Median and the value that one in a hundred is above.
fn spread(mut took: Vec<u64>) -> String {
    took.sort_unstable();
    let at = |part: usize| match took.len() {
        0 => 0.0,
        all => took[(all - 1) * part / 100] as f64 / 1000.0,
    };
    format!("p50 {:9.1} µs   p99 {:9.1} µs", at(50), at(99))
}
