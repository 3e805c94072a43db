//! What anybody may read: metadata (RFC 8414), public keys, health.

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use taper_oauth::AuthorizationServerMetadata;

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
pub(crate) async fn healthz() -> Response {
    http::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `/readyz`: it can grant and revoke.
pub(crate) async fn readyz(Extract(state): Extract<State>) -> Response {
    let stopping = state.parts.tasks.is_triggered();
    match state.store.check() {
        Ok(()) if !stopping => http::json(StatusCode::OK, &json!({ "status": "ready" })),
        Ok(()) => http::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "stopping" })),
        Err(error) => {
            tracing::error!(%error, "not ready");
            http::json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({ "status": "the store has failed" }),
            )
        }
    }
}
