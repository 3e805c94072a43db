//! Taking back by the word of a client that authenticated with its secret: its own grants, and itself.
//!
//! No proof is demanded: the secret is the authority. A branch id says nothing of its grant, so a client
//! shows a capability that has it; else it could revoke what is another's.

use axum::http::HeaderMap;
use taper_oauth::{ErrorCode, Form};
use taper_store::{GrantRecord, Grants as _, RevocationKey, SubjectAt};

use super::form::ByClient;
use super::{Done, beyond, grant_record, hex, kept_until, record, record_below, record_one, signed_end};
use crate::clients::Client;
use crate::error::Refusal;
use crate::rules;
use crate::state::State;

/// The most grants of a subject that one request looks at. The answer's `next` goes on.
const MAX_GRANTS: usize = 100;

/// Authenticates the client, then does what it asks for.
pub(super) async fn revoke(
    state: &State,
    headers: &HeaderMap,
    form: &Form,
    asked: ByClient<'_>,
) -> Result<Done, Refusal> {
    let client = state.parts.clients.authenticate(headers, form)?;
    if !rules::REVOKE_SECRET.holds(client.is_confidential()) {
        return Err(Refusal::new(
            rules::REVOKE_SECRET,
            ErrorCode::UnauthorizedClient,
            "only a client with a secret revokes without a proof: anybody can name a public one",
        ));
    }
    let by = format!("client {}", client.id());
    match asked {
        ByClient::Grant { id } => {
            let grant = own_grant(state, &client, id).await?;
            let until = kept_until(&grant);
            if until <= state.clock.unix() {
                return Ok(Done::nothing());
            }
            let until = Some(until);
            record_one(state, RevocationKey::Grant(id.to_owned()), until, by).await
        }
        ByClient::Branch { id, branch, token } => {
            let grant = own_grant(state, &client, id).await?;
            let chain = state.signed_chain(token).await?;
            let shown = chain.as_ref().is_some_and(|chain| {
                chain.grant_id() == id && chain.branch_ids().iter().any(|known| hex(known) == branch)
            });
            let signed_end = chain.as_ref().map_or(i64::MIN, signed_end);
            if !rules::REVOKE_SHOWN.holds(shown) {
                return Err(Refusal::new(
                    rules::REVOKE_SHOWN,
                    ErrorCode::InvalidGrant,
                    "`token` is no capability of this grant that has this branch",
                ));
            }
            let until = kept_until(&grant).max(beyond(signed_end));
            if until <= state.clock.unix() {
                return Ok(Done::nothing());
            }
            let what = RevocationKey::Branch(branch.to_owned());
            record_below(state, id, 0, what, Some(until), by).await
        }
        ByClient::Subject { iss, sub, after } => revoke_subject(state, &client, iss, sub, after, &by).await,
        ByClient::Everything => {
            record_one(state, RevocationKey::Client(client.id().to_owned()), None, by).await
        }
    }
}

/// A grant that is not this client's is none: others' ids are not confirmed.
async fn own_grant(state: &State, client: &Client, id: &str) -> Result<GrantRecord, Refusal> {
    match grant_record(state, id).await? {
        Some(grant) if rules::REVOKE_OWN.holds(grant.client == client.id()) => Ok(grant),
        _ => Err(Refusal::new(
            rules::REVOKE_OWN,
            ErrorCode::InvalidGrant,
            "this client has no grant with this id",
        )),
    }
}

/// Revokes one grant after the other; asked again, it goes on where it was. Revoking the subject itself
/// would reach the grants of other clients.
async fn revoke_subject(
    state: &State,
    client: &Client,
    subject_iss: &str,
    subject: &str,
    after: Option<&str>,
    by: &str,
) -> Result<Done, Refusal> {
    let whose = SubjectAt {
        issuer: &state.parts.issuer,
        client: client.id(),
        subject_iss,
        subject,
    };
    let page = state
        .store
        .grants_of(whose, after, MAX_GRANTS)
        .await
        .map_err(|error| Refusal::store(&error))?;
    let now = state.clock.unix();
    let mut entries = Vec::new();
    for grant in &page.grants {
        let until = kept_until(grant);
        if until <= now {
            continue;
        }
        let what = RevocationKey::Grant(grant.grant_id.clone());
        let seq = record(state, what.clone(), Some(until), by.to_owned()).await?;
        entries.push((seq, what));
    }
    Ok(Done {
        entries,
        next: page.last.filter(|_| page.more),
    })
}
