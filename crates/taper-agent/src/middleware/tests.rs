use axum::Json;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::Full;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::json;

use super::*;
use crate::testing::{Chain, NOW, Server, challenge_for_nonce, clock, nonce_of, proven_token};
use crate::{Credential, Error};

fn signer(server: &Server) -> Arc<Signer> {
    let chain = Chain::new();
    let credential = Credential::new(&chain.token, chain.key).unwrap();
    Signer::new(&format!("{}/git/mcp", server.url), credential, clock()).unwrap()
}

fn client(signer: &Arc<Signer>) -> ClientWithMiddleware {
    ClientBuilder::new(signer.http_client().unwrap())
        .with(Signing::new(Arc::clone(signer)))
        .build()
}

#[tokio::test]
async fn each_request_to_the_url_is_signed_over_its_bytes() {
    let server = Server::start().await;
    let signer = signer(&server);
    let client = client(&signer);
    let url = signer.url().as_str();
    for answer in ["1", "2", "3"] {
        server.will_answer(answer);
    }
    let posted = client
        .post(url)
        .header(AUTHORIZATION, "Bearer of-somebody")
        .header(CONTENT_TYPE, "application/json")
        .body("{\"a\": 1}")
        .send()
        .await
        .unwrap();
    assert_eq!(posted.text().await.unwrap(), "1");
    client.get(format!("{url}?page=2")).send().await.unwrap();
    client.delete(url).send().await.unwrap();

    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    let tokens: Vec<_> = seen.iter().map(|seen| proven_token(&server, seen)).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert_eq!(seen[0].body, "{\"a\": 1}");
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(seen[0].headers.get_all(AUTHORIZATION).iter().count(), 1);
}

#[tokio::test]
async fn other_urls_get_neither_capability_nor_proof() {
    let server = Server::start().await;
    let signer = signer(&server);
    let client = client(&signer);
    for path in ["/git/mcp/", "/git", "/other/mcp", "/git/MCP"] {
        client
            .post(format!("{}{path}", server.url))
            .body("{}")
            .send()
            .await
            .unwrap();
    }
    // Another name of the same machine is another origin.
    let named = server.url.replace("127.0.0.1", "localhost") + "/git/mcp";
    client.post(named).body("{}").send().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 5);
    for seen in seen {
        assert!(seen.headers.get("authorization").is_none(), "{}", seen.path);
        assert!(seen.headers.get("dpop").is_none(), "{}", seen.path);
    }
}

#[tokio::test]
async fn a_stream_is_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let signer = signer(&server);
    let body = reqwest::Body::wrap(Full::new(bytes::Bytes::from_static(b"{}")));
    let sent = client(&signer)
        .post(signer.url().as_str())
        .body(body)
        .send()
        .await;
    let error = sent.unwrap_err().to_string();
    assert!(
        error.contains("a body that is a stream cannot be signed"),
        "{error}"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_nonce_is_answered_once_and_kept() {
    let server = Server::start().await;
    let signer = signer(&server);
    let client = client(&signer);
    let post = || client.post(signer.url().as_str()).body("{\"a\": 1}").send();
    server.will_answer(challenge_for_nonce("n1"));
    server.will_answer(([("dpop-nonce", "n2")], Json(json!({}))));
    server.will_answer(Json(json!({})));
    assert_eq!(post().await.unwrap().status(), 200);
    assert_eq!(post().await.unwrap().status(), 200);
    let seen = server.seen();
    let nonces: Vec<_> = seen.iter().map(nonce_of).collect();
    assert_eq!(nonces, [None, Some("n1".to_owned()), Some("n2".to_owned())]);
    assert!(seen.iter().all(|seen| seen.body == "{\"a\": 1}"));
    assert_ne!(seen[0].headers["dpop"], seen[1].headers["dpop"]);

    server.will_answer(challenge_for_nonce("n3"));
    server.will_answer(challenge_for_nonce("n4"));
    assert_eq!(post().await.unwrap().status(), 401);
    assert_eq!(server.seen().len(), 5);
    post().await.unwrap();
    assert_eq!(nonce_of(&server.seen()[5]).as_deref(), Some("n4"));
}

#[tokio::test]
async fn a_renewed_capability_takes_over() {
    let server = Server::start().await;
    let signer = signer(&server);
    let client = client(&signer);
    let before = signer.credential().thumbprint();
    let chain = Chain::new();
    signer.replace(Credential::new(&chain.token, chain.key).unwrap());
    client
        .post(signer.url().as_str())
        .body("{}")
        .send()
        .await
        .unwrap();
    let token = proven_token(&server, &server.seen()[0]);
    assert_eq!(token, chain.token.sealed().unwrap().as_str());
    assert_ne!(signer.credential().thumbprint(), before);
    assert_eq!(signer.credential().expires_at(), NOW + 3_600);
}

#[tokio::test]
async fn a_signer_is_for_tls_or_loopback() {
    let check = |url: &str, expected: bool| {
        let chain = Chain::new();
        let credential = Credential::new(&chain.token, chain.key).unwrap();
        let made = Signer::new(url, credential, clock());
        assert_eq!(made.is_ok(), expected, "{url}");
        if let Err(error) = made {
            assert!(matches!(error, Error::Url { .. }), "{error}");
        }
    };
    check("https://mcp.example/git/mcp", true);
    check("http://127.0.0.1:1/git/mcp", true);
    check("http://[::1]:1/git/mcp", true);
    check("http://mcp.example/git/mcp", false);
    check("ftp://127.0.0.1/git/mcp", false);
    check("/git/mcp", false);
}
