use std::convert::Infallible;

use axum::Router;
use axum::body::{Body as AnyBody, Bytes};
use axum::extract::Request as AxumRequest;
use axum::routing::get;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::metrics::Registry;

const SHORT: Duration = Duration::from_millis(60);
/// Far beyond what a passing test takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

async fn start(limits: EdgeLimits, router: Router) -> (SocketAddr, Shutdown) {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
    shutdown.spawn("edge", bound.serve(router, shutdown.clone()));
    (addr, shutdown)
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn connect(addr: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server closes; a reset counts as closing.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = in_time(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// Sends one request on a connection of its own.
async fn call(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    rest(connect(addr, &request).await).await
}

async fn end(shutdown: &Shutdown) {
    shutdown.trigger();
    assert_eq!(shutdown.drain(PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn a_router_is_served_and_learns_the_peer() {
    let peer =
        get(async |request: AxumRequest| request.extensions().get::<PeerAddr>().unwrap().0.ip().to_string());
    let (addr, shutdown) = start(EdgeLimits::default(), hello().route("/peer", peer)).await;
    assert!(call(addr, "/").await.ends_with("\r\n\r\nhello"));
    assert!(call(addr, "/peer").await.ends_with("\r\n\r\n127.0.0.1"));
    end(&shutdown).await;
    assert!(TcpStream::connect(addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn clients_that_do_not_finish_a_request_head_are_cut() {
    let limits = EdgeLimits {
        header_read_timeout: SHORT,
        ..EdgeLimits::default()
    };
    let (addr, shutdown) = start(limits, hello()).await;
    for beginning in [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: a",
        "PRI * HTTP",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = connect(addr, beginning).await;
        let mut bytes = Vec::new();
        let _ = in_time(async { { answer }.read_to_end(&mut bytes).await }).await;
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "{beginning}");
    }
    let one_then_a_piece = "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT";
    assert!(
        rest(connect(addr, one_then_a_piece).await)
            .await
            .ends_with("hello")
    );
    end(&shutdown).await;
}

#[tokio::test]
async fn large_heads_are_refused() {
    let (addr, shutdown) = start(EdgeLimits::default(), hello()).await;
    // The unfinished head is exactly as long as is read, so that no reset overtakes the answer.
    let check = async |bytes: usize, tail: &str, expected: &str| {
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {:a<bytes$}",
            ""
        );
        let head = head.get(..bytes).unwrap();
        let answer = rest(connect(addr, &format!("{head}{tail}")).await).await;
        assert!(answer.starts_with(expected), "{bytes}: {answer}");
    };
    check(16 * 1024 - 4, "\r\n\r\n", "HTTP/1.1 200").await;
    check(16 * 1024, "", "HTTP/1.1 431").await;
    end(&shutdown).await;
}

#[tokio::test]
async fn nothing_is_read_behind_a_body_in_chunks() {
    let (addr, shutdown) = start(EdgeLimits::default(), hello()).await;
    let check = async |framing: &str, body: &str, answers: usize| {
        let first = format!("GET / HTTP/1.1\r\nhost: a\r\n{framing}\r\n{body}");
        let second = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = rest(connect(addr, &format!("{first}{second}")).await).await;
        assert_eq!(answer.matches("hello").count(), answers, "{framing}: {answer}");
    };
    check("", "", 2).await;
    check("content-length: 1\r\n", "x", 2).await;
    check("transfer-encoding: chunked\r\n", "0\r\n\r\n", 1).await;
    check(
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\n",
        1,
    )
    .await;
    check(
        "transfer-encoding: Chunked\r\ncontent-length: 5\r\n",
        "0\r\n\r\n",
        1,
    )
    .await;
    check("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n", 0).await;
    check(
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\n",
        0,
    )
    .await;
    end(&shutdown).await;
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let limits = EdgeLimits {
        max_connections: 1,
        ..EdgeLimits::default()
    };
    let (addr, shutdown) = start(limits, hello()).await;
    let mut first = connect(addr, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut byte = [0; 1];
    in_time(first.read_exact(&mut byte)).await.unwrap();
    let second = call(addr, "/");
    let mut second = std::pin::pin!(second);
    assert!(
        tokio::time::timeout(SHORT, second.as_mut()).await.is_err(),
        "it waits"
    );
    drop(first);
    assert!(in_time(second).await.ends_with("hello"));
    end(&shutdown).await;
}

#[tokio::test]
async fn connections_are_counted_and_what_is_no_request_by_its_reason() {
    let mut registry = Registry::new();
    let listeners = Listeners::new(&mut registry, "x", &["callers", "operators"]);
    let limits = EdgeLimits {
        header_read_timeout: SHORT * 4,
        max_connections: 2,
        ..EdgeLimits::default()
    };
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let bound = bound.counted(listeners.of(1));
    let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
    shutdown.spawn("edge", bound.serve(hello(), shutdown.clone()));
    let counted = |what: &str, labels: &str| {
        let page = registry.render();
        let start = format!("x_connections{what}{{listener=\"operators\"{labels}}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.map(|count| count.parse::<u64>().unwrap())
            .unwrap_or_else(|| panic!("{start}\n{page}"))
    };
    let check = async |beginning: &str, reason: &str| {
        let refused = |reason: &str| counted("_refused_total", &format!(",reason=\"{reason}\""));
        let before = ["certificate", "handshake", "slow", "malformed"].map(refused);
        let _ = rest(connect(addr, beginning).await).await;
        while counted("", "") > 0 {
            tokio::task::yield_now().await;
        }
        for (name, before) in ["certificate", "handshake", "slow", "malformed"]
            .into_iter()
            .zip(before)
        {
            assert_eq!(
                refused(name) - before,
                u64::from(name == reason),
                "{name} of {beginning:?}"
            );
        }
    };
    check("", "slow").await;
    check("GET / HTTP/1.1\r\nhost", "slow").await;
    check("no request\r\n\r\n", "malformed").await;
    check(
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        "malformed",
    )
    .await;
    check("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "none").await;
    check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "none").await;

    assert_eq!((counted("_limit", ""), counted("_full_total", "")), (2, 0));
    let held = [connect(addr, "").await, connect(addr, "").await];
    while counted("_full_total", "") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counted("", ""), 2);
    drop(held);
    assert!(call(addr, "/").await.ends_with("hello"));
    end(&shutdown).await;
    assert_eq!(counted("", ""), 0);
    assert!(
        registry
            .render()
            .contains("x_connections_full_total{listener=\"callers\"} 0")
    );
}

/// A route that reports its start and ends when it is told to.
fn held() -> (Router, mpsc::Receiver<oneshot::Sender<()>>) {
    let (started, starts) = mpsc::channel(1);
    let route = get(async move || {
        let (release, held) = oneshot::channel();
        started.send(release).await.unwrap();
        let _ = held.await;
        "done"
    });
    (hello().route("/held", route), starts)
}

#[tokio::test]
async fn a_running_request_ends_before_the_program() {
    let (router, mut starts) = held();
    let (addr, shutdown) = start(EdgeLimits::default(), router).await;
    let running = call(addr, "/held");
    let control = async {
        let release = starts.recv().await.unwrap();
        shutdown.trigger();
        assert!(shutdown.drain(SHORT).await.is_err(), "it is still running");
        release.send(()).unwrap();
        shutdown.drain(PATIENCE).await
    };
    let (answer, drained) = in_time(async { tokio::join!(running, control) }).await;
    assert!(answer.ends_with("done"), "{answer}");
    assert_eq!(drained, Ok(()));
}

#[tokio::test]
async fn a_request_without_end_is_cut_at_the_drain_deadline() {
    let (router, mut starts) = held();
    let limits = EdgeLimits {
        drain_timeout: SHORT,
        ..EdgeLimits::default()
    };
    let (addr, shutdown) = start(limits, router).await;
    let running = call(addr, "/held");
    let control = async {
        let _release = starts.recv().await.unwrap();
        shutdown.trigger();
        shutdown.drain(PATIENCE).await
    };
    let (answer, drained) = in_time(async { tokio::join!(running, control) }).await;
    assert_eq!((answer.as_str(), drained), ("", Ok(())));
}

#[tokio::test]
async fn a_panic_costs_its_own_connection_only() {
    let panics = get(|| async {
        if true {
            panic!("on purpose")
        }
    });
    let (addr, shutdown) = start(EdgeLimits::default(), hello().route("/panic", panics)).await;
    assert_eq!(call(addr, "/panic").await, "");
    assert!(call(addr, "/").await.ends_with("hello"));
    assert!(!shutdown.is_triggered());
    end(&shutdown).await;
}

#[tokio::test]
async fn a_stream_outlives_the_idle_timeout_and_an_idle_connection_does_not() {
    let (release, held) = oneshot::channel::<()>();
    let held = Arc::new(tokio::sync::Mutex::new(Some(held)));
    let route = get(async move || {
        let held = held.lock().await.take().unwrap();
        let parts = stream::once(async move {
            let _ = held.await;
            Ok::<_, Infallible>("late")
        });
        AnyBody::from_stream(parts)
    });
    let limits = EdgeLimits {
        idle_timeout: SHORT,
        ..EdgeLimits::default()
    };
    let (addr, shutdown) = start(limits, Router::new().route("/stream", route)).await;
    let mut stream = connect(addr, "GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut bytes = Vec::new();
    assert!(
        tokio::time::timeout(SHORT * 4, stream.read_to_end(&mut bytes))
            .await
            .is_err(),
        "the running stream is not idle"
    );
    release.send(()).unwrap();
    let tail = rest(stream).await;
    assert!(
        tail.contains("late"),
        "the idle connection is closed after it: {tail}"
    );
    end(&shutdown).await;
}

#[tokio::test]
async fn http2_has_the_same_limits() {
    let (addr, shutdown) = start(EdgeLimits::default(), hello()).await;
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let client = Shutdown::new();
    client.spawn("client", async move {
        let _ = connection.await;
    });
    let request = |filler: usize| {
        Request::builder()
            .uri(format!("http://{addr}/"))
            .header("x", "a".repeat(filler))
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let answer = in_time(sender.send_request(request(12 * 1024))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    let refused = in_time(sender.send_request(request(17 * 1024))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    end(&shutdown).await;
    assert_eq!(client.drain(PATIENCE).await, Ok(()), "the server said goodbye");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let addr = bound.local_addr();
    let message = Bound::bind(addr, EdgeLimits::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with(&format!("cannot listen on {addr}: ")),
        "{message}"
    );
}

#[test]
fn limits_are_read_from_a_config_file() {
    let limits: EdgeLimits = crate::config::parse("idle_timeout = '2m'\nmax_connections = 7", "x").unwrap();
    let expected = EdgeLimits {
        idle_timeout: Duration::from_secs(120),
        max_connections: 7,
        ..EdgeLimits::default()
    };
    assert_eq!(limits, expected);
}
