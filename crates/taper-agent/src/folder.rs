//! Folders that are the user's own: what lies in them nobody else can replace.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::Path;

use crate::Error;

/// How the user named a folder, which is what advice about it goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    /// Itself, for this purpose alone.
    Itself,
    /// By this file in it: what else the folder is for is not known.
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "files are sockets, which are on Unix only")
    )]
    ByFile(&'a Path),
}

/// Makes the folder, or checks that it is the user's and nobody else has a right to it.
///
/// # Errors
/// [`Error::Folder`] with what to do.
pub(crate) fn private_folder(dir: &Path, named: Named<'_>) -> Result<(), Error> {
    let failed = |source| Error::Folder {
        path: dir.to_owned(),
        source,
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(failed)?;
    let metadata = fs::metadata(dir).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if let Some(reason) = unsafe_for(dir, named, metadata.mode(), owner, user) {
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, reason)));
        }
    }
    #[cfg(not(unix))]
    let _ = named;
    Ok(())
}

/// Why `user` must not keep anything private in `dir`, and what to do. The mode of a folder that may be for
/// something else too, such as `/tmp` or a home, is never to be changed.
#[cfg(unix)]
fn unsafe_for(dir: &Path, named: Named<'_>, mode: u32, owner: u32, user: u32) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let (shown, bits) = (dir.display(), mode & 0o7777);
    let below = match named {
        Named::Itself => dir.join("taper"),
        Named::ByFile(file) => dir.join("taper").join(file.file_name().unwrap_or_default()),
    };
    let below = below.display();
    if owner != user {
        return Some(format!(
            "it belongs to the user id {owner}, not to {user}; name a folder of your own"
        ));
    }
    match (bits & 0o077, named) {
        (0, _) => None,
        (_, Named::Itself) if bits & STICKY == 0 => Some(format!(
            "it is open to other users (mode {bits:04o}); run `chmod 700 {shown}`, or name one that is for nothing \
             else, such as `{below}`"
        )),
        _ => Some(format!(
            "it is open to other users (mode {bits:04o}); name one below it, such as `{below}`, which is then made"
        )),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn advice_never_breaks_what_others_use() {
        let check = |dir: &str, file: Option<&str>, mode, owner, expected: Option<&str>| {
            let named = file.map_or(Named::Itself, |file| Named::ByFile(Path::new(file)));
            let told = unsafe_for(Path::new(dir), named, mode, owner, 1_000);
            match (&told, expected) {
                (None, None) => {}
                (Some(told), Some(part)) => assert!(told.contains(part), "{dir}: {told}"),
                _ => panic!("{dir}: {told:?}"),
            }
            told.is_some_and(|told| told.contains("chmod"))
        };
        let (tmp, home) = (Some("/tmp/a.sock"), Some("/home/u/a.sock"));
        assert!(!check("/tmp", tmp, 0o41777, 0, Some("belongs to the user id 0")));
        assert!(!check("/tmp", tmp, 0o41777, 1_000, Some("`/tmp/taper/a.sock`")));
        assert!(!check(
            "/home/u",
            home,
            0o40755,
            1_000,
            Some("`/home/u/taper/a.sock`")
        ));
        assert!(!check("/tmp", None, 0o41777, 1_000, Some("`/tmp/taper`")));
        assert!(check(
            "/home/u/w",
            None,
            0o40750,
            1_000,
            Some("`chmod 700 /home/u/w`")
        ));
        assert!(!check("/home/u/w", None, 0o40700, 1_000, None));
        // Root may use what is another's, and whoever that is could replace what lies there.
        assert!(!check(
            "/srv/w",
            None,
            0o40700,
            0,
            Some("name a folder of your own")
        ));
    }

    #[test]
    fn a_new_folder_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a").join("b");
        private_folder(&dir, Named::Itself).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        private_folder(&dir, Named::ByFile(&dir.join("x"))).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        assert!(private_folder(&dir.join("file"), Named::Itself).is_err());
    }
}
