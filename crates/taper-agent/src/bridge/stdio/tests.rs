use std::sync::Mutex;

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream};

use super::*;
use crate::bridge::{Conversation, Limits, Target, Terms};
use crate::testing::{Chain, Server, clock};
use crate::{Fixed, Source};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client of a bridge, over pipes.
struct Client {
    to: Option<DuplexStream>,
    from: BufReader<DuplexStream>,
    shutdown: Shutdown,
    end: Arc<Mutex<Option<io::Result<()>>>>,
}

impl Client {
    fn start(server: &Server, limits: Limits) -> Self {
        let chain = Chain::new();
        let held = Fixed::held(chain.token.clone(), chain.holder()).unwrap();
        let target = Target::new(&format!("{}/git/mcp", server.url), clock(), limits).unwrap();
        let conversation = Conversation::new(Arc::new(Source::Fixed(Box::new(held))), Terms::default());
        let channel = Arc::new(Channel::new(target, conversation));
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

#[tokio::test]
async fn a_client_that_does_not_read_any_more_ends_the_bridge() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Limits::default());
    client.from = BufReader::new(tokio::io::duplex(1).0);
    client.send("nonsense\n").await;
    client.ended().await.unwrap_err();
}
