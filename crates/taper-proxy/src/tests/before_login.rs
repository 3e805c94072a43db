//! What callers without a token are told: what was approved, nothing else, and nothing of it from the
//! server.

use http::{HeaderValue, Method, StatusCode};

use super::pinning::{file, of, world_with};
use super::support::{Answer, Ask, World};
use crate::methods::List;
use crate::pins::Preface;

const READS: &str = r#"{"name":"git_log","inputSchema":{"type":"object"}}"#;
const BLANK: &str = r#"{"name":"git log"}"#;
const SERVER: &str = "read_only = ['git_log']\npins = 'pins.json'\ndiscovery = 'catalogue'";
const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

fn preface(modern: bool) -> Preface {
    let initialize = of(
        r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":{}},"serverInfo":{"name":"git","version":"1"}}"#,
    );
    let discover = of(r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#);
    let mut preface = Preface::new(Some(&initialize), modern.then_some(&discover), true);
    preface.set_list(List::Prompts, vec![of(r#"{"name":"review"}"#)]);
    preface
}

async fn world() -> World {
    world_with(&file(&[READS, BLANK], Some(preface(true))), SERVER).await
}

/// A request without any credentials.
fn bare<'a>(world: &'a World, body: &str) -> Ask<'a> {
    let mut ask = world.ask(body);
    (ask.scheme, ask.proof) = ("", false);
    ask
}

fn legacy(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#)
}

fn modern<'a>(world: &'a World, method: &'static str) -> Ask<'a> {
    bare(world, &legacy(method, &format!("{{{MODERN}}}")))
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
}

async fn result(ask: Ask<'_>) -> serde_json::Value {
    let answer = ask.send().await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json()["id"], 7);
    answer.json()["result"].clone()
}

fn scope(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    assert!(answer.body.is_empty());
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("DPoP algs=") && challenge.contains("resource_metadata"));
    let scope = challenge.split_once("scope=\"").unwrap().1;
    scope.trim_end_matches('"').to_owned()
}

#[tokio::test]
async fn what_was_approved_is_told_and_the_server_hears_nothing() {
    let world = world().await;
    let ask = |method: &str| bare(&world, &legacy(method, "{}"));
    let opened = ask("initialize").send().await;
    assert_eq!(opened.json()["result"]["serverInfo"]["name"], "git");
    assert_eq!(opened.header("mcp-session-id").len(), 22);
    let begun = bare(
        &world,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    )
    .send()
    .await;
    assert_eq!((begun.status, begun.body.len()), (StatusCode::ACCEPTED, 0));
    let tools = result(ask("tools/list")).await;
    assert_eq!(tools.to_string(), format!(r#"{{"tools":[{BLANK},{READS}]}}"#));
    assert_eq!(result(ask("prompts/list")).await["prompts"][0]["name"], "review");
    assert_eq!(
        result(ask("resources/list")).await["resources"],
        serde_json::json!([])
    );
    let templates = result(ask("resources/templates/list")).await;
    assert_eq!(templates["resourceTemplates"], serde_json::json!([]));
    assert_eq!(result(ask("ping")).await, serde_json::json!({}));

    let discovered = result(modern(&world, "server/discover")).await;
    assert_eq!(discovered["supportedVersions"][0], "2026-07-28");
    assert_eq!(
        (&discovered["ttlMs"], &discovered["cacheScope"]),
        (&0.into(), &"private".into())
    );
    let tools = result(modern(&world, "tools/list")).await;
    assert_eq!(
        (&tools["tools"][1]["name"], &tools["resultType"]),
        (&"git_log".into(), &"complete".into())
    );
    // A client reads 405 as: there is no such stream; and goes on without a login.
    let stream = bare(&world, "").method(Method::GET).send().await;
    assert_eq!(
        (stream.status, stream.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
    assert!(world.upstream.seen().is_empty());
    assert!(world.decisions().await.is_empty());
    world.end().await;
}

#[tokio::test]
async fn everything_else_is_a_login_with_the_scope_that_it_needs() {
    let world = world().await;
    let call = |tool: &str| legacy("tools/call", &format!(r#"{{"name":"{tool}","arguments":{{}}}}"#));
    assert_eq!(scope(&bare(&world, &call("git_log")).send().await), "git:git_log");
    // What is not shown gets no scope of its own, nor does a name that no scope can have.
    for tool in ["git_push", "git log", "git:*", "*", ""] {
        assert_eq!(scope(&bare(&world, &call(tool)).send().await), "git:*", "{tool}");
    }
    let named = modern(&world, "tools/call");
    assert_eq!(scope(&named.send().await), "git:*", "it names no tool");
    for method in [
        "prompts/get",
        "resources/read",
        "resources/subscribe",
        "completion/complete",
        "logging/setLevel",
        "subscriptions/listen",
        "tasks/list",
        "tasks/get",
        "x/own",
        "Tools/list",
    ] {
        let asked = bare(
            &world,
            &legacy(method, r#"{"name":"git_log","uri":"repo://acme/"}"#),
        );
        assert_eq!(scope(&asked.send().await), "git:*", "{method}");
    }
    for body in [
        "",
        "{",
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        &format!(
            r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#,
            "x".repeat(200)
        ),
        &format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#,
            "x".repeat(20_000)
        ),
    ] {
        assert_eq!(scope(&bare(&world, body).send().await), "git:*", "{body}");
    }
    let list = legacy("tools/list", "{}");
    let asked = |header: &'static str, value: &str| bare(&world, &list).header(header, value);
    scope(&asked("content-type", "text/plain").send().await);
    scope(&asked("mcp-method", "tools/call").send().await);
    scope(
        &modern(&world, "tools/list")
            .header("mcp-protocol-version", "2027-01-01")
            .send()
            .await,
    );
    scope(&modern(&world, "ping").send().await);
    scope(&bare(&world, "").method(Method::DELETE).send().await);
    assert_eq!(asked("host", "evil.example").send().await.status.as_u16(), 421);
    assert!(world.upstream.seen().is_empty());
    world.end().await;
}

#[tokio::test]
async fn refused_credentials_are_no_way_back_to_it() {
    let world = world().await;
    let list = legacy("tools/list", "{}");
    for value in ["DPoP x", "Bearer x", "Basic x", "", "DPoP"] {
        let mut request = bare(&world, &list).request();
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static(value));
        assert_eq!(
            world.send(request).await.status,
            StatusCode::UNAUTHORIZED,
            "{value}"
        );
    }
    let mut proof_alone = world.ask(&*list);
    proof_alone.scheme = "";
    assert_eq!(proof_alone.send().await.status, StatusCode::UNAUTHORIZED);
    assert!(world.upstream.seen().is_empty());
    // With a capability the server itself is asked.
    world.upstream.answers(|seen| {
        assert!(!seen.headers.contains_key("mcp-session-id"));
        super::support::json(r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[]}}"#)
    });
    assert_eq!(
        world.ask(&*list).send().await.json()["result"]["tools"],
        serde_json::json!([])
    );
    assert_eq!(
        world.upstream.seen().iter().filter(|seen| !seen.is_own()).count(),
        1
    );
    world.end().await;
}

#[tokio::test]
async fn a_session_of_nobody_is_unknown_after_login() {
    let world = world().await;
    let opened = bare(&world, &legacy("initialize", "{}")).send().await;
    let session = opened.header("mcp-session-id").to_owned();
    let again = bare(&world, &legacy("initialize", "{}")).send().await;
    assert_ne!(session, again.header("mcp-session-id"));
    let list = legacy("tools/list", "{}");
    // Without a token it means nothing, also one that somebody owns.
    for id in [session.as_str(), "another"] {
        let answer = bare(&world, &list).header("mcp-session-id", id).send().await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    // With one it is unknown, so that the client begins anew, and nobody can have taken its place.
    let stale = world.ask(&*list).header("mcp-session-id", &session).send().await;
    assert_eq!(stale.status, StatusCode::NOT_FOUND);
    assert_eq!(world.upstream.seen().len(), 0);
    world.upstream.answers(|_| {
        let mut response = super::support::json(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
        response
            .headers_mut()
            .insert("mcp-session-id", HeaderValue::from_static("real"));
        response
    });
    let token = world.issue(&world.grant());
    let ask = |body: String| world.ask(body).token(token.as_str());
    let real = ask(legacy("initialize", "{}")).send().await;
    assert_eq!(real.header("mcp-session-id"), "real");
    let stolen =
        bare(&world, &legacy("tools/call", r#"{"name":"git_log"}"#)).header("mcp-session-id", "real");
    assert_eq!(stolen.send().await.status, StatusCode::UNAUTHORIZED);
    let inside = ask(list).header("mcp-session-id", "real").send().await;
    assert_eq!(inside.status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn an_address_has_its_rate() {
    let world = world_with(
        &file(&[READS], Some(preface(false))),
        "pins = 'pins.json'\ndiscovery = 'catalogue'\nrate.per_address = { requests = 2, per = '1s' }",
    )
    .await;
    let ask = async || bare(&world, &legacy("ping", "{}")).send().await;
    assert_eq!(ask().await.status, StatusCode::OK);
    assert_eq!(ask().await.status, StatusCode::OK);
    let refused = ask().await;
    assert_eq!(scope(&refused), "git:*", "who is over it can still log in");
    // Whoever has a capability is not of them.
    assert_eq!(
        world.ask(legacy("ping", "{}")).send().await.status,
        StatusCode::OK
    );
    world.clock.advance(1);
    assert_eq!(ask().await.status, StatusCode::OK);
    // A server without the modern era shows nothing in it.
    scope(&modern(&world, "tools/list").send().await);
    world.end().await;
}

#[tokio::test]
async fn without_it_nothing_is_told() {
    let world = super::pinning::world_with(
        &file(&[READS], Some(preface(true))),
        "pins = 'pins.json'\nscopes = ['git:git_show']",
    )
    .await;
    for method in ["initialize", "tools/list", "ping", "tools/call"] {
        let asked = bare(&world, &legacy(method, r#"{"name":"git_log"}"#))
            .send()
            .await;
        assert_eq!(scope(&asked), "git:git_show", "{method}");
    }
    assert_eq!(
        bare(&world, "").method(Method::GET).send().await.status,
        StatusCode::UNAUTHORIZED
    );
    world.end().await;
}
