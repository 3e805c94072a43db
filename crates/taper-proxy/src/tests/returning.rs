//! Streams on their way back: requests of the server and what answers them (M-20), and the end of an
//! answer whose authority ended (M-33).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use serde_json::Value;
use taper_capability::{Caveat, Narrowing};
use taper_service::edge::BoxError;
use taper_service::rng;
use taper_store::{Revocation, RevocationKey};
use tokio::sync::mpsc;

use super::support::{Answer, Ask, ISSUER, NOW, Seen, Setup, World, decided, json, take, usual};
use crate::body::{Body, empty};

const PATIENCE: Duration = Duration::from_secs(20);
const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn events(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = json(text);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}

fn in_session(mut response: Response<Body>, id: &str) -> Response<Body> {
    response
        .headers_mut()
        .insert("mcp-session-id", id.parse().unwrap());
    response
}

fn accepted() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = http::StatusCode::ACCEPTED;
    response
}

/// A legacy server: `initialize` opens a session by the message's `params.session`, a call and a GET are
/// answered by `stream`, and whatever answers the server is accepted.
fn legacy(world: &World, stream: &'static str) {
    world.upstream.answers(move |seen: &Seen| {
        let message: Value = serde_json::from_slice(&seen.body).unwrap_or(Value::Null);
        match message["method"].as_str() {
            Some("initialize") => {
                let id = message["params"]["session"].as_str().unwrap_or("s");
                in_session(json(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#), id)
            }
            Some(_) => events(stream),
            None if seen.method == Method::GET => events(stream),
            None => accepted(),
        }
    });
}

/// A holder with a capability of its own, in sessions.
struct Caller<'a> {
    world: &'a World,
    token: String,
}

impl<'a> Caller<'a> {
    fn new(world: &'a World) -> Self {
        let token = world.issue(&world.grant()).as_str().to_owned();
        Self { world, token }
    }

    async fn opens(&self, session: &str) {
        let body = INITIALIZE.replace(
            "\"params\":{",
            &format!("\"params\":{{\"session\":\"{session}\","),
        );
        let opened = self.world.ask(body).token(&self.token).send().await;
        assert_eq!(opened.header("mcp-session-id"), session);
    }

    fn asks(&self, session: &str, body: &str) -> Ask<'a> {
        let ask = self.world.ask(body).token(&self.token);
        ask.header("mcp-session-id", session)
    }

    fn gets(&self, session: &str) -> Ask<'a> {
        self.asks(session, "").method(Method::GET)
    }

    fn answers(&self, session: &str, id: &str) -> Ask<'a> {
        let body = format!(r#"{{ "jsonrpc":"2.0","id":{id},"result":{{"roots":[]}}}}"#);
        self.asks(session, &body)
    }
}

async fn told(ask: Ask<'_>) -> (u16, Option<i64>) {
    let answer = ask.send().await;
    let code = answer.json()["error"]["code"].as_i64();
    (answer.status.as_u16(), code)
}

const REFUSED: (u16, Option<i64>) = (400, Some(-32600));
const TAKEN: (u16, Option<i64>) = (202, None);
const UNKNOWN_SESSION: (u16, Option<i64>) = (404, Some(-32600));

#[tokio::test]
async fn a_client_answers_what_its_session_was_asked_and_once() {
    let world = World::start(usual()).await;
    let stream = ": hi\r\n\r\nid: 1\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\r\ndata: \"method\":\"roots/list\"}\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"7\",\"method\":\"ping\",\"x\":1.50}\n\nretry: 5\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
    legacy(&world, stream);
    let (mine, other) = (Caller::new(&world), Caller::new(&world));
    mine.opens("a").await;
    mine.opens("b").await;
    other.opens("c").await;
    assert_eq!(
        told(mine.answers("a", "7")).await,
        REFUSED,
        "nothing was asked yet"
    );
    let answer = mine.asks("a", PING).send().await;
    assert_eq!(answer.body, stream, "byte for byte");
    let forwarded = world.upstream.seen().len();

    for (ask, expected) in [
        (mine.answers("b", "7"), REFUSED),
        (mine.answers("a", "8"), REFUSED),
        (mine.answers("a", "\"8\""), REFUSED),
        (mine.answers("a", "7").header("mcp-session-id", ""), REFUSED),
        (other.answers("a", "7"), UNKNOWN_SESSION),
        (other.answers("nobodys", "7"), UNKNOWN_SESSION),
        (other.answers("c", "7"), REFUSED),
        (
            mine.answers("a", "7")
                .header("mcp-protocol-version", "2026-07-28"),
            REFUSED,
        ),
        (
            mine.answers("a", "7").header("mcp-method", "ping"),
            (400, Some(-32020)),
        ),
        (mine.answers("a", "7").unbound(), (401, None)),
    ] {
        let (session, body) = (ask.headers.clone(), ask.body.clone());
        assert_eq!(told(ask).await, expected, "{session:?} {body}");
    }
    let (foreign, unknown) = (
        mine.answers("b", "7").send().await,
        mine.answers("a", "8").send().await,
    );
    assert_eq!(foreign.body, unknown.body, "the two look alike");
    assert_eq!(world.upstream.seen().len(), forwarded, "nothing of it went on");

    let ask = mine.answers("a", "7");
    let body = ask.body.clone();
    assert_eq!(told(ask).await, TAKEN);
    let seen = world.upstream.seen();
    assert_eq!(seen.last().unwrap().body, body);
    assert_eq!(seen.last().unwrap().headers["mcp-session-id"], "a");
    assert_eq!(seen.last().unwrap().headers["content-type"], "application/json");
    assert_eq!(told(mine.answers("a", "7")).await, REFUSED, "answered");
    assert_eq!(
        told(mine.answers("a", "\"7\"")).await,
        TAKEN,
        "a text is no number"
    );

    let records = decided(&world.state_folder());
    let of_answers: Vec<_> = records
        .iter()
        .filter(|record| record["method"] == "response")
        .collect();
    let outcome = |outcome: &str| {
        of_answers
            .iter()
            .filter(|record| record["outcome"] == outcome)
            .count()
    };
    assert_eq!(outcome("allow"), 2);
    assert!(
        of_answers
            .iter()
            .all(|record| record["outcome"] == "allow" || record["rule"] == "M-20")
    );
    assert_eq!(
        of_answers.last().unwrap()["body_sha256"].as_str().unwrap().len(),
        64
    );
    world.end().await;
}

#[tokio::test]
async fn an_answer_passes_the_checks_of_plumbing() {
    let world = World::start(Setup {
        policy: Some("deny if method(\"response\"), body_bound(false);\nallow if true;"),
        server: "body_binding = 'optional'",
        ..usual()
    })
    .await;
    legacy(
        &world,
        "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}\n\n",
    );
    let mut caller = Caller::new(&world);
    caller.opens("a").await;
    assert_eq!(caller.gets("a").send().await.status.as_u16(), 200);
    assert_eq!(told(caller.answers("a", "7").unbound()).await, (403, Some(4403)));
    // A refusal leaves the request outstanding; a caveat about tools does not concern an answer.
    let narrowing = Narrowing::new().only(Caveat::Tool {
        server: "git".into(),
        tools: vec!["git_log".into()],
    });
    let token = taper_capability::Token::parse(&caller.token).unwrap();
    let narrowed = narrowing.sign(&token, &world.holder, &mut rng::os()).unwrap();
    caller.token = narrowed.as_str().to_owned();
    assert_eq!(told(caller.answers("a", "7")).await, TAKEN);
    world.end().await;
}

/// An upstream whose answers are streams that a test feeds. A session opens with `initialize`.
fn streaming(world: &World) -> mpsc::Sender<&'static str> {
    let (send, receive) = mpsc::channel::<&'static str>(8);
    let mut receive = Some(receive);
    world.upstream.answers(move |seen| {
        if seen.body == INITIALIZE {
            return in_session(json(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#), "s");
        }
        let Some(receive) = receive.take() else {
            return accepted();
        };
        let parts = stream::unfold(receive, |mut receive| async {
            let part = receive.recv().await?;
            Some((
                Ok::<_, BoxError>(Frame::data(Bytes::from_static(part.as_bytes()))),
                receive,
            ))
        });
        let mut response = Response::new(StreamBody::new(parts.boxed()).boxed_unsync());
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        response
    });
    send
}

#[tokio::test]
async fn the_id_of_a_list_is_taken_until_it_was_read() {
    let world = World::start(usual()).await;
    let stream = streaming(&world);
    let caller = Caller::new(&world);
    let opened = world.ask(INITIALIZE).token(&caller.token).send().await;
    assert_eq!(opened.header("mcp-session-id"), "s");
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let mut listing = world.open(caller.asks("s", list).request()).await;
    let text = PING.replace("\"id\":1", "\"id\":\"1\"");
    let other = PING.replace("\"id\":1", "\"id\":2");
    assert_eq!(told(caller.asks("s", PING)).await, REFUSED);
    assert_eq!(told(caller.asks("s", &text)).await, REFUSED);
    assert_eq!(told(caller.asks("s", &other)).await, TAKEN);
    stream
        .send("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[]}}\n\n")
        .await
        .unwrap();
    assert!(frame(&mut listing).await.is_some());
    assert_eq!(told(caller.asks("s", PING)).await, REFUSED);
    drop(stream);
    assert_eq!(frame(&mut listing).await, None);
    assert_eq!(told(caller.asks("s", PING)).await, TAKEN);

    // One that breaks off may be answered later.
    world.upstream.answers(|_| {
        let broken = stream::iter([Err::<Frame<Bytes>, BoxError>("broken".into())]);
        let mut response = Response::new(StreamBody::new(broken).boxed_unsync());
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        response
    });
    assert_eq!(told(caller.asks("s", list)).await, (502, Some(-32603)));
    world.upstream.answers(|_| accepted());
    assert_eq!(told(caller.asks("s", PING)).await, REFUSED);
    assert_eq!(told(caller.asks("s", &other)).await, TAKEN);
    world.end().await;
}

async fn frame(response: &mut Response<Incoming>) -> Option<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await;
    let frame = frame.expect("in time")?;
    Some(frame.expect("not broken").into_data().unwrap())
}

async fn with_feed() -> World {
    let world = World::start(Setup {
        feed: true,
        ..usual()
    })
    .await;
    world.page(Vec::new(), 0);
    world
}

#[tokio::test]
async fn an_id_is_known_before_its_event_can_be_seen() {
    let world = World::start(usual()).await;
    let feed = streaming(&world);
    let caller = Caller::new(&world);
    let opened = world.ask(INITIALIZE).token(&caller.token).send().await;
    assert_eq!(opened.header("mcp-session-id"), "s");
    let mut response = world.open(caller.gets("s").request()).await;
    feed.send(": comments pass at once\n").await.unwrap();
    assert_eq!(frame(&mut response).await.unwrap(), ": comments pass at once\n");
    feed.send("data: {\"jsonrpc\":\"2.0\",\"id\":7,\"meth")
        .await
        .unwrap();
    assert_eq!(told(caller.answers("s", "7")).await, REFUSED, "half an event");
    feed.send("od\":\"ping\"}\n\n: c\n").await.unwrap();
    let event = frame(&mut response).await.unwrap();
    assert_eq!(
        event,
        "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n\n"
    );
    assert_eq!(told(caller.answers("s", "7")).await, TAKEN);
    drop(feed);
    assert_eq!(frame(&mut response).await.unwrap(), ": c\n");
    assert_eq!(frame(&mut response).await, None);
    world.end().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_left_out_of_a_stream_opened_by_get() {
    const BAD: [&str; 4] = [
        "id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":\"\\ud83d\"}\n\n",
        "data: {\"id\":1,\"result\":{\"tools\":[]},\"result\":{\"tools\":[{\"name\":\"git_rm\"}]}}\n\n",
        "data: {\"id\":1,\"result\":{\"Tools\":[{\"name\":\"git_rm\"}]}}\n\n",
        "data: {\"id\":1,\"result\":{\"tools\":{\"name\":\"git_rm\"}}}\n\n",
    ];
    let good = "id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n\n";
    let world = World::start(usual()).await;
    let feed = streaming(&world);
    let mut response = world.open(world.ask("").method(Method::GET).request()).await;
    for bad in BAD {
        feed.send(bad).await.unwrap();
        feed.send(good).await.unwrap();
        assert_eq!(frame(&mut response).await.unwrap(), good, "{bad}");
    }
    drop(feed);
    assert_eq!(frame(&mut response).await, None);
    // Where a list was asked for, nothing is left out of its answer.
    for bad in BAD {
        let feed = streaming(&world);
        feed.send(": c\n").await.unwrap();
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let mut response = world.open(world.ask(list).request()).await;
        assert_eq!(frame(&mut response).await.unwrap(), ": c\n");
        feed.send(bad).await.unwrap();
        let cut = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await;
        assert!(matches!(cut.unwrap(), Some(Err(_))), "{bad}");
    }
    world.end().await;
}

#[tokio::test]
async fn of_an_event_that_is_too_large_nothing_is_learned() {
    let world = World::start(Setup {
        server: "limits = { max_list = 64 }",
        ..usual()
    })
    .await;
    let stream = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"sampling/createMessage\",\"params\":{}}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"ping\"}\n\n";
    legacy(&world, stream);
    let caller = Caller::new(&world);
    caller.opens("a").await;
    assert_eq!(caller.asks("a", PING).send().await.body, stream);
    assert_eq!(told(caller.answers("a", "7")).await, REFUSED);
    assert_eq!(told(caller.answers("a", "8")).await, TAKEN);
    world.end().await;
}

/// The message of an event that ends a stream.
fn last_message(event: &Bytes) -> Value {
    let text = std::str::from_utf8(event).unwrap();
    let data = text.strip_prefix("event: message\ndata: ").expect("an event");
    serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap()
}

#[tokio::test]
async fn a_stream_ends_with_its_capability_and_says_why() {
    let check = async |name: &str, end: &dyn Fn(&World, String), expected: (i64, &str)| {
        let world = with_feed().await;
        let feed = streaming(&world);
        let grant = world.grant();
        let token = world.issue(&grant);
        let mut ask = world.call("git_log", LOG).token(token.as_str());
        ask.body = ask.body.replace("\"id\":1", "\"id\":\"one\"");
        let mut response = world.open(ask.request()).await;
        feed.send("data: 1\n\ndata: hal").await.unwrap();
        assert_eq!(
            frame(&mut response).await.unwrap(),
            "data: 1\n\n",
            "{name}: unbuffered"
        );
        end(&world, grant.id);
        let event = frame(&mut response).await.expect("an error");
        let error = last_message(&event);
        assert_eq!(error["id"], "one", "{name}");
        let told = (
            error["error"]["code"].as_i64().unwrap(),
            error["error"]["data"]["cause"].as_str().unwrap(),
        );
        assert_eq!(told, expected, "{name}");
        assert_eq!(error["error"]["data"]["rule"], "M-33");
        assert_eq!(frame(&mut response).await, None, "{name}: a clean end");
        let closed = tokio::time::timeout(PATIENCE, feed.closed()).await;
        assert!(closed.is_ok(), "{name}: the upstream learns of it");
        drop(response);
        world.end().await;
    };
    check(
        "revoked",
        &|world, grant| world.revoke(1, RevocationKey::Grant(grant)),
        (4403, "M-12"),
    )
    .await;
    // Any change of the view wakes the stream, which then finds itself expired.
    check(
        "expired",
        &|world, _| {
            world.clock.advance(3600);
            world.revoke(1, RevocationKey::Grant("another".into()));
        },
        (4403, "P-15"),
    )
    .await;
}

#[tokio::test]
async fn a_stream_that_answers_nothing_ends_with_a_comment() {
    let world = with_feed().await;
    let feed = streaming(&world);
    let grant = world.grant();
    let token = world.issue(&grant);
    let get = world.ask("").method(Method::GET).token(token.as_str());
    let mut response = world.open(get.request()).await;
    feed.send("data: {}\n\n").await.unwrap();
    assert_eq!(frame(&mut response).await.unwrap(), "data: {}\n\n");
    world.revoke(1, RevocationKey::Grant(grant.id));
    assert_eq!(
        frame(&mut response).await.unwrap(),
        ": M-33 the capability is revoked\n\n"
    );
    assert_eq!(frame(&mut response).await, None);
    drop(response);
    world.end().await;
}

#[tokio::test]
async fn what_is_revoked_while_the_upstream_works_is_refused() {
    let world = with_feed().await;
    let grant = world.grant();
    let token = world.issue(&grant);
    let gate = std::sync::Arc::clone(&world.shared.gate);
    world.upstream.answers(move |_| {
        let entry = Revocation {
            seq: 1,
            at: NOW,
            issuer: ISSUER.into(),
            what: RevocationKey::Grant(grant.id.clone()),
            until: None,
        };
        take(&gate.issuers, vec![entry], 1, NOW);
        json(r#"{"jsonrpc":"2.0","id":1,"result":{"secret":1}}"#)
    });
    let answer = world.call("git_log", LOG).token(token.as_str()).send().await;
    assert_eq!(answer.status.as_u16(), 401);
    assert!(answer.header("www-authenticate").contains("revoked (M-12)"));
    assert!(answer.body.is_empty(), "nothing of the answer");
    assert_eq!(world.upstream.seen().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_took_long_is_decided_again() {
    let world = World::start(Setup {
        policy: Some("deny if time($t), $t >= 2027-01-15T08:00:10Z;\nallow if true;"),
        ..usual()
    })
    .await;
    let answer = async |seconds: i64| -> Answer {
        let clock = std::sync::Arc::clone(&world.clock);
        world.upstream.answers(move |_| {
            clock.advance(seconds);
            json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
        });
        world.call("git_log", LOG).send().await
    };
    assert_eq!(answer(9).await.status.as_u16(), 200);
    world.clock.set(NOW);
    let late = answer(10).await;
    assert_eq!(
        (late.status.as_u16(), &late.json()["error"]["code"]),
        (403, &4403.into())
    );
    world.end().await;
}

#[tokio::test]
async fn a_stream_that_nothing_concerns_goes_on() {
    let world = with_feed().await;
    let feed = streaming(&world);
    let mut response = world.open(world.call("git_log", LOG).request()).await;
    world.revoke(1, RevocationKey::Grant("another".into()));
    feed.send("data: 1\n\n").await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    drop(feed);
    assert!(
        response.body_mut().frame().await.is_none(),
        "it ends when the upstream ends it"
    );
    drop(response);
    world.end().await;
}

#[tokio::test]
async fn at_the_end_answers_go_on_and_standing_streams_end() {
    let world = World::start(usual()).await;
    let feed = streaming(&world);
    let mut response = world.open(world.call("git_log", LOG).request()).await;
    feed.send("data: 1\n\n").await.unwrap();
    assert_eq!(frame(&mut response).await.unwrap(), "data: 1\n\n");
    let standing = streaming(&world);
    let mut stream = world.open(world.ask("").method(Method::GET).request()).await;
    let listening = streaming(&world);
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let listen = format!(
        r#"{{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{{"notifications":{{}},"_meta":{meta}}}}}"#
    );
    let listen = world
        .ask(listen)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "subscriptions/listen");
    let mut subscription = world.open(listen.request()).await;
    assert_eq!(subscription.status().as_u16(), 200);
    world.shutdown.trigger();
    assert_eq!(frame(&mut stream).await, None, "a clean end at once");
    let last = last_message(&frame(&mut subscription).await.unwrap());
    assert_eq!(
        (&last["id"], &last["result"]["resultType"]),
        (&"l".into(), &"complete".into())
    );
    assert_eq!(
        last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        "l"
    );
    assert_eq!(frame(&mut subscription).await, None);
    for feed in [&standing, &listening] {
        let closed = tokio::time::timeout(PATIENCE, feed.closed()).await;
        assert!(closed.is_ok(), "the upstream learns of it");
    }
    feed.send("data: 2\n\n").await.unwrap();
    assert_eq!(frame(&mut response).await.unwrap(), "data: 2\n\n");
    drop(feed);
    assert_eq!(frame(&mut response).await, None);
    drop((response, stream, subscription));
    world.end().await;
}
