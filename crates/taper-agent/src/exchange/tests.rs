use axum::Json;
use http::StatusCode;
use serde_json::{Value, json};
use taper_capability::RootKey;
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, TokenHash, base64url_encode};
use taper_oauth::{AuthorizationServerMetadata, Form, Secret};
use taper_service::rng;

use super::*;
use crate::testing::{NOW, Seen, Server, clock, grant};

const SUBJECT: &str = "header.payload.signature";

fn client() -> Client {
    Client {
        id: "dev".into(),
        secret: None,
    }
}

async fn issuer(server: &Server) -> Issuer {
    server.will_answer(Json(AuthorizationServerMetadata::for_issuer(&server.url)));
    Issuer::discover(&server.url).await.unwrap()
}

fn key() -> HolderKey {
    PrivateKey::generate(Algorithm::Es256, &mut rng::os()).into()
}

fn answer(token: &Token) -> Json<Value> {
    Json(json!({
        "access_token": token.as_str(),
        "issued_token_type": "urn:taper:params:oauth:token-type:capability",
        "token_type": "DPoP",
        "expires_in": 3600,
        "scope": "git:*",
    }))
}

async fn run(issuer: &Issuer, key: &HolderKey, subject: &str) -> Result<Exchanged, Error> {
    let mut request = ExchangeRequest::new(Secret::new(subject), TokenType::AccessToken);
    request.scope = vec!["git:*".parse().unwrap()];
    exchange(issuer, &client(), request, key, clock().as_ref()).await
}

/// The form that was sent, after its proof was checked as the issuer would.
fn check_request(server: &Server, seen: &Seen, key: &HolderKey, ath: Option<&str>) -> Form {
    let url = format!("{}/token", server.url);
    let expectation = Expectation {
        method: "POST",
        url: &url,
        token: ath.map(TokenHash::of),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let proof = Proof::parse(seen.headers["dpop"].to_str().unwrap()).unwrap();
    let proof = proof.check(&expectation).unwrap().verify().unwrap();
    assert_eq!(proof.key(), key.public());
    assert_eq!(proof.binds(&seen.body), Ok(true));
    Form::parse(&seen.body, 64 * 1024).unwrap()
}

#[tokio::test]
async fn a_capability_for_our_key_is_accepted() {
    let server = Server::start().await;
    let (issuer, key) = (issuer(&server).await, key());
    let root = RootKey::generate(1, &mut rng::os());
    let token = grant(&server.url, key.public(), &root);
    server.will_answer(answer(&token));
    let exchanged = run(&issuer, &key, SUBJECT).await.unwrap();
    assert_eq!(exchanged.token, token);
    let seen = server.seen();
    assert_eq!(seen[0].path, "/.well-known/oauth-authorization-server");
    let form = check_request(&server, &seen[1], &key, None);
    assert_eq!(form.get("subject_token"), Some(SUBJECT));
    assert_eq!(form.get("client_id"), Some("dev"));
    assert_eq!(form.get("scope"), Some("git:*"));
    assert_eq!(
        form.get("requested_token_type"),
        Some("urn:taper:params:oauth:token-type:capability")
    );
    assert!(!seen[1].headers.contains_key("authorization"));
}

#[tokio::test]
async fn answers_that_are_not_for_us_are_refused() {
    let server = Server::start().await;
    let (issuer, key) = (issuer(&server).await, key());
    let root = RootKey::generate(1, &mut rng::os());
    let own = grant(&server.url, key.public(), &root);
    let with = |name: &str, value: Value| {
        let Json(mut answer) = answer(&own);
        answer[name] = value;
        Json(answer)
    };
    for (answer, reason) in [
        (
            answer(&grant(&server.url, self::key().public(), &root)),
            "held by another key",
        ),
        (
            answer(&grant("https://issuer.example", key.public(), &root)),
            "another issuer",
        ),
        (with("token_type", json!("Bearer")), "token_type"),
        (
            with("issued_token_type", json!("urn:ietf:params:oauth:token-type:jwt")),
            "issued_token_type",
        ),
        (with("access_token", json!("!")), ""),
    ] {
        server.will_answer(answer);
        let error = run(&issuer, &key, SUBJECT).await.unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains(own.as_str()));
    }
}

#[tokio::test]
async fn a_nonce_is_answered_once_and_a_refusal_is_told() {
    let server = Server::start().await;
    let (issuer, key) = (issuer(&server).await, key());
    let root = RootKey::generate(1, &mut rng::os());
    let demand = || {
        (
            StatusCode::BAD_REQUEST,
            [("dpop-nonce", "n1")],
            Json(json!({"error": "use_dpop_nonce"})),
        )
    };
    server.will_answer(demand());
    server.will_answer(answer(&grant(&server.url, key.public(), &root)));
    run(&issuer, &key, SUBJECT).await.unwrap();
    server.will_answer(demand());
    server.will_answer(demand());
    let error = run(&issuer, &key, SUBJECT).await.unwrap_err();
    assert!(matches!(error, Error::Issuer { status: 400, .. }), "{error}");
    assert_eq!(server.seen().len(), 5);
    server.will_answer((
        StatusCode::BAD_REQUEST,
        Json(json!({"error": "invalid_scope", "error_description": "nothing was granted"})),
    ));
    let error = run(&issuer, &key, SUBJECT).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the issuer refused: invalid_scope (nothing was granted)"
    );
}

#[tokio::test]
async fn a_bound_subject_token_is_named_by_the_proof() {
    let server = Server::start().await;
    let (issuer, key) = (issuer(&server).await, key());
    let payload = base64url_encode(br#"{"cnf":{"jkt":"x"}}"#);
    let subject = format!("h.{payload}.s");
    server.will_answer(StatusCode::BAD_REQUEST);
    run(&issuer, &key, &subject).await.unwrap_err();
    check_request(&server, &server.seen()[1], &key, Some(&subject));
    assert!(!is_bound(SUBJECT));
    assert!(!is_bound(&format!("h.{}.s", base64url_encode(b"{\"cnf\":{}}"))));
}

#[tokio::test]
async fn a_client_secret_goes_into_the_header_only() {
    let server = Server::start().await;
    let (issuer, key) = (issuer(&server).await, key());
    server.will_answer(StatusCode::BAD_REQUEST);
    let client = Client {
        id: "dev".into(),
        secret: Some(Secret::new("hunter2")),
    };
    let request = ExchangeRequest::new(Secret::new(SUBJECT), TokenType::AccessToken);
    exchange(&issuer, &client, request, &key, clock().as_ref())
        .await
        .unwrap_err();
    let seen = &server.seen()[1];
    assert_eq!(seen.headers["authorization"], "Basic ZGV2Omh1bnRlcjI=");
    let form = check_request(&server, seen, &key, None);
    assert_eq!(form.get("client_secret"), None);
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let server = Server::start().await;
    server.will_answer(Json(AuthorizationServerMetadata::for_issuer(
        "https://issuer.example",
    )));
    assert!(matches!(
        Issuer::discover(&server.url).await,
        Err(Error::Answer { .. })
    ));
    let mut metadata = AuthorizationServerMetadata::for_issuer(&server.url);
    metadata.token_endpoint = Some("http://192.0.2.1/token".into());
    server.will_answer(Json(metadata));
    let issuer = Issuer::discover(&server.url).await.unwrap();
    let error = run(&issuer, &key(), SUBJECT).await.unwrap_err();
    assert!(error.to_string().contains("token_endpoint"), "{error}");
    for bad in [
        "",
        "issuer.example",
        "http://issuer.example",
        "https://issuer.example/?x=1",
    ] {
        assert!(
            matches!(Issuer::discover(bad).await, Err(Error::Url { .. })),
            "{bad}"
        );
    }
}
