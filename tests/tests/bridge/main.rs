//! `taper bridge` over one `taper up`: clients without a key, over HTTP, a Unix socket and lines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use taper_tests::call::Call;
use taper_tests::{Answer, Running, Up, taper, taper_bin, taper_ok, taper_reading};

/// A bridge beside a running world; the capability is for everything of the git server.
struct World {
    up: Up,
}

impl World {
    fn start() -> Self {
        let up = Up::start();
        up.capability("agent", "git:*");
        Self { up }
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let url = self.up.mcp();
        let given = [
            "bridge",
            "--url",
            &url,
            "--token",
            "agent.cap",
            "--key",
            "agent.jwk",
        ];
        let log = ["--log", "trace"];
        given
            .iter()
            .chain(&log)
            .chain(more)
            .map(|&word| word.to_owned())
            .collect()
    }

    fn listen(&self, more: &[&str]) -> Running {
        let mut command = Command::new(taper_bin());
        command.current_dir(self.up.dir()).args(self.arguments(more));
        Running::start(command.args(["--format", "json"]))
    }

    /// What the bridge writes, given these lines.
    fn lines(&self, more: &[&str], lines: &[Value]) -> Vec<Value> {
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let arguments = self.arguments(more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = taper_reading(self.up.dir(), &arguments, input.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn modern(id: u64, repo: &str) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    let params = json!({"name": "git_log", "arguments": {"repo_path": repo}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn legacy(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A client that can send static headers.
fn post(url: &str, secret: Option<&str>, message: &Value) -> (u16, String) {
    let mut call = Call::new("POST", url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "git_log")
        .body(message.to_string());
    if let Some(secret) = secret {
        call = call.header("authorization", format!("Bearer {secret}"));
    }
    let answer = call.send();
    (answer.status, answer.body)
}

#[test]
fn clients_without_a_key() {
    let world = World::start();
    over_http(&world);
    over_a_socket(&world);
    over_lines(&world);
    settings(&world);
    what_cannot_start(&world);
}

fn over_http(world: &World) {
    let bridge = world.listen(&[
        "--listen",
        "127.0.0.1:0",
        "--client",
        "one",
        "--client",
        "two",
        "--repo",
        "acme/web",
    ]);
    let url = bridge.text("/url");
    let secrets: Vec<_> = ["/clients/0/secret_file", "/clients/1/secret_file"]
        .map(|file| {
            let file = world.up.dir().join(bridge.text(file));
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::read_to_string(file).unwrap()
        })
        .into();
    assert_ne!(secrets[0], secrets[1]);
    for secret in &secrets {
        let (status, body) = post(&url, Some(secret), &modern(1, "acme/web"));
        assert_eq!(status, 200, "{body}\n{}", bridge.log());
        assert!(body.contains("\"result\""), "{body}");
        let (status, body) = post(&url, Some(secret), &modern(2, "acme/payroll"));
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("4403") && body.contains("acme/web"), "{body}");
    }
    for wrong in [None, Some("x"), Some(&secrets[0][1..])] {
        let (status, body) = post(&url, wrong, &modern(3, "acme/web"));
        assert_eq!((status, body.contains("secret")), (403, true), "{body}");
    }
    let (success, log) = bridge.stop_for_log();
    assert!(success, "{log}");
    let token = std::fs::read_to_string(world.up.dir().join("agent.cap")).unwrap();
    for secret in [&secrets[0], &secrets[1], token.trim()] {
        let part = &secret[..24];
        assert!(!log.contains(part), "a secret is in the log");
    }
    // The secrets stay, so that clients need no new configuration.
    let again = world.listen(&["--listen", "127.0.0.1:0", "--client", "one"]);
    let (status, body) = post(&again.text("/url"), Some(&secrets[0]), &modern(4, "acme/payroll"));
    assert_eq!(status, 200, "{body}");
}

fn over_a_socket(world: &World) {
    let path = world.up.dir().join("bridge.sock");
    let socket = format!("unix:{}", path.display());
    let bridge = world.listen(&["--listen", &socket, "--own-key"]);
    assert_eq!(bridge.text("/socket"), path.display().to_string());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let body = modern(1, "acme/web").to_string();
    let target = bridge.text("/url").replace("http://localhost", "");
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/call\r\nmcp-name: git_log\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}\n{}", bridge.log());
    assert!(bridge.stop());
    assert!(!path.exists());
}

fn over_lines(world: &World) {
    let initialize = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let call = |repo| json!({"name": "git_log", "arguments": {"repo_path": repo}});
    let lines = [
        legacy(0, "initialize", initialize),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        legacy(1, "tools/list", json!({})),
        legacy(2, "tools/call", call("acme/web")),
        legacy(3, "tools/call", call("acme/payroll")),
    ];
    let mut told = world.lines(&["--repo", "acme/web"], &lines);
    told.sort_by_key(|line| line["id"].as_u64());
    let [opened, list, allowed, denied] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(opened["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(list["result"]["tools"].as_array().unwrap().len(), 2);
    assert!(allowed["result"]["content"].is_array(), "{allowed}");
    assert_eq!(denied["error"]["code"], 4403, "{denied}");
    let mut told = world.lines(
        &["--repo", "acme/web"],
        &[modern(1, "acme/web"), modern(2, "acme/payroll")],
    );
    told.sort_by_key(|line| line["id"].as_u64());
    assert!(told[0]["result"]["content"].is_array(), "{told:?}");
    assert_eq!(told[1]["error"]["code"], 4403, "{told:?}");
}

/// What a client's settings need is in them, wherever it came from.
fn settings(world: &World) {
    let output = Command::new(taper_bin())
        .current_dir(world.up.dir())
        .env("TAPER_URL", world.up.mcp())
        .env("TAPER_TOKEN", "agent.cap")
        .args(["bridge", "--key", "agent.jwk", "--print-config", "claude"])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let server = &told["mcpServers"]["git"];
    let file = |name: &str| world.up.dir().join(name).display().to_string();
    let expected = json!([
        "bridge",
        "--key",
        file("agent.jwk"),
        "--url",
        world.up.mcp(),
        "--token",
        file("agent.cap")
    ]);
    assert_eq!(server["args"], expected);
    assert!(server["command"].as_str().unwrap().starts_with('/'));
}

fn what_cannot_start(world: &World) {
    let dir = world.up.dir();
    let check = |more: &[&str], code: i32, words: &str| {
        let url = world.up.mcp();
        let given = ["bridge", "--url", &url, "--token", "agent.cap"];
        let output = taper(dir, &[&given, more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{more:?} {stderr}");
        assert!(stderr.contains(words), "{more:?} {stderr}");
        assert!(output.stdout.is_empty());
    };
    check(&["--key", "absent.jwk"], 1, "taper keygen");
    world.up.keygen("other");
    check(&["--key", "other.jwk"], 1, "not by");
    check(&["--key", "agent.jwk", "--listen", "0.0.0.0:0"], 64, "127.0.0.1");
    let socket = ["--key", "agent.jwk", "--listen", "unix:s"];
    check(
        &[&socket[..], &["--client", "a"]].concat(),
        64,
        "a bridge for each client",
    );
    check(&["--key", "agent.jwk", "--client", "a"], 64, "--listen");
    let twice = ["--client", "a", "--client", "a", "--listen", "127.0.0.1:0"];
    check(
        &[&["--key", "agent.jwk"], &twice[..]].concat(),
        64,
        "a name of its own",
    );
    check(
        &["--key", "agent.jwk", "--client", "a/b", "--listen", "127.0.0.1:0"],
        1,
        "letters",
    );
}

/// Sends it, once more with the nonce where one is asked for.
fn sent(call: &Call) -> Answer {
    let answer = call.send();
    let nonce = header(&answer, "dpop-nonce");
    if !matches!(answer.status, 400 | 401) || nonce.is_none() {
        return answer;
    }
    let claims = call.claims().nonce(nonce.as_deref());
    call.clone()
        .proven_by(call.key.as_deref().unwrap(), &claims)
        .send()
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(given, _)| given.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim().to_owned())
}

/// A session of the legacy era belongs to a grant: it goes on when that is renewed, not under another grant.
#[test]
fn a_session_survives_the_renewal_of_its_capability() {
    let up = Up::start();
    let dir = up.dir();
    up.keygen("agent");
    let key = std::fs::read_to_string(dir.join("agent.jwk")).unwrap();
    let subject = [
        "dev-token",
        "--dir",
        "up",
        "--subject",
        "alice",
        "--group",
        "eng",
        "--ttl",
        "8h",
    ];
    let subject = taper_ok(dir, &subject).trim().to_owned();
    let exchange = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&client_id=dev&requested_token_type=\
                    urn:taper:params:oauth:token-type:capability";
    let obtain = |form: &str, proven: Option<&str>| {
        let mut call = Call::form(
            &format!("{}/token", up.issuer()),
            &format!("{exchange}&{form}"),
            &key,
        );
        call.token = proven.map(str::to_owned);
        sent(&call)
    };
    let token = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["access_token"].as_str().unwrap().to_owned()
    };
    let by_subject = format!(
        "subject_token={subject}&subject_token_type=urn:ietf:params:oauth:token-type:access_token&scope=git:*"
    );
    let first = token(&obtain(&by_subject, None));
    let url = up.mcp();
    let call = |capability: &str, session: Option<&str>, message: &Value| {
        let call = Call::mcp(&url, capability, &key, &message.to_string());
        match session {
            Some(session) => sent(
                &call
                    .header("mcp-session-id", session)
                    .header("mcp-protocol-version", "2025-11-25"),
            ),
            None => sent(&call),
        }
    };
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let opened = call(&first, None, &legacy(1, "initialize", hello));
    assert_eq!(opened.status, 200, "{}", opened.body);
    let session = header(&opened, "mcp-session-id").unwrap();
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(call(&first, Some(&session), &ready).status, 202);

    let renewal = |capability: &str| {
        format!("subject_token={capability}&subject_token_type=urn:taper:params:oauth:token-type:capability")
    };
    let second = token(&obtain(&renewal(&first), Some(&first)));
    assert_ne!(second, first);
    let list =
        |capability: &str, id| call(capability, Some(&session), &legacy(id, "tools/list", json!({}))).status;
    assert_eq!(list(&second, 2), 200);
    let another = token(&obtain(&by_subject, None));
    assert_eq!(list(&another, 3), 404);

    // Once the holder took the grant back, nobody renews it.
    let revoke = [
        "revoke",
        "--issuer",
        &up.issuer(),
        "--client-id",
        "dev",
        "--token",
        "second.cap",
        "--key",
        "agent.jwk",
    ];
    std::fs::write(dir.join("second.cap"), &second).unwrap();
    taper_ok(dir, &revoke);
    let refused = obtain(&renewal(&second), Some(&second));
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("invalid_grant"), "{}", refused.body);
}
