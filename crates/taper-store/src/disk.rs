//! Files: atomic replacement, private modes, and the two operations that durability rests on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::StoreError;

const SECRET_LIMIT: u64 = 64 * 1024;

/// The part of a file that the journal's durability rests on; tests count and break it.
pub(crate) trait Disk: Send {
    /// Writes some of `bytes` at `offset`, from the first on; how many of them.
    fn write_some(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Returns once everything written is on the disk (`fdatasync`).
    fn sync(&mut self) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`: a disk may take less at a time.
    fn write_at(&mut self, mut offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_some(offset, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    offset += taken as u64;
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Disk for File {
    fn write_some(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        <Self as FileExt>::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The names in the journal's folder; tests count and break it.
pub(crate) trait Folder: Send {
    /// Opens a file that is there, to write to it in place.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Disk>>;
    /// Makes a file, for the owner only, in the place of any that is there.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Disk>>;
    /// Gives a file another name, at once and in the place of any that has it.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns once the names in the folder are on the disk.
    fn sync(&mut self, dir: &Path) -> io::Result<()>;
}

/// The folder as the system has it. It is opened before the first change in it: afterwards a lack of descriptors
/// cannot come between a change and its sync.
#[derive(Debug, Default)]
pub(crate) struct SystemFolder {
    open: Option<(PathBuf, File)>,
}

impl SystemFolder {
    fn opened(&mut self, dir: &Path) -> io::Result<&File> {
        if self.open.as_ref().is_some_and(|(path, _)| path != dir) {
            self.open = None;
        }
        let (_, file) = match self.open.take() {
            Some(open) => self.open.insert(open),
            None => self.open.insert((dir.to_path_buf(), File::open(dir)?)),
        };
        Ok(file)
    }
}

impl Folder for SystemFolder {
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(file))
    }

    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Disk>> {
        self.opened(parent(path))?;
        // A left-over of a crash could have any mode.
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync(&mut self, dir: &Path) -> io::Result<()> {
        self.opened(dir)?.sync_all()
    }
}

/// Makes the folder and its parents, for the owner only; the names of the new ones are on the disk when
/// it returns.
pub(crate) fn create_folder(dir: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(StoreError::io("create the folder", dir))?;
    missing
        .into_iter()
        .rev()
        .try_for_each(|folder| sync_folder(parent(folder)))
}

/// Makes a folder as [`create_folder`] does, and refuses one with anything in it.
pub(crate) fn create_empty_folder(dir: &Path) -> Result<(), StoreError> {
    create_folder(dir)?;
    match fs::read_dir(dir).map_err(StoreError::io("list", dir))?.next() {
        None => Ok(()),
        Some(_) => Err(StoreError::NotEmpty {
            path: dir.to_path_buf(),
        }),
    }
}

/// Opens a file for reading and writing, 0600 if it is new.
pub(crate) fn open_rw(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open", path))
}

/// Replaces a small file: after a crash it has the old or the new content, nothing between.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    place(&mut SystemFolder::default(), path, bytes).map(drop)
}

/// As [`replace`], in the given folder; the new file is still open when it returns.
pub(crate) fn place(folder: &mut dyn Folder, path: &Path, bytes: &[u8]) -> Result<Box<dyn Disk>, StoreError> {
    let temporary = path.with_extension("tmp");
    let mut write = || -> io::Result<Box<dyn Disk>> {
        let mut file = folder.create(&temporary)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        folder.rename(&temporary, path)?;
        folder.sync(parent(path))?;
        Ok(file)
    };
    write().map_err(StoreError::io("replace", path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), StoreError> {
    SystemFolder::default()
        .sync(dir)
        .map_err(StoreError::io("sync the folder", dir))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_exists(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a folder that may not be there, with all that is in it.
pub(crate) fn remove_folder(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}

/// Copies a folder of plain files and folders.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<(), StoreError> {
    create_folder(to)?;
    for entry in fs::read_dir(from).map_err(StoreError::io("list", from))? {
        let entry = entry.map_err(StoreError::io("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(StoreError::io("inspect", &source))?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(StoreError::io("copy", &source))?;
        }
    }
    Ok(())
}

/// Gives a file or a folder another name within the file system.
pub(crate) fn move_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("move", from))
}

/// Reads a small file; `None` if there is none. More than `limit` bytes is an error.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > limit {
        let large = io::Error::new(io::ErrorKind::InvalidData, "it is larger than it can be");
        return Err(StoreError::io("read", path)(large));
    }
    Ok(Some(bytes))
}

/// As [`read_small`], for a file that may be a key.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    Ok(read_small(path, SECRET_LIMIT)?.map(Zeroizing::new))
}

/// The first `length` bytes of a file.
pub(crate) fn read_beginning(path: &Path, length: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(length).read_to_end(&mut bytes))
        .map_err(StoreError::io("read", path))?;
    Ok(bytes)
}

/// Refuses a private file that others can read.
pub(crate) fn check_private(path: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path)
        .map_err(StoreError::io("inspect", path))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::KeyMode {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}

/// One process per folder, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock file `name` in `dir`, or says who cannot have it.
    pub(crate) fn take(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let file = open_rw(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: dir.to_path_buf(),
            }),
            Err(fs::TryLockError::Error(e)) => Err(StoreError::io("lock", &path)(e)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    /// A disk that counts its syncs and can start to fail them.
    pub(crate) struct Watched<D> {
        pub(crate) inner: D,
        pub(crate) syncs: Arc<AtomicU64>,
        pub(crate) failing: Arc<AtomicBool>,
    }

    impl<D: Disk> Disk for Watched<D> {
        fn write_some(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
            self.inner.write_some(offset, bytes)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            if self.failing.load(Ordering::SeqCst) {
                return Err(io::Error::other("the disk is gone"));
            }
            self.inner.sync()
        }
    }

    #[test]
    fn replaced_files_are_private_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        check_private(&path).unwrap();
        assert_eq!(read_small(&path, 3).unwrap().unwrap(), b"two");
        assert!(read_small(&path, 2).is_err());
        assert!(read_small(&dir.path().join("none"), 2).unwrap().is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let said = check_private(&path).unwrap_err().to_string();
        assert!(said.contains("0640") && said.contains("chmod 600"), "{said}");
    }

    #[test]
    fn a_folder_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path(), "lock").unwrap();
        assert!(matches!(
            FolderLock::take(dir.path(), "lock"),
            Err(StoreError::InUse { .. })
        ));
        drop(first);
        FolderLock::take(dir.path(), "lock").unwrap();
    }
}
