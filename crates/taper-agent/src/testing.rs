//! A grant, and a server that answers what a test tells it and keeps what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use taper_capability::{Grant, Party, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey, PublicKey};
use taper_service::clock::ManualClock;
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::rng;
use taper_service::shutdown::Shutdown;

use crate::HolderKey;

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
    let grant = Grant {
        issuer: issuer.to_owned(),
        id: Grant::new_id(&mut rng::os()),
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
        issued_at: NOW,
        expires_at: NOW + 3_600,
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

/// A server on loopback with answers in a fixed order.
pub(crate) struct Server {
    pub(crate) url: String,
    answers: Arc<Mutex<VecDeque<Response>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let answers = Arc::new(Mutex::new(VecDeque::<Response>::new()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (to_give, to_keep) = (answers.clone(), seen.clone());
        let router = Router::new().fallback(move |request: HttpRequest| {
            let (answers, seen) = (to_give.clone(), to_keep.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
                seen.lock().unwrap().push(Seen {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    body,
                });
                let answer = answers.lock().unwrap().pop_front();
                answer.unwrap_or_else(|| http::StatusCode::IM_A_TEAPOT.into_response())
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
