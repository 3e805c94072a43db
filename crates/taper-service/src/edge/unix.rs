//! The same edge over a Unix socket, for this user's own programs only.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{UnixListener, UnixStream};
use tower::Service;

use super::{BoxError, Counted, EdgeLimits, Listen, Peer, serve};
use crate::rng;
use crate::shutdown::Shutdown;

/// A socket that does not answer yet. Its file is removed when this ends.
#[derive(Debug)]
pub struct UnixBound {
    listener: UnixListener,
    file: SocketFile,
    limits: EdgeLimits,
}

/// The user of the program at the other end.
#[derive(Clone, Copy, Debug)]
struct PeerUser(u32);

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    owner: u32,
    inode: (u64, u64),
}

impl UnixBound {
    /// Opens a socket at `path` with mode 0600, in a folder where no other user can put another in its
    /// place. A socket at which nobody listens any more is replaced; anything else there is an error.
    ///
    /// # Errors
    /// The operating system's, with the path in the message.
    pub async fn bind(path: &Path, limits: EdgeLimits) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on `{}`: {e}", path.display()));
        let owner = own_user().map_err(named)?;
        check_folder(path, owner).map_err(named)?;
        if is_abandoned(path).await {
            fs::remove_file(path).map_err(named)?;
        }
        // Of several that start at once, one has the name; and it has its mode before it has the name.
        let mut own = path.as_os_str().to_owned();
        own.push(format!(".{}", rng::random_id_128(&mut rng::os())));
        let own = PathBuf::from(own);
        let listener = UnixListener::bind(&own).map_err(named)?;
        let named_so = fs::set_permissions(&own, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::hard_link(&own, path))
            .and_then(|()| fs::symlink_metadata(path));
        // The first failure is the one to report.
        let _ = fs::remove_file(&own);
        let metadata = named_so.map_err(named)?;
        let file = SocketFile {
            path: path.to_owned(),
            owner,
            inode: (metadata.dev(), metadata.ino()),
        };
        Ok(Self {
            listener,
            file,
            limits,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers requests of programs of this user, as [`Bound::serve`](super::Bound::serve) does. Other
    /// users' connections are closed.
    pub async fn serve<S, B>(self, service: S, shutdown: Shutdown)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self {
            listener,
            file,
            limits,
        } = self;
        let name = file.path.display().to_string();
        let listener = OwnUser {
            listener,
            owner: file.owner,
        };
        let (listener, counted) = ((listener, name), Counted::default());
        serve(listener, None, limits, counted, service, shutdown).await;
    }
}

/// Takes this user's connections only.
struct OwnUser {
    listener: UnixListener,
    owner: u32,
}

impl Listen for OwnUser {
    type Stream = UnixStream;
    type Peer = PeerUser;

    async fn next(&self) -> io::Result<(UnixStream, PeerUser)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if let Some(peer) = own(&stream, self.owner) {
                return Ok((stream, peer));
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Somebody may have removed it, which is as well.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for PeerUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

impl Peer for PeerUser {}

/// The peer, if it is the socket's owner (`SO_PEERCRED`).
fn own(stream: &UnixStream, owner: u32) -> Option<PeerUser> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner => Some(PeerUser(owner)),
        Ok(peer) => {
            tracing::warn!(peer.uid = peer.uid(), "another user's connection was refused");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "a peer without a user was refused");
            None
        }
    }
}

/// The user of this process, as its own peer.
fn own_user() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

/// A folder is this user's or the system's, and others may not rename what is in it.
fn check_folder(path: &Path, user: u32) -> io::Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = fs::metadata(folder)?;
    let is_shared = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0;
    if is_shared || ![user, 0].contains(&found.uid()) {
        let text = "other users can replace what is in its folder; take one of your own, with mode 0700";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Whether there is a socket at which nobody listens.
async fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn this_user_is_served_over_a_private_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bound = UnixBound::bind(&path, EdgeLimits::default()).await.unwrap();
        assert_eq!(bound.path(), path);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let taken = UnixBound::bind(&path, EdgeLimits::default()).await.unwrap_err();
        assert!(taken.to_string().contains("cannot listen on"), "{taken}");
        let shutdown = Shutdown::new();
        let router = Router::new().route("/", get(|| async { "hello" }));
        shutdown.spawn("edge", bound.serve(router, shutdown.clone()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        shutdown.trigger();
        shutdown.drain(std::time::Duration::from_secs(20)).await.unwrap();
        assert!(!path.exists(), "the file goes with the listener");
    }

    #[tokio::test]
    async fn another_user_is_not_served() {
        let (one, _other) = UnixStream::pair().unwrap();
        let user = one.peer_cred().unwrap().uid();
        assert!(own(&one, user).is_some());
        assert!(own(&one, user.wrapping_add(1)).is_none());
    }

    #[tokio::test]
    async fn what_an_ended_program_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(UnixBound::bind(&path, EdgeLimits::default()).await.unwrap());
        let first = UnixBound::bind(&path, EdgeLimits::default()).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(first);
        assert!(UnixBound::bind(&path, EdgeLimits::default()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        for (mode, accepted) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
            let bound = UnixBound::bind(&shared.join("s"), EdgeLimits::default()).await;
            assert_eq!(bound.is_ok(), accepted, "{mode:o}");
        }
    }
}
