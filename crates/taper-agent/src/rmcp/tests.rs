use ::rmcp::model::{CallToolRequestParams, ProtocolVersion};
use ::rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, ServiceError};
use axum::Json;
use axum::response::{IntoResponse, Response as Answer};
use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::Credential;
use crate::testing::{Chain, Seen, Server, challenge_for_nonce, clock, nonce_of, proven_token};

fn client(server: &Server) -> SigningClient {
    let chain = Chain::new();
    let credential = Credential::new(&chain.token, chain.key).unwrap();
    let signer = Signer::new(&format!("{}/git/mcp", server.url), credential, clock()).unwrap();
    SigningClient::new(signer).unwrap()
}

fn denial(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": 4403, "message": "the capability does not allow this",
        "data": {"decision_id": "d1", "rule": "R-22", "link": 1}}})
}

/// An MCP server behind a proxy, of both eras: `git_log` is allowed, every other tool is not.
fn proxied(seen: &Seen) -> Answer {
    let message: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let id = message["id"].as_u64();
    let result = |result: Value| Json(json!({"jsonrpc": "2.0", "id": id, "result": result}));
    let server = json!({"name": "git", "version": "1"});
    match message["method"].as_str() {
        Some("initialize") => {
            let answer = result(
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}),
            );
            ([("mcp-session-id", "s1")], answer).into_response()
        }
        Some("server/discover") => result(
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        )
        .into_response(),
        Some("tools/call") if message["params"]["name"] == "git_log" => {
            let content = json!([{"type": "text", "text": "commit"}]);
            result(json!({"resultType": "complete", "content": content})).into_response()
        }
        Some("tools/call") => (StatusCode::FORBIDDEN, Json(denial(id.unwrap()))).into_response(),
        Some(_) if id.is_none() => StatusCode::ACCEPTED.into_response(),
        _ if seen.method == "DELETE" => StatusCode::NO_CONTENT.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

#[tokio::test]
async fn rmcps_client_calls_in_both_eras_and_hears_denials() {
    for (mode, version) in [
        (ClientLifecycleMode::Initialize, "2025-11-25"),
        (
            ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
            "2026-07-28",
        ),
    ] {
        let server = Server::answering(proxied).await;
        let client = ().serve_with_lifecycle(client(&server).transport(), mode).await.unwrap();
        let result = client
            .call_tool(CallToolRequestParams::new("git_log"))
            .await
            .unwrap();
        let result = serde_json::to_value(&result).unwrap();
        assert_eq!(result["content"][0]["text"], "commit", "{version}");
        let error = client
            .call_tool(CallToolRequestParams::new("git_push"))
            .await
            .unwrap_err();
        let ServiceError::McpError(error) = error else {
            panic!("{version}: {error}")
        };
        assert_eq!(error.code.0, 4403, "{version}");
        assert_eq!(error.data.unwrap()["rule"], "R-22", "{version}");
        client.cancel().await.unwrap();

        let seen = server.seen();
        let called = |seen: &&Seen| String::from_utf8_lossy(&seen.body).contains("tools/call");
        assert_eq!(seen.iter().filter(called).count(), 2, "{version}");
        for seen in &seen {
            proven_token(&server, seen);
            assert!(seen.method != "POST" || seen.headers["content-type"] == "application/json");
        }
        for call in seen.iter().filter(called) {
            assert_eq!(call.headers["mcp-protocol-version"], version);
            assert_eq!(
                call.headers.contains_key("mcp-session-id"),
                version == "2025-11-25"
            );
        }
    }
}

async fn post(
    client: &SigningClient,
    message: Value,
    session: Option<&str>,
) -> Result<StreamableHttpPostResponse, Failure> {
    let message = serde_json::from_value(message).unwrap();
    let uri = client.signer.url().as_str().into();
    client
        .post_message(uri, message, session.map(Arc::from), None, HashMap::new())
        .await
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "ping"})
}

#[tokio::test]
async fn a_nonce_is_answered_once_and_kept() {
    let server = Server::start().await;
    let client = client(&server);
    let pong = || Json(json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    server.will_answer(challenge_for_nonce("n1"));
    server.will_answer(([("dpop-nonce", "n2")], pong()));
    server.will_answer(pong());
    for _ in 0..2 {
        assert!(matches!(
            post(&client, ping(), None).await,
            Ok(StreamableHttpPostResponse::Json(..))
        ));
    }
    let nonces: Vec<_> = server.seen().iter().map(nonce_of).collect();
    assert_eq!(nonces, [None, Some("n1".to_owned()), Some("n2".to_owned())]);
    for _ in 0..2 {
        server.will_answer(challenge_for_nonce("n1"));
    }
    assert!(matches!(
        post(&client, ping(), None).await,
        Err(Failure::AuthRequired(_))
    ));
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn what_an_answer_to_a_post_means() {
    let server = Server::start().await;
    let client = client(&server);
    let said = |outcome: Result<StreamableHttpPostResponse, Failure>| match outcome {
        Ok(StreamableHttpPostResponse::Accepted) => "accepted".to_owned(),
        Ok(StreamableHttpPostResponse::Json(message, session)) => {
            let message = serde_json::to_value(message).unwrap();
            let session = session.unwrap_or_default();
            format!("{}{} {session}", message["id"], message["error"]["code"])
                .trim()
                .to_owned()
        }
        Ok(_) => "stream".to_owned(),
        Err(Failure::AuthRequired(error)) => format!("401 {}", error.www_authenticate_header),
        Err(Failure::InsufficientScope(error)) => format!("403 {:?}", error.get_required_scope()),
        Err(Failure::HttpStatus(error)) => format!("{} {:?}", error.status, error.retry_after),
        Err(other) => other.to_string(),
    };
    let challenge = |value: &'static str| [("www-authenticate", value)];
    let note = || json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let discover = || json!({"jsonrpc": "2.0", "id": 7, "method": "server/discover", "params": {}});
    let json = |body: Value| Json(body).into_response();
    let big = "x".repeat(64 * 1024 + 1);
    let cases: Vec<(Answer, Value, Option<&str>, &str)> = vec![
        (StatusCode::ACCEPTED.into_response(), note(), None, "accepted"),
        (
            ([("content-length", "0")], "").into_response(),
            note(),
            None,
            "accepted",
        ),
        (json(json!("thanks")), note(), None, "accepted"),
        (
            (
                [("mcp-session-id", "s1")],
                Json(json!({"jsonrpc": "2.0", "id": 7, "result": {}})),
            )
                .into_response(),
            ping(),
            None,
            "7null s1",
        ),
        (
            ([("content-type", "Text/Event-Stream; charset=utf-8")], "").into_response(),
            ping(),
            None,
            "stream",
        ),
        (
            (StatusCode::FORBIDDEN, Json(denial(7))).into_response(),
            ping(),
            None,
            "74403",
        ),
        (
            (StatusCode::SERVICE_UNAVAILABLE, Json(denial(7))).into_response(),
            ping(),
            None,
            "74403",
        ),
        // An answer to another request is none to this one.
        (
            (StatusCode::SERVICE_UNAVAILABLE, Json(denial(8))).into_response(),
            ping(),
            None,
            "503 None",
        ),
        (
            (
                StatusCode::UNAUTHORIZED,
                challenge("DPoP error=\"invalid_token\""),
                Json(denial(7)),
            )
                .into_response(),
            ping(),
            None,
            "401 DPoP error=\"invalid_token\"",
        ),
        (
            (
                StatusCode::FORBIDDEN,
                challenge("DPoP error=\"insufficient_scope\", scope=\"git:git_show\""),
            )
                .into_response(),
            ping(),
            None,
            "403 Some(\"git:git_show\")",
        ),
        (
            StatusCode::NOT_FOUND.into_response(),
            ping(),
            Some("s1"),
            "Session expired (HTTP 404)",
        ),
        (
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3")]).into_response(),
            ping(),
            None,
            "429 Some(\"3\")",
        ),
        (StatusCode::BAD_GATEWAY.into_response(), ping(), None, "502 None"),
        (
            (StatusCode::BAD_REQUEST, "no\n").into_response(),
            ping(),
            None,
            "unexpected server response: HTTP 400 Bad Request: no\\u{a}",
        ),
        (
            (StatusCode::BAD_REQUEST, "no").into_response(),
            discover(),
            None,
            "7-32600",
        ),
        (
            (StatusCode::MOVED_PERMANENTLY, [("location", "/other")]).into_response(),
            ping(),
            None,
            "unexpected server response: HTTP 301 Moved Permanently: ",
        ),
        (
            (StatusCode::BAD_REQUEST, big).into_response(),
            ping(),
            None,
            "HTTP response body exceeded the maximum size of 65536 bytes",
        ),
        (
            "{}".into_response(),
            ping(),
            None,
            "Unexpected content type: Some(\"text/plain; charset=utf-8\")",
        ),
    ];
    for (answer, message, session, expected) in cases {
        server.will_answer(answer);
        assert_eq!(said(post(&client, message, session).await), expected);
    }
    server.will_answer(json(json!({"hello": 1})));
    let said = said(post(&client, ping(), None).await);
    assert!(
        said.contains("it is no JSON-RPC message") && said.contains("hello"),
        "{said}"
    );
}

#[tokio::test]
async fn nothing_is_sent_elsewhere_or_with_other_credentials() {
    let server = Server::start().await;
    let client = client(&server);
    let message = || serde_json::from_value(ping()).unwrap();
    let own: Arc<str> = client.signer.url().as_str().into();
    let other: Arc<str> = format!("{}/other/mcp", server.url).into();
    let post = |uri: &Arc<str>, token: Option<&str>, custom| {
        client.post_message(Arc::clone(uri), message(), None, token.map(str::to_owned), custom)
    };
    let elsewhere = post(&other, None, HashMap::new()).await.unwrap_err();
    assert!(
        elsewhere.to_string().contains("the signer signs for"),
        "{elsewhere}"
    );
    let token = post(&own, Some("t"), HashMap::new()).await.unwrap_err();
    assert!(matches!(token, Failure::ReservedHeaderConflict(name) if name == "authorization"));
    for name in [
        "dpop",
        "authorization",
        "accept",
        "content-type",
        "mcp-session-id",
        "last-event-id",
    ] {
        let custom = HashMap::from([(HeaderName::from_static(name), HeaderValue::from_static("x"))]);
        let error = post(&own, None, custom).await.unwrap_err();
        assert!(matches!(error, Failure::ReservedHeaderConflict(found) if found == name));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_stream_is_signed_for_and_bounded() {
    let server = Server::start().await;
    let client = client(&server);
    let own: Arc<str> = client.signer.url().as_str().into();
    let open = |max: usize| {
        let (session, last) = (Some(Arc::from("s1")), Some("e1".to_owned()));
        client.get_stream_with_max_sse_event_size(Arc::clone(&own), session, last, None, HashMap::new(), max)
    };
    let events = (
        [("content-type", "text/event-stream")],
        "id: e2\ndata: 1\n\ndata: 12345678\n\n",
    );
    server.will_answer(events);
    let got: Vec<_> = open(100)
        .await
        .unwrap()
        .map(|event| event.unwrap().data.unwrap())
        .collect()
        .await;
    assert_eq!(got, ["1", "12345678"]);
    server.will_answer(events);
    let got: Vec<_> = open(13).await.unwrap().collect().await;
    assert!(got.last().unwrap().is_err(), "{got:?}");
    server.will_answer(StatusCode::METHOD_NOT_ALLOWED);
    assert!(matches!(open(100).await, Err(Failure::ServerDoesNotSupportSse)));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        proven_token(&server, &seen);
        assert_eq!(seen.headers["mcp-session-id"], "s1");
        assert_eq!(seen.headers["last-event-id"], "e1");
    }
}
