//! What the suite needs of a store beside its traits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rand_core::OsRng;
use taper_store::{
    Audit, CallCounters, Clients, EmbeddedStore, Grants, Record, RefreshFamilies, Revocations, SeenProofs,
    Settings, StoreError, Swept, read_records, verify_dir,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// All that a store can be asked.
pub(crate) trait Store:
    Grants + Revocations + Clients + RefreshFamilies + Audit + CallCounters + SeenProofs
{
}

impl<T> Store for T where
    T: Grants + Revocations + Clients + RefreshFamilies + Audit + CallCounters + SeenProofs
{
}

/// Seconds since the Unix epoch, set by the suite.
pub(crate) type Clock = Arc<AtomicI64>;

/// A store that can be ended and begun again.
pub(crate) trait Backend {
    /// A new, empty store.
    fn new(clock: Clock) -> Self;
    /// The store.
    fn store(&self) -> &dyn Store;
    /// Ends it orderly and opens it again.
    fn reopen(&mut self, runtime: &Runtime);
    /// Lets go of it without an orderly end and opens it again.
    fn kill(&mut self);
    /// Ends it and opens it with nothing but its journal.
    fn rebuild(&mut self, runtime: &Runtime);
    /// Forgets what has ended.
    fn sweep(&self, runtime: &Runtime, now: i64) -> Swept;
    /// Carries over everything that its records speak about.
    fn carry(&self, runtime: &Runtime);
    /// Every record that is on the disk, in order.
    fn records(&self) -> Vec<Record>;
}

/// The store of one node.
pub(crate) struct Embedded {
    dir: TempDir,
    clock: Clock,
    /// `None` only while it is opened again.
    store: Option<EmbeddedStore>,
}

impl Embedded {
    fn open(dir: &Path, clock: &Clock) -> Result<EmbeddedStore, StoreError> {
        let clock = Arc::clone(clock);
        let now_ms = Arc::new(move || clock.load(Ordering::SeqCst) * 1000);
        let settings = Settings {
            // Many segments, so that records lie in several.
            segment_bytes: 8 * 1024,
            ..Settings::default()
        };
        EmbeddedStore::open_with(dir, "contract", settings, now_ms, OsRng).map(|(store, _)| store)
    }

    fn get(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }
}

impl Backend for Embedded {
    fn new(clock: Clock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open(dir.path(), &clock).unwrap();
        Self {
            dir,
            clock,
            store: Some(store),
        }
    }

    fn store(&self) -> &dyn Store {
        self.get()
    }

    fn reopen(&mut self, runtime: &Runtime) {
        runtime.block_on(self.get().close()).unwrap();
        self.store = None;
        self.store = Some(Self::open(self.dir.path(), &self.clock).unwrap());
    }

    fn kill(&mut self) {
        self.store = None;
        // Its writer ends by itself, and holds the folder until then.
        self.store = Some(loop {
            match Self::open(self.dir.path(), &self.clock) {
                Ok(store) => break store,
                Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        });
    }

    fn rebuild(&mut self, runtime: &Runtime) {
        runtime.block_on(self.get().close()).unwrap();
        self.store = None;
        std::fs::remove_dir_all(self.dir.path().join("state")).unwrap();
        self.store = Some(Self::open(self.dir.path(), &self.clock).unwrap());
        let report = verify_dir(self.dir.path()).unwrap();
        assert!(report.is_ok(), "{report:?}");
    }

    fn sweep(&self, runtime: &Runtime, now: i64) -> Swept {
        runtime.block_on(self.get().sweep(now)).unwrap()
    }

    fn carry(&self, runtime: &Runtime) {
        runtime.block_on(self.get().carry(&self.records())).unwrap();
    }

    fn records(&self) -> Vec<Record> {
        let records = read_records(self.dir.path()).unwrap();
        records.map(|stored| stored.unwrap().record).collect()
    }
}
