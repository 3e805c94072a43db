use axum::body::Body;
use http_body_util::BodyExt as _;
use rand_core::OsRng;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;
use crate::{Calls, sample_repositories};

struct Server {
    router: Router,
    calls: Calls,
    _folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        sample_repositories(folder.path(), 1_790_000_000).unwrap();
        let config = Config::new(folder.path(), "git", &mut OsRng);
        Self {
            calls: config.calls.clone(),
            router: router(config),
            _folder: folder,
        }
    }

    async fn send(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = http::Request::builder().method(method).uri(MCP_PATH);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (parts.status, parts.headers, body)
    }

    async fn post(&self, headers: &[(&str, &str)], body: &Value) -> (StatusCode, HeaderMap, Value) {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send("POST", &all, body.to_string()).await
    }
}

fn legacy(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn modern(version: &str, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    legacy(method, params)
}

fn log() -> Value {
    json!({"name": "git_log", "arguments": {"repo_path": "acme/web"}})
}

const MODERN_CALL: [(&str, &str); 3] = [
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "git_log"),
];

#[tokio::test]
async fn a_legacy_session_from_initialize_to_delete() {
    let server = Server::new();
    for (requested, agreed) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("none", "2025-11-25"),
    ] {
        let body = legacy("initialize", json!({"protocolVersion": requested}));
        let (status, headers, body) = server.post(&[], &body).await;
        assert_eq!(status, 200);
        assert_eq!(body["result"]["protocolVersion"], agreed, "{requested}");
        assert_eq!(body["result"]["serverInfo"]["name"], "git");
        assert_eq!(headers[SESSION].len(), 32);
    }

    let (_, headers, _) = server.post(&[], &legacy("initialize", json!({}))).await;
    let session = headers[SESSION].to_str().unwrap();
    let session = [
        ("mcp-session-id", session),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(server.post(&session, &initialized).await.0, 202);
    assert_eq!(
        server.post(&session, &legacy("ping", json!({}))).await.2["result"],
        json!({})
    );
    let (_, _, list) = server.post(&session, &legacy("tools/list", json!({}))).await;
    assert_eq!(list["result"]["tools"][1]["name"], "git_show");
    assert!(list["result"].get("resultType").is_none());
    let (_, _, result) = server.post(&session, &legacy("tools/call", log())).await;
    let text = result["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Fix the price of the anvil"), "{text}");
    assert_eq!(result["result"]["isError"], false);

    assert_eq!(server.send("DELETE", &session, "").await.0, 204);
    assert_eq!(server.send("DELETE", &session, "").await.0, 404);
    assert_eq!(server.send("DELETE", &[], "").await.0, 400);
    assert_eq!(server.post(&session, &legacy("tools/call", log())).await.0, 404);
    assert_eq!(server.post(&session, &initialized).await.0, 404);
    assert_eq!(server.calls.count(), 1);
}

#[tokio::test]
async fn a_modern_client_discovers_lists_and_calls() {
    let server = Server::new();
    let headers = |method| [("mcp-protocol-version", MODERN_VERSION), ("mcp-method", method)];
    let body = modern(MODERN_VERSION, "server/discover", json!({}));
    let (status, answered, body) = server.post(&headers("server/discover"), &body).await;
    assert_eq!(status, 200);
    assert!(!answered.contains_key(SESSION));
    assert_eq!(body["result"]["supportedVersions"][0], MODERN_VERSION);
    assert_eq!(body["result"]["capabilities"], json!({"tools": {}}));
    assert_eq!(
        body["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
        "git"
    );

    let body = modern(MODERN_VERSION, "tools/list", json!({}));
    let (_, _, body) = server.post(&headers("tools/list"), &body).await;
    assert_eq!(body["result"]["resultType"], "complete");
    assert_eq!(body["result"]["cacheScope"], "public");
    assert_eq!(body["result"]["tools"][0]["name"], "git_log");

    let body = modern(MODERN_VERSION, "tools/call", log());
    let (status, _, body) = server.post(&MODERN_CALL, &body).await;
    assert_eq!(
        (status, &body["result"]["resultType"]),
        (StatusCode::OK, &json!("complete"))
    );
    assert_eq!(server.calls.last_tools(), ["git_log"]);
}

#[tokio::test]
async fn modern_headers_must_equal_the_body() {
    let server = Server::new();
    let check = async |headers: &[(&str, &str)], body: Value, status: u16, code: i64| {
        let (got, _, answer) = server.post(headers, &body).await;
        assert_eq!(got, status, "{headers:?} {answer}");
        assert_eq!(answer["error"]["code"], code, "{headers:?} {answer}");
        assert_eq!(answer["id"], 1);
    };
    let call = || modern(MODERN_VERSION, "tools/call", log());
    let [version, method, name] = MODERN_CALL;
    for headers in [
        vec![],
        vec![method, name],
        vec![version, name],
        vec![version, method],
        vec![version, method, ("mcp-name", "git_show")],
        vec![version, method, ("mcp-name", "GIT_LOG")],
        vec![version, ("mcp-method", "tools/list"), name],
        vec![("mcp-protocol-version", "2025-11-25"), method, name],
        vec![version, version, method, name],
        vec![version, method, name, name],
    ] {
        check(&headers, call(), 400, HEADER_MISMATCH).await;
    }
    let mut bare = call();
    bare["params"]["_meta"]
        .as_object_mut()
        .unwrap()
        .remove("io.modelcontextprotocol/clientCapabilities");
    check(&MODERN_CALL, bare, 400, INVALID_PARAMS).await;
    // A modern header over a body that claims nothing.
    check(&MODERN_CALL, legacy("tools/call", log()), 400, INVALID_PARAMS).await;
    assert_eq!(server.calls.count(), 0);

    let ping = modern(MODERN_VERSION, "ping", json!({}));
    check(&[version, ("mcp-method", "ping")], ping, 404, METHOD_NOT_FOUND).await;
    let other = modern(MODERN_VERSION, "tools/call", json!({"name": "git_push"}));
    check(
        &[version, method, ("mcp-name", "git_push")],
        other,
        200,
        INVALID_PARAMS,
    )
    .await;
}

#[tokio::test]
async fn an_unsupported_revision_gets_the_supported_ones() {
    let server = Server::new();
    let supported = json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]);
    for (header, body) in [
        ("2027-01-01", modern("2027-01-01", "tools/call", log())),
        ("2027-01-01", legacy("tools/call", log())),
        ("2024-11-05", legacy("tools/call", log())),
    ] {
        let headers = [("mcp-protocol-version", header)];
        let (status, _, body) = server.post(&headers, &body).await;
        assert_eq!(status, 400);
        assert_eq!(body["error"]["code"], -32022);
        assert_eq!(
            body["error"]["data"],
            json!({"supported": supported, "requested": header})
        );
    }
    assert_eq!(server.calls.count(), 0);
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_refused() {
    let server = Server::new();
    let json = ("content-type", "application/json");
    let ping = legacy("ping", json!({})).to_string();
    let check = async |method: &str, headers: &[(&str, &str)], body: String, status: u16| {
        let (got, _, answer) = server.send(method, headers, body).await;
        assert_eq!(got, status, "{method} {headers:?} {answer}");
    };
    check("POST", &[json], ping.clone(), 200).await;
    check(
        "POST",
        &[json, ("origin", "http://localhost:1234")],
        ping.clone(),
        200,
    )
    .await;
    check(
        "POST",
        &[json, ("origin", "https://evil.example")],
        ping.clone(),
        403,
    )
    .await;
    check("POST", &[json, ("origin", "null")], ping.clone(), 403).await;
    check(
        "POST",
        &[json, ("origin", "http://localhost.evil.example")],
        ping.clone(),
        403,
    )
    .await;
    check(
        "DELETE",
        &[("origin", "https://evil.example")],
        String::new(),
        403,
    )
    .await;
    check("GET", &[("accept", "text/event-stream")], String::new(), 405).await;
    check("POST", &[("content-type", "text/plain")], ping.clone(), 415).await;
    check("POST", &[], ping.clone(), 415).await;
    check("POST", &[json], format!("[{ping}]"), 400).await;
    check("POST", &[json], "{".to_owned(), 400).await;
    check("POST", &[json], " ".repeat(MAX_BODY + 1), 413).await;
    check("POST", &[json, ("mcp-session-id", "none")], ping, 404).await;
    let (_, _, answer) = server.post(&[], &legacy("server/discover", json!({}))).await;
    assert_eq!(answer["error"]["code"], METHOD_NOT_FOUND);
}

#[tokio::test]
async fn it_serves_on_a_socket_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let config = Config::new(folder.path(), "git", &mut OsRng);
    let server = serve(listener, config, async {
        let _ = stopped.await;
    });
    let client = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.send(()).unwrap();
        answer
    };
    let (served, answer) = tokio::join!(server, client);
    served.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("allow: post,delete"),
        "{answer}"
    );
}
