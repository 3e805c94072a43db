//! The admin listener: `/admin/v1` with the admin token, and `/metrics` (RULES 24).

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State as Extract};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;
use taper_oauth::{ErrorCode, json as strict};
use taper_store::{Grants as _, NewRevocation, RevocationKey, Revocations as _};

use crate::error::Refusal;
use crate::state::{State, demand_admin};
use crate::{http, rules};

/// Everything that the admin listener answers.
pub(crate) fn router(state: State) -> Router {
    Router::new()
        .route("/admin/v1/revocations", post(revoke))
        .route("/admin/v1/grants/{id}", get(grant))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn revoke(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let outcome = async {
        demand_admin(&state, &headers)?;
        let bytes = http::body(&headers, body, "application/json").await?;
        let what: RevocationKey = strict::read(&bytes, http::MAX_BODY).map_err(|error| malformed(&error))?;
        what.check().map_err(|error| malformed(&error))?;
        if let RevocationKey::Grant(id) = &what {
            known(&state, id).await?;
        }
        let kind = what.kind();
        let revocation = NewRevocation {
            at: state.clock.unix(),
            issuer: state.parts.issuer.clone(),
            what,
            until: None,
            by: "admin".to_owned(),
        };
        let seq = state
            .store
            .revoke(revocation)
            .await
            .map_err(|error| Refusal::store(&error))?;
        state.metrics.revoked();
        tracing::info!(
            revocation.kind = kind,
            revocation.seq = seq,
            "revoked by an admin"
        );
        Ok(http::json(StatusCode::OK, &json!({ "seq": seq })))
    };
    answer(&state, outcome.await)
}

async fn grant(Extract(state): Extract<State>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let outcome = async {
        demand_admin(&state, &headers)?;
        let record = known(&state, &id).await?;
        Ok(http::json(StatusCode::OK, &record))
    };
    answer(&state, outcome.await)
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, text)], state.metrics.render()).into_response()
}

/// A mistyped id is an error, not a revocation of nothing.
async fn known(state: &State, id: &str) -> Result<taper_store::GrantRecord, Refusal> {
    let found = state.store.grant(&state.parts.issuer, id).await;
    found.map_err(|error| Refusal::store(&error))?.ok_or_else(|| {
        Refusal::new(rules::FORM, ErrorCode::InvalidRequest, "there is no such grant").with_status(404)
    })
}

fn malformed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(rules::FORM, ErrorCode::InvalidRequest, error.to_string())
}

fn answer(state: &State, outcome: Result<Response, Refusal>) -> Response {
    let challenge = outcome
        .as_ref()
        .is_err_and(|refusal| refusal.answer.code() == ErrorCode::InvalidToken);
    let mut response = state.answer("admin", outcome);
    if challenge {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
