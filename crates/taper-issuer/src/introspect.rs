//! `POST /introspect` (RFC 7662): whether a capability counts, for clients that may ask.

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use taper_capability::{LinkKind, Party, VerifiedChain};
use taper_oauth::{ErrorCode, scope};
use taper_store::RevocationKey;

use crate::error::Refusal;
use crate::revoke::hex;
use crate::state::State;
use crate::{exchange, http, rules};

/// The endpoint.
pub(crate) async fn introspect(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let outcome = introspected(&state, &headers, body).await;
    state.answer("introspect", outcome)
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

/// Everything by which a chain can be revoked (RULES 28), as the proxy asks it too.
fn revocation_keys(chain: &VerifiedChain) -> Vec<RevocationKey> {
    let grant = chain.grant_id();
    let mut keys = vec![
        RevocationKey::Grant(grant.to_owned()),
        RevocationKey::Client(chain.client().to_owned()),
    ];
    keys.extend(
        std::iter::once(chain.subject())
            .chain(chain.actor())
            .map(subject_key),
    );
    keys.extend(chain.branch_ids().iter().map(|id| RevocationKey::Branch(hex(id))));
    let mut before: Option<String> = None;
    for link in chain.links() {
        let holder = link.holder.thumbprint().to_string();
        if let Some(from) = before.filter(|_| link.kind == LinkKind::HandOver) {
            keys.push(RevocationKey::Delegation {
                grant: grant.to_owned(),
                from,
                to: holder.clone(),
            });
        }
        keys.push(RevocationKey::Holder(holder.clone()));
        before = Some(holder);
    }
    keys
}

fn subject_key(party: &Party) -> RevocationKey {
    RevocationKey::Subject {
        iss: party.iss.clone(),
        sub: party.sub.clone(),
    }
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
