//! Honest traffic passes as it is: the same bytes, at once, no faster than it is read, for as long as both
//! ends are there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use taper_service::edge::{Bound, BoxError, EdgeLimits};
use tokio::sync::{mpsc, oneshot};
use tower::service_fn;

use super::support::{Setup, World, tool_call, usual};
use crate::body::Body;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
/// Far beyond what a passing test takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}

/// A body of what comes through the channel.
fn fed(receive: mpsc::Receiver<Bytes>) -> Body {
    let parts = stream::unfold(receive, |mut receive| async {
        let part = receive.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(part)), receive))
    });
    StreamBody::new(parts.boxed()).boxed_unsync()
}

/// Tells when it is dropped.
struct Gone(Option<oneshot::Sender<()>>);

impl Gone {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (send, receive) = oneshot::channel();
        (Self(Some(send)), receive)
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            let _ = send.send(());
        }
    }
}

#[tokio::test]
async fn bodies_pass_byte_for_byte() {
    let world = World::start(usual()).await;
    let odd = concat!(
        "\u{feff}: a comment\n\n:\r\n\r\nevent: message\r\nid: 7\r\nretry: 5\r\nx-unknown: y\r\n",
        "data: {\"jsonrpc\":\"2.0\",\"id\":1,\rdata:  \"result\":{\"b\":1.50,\"a\":\"\\u0041\"},\"zzz\":[1, 2]}\r\n\r\n",
        "data\n\n: an end without an empty line",
    );
    world.upstream.answers(move |_| events(crate::body::full(odd)));
    let asked = format!(
        "\t{} \r\n",
        tool_call("git_log", "{ \"repo_path\" : \"acme\\/web\"}")
    );
    let traced = world
        .ask(asked.clone())
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tracestate", "a=b,c=d")
        .header("accept", "application/json, text/event-stream;q=0.5");
    let answer = traced.send().await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.body, odd);
    let seen = world.upstream.seen().pop().unwrap();
    assert_eq!(seen.body, asked);
    for (name, value) in [
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "a=b,c=d"),
        ("accept", "application/json, text/event-stream;q=0.5"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    let text = "{\"jsonrpc\":\"2.0\",\"id\":1,\n \"result\":{\"b\":1.50,\"b\":\"\\u0041\"},\"zzz\":null} ";
    world.upstream.answers_json(text);
    let answer = world.call("git_log", LOG).send().await;
    assert_eq!(answer.body, text, "what nobody has to read here");
    world.end().await;
}

#[tokio::test]
async fn an_event_arrives_before_the_next_is_sent() {
    let world = World::start(usual()).await;
    let (send, receive) = mpsc::channel(1);
    let mut receive = Some(receive);
    world
        .upstream
        .answers(move |_| events(fed(receive.take().unwrap())));
    let mut response = in_time(world.open(world.call("git_log", LOG).request())).await;
    for part in [
        ": ping\n\n",
        "data: {\"jsonrpc\":\"2.0\"}\n\n",
        ": and more\n",
        "\n",
    ] {
        in_time(send.send(Bytes::from_static(part.as_bytes())))
            .await
            .unwrap();
        let mut got = Vec::new();
        while got.len() < part.len() {
            let frame = in_time(response.frame()).await.unwrap().unwrap();
            got.extend(frame.into_data().unwrap());
        }
        assert_eq!(got, part.as_bytes());
    }
    drop(send);
    assert!(in_time(response.frame()).await.is_none(), "a clean end");
    world.end().await;
}

#[tokio::test]
async fn who_does_not_read_holds_the_upstream_back() {
    const PARTS: usize = 3 * 1024;
    const PART: usize = 32 * 1024;
    let world = World::start(usual()).await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    world.upstream.answers(move |_| {
        let count = Arc::clone(&count);
        let parts = stream::iter(0..PARTS).map(move |_| {
            count.fetch_add(PART, Ordering::SeqCst);
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[b':'; PART])))
        });
        events(StreamBody::new(parts).boxed_unsync())
    });
    let mut response = in_time(world.open(world.call("git_log", LOG).request())).await;
    let still = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = written.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    };
    let held = in_time(still).await;
    assert!(held < PARTS * PART / 2, "{held} bytes are under way");
    let mut got = 0;
    while let Some(frame) = in_time(response.frame()).await {
        got += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(got, PARTS * PART, "and nothing was lost");
    world.end().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_upstreams_work() {
    let (gone, ended) = Gone::new();
    let (asked, started) = oneshot::channel();
    let scene = Arc::new(Mutex::new(Some((gone, asked))));
    // In the middle of a stream.
    let world = World::start(usual()).await;
    let (gone_too, ended_too) = Gone::new();
    let mut guard = Some(gone_too);
    world.upstream.answers(move |_| {
        let guard = guard.take().unwrap();
        let first = stream::once(async { Ok::<_, BoxError>(Frame::data(Bytes::from_static(b": a\n\n"))) });
        let rest = stream::once(async move {
            let _held = guard;
            std::future::pending().await
        });
        events(StreamBody::new(first.chain(rest).boxed()).boxed_unsync())
    });
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut response = in_time(client.request(world.call("git_log", LOG).request()))
        .await
        .unwrap();
    in_time(response.frame()).await.unwrap().unwrap();
    drop(response);
    in_time(ended_too).await.unwrap();
    world.end().await;

    // Before the answer has begun.
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let addr = bound.local_addr();
    let world = World::start(Setup {
        upstream: Some(format!("{{ http = 'http://{addr}/mcp' }}")),
        ..usual()
    })
    .await;
    let service = service_fn(move |request: http::Request<Incoming>| {
        let scene = Arc::clone(&scene);
        async move {
            let body = request.into_body().collect().await;
            let (_gone, asked) = scene.lock().unwrap().take().unwrap();
            body.unwrap();
            asked.send(()).unwrap();
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>().await
        }
    });
    world
        .shutdown
        .spawn("silent", bound.serve(service, world.shutdown.clone()));
    let request = Box::pin(client.request(world.call("git_log", LOG).request()));
    let first = in_time(futures_util::future::select(request, started)).await;
    let futures_util::future::Either::Right((Ok(()), request)) = first else {
        panic!("it answered");
    };
    drop(request);
    drop(client);
    in_time(ended).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_upstream_that_goes_away_is_no_clean_end() {
    let world = World::start(usual()).await;
    let (end, ended) = oneshot::channel::<()>();
    let mut ended = Some(ended);
    world.upstream.answers(move |_| {
        let ended = ended.take().unwrap();
        let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"data: {}\n\n"))) });
        let broken = stream::once(async move {
            let _ = ended.await;
            Err(BoxError::from("gone"))
        });
        events(StreamBody::new(first.chain(broken).boxed()).boxed_unsync())
    });
    let mut response = in_time(world.open(world.call("git_log", LOG).request())).await;
    in_time(response.frame()).await.unwrap().unwrap();
    end.send(()).unwrap();
    assert!(in_time(response.frame()).await.unwrap().is_err());
    world
        .upstream
        .answers_json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(world.whole(world.call("git_log", LOG).request()).await.is_some());
    world.end().await;
}

#[tokio::test]
async fn other_methods_are_told_what_there_is() {
    let world = World::start(usual()).await;
    for method in [Method::HEAD, Method::OPTIONS, Method::PUT, Method::PATCH] {
        let mut ask = world.ask("").method(method.clone());
        ask.body = String::new();
        let answer = ask.send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, "POST, GET, DELETE"),
            "{method}"
        );
        assert_eq!(answer.body, "", "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    for path in ["/healthz", "/.well-known/oauth-protected-resource/git/mcp"] {
        let whole = world.ask("").method(Method::GET).path(path).send().await;
        let head = world.ask("").method(Method::HEAD).path(path).send().await;
        assert_eq!(
            (whole.status.as_u16(), head.status.as_u16()),
            (200, 200),
            "{path}"
        );
        assert_eq!(
            (head.body.len(), head.header("content-type")),
            (0, whole.header("content-type"))
        );
    }
    assert!(world.upstream.seen().is_empty());
    world.end().await;
}
