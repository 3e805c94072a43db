//! Reading what can be read of a damaged journal: behind a bad record the next good one is looked for.
//!
//! A good frame proves itself by its checksum, which covers its number. So records are found again
//! behind damage of any kind, and only what was hit is lost. A checksum finds accidents, not forgery:
//! what is salvaged is no longer proved by the signed tree.

use std::fs;
use std::path::Path;

use tlog_tiles::tlog::Hash;

use crate::checkpoint::Trust;
use crate::error::StoreError;
use crate::frame::{self, Frame, HEADER, MAX_PAYLOAD, decode_record};
use crate::record::Record;
use crate::retain::retired;
use crate::segment;
use crate::tree::{self, Tree};

/// Records that may be missing without any bytes in their place, and the next one still be found.
const GAP: u64 = 1024;
/// Bytes that are hashed in a segment to find numbers: damage must not make a repair last for hours.
const BUDGET: u64 = 8 * 1024 * 1024 * 1024;
/// What every payload starts with.
const BEGINNING: &[u8] = br#"{"at_ms":"#;
/// Bytes that a record takes at least.
const SMALLEST: usize = HEADER + BEGINNING.len();

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// Records that could be read, as (first, first that could not).
    pub(crate) kept: Vec<(u64, u64)>,
    /// Up to where records were dropped on purpose.
    pub(crate) retired: u64,
    /// The root of the tree of the size that was asked for, where signed segments lead to it.
    pub(crate) root: Option<Hash>,
    /// The size and root that the newest good header of a segment is signed for.
    pub(crate) signed: Option<(u64, Hash)>,
}

impl Salvaged {
    /// The records below `size` that could not be read, without those that were dropped on purpose.
    pub(crate) fn lost(&self, size: u64) -> Vec<(u64, u64)> {
        let mut lost = Vec::new();
        let mut next = self.retired.min(size);
        for (first, end) in &self.kept {
            if *first > next {
                lost.push((next, (*first).min(size)));
            }
            next = next.max(*end);
        }
        if next < size {
            lost.push((next, size));
        }
        lost.retain(|(first, end)| first < end);
        lost
    }

    fn keep(&mut self, index: u64) {
        match self.kept.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => self.kept.push((index, index + 1)),
        }
    }
}

/// Shows every record of `dir` that can be read, in order. `root_at` is the size for
/// [`Salvaged::root`].
pub(crate) fn salvage(
    dir: &Path,
    trust: Option<&Trust>,
    root_at: u64,
    mut show: impl FnMut(u64, Record) -> Result<(), StoreError>,
) -> Result<Salvaged, StoreError> {
    let mut found = Salvaged::default();
    let segments = segment::list(dir)?;
    for (n, first) in segments.iter().enumerate() {
        let end = segments.get(n + 1).copied().unwrap_or(u64::MAX);
        let path = segment::path(dir, *first);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let header = segment::read(&mut bytes.as_slice())
            .ok()
            .filter(|header| header.tree.size() == *first);
        let offset = header.as_ref().map_or(0, |header| header.length);
        let signed = header.filter(|header| trust.is_some_and(|trust| header.check(trust).is_ok()));
        let mut tree = signed.map(|header| header.tree);
        if let Some(tree) = &tree {
            found.signed = Some((tree.size(), tree.root()));
        }
        let mut position = Position {
            bytes: &bytes,
            offset: usize::try_from(offset).unwrap_or(usize::MAX),
            index: *first,
            end,
            budget: BUDGET,
        };
        loop {
            note_root(tree.as_ref(), root_at, &mut found);
            let expected = position.index;
            let Some((index, frame)) = position.advance() else {
                break;
            };
            if index != expected {
                tree = None;
            }
            if let Some(tree) = &mut tree {
                tree.push(&tree::entry(&frame.salt, &frame.payload));
            }
            if let Ok(record) = decode_record(&frame.payload) {
                let retired = retired(&frame.payload).map_or(0, |retired| retired.end);
                found.retired = found.retired.max(retired);
                found.keep(index);
                show(index, record)?;
            }
        }
    }
    Ok(found)
}

fn note_root(tree: Option<&Tree>, root_at: u64, found: &mut Salvaged) {
    if let Some(tree) = tree.filter(|tree| tree.size() == root_at) {
        found.root = Some(tree.root());
    }
}

/// A place in a segment.
struct Position<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// The number that a record here should have.
    index: u64,
    /// Numbers of the segment are below.
    end: u64,
    /// Bytes that may still be hashed to find numbers.
    budget: u64,
}

impl Position<'_> {
    /// The next record that can be read, with its number.
    fn advance(&mut self) -> Option<(u64, Frame)> {
        if let Some(frame) = self.frame_at(self.offset, self.index) {
            return Some(self.take(self.offset, self.index, frame));
        }
        // Most likely only the payload or the checksum of one record was hit.
        if let Some(offset) = self.skipped()
            && let Some(frame) = self.frame_at(offset, self.index + 1)
        {
            return Some(self.take(offset, self.index + 1, frame));
        }
        self.search()
    }

    /// Looks for the next record behind a gap. Its check covers its number, so numbers are tried, but
    /// only those that fit: records that were passed, since they are whole but for their number or
    /// checksum, count as one each, and the bytes between as any number of records.
    fn search(&mut self) -> Option<(u64, Frame)> {
        let (mut at, mut passed, mut unknown) = (self.offset, 0_u64, 0_u64);
        while at < self.bytes.len() {
            let Some(next) = self.record_at(at) else {
                (at, unknown) = (at + 1, unknown + 1);
                continue;
            };
            let nearest = self.index.saturating_add(passed);
            let furthest = nearest.saturating_add(unknown / SMALLEST as u64);
            let size = (next - at) as u64;
            let widely = self.index..furthest.saturating_add(GAP);
            for index in (nearest..=furthest).chain(widely) {
                // The likeliest number is always tried.
                if index != nearest && self.budget < size {
                    break;
                }
                self.budget = self.budget.saturating_sub(size);
                if let Some(frame) = self.frame_at(at, index) {
                    return Some(self.take(at, index, frame));
                }
            }
            (at, passed) = (next, passed + 1);
        }
        None
    }

    fn take(&mut self, offset: usize, index: u64, frame: Frame) -> (u64, Frame) {
        self.offset = offset + HEADER + frame.payload.len();
        self.index = index + 1;
        (index, frame)
    }

    fn frame_at(&self, offset: usize, index: u64) -> Option<Frame> {
        if index >= self.end {
            return None;
        }
        frame::parse(self.bytes.get(offset..)?, index)
    }

    /// Where the record after this one starts, if the length of this one is right.
    fn skipped(&self) -> Option<usize> {
        let length = self.bytes.get(self.offset..)?.first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        self.offset.checked_add(HEADER)?.checked_add(length)
    }

    /// Where the record at `offset` ends, if its payload is one, whatever its number and checksum.
    fn record_at(&self, offset: usize) -> Option<usize> {
        let bytes = self.bytes.get(offset..)?;
        let payload = bytes.get(HEADER..)?;
        if !payload.starts_with(BEGINNING) {
            return None;
        }
        let length = usize::try_from(u32::from_be_bytes(*bytes.first_chunk::<4>()?)).ok()?;
        let payload = payload
            .get(..length)
            .filter(|payload| payload.len() <= MAX_PAYLOAD)?;
        decode_record(payload).ok()?;
        Some(offset + HEADER + length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_core::OsRng;

    use super::*;
    use crate::frame::encode_record;
    use crate::journal::Options;
    use crate::journal::tests::open_with;
    use crate::record::tests::decision;

    const COUNT: u64 = 12;

    /// A journal of twelve records in three segments, with the first record of each.
    fn folder() -> (tempfile::TempDir, Vec<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 2000,
            ..Options::default()
        };
        let (mut journal, _) = open_with(dir.path(), options).unwrap();
        for n in 0..COUNT {
            let payload = encode_record(&decision(&n.to_string())).unwrap();
            journal.commit(&[payload], &mut OsRng).unwrap();
        }
        journal.close().unwrap();
        let segments = segment::list(dir.path()).unwrap();
        assert!(segments.len() >= 3);
        (dir, segments)
    }

    fn read(dir: &Path) -> (Vec<u64>, Salvaged) {
        let trust = Trust::load(dir).unwrap();
        let mut indexes = Vec::new();
        let found = salvage(dir, Some(&trust), COUNT, |index, record| {
            assert_eq!(record, decision(&index.to_string()), "under its own number");
            indexes.push(index);
            Ok(())
        });
        (indexes, found.unwrap())
    }

    #[test]
    fn a_good_journal_is_read_whole_and_leads_to_its_root() {
        let (dir, _) = folder();
        let (indexes, found) = read(dir.path());
        assert_eq!(indexes, (0..COUNT).collect::<Vec<_>>());
        assert_eq!(
            (found.kept.as_slice(), found.lost(COUNT)),
            (&[(0, COUNT)][..], vec![])
        );
        let end = crate::journal::end_of(dir.path()).unwrap();
        assert_eq!(found.root, Some(end.root));
    }

    #[test]
    fn what_was_lost_is_told() {
        let (dir, segments) = folder();
        fs::remove_file(segment::path(dir.path(), segments[1])).unwrap();
        let (_, found) = read(dir.path());
        assert_eq!(found.lost(COUNT), [(segments[1], segments[2])]);
        assert_eq!(found.lost(COUNT + 2).last(), Some(&(COUNT, COUNT + 2)));
        let found = Salvaged {
            retired: 4,
            kept: vec![(5, 6)],
            ..Salvaged::default()
        };
        assert_eq!(found.lost(6), [(4, 5)]);
    }

    /// One segment of many records, its bytes, and how long each is.
    fn many(count: u64) -> (tempfile::TempDir, Vec<u8>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open_with(dir.path(), Options::default()).unwrap();
        // All of one length.
        let payloads: Vec<_> = (10_000..10_000 + count)
            .map(|n| encode_record(&decision(&n.to_string())).unwrap())
            .collect();
        journal.commit(&payloads, &mut OsRng).unwrap();
        journal.close().unwrap();
        let bytes = fs::read(segment::path(dir.path(), 0)).unwrap();
        (dir, bytes, HEADER + payloads[0].len())
    }

    #[test]
    fn a_long_gap_costs_what_it_hit() {
        const RECORDS: u64 = 3200;
        let (dir, good, size) = many(RECORDS);
        let begin = good.len() - size * usize::try_from(RECORDS).unwrap();
        for (first, lost) in [(0, 1100), (800, 1000), (800, 1100), (50, 3000), (2000, 1200)] {
            let mut bytes = good.clone();
            bytes[begin + first * size..begin + (first + lost) * size].fill(0);
            fs::write(segment::path(dir.path(), 0), bytes).unwrap();
            let mut kept = 0;
            let found = salvage(dir.path(), None, 0, |_, _| {
                kept += 1;
                Ok(())
            })
            .unwrap();
            let range = (first as u64, (first + lost) as u64);
            assert_eq!(found.lost(RECORDS), [range]);
            assert_eq!(kept, RECORDS - lost as u64);
        }
    }

    #[test]
    fn many_bad_checksums_cost_one_record_each_and_no_search() {
        const RECORDS: u64 = 3200;
        let (dir, mut bytes, size) = many(RECORDS);
        let begin = bytes.len() - size * usize::try_from(RECORDS).unwrap();
        for n in (400..500).chain([600, 602, 604, 606]) {
            bytes[begin + n * size + 5] ^= 1;
        }
        fs::write(segment::path(dir.path(), 0), bytes).unwrap();
        let found = salvage(dir.path(), None, 0, |_, _| Ok(())).unwrap();
        let expected = [(400, 500), (600, 601), (602, 603), (604, 605), (606, 607)];
        assert_eq!(found.lost(RECORDS), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn one_damaged_place_costs_one_record(
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let (dir, segments) = folder();
            let path = segment::path(dir.path(), segments[which.index(segments.len())]);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let (indexes, found) = read(dir.path());
            prop_assert!(indexes.is_sorted());
            prop_assert!(indexes.len() as u64 >= COUNT - 1, "{:?}", found);
        }

        #[test]
        fn bytes_that_are_gone_or_came_in_cost_what_they_hit(
            at in any::<prop::sample::Index>(),
            cut in 0..400_usize,
            filled in 0..400_usize,
        ) {
            let (dir, _) = folder();
            let path = segment::path(dir.path(), 0);
            let bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            let behind = (at + cut).min(bytes.len());
            let changed = [&bytes[..at], &vec![0xa5; filled], &bytes[behind..]].concat();
            fs::write(&path, changed).unwrap();
            let (indexes, _) = read(dir.path());
            prop_assert!(indexes.len() as u64 >= COUNT - 2, "{:?}", indexes);
        }
    }
}
