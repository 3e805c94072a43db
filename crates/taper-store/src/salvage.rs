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
use crate::frame::{self, Frame, HEADER, decode_record};
use crate::record::Record;
use crate::retain::retired;
use crate::segment;
use crate::tree::{self, Tree};

/// Records that may be lost in a row and the next one still be found within the same segment.
const GAP: u64 = 1024;
/// What every payload starts with.
const BEGINNING: &[u8] = br#"{"at_ms":"#;

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
        let from = self.offset;
        let candidates = (from..self.bytes.len()).filter(|offset| self.looks_like_one(*offset));
        for offset in candidates.collect::<Vec<_>>() {
            for index in self.index..self.index.saturating_add(GAP).min(self.end) {
                if let Some(frame) = self.frame_at(offset, index) {
                    return Some(self.take(offset, index, frame));
                }
            }
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

    fn looks_like_one(&self, offset: usize) -> bool {
        let payload = self.bytes.get(offset + HEADER..).unwrap_or_default();
        payload.starts_with(BEGINNING)
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
