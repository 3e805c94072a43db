use std::sync::Mutex;

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};
use taper_service::clock::ManualClock;
use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream};

use super::*;
use crate::bridge::{Conversation, Limits, Target, Terms};
use crate::testing::{Chain, Server, clock};
use crate::{Fixed, Source};

const PATIENCE: Duration = Duration::from_secs(20);

fn channel(url: &str, limits: Limits, clock: Arc<ManualClock>) -> Arc<Channel> {
    let chain = Chain::new();
    let held = Fixed::held(chain.token.clone(), chain.holder()).unwrap();
    let target = Target::new(&format!("{url}/git/mcp"), clock, limits).unwrap();
    let conversation = Conversation::new(Arc::new(Source::Fixed(Box::new(held))), Terms::default());
    Arc::new(Channel::new(target, conversation))
}

/// A client of a bridge, over pipes.
struct Client {
    to: Option<DuplexStream>,
    from: BufReader<DuplexStream>,
    shutdown: Shutdown,
    end: Arc<Mutex<Option<io::Result<()>>>>,
}

impl Client {
    fn start(server: &Server, limits: Limits) -> Self {
        Self::at(&server.url, limits, clock())
    }

    fn at(url: &str, limits: Limits, clock: Arc<ManualClock>) -> Self {
        let channel = channel(url, limits, clock);
        let (to, input) = tokio::io::duplex(1 << 16);
        let (output, from) = tokio::io::duplex(1 << 16);
        let (shutdown, end) = (Shutdown::new(), Arc::new(Mutex::new(None)));
        let (given, ended) = (shutdown.clone(), Arc::clone(&end));
        shutdown.spawn("bridge", async move {
            let done = run(channel, input, output, &given).await;
            *ended.lock().unwrap() = Some(done);
        });
        Self {
            to: Some(to),
            from: BufReader::new(from),
            shutdown,
            end,
        }
    }

    async fn send(&mut self, text: &str) {
        self.to
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .await
            .unwrap();
    }

    async fn line(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.from.read_line(&mut line));
        assert!(read.await.unwrap().unwrap() > 0);
        serde_json::from_str(&line).unwrap()
    }

    /// Waits until the bridge has ended.
    async fn ended(self) -> io::Result<()> {
        self.shutdown.drain(PATIENCE).await.unwrap();
        self.end.lock().unwrap().take().unwrap()
    }
}

fn ping(id: u64) -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    json!({"jsonrpc": "2.0", "id": id, "method": "ping", "params": {"_meta": meta}}).to_string()
}

#[tokio::test]
async fn lines_are_requests_and_answers_are_lines() {
    let server = Server::start().await;
    let json_kind = [("content-type", "application/json")];
    server.will_answer((json_kind, "{\"id\":1,\r\n\"result\":{}}"));
    let mut client = Client::start(&server, Limits::default());
    client.send(&format!("{}\r\n", ping(1))).await;
    assert_eq!(client.line().await, json!({"id": 1, "result": {}}));
    let events = "data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":2,\"result\":{}}\n\n";
    server.will_answer(([("content-type", "text/event-stream")], events));
    // The last line may lack its end.
    client.send(&ping(2)).await;
    client.to = None;
    assert_eq!(client.line().await["method"], "notifications/progress");
    assert_eq!(client.line().await["id"], 2);
    client.ended().await.unwrap();
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [ping(1), ping(2)]);
}

#[tokio::test]
async fn refusals_are_answers_too() {
    let server = Server::start().await;
    let limits = Limits {
        max_body: 256,
        ..Limits::default()
    };
    let mut client = Client::start(&server, limits);
    client.send(&format!("{}\n", "x".repeat(257))).await;
    assert_eq!(client.line().await["error"]["code"], -32600);
    client.send("nonsense\n").await;
    assert_eq!(client.line().await["error"]["code"], -32700);
    let challenge = [("www-authenticate", r#"DPoP error="invalid_token""#)];
    server.will_answer((StatusCode::UNAUTHORIZED, challenge).into_response());
    client.send(&format!("{}\n", ping(7))).await;
    let told = client.line().await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(4401)));
    client.shutdown.trigger();
    client.ended().await.unwrap();
}

/// What is written, piece by piece.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncWrite for Pieces {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.0.lock().unwrap().push(bytes.to_vec());
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_message_and_its_end_are_one_write() {
    let server = Server::start().await;
    let pieces = Pieces::default();
    let channel = channel(&server.url, Limits::default(), clock());
    run(
        channel,
        &b"nonsense\nmore\n"[..],
        pieces.clone(),
        &Shutdown::new(),
    )
    .await
    .unwrap();
    let pieces = pieces.0.lock().unwrap();
    assert_eq!(pieces.len(), 2);
    for piece in pieces.iter() {
        assert_eq!(
            piece.iter().position(|byte| *byte == b'\n'),
            Some(piece.len() - 1)
        );
    }
}

#[tokio::test]
async fn what_ended_is_forgotten() {
    let server = Server::start().await;
    let (reports, mut reported) = mpsc::channel(MAX_REPORTS);
    let mut running = Running {
        channel: channel(&server.url, Limits::default(), clock()),
        reports,
        shutdown: Shutdown::new(),
        tasks: BTreeMap::new(),
        opened: 0,
    };
    let request = |body: &'static str| Upward {
        method: http::Method::POST,
        headers: http::HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    for call in 1..=20 {
        running.open(call, request("{}"));
    }
    // Opened again: what the first exchange still says is of nobody, and does not end the second.
    running.open(20, request("{}"));
    assert_eq!(running.tasks.len(), 20);
    let stale = Report {
        call: 20,
        opened: 20,
        input: Input::End(20),
    };
    assert!(running.take(stale).is_none());
    assert_eq!(running.tasks.len(), 20);
    while !running.tasks.is_empty() {
        let report = tokio::time::timeout(PATIENCE, reported.recv());
        running.take(report.await.unwrap().unwrap());
    }
}

/// Answers requests with an `id`, and lets everything else wait.
async fn answers_requests_only(listener: tokio::net::TcpListener) {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{\"id\":1,\"result\":{}}";
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"}") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0);
        }
        if String::from_utf8(head).unwrap().contains("\"id\":1") {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        open.push(stream);
    }
}

/// Waiting goes by the time that passes: the clock, by which proofs are dated, is set back meanwhile.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stops_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = Shutdown::new();
    shutdown.spawn("server", answers_requests_only(listener));
    let clock = clock();
    let mut client = Client::at(&url, Limits::default(), clock.clone());
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"_meta": meta}});
    let begun = Instant::now();
    client.send(&format!("{note}\n{}\n", ping(1))).await;
    clock.set(crate::testing::NOW - 3_600);
    // What gets no answer is waited for, and what comes after it is sent half a minute later.
    let mut line = String::new();
    assert!(client.from.read_line(&mut line).await.unwrap() > 0);
    assert_eq!(line, "{\"id\":1,\"result\":{}}\n");
    let waited = begun.elapsed();
    assert!(
        (Duration::from_secs(29)..Duration::from_secs(60)).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_any_more_ends_the_bridge() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Limits::default());
    client.from = BufReader::new(tokio::io::duplex(1).0);
    client.send("nonsense\n").await;
    client.ended().await.unwrap_err();
}
