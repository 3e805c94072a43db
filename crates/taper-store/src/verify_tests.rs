use proptest::prelude::*;
use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::{CHECKPOINT_FILE, HEAD_FILE};
use crate::disk::FolderLock;
use crate::frame::{self, encode_record};
use crate::journal::{Journal, LOCK_FILE, Options};
use crate::record::tests::decision;
use crate::tree::{self, Tree};

fn open(dir: &Path) -> Journal {
    let lock = FolderLock::take(dir, LOCK_FILE).unwrap();
    Journal::open(dir, "test", lock, Options::default(), &mut OsRng)
        .unwrap()
        .0
}

/// The first segment.
fn log(dir: &Path) -> PathBuf {
    segment::path(dir, 0)
}

/// Bytes of a segment's header.
fn header(bytes: &[u8]) -> usize {
    segment::read(&mut &bytes[..]).unwrap().length as usize
}

fn payload(n: usize) -> Vec<u8> {
    encode_record(&decision(&format!("decision-{n}"))).unwrap()
}

/// A closed journal of `count` records, one commit each.
fn folder(count: usize) -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for n in 0..count {
        journal.commit(&[payload(n)], &mut OsRng).unwrap();
    }
    journal.close().unwrap();
    let bytes = fs::read(log(dir.path())).unwrap();
    (dir, bytes)
}

fn write_log(dir: &Path, bytes: &[u8]) -> VerifyReport {
    fs::write(log(dir), bytes).unwrap();
    verify_dir(dir).unwrap()
}

#[test]
fn a_good_journal_is_good_while_it_is_written_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for n in 0..5 {
        journal.commit(&[payload(n)], &mut OsRng).unwrap();
        let report = verify_dir(dir.path()).unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(
            (report.records, report.tree_size, report.uncheckpointed),
            (n as u64 + 1, n as u64 + 1, 0)
        );
        assert_eq!(report.origin, "taper.invalid/journal/test");
    }
    let root = journal.mark().root.to_string();
    journal.close().unwrap();
    let report = verify_dir(dir.path()).unwrap();
    assert!(report.is_ok());
    assert_eq!(report.root, Some(root.clone()));
    let published = fs::read_to_string(dir.path().join(CHECKPOINT_FILE)).unwrap();
    assert!(
        published.starts_with(&format!("taper.invalid/journal/test\n5\n{root}\n\n")),
        "{published}"
    );
}

#[test]
fn an_empty_journal_is_good() {
    let (dir, _) = folder(0);
    let report = verify_dir(dir.path()).unwrap();
    assert!(report.is_ok() && report.records == 0);
    assert_eq!(read_records(dir.path()).unwrap().count(), 0);
}

#[test]
fn records_come_back_with_what_proves_them() {
    let (dir, _) = folder(3);
    let records: Vec<_> = read_records(dir.path()).unwrap().map(Result::unwrap).collect();
    let mut tree = Tree::default();
    for (n, stored) in records.iter().enumerate() {
        assert_eq!(
            (stored.index, &stored.record),
            (n as u64, &decision(&format!("decision-{n}")))
        );
        tree.push(&tree::entry(&stored.salt, stored.payload.as_bytes()));
    }
    assert_eq!(records.len(), 3);
    assert_eq!(
        verify_dir(dir.path()).unwrap().root,
        Some(tree.root().to_string())
    );
    assert_ne!(records[0].salt, records[1].salt);
}

#[test]
fn every_lost_byte_is_found() {
    let (dir, bytes) = folder(2);
    for length in 0..bytes.len() {
        let report = write_log(dir.path(), &bytes[..length]);
        assert!(!report.is_ok() && report.first_bad.is_some(), "length {length}");
        let last = read_records(dir.path()).unwrap().last();
        assert!(
            matches!(last, Some(Err(StoreError::Damaged { .. }))),
            "length {length}"
        );
    }
    fs::remove_file(log(dir.path())).unwrap();
    assert!(!verify_dir(dir.path()).unwrap().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_flipped_bit_is_found_where_it_is(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (dir, mut bytes) = folder(3);
        let starts: Vec<u64> = read_records(dir.path()).unwrap().map(|r| r.unwrap().offset).collect();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let report = write_log(dir.path(), &bytes);
        prop_assert!(!report.is_ok());
        let bad = report.first_bad.unwrap();
        let hit = starts.iter().rposition(|start| *start <= at as u64).unwrap_or(0);
        prop_assert_eq!(bad.index, hit as u64);
    }
}

#[test]
fn a_record_rewritten_with_a_right_checksum_is_found() {
    let (dir, bytes) = folder(2);
    let mut forged = bytes[..header(&bytes)].to_vec();
    frame::encode(0, &[0; 16], &payload(7), &mut forged).unwrap();
    frame::encode(1, &[0; 16], &payload(8), &mut forged).unwrap();
    let report = write_log(dir.path(), &forged);
    assert!(!report.is_ok() && !report.checkpoint_ok, "{report:?}");
}

#[test]
fn what_was_never_acknowledged_is_told_apart() {
    let (dir, bytes) = folder(1);
    let mut longer = bytes.clone();
    frame::encode(1, &[0; 16], &payload(1), &mut longer).unwrap();
    let report = write_log(dir.path(), &longer);
    assert!(report.is_ok());
    assert_eq!(
        (
            report.records,
            report.tree_size,
            report.uncheckpointed,
            report.tail_bytes
        ),
        (2, 1, 1, 0)
    );
    let report = write_log(dir.path(), &longer[..longer.len() - 1]);
    assert!(report.is_ok());
    let tail = (longer.len() - 1 - bytes.len()) as u64;
    assert_eq!(
        (report.records, report.uncheckpointed, report.tail_bytes),
        (1, 0, tail)
    );
    assert_eq!(read_records(dir.path()).unwrap().count(), 1);
}

#[test]
fn bad_checkpoints_are_found() {
    let check = |file: &str, at: usize| {
        let (dir, _) = folder(1);
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let report = verify_dir(dir.path()).unwrap();
        match &report.torn_slot {
            Some(problem) => assert!(
                problem.contains(file) && file == HEAD_FILE && report.is_ok(),
                "{report:?}"
            ),
            None => assert!(
                !report.is_ok() && report.checkpoint_problems[0].contains(file),
                "{report:?}"
            ),
        }
        report
    };
    assert!(check(HEAD_FILE, 30).torn_slot.is_some());
    assert!(check(HEAD_FILE, 4096 + 30).torn_slot.is_some());
    assert!(!check(CHECKPOINT_FILE, 30).is_ok());

    let (dir, _) = folder(1);
    fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    assert!(!verify_dir(dir.path()).unwrap().is_ok());
    fs::remove_file(dir.path().join(PUB_FILE)).unwrap();
    assert!(verify_dir(dir.path()).is_err());
}

#[test]
fn journals_are_found_at_any_depth_and_never_missed_for_lack_of_a_log() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("issuer/store"), root.path().join("proxy"));
    for dir in [&a, &b] {
        fs::create_dir_all(dir).unwrap();
        open(dir).close().unwrap();
    }
    fs::remove_file(log(&b)).unwrap();
    assert_eq!(find_journals(root.path()).unwrap(), [a.clone(), b]);
    assert_eq!(find_journals(&a).unwrap(), [a]);
    assert!(find_journals(&root.path().join("none")).is_err());
}

#[test]
fn a_damaged_journal_is_not_hidden_by_the_name_of_its_folder() {
    let (dir, mut bytes) = folder(3);
    let root = dir.path();
    // By hand: the journal beside it says nothing of a repair.
    let aside = root.join("damaged-1");
    fs::create_dir(&aside).unwrap();
    for name in [
        &segment::name(0),
        HEAD_FILE,
        CHECKPOINT_FILE,
        "journal.key",
        PUB_FILE,
    ] {
        fs::copy(root.join(name), aside.join(name)).unwrap();
    }
    let found = [root.to_path_buf(), aside.clone()];
    assert_eq!(find_journals(root).unwrap(), found);

    fs::remove_dir_all(&aside).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    write_log(root, &bytes);
    crate::repair::repair(root, None, false, 7, &mut OsRng).unwrap();
    assert!(aside.join(PUB_FILE).exists());
    assert_eq!(find_journals(root).unwrap(), [root]);
    let others = [root.join("damaged-x"), root.join("damaged-")];
    for other in &others {
        fs::create_dir(other).unwrap();
        fs::copy(aside.join(PUB_FILE), other.join(PUB_FILE)).unwrap();
    }
    assert_eq!(find_journals(root).unwrap().len(), 3);

    // A journal that cannot be read says nothing either.
    fs::write(log(root), b"nothing").unwrap();
    assert!(find_journals(root).unwrap().contains(&aside));
}

#[test]
fn a_checkpoint_kept_elsewhere_shows_what_the_folder_alone_cannot() {
    let (dir, _) = folder(3);
    let kept = fs::read(dir.path().join(CHECKPOINT_FILE)).unwrap();
    let against = |dir: &Path| verify_against(dir, &kept).unwrap();
    assert!(against(dir.path()).is_ok());
    let mut journal = open(dir.path());
    journal.commit(&[payload(3)], &mut OsRng).unwrap();
    journal.close().unwrap();
    assert!(against(dir.path()).is_ok(), "it has grown");

    // The same key signs a shorter history, and one that differs.
    for records in [vec![0], vec![7, 8, 9, 10]] {
        let forged = tempfile::tempdir().unwrap();
        for name in ["journal.key", PUB_FILE] {
            fs::copy(dir.path().join(name), forged.path().join(name)).unwrap();
        }
        let mut journal = open(forged.path());
        for n in &records {
            journal.commit(&[payload(*n)], &mut OsRng).unwrap();
        }
        journal.close().unwrap();
        assert!(
            verify_dir(forged.path()).unwrap().is_ok(),
            "nothing in the folder tells"
        );
        let report = against(forged.path());
        let problem = if records.len() < 3 {
            "signs for 3 records, those of the journal for 1"
        } else {
            "the first 3 records are not the ones that were signed"
        };
        assert!(
            !report.is_ok() && report.checkpoint_problems[0].contains(problem),
            "{report:?}"
        );
    }
    let (foreign, _) = folder(3);
    let report = against(foreign.path());
    assert!(
        !report.is_ok() && report.checkpoint_problems[0].contains("kept elsewhere"),
        "{report:?}"
    );
}

#[test]
fn a_journal_of_many_segments_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1,
        ..Options::default()
    };
    let lock = FolderLock::take(dir.path(), LOCK_FILE).unwrap();
    let (mut journal, _) = Journal::open(dir.path(), "test", lock, options, &mut OsRng).unwrap();
    for n in 0..4 {
        journal.commit(&[payload(n)], &mut OsRng).unwrap();
        let reading = read_records(dir.path()).unwrap();
        let places = reading.map(|stored| stored.map(|stored| (stored.index, stored.segment)));
        let expected = (0..=n as u64).map(|n| (n, segment::name(n)));
        assert_eq!(
            places.collect::<Result<Vec<_>, _>>().unwrap(),
            expected.collect::<Vec<_>>()
        );
    }
    let report = verify_dir(dir.path()).unwrap();
    assert!(report.is_ok());
    assert_eq!((report.segments, report.first, report.records), (4, 0, 4));

    let path = segment::path(dir.path(), 2);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let bad = verify_dir(dir.path()).unwrap().first_bad.unwrap();
    assert_eq!((bad.segment, bad.index), (segment::name(2), 2));
}
