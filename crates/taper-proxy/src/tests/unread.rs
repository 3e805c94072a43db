//! Answers whose callers do not read them, and how answers end: nobody keeps a place, or gets a byte, by
//! waiting (M-33, M-40).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use taper_store::RevocationKey;
use tokio::sync::mpsc;

use super::limiting::{lasting, limiter, until, with};
use super::support::{Ask, NOW, Setup, URL, World, json};
use crate::account::Account;
use crate::body::Body;
use crate::error::AnswerContext;
use crate::forward::Leaving;
use crate::gate::Asked;
use crate::headers::Credentials;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

async fn world(limits: &'static str) -> World {
    let world = World::start(Setup {
        feed: true,
        ..with(limits)
    })
    .await;
    world.page(Vec::new(), 0);
    world
}

/// The answer as the connection has it: nothing is asked of its body but what a test asks.
async fn answered(world: &World, ask: Ask<'_>) -> Response<Body> {
    let shared = &world.shared;
    let server = shared.servers.get("git").unwrap();
    let headers = ask.request().headers().clone();
    let credentials = Credentials::of(&headers).unwrap();
    let presentation = shared
        .gate
        .authenticate(&credentials, ask.method.as_str(), URL, NOW);
    let presentation = Arc::new(presentation.unwrap());
    let asked = Asked {
        presentation: Arc::clone(&presentation),
        profile: Arc::clone(&server.profile),
        sessions: Arc::clone(&server.sessions),
        tasks: Arc::clone(&server.tasks),
        limiter: Arc::clone(&server.limiter),
        catalogue: Arc::clone(&server.catalogue),
        method: ask.method,
        headers,
        body: Bytes::from(ask.body),
        client_ip: None,
        decision_id: "d".into(),
    };
    let mut judgement = shared.gate.judge(asked, NOW);
    let place = judgement.place.take();
    assert!(place.is_some());
    let mut context = AnswerContext::default();
    let settled = shared.settle(judgement, &server.profile, &mut context).await;
    let mut account = Account::open(&shared.measured, "d", false);
    let leaving = Leaving {
        permitted: settled.unwrap(),
        decision_id: "d",
        place,
    };
    let forwarded = shared.forward(server, presentation, leaving, &mut account, &world.shutdown);
    forwarded.await.unwrap()
}

async fn next(answer: &mut Response<Body>) -> Option<Result<Bytes, ()>> {
    let frame = answer.body_mut().frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|_| ()))
}

fn message(event: &Bytes) -> Value {
    let text = std::str::from_utf8(event).unwrap();
    serde_json::from_str(text.split_once("data: ").unwrap().1).unwrap()
}

async fn opened(
    ends: &mut mpsc::UnboundedReceiver<mpsc::Sender<&'static str>>,
) -> mpsc::Sender<&'static str> {
    ends.recv().await.unwrap()
}

const NOTE: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{\"result\":1,\"id\":1}}\n\n";
const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";

#[tokio::test]
async fn what_nobody_reads_ends_with_its_capability_and_leaves_its_place() {
    let check = async |kind: &'static str, expire: bool, expected: &str| {
        let world = world("limits.max_running = 1").await;
        let mut ends = lasting(&world, kind);
        let grant = world.grant();
        let token = world.issue(&grant);
        let mut answer = answered(&world, world.call("git_log", LOG).token(token.as_str())).await;
        let end = opened(&mut ends).await;
        end.send(NOTE).await.unwrap();
        assert_eq!(limiter(&world).in_use()[0].0, 1);
        if expire {
            world.clock.advance(3600);
        }
        let what = if expire { "another".into() } else { grant.id };
        world.revoke(1, RevocationKey::Grant(what));
        until("its place is free", || limiter(&world).in_use()[0].0 == 0).await;
        end.closed().await;
        // Nothing that waited goes out after that.
        let last = next(&mut answer).await.unwrap();
        match last {
            Ok(event) => assert_eq!(message(&event)["error"]["data"]["cause"], expected, "{kind}"),
            Err(()) => assert_eq!("broken", expected, "{kind}"),
        }
        assert_eq!(next(&mut answer).await, None);
        drop(answer);
        world.end().await;
    };
    check("text/event-stream", false, "M-12").await;
    check("text/event-stream", true, "P-15").await;
    check("application/json", false, "broken").await;
    check("application/json", true, "broken").await;
}

#[tokio::test]
async fn what_nobody_takes_in_time_is_cut() {
    for kind in ["text/event-stream", "application/json"] {
        let world = world("limits.caller_idle = '1s'").await;
        let mut ends = lasting(&world, kind);
        let mut answer = answered(&world, world.call("git_log", LOG)).await;
        let end = opened(&mut ends).await;
        end.send(NOTE).await.unwrap();
        until("its place is free", || limiter(&world).in_use()[0].0 == 0).await;
        end.closed().await;
        assert_eq!(next(&mut answer).await, Some(Err(())), "{kind}: not a clean end");
        drop(answer);
        world.end().await;
    }
}

#[tokio::test]
async fn a_short_answer_leaves_its_place_before_it_is_read() {
    let world = world("limits.max_running = 1").await;
    const TEXT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    world.upstream.answers(|_| {
        let mut response = json(TEXT);
        response.headers_mut().insert("content-length", TEXT.len().into());
        response
    });
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(answered(&world, world.call("git_log", LOG)).await);
        assert_eq!(limiter(&world).in_use()[0].0, 0);
    }
    for mut answer in answers {
        assert_eq!(next(&mut answer).await, Some(Ok(TEXT.into())));
        assert_eq!(next(&mut answer).await, None);
    }
    world.end().await;
}

#[tokio::test]
async fn a_large_event_passes_in_pieces_and_whole() {
    let world = world("").await;
    let mut ends = lasting(&world, "text/event-stream");
    let mut answer = answered(&world, world.call("git_log", LOG)).await;
    let end = opened(&mut ends).await;
    let event = format!("data: {}\n\n", "x".repeat(200_000));
    end.send(Box::leak(event.clone().into_boxed_str())).await.unwrap();
    drop(end);
    let mut whole = Vec::new();
    while let Some(piece) = next(&mut answer).await {
        let piece = piece.unwrap();
        assert!(piece.len() <= 64 * 1024);
        whole.extend_from_slice(&piece);
    }
    assert!(whole == event.as_bytes(), "{} bytes", whole.len());
    world.end().await;
}

#[tokio::test]
async fn a_request_is_answered_once() {
    for (sent, comment) in [(ANSWER, true), (NOTE, false)] {
        let world = world("").await;
        let mut ends = lasting(&world, "text/event-stream");
        let grant = world.grant();
        let token = world.issue(&grant);
        let mut answer = answered(&world, world.call("git_log", LOG).token(token.as_str())).await;
        let end = opened(&mut ends).await;
        end.send(sent).await.unwrap();
        assert_eq!(next(&mut answer).await, Some(Ok(sent.into())));
        world.revoke(1, RevocationKey::Grant(grant.id));
        let last = next(&mut answer).await.unwrap().unwrap();
        if comment {
            assert_eq!(last, ": M-33 the capability is revoked\n\n");
        } else {
            assert_eq!(message(&last)["error"]["code"], 4403);
        }
        assert_eq!(next(&mut answer).await, None);
        drop((answer, end));
        world.end().await;
    }
}

/// A `subscriptions/listen`, whose answer lasts.
fn listen(world: &World) -> Ask<'_> {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{{}},"_meta":{meta}}}}}"#
    );
    let ask = world.ask(body).header("mcp-protocol-version", "2026-07-28");
    ask.header("mcp-method", "subscriptions/listen")
}

#[tokio::test]
async fn at_the_end_no_event_gets_into_what_is_none() {
    let large: &'static str = Box::leak(format!("data: {}", "x".repeat(80_000)).into_boxed_str());
    for (kind, sent, rest) in [
        ("application/json", "{\"jsonrpc\":", Some("\"2.0\"}")),
        ("text/event-stream", large, None),
        ("text/event-stream", ANSWER, Some("")),
    ] {
        let world = world("").await;
        let mut ends = lasting(&world, kind);
        let mut answer = answered(&world, listen(&world)).await;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(limiter(&world).in_use()[1].0, 1, "a stream");
        let end = opened(&mut ends).await;
        end.send(sent).await.unwrap();
        let mut got = 0;
        while got < sent.len() {
            got += next(&mut answer).await.unwrap().unwrap().len();
        }
        world.shutdown.trigger();
        match rest {
            // It is answered already: a clean end.
            Some("") => assert_eq!(next(&mut answer).await, None, "{kind}"),
            Some(rest) => {
                end.send(rest).await.unwrap();
                assert_eq!(next(&mut answer).await, Some(Ok(rest.into())), "{kind}");
            }
            None => assert_eq!(next(&mut answer).await, Some(Err(())), "{kind}"),
        }
        drop((answer, end, ends));
        world.end().await;
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_ends_too() {
    let world = world("").await;
    let mut ends = lasting(&world, "text/event-stream");
    let grant = world.grant();
    let token = world.issue(&grant);
    let get = world.ask("").method(Method::GET).token(token.as_str());
    let answer = answered(&world, get.unbound()).await;
    let end = opened(&mut ends).await;
    end.send("data: {}\n\n").await.unwrap();
    assert_eq!(limiter(&world).in_use()[1].0, 1);
    world.revoke(1, RevocationKey::Grant(grant.id));
    until("its place is free", || limiter(&world).in_use()[1].0 == 0).await;
    end.closed().await;
    drop(answer);
    world.end().await;
}
