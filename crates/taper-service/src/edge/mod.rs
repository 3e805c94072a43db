//! The HTTP edge: one listener with limits, the same for every daemon.
//!
//! HTTP/1.1 and HTTP/2: with prior knowledge in clear text, by ALPN over TLS. A connection that breaks,
//! stalls or sends nonsense ends alone; it is a debug event, never more.
//!
//! What bounds a flood on HTTP/2, beside [`EdgeLimits`], are the defaults of hyper and h2: the connection
//! ends with `ENHANCE_YOUR_CALM` when its peer has reset 20 streams that were not taken yet, and after
//! 1,024 that broke the protocol; at most 400 KiB of a stream wait to be sent; settings and pings are
//! answered one at a time, so that who does not read the answers is not read either.

mod body;
mod callers;
mod certificate;
mod connection;
mod counted;
mod taken;
mod tls;
mod traffic;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use self::body::{BodyError, read_body};
pub use self::callers::{CallerCertificate, CallerCertificates};
pub use self::certificate::{CertificateFiles, ClientIdentity, TlsError};
pub use self::counted::{Counted, Listeners};
pub use self::tls::{Tls, TlsConfig};
#[cfg(unix)]
pub use self::unix::UnixBound;
use crate::shutdown::Shutdown;

/// The error that a service or body may end with; it closes the connection or stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The socket address of the peer, put into every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// What one listener grants its peers. Each number bounds what an anonymous peer can hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeLimits {
    /// From accepting a connection to its first complete request head, TLS included, and for every later HTTP/1.1
    /// head counted from the end of the response before it. Default 10 s.
    #[serde(with = "crate::config::duration")]
    pub header_read_timeout: Duration,
    /// All header bytes of one request; more is answered 431. At least 8 KiB. Default 16 KiB: a chain
    /// of several links and its proof fit.
    pub max_header_bytes: u32,
    /// Connections open at once; further ones wait in the operating system's queue. Default 1,024.
    pub max_connections: usize,
    /// How long a connection without a running request stays open. Default 60 s; for HTTP/1.1 the
    /// header read timeout is the bound when it is shorter.
    #[serde(with = "crate::config::duration")]
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what waits to be sent to it, before its connection ends. It counts anew with
    /// each byte. Default 60 s.
    #[serde(with = "crate::config::duration")]
    pub write_timeout: Duration,
    /// Requests at once on one HTTP/2 connection. Default 100.
    pub max_streams: u32,
    /// How long running requests may go on after the shutdown was triggered. Default 20 s.
    #[serde(with = "crate::config::duration")]
    pub drain_timeout: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(10),
            max_header_bytes: 16 * 1024,
            max_connections: 1024,
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_streams: 100,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// An open port that does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: EdgeLimits,
    tls: Option<Tls>,
    counted: Counted,
}

impl Bound {
    /// Opens `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, with the address in the message.
    pub async fn bind(addr: SocketAddr, limits: EdgeLimits) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
        let listener = TcpListener::bind(addr).await.map_err(named)?;
        let local_addr = listener.local_addr().map_err(named)?;
        Ok(Self {
            listener,
            local_addr,
            limits,
            tls: None,
            counted: Counted::default(),
        })
    }

    /// The same port, over TLS when there is a certificate.
    #[must_use]
    pub fn over(mut self, tls: Option<&Tls>) -> Self {
        self.tls = tls.cloned();
        self
    }

    /// The same port, with its connections counted.
    #[must_use]
    pub fn counted(mut self, counted: Counted) -> Self {
        self.counted = counted;
        self
    }

    /// The address in use, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers requests with clones of `service` (an `axum::Router` fits as it is) until `shutdown` is
    /// triggered. Then the port is closed, running requests end, at most for
    /// [`EdgeLimits::drain_timeout`], and this returns.
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
            local_addr,
            limits,
            tls,
            counted,
        } = self;
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let name = local_addr.to_string();
        let listener = (listener, name);
        serve(listener, acceptor, limits, counted, service, shutdown).await;
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    type Peer = PeerAddr;

    async fn next(&self) -> io::Result<(TcpStream, PeerAddr)> {
        let (stream, peer) = self.accept().await?;
        // Only latency is lost when the operating system refuses.
        let _ = stream.set_nodelay(true);
        Ok((stream, PeerAddr(peer)))
    }
}

/// Where connections come from.
trait Listen: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    type Peer: Peer;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

/// Answers the connections of a listener.
async fn serve<L, S, B>(
    (listener, name): (L, String),
    acceptor: Option<TlsAcceptor>,
    limits: EdgeLimits,
    counted: Counted,
    service: S,
    shutdown: Shutdown,
) where
    L: Listen,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let most = limits.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(most));
    counted.limit(most);
    let connections = TaskTracker::new();
    let protocol = connection::protocol(&limits, &connections);
    loop {
        let accepted = async {
            let place = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    counted.full();
                    Arc::clone(&places).acquire_owned().await.ok()?
                }
            };
            Some((place, accept(&listener).await))
        };
        let (place, (stream, peer)) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(accepted) = accepted => accepted,
            else => break,
        };
        let connection = connection::drive(
            stream,
            peer,
            acceptor.clone(),
            protocol.clone(),
            limits.clone(),
            (counted.clone(), service.clone()),
            shutdown.clone(),
        );
        let open = counted.open();
        connections.spawn(async move {
            connection.await;
            drop((open, place));
        });
    }
    drop(listener);
    connections.close();
    // Connections keep the deadline themselves; the second more is for those that just miss it.
    let patience = limits.drain_timeout.saturating_add(Duration::from_secs(1));
    if tokio::time::timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(
            listen = name,
            tasks = connections.len(),
            "requests outlived the shutdown"
        );
    }
}

/// Who is at the other end: put into every request's extensions, and shown in logs.
trait Peer: Copy + fmt::Display + Send + Sync + 'static {}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Peer for PeerAddr {}

/// The next connection. What goes wrong on the way passes: a peer that gave up concerns nobody else,
/// and a lack of file descriptors ends when other connections do.
async fn accept<L: Listen>(listener: &L) -> (L::Stream, L::Peer) {
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.next().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_peer(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod http2_tests;
#[cfg(test)]
mod tests;
