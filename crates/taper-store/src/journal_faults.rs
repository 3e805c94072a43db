//! Every operation of the journal on its files fails once, in every way that a disk fails.

use std::io;
use std::sync::Mutex;

use rand_core::OsRng;

use super::tests::{open, open_with};
use super::*;
use crate::frame::encode_record;
use crate::record::RecordKind;
use crate::record::tests::decision;
use crate::verify::{read_records, verify_dir};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing is done, and an error told.
    Refused,
    /// All is done, and an error told nevertheless.
    Done,
    /// A write puts half of its bytes.
    Half,
    /// A write puts half of its bytes, and from then on there is no space.
    Full,
    /// A write takes half of its bytes and tells so, which is no failure.
    Short,
    /// A write is interrupted before it begins, which is no failure.
    Interrupted,
}

/// Which operation fails, and how many there were.
#[derive(Debug)]
struct Plan {
    fails: u64,
    way: Way,
    seen: Mutex<u64>,
}

impl Plan {
    fn new(fails: u64, way: Way) -> Arc<Self> {
        let seen = Mutex::new(0);
        Arc::new(Self { fails, way, seen })
    }

    fn seen(&self) -> u64 {
        *self.seen.lock().unwrap()
    }

    /// Whether this operation fails; `grows` if it needs space.
    fn now(&self, grows: bool) -> bool {
        let mut seen = self.seen.lock().unwrap();
        *seen += 1;
        let number = *seen - 1;
        number == self.fails || self.way == Way::Full && grows && number > self.fails
    }

    fn error(&self) -> io::Error {
        match self.way {
            Way::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("the disk is gone"),
        }
    }

    /// An operation without bytes.
    fn run<T>(&self, grows: bool, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.now(grows) {
            return operation();
        }
        match self.way {
            Way::Short | Way::Interrupted => operation(),
            Way::Done => operation().and_then(|_| Err(self.error())),
            Way::Refused | Way::Half | Way::Full => Err(self.error()),
        }
    }
}

struct FaultyDisk {
    plan: Arc<Plan>,
    inner: Box<dyn Disk>,
}

impl Disk for FaultyDisk {
    fn write_some(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if !self.plan.now(true) {
            return self.inner.write_some(offset, bytes);
        }
        let half = &bytes[..bytes.len().div_ceil(2)];
        match self.plan.way {
            Way::Refused => Err(self.plan.error()),
            Way::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Way::Short => self.inner.write_at(offset, half).map(|()| half.len()),
            Way::Done => self.inner.write_at(offset, bytes).and(Err(self.plan.error())),
            Way::Half | Way::Full => self.inner.write_at(offset, half).and(Err(self.plan.error())),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let Self { plan, inner } = self;
        plan.run(false, || inner.sync())
    }
}

struct FaultyFolder(Arc<Plan>);

impl FaultyFolder {
    fn file(
        &self,
        grows: bool,
        open: impl FnOnce() -> io::Result<Box<dyn Disk>>,
    ) -> io::Result<Box<dyn Disk>> {
        let inner = self.0.run(grows, open)?;
        let plan = Arc::clone(&self.0);
        Ok(Box::new(FaultyDisk { plan, inner }))
    }
}

impl Folder for FaultyFolder {
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
        self.file(false, || SystemFolder::default().open(path))
    }

    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
        self.file(true, || SystemFolder::default().create(path))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.run(false, || SystemFolder::default().rename(from, to))
    }

    fn sync(&mut self, dir: &Path) -> io::Result<()> {
        self.0.run(false, || SystemFolder::default().sync(dir))
    }
}

/// A commit of two records.
fn batch(n: u64) -> Vec<Vec<u8>> {
    ["a", "b"]
        .map(|half| encode_record(&decision(&format!("{n}{half}"))).unwrap())
        .into()
}

const COMMITS: u64 = 3;

/// Opens a journal, makes commits and closes it, as far as the plan lets it come. How many commits
/// were acknowledged, and whether all went well.
fn run(dir: &Path, plan: &Arc<Plan>) -> (u64, bool) {
    let options = Options {
        segment_bytes: 1000,
        folder: Box::new(FaultyFolder(Arc::clone(plan))),
        ..Options::default()
    };
    let Ok((mut journal, _)) = open_with(dir, options) else {
        return (0, false);
    };
    for n in 0..COMMITS {
        if journal.commit(&batch(n), &mut OsRng).is_err() {
            let seen = plan.seen();
            let again = journal.commit(&batch(n), &mut OsRng);
            assert!(matches!(again, Err(StoreError::Poisoned(_))), "{again:?}");
            assert!(journal.close().is_err());
            assert_eq!(plan.seen(), seen, "nothing touches the disk any more");
            return (n, false);
        }
    }
    (COMMITS, journal.close().is_ok())
}

/// Reopens after a failure: nothing acknowledged is lost, nothing else than what was tried is there.
fn check(dir: &Path, acknowledged: u64, what: &str) {
    let (mut journal, _) = open(dir).unwrap_or_else(|e| panic!("{what}: {e}"));
    journal.commit(&batch(99), &mut OsRng).unwrap();
    journal.close().unwrap();
    let report = verify_dir(dir).unwrap();
    assert!(report.is_ok(), "{what}: {report:?}");
    let ids: Vec<String> = read_records(dir)
        .unwrap()
        .map(|stored| match stored.unwrap().record.kind {
            RecordKind::Decision(decision) => decision.decision_id,
            other => panic!("{other:?}"),
        })
        .collect();
    let tried: Vec<String> = (0..COMMITS)
        .flat_map(|n| [format!("{n}a"), format!("{n}b")])
        .collect();
    let (kept, last) = ids.split_at(ids.len() - 2);
    assert_eq!(last, ["99a", "99b"], "{what}");
    assert!(tried.starts_with(kept), "{what}: {kept:?}");
    assert!(
        kept.len() as u64 >= acknowledged * 2,
        "{what}: {acknowledged} commits were acknowledged, {kept:?} are left"
    );
}

#[test]
fn whichever_operation_fails_nothing_acknowledged_is_lost_and_nothing_more_accepted() {
    for way in [Way::Refused, Way::Done, Way::Half, Way::Full] {
        let mut stopped = 0;
        for fails in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan::new(fails, way);
            let (acknowledged, well) = run(dir.path(), &plan);
            check(dir.path(), acknowledged, &format!("{way:?} at operation {fails}"));
            if plan.seen() <= fails {
                assert!(
                    well && acknowledged == COMMITS,
                    "{way:?}: without a failure all goes well"
                );
                break;
            }
            assert!(!well, "{way:?} at operation {fails} was not noticed");
            stopped += 1;
        }
        // Creation, opening, commits, segments and the last checkpoint.
        assert!(stopped > 40, "{way:?}: only {stopped} operations");
    }
}

#[test]
fn a_short_or_an_interrupted_write_goes_on() {
    for way in [Way::Short, Way::Interrupted] {
        for fails in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan::new(fails, way);
            assert_eq!(
                run(dir.path(), &plan),
                (COMMITS, true),
                "{way:?} at operation {fails}"
            );
            check(dir.path(), COMMITS, &format!("{way:?} at operation {fails}"));
            if plan.seen() <= fails {
                break;
            }
        }
    }
}

#[test]
fn commits_go_on_while_no_more_files_can_be_open() {
    struct Short(Arc<Mutex<bool>>);
    impl Short {
        fn check(&self) -> io::Result<()> {
            let short = *self.0.lock().unwrap();
            if short {
                Err(io::Error::from_raw_os_error(24))
            } else {
                Ok(())
            }
        }
    }
    impl Folder for Short {
        fn open(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
            self.check()?;
            SystemFolder::default().open(path)
        }
        fn create(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
            self.check()?;
            SystemFolder::default().create(path)
        }
        fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
            SystemFolder::default().rename(from, to)
        }
        fn sync(&mut self, dir: &Path) -> io::Result<()> {
            SystemFolder::default().sync(dir)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let short = Arc::new(Mutex::new(false));
    let options = Options {
        segment_bytes: 1000,
        folder: Box::new(Short(Arc::clone(&short))),
        ..Options::default()
    };
    let (mut journal, _) = open_with(dir.path(), options).unwrap();
    let segments = || segment::list(dir.path()).unwrap().len();
    journal.unpublished = PUBLISH_EVERY;
    *short.lock().unwrap() = true;
    for n in 0..4 {
        journal.commit(&batch(n), &mut OsRng).unwrap();
    }
    assert_eq!((segments(), journal.unpublished), (1, PUBLISH_EVERY + 4));
    *short.lock().unwrap() = false;
    journal.commit(&batch(4), &mut OsRng).unwrap();
    assert_eq!((segments(), journal.unpublished), (2, 0));
    journal.close().unwrap();
    let report = verify_dir(dir.path()).unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(read_records(dir.path()).unwrap().count(), 10);
}

#[test]
fn nothing_is_opened_between_a_change_and_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = SystemFolder::default();
    drop(folder.create(&dir.path().join("one.tmp")).unwrap());
    let elsewhere = dir.path().with_extension("moved");
    std::fs::rename(dir.path(), &elsewhere).unwrap();
    assert!(
        SystemFolder::default().sync(dir.path()).is_err(),
        "it is not there"
    );
    folder.sync(dir.path()).unwrap();
    std::fs::remove_dir_all(&elsewhere).unwrap();
}

#[test]
fn a_disk_that_takes_nothing_is_an_error() {
    struct Nothing;
    impl Disk for Nothing {
        fn write_some(&mut self, _: u64, _: &[u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = Nothing.write_at(0, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}
