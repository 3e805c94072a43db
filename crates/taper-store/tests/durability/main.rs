//! What was acknowledged survives a crash (DESIGN G6).
//!
//! The test binary runs itself as a child that writes to a store and says each id on its stdout once
//! it is acknowledged. The parent kills it at a random point, reads the journal, opens the store and
//! looks for every id that it was told. SIGKILL leaves the page cache alone, so these rounds say
//! nothing about power loss: that is what [`trace`] is for, which looks at the system calls between
//! a write and its acknowledgement. [`full_disk`] lets the disk run full.
//!
//! `TAPER_LONG=1` makes the rounds many. Where this machine cannot trace or mount, those tests fail,
//! unless `TAPER_NOT_RUN` lists them: a test that did not run must not read as passed. Built with
//! the feature `sabotage`, the same harness looks at stores that lie and must notice each of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod children;
mod counted;
mod full_disk;
mod kill;
mod later;
#[cfg(feature = "sabotage")]
mod sabotaged;
mod trace;
mod writes;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use taper_store::{EmbeddedStore, Settings, StoreError};

/// What every store here believes to be the time, in seconds since the Unix epoch.
const NOW: i64 = 1_700_000_000;

/// Opens the store, with segments that are full after a few records or after a few more.
fn open(dir: &Path) -> EmbeddedStore {
    open_with(dir, 1024 + u64::from(OsRng.next_u32() % 16_384))
}

/// Opens the store, with segments of about `segment_bytes`. It waits for the locks of one that was
/// just closed, and for nothing else: a child that another test is starting holds every descriptor of
/// this process for a moment.
fn open_with(dir: &Path, segment_bytes: u64) -> EmbeddedStore {
    for _ in 0..500 {
        match attempt(dir, segment_bytes) {
            Ok(store) => return store,
            Err(error) if is_locked(&error) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{}: {error}", dir.display()),
        }
    }
    attempt(dir, segment_bytes).unwrap()
}

/// Whether somebody still holds a lock of the folder: the journal's, or sled's.
fn is_locked(error: &StoreError) -> bool {
    match error {
        StoreError::InUse { .. } => true,
        StoreError::State(reason) => reason.contains("could not acquire lock"),
        _ => false,
    }
}

/// Opens the store, or says why it does not open.
fn attempt(dir: &Path, segment_bytes: u64) -> Result<EmbeddedStore, StoreError> {
    let settings = Settings {
        segment_bytes,
        ..Settings::default()
    };
    let now = Arc::new(|| NOW * 1000);
    EmbeddedStore::open_with(dir, "durability", settings, now, OsRng).map(|(store, _)| store)
}

/// How many segments the journal of `dir` has.
fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let is_one = |name: &str| name.starts_with("journal-") && name.ends_with(".log");
    names.filter(|name| name.to_str().is_some_and(is_one)).count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// How many rounds: many when `TAPER_LONG` is set.
fn rounds(short: u32, long: u32) -> u32 {
    if std::env::var_os("TAPER_LONG").is_some() {
        long
    } else {
        short
    }
}

/// Whether this machine can do what a test needs, which `probe` tries. If it cannot, the test fails,
/// unless `TAPER_NOT_RUN` lists `name`.
#[track_caller]
fn can(name: &str, probe: &[&str]) -> bool {
    let output = Command::new(probe[0]).args(&probe[1..]).output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let listed = std::env::var("TAPER_NOT_RUN").unwrap_or_default();
    assert!(
        listed.split_whitespace().any(|word| word == name),
        "`{}` does not work here: {output:?}\nTAPER_NOT_RUN={name} leaves this test out",
        probe.join(" ")
    );
    tell(&format!("NOT RUN: {name}, as TAPER_NOT_RUN says"));
    false
}

/// Says what was measured. The test harness swallows what a passing test prints, but not this.
fn tell(line: &str) {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
}
