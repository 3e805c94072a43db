//! The admin listener: `/admin/v1` with the admin token, `/metrics` (RULES 24), and health.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use taper_oauth::{ErrorCode, json as strict};
use taper_store::{GrantRecord, Revocation, RevocationKey, RevocationRecord, Revocations as _};

use crate::error::Refusal;
use crate::state::{State, demand_admin};
use crate::{discovery, http, revoke, rules};

/// The most revocations in one page of the list.
const MAX_LIMIT: usize = 1000;
const PAGE: &str = "the query is `after` (a number) and `limit` (1 to 1000)";

const WHICH: &str = "the query is `unknown=true`, or nothing";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Grants without a record too.
    #[serde(default)]
    unknown: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Only revocations with a higher number.
    #[serde(default)]
    after: u64,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    100
}

/// Everything that the admin listener answers.
pub(crate) fn router(state: State) -> Router {
    Router::new()
        .route("/admin/v1/revocations", get(revocations).post(revoke))
        .route("/admin/v1/grants/{id}", get(grant))
        .route("/metrics", get(metrics))
        .route("/healthz", get(discovery::healthz))
        .route("/readyz", get(discovery::readyz))
        .with_state(state)
}

/// `?unknown=true`: also below a grant without a record, which a state that was lost leaves behind. It is
/// never forgotten, since nobody knows when its grant ends.
async fn revoke(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let outcome = async {
        demand_admin(&state, &headers)?;
        let query = query.as_deref().unwrap_or_default();
        let Which { unknown } = serde_urlencoded::from_str(query).map_err(|_| malformed(&WHICH))?;
        let bytes = http::body(&headers, body, "application/json").await?;
        let what: RevocationKey = strict::read(&bytes, http::MAX_BODY).map_err(|error| malformed(&error))?;
        what.check().map_err(|error| malformed(&error))?;
        let until = match &what {
            RevocationKey::Grant(id) | RevocationKey::Delegation { grant: id, .. } => {
                match revoke::grant_record(&state, id).await? {
                    None if unknown => None,
                    record => Some(revoke::kept_until(&found(record)?)),
                }
            }
            // Of a branch alone it is not known when its grant ends; the others are for ever (RULES 29).
            RevocationKey::Branch(_)
            | RevocationKey::Holder(_)
            | RevocationKey::Client(_)
            | RevocationKey::Subject { .. } => None,
        };
        let seq = revoke::record(&state, what, until, "admin".to_owned()).await?;
        Ok(http::json(StatusCode::OK, &json!({ "seq": seq })))
    };
    answer(&state, outcome.await)
}

/// `?after=SEQ&limit=N`: what was revoked, when, and who asked for it.
async fn revocations(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let outcome = async {
        demand_admin(&state, &headers)?;
        let query = query.as_deref().unwrap_or_default();
        let page: Page = serde_urlencoded::from_str(query).map_err(|_| malformed(&PAGE))?;
        if !(1..=MAX_LIMIT).contains(&page.limit) {
            return Err(malformed(&PAGE));
        }
        // The head first: with it a reader knows whether there is more.
        let head = state.store.revocations_after(page.after, 1).await;
        let head = head.map_err(|error| Refusal::store(&error))?.head;
        let entries = state.store.revocation_records_after(page.after, page.limit).await;
        let entries = entries.map_err(|error| Refusal::store(&error))?;
        let entries: Vec<_> = entries.iter().map(listed).collect();
        Ok(http::json(
            StatusCode::OK,
            &json!({ "entries": entries, "head": head }),
        ))
    };
    answer(&state, outcome.await)
}

fn listed(record: &RevocationRecord) -> Value {
    let Revocation {
        seq, at, what, until, ..
    } = &record.revocation;
    json!({ "seq": seq, "at": at, "what": what, "until": until, "by": record.by })
}

async fn grant(Extract(state): Extract<State>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let outcome = async {
        demand_admin(&state, &headers)?;
        let record = found(revoke::grant_record(&state, &id).await?)?;
        Ok(http::json(StatusCode::OK, &record))
    };
    answer(&state, outcome.await)
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    let text = HeaderValue::from_static(taper_service::metrics::CONTENT_TYPE);
    let head = state.store.revocations_after(0, 1).await.map(|page| page.head);
    let page = state.metrics.render(&state, head.ok());
    ([(CONTENT_TYPE, text)], page).into_response()
}

/// A mistyped id is an error, not a revocation of nothing.
fn found(record: Option<GrantRecord>) -> Result<GrantRecord, Refusal> {
    record.ok_or_else(|| {
        let description = "there is no such grant; one whose record was lost is revoked with `?unknown=true`";
        Refusal::new(rules::FORM, ErrorCode::InvalidRequest, description).with_status(404)
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
