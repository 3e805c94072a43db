//! Tasks (M-34), answers that ask for more, and streams that are resumed.

use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::support::{Ask, Seen, World, decided, json as answer, usual};
use crate::body::Body;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const UNKNOWN: (u16, i64) = (200, -32602);

/// One holder of several with a capability of its own, in one of the eras.
struct Caller<'a> {
    world: &'a World,
    token: String,
    modern: bool,
}

impl<'a> Caller<'a> {
    fn new(world: &'a World, modern: bool) -> Self {
        let token = world.issue(&world.grant()).as_str().to_owned();
        Self { world, token, modern }
    }

    fn asks(&self, method: &str, name: &str, mut params: Value) -> Ask<'a> {
        if self.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": { "extensions": { "io.modelcontextprotocol/tasks": {} } },
            });
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let ask = self.world.ask(body.to_string()).token(&self.token);
        if !self.modern {
            return ask;
        }
        let ask = ask.header("mcp-protocol-version", "2026-07-28");
        ask.header("mcp-method", method).header("mcp-name", name)
    }

    fn calls(&self) -> Ask<'a> {
        let arguments = json!({ "repo_path": "acme/web" });
        let mut params = json!({ "name": "git_log", "arguments": arguments });
        if !self.modern {
            params["task"] = json!({ "ttl": 60000 });
        }
        self.asks("tools/call", "git_log", params)
    }

    fn task(&self, method: &str, task: &str) -> Ask<'a> {
        self.asks(method, task, json!({ "taskId": task, "inputResponses": {} }))
    }

    async fn told(&self, ask: Ask<'a>) -> (u16, i64) {
        let answer = ask.send().await;
        (
            answer.status.as_u16(),
            answer.json()["error"]["code"].as_i64().unwrap_or(0),
        )
    }
}

fn events(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = answer(text);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}

/// A server that makes the task `made` of every call, as JSON or as an event.
fn makes(world: &World, modern: bool, as_event: bool, made: &'static str) {
    world.upstream.answers(move |seen: &Seen| {
        let message: Value = serde_json::from_slice(&seen.body).unwrap();
        let result = match (message["method"].as_str(), modern) {
            (Some("tools/call"), false) => json!({ "task": { "taskId": made, "status": "working" } }),
            (Some("tools/call"), true) => json!({ "resultType": "task", "taskId": made }),
            _ => json!({ "resultType": "complete", "taskId": message["params"]["taskId"] }),
        };
        let text = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string();
        if as_event {
            events(format!("data: \nid: 0\n\ndata: {text}\n\n"))
        } else {
            answer(text)
        }
    });
}

#[tokio::test]
async fn a_task_is_its_makers() {
    let world = World::start(usual()).await;
    for (modern, as_event, made) in [
        (false, false, "a"),
        (false, true, "b"),
        (true, false, "c"),
        (true, true, "d"),
    ] {
        let (mine, other) = (Caller::new(&world, modern), Caller::new(&world, modern));
        makes(&world, modern, as_event, made);
        assert_eq!(mine.told(mine.task("tasks/get", made)).await, UNKNOWN, "not yet");
        let begun = world.upstream.seen().len();
        assert_eq!(mine.calls().send().await.status.as_u16(), 200);
        let methods = if modern {
            ["tasks/get", "tasks/update", "tasks/cancel"]
        } else {
            ["tasks/get", "tasks/result", "tasks/cancel"]
        };
        for method in methods {
            assert_eq!(
                mine.told(mine.task(method, made)).await,
                (200, 0),
                "{method} {made}"
            );
            let (foreign, unknown) = (other.task(method, made), other.task(method, "nobodys"));
            assert_eq!(other.told(foreign).await, UNKNOWN, "{method} {made}");
            assert_eq!(other.told(unknown).await, UNKNOWN, "{method} {made}");
        }
        assert_eq!(world.upstream.seen().len(), begun + 4);
        // Whoever is told of a task that another made does not own it.
        assert_eq!(other.calls().send().await.status.as_u16(), 200);
        assert_eq!(other.told(other.task("tasks/get", made)).await, UNKNOWN);
        assert_eq!(mine.told(mine.task("tasks/get", made)).await, (200, 0));
    }
    let refused = decided(&world.state_folder());
    let refused: Vec<_> = refused
        .iter()
        .filter(|record| record["outcome"] == "deny")
        .collect();
    assert!(!refused.is_empty() && refused.iter().all(|record| record["rule"] == "M-34"));
    world.end().await;
}

#[tokio::test]
async fn only_a_request_that_may_make_a_task_does() {
    let world = World::start(usual()).await;
    let mine = Caller::new(&world, false);
    makes(&world, false, false, "t");
    let plain = world.call("git_log", LOG).token(&mine.token).send().await;
    assert_eq!(plain.status.as_u16(), 200);
    assert_eq!(mine.told(mine.task("tasks/get", "t")).await, UNKNOWN);
    world.end().await;
}

#[tokio::test]
async fn a_list_of_tasks_shows_ones_own() {
    let world = World::start(usual()).await;
    let (mine, other) = (Caller::new(&world, false), Caller::new(&world, false));
    for (caller, made) in [(&mine, "a"), (&other, "b")] {
        makes(&world, false, false, made);
        assert_eq!(caller.calls().send().await.status.as_u16(), 200);
    }
    world.upstream.answers_json(
        r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"a"},{"taskId":"b"},{"x":1}]}}"#,
    );
    let shown = mine.asks("tasks/list", "", json!({})).send().await.json();
    assert_eq!(shown["result"]["tasks"], json!([{ "taskId": "a" }]));
    world.end().await;
}

#[tokio::test]
async fn a_subscription_names_own_tasks_only() {
    let world = World::start(usual()).await;
    let (mine, other) = (Caller::new(&world, true), Caller::new(&world, true));
    makes(&world, true, false, "t");
    assert_eq!(mine.calls().send().await.status.as_u16(), 200);
    let listen = |caller: &Caller<'_>, key: &str, tasks: Value| {
        let ask = caller.asks(
            "subscriptions/listen",
            "",
            json!({ "notifications": { key: tasks } }),
        );
        Ask { world: &world, ..ask }
    };
    assert_eq!(mine.told(listen(&mine, "taskIds", json!(["t"]))).await, (200, 0));
    for tasks in [json!(["t"]), json!(["nobodys"])] {
        assert_eq!(mine.told(listen(&other, "taskIds", tasks)).await, UNKNOWN);
    }
    for (key, tasks) in [
        ("taskIds", json!("t")),
        ("taskIds", json!([1])),
        ("taskids", json!(["t"])),
    ] {
        assert_eq!(mine.told(listen(&mine, key, tasks)).await, (400, -32600), "{key}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_retry_with_input_is_judged_like_any_request() {
    let world = World::start(usual()).await;
    world.upstream.answers_json(
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"q":{}},"requestState":"s"}}"#,
    );
    let mine = Caller::new(&world, true);
    let retry = |name: &str, header: &str, arguments: Value| {
        let params = json!({
            "name": name, "arguments": arguments, "requestState": "s",
            "inputResponses": { "q": { "action": "accept", "content": { "repo_path": "acme/payroll" } } },
        });
        mine.asks("tools/call", header, params)
    };
    let good = || json!({ "repo_path": "acme/web" });
    assert_eq!(mine.told(retry("git_log", "git_log", good())).await, (200, 0));
    assert_eq!(
        mine.told(retry("git_log", "git_log", json!({ "repo_path": "../x" })))
            .await,
        (403, 4403)
    );
    assert_eq!(
        mine.told(retry("git_log", "git_log", json!({ "other": 1 })))
            .await,
        (403, 4403)
    );
    assert_eq!(mine.told(retry("git_rm", "git_rm", good())).await, (403, 0));
    assert_eq!(
        mine.told(retry("git_log", "git_push", good())).await,
        (400, -32020)
    );
    assert_eq!(world.upstream.seen().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_stream_is_resumed_in_its_own_session() {
    let world = World::start(usual()).await;
    world.upstream.answers(|seen: &Seen| {
        if seen.method == Method::POST {
            let mut response = answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
            let id = HeaderValue::from_static("s");
            response.headers_mut().insert("mcp-session-id", id);
            return response;
        }
        let last: usize = seen.headers["last-event-id"].to_str().unwrap().parse().unwrap();
        let event =
            |n: usize| format!("id: {n}\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"ping\"}}\n\n");
        events((last + 1..4).map(event).collect::<String>())
    });
    let (mine, other) = (Caller::new(&world, false), Caller::new(&world, false));
    let initialize = mine.asks("initialize", "", json!({ "protocolVersion": "2025-11-25" }));
    assert_eq!(initialize.send().await.header("mcp-session-id"), "s");
    let resumed = |caller: &Caller<'_>, session: &str| {
        let get = world.ask("").method(Method::GET).token(&caller.token);
        get.header("mcp-session-id", session).header("last-event-id", "1")
    };
    let text = resumed(&mine, "s").send().await.body;
    let text = std::str::from_utf8(&text).unwrap();
    assert!(
        text.starts_with("id: 2\n") && text.contains("id: 3\n") && text.matches("data").count() == 2,
        "{text}"
    );
    let reply = world
        .ask(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#)
        .token(&mine.token);
    assert_eq!(
        reply.header("mcp-session-id", "s").send().await.status.as_u16(),
        200,
        "what was repeated is asked"
    );
    let seen = world.upstream.seen().len();
    let (foreign, unknown) = (
        resumed(&other, "s").send().await,
        resumed(&mine, "nobodys").send().await,
    );
    assert_eq!((foreign.status.as_u16(), unknown.status.as_u16()), (404, 404));
    assert_eq!(foreign.body, unknown.body);
    assert_eq!(world.upstream.seen().len(), seen);
    world.end().await;
}
