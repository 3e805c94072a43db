//! The side of the socket that has the keys.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use zeroize::Zeroizing;

use super::places::{Place, Places};
use super::wire::{Answer, Ask, MAX_LINE};
use super::{KeyRing, MAX_CONNECTIONS, MAX_LINES, MAX_NONSENSE, MAX_OF_ONE, PATIENCE, is_own};
use crate::Error;
use crate::folder::{Named, private_folder};

/// A socket on which an agent listens; it is removed when this is dropped.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

/// Listens at `path`, in a folder of the user's own, which is made when it is not there.
///
/// # Errors
/// [`Error::Folder`] when the folder is another user's or open to others or there can be no socket in it, [`Error::Exists`]
/// when something else is there or another agent answers.
pub fn listen(path: &Path) -> Result<Listening, Error> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |source: io::Error| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    private_folder(folder, Named::ByFile(path))?;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A socket that nobody answers was left by an agent that was killed.
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                    UnixListener::bind(path).map_err(failed)?
                }
                _ => {
                    return Err(Error::Exists {
                        path: path.to_owned(),
                    });
                }
            }
        }
        bound => bound.map_err(failed)?,
    };
    let listening = Listening {
        listener,
        path: path.to_owned(),
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listening)
}

impl Listening {
    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until `shutdown` is triggered, and forgets each key when its time has come.
    pub async fn serve(self, ring: Arc<KeyRing>, shutdown: Shutdown) {
        let places = Places::new(MAX_CONNECTIONS, MAX_OF_ONE);
        loop {
            let wake = Duration::from_secs(ring.seconds_to_next_end().unwrap_or(3_600));
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                // Asking for the next end forgets what has ended.
                () = tokio::time::sleep(wake) => continue,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely: the next second may have some.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            if !is_own(&stream) {
                continue;
            }
            // Without a place it is hung up on: all others are being answered, which takes a moment.
            let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
            // 0 is any process of another namespace.
            let process = process.filter(|process| *process > 0);
            let Some(place) = places.take(process) else {
                continue;
            };
            let (ring, ending) = (ring.clone(), shutdown.clone());
            shutdown.spawn("agent-connection", async move {
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = place.ended() => {}
                    _ = converse(stream, &ring, &place) => {}
                }
            });
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Without it the next agent finds that nobody answers there.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers line after line, up to a number. A line that is too long or does not come ends it, and so does
/// nonsense that goes on.
async fn converse(stream: UnixStream, ring: &KeyRing, place: &Place) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut nonsense = 0;
    for _ in 0..MAX_LINES {
        let mut line = Zeroizing::new(Vec::new());
        let mut limited = (&mut read).take(MAX_LINE as u64 + 1);
        let got = tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
        if got == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        if !place.busy() {
            return Ok(());
        }
        let answer = match line.strip_suffix(b"\n") {
            Some(line) => match Ask::parse(line) {
                Ok(ask) => ring.answer(ask).await,
                Err(reason) => {
                    nonsense += 1;
                    Answer::Error(reason.to_owned())
                }
            },
            None => Answer::Error(format!("a line has an end, and at most {MAX_LINE} bytes")),
        };
        // From here on it is the client that is waited for.
        if !place.idle() {
            return Ok(());
        }
        let mut text = Zeroizing::new(serde_json::to_vec(&answer)?);
        text.push(b'\n');
        tokio::time::timeout(PATIENCE, write.write_all(&text)).await??;
        if !whole || nonsense >= MAX_NONSENSE {
            return Ok(());
        }
    }
    Ok(())
}
