//! The head of an RFC 6962 tree that only grows: the roots of its perfect subtrees.
//!
//! At most 64 hashes describe a tree of any size, which is all that signing a checkpoint needs.

use sha2::{Digest as _, Sha256};
use tlog_tiles::tlog::{EMPTY_HASH, Hash, node_hash, record_hash};

/// The entry of one record: SHA-256(salt ‖ payload). The payload can be erased and the tree still
/// stands (RULES 30).
pub(crate) fn entry(salt: &[u8; 16], payload: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(payload);
    hash.finalize().into()
}

/// The tree's size and the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    /// The tree of `size` entries with these peaks; `None` when a tree of that size has another
    /// number of them.
    pub(crate) fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        let wanted = usize::try_from(size.count_ones()).ok()?;
        (peaks.len() == wanted).then_some(Self { size, peaks })
    }

    /// The roots of the perfect subtrees, largest first.
    pub(crate) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// How many entries it has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The perfect subtrees as (level, number in the level, root), largest first.
    pub(crate) fn subtrees(&self) -> impl Iterator<Item = (u8, u64, Hash)> + '_ {
        let mut before = 0;
        let levels = (0..64_u8).rev().filter(|level| self.size >> level & 1 == 1);
        levels.zip(&self.peaks).map(move |(level, hash)| {
            let number = before >> level;
            before += 1 << level;
            (level, number, *hash)
        })
    }

    /// Adds one entry.
    pub(crate) fn push(&mut self, entry: &[u8; 32]) {
        self.push_each(entry, |_, _, _| {});
    }

    /// Adds one entry and shows each perfect subtree that it completes, itself first, as
    /// [`Tree::subtrees`] does.
    pub(crate) fn push_each(&mut self, entry: &[u8; 32], mut show: impl FnMut(u8, u64, Hash)) {
        let mut hash = record_hash(entry);
        let mut level = 0;
        show(level, self.size, hash);
        // Each trailing 1 bit of the size is a perfect subtree that this entry completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(left, hash);
                level += 1;
                show(level, self.size >> level, hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The Merkle tree hash, RFC 6962 section 2.1.
    pub(crate) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => EMPTY_HASH,
            Some(smallest) => peaks.fold(*smallest, |right, left| node_hash(*left, right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::tlog::{self, HashReader, stored_hashes, tree_hash};

    use super::*;

    struct AllHashes(Vec<Hash>);

    impl HashReader for AllHashes {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
            Ok(indexes
                .iter()
                .map(|&i| self.0[usize::try_from(i).unwrap()])
                .collect())
        }
    }

    #[test]
    fn agrees_with_the_reference_at_every_size() {
        let (mut tree, mut all) = (Tree::default(), AllHashes(Vec::new()));
        for n in 0..300_u64 {
            assert_eq!(tree.root(), tree_hash(n, &all).unwrap(), "size {n}");
            let entry = entry(&[7; 16], &n.to_be_bytes());
            let new = stored_hashes(n, &entry, &all).unwrap();
            all.0.extend(new);
            tree.push(&entry);
            assert_eq!(tree.size(), n + 1);
            let again = Tree::from_peaks(n + 1, tree.peaks().to_vec()).unwrap();
            assert_eq!(again, tree, "a tree is its peaks");
            assert_eq!(Tree::from_peaks(n + 1, Vec::new()), None);
        }
    }
}
