use axum::Json;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::*;
use crate::testing::{Chain, Server, challenge_for_nonce, clock, nonce_of, proven_token};

fn client(server: &Server, era: Era) -> McpClient {
    let chain = Chain::new();
    let credential = Credential::new(&chain.token, chain.key).unwrap();
    McpClient::new(&format!("{}/git/mcp", server.url), credential, era, clock()).unwrap()
}

fn result(id: u64, result: Value) -> Json<Value> {
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

#[tokio::test]
async fn a_modern_call_is_stateless_and_proven() {
    let server = Server::start().await;
    server.will_answer(result(1, json!({"isError": false})));
    let mut client = client(&server, Era::Modern);
    let arguments = Map::from_iter([("repo_path".to_owned(), json!("acme/web"))]);
    let answer = client.call("git_log", arguments).await.unwrap();
    assert_eq!(answer, json!({"isError": false}));
    let [seen] = server.seen().try_into().unwrap();
    proven_token(&server, &seen);
    assert_eq!(seen.headers["mcp-protocol-version"], MODERN_VERSION);
    assert_eq!(seen.headers["mcp-method"], "tools/call");
    assert_eq!(seen.headers["mcp-name"], "git_log");
    assert_eq!(seen.headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["params"]["name"], "git_log");
    assert_eq!(body["params"]["arguments"]["repo_path"], "acme/web");
    assert_eq!(
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"],
        MODERN_VERSION
    );
}

#[tokio::test]
async fn what_is_presented_is_sealed() {
    let server = Server::start().await;
    server.will_answer(result(1, json!({})));
    let chain = Chain::new();
    let own = chain.token.as_str().to_owned();
    let credential = Credential::new(&chain.token, chain.key).unwrap();
    assert!(!format!("{credential:?}").contains(&own));
    let mut client = McpClient::new(&server.url, credential, Era::Modern, clock()).unwrap();
    client.request("ping", Map::new()).await.unwrap();
    let presented = proven_token(&server, &server.seen()[0]);
    assert_ne!(presented, own);
}

#[tokio::test]
async fn a_key_that_is_not_the_holder_is_refused_before_anything_is_sent() {
    let (chain, other) = (Chain::new(), Chain::new());
    assert!(matches!(
        Credential::new(&chain.token, other.key),
        Err(Error::Request(_))
    ));
}

#[tokio::test]
async fn a_nonce_is_answered_once_and_kept() {
    let server = Server::start().await;
    server.will_answer(challenge_for_nonce("n1"));
    server.will_answer(([("dpop-nonce", "n2")], result(1, json!({}))));
    server.will_answer(result(2, json!({})));
    let mut client = client(&server, Era::Modern);
    client.request("ping", Map::new()).await.unwrap();
    client.request("ping", Map::new()).await.unwrap();
    let nonces: Vec<_> = server.seen().iter().map(nonce_of).collect();
    assert_eq!(nonces, [None, Some("n1".to_owned()), Some("n2".to_owned())]);
    server.will_answer(challenge_for_nonce("n1"));
    server.will_answer(challenge_for_nonce("n1"));
    let error = client.request("ping", Map::new()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(refusal) if refusal.status == 401));
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_refusal_keeps_everything_that_was_said() {
    let server = Server::start().await;
    let mut client = client(&server, Era::Modern);
    let caveat = json!({"resource": {"kind": "repo", "matches": {"one_of": ["acme/web"]}}});
    server.will_answer((
        StatusCode::FORBIDDEN,
        Json(
            json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 4403, "message": "a caveat refused",
            "data": {"decision_id": "d1", "rule": "R-22", "link": 1, "caveat": caveat, "obtainable": []}}}),
        ),
    ));
    let error = client.call("git_log", Map::new()).await.unwrap_err();
    let Error::Refused(refusal) = error else {
        panic!("{error}")
    };
    assert_eq!((refusal.status, refusal.code), (403, Some(4403)));
    assert!(refusal.is_denial());
    let data = refusal.data.clone().unwrap();
    assert_eq!((data.rule.as_deref(), data.link), (Some("R-22"), Some(1)));
    assert_eq!(data.caveat, Some(caveat));
    assert_eq!(
        refusal.to_string(),
        "refused with status 403, code 4403: a caveat refused [rule R-22]"
    );

    server.will_answer((
        StatusCode::FORBIDDEN,
        [(
            "www-authenticate",
            r#"DPoP error="insufficient_scope", scope="git:git_show""#,
        )],
    ));
    let error = client.call("git_show", Map::new()).await.unwrap_err();
    let Error::Refused(refusal) = error else {
        panic!("{error}")
    };
    assert_eq!(refusal.challenge.unwrap().param("scope"), Some("git:git_show"));

    server.will_answer((StatusCode::SERVICE_UNAVAILABLE, "\u{1b}[31m"));
    let error = client.call("git_show", Map::new()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(refusal) if !refusal.is_denial()),
        "{error}"
    );

    server.will_answer(Json(
        json!({"jsonrpc": "2.0", "id": 4, "error": {"code": -32602, "message": "a\nb"}}),
    ));
    let error = client.call("git_show", Map::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "refused with status 200, code -32602: a\\u{a}b"
    );
}

#[tokio::test]
async fn an_answer_to_another_request_is_none() {
    let server = Server::start().await;
    let mut client = client(&server, Era::Modern);
    for (answer, accepted) in [
        (result(9, json!({})).into_response_with("application/json"), false),
        (result(2, json!({})).into_response_with("text/plain"), false),
        (result(3, json!({})).into_response_with("application/json"), true),
    ] {
        server.will_answer(answer);
        let got = client.request("ping", Map::new()).await;
        assert_eq!(got.is_ok(), accepted, "{got:?}");
    }
}

trait IntoResponseWith {
    fn into_response_with(self, kind: &'static str) -> axum::response::Response;
}

impl IntoResponseWith for Json<Value> {
    fn into_response_with(self, kind: &'static str) -> axum::response::Response {
        use axum::response::IntoResponse as _;
        let mut response = self.into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

#[tokio::test]
async fn lists_are_read_to_their_end_and_no_further() {
    let server = Server::start().await;
    let mut client = client(&server, Era::Modern);
    server.will_answer(result(1, json!({"tools": [{"name": "a"}], "nextCursor": "x"})));
    server.will_answer(result(2, json!({"tools": [{"name": "b"}]})));
    let tools = client.list_tools().await.unwrap();
    assert_eq!(tools, [json!({"name": "a"}), json!({"name": "b"})]);
    let second: Value = serde_json::from_slice(&server.seen()[1].body).unwrap();
    assert_eq!(second["params"]["cursor"], "x");
    for id in 0..MAX_PAGES as u64 {
        server.will_answer(result(3 + id, json!({"tools": [], "nextCursor": "x"})));
    }
    let error = client.list_tools().await.unwrap_err();
    assert!(error.to_string().contains("has no end"), "{error}");
    server.will_answer(result(3 + MAX_PAGES as u64, json!({})));
    assert!(client.list_tools().await.is_err());
}

#[tokio::test]
async fn a_legacy_session_is_opened_kept_and_closed() {
    let server = Server::start().await;
    let mut client = client(&server, Era::Legacy);
    let opened = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
    server.will_answer(([("mcp-session-id", "s1")], result(1, opened)));
    server.will_answer(StatusCode::ACCEPTED);
    let stream = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"isError\":false}}\n\n";
    server.will_answer(([("content-type", "text/event-stream")], stream));
    server.will_answer(StatusCode::NO_CONTENT);
    client.call("git_log", Map::new()).await.unwrap();
    client.close().await.unwrap();
    client.close().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert!(!seen[0].headers.contains_key("mcp-session-id"));
    assert!(!seen[0].headers.contains_key("mcp-method"));
    for seen in &seen[1..] {
        assert_eq!(seen.headers["mcp-session-id"], "s1");
        assert_eq!(seen.headers["mcp-protocol-version"], "2025-06-18");
    }
    assert_eq!(seen[3].method, "DELETE");
    for seen in &seen {
        proven_token(&server, seen);
    }
    let body: Value = serde_json::from_slice(&seen[2].body).unwrap();
    assert!(body["params"].get("_meta").is_none());
}

#[tokio::test]
async fn a_refusal_in_the_form_of_a_result_is_a_refusal() {
    let server = Server::start().await;
    let mut client = client(&server, Era::Modern);
    let refused = json!({
        "content": [{"type": "text", "text": "no"}],
        "isError": true,
        "_meta": {"taper/denial": {"decision_id": "d1", "rule": "R-22", "link": 0}},
    });
    let failed = json!({"content": [{"type": "text", "text": "no such repository"}], "isError": true});
    server.will_answer(result(1, refused));
    server.will_answer(result(2, failed.clone()));
    let error = client.call("git_log", Map::new()).await.unwrap_err();
    let Error::Refused(refusal) = error else {
        panic!("{error}")
    };
    assert!(refusal.is_denial());
    assert_eq!(refusal.data.unwrap().rule.as_deref(), Some("R-22"));
    assert_eq!(client.call("git_log", Map::new()).await.unwrap(), failed);
}
