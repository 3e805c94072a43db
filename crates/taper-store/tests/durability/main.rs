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
#[cfg(feature = "sabotage")]
mod sabotaged;
mod trace;
mod writes;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand_core::OsRng;
use taper_store::EmbeddedStore;

/// What every store here believes to be the time, in seconds since the Unix epoch.
const NOW: i64 = 1_700_000_000;

/// Opens the store. It waits for the locks of one that was just closed: a child that another test is
/// starting holds every descriptor of this process for a moment.
fn open(dir: &Path) -> EmbeddedStore {
    let attempt = || EmbeddedStore::open(dir, "durability", Arc::new(|| NOW * 1000), OsRng);
    for _ in 0..500 {
        match attempt() {
            Ok((store, _)) => return store,
            Err(taper_store::StoreError::InUse { .. } | taper_store::StoreError::State(_)) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{}: {error}", dir.display()),
        }
    }
    attempt().unwrap().0
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
