//! The same requests to a server and through the proxy: the answers are the same bytes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use taper_tests::Answer;
use taper_tests::call::Call;

use crate::parts::{Fixture, Guarded};

/// What an answer consists of, apart from the framing.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    kind: Option<String>,
    body: String,
}

fn header(answer: &Answer, wanted: &str) -> Option<String> {
    let mut lines = answer.head.lines().skip(1);
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
    })
}

/// The body without the framing of chunks.
fn body(answer: &Answer) -> String {
    if header(answer, "transfer-encoding").is_none() {
        return answer.body.clone();
    }
    let (mut rest, mut whole) = (answer.body.as_str(), String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}

/// A client at one URL, with its session if it has one.
struct Client<'a> {
    url: &'a str,
    revision: &'a str,
    session: Option<String>,
}

impl Client<'_> {
    fn send(&mut self, message: &Value) -> Told {
        let mut call = Call::new("POST", self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", self.revision)
            .body(message.to_string());
        if self.revision == "2026-07-28" {
            let parameters = &message["params"];
            let name = ["name", "uri"].map(|name| parameters[name].as_str());
            call = call.header("mcp-method", message["method"].as_str().unwrap());
            if let Some(name) = name.into_iter().flatten().next() {
                call = call.header("mcp-name", name);
            }
        }
        if let Some(session) = &self.session {
            call = call.header("mcp-session-id", session);
        }
        let answer = call.send();
        self.session = self.session.take().or(header(&answer, "mcp-session-id"));
        Told {
            status: answer.status,
            kind: header(&answer, "content-type"),
            body: body(&answer),
        }
    }
}

/// Sends each to both, and compares what comes back; the bodies.
fn compared(bare: &str, through: &str, revision: &str, messages: &[Value]) -> Vec<String> {
    let client = |url| Client {
        url,
        revision,
        session: None,
    };
    let (mut bare, mut through) = (client(bare), client(through));
    let mut bodies = Vec::new();
    for message in messages {
        let expected = bare.send(message);
        assert_eq!(through.send(message), expected, "{message}");
        bodies.push(expected.body);
    }
    bodies
}

/// What either era has; the calls that show progress answer with several events.
fn requests() -> Vec<Value> {
    let tool = |name: &str, arguments: Value| json!({ "method": "tools/call", "params": { "name": name, "arguments": arguments } });
    let read = |uri: &str| json!({ "method": "resources/read", "params": { "uri": uri } });
    let prompt = |name: &str, arguments: Value| json!({ "method": "prompts/get", "params": { "name": name, "arguments": arguments } });
    vec![
        tool("test_simple_text", json!({})),
        tool("greet", json!({ "name": "J\u{fc}rgen \u{1f642}\n\"<&>\"" })),
        tool("test_image_content", json!({})),
        tool("test_multiple_content_types", json!({})),
        tool("test_error_handling", json!({})),
        tool("test_large_text", json!({})),
        tool("there_is_no_such_tool", json!({})),
        read("test://static-text"),
        read("test://static-binary"),
        read("test://template/7/data"),
        read("test://nonexistent-resource-for-conformance-testing"),
        prompt("test_prompt_with_arguments", json!({ "arg1": "a", "arg2": "b" })),
        prompt("test_prompt_with_image", json!({})),
        json!({ "method": "completion/complete", "params": {
            "ref": { "type": "ref/prompt", "name": "test_prompt_with_arguments" },
            "argument": { "name": "arg1", "value": "t" },
        } }),
        json!({ "method": "tools/call", "params": {
            "name": "test_tool_with_progress", "arguments": {}, "_meta": { "progressToken": "p" },
        } }),
    ]
}

fn numbered(requests: &mut [Value]) {
    for (id, request) in requests.iter_mut().enumerate() {
        request["jsonrpc"] = json!("2.0");
        request["id"] = json!(id);
    }
}

#[test]
fn legacy_answers_are_the_same_bytes() {
    let fixture = Fixture::start();
    let guarded = Guarded::start(&format!("{{ http = \"{}\" }}", fixture.url()));
    let mut messages = vec![json!({ "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": { "name": "direct", "version": "1" },
    } })];
    messages.extend(requests());
    messages.push(json!({ "method": "ping" }));
    messages.push(json!({ "method": "logging/setLevel", "params": { "level": "info" } }));
    numbered(&mut messages);
    messages.insert(
        1,
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
    );
    let bodies = compared(&fixture.url(), guarded.url(), "2025-11-25", &messages);
    assert!(
        bodies.iter().any(|body| body.matches("data: {").count() == 4),
        "{bodies:?}"
    );
}

#[test]
fn modern_answers_are_the_same_bytes() {
    let fixture = Fixture::start();
    let guarded = Guarded::start(&format!("{{ http = \"{}\" }}", fixture.url()));
    let mut messages = requests();
    let tool = |name: &str| json!({ "method": "tools/call", "params": { "name": name, "arguments": {} } });
    messages.extend([
        json!({ "method": "server/discover", "params": {} }),
        tool("test_input_required_result_elicitation"),
        tool("test_missing_capability"),
    ]);
    for message in &mut messages {
        let meta = &mut message["params"]["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
    }
    numbered(&mut messages);
    let bodies = compared(&fixture.url(), guarded.url(), "2026-07-28", &messages);
    assert!(
        bodies.iter().any(|body| body.contains("input_required")),
        "{bodies:?}"
    );
    assert!(bodies.iter().any(|body| body.contains("-32021")), "{bodies:?}");
}

/// A stream as no library writes it: comments, unknown fields and members, every line end, data in parts.
const ODD: &str = concat!(
    ": hello\n\n",
    "data: \nid: 0\nretry: 3000\n\n",
    "x-unknown: 1\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\r\n",
    "data:\"params\":{\"level\":\"info\",\"data\":1.50,\"x\":null},\"unknown\":[1e400,-0]}\r\n\r\n",
    ":\n: still here\n\n",
    "id: last\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[],\"resultType\":\"complete\",",
    "\"x\":{\"unknown\":9007199254740993}},\"extra\":true}\n\n",
);

/// Answers every request with [`ODD`], in two pieces.
fn odd_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || odd_answer(stream));
        }
    });
    url
}

fn odd_answer(mut stream: TcpStream) {
    let mut received = String::new();
    let mut buffer = [0; 4096];
    while !received.ends_with("}}") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => received.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let (first, second) = ODD.split_at(ODD.len() / 2);
    for part in [head, first, second] {
        let _ = stream.write_all(part.as_bytes()).and_then(|()| stream.flush());
    }
}

#[test]
fn odd_streams_are_the_same_bytes() {
    let bare = odd_server();
    let guarded = Guarded::start(&format!("{{ http = \"{bare}\" }}"));
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "t", "arguments": {},
        "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                   "io.modelcontextprotocol/clientCapabilities": {} } } });
    for (revision, message) in [
        ("2026-07-28", call),
        (
            "2025-11-25",
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "t", "arguments": {} } }),
        ),
    ] {
        let bodies = compared(&bare, guarded.url(), revision, &[message]);
        assert_eq!(bodies, [ODD], "{revision}");
    }
}
