//! Legacy programs that say more than answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::super::support::{Ask, World, tool_call};
use super::{INITIALIZE, LOG, setup};

/// Answers requests by what stands in them.
const TALKS: &str = r#"say() { echo "{\"jsonrpc\":\"2.0\",$1}"; }
while read -r line; do case "$line" in
  *'"initialize"'*) say '"id":1,"result":{}' ;;
  *'"talk"'*)
    echo 'a banner'
    say '"method":"notifications/progress","params":{"progressToken":"p","progress":1}'
    say '"method":"notifications/tools/list_changed"'
    say '"method":"notifications/message","params":{"level":"info","data":"log"}'
    say '"id":2,"result":{"content":[]}' ;;
  *'"die"'*)
    say '"method":"notifications/progress","params":{"progressToken":"p","progress":1}'
    exit 1 ;;
  *'"fork"'*) sleep 600 & say "\"id\":2,\"result\":{\"pid\":$!}" ;;
  esac; done"#;

const BOTH: &str = "application/json, text/event-stream";

/// A session of a program that talks.
struct Session {
    world: World,
    token: String,
    id: String,
}

impl Session {
    async fn open() -> Self {
        let world = World::start(setup(TALKS, "")).await;
        let token = world.issue(&world.grant()).as_str().to_owned();
        let opened = world.ask(INITIALIZE).token(&token).send().await;
        assert_eq!(opened.status.as_u16(), 200);
        let id = opened.header("mcp-session-id").to_owned();
        Self { world, token, id }
    }

    fn ask(&self, body: &str) -> Ask<'_> {
        let ask = self.world.ask(body).token(&self.token);
        ask.header("mcp-session-id", &self.id)
    }

    fn call(&self, what: &str) -> Ask<'_> {
        let meta = format!(r#""_meta":{{"progressToken":"p","do":"{what}"}},"arguments""#);
        let body = tool_call("git_log", LOG).replace("\"arguments\"", &meta);
        self.ask(&body.replace("\"id\":1", "\"id\":2"))
            .header("accept", BOTH)
    }

    async fn get(&self) -> Response<Incoming> {
        let get = self
            .ask("")
            .method(Method::GET)
            .header("accept", "text/event-stream");
        self.world.open(get.request()).await
    }
}

/// The data of the next `n` events.
async fn events(response: &mut Response<Incoming>, n: usize) -> Vec<serde_json::Value> {
    let mut text = String::new();
    let read = async {
        while text.matches("\n\n").count() < n {
            let frame: Bytes = match response.body_mut().frame().await {
                Some(frame) => frame.unwrap().into_data().unwrap(),
                None => break,
            };
            text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(in_time.is_ok(), "{text}");
    let data = text.split_terminator("\n\n").map(|event| {
        let data = event.strip_prefix("event: message\ndata: ").unwrap();
        serde_json::from_str(data).unwrap()
    });
    data.collect()
}

#[tokio::test]
async fn progress_makes_an_answer_a_stream() {
    let session = Session::open().await;
    let mut answer = session.world.open(session.call("talk").request()).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let got = events(&mut answer, usize::MAX).await;
    let methods: Vec<_> = got.iter().map(|event| event["method"].as_str()).collect();
    let log = Some("notifications/message");
    assert_eq!(methods, [Some("notifications/progress"), log, None]);
    assert_eq!(got[2]["id"], 2);

    // What belongs to no request waits for the session's one stream.
    let mut stream = session.get().await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let got = events(&mut stream, 1).await;
    assert_eq!(got[0]["method"], "notifications/tools/list_changed");
    let second = session.get().await;
    assert_eq!(second.status().as_u16(), 409);

    let plain = session
        .call("talk")
        .header("accept", "application/json")
        .send()
        .await;
    assert_eq!(plain.header("content-type"), "application/json");
    assert_eq!(plain.json()["id"], 2);
    let got = events(&mut stream, 3).await;
    assert_eq!(got[0]["method"], "notifications/progress");
    assert_eq!(got[2]["method"], "notifications/message");

    drop(stream);
    let again = async { while session.get().await.status().as_u16() != 200 {} };
    assert!(tokio::time::timeout(Duration::from_secs(20), again).await.is_ok());
    session.world.end().await;
}

#[tokio::test]
async fn a_program_that_dies_answers_what_waits() {
    let session = Session::open().await;
    let mut stream = session.get().await;
    let mut answer = session.world.open(session.call("die").request()).await;
    let got = events(&mut answer, usize::MAX).await;
    assert_eq!(got[0]["method"], "notifications/progress");
    assert_eq!(
        (&got[1]["id"], &got[1]["error"]["code"]),
        (&2.into(), &(-32603).into())
    );
    assert_eq!(got[1]["error"]["data"]["rule"], "M-30");
    assert_eq!(events(&mut stream, usize::MAX).await.len(), 0);
    let after = session.call("talk").send().await;
    assert_eq!(after.status.as_u16(), 404);
    session.world.end().await;
}

/// Whether a process runs; one that nobody waited for does not.
fn runs(pid: &serde_json::Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.split(' ')
        .nth(2)
        .is_some_and(|state| state != "Z" && state != "X")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_a_program_started_ends_with_it() {
    let session = Session::open().await;
    let pid = session.call("fork").send().await.json()["result"]["pid"].clone();
    assert!(runs(&pid));
    let ended = session.ask("").method(Method::DELETE).send().await;
    assert_eq!(ended.status.as_u16(), 204);
    let gone = async {
        while runs(&pid) {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), gone).await.is_ok());
    session.world.end().await;
}
