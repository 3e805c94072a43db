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

use super::{BoxError, EdgeLimits, Listen, Peer, serve};
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
}

impl UnixBound {
    /// Opens a socket at `path` with mode 0600. A socket of this user at which nobody listens any more is
    /// replaced; anything else there is an error.
    ///
    /// # Errors
    /// The operating system's, with the path in the message.
    pub async fn bind(path: &Path, limits: EdgeLimits) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on `{}`: {e}", path.display()));
        if is_abandoned(path).await {
            fs::remove_file(path).map_err(named)?;
        }
        let listener = UnixListener::bind(path).map_err(named)?;
        // Whoever connects before this line is refused as another user, or is this one.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
        let owner = fs::symlink_metadata(path).map_err(named)?.uid();
        let file = SocketFile {
            path: path.to_owned(),
            owner,
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
        serve(listener, name, None, limits, service, shutdown).await;
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
        // Somebody may have removed it, which is as well.
        let _ = fs::remove_file(&self.path);
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
        fs::write(&path, "mine").unwrap();
        assert!(UnixBound::bind(&path, EdgeLimits::default()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
