//! What the suite needs of a store beside its traits.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
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
    /// Goes on with what its files are at this moment, as after a crash of the process.
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
        // What the store still does when it is dropped must not count, so another folder goes on.
        let left = tempfile::tempdir().unwrap();
        copy_as_left(self.dir.path(), left.path());
        self.store = Some(Self::open(left.path(), &self.clock).unwrap());
        self.dir = left;
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

/// Times that a file which changes all the time is read.
const READS: usize = 1_000;

/// Copies the folder of a store that is open, as a kill would leave it: what its writer still does to it
/// is there from the beginning, up to some point, and in the order in which it is done. The state follows
/// the heads, and those follow the segments; so each is copied before what it follows.
fn copy_as_left(from: &Path, to: &Path) {
    for folder in ["state", "state/blobs"]
        .iter()
        .filter(|folder| from.join(folder).exists())
    {
        copy_files(&from.join(folder), &to.join(folder), &|_| true);
    }
    copy_files(from, to, &|name| name == "journal.head");
    copy_files(from, to, &|name| name != "journal.head");
}

/// Copies the chosen files of a folder, none of them in the middle of a write.
fn copy_files(from: &Path, to: &Path, chosen: &dyn Fn(&str) -> bool) {
    let read = || {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if chosen(&name) && entry.file_type().unwrap().is_file() {
                // What is gone meanwhile was on its way to another name.
                if let Ok(bytes) = std::fs::read(entry.path()) {
                    files.insert(name, bytes);
                }
            }
        }
        files
    };
    let mut files = read();
    let is_still = (0..READS).any(|_| {
        let again = read();
        let same = files == again;
        files = again;
        same
    });
    assert!(is_still, "{} changes all the time", from.display());
    std::fs::create_dir_all(to).unwrap();
    for (name, bytes) in files {
        let path = to.join(&name);
        std::fs::write(&path, bytes).unwrap();
        // Keys are refused when others may read them.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
