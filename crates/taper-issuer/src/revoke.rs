//! `POST /revoke` (RFC 7009) and `POST /introspect` (RFC 7662).

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use taper_capability::{Link, VerifiedChain};
use taper_dpop::TokenHash;
use taper_oauth::{ErrorCode, scope};
use taper_store::{NewRevocation, RevocationKey, Revocations as _};

use crate::error::Refusal;
use crate::state::State;
use crate::{exchange, http, rules};

/// Revokes the grant of a capability that was not handed over. Client and proof are checked first; then a
/// token that is not a live capability of this issuer is answered 200, as RFC 7009 §2.2 demands: there is
/// nothing to revoke, and nothing is said about why.
pub(crate) async fn revoke(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let outcome = revoked(&state, &headers, body).await;
    state.answer("revoke", outcome)
}

/// Tells a client that may ask whether a capability counts.
pub(crate) async fn introspect(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let outcome = introspected(&state, &headers, body).await;
    state.answer("introspect", outcome)
}

async fn revoked(state: &State, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (form, bytes) = http::form(headers, body).await?;
    let client = state.parts.clients.authenticate(headers, &form)?;
    let text = form
        .require("token")
        .map_err(|answer| Refusal::answered(rules::FORM, answer))?;
    let now = state.clock.unix();
    let url = state.parts.url("/revoke");
    let proven = state.gate.verify(headers, &url, Some(TokenHash::of(text)), now)?;
    proven
        .proof
        .binds(&bytes)
        .map_err(|error| Refusal::new(error.rule(), ErrorCode::InvalidDpopProof, error.to_string()))?;
    let Some(chain) = state.capability(text).await? else {
        return Ok(done());
    };
    if !rules::REVOKE_PROOF.holds(proven.proof.key() == chain.last_holder()) {
        return Err(Refusal::new(
            rules::REVOKE_PROOF,
            ErrorCode::InvalidDpopProof,
            "the proof is not made with the key of the capability's last holder",
        ));
    }
    if !rules::REVOKE_OWN.holds(chain.client() == client.id()) {
        return Err(Refusal::new(
            rules::REVOKE_OWN,
            ErrorCode::InvalidGrant,
            "the capability was issued to another client",
        ));
    }
    if !rules::REVOKE_UNDELEGATED.holds(chain.depth() == 0) {
        return Err(Refusal::new(
            rules::REVOKE_UNDELEGATED,
            ErrorCode::UnsupportedTokenType,
            "a capability that was handed on does not revoke its grant: its delegator or an admin does",
        ));
    }
    state
        .gate
        .spend(&proven.proof, &format!("grant {}", chain.grant_id()), now)?;
    let revocation = NewRevocation {
        at: now,
        issuer: state.parts.issuer.clone(),
        what: RevocationKey::Grant(chain.grant_id().to_owned()),
        until: None,
        by: format!("holder {}", chain.last_holder().thumbprint()),
    };
    state
        .store
        .revoke(revocation)
        .await
        .map_err(|error| Refusal::store(&error))?;
    state.metrics.revoked();
    tracing::info!(
        grant.id = chain.grant_id(),
        grant.client = client.id(),
        "grant revoked by its client"
    );
    Ok(done())
}

async fn introspected(state: &State, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (form, _) = http::form(headers, body).await?;
    let client = state.parts.clients.authenticate(headers, &form)?;
    if !rules::PRIVILEGE.holds(client.may_introspect()) {
        return Err(Refusal::new(
            rules::PRIVILEGE,
            ErrorCode::UnauthorizedClient,
            "this client may not introspect",
        ));
    }
    let text = form
        .require("token")
        .map_err(|answer| Refusal::answered(rules::FORM, answer))?;
    let inactive = json!({ "active": false });
    let answer = match state.capability(text).await? {
        None => inactive,
        Some(chain) => match state.revoked(&revocation_keys(&chain)).await? {
            Some(_) => inactive,
            None => active(&chain),
        },
    };
    Ok(http::json(StatusCode::OK, &answer))
}

/// Everything by which a chain can be revoked (RULES 28).
fn revocation_keys(chain: &VerifiedChain) -> Vec<RevocationKey> {
    let mut keys = vec![
        RevocationKey::Grant(chain.grant_id().to_owned()),
        RevocationKey::Client(chain.client().to_owned()),
    ];
    keys.extend(
        std::iter::once(chain.subject())
            .chain(chain.actor())
            .map(|party| RevocationKey::Subject {
                iss: party.iss.clone(),
                sub: party.sub.clone(),
            }),
    );
    let holder = |link: &Link| RevocationKey::Holder(link.holder.thumbprint().to_string());
    keys.extend(chain.links().iter().map(holder));
    keys.extend(chain.branch_ids().iter().map(|id| RevocationKey::Branch(hex(id))));
    keys
}

fn active(chain: &VerifiedChain) -> Value {
    json!({
        "active": true,
        "token_type": taper_oauth::response::TOKEN_TYPE_DPOP,
        "iss": chain.issuer(),
        "grant_id": chain.grant_id(),
        "client_id": chain.client(),
        "sub": chain.subject().sub,
        "aud": chain.audiences(),
        "exp": chain.expires_at(),
        "scope": scope::format_list(&exchange::granted_scopes(chain.rights())),
        "cnf": { "jkt": chain.last_holder().thumbprint().to_string() },
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn done() -> Response {
    (
        StatusCode::OK,
        [(CACHE_CONTROL, HeaderValue::from_static("no-store"))],
    )
        .into_response()
}
