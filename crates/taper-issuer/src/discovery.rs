//! What anybody may read: metadata (RFC 8414), public keys, health.

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use taper_oauth::AuthorizationServerMetadata;
use taper_service::health::Health;

use crate::state::State;
use crate::{http, keys};

/// `/.well-known/oauth-authorization-server`.
pub(crate) async fn metadata(Extract(state): Extract<State>) -> Response {
    let issuer = &state.parts.issuer;
    let mut document = AuthorizationServerMetadata::for_issuer(issuer);
    document.introspection_endpoint = Some(state.parts.url("/introspect"));
    document.introspection_endpoint_auth_methods_supported =
        vec!["client_secret_basic".to_owned(), "client_secret_post".to_owned()];
    document.scopes_supported = state.parts.servers.keys().map(|id| format!("{id}:*")).collect();
    http::json(StatusCode::OK, &document)
}

/// `/.well-known/jwks.json`.
pub(crate) async fn key_set(Extract(state): Extract<State>) -> Response {
    http::json(StatusCode::OK, &keys::key_set(&state.parts.keys))
}

/// `/healthz`: the process answers.
pub(crate) async fn healthz(request: Request) -> Response {
    answer(&Health::default(), &request)
}

/// `/readyz`: it can grant and revoke, or what is missing.
pub(crate) async fn readyz(Extract(state): Extract<State>, request: Request) -> Response {
    let mut health = Health::default();
    if state.parts.tasks.is_triggered() {
        health.missing.push("the issuer: it is stopping".to_owned());
    }
    if let Err(error) = state.store.check() {
        tracing::error!(%error, "not ready");
        health.missing.push("the store: it has failed".to_owned());
    }
    answer(&health, &request)
}

fn answer(health: &Health, request: &Request) -> Response {
    health.answer(request).map(Body::from)
}
