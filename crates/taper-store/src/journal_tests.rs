use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::disk::tests::Watched;
use crate::walk::{Chain, Link};

/// A folder with one commit per group of payloads, and the journal's bytes.
fn folder(groups: &[&[&str]]) -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    for group in groups {
        let payloads: Vec<_> = group.iter().map(|p| p.as_bytes().to_vec()).collect();
        journal.commit(&payloads, &mut OsRng).unwrap();
    }
    drop(journal);
    let bytes = fs::read(log(dir.path())).unwrap();
    (dir, bytes)
}

/// Bytes of a segment's header.
fn header(bytes: &[u8]) -> usize {
    segment::read(&mut &bytes[..]).unwrap().length as usize
}

/// The first segment.
fn log(dir: &Path) -> PathBuf {
    segment::path(dir, 0)
}

pub(crate) fn open(dir: &Path) -> Result<(Journal, Opened), StoreError> {
    open_with(dir, Options::default())
}

pub(crate) fn open_with(dir: &Path, options: Options) -> Result<(Journal, Opened), StoreError> {
    Journal::open(
        dir,
        "test",
        FolderLock::take(dir, LOCK_FILE)?,
        options,
        &mut OsRng,
    )
}

/// Every payload, read without the journal.
fn payloads(dir: &Path) -> Vec<String> {
    let mut chain = Chain::start(dir);
    let mut out = Vec::new();
    loop {
        match chain.step().unwrap() {
            Link::Segment(_) => {}
            Link::Frame(frame) => out.push(String::from_utf8(frame.payload).unwrap()),
            Link::End => return out,
            other => panic!("{other:?}"),
        }
    }
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
fn what_nobody_was_told_about_is_dropped_at_every_length_and_whole() {
    let (dir, whole) = folder(&[&["a"], &["b"]]);
    // One more record, written without its checkpoint, as a crash before the answer leaves it.
    let mut torn = whole.clone();
    frame::encode(2, &[9; 16], b"never acknowledged", &mut torn).unwrap();
    for length in whole.len()..=torn.len() {
        fs::write(log(dir.path()), &torn[..length]).unwrap();
        let (journal, opened) = open(dir.path()).unwrap();
        assert_eq!(opened.dropped_bytes, (length - whole.len()) as u64);
        assert_eq!(journal.mark().size, 2);
        drop(journal);
        assert_eq!(fs::read(log(dir.path())).unwrap(), whole);
    }
}

#[test]
fn losing_any_acknowledged_byte_is_damage() {
    let (dir, whole) = folder(&[&["a"], &["b"]]);
    for length in 0..whole.len() {
        fs::write(log(dir.path()), &whole[..length]).unwrap();
        let error = open(dir.path()).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "length {length}: {error}"
        );
        assert_eq!(
            fs::read(log(dir.path())).unwrap().len(),
            length,
            "nothing is repaired"
        );
    }
}

#[test]
fn damage_says_where() {
    let (dir, mut bytes) = folder(&[&["a"], &["b"], &["c"]]);
    let second = header(&bytes) + frame::HEADER + 1;
    bytes[second + frame::HEADER] ^= 1;
    fs::write(log(dir.path()), &bytes).unwrap();
    let said = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    let place = format!("`journal-00000000000000000000.log` at record 1 (byte {second})");
    let next = format!("`taper audit repair --dir {} --dry-run`", dir.path().display());
    assert!(said.contains(&place) && said.contains(&next), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_flipped_bit_refuses_to_open(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (dir, mut bytes) = folder(&[&["a", "b"], &["c"]]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(log(dir.path()), &bytes).unwrap();
        let damaged = matches!(open(dir.path()), Err(StoreError::Damaged { .. }));
        prop_assert!(damaged);
    }
}

#[test]
fn a_rewritten_record_contradicts_the_checkpoint() {
    let (dir, bytes) = folder(&[&["a"], &["b"]]);
    let mut forged = bytes[..header(&bytes)].to_vec();
    frame::encode(0, &[0; 16], b"x", &mut forged).unwrap();
    frame::encode(1, &[0; 16], b"y", &mut forged).unwrap();
    fs::write(log(dir.path()), forged).unwrap();
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
    check(&segment::name(0), "no segment");
    check("journal.key", "journal.key is missing");
    check("journal.pub", "journal.pub is missing");
    check("journal.head", "journal.head");

    let (dir, _) = folder(&[&["a"]]);
    fs::write(dir.path().join(CHECKPOINT_FILE), "taper\n").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Untrusted { .. })));

    let (dir, _) = folder(&[&["a"]]);
    let lock = FolderLock::take(dir.path(), LOCK_FILE).unwrap();
    let other = Journal::open(dir.path(), "other", lock, Options::default(), &mut OsRng)
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
fn records_without_their_checkpoints_are_not_a_new_journal() {
    for damage in [false, true] {
        let (dir, mut bytes) = folder(&[&["a"]]);
        for name in [HEAD_FILE, CHECKPOINT_FILE] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        bytes[0] ^= u8::from(damage);
        fs::write(log(dir.path()), bytes).unwrap();
        let said = open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(said.contains("there are records, but no checkpoint"), "{said}");
    }
}

#[test]
fn a_torn_slot_leaves_the_other() {
    // Opening wrote slot 0, the commits slots 1 and 0. A slot that is torn was never answered for.
    for (slot, left) in [(0, 1), (4096, 2)] {
        let (dir, whole) = folder(&[&["a"], &["b"]]);
        let path = dir.path().join(HEAD_FILE);
        let mut slots = fs::read(&path).unwrap();
        slots[slot..slot + 100].fill(0);
        fs::write(&path, slots).unwrap();
        let (journal, opened) = open(dir.path()).unwrap();
        let frame = (frame::HEADER + 1) as u64;
        assert_eq!(
            (journal.mark().size, opened.dropped_bytes),
            (left, (2 - left) * frame)
        );
        drop(journal);
        let length = whole.len() - opened.dropped_bytes as usize;
        assert_eq!(fs::read(log(dir.path())).unwrap(), whole[..length]);
    }
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
        1,
        "`b` was written, but not signed for"
    );
}

/// A boxed disk as a disk.
pub(crate) struct Boxed(pub(crate) Box<dyn Disk>);

impl Disk for Boxed {
    fn write_some(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_some(offset, bytes)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }
}

/// A journal of `count` records, each in a segment of its own, and its segments.
fn rolled(count: u64) -> (TempDir, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), small()).unwrap();
    for n in 0..count {
        journal.commit(&[n.to_string().into_bytes()], &mut OsRng).unwrap();
    }
    journal.close().unwrap();
    let segments = segment::list(dir.path()).unwrap();
    (dir, segments)
}

/// Every commit begins another segment.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 1,
        ..Options::default()
    }
}

#[test]
fn a_large_segment_is_followed_by_another() {
    let (dir, segments) = rolled(5);
    assert_eq!(segments, [0, 1, 2, 3, 4]);
    let (mut journal, opened) = open_with(
        dir.path(),
        Options {
            known: Applied {
                size: 3,
                ..Applied::NOTHING
            },
            ..small()
        },
    )
    .unwrap();
    assert_eq!(opened.mark.map(|mark| mark.place.segment), Some(3));
    journal
        .commit(&[b"5".to_vec(), b"6".to_vec()], &mut OsRng)
        .unwrap();
    drop(journal);
    // Without records a segment is not followed by another, however small the bound.
    for _ in 0..3 {
        drop(open_with(dir.path(), small()).unwrap());
    }
    assert_eq!(segment::list(dir.path()).unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(payloads(dir.path()), ["0", "1", "2", "3", "4", "5", "6"]);
}

#[test]
fn only_the_newest_segment_may_have_a_torn_tail() {
    for torn in 0..3 {
        let (dir, segments) = rolled(3);
        let path = segment::path(dir.path(), segments[torn]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&[0; 11]);
        fs::write(&path, bytes).unwrap();
        match open(dir.path()) {
            Ok((_, opened)) => assert_eq!((torn, opened.dropped_bytes), (2, 11)),
            Err(error) => {
                let said = error.to_string();
                let place = format!("`{}` at record {}", segment::name(segments[torn]), torn + 1);
                assert!(torn < 2 && said.contains(&place), "{said}");
                assert!(said.contains("it is not the newest"), "{said}");
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    for (missing, reason) in [
        (0, "the records before it are missing, and no signed record says"),
        (1, "the next one starts with record 2"),
        (2, "the journal ends here"),
    ] {
        let (dir, segments) = rolled(3);
        fs::remove_file(segment::path(dir.path(), segments[missing])).unwrap();
        let said = open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_segment_of_another_journal_does_not_fit() {
    let ((dir, segments), (other, _)) = (rolled(3), rolled(3));
    let path = segment::path(dir.path(), segments[1]);
    fs::copy(segment::path(other.path(), segments[1]), &path).unwrap();
    let said = open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(said.contains("its checkpoint"), "{said}");

    // Signed with the same key, but after another record.
    for name in ["journal.key", "journal.pub"] {
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    }
    for name in [HEAD_FILE, CHECKPOINT_FILE, &segment::name(0)] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let segments: Vec<u64> = segment::list(dir.path()).unwrap();
    segments
        .iter()
        .for_each(|first| fs::remove_file(segment::path(dir.path(), *first)).unwrap());
    let (mut journal, _) = open_with(dir.path(), small()).unwrap();
    for n in 0..3 {
        journal
            .commit(&[format!("other {n}").into_bytes()], &mut OsRng)
            .unwrap();
    }
    drop(journal);
    fs::copy(segment::path(other.path(), 1), segment::path(dir.path(), 1)).unwrap();
    let said = open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(
        said.contains("the records before it are not the ones that it continues"),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_flipped_bit_in_any_segment_refuses_to_open(
        segment in 0..4_usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (dir, segments) = rolled(4);
        let path = segment::path(dir.path(), segments[segment]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let said = open(dir.path()).map(drop).unwrap_err().to_string();
        prop_assert!(said.contains(&segment::name(segments[segment])), "{}", said);
    }
}
