//! What was acknowledged survives a crash (DESIGN G6).
//!
//! The test binary runs itself as a child that writes to a store and says each id on its stdout once
//! it is acknowledged. The parent kills it at a random point, reads the journal, opens the store and
//! looks for every id that it was told. SIGKILL leaves the page cache alone, so these rounds say
//! nothing about power loss.
//!
//! `TAPER_LONG=1` makes the rounds many. Built with the feature `sabotage`, the same harness looks at
//! stores that lie and must notice each of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod children;
mod counted;

mod kill;
#[cfg(feature = "sabotage")]
mod sabotaged;

mod writes;

use std::path::Path;
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
