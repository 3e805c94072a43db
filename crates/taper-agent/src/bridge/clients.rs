//! The secrets by which a listener tells its clients apart: 256 random bits each, in a file of their own
//! that only the user can read, made when a name is first used for a server and kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use taper_service::rng;
use taper_service::secret::{self, Secret, SecretError};

use crate::Error;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// A client that may use a listener.
#[derive(Debug)]
pub struct Client {
    /// Its name, for people.
    pub name: String,
    /// What it presents as `Authorization: Bearer …`.
    pub secret: Secret,
    /// Where the secret is kept.
    pub file: PathBuf,
}

impl Client {
    /// The client `name` of a listener for the server at `url`, whose secret is in `folder`. Folder and secret are
    /// made if they are not there. A secret opens no other server's listener.
    ///
    /// # Errors
    /// [`Error::Request`] for a name that cannot be a file's, else [`Error::Secret`].
    pub fn open(folder: &Path, name: &str, url: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            return Err(Error::Request(format!(
                "a client's name has 1 to {MAX_NAME} letters, digits, `-` and `_`, unlike `{}`",
                name.escape_debug()
            )));
        }
        let server: String = Sha256::digest(url)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let file = folder.join(format!("client-{name}-{server}.secret"));
        if !file.exists() {
            make(folder, &file)?;
        }
        Ok(Self {
            name: name.to_owned(),
            secret: secret::read_secret_file(&file)?,
            file,
        })
    }
}

/// Of several who do this at once, one makes the secret and all read it.
fn make(folder: &Path, file: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| {
        let path = file.to_owned();
        Error::Secret(SecretError::Write { path, source })
    };
    private_folder(folder).map_err(failed)?;
    let mut ours = file.as_os_str().to_owned();
    ours.push(format!(".{}.tmp", rng::random_id_128(&mut rng::os())));
    let ours = PathBuf::from(ours);
    let fresh = rng::random_secret_256(&mut rng::os());
    secret::write_private_file(&ours, fresh.expose())?;
    let linked = fs::hard_link(&ours, file);
    // What matters is whether the link is there.
    let _ = fs::remove_file(&ours);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Makes a folder that only its owner may enter, if there is none.
fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const URL: &str = "https://proxy.example/git/mcp";

    #[test]
    fn a_secret_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a").join("b");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let folder = folder.clone();
                std::thread::spawn(move || Client::open(&folder, "claude", URL).unwrap())
            })
            .collect();
        let clients: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let first = clients.first().unwrap();
        assert_eq!(first.secret.expose().len(), 43);
        assert!(clients.iter().all(|client| client.secret == first.secret));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&first.file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let other = Client::open(&folder, "code", URL).unwrap();
        assert!(other.secret != first.secret);
        let elsewhere = Client::open(&folder, "claude", "https://proxy.example/payroll/mcp").unwrap();
        assert!(elsewhere.secret != first.secret && elsewhere.file != first.file);
        assert!(!format!("{first:?}").contains(first.secret.expose_str().unwrap()));
    }

    #[test]
    fn names_and_modes() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "a/b", "..", "a b", "é", &"x".repeat(65)] {
            assert!(
                matches!(Client::open(folder.path(), name, URL), Err(Error::Request(_))),
                "{name}"
            );
        }
        let client = Client::open(folder.path(), "a", URL).unwrap();
        fs::set_permissions(&client.file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Client::open(folder.path(), "a", URL).is_err());
    }
}
