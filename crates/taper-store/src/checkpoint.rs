//! Signed tree heads: C2SP `tlog-checkpoint` in a C2SP `signed-note`, Ed25519.
//!
//! They lie in two files. `journal.head` has two slots that commits overwrite in turn, in place, and
//! sync before the answer: that costs one `fdatasync` and a torn slot leaves the other one. So every
//! acknowledged record is covered by a checkpoint on the disk. `checkpoint` is the plain note that
//! other tools expect; it is replaced by rename, which costs much more, and so only at open, at close
//! and every [`PUBLISH_EVERY`] commits.
//!
//! The signing key (`journal.key`, 0600) and the verifier key (`journal.pub`) lie beside them. Who
//! may write the folder can also forge its history: keep `journal.pub` and checkpoints elsewhere to
//! notice that.

use std::fs::File;
use std::io;
use std::path::Path;

use rand_core::CryptoRngCore;
use signed_note::{
    Note, Signer as _, StandardSigner, StandardVerifier, VerificationError, Verifier, Verifiers,
};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::Hash;
use zeroize::Zeroizing;

use crate::disk;
use crate::error::StoreError;
use crate::rules;
use crate::segment;
use crate::tree::Tree;

/// The file with the two newest checkpoints.
pub(crate) const HEAD_FILE: &str = "journal.head";
/// The published checkpoint.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";
/// The verifier key.
pub(crate) const PUB_FILE: &str = "journal.pub";
/// Commits between two publications of `checkpoint`.
pub(crate) const PUBLISH_EVERY: u32 = 1024;

/// The signing key.
pub(crate) const KEY_FILE: &str = "journal.key";
/// Distance of the slots: a page, so that tearing one cannot touch the other.
const SLOT_STRIDE: u64 = 4096;
/// Bytes of a slot; a note is under 400.
const SLOT_SIZE: usize = 1024;
const NOTE_LIMIT: u64 = 64 * 1024;

/// A checkpoint whose signature was verified.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// What every origin line starts with. The host cannot exist: these logs are not served.
const ORIGIN: &str = "taper.invalid/journal/";

/// The origin line of the journal `name`. A journal that took the place of a damaged one is another
/// log, so from the second generation on the number stands behind the name.
pub(crate) fn origin(name: &str, generation: u64) -> Result<String, StoreError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(StoreError::Name(name.to_owned()));
    }
    Ok(match generation {
        0 | 1 => format!("{ORIGIN}{name}"),
        _ => format!("{ORIGIN}{name}/{generation}"),
    })
}

/// Name and generation of an origin line; `None` if it is not one of ours.
pub(crate) fn parse_origin(line: &str) -> Option<(String, u64)> {
    let rest = line.strip_prefix(ORIGIN)?;
    let (name, generation) = match rest.split_once('/') {
        None => (rest, 1),
        Some((name, number)) => (name, number.parse().ok()?),
    };
    let canonical = origin(name, generation).ok()? == line;
    canonical.then(|| (name.to_owned(), generation))
}

/// Signs checkpoints; holds the private key and so prints nothing.
pub(crate) struct Signer(StandardSigner);

impl Signer {
    /// Makes a key pair, unless both files are there already.
    pub(crate) fn create(dir: &Path, origin: &str, rng: &mut dyn CryptoRngCore) -> Result<(), StoreError> {
        if dir.join(KEY_FILE).exists() && dir.join(PUB_FILE).exists() {
            return Ok(());
        }
        let (mut key, verifier) = signed_note::generate_key(rng, origin);
        key.push('\n');
        let key = Zeroizing::new(key);
        disk::replace(&dir.join(KEY_FILE), key.as_bytes())?;
        disk::replace(&dir.join(PUB_FILE), format!("{verifier}\n").as_bytes())
    }

    /// Reads the private key and checks that it is the one that `trust` verifies.
    pub(crate) fn load(dir: &Path, trust: &Trust) -> Result<Self, StoreError> {
        let path = dir.join(KEY_FILE);
        let Some(bytes) = disk::read_small(&path, NOTE_LIMIT)?.map(Zeroizing::new) else {
            return Err(StoreError::untrusted(
                dir,
                rules::KEYS.says("journal.key is missing"),
            ));
        };
        disk::check_private(&path)?;
        let key = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| StandardSigner::new(text.trim_end()).ok());
        let Some(key) = key else {
            return Err(StoreError::untrusted(
                dir,
                rules::KEYS.says("journal.key is not a signer key"),
            ));
        };
        if (key.name(), key.key_id()) != (trust.origin(), trust.0.key_id()) {
            return Err(StoreError::untrusted(
                dir,
                rules::KEYS.says("journal.key and journal.pub are not a pair"),
            ));
        }
        Ok(Self(key))
    }

    /// The signed note for the tree as it stands.
    pub(crate) fn sign(&self, tree: &Tree) -> Result<Vec<u8>, String> {
        let checkpoint =
            Checkpoint::new(self.0.name(), tree.size(), tree.root(), "").map_err(|e| e.to_string())?;
        let mut note = Note::new(&checkpoint.to_bytes(), &[]).map_err(|e| e.to_string())?;
        note.add_sigs(&[&self.0]).map_err(|e| e.to_string())?;
        Ok(note.to_bytes())
    }
}

/// Verifies checkpoints of one journal.
#[derive(Clone)]
pub(crate) struct Trust(StandardVerifier);

impl Trust {
    /// Reads `journal.pub`.
    pub(crate) fn load(dir: &Path) -> Result<Self, StoreError> {
        let Some(bytes) = disk::read_small(&dir.join(PUB_FILE), NOTE_LIMIT)? else {
            return Err(StoreError::untrusted(
                dir,
                rules::KEYS.says("journal.pub is missing"),
            ));
        };
        String::from_utf8(bytes)
            .ok()
            .and_then(|text| Self::from_key(&text))
            .ok_or_else(|| StoreError::untrusted(dir, rules::KEYS.says("journal.pub is not a verifier key")))
    }

    /// Reads the text of a `journal.pub`.
    pub(crate) fn from_key(text: &str) -> Option<Self> {
        StandardVerifier::new(text.trim_end()).ok().map(Self)
    }

    /// The origin line that checkpoints must have.
    pub(crate) fn origin(&self) -> &str {
        self.0.name()
    }

    /// Verifies one signed note.
    pub(crate) fn verify(&self, note: &[u8]) -> Result<Head, String> {
        let bad = |reason: &dyn std::fmt::Display| rules::CHECKPOINT.says(reason);
        let note = Note::from_bytes(note).map_err(|e| bad(&e))?;
        note.verify(self).map_err(|e| bad(&e))?;
        let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|e| bad(&e))?;
        if checkpoint.origin() != self.origin() || !checkpoint.extension().is_empty() {
            return Err(bad(&"it is signed, but for another log"));
        }
        Ok(Head {
            size: checkpoint.size(),
            root: *checkpoint.hash(),
        })
    }
}

impl Verifiers for Trust {
    fn verifier(&self, name: &str, id: u32) -> Result<&dyn Verifier, VerificationError> {
        if (name, id) == (self.0.name(), self.0.key_id()) {
            return Ok(&self.0);
        }
        Err(VerificationError::UnknownKey {
            name: name.to_owned(),
            id,
        })
    }
}

/// Every checkpoint of a folder.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// Those that verify: of the newest segment's header, the published one, the slots in order.
    pub(crate) valid: Vec<Head>,
    /// The slot that holds the newest, if one does.
    pub(crate) newest_slot: Option<u64>,
    /// The newest, with its signed note; none when only the header of a segment is left.
    pub(crate) newest: Option<(Head, String)>,
    /// What is wrong with the others, and not what a crash leaves.
    pub(crate) problems: Vec<String>,
    /// What is wrong with the only bad slot. A crash within a commit leaves that; opening writes it anew.
    pub(crate) torn_slot: Option<String>,
}

impl Heads {
    /// Reads and verifies all of them. The slots come last: a writer is never behind in them.
    pub(crate) fn read(dir: &Path, trust: &Trust) -> Result<Self, StoreError> {
        let mut heads = Self::default();
        heads.read_newest_segment(dir, trust)?;
        let mut is_published = false;
        if let Some(note) = disk::read_small(&dir.join(CHECKPOINT_FILE), NOTE_LIMIT)? {
            match trust.verify(&note) {
                Ok(head) => {
                    is_published = true;
                    heads.add(head, &note);
                }
                Err(reason) => heads.problems.push(format!("{CHECKPOINT_FILE}: {reason}")),
            }
        }
        heads.read_slots(dir, trust)?;
        if heads.newest_slot.is_none() && !is_published {
            // A header alone is older than what was acknowledged, by nobody knows how much.
            heads.newest = None;
        }
        Ok(heads)
    }

    /// The header of a segment is signed as well, so head files of before it are seen to be old. One
    /// that cannot be read is for whoever reads the records to report.
    fn read_newest_segment(&mut self, dir: &Path, trust: &Trust) -> Result<(), StoreError> {
        let Some(newest) = segment::list(dir)?.pop() else {
            return Ok(());
        };
        let path = segment::path(dir, newest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        match segment::read(&mut file) {
            Ok(header) if header.check(trust).is_ok() => {
                let head = Head {
                    size: header.tree.size(),
                    root: header.tree.root(),
                };
                self.add(head, &header.note);
                Ok(())
            }
            Ok(_) | Err(segment::Unread::Bad(_)) => Ok(()),
            Err(segment::Unread::Io(e)) => Err(StoreError::io("read", &path)(e)),
        }
    }

    fn read_slots(&mut self, dir: &Path, trust: &Trust) -> Result<(), StoreError> {
        let slots = disk::read_small(&dir.join(HEAD_FILE), NOTE_LIMIT)?.unwrap_or_default();
        let signed = self.size().unwrap_or(0);
        let mut newest = 0;
        let mut bad = Vec::new();
        for slot in 0..2 {
            let start = usize::try_from(slot * SLOT_STRIDE).unwrap_or(usize::MAX);
            let bytes = slots.get(start..).unwrap_or_default();
            let bytes = bytes.get(..SLOT_SIZE).unwrap_or(bytes);
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            let note = bytes.get(..end).unwrap_or_default();
            match trust.verify(note) {
                Ok(head) => {
                    if self.newest_slot.is_none() || head.size >= newest {
                        newest = head.size;
                        self.newest_slot = Some(slot);
                    }
                    self.add(head, note);
                }
                Err(reason) => bad.push(format!("slot {slot} of {HEAD_FILE}: {reason}")),
            }
        }
        if bad.is_empty() && newest < signed {
            // No crash leaves this: a slot is on the disk before anything else is signed.
            self.problems.push(rules::SLOTS.says(format!(
                "{HEAD_FILE} signs for {newest} records, but {signed} were signed: it is older than the rest"
            )));
        }
        match (self.newest_slot, bad.pop()) {
            (Some(_), torn) => self.torn_slot = torn,
            (None, last) => {
                self.problems.extend(bad);
                self.problems.extend(last);
            }
        }
        Ok(())
    }

    /// How many records are signed for and the slot that says so newest, if that is to be built on.
    pub(crate) fn usable(&self, dir: &Path) -> Result<(u64, u64), StoreError> {
        match (self.size(), self.newest_slot) {
            (Some(size), Some(slot)) if self.problems.is_empty() => Ok((size, slot)),
            _ => Err(StoreError::untrusted(dir, self.problems.join("; "))),
        }
    }

    /// One more checkpoint to compare the tree with.
    pub(crate) fn add(&mut self, head: Head, note: &[u8]) {
        if self.size().is_none_or(|size| size < head.size) {
            self.newest = Some((head, String::from_utf8_lossy(note).into_owned()));
        }
        self.valid.push(head);
    }

    /// How many records are signed for.
    pub(crate) fn size(&self) -> Option<u64> {
        self.valid.iter().map(|head| head.size).max()
    }

    /// Whether the tree contradicts a checkpoint of its size.
    pub(crate) fn contradict(&self, tree: &Tree) -> bool {
        self.valid
            .iter()
            .any(|head| head.size == tree.size() && head.root != tree.root())
    }
}

/// Where a slot starts in the file, and the bytes to put there.
pub(crate) fn slot(number: u64, note: &[u8]) -> Result<(u64, Vec<u8>), String> {
    if note.len() >= SLOT_SIZE {
        return Err("the checkpoint does not fit its slot".into());
    }
    let mut bytes = note.to_vec();
    bytes.resize(SLOT_SIZE, 0);
    Ok(((number % 2) * SLOT_STRIDE, bytes))
}

/// A whole head file with the same note in both slots.
pub(crate) fn both_slots(note: &[u8]) -> Result<Vec<u8>, String> {
    let (start, second) = slot(1, note)?;
    let mut file = slot(0, note)?.1;
    file.resize(usize::try_from(start).map_err(|e| e.to_string())?, 0);
    file.extend(second);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|n| tree.push(&[n as u8; 32]));
        tree
    }

    #[test]
    fn names_make_origins() {
        for (generation, expected) in [
            (1, "taper.invalid/journal/issuer-1"),
            (2, "taper.invalid/journal/issuer-1/2"),
        ] {
            assert_eq!(origin("issuer-1", generation).unwrap(), expected);
            assert_eq!(parse_origin(expected), Some(("issuer-1".into(), generation)));
        }
        for bad in [
            "issuer-1",
            "taper.invalid/journal/A",
            "taper.invalid/journal/a/1",
            "taper.invalid/journal/a/02",
            "taper.invalid/journal/a/2/3",
        ] {
            assert_eq!(parse_origin(bad), None, "{bad}");
        }
        for bad in ["", "A", "a b", "a+b", "a/b", &"a".repeat(65)] {
            assert!(matches!(origin(bad, 1), Err(StoreError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn slots_are_found_verified_and_survive_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let origin = origin("test", 1).unwrap();
        Signer::create(dir.path(), &origin, &mut OsRng).unwrap();
        let trust = Trust::load(dir.path()).unwrap();
        let signer = Signer::load(dir.path(), &trust).unwrap();
        let path = dir.path().join(HEAD_FILE);

        let mut file = both_slots(&signer.sign(&tree(3)).unwrap()).unwrap();
        let (at, bytes) = slot(1, &signer.sign(&tree(4)).unwrap()).unwrap();
        file.truncate(at as usize);
        file.extend(bytes);
        std::fs::write(&path, &file).unwrap();
        let heads = Heads::read(dir.path(), &trust).unwrap();
        assert_eq!((heads.size(), heads.newest_slot), (Some(4), Some(1)));
        assert!(heads.problems.is_empty() && heads.torn_slot.is_none());
        assert!(!heads.contradict(&tree(3)) && !heads.contradict(&tree(4)) && !heads.contradict(&tree(5)));

        file[at as usize + 5] ^= 1;
        std::fs::write(&path, &file).unwrap();
        let heads = Heads::read(dir.path(), &trust).unwrap();
        assert_eq!(
            (heads.size(), heads.newest_slot, heads.torn_slot.is_some()),
            (Some(3), Some(0), true)
        );
        assert!(heads.usable(dir.path()).is_ok(), "one slot may be torn");
        file[5] ^= 1;
        std::fs::write(&path, &file).unwrap();
        let heads = Heads::read(dir.path(), &trust).unwrap();
        assert_eq!((heads.problems.len(), heads.torn_slot.is_some()), (2, false));
        assert!(heads.usable(dir.path()).is_err());
    }

    #[test]
    fn a_foreign_signature_is_not_a_checkpoint() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&ours, &theirs] {
            Signer::create(dir.path(), &origin("test", 1).unwrap(), &mut OsRng).unwrap();
        }
        let stranger = Signer::load(theirs.path(), &Trust::load(theirs.path()).unwrap()).unwrap();
        let trust = Trust::load(ours.path()).unwrap();
        assert!(trust.verify(&stranger.sign(&tree(1)).unwrap()).is_err());
        std::fs::copy(theirs.path().join(KEY_FILE), ours.path().join(KEY_FILE)).unwrap();
        assert!(matches!(
            Signer::load(ours.path(), &trust),
            Err(StoreError::Untrusted { .. })
        ));
    }
}
