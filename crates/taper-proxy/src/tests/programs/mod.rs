//! Upstreams that are programs.

mod modern;
mod streams;

use http::Method;

use super::support::{Setup, World, tool_call, usual};

/// Answers every line that has the id 1 with how many lines it has read; asks and notifies first.
const COUNTS: &str = r#"n=0; while read -r line; do n=$((n+1)); case "$line" in
  *\"id\":1*) echo "{\"jsonrpc\":\"2.0\",\"id\":\"s\",\"method\":\"roots/list\"}";
    echo "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}";
    echo "not json";
    echo "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":$n}}" ;;
  esac; done"#;

const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const LOG: &str = r#"{"repo_path":"acme/web"}"#;

fn setup(script: &str, more: &str) -> Setup {
    let script = serde_json::to_string(script).unwrap();
    Setup {
        upstream: Some(format!("{{ stdio = [\"sh\", \"-c\", {script}]{more} }}")),
        ..usual()
    }
}

#[tokio::test]
async fn one_program_per_session() {
    let world = World::start(setup(COUNTS, "")).await;
    let token = world.issue(&world.grant());
    let mine = |body: String| world.ask(body).token(token.as_str());
    let open = async || {
        let opened = mine(INITIALIZE.into()).send().await;
        assert_eq!(
            (opened.status.as_u16(), &opened.json()["result"]["n"]),
            (200, &1.into())
        );
        opened.header("mcp-session-id").to_owned()
    };
    let (one, two) = (open().await, open().await);
    assert_ne!(one, two);

    let notified = mine(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into());
    assert_eq!(
        notified
            .header("mcp-session-id", &one)
            .send()
            .await
            .status
            .as_u16(),
        202
    );
    // Line ends inside a body are spaces to the program: one message stays one line. It has read
    // initialize, the notification and this; its own request waits for a stream.
    let call = tool_call("git_log", LOG).replace("\"params\"", "\r\n\"params\"");
    let called = mine(call).header("mcp-session-id", &one).send().await;
    assert_eq!(called.json()["result"]["n"], 3, "{called:?}");
    let other = mine(tool_call("git_log", LOG))
        .header("mcp-session-id", &two)
        .send()
        .await;
    assert_eq!(other.json()["result"]["n"], 2);

    let foreign = world
        .call("git_log", LOG)
        .header("mcp-session-id", &one)
        .send()
        .await;
    let without = mine(tool_call("git_log", LOG)).send().await;
    assert_eq!((foreign.status.as_u16(), without.status.as_u16()), (404, 404));
    let ended = mine(String::new())
        .method(Method::DELETE)
        .header("mcp-session-id", &one)
        .send()
        .await;
    assert_eq!(ended.status.as_u16(), 204);
    let gone = mine(tool_call("git_log", LOG))
        .header("mcp-session-id", &one)
        .send()
        .await;
    assert_eq!(gone.status.as_u16(), 404);
    world.end().await;
}

#[tokio::test]
async fn an_era_that_the_program_lacks_is_told() {
    let world = World::start(setup(COUNTS, "")).await;
    let modern = || {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        world
            .ask(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{meta}}}}}"#
            ))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/list")
    };
    let answer = modern().send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].as_i64()),
        (400, Some(-32022))
    );
    assert_eq!(answer.json()["error"]["data"]["requested"], "2026-07-28");
    world.end().await;

    let world = World::start(setup(COUNTS, ", era = 'modern'")).await;
    let modern = |token: &str| {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        world
            .ask(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{{meta}}}}}"#
            ))
            .token(token)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "server/discover")
    };
    let (one, two) = (world.issue(&world.grant()), world.issue(&world.grant()));
    assert_eq!(modern(one.as_str()).send().await.json()["result"]["n"], 1);
    assert_eq!(
        modern(one.as_str()).send().await.json()["result"]["n"],
        3,
        "the same program"
    );
    assert_eq!(
        modern(two.as_str()).send().await.json()["result"]["n"],
        1,
        "another grant's"
    );
    assert_eq!(world.ask(INITIALIZE).send().await.json()["error"]["code"], -32022);
    world.end().await;
}

#[tokio::test]
async fn one_owner_has_a_part_of_the_programs() {
    let world = World::start(setup(COUNTS, ", max_children = 16")).await;
    let (one, two) = (world.issue(&world.grant()), world.issue(&world.grant()));
    let open = async |token: &str| world.ask(INITIALIZE).token(token).send().await.status.as_u16();
    let opened = [
        open(one.as_str()).await,
        open(one.as_str()).await,
        open(one.as_str()).await,
        open(two.as_str()).await,
    ];
    assert_eq!(opened, [200, 200, 503, 200]);
    world.end().await;
}

#[tokio::test]
async fn a_program_that_does_not_read_is_ended() {
    let script = r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"result":{}}'; exec sleep 600"#;
    let setup = Setup {
        server: "limits = { answer_timeout = '1s' }",
        ..setup(script, "")
    };
    let world = World::start(setup).await;
    let token = world.issue(&world.grant());
    let opened = world.ask(INITIALIZE).token(token.as_str()).send().await;
    let session = opened.header("mcp-session-id").to_owned();
    // More than a pipe holds.
    let large = " ".repeat(512 * 1024);
    let body = format!(r#"{{"jsonrpc":"2.0",{large}"method":"notifications/initialized"}}"#);
    let ended = async {
        loop {
            let ask = world.ask(body.clone()).token(token.as_str());
            let answer = ask.header("mcp-session-id", &session).send().await;
            if answer.status.as_u16() == 404 {
                break;
            }
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
    assert!(ended.is_ok(), "its session is over");
    world.end().await;
}

#[tokio::test]
async fn what_a_program_complains_of_holds_nothing_up() {
    // More than a pipe holds.
    let script = r#"read -r line; i=0; while [ $i -lt 3000 ]; do i=$((i+1))
        echo "a complaint of some fifty bytes, number $i, to be dropped" >&2; done
        echo '{"jsonrpc":"2.0","id":1,"result":{}}'; read -r line"#;
    for kept in ["", ", stderr = 'drop'", ", stderr = 'log'"] {
        let world = World::start(setup(script, kept)).await;
        let opened = world.ask(INITIALIZE).send().await;
        assert_eq!(opened.status.as_u16(), 200, "{kept}");
        world.end().await;
    }
}

#[tokio::test]
async fn programs_are_bounded_and_their_end_is_noticed() {
    let world = World::start(setup(COUNTS, ", max_children = 1")).await;
    assert_eq!(world.ask(INITIALIZE).send().await.status.as_u16(), 200);
    let second = world.ask(INITIALIZE).send().await;
    assert_eq!(
        (
            second.status.as_u16(),
            second.json()["error"]["data"]["rule"].as_str()
        ),
        (503, Some("M-31"))
    );
    world.end().await;

    let world = World::start(setup("read -r line; exit 1", "")).await;
    let dead = world.ask(INITIALIZE).send().await;
    assert_eq!(
        (
            dead.status.as_u16(),
            dead.json()["error"]["data"]["rule"].as_str()
        ),
        (502, Some("M-30"))
    );
    assert_eq!(
        world.ask(INITIALIZE).send().await.status.as_u16(),
        502,
        "it left no place taken"
    );
    world.end().await;

    let setup = Setup {
        upstream: Some("{ stdio = ['/no/such/program'] }".into()),
        ..usual()
    };
    let world = World::start(setup).await;
    assert_eq!(world.ask(INITIALIZE).send().await.status.as_u16(), 502);
    world.end().await;
}
