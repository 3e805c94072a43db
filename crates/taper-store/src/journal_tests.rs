use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::disk::tests::Watched;

/// A folder with one commit per group of payloads, and the journal's bytes.
fn folder(groups: &[&[&str]]) -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    for group in groups {
        let payloads: Vec<_> = group.iter().map(|p| p.as_bytes().to_vec()).collect();
        journal.commit(&payloads, &mut OsRng).unwrap();
    }
    drop(journal);
    let bytes = fs::read(dir.path().join(LOG_FILE)).unwrap();
    (dir, bytes)
}

pub(crate) fn open(dir: &Path) -> Result<(Journal, Opened), StoreError> {
    Journal::open(dir, "test", FolderLock::take(dir, LOCK_FILE)?, 0, &mut OsRng)
}

/// Every payload, read without the journal.
fn payloads(dir: &Path) -> Vec<String> {
    let mut frames = frames_from(dir, 0, FIRST_OFFSET).unwrap();
    let mut out = Vec::new();
    while let Step::Frame(frame) = frames.step().unwrap() {
        out.push(String::from_utf8(frame.payload).unwrap());
    }
    out
}

#[test]
fn commits_come_back_in_order_across_reopening() {
    let (dir, _) = folder(&[&["a", "b"], &["c"]]);
    let (mut journal, opened) = open(dir.path()).unwrap();
    assert!(!opened.created && opened.dropped_bytes == 0);
    journal.commit(&[b"d".to_vec()], &mut OsRng).unwrap();
    journal.close().unwrap();
    assert_eq!(payloads(dir.path()), ["a", "b", "c", "d"]);
}

#[test]
fn a_torn_tail_that_nobody_was_told_about_is_dropped_at_every_length() {
    let (dir, whole) = folder(&[&["a"], &["b"]]);
    // One more record, written without its checkpoint, as a crash before the answer leaves it.
    let mut torn = whole.clone();
    frame::encode(2, &[9; 16], b"never acknowledged", &mut torn).unwrap();
    for length in whole.len()..torn.len() {
        fs::write(dir.path().join(LOG_FILE), &torn[..length]).unwrap();
        let (journal, opened) = open(dir.path()).unwrap();
        assert_eq!(opened.dropped_bytes, (length - whole.len()) as u64);
        assert_eq!(journal.mark().size, 2);
        drop(journal);
        assert_eq!(fs::read(dir.path().join(LOG_FILE)).unwrap(), whole);
    }
    fs::write(dir.path().join(LOG_FILE), &torn).unwrap();
    let (journal, opened) = open(dir.path()).unwrap();
    assert_eq!(
        (journal.mark().size, opened.dropped_bytes),
        (3, 0),
        "a whole record is kept"
    );
}

#[test]
fn losing_any_acknowledged_byte_is_damage() {
    let (dir, whole) = folder(&[&["a"], &["b"]]);
    for length in 0..whole.len() {
        fs::write(dir.path().join(LOG_FILE), &whole[..length]).unwrap();
        let error = open(dir.path()).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "length {length}: {error}"
        );
        assert_eq!(
            fs::read(dir.path().join(LOG_FILE)).unwrap().len(),
            length,
            "nothing is repaired"
        );
    }
}

#[test]
fn damage_says_where() {
    let (dir, mut bytes) = folder(&[&["a"], &["b"], &["c"]]);
    let second = MAGIC.len() + frame::HEADER + 1;
    bytes[second + frame::HEADER] ^= 1;
    fs::write(dir.path().join(LOG_FILE), &bytes).unwrap();
    let said = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains(&format!("record 1 (byte {second})")), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_flipped_bit_refuses_to_open(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (dir, mut bytes) = folder(&[&["a", "b"], &["c"]]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(dir.path().join(LOG_FILE), &bytes).unwrap();
        let damaged = matches!(open(dir.path()), Err(StoreError::Damaged { .. }));
        prop_assert!(damaged);
    }
}

#[test]
fn a_rewritten_record_contradicts_the_checkpoint() {
    let (dir, _) = folder(&[&["a"], &["b"]]);
    let mut forged = MAGIC.to_vec();
    frame::encode(0, &[0; 16], b"x", &mut forged).unwrap();
    frame::encode(1, &[0; 16], b"y", &mut forged).unwrap();
    fs::write(dir.path().join(LOG_FILE), forged).unwrap();
    let said = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("not the ones that were signed"), "{said}");
}

#[test]
fn missing_or_foreign_files_are_refused() {
    let check = |file: &str, expect: &str| {
        let (dir, _) = folder(&[&["a"]]);
        fs::remove_file(dir.path().join(file)).unwrap();
        let said = open(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(expect), "{file}: {said}");
    };
    check("journal.log", "journal.log is missing");
    check("journal.key", "journal.key is missing");
    check("journal.pub", "journal.pub is missing");
    check("journal.head", "journal.head");

    let (dir, _) = folder(&[&["a"]]);
    fs::write(dir.path().join(CHECKPOINT_FILE), "taper\n").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Untrusted { .. })));

    let (dir, _) = folder(&[&["a"]]);
    let lock = FolderLock::take(dir.path(), LOCK_FILE).unwrap();
    let other = Journal::open(dir.path(), "other", lock, 0, &mut OsRng)
        .map(|_| ())
        .unwrap_err();
    assert!(
        other
            .to_string()
            .contains("belongs to `taper.invalid/journal/test`"),
        "{other}"
    );

    let key = dir.path().join("journal.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::KeyMode { .. })));
}

#[test]
fn a_crash_during_creation_is_not_damage() {
    let (dir, _) = folder(&[]);
    for name in [HEAD_FILE, CHECKPOINT_FILE] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(open(dir.path()).unwrap().1.created);
}

#[test]
fn a_torn_slot_leaves_the_other() {
    let (dir, whole) = folder(&[&["a"], &["b"]]);
    // Opening wrote slot 0, the commits slots 1 and 0.
    let path = dir.path().join(HEAD_FILE);
    let mut slots = fs::read(&path).unwrap();
    slots[..100].fill(0);
    fs::write(&path, slots).unwrap();
    let (journal, opened) = open(dir.path()).unwrap();
    assert_eq!((journal.mark().size, opened.dropped_bytes), (2, 0));
    drop(journal);
    assert_eq!(fs::read(dir.path().join(LOG_FILE)).unwrap(), whole);
}

#[test]
fn a_failed_sync_poisons_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    let (syncs, failing) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    journal.wrap(|inner| {
        Box::new(Watched {
            inner: Boxed(inner),
            syncs: Arc::clone(&syncs),
            failing: Arc::clone(&failing),
        })
    });
    journal.commit(&[b"a".to_vec()], &mut OsRng).unwrap();
    assert_eq!(
        syncs.load(Ordering::SeqCst),
        2,
        "the records, then their checkpoint"
    );
    failing.store(true, Ordering::SeqCst);
    assert!(matches!(
        journal.commit(&[b"b".to_vec()], &mut OsRng),
        Err(StoreError::Io { .. })
    ));
    failing.store(false, Ordering::SeqCst);
    assert!(matches!(
        journal.commit(&[b"c".to_vec()], &mut OsRng),
        Err(StoreError::Poisoned(_))
    ));
    drop(journal);
    assert_eq!(
        open(dir.path()).unwrap().0.mark().size,
        2,
        "`b` was written, `c` was not"
    );
}

/// A boxed disk as a disk.
pub(crate) struct Boxed(pub(crate) Box<dyn Disk>);

impl Disk for Boxed {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }
}
