//! The file beside the table of seen proofs, so that `kill -9` forgets none.
//!
//! Entries are written with `write(2)` and never synced: the page cache survives the process, not
//! the machine. Hence the header names the kernel's boot. After another boot, or when the file is
//! damaged or gone, the table is complete only since now, and says so, later ones within the same boot too: the
//! clock may have been behind. Two generations take turns: the older is deleted when all its entries have expired.
//!
//! Header, 80 bytes: magic (16), boot id (40, zero-padded), complete since (i64, `MIN` for always), forgotten
//! until (i64, `MIN` for nothing: the latest end of an entry that was dropped), check (8). Entry, 56 bytes: key (32), grant tag (8), keep until (i64), check (8). Numbers are big
//! endian, a check is a truncated SHA-256 of what precedes it.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::disk;
use crate::error::StoreError;
use crate::seen::{SLACK, latest_end};

/// Seconds after which a generation may be replaced.
pub(crate) const GENERATION: i64 = 600;

const CURRENT: &str = "seen.log";
const OLDER: &str = "seen.older.log";
const NEXT: &str = "seen.next.log";
const MAGIC: &[u8; 16] = b"taper-seen-2\n\0\0\0";
const HEADER: usize = 80;
const ENTRY: usize = 56;

/// More than this is no file that [`SeenLog`] wrote: ten times the table. Entries of a generation are kept for 70 s or
/// longer, and are as many as the table has then.
fn file_limit(total: usize) -> u64 {
    // A table that was made smaller has not lost what the larger one had.
    let entries = total.max(1_000_000).saturating_mul(10);
    entries.saturating_mul(ENTRY) as u64
}

/// One seen proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// SHA-256(thumbprint ‖ SHA-256(jti)).
    pub(crate) key: [u8; 32],
    /// Whose quota it counts against: the start of SHA-256(grant).
    pub(crate) tag: [u8; 8],
    /// Seconds since the Unix epoch.
    pub(crate) keep_until: i64,
}

/// What the files said at opening.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) entries: Vec<Entry>,
    pub(crate) complete_since: Option<i64>,
    /// The latest end of an entry that was dropped; `i64::MIN` for none.
    pub(crate) forgotten_until: i64,
}

/// The two generations, open for appending.
#[derive(Debug)]
pub(crate) struct SeenLog {
    dir: PathBuf,
    boot_id: String,
    complete_since: Option<i64>,
    forgotten_until: i64,
    file: File,
    /// Bytes that are whole entries.
    length: u64,
    /// A write failed half-way; the rest must go before the next one.
    torn: bool,
    /// The last write failed.
    failed: bool,
    started: i64,
    /// When the last write was.
    written: i64,
    newest: i64,
    older_newest: i64,
    /// Makes the file of the next generation.
    create: fn(&Path) -> io::Result<File>,
}

impl SeenLog {
    /// Reads what is there and starts a generation that holds all of it which still counts. `new`
    /// says that nothing can have been seen before; `boot_id` is `None` when it cannot be known. `total` is the most
    /// that the table has.
    pub(crate) fn open(
        dir: &Path,
        boot_id: Option<&str>,
        total: usize,
        new: bool,
        now: i64,
    ) -> Result<(Self, Loaded), StoreError> {
        let limit = file_limit(total);
        let current = read_file(&dir.join(CURRENT), limit)?;
        let older = read_file(&dir.join(OLDER), limit)?;
        let mut loaded = match (&current, &older) {
            (None, None) if new => Loaded {
                entries: Vec::new(),
                complete_since: None,
                forgotten_until: i64::MIN,
            },
            // The older one without it is what a crash between two renames leaves; the next one then says what the
            // file before the older one had.
            (None, _) => {
                let next = read_file(&dir.join(NEXT), limit)?;
                let next = next.map(|bytes| read(&bytes, boot_id, now));
                Loaded {
                    entries: Vec::new(),
                    complete_since: Some(now),
                    forgotten_until: next.map_or(i64::MIN, |next| next.forgotten_until),
                }
            }
            (Some(bytes), _) => read(bytes, boot_id, now),
        };
        if let Some(bytes) = older {
            let older = read(&bytes, boot_id, now);
            loaded.entries.extend(older.entries);
            loaded.complete_since = loaded.complete_since.max(older.complete_since);
            loaded.forgotten_until = loaded.forgotten_until.max(older.forgotten_until);
        }
        let counts = now.saturating_sub(SLACK)..=latest_end(now);
        let (kept, dropped) = loaded
            .entries
            .into_iter()
            .partition::<Vec<_>, _>(|entry| counts.contains(&entry.keep_until));
        loaded.entries = kept;
        loaded.forgotten_until = loaded.forgotten_until.max(last_end(&dropped));
        // Of two under one key, the one that counts for longer stays.
        let order = |entry: &Entry| (entry.key, Reverse(entry.keep_until));
        loaded.entries.sort_unstable_by_key(order);
        loaded.entries.dedup_by_key(|entry| entry.key);

        let boot_id = boot_id.unwrap_or_default();
        let mut bytes = header(boot_id, loaded.complete_since, loaded.forgotten_until);
        loaded
            .entries
            .iter()
            .for_each(|entry| bytes.extend(encode(entry)));
        let file = prepare(dir, &bytes, create_next)?;
        install(dir)?;
        disk::remove_if_exists(&dir.join(OLDER))?;
        let newest = last_end(&loaded.entries);
        let log = Self {
            dir: dir.to_path_buf(),
            boot_id: boot_id.to_owned(),
            complete_since: loaded.complete_since,
            forgotten_until: loaded.forgotten_until,
            file,
            length: bytes.len() as u64,
            torn: false,
            failed: false,
            started: now,
            written: now,
            newest,
            older_newest: i64::MIN,
            create: create_next,
        };
        Ok((log, loaded))
    }

    /// Writes one entry; when it returns, the entry survives the process.
    pub(crate) fn append(&mut self, entry: &Entry, now: i64) -> Result<(), StoreError> {
        self.written = now;
        let result = self.write(entry, now);
        self.failed = result.is_err();
        result
    }

    /// Writes an entry that says nothing, if the last one could not be written.
    pub(crate) fn retry(&mut self) -> Result<(), StoreError> {
        if !self.failed {
            return Ok(());
        }
        let expired = Entry {
            key: [0; 32],
            tag: [0; 8],
            keep_until: i64::MIN,
        };
        self.append(&expired, self.written)
    }

    fn write(&mut self, entry: &Entry, now: i64) -> Result<(), StoreError> {
        // A clock that was set back does not keep a generation going for as long as it was ahead.
        self.started = self.started.min(now);
        // One that was written while the clock was ahead goes too: nonces are asked for until the time that it showed.
        let over = self.older_newest < now.saturating_sub(SLACK) || self.older_newest > latest_end(now);
        if now.saturating_sub(self.started) >= GENERATION && over {
            match self.rotate(now) {
                // This generation takes more until there are descriptors again.
                Err(error) if error.is_short_of_files() => {}
                rotated => rotated?,
            }
        }
        let path = self.dir.join(CURRENT);
        if self.torn {
            self.file
                .set_len(self.length)
                .map_err(StoreError::io("repair", &path))?;
        }
        self.torn = true;
        self.file
            .write_all(&encode(entry))
            .map_err(StoreError::io("write", &path))?;
        self.torn = false;
        self.length += ENTRY as u64;
        self.newest = self.newest.max(entry.keep_until);
        Ok(())
    }

    /// A failure at any step leaves what the next attempt, or append, can go on with.
    fn rotate(&mut self, now: i64) -> Result<(), StoreError> {
        let (current, older) = (self.dir.join(CURRENT), self.dir.join(OLDER));
        let forgotten_until = self.forgotten_until.max(self.older_newest);
        let header = header(&self.boot_id, self.complete_since, forgotten_until);
        let file = prepare(&self.dir, &header, self.create)?;
        match fs::rename(&current, &older) {
            // The attempt before came as far as this.
            Err(e) if e.kind() == io::ErrorKind::NotFound && older.exists() => {}
            renamed => renamed.map_err(StoreError::io("rotate", &current))?,
        }
        install(&self.dir)?;
        self.file = file;
        self.length = header.len() as u64;
        self.forgotten_until = forgotten_until;
        self.torn = false;
        self.older_newest = self.newest;
        self.newest = i64::MIN;
        self.started = now;
        Ok(())
    }
}

/// The latest end of these; `i64::MIN` for none.
pub(crate) fn last_end(entries: &[Entry]) -> i64 {
    let ends = entries.iter().map(|entry| entry.keep_until);
    ends.max().unwrap_or(i64::MIN)
}

/// The kernel's id of this boot, if there is one.
pub(crate) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty() && id.len() <= 40).then(|| id.to_owned())
}

/// A file that is too large is lost, and so no reason not to start.
fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    if fs::metadata(path).is_ok_and(|found| found.len() > limit) {
        return Ok(Some(Vec::new()));
    }
    disk::read_small(path, limit)
}

/// Makes the next generation, with `bytes` in it.
fn prepare(dir: &Path, bytes: &[u8], create: fn(&Path) -> io::Result<File>) -> Result<File, StoreError> {
    let next = dir.join(NEXT);
    disk::remove_if_exists(&next)?;
    let mut file = create(&next).map_err(StoreError::io("create", &next))?;
    file.write_all(bytes).map_err(StoreError::io("write", &next))?;
    Ok(file)
}

fn create_next(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Puts the next generation in the place of the current one, at once.
fn install(dir: &Path) -> Result<(), StoreError> {
    let current = dir.join(CURRENT);
    fs::rename(dir.join(NEXT), &current).map_err(StoreError::io("replace", &current))
}

fn header(boot_id: &str, complete_since: Option<i64>, forgotten_until: i64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let mut boot = boot_id.as_bytes().to_vec();
    boot.resize(40, 0);
    bytes.extend(boot);
    bytes.extend(complete_since.unwrap_or(i64::MIN).to_be_bytes());
    bytes.extend(forgotten_until.to_be_bytes());
    bytes.extend(check(&bytes));
    bytes
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = entry.key.to_vec();
    bytes.extend(entry.tag);
    bytes.extend(entry.keep_until.to_be_bytes());
    bytes.extend(check(&bytes));
    bytes
}

fn check(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).iter().take(8).copied().collect()
}

/// Every good entry, and since when they are complete.
fn read(bytes: &[u8], boot_id: Option<&str>, now: i64) -> Loaded {
    let lost = |entries, since: Option<i64>, forgotten_until| Loaded {
        entries,
        complete_since: Some(since.map_or(now, |since| since.max(now))),
        forgotten_until,
    };
    let Some((head, rest)) = bytes.split_at_checked(HEADER) else {
        return lost(Vec::new(), None, i64::MIN);
    };
    let is_whole = head.starts_with(MAGIC)
        && head
            .split_at_checked(HEADER - 8)
            .is_some_and(|(what, sum)| check(what) == sum);
    let number = |at: usize| {
        let bytes = head.get(at..at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
        bytes.map(i64::from_be_bytes).filter(|_| is_whole)
    };
    // What was in doubt or dropped before this boot still is. How long ago that was, no clock knows that may have been
    // set since.
    let since = number(56).filter(|since| *since != i64::MIN);
    let forgotten_until = number(64).unwrap_or(i64::MIN);
    let known = boot_id.is_some_and(|id| head == header(id, since, forgotten_until));
    let mut entries = Vec::new();
    // An incomplete last entry was never answered; a whole one with a wrong check is damage.
    for chunk in rest.chunks_exact(ENTRY) {
        match decode(chunk) {
            Some(entry) => entries.push(entry),
            None => return lost(entries, since, forgotten_until),
        }
    }
    if known {
        Loaded {
            entries,
            complete_since: since.map(|since| since.max(now)),
            forgotten_until,
        }
    } else {
        lost(entries, since, forgotten_until)
    }
}

fn decode(chunk: &[u8]) -> Option<Entry> {
    let (key, rest) = chunk.split_first_chunk::<32>()?;
    let (tag, rest) = rest.split_first_chunk::<8>()?;
    let (keep_until, _) = rest.split_first_chunk::<8>()?;
    let entry = Entry {
        key: *key,
        tag: *tag,
        keep_until: i64::from_be_bytes(*keep_until),
    };
    (encode(&entry) == chunk).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 1_000_000;
    const BOOT: Option<&str> = Some("3f0b5f5e-0000-4000-8000-000000000001");

    fn entry(n: u8, keep_until: i64) -> Entry {
        Entry {
            key: [n; 32],
            tag: [n; 8],
            keep_until,
        }
    }

    fn keys(loaded: &Loaded) -> Vec<u8> {
        loaded.entries.iter().map(|entry| entry.key[0]).collect()
    }

    /// A folder where entries 1 and 2 were written at 100, to be kept until 400.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, true, 100).unwrap();
        assert_eq!((loaded.entries.len(), loaded.complete_since), (0, None));
        log.append(&entry(1, 400), 100).unwrap();
        log.append(&entry(2, 400), 100).unwrap();
        dir
    }

    #[test]
    fn entries_survive_the_process_until_they_expire() {
        let dir = folder();
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 200).unwrap();
        assert_eq!((keys(&loaded), loaded.complete_since), (vec![1, 2], None));
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 400 + SLACK).unwrap();
        assert_eq!((keys(&loaded), loaded.forgotten_until), (vec![1, 2], i64::MIN));
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 401 + SLACK).unwrap();
        assert_eq!((keys(&loaded), loaded.complete_since), (vec![], None));
        assert_eq!(loaded.forgotten_until, 400);
        // Whatever the clock says later, and after another boot.
        for boot in [BOOT, Some("another-boot")] {
            let (_, loaded) = SeenLog::open(dir.path(), boot, TOTAL, false, 200).unwrap();
            assert_eq!((keys(&loaded), loaded.forgotten_until), (vec![], 400));
        }
    }

    #[test]
    fn doubt_is_told_and_remembered() {
        let check = |change: fn(&Path), boot: Option<&str>, kept: &[u8]| {
            let dir = folder();
            change(&dir.path().join(CURRENT));
            let (_, loaded) = SeenLog::open(dir.path(), boot, TOTAL, false, 200).unwrap();
            assert_eq!((keys(&loaded), loaded.complete_since), (kept.to_vec(), Some(200)));
            if boot.is_some() {
                // A second start, within the window, must not forget that the first was in doubt.
                let (_, loaded) = SeenLog::open(dir.path(), boot, TOTAL, false, 210).unwrap();
                assert_eq!(loaded.complete_since, Some(210));
            }
        };
        check(|_| {}, Some("another-boot"), &[1, 2]);
        check(|_| {}, None, &[1, 2]);
        check(|path| fs::remove_file(path).unwrap(), BOOT, &[]);
        check(|path| fs::write(path, b"").unwrap(), BOOT, &[]);
        check(|path| flip(path, HEADER + ENTRY + 3), BOOT, &[1]);
        check(|path| flip(path, 20), BOOT, &[1, 2]);
    }

    #[test]
    fn a_rotation_that_failed_is_done_later() {
        let now = 100 + GENERATION;
        // A folder in the way of the next or the older generation stands for a full disk.
        for in_the_way in [NEXT, OLDER] {
            let dir = folder();
            let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 100).unwrap();
            let obstacle = dir.path().join(in_the_way);
            fs::create_dir(&obstacle).unwrap();
            log.retry().unwrap();
            for _ in 0..2 {
                assert!(log.append(&entry(3, now + 300), now).is_err(), "{in_the_way}");
                assert!(log.retry().is_err(), "{in_the_way}");
            }
            fs::remove_dir(&obstacle).unwrap();
            log.retry().unwrap();
            log.append(&entry(4, now + 300), now).unwrap();
            let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, now).unwrap();
            assert_eq!((keys(&loaded), loaded.complete_since), (vec![4], None));
        }
        // And when only one of the two names could be changed.
        let dir = folder();
        let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 100).unwrap();
        log.append(&entry(3, 1_000), 101).unwrap();
        fs::rename(dir.path().join(CURRENT), dir.path().join(OLDER)).unwrap();
        log.append(&entry(4, 1_000), now).unwrap();
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, now).unwrap();
        assert_eq!((keys(&loaded), loaded.complete_since), (vec![3, 4], None));
    }

    #[test]
    fn a_lack_of_descriptors_refuses_no_proof() {
        let now = 100 + GENERATION;
        for code in [23, 24] {
            let dir = folder();
            let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 100).unwrap();
            log.create = if code == 23 {
                |_| Err(io::Error::from_raw_os_error(23))
            } else {
                |_| Err(io::Error::from_raw_os_error(24))
            };
            for n in 3..5 {
                log.append(&entry(n, now + 300), now).unwrap();
                log.retry().unwrap();
            }
            assert!(!dir.path().join(OLDER).exists());
            // With descriptors again, another generation begins.
            log.create = create_next;
            log.append(&entry(5, now + 300), now).unwrap();
            assert!(dir.path().join(OLDER).exists());
            let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, now).unwrap();
            assert_eq!((keys(&loaded), loaded.complete_since), (vec![3, 4, 5], None));
        }
    }

    #[test]
    fn a_doubt_that_is_known_outlasts_the_next_boot() {
        let check = |change: fn(&Path), boot: Option<&str>, since: i64| {
            let dir = folder();
            // The machine lost power while its clock was ahead.
            let ahead = 86_400;
            let (_, loaded) = SeenLog::open(dir.path(), Some("another-boot"), TOTAL, false, ahead).unwrap();
            assert_eq!(loaded.complete_since, Some(ahead));
            change(&dir.path().join(CURRENT));
            let (_, loaded) = SeenLog::open(dir.path(), boot, TOTAL, false, 1_000).unwrap();
            assert_eq!(loaded.complete_since, Some(since));
        };
        check(|_| {}, Some("another-boot"), 86_400);
        check(|_| {}, Some("a-third-boot"), 86_400);
        check(|_| {}, None, 86_400);
        check(|path| append(path, &[7; ENTRY]), Some("another-boot"), 86_400);
        // What is not as it was written tells nothing.
        check(|path| flip(path, 60), Some("a-third-boot"), 1_000);
    }

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_rotation_that_ended_between_two_renames_keeps_its_bound() {
        let dir = folder();
        fs::rename(dir.path().join(CURRENT), dir.path().join(OLDER)).unwrap();
        fs::write(dir.path().join(NEXT), header(BOOT.unwrap(), None, 90_000)).unwrap();
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 200).unwrap();
        assert_eq!((keys(&loaded), loaded.complete_since), (vec![1, 2], Some(200)));
        assert_eq!(loaded.forgotten_until, 90_000);
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_torn_last_entry_was_never_answered() {
        let dir = folder();
        let path = dir.path().join(CURRENT);
        let bytes = fs::read(&path).unwrap();
        for cut in 1..ENTRY {
            fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 200).unwrap();
            assert_eq!((keys(&loaded), loaded.complete_since), (vec![1], None));
        }
    }

    #[test]
    fn of_two_entries_of_one_key_the_longer_stays() {
        for ends in [[400, 405], [405, 400]] {
            let dir = tempfile::tempdir().unwrap();
            let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, true, 100).unwrap();
            for end in ends {
                log.append(&entry(1, end), 100).unwrap();
            }
            let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 402).unwrap();
            assert_eq!(loaded.entries, [entry(1, 405)]);
        }
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_keep_generations() {
        let dir = folder();
        let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 100).unwrap();
        let ahead = 86_400;
        for n in 0..3 {
            log.append(&entry(n, ahead + 420), ahead).unwrap();
        }
        for now in 1_000..5_000 {
            log.append(&entry(4, now + 300), now).unwrap();
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size(CURRENT) + size(OLDER) <= 2 * (HEADER as u64 + 1_100 * ENTRY as u64));
        drop(log);
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 5_000).unwrap();
        assert_eq!((keys(&loaded), loaded.forgotten_until), (vec![4], ahead + 420));
    }

    #[test]
    fn a_file_that_is_too_large_is_lost() {
        for name in [CURRENT, OLDER] {
            let dir = folder();
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(file_limit(TOTAL) + 1).unwrap();
            let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 200).unwrap();
            assert_eq!(loaded.complete_since, Some(200), "{name}");
        }
    }

    #[test]
    fn generations_take_turns_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = SeenLog::open(dir.path(), BOOT, TOTAL, true, 0).unwrap();
        for now in 0..10_000_i64 {
            let entry = Entry {
                key: Sha256::digest(now.to_be_bytes()).into(),
                tag: [0; 8],
                keep_until: now + 300,
            };
            log.append(&entry, now).unwrap();
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size(CURRENT) + size(OLDER) <= 2 * (HEADER as u64 + 1000 * ENTRY as u64));
        let (_, loaded) = SeenLog::open(dir.path(), BOOT, TOTAL, false, 9_999).unwrap();
        let kept = 301 + usize::try_from(SLACK).unwrap();
        assert_eq!((loaded.entries.len(), loaded.complete_since), (kept, None));
        assert_eq!(loaded.forgotten_until, 9_999 - SLACK - 1);
    }
}
