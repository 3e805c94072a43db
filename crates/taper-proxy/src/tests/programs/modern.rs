//! Modern programs: one per owner, every message names its request.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::super::support::{Ask, World};
use super::setup;

/// Acknowledges subscriptions, and tells of the last cancellation when it is asked.
const LISTENS: &str = r#"cancelled=null; say() { echo "{\"jsonrpc\":\"2.0\",$1}"; }
while read -r line; do case "$line" in
  *'"subscriptions/listen"'*)
    say '"method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"l"}}' ;;
  *'"notifications/cancelled"'*) cancelled="$line" ;;
  *'"server/discover"'*) id=${line#*\"id\":}; id=${id%%,*}; say "\"id\":$id,\"result\":{\"cancelled\":$cancelled}" ;;
  esac; done"#;

fn modern<'a>(world: &'a World, token: &str, id: &str, method: &'static str) -> Ask<'a> {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let more = match method {
        "subscriptions/listen" => r#","notifications":{"toolsListChanged":true}"#,
        _ => "",
    };
    let ask = world.ask(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{meta}{more}}}}}"#
    ));
    ask.token(token)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
        .header("accept", "application/json, text/event-stream")
}

#[tokio::test]
async fn closing_a_subscription_cancels_it() {
    let world = World::start(setup(LISTENS, ", era = 'modern'")).await;
    let token = world.issue(&world.grant()).as_str().to_owned();
    let listen = || modern(&world, &token, "\"l\"", "subscriptions/listen");
    let mut stream = world.open(listen().request()).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let first = stream.body_mut().frame().await.unwrap().unwrap();
    let first = String::from_utf8(first.into_data().unwrap().to_vec()).unwrap();
    assert!(first.contains("subscriptions/acknowledged"), "{first}");

    // The program is the owner's, whatever the connection: its ids are too.
    let second = listen().send().await;
    assert_eq!(second.status.as_u16(), 400, "{second:?}");
    assert_eq!(second.json()["error"]["code"], -32600);
    let before = modern(&world, &token, "1", "server/discover").send().await;
    assert!(before.json()["result"]["cancelled"].is_null(), "{before:?}");

    drop(stream);
    let cancelled = async {
        for id in 2.. {
            let told = modern(&world, &token, &id.to_string(), "server/discover")
                .send()
                .await;
            let cancelled = told.json()["result"]["cancelled"].clone();
            if !cancelled.is_null() {
                return cancelled;
            }
        }
        serde_json::Value::Null
    };
    let cancelled = tokio::time::timeout(Duration::from_secs(20), cancelled)
        .await
        .unwrap();
    assert_eq!(cancelled["params"]["requestId"], "l");
    let again = world.open(listen().request()).await;
    assert_eq!(again.status().as_u16(), 200);
    drop(again);
    world.end().await;
}
