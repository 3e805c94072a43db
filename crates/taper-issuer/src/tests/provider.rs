//! An identity provider on loopback: a discovery document, a key set, and tokens signed as asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::{Value, json};
use taper_dpop::{Algorithm, PrivateKey, base64url_encode};
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::rng;
use taper_service::shutdown::Shutdown;

pub(super) struct Provider {
    pub(super) issuer: String,
    pub(super) key: PrivateKey,
    /// How often the key set was asked for.
    pub(super) fetches: Arc<AtomicUsize>,
    /// Whether the key set is answered with 500.
    pub(super) broken: Arc<AtomicBool>,
    shutdown: Shutdown,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let issuer = format!("http://{}", bound.local_addr());
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let public = key.public().to_jwk();
        let set = json!({"keys": [{"kty": public.kty, "crv": public.crv, "x": public.x, "kid": "k1"}]});
        let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks")});
        let (fetches, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, fails) = (Arc::clone(&fetches), Arc::clone(&broken));
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || discovery.to_string()),
            )
            .route(
                "/jwks",
                get(async move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    if fails.load(Ordering::SeqCst) {
                        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                    }
                    set.to_string().into_response()
                }),
            );
        let shutdown = Shutdown::new();
        shutdown.spawn("provider", bound.serve(router, shutdown.clone()));
        Self {
            issuer,
            key,
            fetches,
            broken,
            shutdown,
        }
    }

    /// A token with these claims.
    pub(super) fn sign(&self, typ: &str, claims: &Value) -> String {
        self.sign_with(
            &self.key,
            &json!({"alg": "EdDSA", "typ": typ, "kid": "k1"}),
            claims,
        )
    }

    pub(super) fn sign_with(&self, key: &PrivateKey, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64url_encode(header.to_string().as_bytes()),
            base64url_encode(claims.to_string().as_bytes())
        );
        let signature = base64url_encode(&key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
