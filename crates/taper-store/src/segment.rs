//! One file of the journal: what its first bytes say, and what it is called.
//!
//! The journal is a row of segments, `journal-<number of the first record, 20 digits>.log`; only the
//! newest grows. A segment starts with the state of the tree before its first record, signed, so it
//! can be verified by itself and the older ones can be dropped with that checkpoint left behind.
//!
//! ```text
//! "taper-journal-2\n"
//! first   u64, big endian      number of the first record = size of the tree before it
//! count   u8                   peaks of that tree
//! peaks   count × 32 bytes     roots of its perfect subtrees, largest first
//! length  u16, big endian      bytes of the note
//! note                         the signed checkpoint of that tree
//! check   32 bytes             SHA-256 over everything before
//! ```

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tlog_tiles::tlog::Hash;

use crate::checkpoint::Trust;
use crate::error::StoreError;
use crate::frame::read_up_to;
use crate::tree::Tree;

/// The first bytes of a segment.
pub(crate) const MAGIC: &[u8; 16] = b"taper-journal-2\n";
/// Bytes of a note at most; ours are under 400.
const NOTE_LIMIT: usize = 4096;
const PREFIX: &str = "journal-";
const SUFFIX: &str = ".log";
const DIGITS: usize = 20;

/// What a segment starts with.
#[derive(Debug)]
pub(crate) struct Header {
    /// The tree before the segment's first record.
    pub(crate) tree: Tree,
    /// The checkpoint of that tree, signed.
    pub(crate) note: Vec<u8>,
    /// Bytes of the header, which is where the first record starts.
    pub(crate) length: u64,
}

impl Header {
    /// Refuses a header whose checkpoint is not the journal's, or of another tree.
    pub(crate) fn check(&self, trust: &Trust) -> Result<(), String> {
        let head = trust
            .verify(&self.note)
            .map_err(|e| format!("its checkpoint: {e}"))?;
        if (head.size, head.root) == (self.tree.size(), self.tree.root()) {
            Ok(())
        } else {
            Err("its checkpoint is of another tree".into())
        }
    }
}

/// The name of the segment whose first record has the number `first`.
pub(crate) fn name(first: u64) -> String {
    format!("{PREFIX}{first:0DIGITS$}{SUFFIX}")
}

/// The segment in `dir` whose first record has the number `first`.
pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(name(first))
}

/// What the segments in `dir` take, in bytes, and how many there are. It reads the folder: not for a
/// runtime thread.
///
/// # Errors
/// When the folder or a file of it cannot be read.
pub fn journal_size(dir: &Path) -> io::Result<(u64, usize)> {
    let (mut bytes, mut files) = (0_u64, 0_usize);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().and_then(first_of).is_none() {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => {
                bytes = bytes.saturating_add(metadata.len());
                files = files.saturating_add(1);
            }
            // Old records are dropped while somebody counts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, files))
}

/// The first record of each segment in `dir`, in order.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        found.extend(entry.file_name().to_str().and_then(first_of));
    }
    found.sort_unstable();
    Ok(found)
}

/// The bytes of a segment without records.
pub(crate) fn encode(tree: &Tree, note: &[u8]) -> Result<Vec<u8>, StoreError> {
    let unfit = || StoreError::MalformedRecord("the checkpoint does not fit a segment's header".into());
    let count = u8::try_from(tree.peaks().len()).map_err(|_| unfit())?;
    let length = u16::try_from(note.len()).map_err(|_| unfit())?;
    if note.len() > NOTE_LIMIT {
        return Err(unfit());
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&tree.size().to_be_bytes());
    bytes.push(count);
    for peak in tree.peaks() {
        bytes.extend_from_slice(&peak.0);
    }
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(note);
    let check = Sha256::digest(&bytes);
    bytes.extend_from_slice(&check);
    Ok(bytes)
}

/// Why a header could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The system refused to read it.
    Io(io::Error),
    /// It is not as it was written.
    Bad(&'static str),
}

/// Reads a header and leaves the reader at the first record. Its checkpoint is not verified here.
pub(crate) fn read(reader: &mut impl Read) -> Result<Header, Unread> {
    let mut parts = Parts {
        reader,
        hash: Sha256::new(),
        length: 0,
    };
    if parts.take(MAGIC.len())? != MAGIC {
        return Err(Unread::Bad("it does not start with the journal's magic line"));
    }
    let first = parts.number(8)?;
    let count = parts.number(1)?;
    let mut peaks = Vec::new();
    for _ in 0..count {
        let peak = parts.take(32)?.try_into();
        peaks.extend(peak.map(Hash));
    }
    let size = usize::try_from(parts.number(2)?).unwrap_or(usize::MAX);
    if size > NOTE_LIMIT {
        return Err(Unread::Bad("the checkpoint in its header is beyond the limit"));
    }
    let note = parts.take(size)?;
    let check: [u8; 32] = parts.hash.clone().finalize().into();
    if parts.take(check.len())? != check {
        return Err(Unread::Bad("the checksum of its header does not match"));
    }
    let tree = Tree::from_peaks(first, peaks).ok_or(Unread::Bad("its header has a wrong number of peaks"))?;
    Ok(Header {
        tree,
        note,
        length: parts.length,
    })
}

/// Reads and hashes one part after the other.
struct Parts<'a, R> {
    reader: &'a mut R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Parts<'_, R> {
    fn take(&mut self, size: usize) -> Result<Vec<u8>, Unread> {
        let mut bytes = vec![0; size];
        if read_up_to(self.reader, &mut bytes).map_err(Unread::Io)? < size {
            return Err(Unread::Bad("the file ends within its header"));
        }
        self.hash.update(&bytes);
        self.length += size as u64;
        Ok(bytes)
    }

    fn number(&mut self, size: usize) -> Result<u64, Unread> {
        let bytes = self.take(size)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

/// The number in a segment's name, which has one spelling.
fn first_of(file: &str) -> Option<u64> {
    let digits = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let canonical = digits.len() == DIGITS && digits.bytes().all(|c| c.is_ascii_digit());
    canonical.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|n| tree.push(&[n as u8; 32]));
        tree
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(name(0), "journal-00000000000000000000.log");
        for first in [0, 7, u64::MAX] {
            assert_eq!(first_of(&name(first)), Some(first));
        }
        let too_large = format!("{PREFIX}{}{SUFFIX}", "9".repeat(DIGITS));
        for other in [
            "journal.log",
            "journal-7.log",
            "journal-+0000000000000000007.log",
            "journal-00000000000000000000.tmp",
            &too_large,
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    #[test]
    fn segments_are_listed_in_order_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        for file in [&name(12), &name(0), &name(3), "journal.head", "journal-1.log"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [0, 3, 12]);
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_written_and_no_flipped_bit_passes(
            size in 0..70_u64,
            note in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = encode(&tree(size), &note).unwrap();
            let header = read(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&header.tree, &tree(size));
            prop_assert_eq!(&header.note, &note);
            prop_assert_eq!(header.length, bytes.len() as u64);
            let at = at.index(bytes.len());
            prop_assert!(read(&mut &bytes[..at]).is_err(), "cut");
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&mut bytes.as_slice()).is_err(), "flipped");
        }
    }

    #[test]
    fn a_note_beyond_the_limit_is_neither_written_nor_read() {
        assert!(encode(&tree(1), &[0; NOTE_LIMIT + 1]).is_err());
        let mut bytes = encode(&tree(0), &[0; NOTE_LIMIT]).unwrap();
        bytes[MAGIC.len() + 9] = 0xff;
        assert!(matches!(
            read(&mut bytes.as_slice()),
            Err(Unread::Bad("the checkpoint in its header is beyond the limit"))
        ));
    }
}
