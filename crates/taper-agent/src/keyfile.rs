//! The file that holds an agent's private key: one private JWK (RFC 7517, RFC 8037), mode 0600.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use taper_dpop::PrivateKey;
use taper_service::rng;
use taper_service::secret::{self, SecretError};

use crate::Error;

/// Reads a private key.
///
/// # Errors
/// [`Error::Secret`] when the file cannot be read or others may read it; [`Error::KeyFile`] when it
/// holds no private JWK.
pub fn load(path: &Path) -> Result<PrivateKey, Error> {
    let wrong = |source| Error::KeyFile {
        path: path.to_owned(),
        source,
    };
    let text = secret::read_secret_file(path)?;
    PrivateKey::from_jwk_str(text.expose_str()?).map_err(wrong)
}

/// Writes `key` to a new file that only its owner may touch; it is on the disk when this returns.
///
/// # Errors
/// [`Error::Exists`] when there is something at `path`, else [`Error::Secret`].
pub fn create(path: &Path, key: &PrivateKey) -> Result<(), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists {
            path: path.to_owned(),
        },
        _ => Error::Secret(SecretError::Write {
            path: path.to_owned(),
            source,
        }),
    };
    // Whole and private before it has its name, which a link gives to one of many only.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", rng::random_id_128(&mut rng::os())));
    let temporary = PathBuf::from(name);
    secret::write_private_file(&temporary, key.to_jwk_string().as_bytes())?;
    let linked = fs::hard_link(&temporary, path);
    // The first failure is the one to report.
    let _ = fs::remove_file(&temporary);
    linked.map_err(failed)?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync(folder).map_err(failed)
}

/// A new name is durable only when its folder is.
#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_dpop::Algorithm;

    #[test]
    fn a_key_reads_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let path = folder.path().join(algorithm.as_str());
            let key = PrivateKey::generate(algorithm, &mut rng::os());
            create(&path, &key).unwrap();
            assert_eq!(load(&path).unwrap().public(), key.public());
            let other = PrivateKey::generate(algorithm, &mut rng::os());
            assert!(matches!(create(&path, &other), Err(Error::Exists { .. })));
            let files = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(
                files,
                usize::from(algorithm == Algorithm::Es256) + 1,
                "nothing else is left"
            );
            assert_eq!(load(&path).unwrap().public(), key.public());
        }
    }

    #[test]
    fn nothing_is_left_where_nothing_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("key");
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        assert!(matches!(create(&path, &key), Err(Error::Secret(_))));
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_private_key_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        create(&path, &key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load(&path),
            Err(Error::Secret(SecretError::TooOpen { .. }))
        ));
        let public = serde_json::to_vec(&key.public().to_jwk()).unwrap();
        secret::write_private_file(&path, &public).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, Error::KeyFile { .. }), "{error}");
        assert!(error.to_string().contains("holds no private key"), "{error}");
    }
}
