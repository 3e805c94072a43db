//! Secrets: values that cannot print, compare in constant time and are wiped, and files that only
//! their owner can read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::rng;

/// The largest secret file that is read, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Bytes that are wiped when dropped and show only as `Secret(…)`. Comparison takes the same time
/// wherever two secrets of one length differ; the length itself is not hidden.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a secret could not be read or written. No variant carries any of its bytes.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The operating system refused.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A folder, a device or a pipe.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// Group or others have a right to the file.
    #[error("`{0}` is open to other users (mode {mode:04o}); run `chmod 600 {0}`", path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is larger than [`MAX_SECRET_BYTES`].
    #[error("`{}` is larger than {MAX_SECRET_BYTES} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// There is nothing in the file or variable.
    #[error("the secret in {origin} is empty")]
    Empty {
        /// Which file or variable.
        origin: String,
    },
    /// The environment variable is absent or not Unicode.
    #[error("the environment variable `{name}` is not set")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The secret is binary where text is needed.
    #[error("the secret is not UTF-8 text")]
    NotText,
}

impl Secret {
    /// Takes over bytes or text as a secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text, for the one call that needs it.
    ///
    /// # Errors
    /// [`SecretError::NotText`] when it is not UTF-8.
    pub fn expose_str(&self) -> Result<&str, SecretError> {
        std::str::from_utf8(&self.0).map_err(|_| SecretError::NotText)
    }

    /// Whether `candidate` is this secret, in time that does not depend on where they differ.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.ct_eq(candidate).into()
    }

    fn without_line_end(mut self) -> Self {
        for end in [b'\n', b'\r'] {
            if self.0.last() == Some(&end) {
                self.0.pop();
            }
        }
        self
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a file that only its owner may touch. Symbolic links are followed; on Unix a mode wider than
/// 0600 is refused. The bytes are returned as they are.
///
/// # Errors
/// [`SecretError`]; [`SecretError::TooOpen`] says which `chmod` helps.
pub fn read_private_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    // Checked before opening, because opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    refuse_if_open(path, &metadata)?;
    // One allocation: a buffer that grows would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(MAX_SECRET_BYTES).unwrap_or(0) + 1,
    ));
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(Secret(bytes))
}

/// Reads a private file that holds one line of text or bytes: as [`read_private_file`], less one line
/// end.
///
/// # Errors
/// [`SecretError`], also when nothing is left.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretError> {
    let secret = read_private_file(path)?.without_line_end();
    if secret.expose().is_empty() {
        return Err(SecretError::Empty {
            origin: format!("`{}`", path.display()),
        });
    }
    Ok(secret)
}

/// Reads a secret from the environment, less one line end.
///
/// # Errors
/// [`SecretError::NoVariable`] or [`SecretError::Empty`].
pub fn read_secret_variable(name: &str) -> Result<Secret, SecretError> {
    let value = std::env::var(name).map_err(|_| SecretError::NoVariable {
        name: name.to_owned(),
    })?;
    let secret = Secret::new(value).without_line_end();
    if secret.expose().is_empty() {
        return Err(SecretError::Empty {
            origin: format!("the environment variable `{name}`"),
        });
    }
    Ok(secret)
}

/// Writes a file that only its owner may touch (0600), in one step: a reader, also after a crash,
/// finds the old contents or the new ones, never a part. When this returns the file is on the disk.
///
/// # Errors
/// [`SecretError::Write`]; the old file is then untouched.
pub fn write_private_file(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    replace(path, bytes).map_err(|source| SecretError::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", rng::random_id_128(&mut rng::os())));
    let temporary = folder.join(temporary);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(folder)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A rename is durable only when its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn refuse_if_open(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !0o600 != 0 {
        return Err(SecretError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_open(_: &Path, _: &fs::Metadata) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(mode: u32, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
        assert_eq!(
            format!("{:#?}", Some(Secret::new("hunter2"))),
            "Some(\n    Secret(…),\n)"
        );
    }

    #[test]
    fn comparison() {
        let check = |a: &str, b: &str, same: bool| {
            assert_eq!(Secret::new(a) == Secret::new(b), same, "{a} {b}");
            assert_eq!(Secret::new(a).matches(b.as_bytes()), same, "{a} {b}");
        };
        check("hunter2", "hunter2", true);
        check("hunter2", "hunter3", false);
        check("hunter2", "hunter", false);
        check("hunter2", "", false);
    }

    #[test]
    fn modes() {
        let check = |mode: u32, expected: bool| {
            let (_folder, path) = file(mode, b"x");
            let answer = read_private_file(&path);
            assert_eq!(answer.is_ok(), expected, "{mode:o}");
            if let Err(error) = answer {
                let path = path.display();
                let message =
                    format!("`{path}` is open to other users (mode {mode:04o}); run `chmod 600 {path}`");
                assert_eq!(error.to_string(), message);
            }
        };
        check(0o600, true);
        check(0o400, true);
        check(0o640, false);
        check(0o604, false);
        check(0o644, false);
        check(0o700, false);
        check(0o4600, false);
    }

    #[test]
    fn line_ends_and_emptiness() {
        let check = |bytes: &[u8], expected: Option<&[u8]>| {
            let (_folder, path) = file(0o600, bytes);
            assert_eq!(
                read_secret_file(&path).ok().map(|s| s.expose().to_vec()),
                expected.map(<[u8]>::to_vec)
            );
            assert_eq!(read_private_file(&path).unwrap().expose(), bytes);
        };
        check(b"hunter2", Some(b"hunter2"));
        check(b"hunter2\n", Some(b"hunter2"));
        check(b"hunter2\r\n", Some(b"hunter2"));
        check(b"hunter2\n\n", Some(b"hunter2\n"));
        check(b"\n", None);
        check(b"", None);
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused() {
        let (folder, path) = file(0o600, &vec![0; MAX_SECRET_BYTES as usize + 1]);
        assert!(matches!(
            read_private_file(&path),
            Err(SecretError::TooLarge { .. })
        ));
        assert!(matches!(
            read_private_file(folder.path()),
            Err(SecretError::NotAFile { .. })
        ));
        let absent = folder.path().join("absent");
        assert!(matches!(
            read_private_file(&absent),
            Err(SecretError::Read { .. })
        ));
    }

    #[test]
    fn a_written_file_is_private_whole_and_alone() {
        let (folder, path) = file(0o644, b"old and longer");
        write_private_file(&path, b"new").unwrap();
        assert_eq!(read_private_file(&path).unwrap().expose(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_failed_write_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("key");
        fs::create_dir(&occupied).unwrap();
        assert!(matches!(
            write_private_file(&occupied, b"new"),
            Err(SecretError::Write { .. })
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_private_file(Path::new(".."), b"new").is_err());
    }

    #[test]
    fn variables() {
        let check = |name: &str, expected: &str| {
            assert_eq!(read_secret_variable(name).unwrap_err().to_string(), expected);
        };
        check(
            "TAPER_TEST_ABSENT",
            "the environment variable `TAPER_TEST_ABSENT` is not set",
        );
        let path = std::env::var("PATH").unwrap();
        assert_eq!(read_secret_variable("PATH").unwrap().expose_str().unwrap(), path);
    }
}
