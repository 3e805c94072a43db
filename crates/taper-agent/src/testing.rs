// A grant, and a server that answers what a test tells it and keeps what it was sent.
// The examples of the documentation include this file, so its head is no inner comment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::extract::Request as HttpRequest;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use taper_capability::{Grant, Party, Right, RootKey, Token, UnverifiedToken, issue};
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, PublicKey, TokenHash};
use taper_oauth::AuthorizationServerMetadata;
use taper_service::clock::{Clock as _, ManualClock};
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::rng;
use taper_service::shutdown::Shutdown;

use super::HolderKey;

/// The time in tests: 2026-01-31T09:30:00Z.
pub(crate) const NOW: i64 = 1_769_851_800;

/// A capability without hand-over, and everybody's keys.
pub(crate) struct Chain {
    pub(crate) issuer: String,
    pub(crate) root: RootKey,
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) token: Token,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        Self::of("https://issuer.example", key)
    }

    pub(crate) fn of(issuer: &str, key: PrivateKey) -> Self {
        let root = RootKey::generate(1, &mut rng::os());
        let token = grant(issuer, &key.public(), &root);
        let issuer = issuer.to_owned();
        Self {
            issuer,
            root,
            key: Arc::new(key),
            token,
        }
    }
}

impl Chain {
    /// The holder's key, as an agent has it.
    pub(crate) fn holder(&self) -> HolderKey {
        self.key.clone().into()
    }
}

pub(crate) fn grant(issuer: &str, holder: &PublicKey, root: &RootKey) -> Token {
    grant_at(NOW, issuer, holder, root, Grant::new_id(&mut rng::os()))
}

fn grant_at(now: i64, issuer: &str, holder: &PublicKey, root: &RootKey, id: String) -> Token {
    let grant = Grant {
        issuer: issuer.to_owned(),
        id,
        subject: Party {
            iss: "https://idp.example".into(),
            sub: "alice".into(),
        },
        client: "dev".into(),
        actor: None,
        holder: holder.clone(),
        audiences: vec!["https://proxy.example/git/mcp".into()],
        rights: vec![Right::AnyTool { server: "git".into() }],
        claims: Vec::new(),
        issued_at: now,
        expires_at: now + 3_600,
        max_depth: 3,
        caveats: Vec::new(),
    };
    issue(&grant, root, &mut rng::os()).unwrap()
}

pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::shared(NOW)
}

/// What the server was sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Checks capability and proof of a request as the proxy would; the capability.
pub(crate) fn proven_token(server: &Server, seen: &Seen) -> String {
    let text = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    let token = text("authorization").strip_prefix("DPoP ").unwrap().to_owned();
    let (proof, url) = (text("dpop"), format!("{}{}", server.url, seen.path));
    let expectation = Expectation {
        method: &seen.method,
        url: &url,
        token: Some(TokenHash::of(&token)),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let proof = Proof::parse(&proof).unwrap().check(&expectation).unwrap();
    let proof = proof.verify().unwrap();
    let holder = UnverifiedToken::decode(&token)
        .unwrap()
        .last_holder()
        .thumbprint();
    assert_eq!(proof.thumbprint(), holder);
    if seen.method == "POST" {
        assert_eq!(proof.binds(&seen.body), Ok(true));
    }
    token
}

/// The nonce that a request's proof has.
pub(crate) fn nonce_of(seen: &Seen) -> Option<String> {
    let proof = seen.headers["dpop"].to_str().unwrap();
    let claims = taper_dpop::base64url_decode(proof.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["nonce"].as_str().map(str::to_owned)
}

/// What a resource server answers that wants a nonce.
pub(crate) fn challenge_for_nonce(nonce: &'static str) -> impl IntoResponse {
    let challenge = r#"DPoP error="use_dpop_nonce", algs="EdDSA ES256""#;
    (
        http::StatusCode::UNAUTHORIZED,
        [("www-authenticate", challenge), ("dpop-nonce", nonce)],
    )
}

/// A server on loopback, with answers in a fixed order or made of the request.
pub(crate) struct Server {
    pub(crate) url: String,
    answers: Arc<Mutex<VecDeque<Response>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::answering(|_| http::StatusCode::IM_A_TEAPOT.into_response()).await
    }

    /// An issuer that exchanges anything for a capability of the key that proves, and a capability for one of
    /// the same grant; [`Self::exchanges`] counts.
    pub(crate) async fn issuer(clock: Arc<ManualClock>) -> Self {
        let root = RootKey::generate(1, &mut rng::os());
        Self::answering(move |seen: &Seen| {
            let host = seen.headers["host"].to_str().unwrap();
            let issuer = format!("http://{host}");
            if seen.path != "/token" {
                return Json(AuthorizationServerMetadata::for_issuer(&issuer)).into_response();
            }
            let form: std::collections::HashMap<String, String> =
                url::form_urlencoded::parse(&seen.body).into_owned().collect();
            let renewed = form["subject_token_type"]
                .ends_with(":capability")
                .then(|| &form["subject_token"]);
            let grant = match renewed {
                Some(token) => UnverifiedToken::decode(token).unwrap().grant_id().to_owned(),
                None => Grant::new_id(&mut rng::os()),
            };
            let proof = Proof::parse(seen.headers["dpop"].to_str().unwrap()).unwrap();
            let expected = Expectation {
                method: "POST",
                url: &format!("{issuer}/token"),
                token: renewed.map(|token| TokenHash::of(token)),
                nonce: NonceRule::Unused,
                now: clock.unix(),
            };
            let key = proof.check(&expected).unwrap().verify().unwrap().key().clone();
            Json(json!({
                "access_token": grant_at(clock.unix(), &issuer, &key, &root, grant).as_str(),
                "issued_token_type": "urn:taper:params:oauth:token-type:capability",
                "token_type": "DPoP",
                "expires_in": 3600,
                "scope": "git:*",
            }))
            .into_response()
        })
        .await
    }

    /// How often the token endpoint was asked.
    pub(crate) fn exchanges(&self) -> usize {
        self.seen().iter().filter(|seen| seen.path == "/token").count()
    }

    /// A server that makes its answers, but for those that [`Self::will_answer`] has in store.
    pub(crate) async fn answering(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let answers = Arc::new(Mutex::new(VecDeque::<Response>::new()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (to_give, to_keep) = (answers.clone(), seen.clone());
        let make = Arc::new(answer);
        let router = Router::new().fallback(move |request: HttpRequest| {
            let (answers, seen, make) = (to_give.clone(), to_keep.clone(), make.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
                let now = Seen {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    body,
                };
                seen.lock().unwrap().push(now.clone());
                let answer = answers.lock().unwrap().pop_front();
                answer.unwrap_or_else(|| make(&now))
            }
        });
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let url = format!("http://{}", bound.local_addr());
        let shutdown = Shutdown::new();
        shutdown.spawn("server", bound.serve(router, shutdown.clone()));
        Self {
            url,
            answers,
            seen,
            shutdown,
        }
    }

    pub(crate) fn will_answer(&self, answer: impl IntoResponse) {
        self.answers.lock().unwrap().push_back(answer.into_response());
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
