//! The hashes that proofs need, from a journal whose oldest records may be gone.
//!
//! A proof of a record needs the roots of some perfect subtrees. Those that lie wholly in what was
//! dropped are peaks of the tree before the oldest segment, which its header has; the others are
//! completed while the records are read.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use tlog_tiles::tlog::{self, Hash, HashReader, prove_record, stored_hash_index};

use crate::tree::Tree;

/// The subtrees that a proof needs, and their roots as far as they were met.
#[derive(Debug)]
pub(crate) struct Gathered {
    wanted: HashSet<u64>,
    hashes: HashMap<u64, Hash>,
}

impl Gathered {
    /// What the proof of record `index` in the tree of `size` entries needs.
    pub(crate) fn for_record(index: u64, size: u64) -> Result<Self, tlog::Error> {
        let asked = Asked::default();
        prove_record(size, index, &asked)?;
        Ok(Self {
            wanted: asked.0.into_inner().into_iter().collect(),
            hashes: HashMap::new(),
        })
    }

    /// Meets the tree that the oldest segment begins with.
    pub(crate) fn begin(&mut self, tree: &Tree) {
        for (level, number, hash) in tree.subtrees() {
            self.meet(level, number, hash);
        }
    }

    /// Meets the subtree `number` of a level.
    pub(crate) fn meet(&mut self, level: u8, number: u64, hash: Hash) {
        let place = stored_hash_index(level, number);
        if self.wanted.contains(&place) {
            self.hashes.insert(place, hash);
        }
    }

    /// The proof, once the tree was read up to its size.
    pub(crate) fn prove(&self, index: u64, size: u64) -> Result<Vec<Hash>, tlog::Error> {
        prove_record(size, index, self)
    }
}

impl HashReader for Gathered {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        let hash = |index| {
            self.hashes
                .get(index)
                .copied()
                .ok_or(tlog::Error::IndexesNotInTree)
        };
        indexes.iter().map(hash).collect()
    }
}

/// Notes what a proof asks for.
#[derive(Default)]
struct Asked(RefCell<Vec<u64>>);

impl HashReader for Asked {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        self.0.borrow_mut().extend_from_slice(indexes);
        Ok(vec![Hash::default(); indexes.len()])
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::tlog::{check_record, record_hash};

    use super::*;

    #[test]
    fn every_record_that_is_left_can_be_proved_wherever_the_journal_begins() {
        for size in 1..40_u64 {
            for begin in 0..size {
                let mut before = Tree::default();
                (0..begin).for_each(|n| before.push(&[n as u8; 32]));
                for index in begin..size {
                    let mut gathered = Gathered::for_record(index, size).unwrap();
                    let mut tree = before.clone();
                    gathered.begin(&tree);
                    for n in begin..size {
                        tree.push_each(&[n as u8; 32], |level, number, hash| {
                            gathered.meet(level, number, hash);
                        });
                    }
                    let proof = gathered.prove(index, size).unwrap();
                    let leaf = record_hash(&[index as u8; 32]);
                    check_record(&proof, size, tree.root(), index, leaf).unwrap();
                }
                if begin > 0 {
                    let mut gathered = Gathered::for_record(begin - 1, size).unwrap();
                    gathered.begin(&before);
                    let enough = gathered.prove(begin - 1, size).is_ok();
                    assert_eq!(enough, size == 1, "a record that is gone has no proof");
                }
            }
        }
    }
}
