//! The end of a login on this machine: the browser is sent to a port of loopback (RFC 8252 section 7.3).
//!
//! Every process of the machine can connect to it. So only what carries the state of the login counts,
//! and whatever else arrives is answered and forgotten.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Pending;
use crate::Error;

/// The longest head of a request that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may take to say what it wants: browsers open some in advance.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are read at once.
const MAX_CONNECTIONS: usize = 16;
const PATH: &str = "/callback";

const DONE: &str = "You are logged in. This page can be closed.\n";
const FAILED: &str = "The login did not succeed. The terminal says why.\n";
const FOREIGN: &str = "This is not what the login waits for.\n";

/// A port on loopback that a browser is sent back to.
#[derive(Debug)]
pub struct Redirect {
    listener: TcpListener,
    uri: String,
}

/// What the browser brought: the parameters of the redirect.
pub struct Answered(Vec<(String, String)>);

impl Redirect {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`Error::Request`] when there is none.
    pub async fn listen() -> Result<Self, Error> {
        Self::listen_on(0).await
    }

    /// Listens on this port of 127.0.0.1, for servers that compare redirect URIs to the port; 0 is any.
    ///
    /// # Errors
    /// [`Error::Request`] when it is taken.
    pub async fn listen_on(port: u16) -> Result<Self, Error> {
        let unheard = |e: std::io::Error| Error::Request(format!("cannot listen on 127.0.0.1:{port}: {e}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.map_err(unheard)?;
        let port = listener.local_addr().map_err(unheard)?.port();
        Ok(Self {
            listener,
            uri: format!("http://127.0.0.1:{port}{PATH}"),
        })
    }

    /// The redirect URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the answer to `pending`. Callers bound the time.
    ///
    /// # Errors
    /// [`Error::Request`] when the port is lost.
    pub async fn answer(self, pending: &Pending<'_>) -> Result<Answered, Error> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut readers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    // A crowd is turned away; a browser tries again.
                    let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                    readers.spawn(async move {
                        let read = tokio::time::timeout(PATIENCE, read(stream)).await;
                        drop(place);
                        read.ok().flatten()
                    });
                }
                Some(read) = readers.join_next() => {
                    let Ok(Some((stream, answered))) = read else { continue };
                    let ours = answered.filter(|answered| pending.is_answered_by(answered));
                    let (status, text) = match &ours {
                        None => ("400 Bad Request", FOREIGN),
                        Some(answered) if answered.get("code").is_none() => ("200 OK", FAILED),
                        Some(_) => ("200 OK", DONE),
                    };
                    // Whether the browser still listens does not matter.
                    let _ = tokio::time::timeout(PATIENCE, say(stream, status, text)).await;
                    if let Some(answered) = ours {
                        return Ok(answered);
                    }
                }
            }
        }
    }
}

impl Answered {
    /// A parameter that was given exactly once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    /// The parameters of a request line.
    pub(super) fn of_head(head: &str) -> Option<Self> {
        let target = head
            .lines()
            .next()?
            .strip_prefix("GET ")?
            .strip_suffix(" HTTP/1.1")?;
        let query = target.strip_prefix(PATH)?.strip_prefix('?')?;
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Some(Self(pairs.into_owned().collect()))
    }
}

/// It carries a code.
impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// The head of one request, as far as it is one.
async fn read(mut stream: TcpStream) -> Option<(TcpStream, Option<Answered>)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 2048];
        let count = stream.read(&mut chunk).await.ok()?;
        head.extend_from_slice(chunk.get(..count)?);
        if count == 0 || head.len() > MAX_HEAD {
            return None;
        }
    }
    let answered = std::str::from_utf8(&head).ok().and_then(Answered::of_head);
    Some((stream, answered))
}

async fn say(mut stream: TcpStream, status: &str, text: &str) -> std::io::Result<()> {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
