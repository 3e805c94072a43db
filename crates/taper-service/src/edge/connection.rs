//! One connection, from its first byte to its end.

use std::io;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use super::callers::CallerCertificate;
use super::counted::{Counted, Refused};
use super::taken::Taken;
use super::tls::H2;
use super::traffic::{Quiet, Traffic};
use super::{BoxError, EdgeLimits, Peer};
use crate::shutdown::Shutdown;

/// The protocol settings, one per listener.
pub(super) type Protocol = auto::Builder<Tracked>;

/// The service gave up on a request; its connection or stream is closed.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the service: {0}")]
struct NoAnswer(BoxError);

/// The first request did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("no request came")]
struct NoRequest;

/// Starts the tasks of HTTP/2 streams where the listener can wait for them.
#[derive(Clone, Debug)]
pub(super) struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Writes `limits` into protocol settings; the tasks of streams are counted in `tasks`.
pub(super) fn protocol(limits: &EdgeLimits, tasks: &TaskTracker) -> Protocol {
    const LEAST_BUFFER: u32 = 8 * 1024;
    // Finds peers that vanished without a word while a stream of theirs runs.
    const PING: Duration = Duration::from_secs(20);
    let header_bytes = limits.max_header_bytes.max(LEAST_BUFFER);
    let mut protocol = auto::Builder::new(Tracked(tasks.clone()));
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(usize::try_from(header_bytes).unwrap_or(usize::MAX))
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(header_bytes)
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    protocol
}

/// Answers the requests of one connection, after its TLS handshake if there is one, until it ends, falls
/// quiet or must end.
pub(super) async fn drive<IO, P, S, B>(
    stream: IO,
    peer: P,
    tls: Option<TlsAcceptor>,
    protocol: Protocol,
    limits: EdgeLimits,
    (counted, service): (Counted, S),
    shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Peer,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // One span of time for the handshake and the first head.
    let until = Instant::now() + limits.header_read_timeout;
    let Some(tls) = tls else {
        let from = (peer, None);
        let service = (counted, service);
        return answer(stream, from, until, protocol, limits, service, shutdown).await;
    };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout_at(until, tls.accept(stream)) => shaken,
        () = shutdown.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => {
            // Over TLS, HTTP/2 is spoken where ALPN chose it (RFC 9113 section 3.3).
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(H2) => protocol.http2_only(),
                _ => protocol.http1_only(),
            };
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(CallerCertificate::of);
            let from = (peer, certificate);
            let service = (counted, service);
            answer(stream, from, until, protocol, limits, service, shutdown).await;
        }
        Ok(Err(error)) => {
            if let Some(reason) = of_handshake(&error) {
                counted.refused(reason);
            }
            tracing::debug!(peer = %peer, %error, "a TLS handshake failed");
        }
        Err(_) => {
            counted.refused(Refused::Slow);
            tracing::debug!(peer = %peer, "a TLS handshake did not end in time");
        }
    }
}

async fn answer<IO, P, S, B>(
    stream: IO,
    (peer, certificate): (P, Option<CallerCertificate>),
    until: Instant,
    protocol: Protocol,
    limits: EdgeLimits,
    (counted, service): (Counted, S),
    shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Peer,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stream = Taken::within(limits.write_timeout, stream);
    let traffic = Traffic::new();
    let (begun, refusals) = (traffic.clone(), counted.clone());
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let running = begun.begin();
        request.extensions_mut().insert(peer);
        if let Some(certificate) = certificate {
            request.extensions_mut().insert(certificate);
        }
        let framing = Framing::of(request.headers());
        let (answered, refusals) = (service.clone().oneshot(request), refusals.clone());
        async move {
            if framing == Framing::Foreign {
                refusals.refused(Refused::Malformed);
                return Err(NoAnswer("a transfer coding other than chunked".into()));
            }
            let mut response = answered.await.map_err(|e| NoAnswer(e.into()))?;
            if framing == Framing::Chunked {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(running.until_sent(response))
        }
    });
    let connection = protocol.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let end = tokio::select! {
        end = connection.as_mut() => end,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            within(limits.drain_timeout, connection).await
        }
        quiet = traffic.quiet(until.saturating_duration_since(Instant::now()), limits.idle_timeout) => match quiet {
            Quiet::Never => Err(NoRequest.into()),
            Quiet::Idle => {
                // A request may be arriving at this very moment; it is still answered.
                connection.as_mut().graceful_shutdown();
                within(limits.drain_timeout, connection).await
            }
        },
    };
    if let Err(error) = end {
        if let Some(reason) = of_http(&error, traffic.has_begun()) {
            counted.refused(reason);
        }
        tracing::debug!(peer = %peer, %error, "a connection ended early");
    }
}

/// What a handshake that failed is counted as: the certificate that the peer showed or did not, or something else. A
/// peer that went away, as one that looks whether the port is open, is nothing.
fn of_handshake(error: &io::Error) -> Option<Refused> {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(NoCertificatesPresented | InvalidCertificate(_)) => Some(Refused::Certificate),
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            None
        }
        _ => Some(Refused::Handshake),
    }
}

/// What a connection that ended early is counted as. One that was of use and then fell silent is nothing.
fn of_http(error: &BoxError, of_use: bool) -> Option<Refused> {
    let http = error.downcast_ref::<hyper::Error>();
    if http.is_some_and(hyper::Error::is_parse) {
        return Some(Refused::Malformed);
    }
    let late = error.is::<NoRequest>() || http.is_some_and(hyper::Error::is_timeout);
    (late && !of_use).then_some(Refused::Slow)
}

/// How the body of an HTTP/1.1 request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// By its length, or there is none.
    Plain,
    /// In chunks. A length beside them is dropped before it can be seen here, and whoever stands in
    /// front may have believed it: what follows on the connection is not read (RFC 9112 section 6.1).
    Chunked,
    /// In a coding that nobody here decodes.
    Foreign,
}

impl Framing {
    fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => Self::Plain,
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Self::Chunked,
            _ => Self::Foreign,
        }
    }
}

async fn within(
    patience: Duration,
    connection: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    match tokio::time::timeout(patience, connection).await {
        Ok(end) => end,
        Err(_) => Err("cut at the deadline".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_counted_for_what_the_peer_did() {
        let check = |error: io::Error, expected: Option<Refused>| {
            assert_eq!(of_handshake(&error), expected, "{error}");
        };
        let tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let bad = rustls::CertificateError::UnknownIssuer;
        check(tls(bad.into()), Some(Refused::Certificate));
        check(
            tls(rustls::Error::NoCertificatesPresented),
            Some(Refused::Certificate),
        );
        let alert = rustls::AlertDescription::UnknownCA;
        check(tls(rustls::Error::AlertReceived(alert)), Some(Refused::Handshake));
        check(io::ErrorKind::UnexpectedEof.into(), None);
        check(
            io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"),
            None,
        );
        check(io::ErrorKind::ConnectionReset.into(), None);
    }
}
