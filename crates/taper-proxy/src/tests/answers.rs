//! What comes back: sessions, lists, streams, and what an upstream may not tell.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use taper_capability::{Access, AccessKind, VerifiedPresentation};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::pool::CpuPool;
use taper_service::rng;

use super::support::{NOW, URL, World, json, usual};
use crate::headers::Credentials;
use crate::lists::{ListError, ListFilter};
use crate::message::Era;
use crate::methods::List;
use crate::stream::{Ending, Lease};

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_log","x":1.50},{"name":"git_rm"},{"title":"no name"}],"nextCursor":"c"}}"#;

#[tokio::test]
async fn a_session_is_its_owners() {
    let world = World::start(usual()).await;
    world.upstream.answers(|_| {
        let mut response = json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        let id = HeaderValue::from_static("session-1");
        response.headers_mut().insert("mcp-session-id", id);
        response
    });
    let token = world.issue(&world.grant());
    let mine = |body: &str| world.ask(body).token(token.as_str());
    let opened = mine(INITIALIZE).send().await;
    assert_eq!(
        (opened.status.as_u16(), opened.header("mcp-session-id")),
        (200, "session-1")
    );

    let used = mine(PING).header("mcp-session-id", "session-1").send().await;
    assert_eq!(used.status.as_u16(), 200);
    assert_eq!(world.upstream.seen()[1].headers["mcp-session-id"], "session-1");

    let foreign = world.ask(PING).header("mcp-session-id", "session-1").send().await;
    let unknown = world.ask(PING).header("mcp-session-id", "session-2").send().await;
    assert_eq!((foreign.status.as_u16(), unknown.status.as_u16()), (404, 404));
    assert_eq!(foreign.body, unknown.body, "the two look alike");
    let stolen = world
        .ask("")
        .method(Method::DELETE)
        .header("mcp-session-id", "session-1");
    assert_eq!(stolen.send().await.status.as_u16(), 404);
    assert_eq!(world.upstream.seen().len(), 2);
    // An upstream that gives one session to two owners is not believed.
    assert_eq!(world.ask(INITIALIZE).send().await.status.as_u16(), 502);

    // Where a stream goes on is told within an owned session only.
    let resumed = |session: &str| {
        let get = mine("").method(Method::GET).header("last-event-id", "9");
        get.header("mcp-session-id", session)
    };
    let got = |n: usize| world.upstream.seen()[n].headers.contains_key("last-event-id");
    assert_eq!(resumed("session-1").send().await.status.as_u16(), 200);
    assert!(got(world.upstream.seen().len() - 1));
    assert_eq!(resumed("").send().await.status.as_u16(), 200);
    assert!(!got(world.upstream.seen().len() - 1));

    let ended = mine("")
        .method(Method::DELETE)
        .header("mcp-session-id", "session-1");
    assert_eq!(ended.send().await.status.as_u16(), 200);
    assert_eq!(world.upstream.seen().last().unwrap().method, Method::DELETE);
    assert_eq!(
        mine(PING)
            .header("mcp-session-id", "session-1")
            .send()
            .await
            .status
            .as_u16(),
        404
    );
    world.end().await;
}

#[tokio::test]
async fn lists_show_what_could_be_used() {
    let world = World::start(usual()).await;
    let list = |method: &str| world.ask(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#));
    world.upstream.answers_json(TOOLS);
    let answer = list("tools/list").send().await;
    assert_eq!(
        answer.body,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_log","x":1.50}],"nextCursor":"c"}}"#
    );
    assert_eq!(answer.header("cache-control"), "private, no-store");

    world.upstream.answers(|_| {
        let text = format!(
            "data: \nid: 0\nretry: 3000\n\n: hello\n\nid: 9\r\ndata: {}\r\n\r\n",
            TOOLS.replace("},{", "},\ndata: {")
        );
        let mut response = json(text);
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        response
    });
    let answer = list("tools/list").send().await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let begin = "data: \nid: 0\nretry: 3000\n\n: hello\n\nid: 9\ndata: {";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("git_log") && !text.contains("git_rm"), "{text}");

    world.upstream.answers_json(
        r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"uri":"repo://acme/web"},{"uri":"repo://x/y"}]}}"#,
    );
    let answer = list("resources/list").send().await.json();
    assert_eq!(
        answer["result"]["resources"],
        serde_json::json!([{"uri": "repo://acme/web"}])
    );
    // Of an entry with two names nobody knows which one a client takes.
    world.upstream.answers_json(
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_log","Name":"git_rm"},{"name":"git_push","x":1,"X":2}]}}"#,
    );
    let answer = list("tools/list").send().await.json();
    assert_eq!(
        answer["result"]["tools"],
        serde_json::json!([{"name": "git_push", "x": 1, "X": 2}])
    );
    world
        .upstream
        .answers_json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{"git_rm":{}}}}"#);
    assert_eq!(list("tools/list").send().await.status.as_u16(), 502);
    world
        .upstream
        .answers_json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"git_rm"}]}}"#);
    assert_eq!(list("tools/list").send().await.status.as_u16(), 502);
    // What this proxy does not read as a list, a client might.
    for text in [
        r#"[{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_rm"}]}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"Result":{"tools":[{"name":"git_rm"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"Tools":[{"name":"git_rm"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"Tools":[{"name":"git_rm"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"x":1,"X":2}}"#,
    ] {
        world.upstream.answers_json(text);
        assert_eq!(list("tools/list").send().await.status.as_u16(), 502, "{text}");
    }
    world.end().await;
}

fn presented(world: &World) -> Arc<VerifiedPresentation> {
    let request = world.call("git_log", LOG).request();
    let credentials = Credentials::of(request.headers()).unwrap();
    let presentation = world.shared.gate.authenticate(&credentials, "POST", URL, NOW);
    Arc::new(presentation.unwrap())
}

#[tokio::test]
async fn a_list_is_filtered_within_its_time() {
    let world = World::start(usual()).await;
    let server = world.shared.servers.get("git").unwrap();
    let filter = |time: Duration| ListFilter {
        gate: Arc::clone(&world.shared.gate),
        pool: world.shared.pool.clone(),
        clock: Arc::clone(&world.shared.clock),
        presentation: presented(&world),
        profile: Arc::clone(&server.profile),
        tasks: Arc::clone(&server.tasks),
        limiter: Arc::clone(&server.limiter),
        catalogue: Arc::clone(&server.catalogue),
        era: Era::Legacy,
        lists: &[List::Tools],
        time,
    };
    let message = Bytes::from_static(TOOLS.as_bytes());
    assert!(filter(Duration::MAX).message(message.clone()).await.is_ok());
    let late = filter(Duration::ZERO).message(message).await;
    assert!(matches!(late, Err(ListError::TooLong)), "{late:?}");
    let rule = |error: &ListError| error.refusal().rule().to_string();
    assert_eq!(rule(&late.unwrap_err()), "R-26");
    assert_eq!(rule(&ListError::Busy), "M-29");
    world.end().await;
}

#[tokio::test]
async fn a_busy_pool_does_not_cut_a_stream() {
    let world = World::start(usual()).await;
    let server = world.shared.servers.get("git").unwrap();
    let pool = CpuPool::new(1, 0);
    let filter = ListFilter {
        gate: Arc::clone(&world.shared.gate),
        pool: pool.clone(),
        clock: Arc::clone(&world.shared.clock),
        presentation: presented(&world),
        profile: Arc::clone(&server.profile),
        tasks: Arc::clone(&server.tasks),
        limiter: Arc::clone(&server.limiter),
        catalogue: Arc::clone(&server.catalogue),
        era: Era::Legacy,
        lists: &List::ALL,
        time: Duration::MAX,
    };
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let busy = async move {
        let work = move || (started.send(()), held.recv().is_ok());
        pool.run(work).await.unwrap().0.unwrap();
    };
    world.shutdown.spawn("busy", busy);
    running.await.unwrap();
    let small = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(filter.in_turn(small.clone()).await.unwrap(), small);
    let list = Bytes::from_static(TOOLS.as_bytes());
    let refused = filter.message(list.clone()).await;
    assert!(matches!(refused, Err(ListError::Busy)), "{refused:?}");
    let mut waiting = Box::pin(filter.in_turn(list));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    release.send(()).unwrap();
    let filtered = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(!filtered.unwrap().unwrap().is_empty());
    drop(filter);
    world.end().await;
}

#[tokio::test]
async fn lasting_doubt_ends_a_stream() {
    let world = World::start(usual()).await;
    let pool = CpuPool::new(1, 0);
    let lease = Lease {
        gate: Arc::clone(&world.shared.gate),
        pool: pool.clone(),
        clock: Arc::clone(&world.shared.clock),
        presentation: presented(&world),
        accesses: vec![Access::new(AccessKind::Plumbing, "git", URL, "ping").into()],
        expires_at: NOW + 3600,
        decided_at: NOW,
        ending: Ending {
            server: "git".into(),
            decision_id: "d".into(),
            cut: Arc::default(),
            id: None,
            standing: false,
        },
        shutdown: world.shutdown.clone(),
    };
    let mut undecided = 0;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    world.shutdown.spawn("busy", async move {
        let work = move || (started.send(()), held.recv().is_ok());
        pool.run(work).await.unwrap().0.unwrap();
    });
    running.await.unwrap();
    assert!(lease.check(&mut undecided).await.is_ok());
    assert!(lease.check(&mut undecided).await.is_ok());
    assert!(lease.check(&mut undecided).await.is_err(), "three in a row");
    release.send(()).unwrap();
    let decided = async {
        while lease.check(&mut undecided).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let decided = tokio::time::timeout(Duration::from_secs(20), decided).await;
    assert!(decided.is_ok());
    assert_eq!(undecided, 0, "an answer ends the row");
    drop(lease);
    world.end().await;
}

#[tokio::test]
async fn a_modern_list_is_private() {
    let world = World::start(usual()).await;
    world
        .upstream
        .answers_json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"ttlMs":1,"cacheScope":"public"}}"#);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let ask = world
        .ask(body)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/list");
    assert_eq!(ask.send().await.json()["result"]["cacheScope"], "private");
    let bare = world.ask(body).send().await;
    assert_eq!(
        (bare.status.as_u16(), bare.json()["error"]["code"].as_i64()),
        (400, Some(-32020))
    );
    world.end().await;
}

#[tokio::test]
async fn an_upstreams_own_troubles_stay_here() {
    let world = World::start(usual()).await;
    let check = async |status: u16, expected: u16| {
        world.upstream.answers(move |_| {
            let mut response = json("{}");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let headers = response.headers_mut();
            for name in [
                "www-authenticate",
                "set-cookie",
                "access-control-allow-origin",
                "location",
            ] {
                headers.insert(name, HeaderValue::from_static("http://127.0.0.1:1/"));
            }
            response
        });
        let answer = world.call("git_log", LOG).send().await;
        assert_eq!(answer.status.as_u16(), expected, "{status}");
        for name in [
            "www-authenticate",
            "set-cookie",
            "access-control-allow-origin",
            "location",
        ] {
            assert_eq!(answer.header(name), "", "{status} {name}");
        }
    };
    check(200, 200).await;
    check(404, 404).await;
    check(500, 502).await;
    check(401, 502).await;
    check(407, 502).await;
    check(302, 502).await;
    world.end().await;
}

#[tokio::test]
async fn metadata_and_health() {
    let world = World::start(usual()).await;
    let get = |path: &str| world.ask("").method(Method::GET).path(path);
    let metadata = get("/.well-known/oauth-protected-resource/git/mcp").send().await;
    let document = metadata.json();
    assert_eq!(document["resource"], "https://proxy.test/git/mcp");
    assert_eq!(document["authorization_servers"][0], "https://issuer.test");
    assert_eq!(document["bearer_methods_supported"], serde_json::json!([]));
    assert_eq!(
        get("/.well-known/oauth-protected-resource/x/mcp")
            .send()
            .await
            .status
            .as_u16(),
        404
    );
    assert_eq!(get("/healthz").send().await.status.as_u16(), 200);
    assert_eq!(get("/readyz").send().await.status.as_u16(), 200);
    let stranger = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    assert_eq!(get("/git/mcp").key(&stranger).send().await.status.as_u16(), 401);
    world.end().await;
}
