use std::time::Duration;

use axum::response::IntoResponse;
use serde_json::{Value, json};
use taper_capability::UnverifiedToken;
use taper_dpop::{Expectation, NonceRule, Proof, TokenHash};
use taper_service::edge::EdgeLimits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::bridge::{Conversation, Limits, Target, Terms};
use crate::testing::{Chain, NOW, Seen, Server, clock};
use crate::{Fixed, Source};

/// Far beyond what a passing test takes.
const PATIENCE: Duration = Duration::from_secs(20);
const PING: &str = r#"{"jsonrpc":"2.0", "id":7,"method":"ping"}"#;

fn channel(server: &Server, limits: Limits) -> Arc<Channel> {
    let chain = Chain::new();
    let held = Fixed::held(chain.token.clone(), chain.holder()).unwrap();
    let target = Target::new(&format!("{}/git/mcp", server.url), clock(), limits).unwrap();
    let conversation = Conversation::new(Arc::new(Source::Fixed(Box::new(held))), Terms::default());
    Arc::new(Channel::new(target, conversation))
}

struct Listener {
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Listener {
    async fn start(admission: Admission) -> Self {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let (address, shutdown) = (bound.local_addr(), Shutdown::new());
        shutdown.spawn("bridge", serve(bound, admission, shutdown.clone()));
        Self { address, shutdown }
    }

    async fn open(server: &Server) -> Self {
        Self::start(Admission::Anyone(channel(server, Limits::default()))).await
    }

    async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// A POST of a ping with these lines in its head.
    async fn ping(&self, lines: &str) -> (u16, String) {
        let request = post(&self.address.to_string(), lines, PING);
        whole(self.connect(&request).await).await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn post(host: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /git/mcp HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{lines}\r\n{body}"
    )
}

/// Status and all the rest of an answer.
async fn whole(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> (u16, String) {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A peer that resets has said what it had to say.
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, text)
}

/// Reads until the text is there.
async fn until(stream: &mut TcpStream, wanted: &str) {
    let mut text = String::new();
    while !text.contains(wanted) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes));
        let read = read.await.unwrap().unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
}

fn error_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The capability of a request that is proven as the proxy demands.
fn proven(server: &Server, seen: &Seen) -> UnverifiedToken {
    let text = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    let token = text("authorization").strip_prefix("DPoP ").unwrap().to_owned();
    let (proof, url) = (text("dpop"), format!("{}{}", server.url, seen.path));
    let expectation = Expectation {
        method: &seen.method,
        url: &url,
        token: Some(TokenHash::of(&token)),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let proof = Proof::parse(&proof).unwrap().check(&expectation).unwrap();
    let proof = proof.verify().unwrap();
    assert_eq!(proof.binds(&seen.body), Ok(seen.method == "POST"));
    let token = UnverifiedToken::decode(&token).unwrap();
    assert_eq!(proof.thumbprint(), token.last_holder().thumbprint());
    token
}

#[tokio::test]
async fn a_request_is_signed_and_passes_as_it_is() {
    let server = Server::start().await;
    let answer = r#"{"jsonrpc":"2.0","id":7, "result":{"x":1.0}}"#;
    let kind = [
        ("content-type", "application/json"),
        ("mcp-session-id", "s1"),
        ("set-cookie", "a=b"),
        ("server", "x"),
    ];
    server.will_answer((kind, answer));
    let bridge = Listener::open(&server).await;
    let lines = "content-type: application/json\r\naccept: text/event-stream\r\nmcp-method: ping\r\n\
                 authorization: Bearer mine\r\ncookie: a=b\r\nx-forwarded-for: 1.2.3.4\r\ndpop: x\r\n\
                 traceparent: 00-1\r\n";
    let (status, text) = bridge.ping(lines).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with(&format!("\r\n\r\n{answer}")), "{text}");
    assert!(text.contains("\r\nmcp-session-id: s1\r\n"), "{text}");
    assert!(
        !text.contains("set-cookie") && !text.contains("\r\nserver:"),
        "{text}"
    );
    let [seen] = server.seen().try_into().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/git/mcp"));
    assert_eq!(seen.body, PING);
    assert_eq!(
        proven(&server, &seen).depth(),
        1,
        "handed over to the conversation"
    );
    for (name, expected) in [
        ("content-type", Some("application/json")),
        ("accept", Some("text/event-stream")),
        ("mcp-method", Some("ping")),
        ("traceparent", Some("00-1")),
        ("cookie", None),
        ("x-forwarded-for", None),
    ] {
        let value = seen.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value, expected, "{name}");
    }
}

#[tokio::test]
async fn other_names_pages_paths_and_methods_are_refused() {
    let server = Server::start().await;
    let bridge = Listener::open(&server).await;
    let address = bridge.address.to_string();
    let local = format!("localhost:{}", bridge.address.port());
    let check = async |request: String, expected: u16| {
        let (status, text) = whole(bridge.connect(&request).await).await;
        assert_eq!(status, expected, "{request}\n{text}");
    };
    for host in ["evil.example", "127.0.0.1", "localhost", "127.0.0.1:1"] {
        check(post(host, "", PING), 403).await;
    }
    check(post(&address, "host: evil.example\r\n", PING), 403).await;
    for origin in ["http://evil.example", "null", "https://127.0.0.1:1", &address] {
        check(post(&address, &format!("origin: {origin}\r\n"), PING), 403).await;
    }
    let twice = format!("origin: http://{address}\r\norigin: http://{address}\r\n");
    check(post(&address, &twice, PING), 403).await;
    let line = |line: &str| post(&address, "", "").replace("POST /git/mcp", line);
    check(line("POST /"), 404).await;
    check(line("GET /.well-known/oauth-protected-resource/git/mcp"), 404).await;
    check(line("POST /git/mcp?x=1"), 404).await;
    check(line("PUT /git/mcp"), 405).await;
    check(line("OPTIONS /git/mcp"), 405).await;
    check(line("POST http://evil.example/git/mcp"), 403).await;
    check(post(&address, "content-encoding: gzip\r\n", PING), 415).await;
    assert!(server.seen().is_empty());
    // The listener's own names are right, and so is its own origin. (418 is the server's.)
    check(post(&local, "", PING), 418).await;
    check(post(&address, &format!("origin: http://{local}\r\n"), PING), 418).await;
}

#[tokio::test]
async fn each_client_has_a_secret_and_a_key_of_its_own() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let clients: Vec<_> = ["one", "two"]
        .map(|name| {
            let client = Client::open(folder.path(), name, "https://proxy.example/git/mcp").unwrap();
            (client, channel(&server, Limits::default()))
        })
        .into();
    let expected: Vec<_> = clients
        .iter()
        .map(|(_, channel)| channel.conversation().thumbprint().unwrap())
        .collect();
    let secrets: Vec<_> = clients
        .iter()
        .map(|(client, _)| client.secret.expose_str().unwrap().to_owned())
        .collect();
    let bridge = Listener::start(Admission::Secrets(clients)).await;
    let bearer = |secret: &str| format!("authorization: Bearer {secret}\r\n");
    for secret in &secrets {
        assert_eq!(bridge.ping(&bearer(secret)).await.0, 418);
    }
    let seen = server.seen();
    let holders: Vec<_> = seen
        .iter()
        .map(|seen| proven(&server, seen).last_holder().thumbprint())
        .collect();
    assert_eq!(holders, expected);
    let one = secrets.first().unwrap();
    for lines in [
        String::new(),
        bearer(""),
        bearer("x"),
        bearer(&one[1..]),
        format!("authorization: Basic {one}\r\n"),
        bearer(one) + &bearer(one),
    ] {
        let (status, text) = bridge.ping(&lines).await;
        assert_eq!(status, 403, "{lines}{text}");
        assert!(!text.contains("www-authenticate"), "{text}");
        assert!(text.contains("secret"), "{text}");
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_nonce_is_met_once_and_a_refused_capability_is_explained() {
    let server = Server::start().await;
    let challenge = |status: u16, challenge: &'static str| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("www-authenticate", challenge), ("dpop-nonce", "n1")])
    };
    let bridge = Listener::open(&server).await;
    server.will_answer(challenge(401, r#"DPoP error="use_dpop_nonce""#));
    server.will_answer((StatusCode::OK, "{}"));
    assert_eq!(bridge.ping("").await.0, 200);
    assert_eq!(server.seen().len(), 2);
    let first: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.headers["dpop"].clone())
        .collect();
    assert_ne!(first.first(), first.last());
    for (answer, sent, code, words) in [
        (challenge(401, r#"DPoP error="use_dpop_nonce""#), 2, 4401, "nonce"),
        (
            challenge(401, r#"DPoP error="invalid_token", error_description="revoked""#),
            1,
            4401,
            "revoked",
        ),
        (
            challenge(401, r#"DPoP error="invalid_dpop_proof""#),
            1,
            4401,
            "clock",
        ),
        (
            challenge(403, r#"DPoP error="insufficient_scope", scope="git:git_push""#),
            1,
            4403,
            "git:git_push",
        ),
    ] {
        let before = server.seen().len();
        for _ in 0..sent {
            server.will_answer(answer);
        }
        let (status, text) = bridge.ping("").await;
        assert_eq!(status, 403, "{text}");
        assert!(!text.contains("www-authenticate"), "{text}");
        let error = error_of(&text);
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(7), &json!(code)));
        assert!(
            error["error"]["message"].as_str().unwrap().contains(words),
            "{error}"
        );
        assert_eq!(server.seen().len() - before, sent);
    }
    // What the proxy says about the request itself passes.
    let denied = r#"{"jsonrpc":"2.0","id":7,"error":{"code":4403,"message":"no"}}"#;
    server.will_answer((StatusCode::FORBIDDEN, denied));
    let (status, text) = bridge.ping("").await;
    assert_eq!((status, text.ends_with(denied)), (403, true));
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let server = Server::start().await;
    let channel = channel(&server, Limits::default());
    let (bridge, url) = (
        Listener::start(Admission::Anyone(channel)).await,
        server.url.clone(),
    );
    drop(server);
    // Its port is closed once its listener has ended.
    let address = url.strip_prefix("http://").unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let (status, text) = bridge.ping("").await;
    assert_eq!(status, 502, "{text}");
    assert_eq!(error_of(&text)["error"]["code"], 4503);
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_not_to_be_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Server::start().await;
    server.url = format!("http://{}", listener.local_addr().unwrap());
    let bridge = Listener::open(&server).await;
    let reads_and_leaves = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        until(&mut stream, PING).await;
    };
    let ((status, text), ()) = tokio::join!(bridge.ping(""), reads_and_leaves);
    assert_eq!(status, 502, "{text}");
    let error = error_of(&text);
    assert_eq!(error["error"]["code"], -32603);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("carried out") && !message.contains("try again"),
        "{message}"
    );
}

#[tokio::test]
async fn what_a_client_sends_is_bounded() {
    let server = Server::start().await;
    let limits = Limits {
        max_body: PING.len(),
        max_running: 1,
        ..Limits::default()
    };
    let bridge = Listener::start(Admission::Anyone(channel(&server, limits))).await;
    assert_eq!(bridge.ping("").await.0, 418);
    let address = bridge.address.to_string();
    let large = post(&address, "", &format!("{PING} "));
    let (status, text) = whole(bridge.connect(&large).await).await;
    assert_eq!(status, 413, "{text}");
    // One request is under way: its body is still to come.
    let running = post(&address, "expect: 100-continue\r\n", PING).replace(PING, "");
    let mut running = bridge.connect(&running).await;
    until(&mut running, "100 Continue").await;
    let (status, text) = bridge.ping("").await;
    assert_eq!((status, &error_of(&text)["error"]["code"]), (503, &json!(4503)));
    drop(running);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn events_pass_as_they_come_and_a_client_that_leaves_is_noticed() {
    let (pieces, received) = mpsc::channel::<&'static str>(1);
    let (ended, end) = oneshot::channel::<()>();
    let body = stream::unfold((received, ended), async |(mut received, ended)| {
        let piece = received.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), (received, ended)))
    });
    let body = axum::body::Body::from_stream(body);
    let server = Server::start().await;
    server.will_answer(([("content-type", "text/event-stream")], body).into_response());
    let bridge = Listener::open(&server).await;
    let request = post(&bridge.address.to_string(), "", PING);
    let mut client = bridge.connect(&request).await;
    for piece in [": hello\n\n", "data: a\n\n"] {
        pieces.send(piece).await.unwrap();
        until(&mut client, piece).await;
    }
    drop(client);
    assert!(tokio::time::timeout(PATIENCE, end).await.unwrap().is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_needs_no_secret_and_answers_no_page() {
    use taper_service::edge::UnixBound;
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge");
    let bound = UnixBound::bind(&path, EdgeLimits::default()).await.unwrap();
    let shutdown = Shutdown::new();
    let channel = channel(&server, Limits::default());
    shutdown.spawn("bridge", serve_unix(bound, channel, shutdown.clone()));
    for (lines, expected) in [("", 418), ("origin: http://localhost\r\n", 403)] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = post("localhost", lines, PING);
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(whole(stream).await.0, expected, "{lines}");
    }
    shutdown.trigger();
}
