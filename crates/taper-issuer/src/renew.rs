//! `POST /token` with a capability as the subject token: the renewal of its grant (RULES 27).
//!
//! What comes back is the same grant with a later end: its id, holder, rights, caveats and counters stay, so that
//! sessions and revocations that belong to it stay too. The policy is not asked again, since the subject's claims
//! are not there; so nothing is renewed under another policy than the one that granted.

use std::sync::Arc;

use axum::response::Response;
use taper_capability::{Grant, Right, Token, UnverifiedToken, VerifiedChain, issue};
use taper_oauth::{ErrorCode, ExchangeRequest, TokenType};
use taper_store::{GrantRecord, Grants as _, RevocationKey};

use taper_service::rng;

use crate::clients::Client;
use crate::error::Refusal;
use crate::proof::Proven;
use crate::revoke::{grant_record, hex};
use crate::rules;
use crate::state::{Shared, State};
use crate::token::{could_not_be_made, record, refuse_revoked, written};

/// Whether a request is one for a renewal.
pub(crate) fn is_asked(request: &ExchangeRequest) -> bool {
    request.subject_token_type == TokenType::Capability
}

/// Renews. Client and proof are verified; the proof is bound to the capability here.
pub(crate) async fn answer(
    state: &State,
    request: &ExchangeRequest,
    client: &Client,
    proven: &Proven<'_>,
) -> Result<Response, Refusal> {
    if !rules::NO_CAPABILITY.holds(asks_for_nothing_else(request)) {
        return Err(Refusal::new(
            rules::NO_CAPABILITY,
            ErrorCode::InvalidRequest,
            "a capability is not exchanged for another one, and renewed as it is: ask for nothing else, or \
             exchange the subject's token again",
        ));
    }
    let text = request.subject_token.expose();
    let now = state.clock.unix();
    proven.demand_token(text, now)?;
    // Cheap, and may only reject: a chain's signatures cost much, and nothing was spent yet.
    let none = || {
        Refusal::new(
            rules::TOKEN,
            ErrorCode::InvalidRequest,
            "`subject_token` is no capability of this issuer",
        )
    };
    let decoded = UnverifiedToken::decode(text).map_err(|_| none())?;
    as_it_was_granted(&decoded, client, proven)?;
    // One that has ended still says of which grant it is, and whether that is revoked is the first thing to know.
    let chain = state.signed_chain(text).await?.ok_or_else(none)?;
    let now = state.clock.unix();
    let subject = chain.subject();
    let account = format!("subject {} {}", subject.iss, subject.sub);
    state.gate.spend(&proven.proof, &account, now)?;
    refuse_revoked_grant(state, &chain).await?;
    let parties = std::iter::once(subject).chain(chain.actor());
    refuse_revoked(state, parties, chain.client(), proven.proof.key()).await?;
    let known = grant_record(state, chain.grant_id()).await?;
    let until = new_end(state, &chain, known.as_ref(), now)?;
    let text = zeroize::Zeroizing::new(text.to_owned());
    let shared = Arc::clone(state);
    let renewed = move || shared.reissue(&chain, &text, until, now);
    let (token, grant, mut record) = state.pool.run(renewed).await.map_err(Refusal::pool)??;
    // What the store holds to: no renewal passes it.
    record.ends_at = known.and_then(|known| known.ends_at);
    state
        .store
        .insert_grant(record)
        .await
        .map_err(|error| Refusal::store(&error))?;
    state.metrics.renewed();
    tracing::info!(
        grant.id = grant.id,
        grant.subject = grant.subject.sub,
        grant.client = grant.client,
        grant.expires_at = until,
        holder.jkt = %grant.holder.thumbprint(),
        "renewed"
    );
    written(&token, &grant.rights, until, Vec::new(), now)
}

fn asks_for_nothing_else(request: &ExchangeRequest) -> bool {
    request.scope.is_empty()
        && request.authorization_details.is_empty()
        && request.resources.is_empty()
        && request.audiences.is_empty()
        && request.actor_token.is_none()
}

/// Of a chain with further links the issuer cannot make the same again: its holders signed them.
fn as_it_was_granted(chain: &UnverifiedToken, client: &Client, proven: &Proven<'_>) -> Result<(), Refusal> {
    let refused = |description: &str| Refusal::new(rules::RENEW_OWN, ErrorCode::InvalidRequest, description);
    let [link] = chain.links() else {
        if rules::RENEW_OWN.holds(false) {
            return Ok(());
        }
        return Err(refused(
            "only a capability as it was granted is renewed: a delegate asks its delegator, and what was narrowed is \
             narrowed again",
        ));
    };
    if !rules::RENEW_OWN.holds(chain.client() == client.id()) {
        return Err(refused("the capability was granted to another client"));
    }
    if !rules::RENEW_OWN.holds(link.holder == *proven.proof.key()) {
        return Err(refused("the proof is not by the capability's holder"));
    }
    Ok(())
}

/// by its id, or by its own branch. The code tells a holder from all other refusals that it must not ask for another grant instead.
async fn refuse_revoked_grant(state: &State, chain: &VerifiedChain) -> Result<(), Refusal> {
    let mut keys = vec![RevocationKey::Grant(chain.grant_id().to_owned())];
    keys.extend(chain.branch_ids().iter().map(|id| RevocationKey::Branch(hex(id))));
    let revoked = state.revoked(&keys).await?.is_some();
    if !rules::RENEW_REVOKED.holds(!revoked) {
        return Err(Refusal::new(
            rules::RENEW_REVOKED,
            ErrorCode::InvalidGrant,
            "the grant is revoked",
        ));
    }
    Ok(())
}

/// When the renewed capability ends: after as long a life as the one before, and with the grant.
fn new_end(
    state: &State,
    chain: &VerifiedChain,
    known: Option<&GrantRecord>,
    now: i64,
) -> Result<i64, Refusal> {
    let refused = |description: &str| Refusal::new(rules::RENEW_WITHIN, ErrorCode::InvalidScope, description);
    let again = "exchange the subject's token again";
    let Some(known) = known else {
        return Err(refused(&format!("the grant is not known here any more; {again}")));
    };
    let parts = &state.parts;
    if !rules::RENEW_WITHIN.holds(now < chain.expires_at()) {
        return Err(refused(&format!("the capability has ended; {again}")));
    }
    if !rules::RENEW_WITHIN.holds(known.policy_digest == parts.policy.digest()) {
        return Err(refused(&format!(
            "the policy of this server was changed; {again}"
        )));
    }
    if !rules::RENEW_WITHIN.holds(is_as_configured(state, chain)) {
        return Err(refused(
            "a server or an issuer of the grant is not configured as it was",
        ));
    }
    if !rules::RENEW_WITHIN.holds(chain.expires_at() < known.end()) {
        return Err(refused(&format!("the grant ends with this capability; {again}")));
    }
    let life = known
        .expires_at
        .saturating_sub(known.issued_at)
        .min(parts.bounds.max_ttl);
    let own = now.saturating_add(life).max(chain.expires_at());
    let within = rules::RENEW_WITHIN.holds(own <= known.end());
    Ok(if within { own } else { known.end() })
}

/// Whether what was granted could be granted now: its servers are where they were, and whoever said who the subject
/// and the actor are is still believed.
fn is_as_configured(state: &State, chain: &VerifiedChain) -> bool {
    let parts = &state.parts;
    let is_there = |right: &Right| {
        let resource = parts.servers.get(right.server());
        resource.is_some_and(|resource| chain.audiences().contains(resource))
    };
    let is_known = |audience| parts.servers.values().any(|resource| resource == audience);
    let mut parties = std::iter::once(chain.subject()).chain(chain.actor());
    chain.rights().iter().all(is_there)
        && chain.audiences().iter().all(is_known)
        && parties.all(|party| parts.trust.trusts(&party.iss))
}

impl Shared {
    fn reissue(
        &self,
        chain: &VerifiedChain,
        text: &str,
        until: i64,
        now: i64,
    ) -> Result<(Token, Grant, GrantRecord), Refusal> {
        let parts = &self.parts;
        let failed = |detail: &str| could_not_be_made(detail.to_owned());
        let root = parts.keys.first().ok_or_else(|| failed("no root key"))?;
        let holder = chain.links().first().map(|link| link.holder.clone());
        let decoded = UnverifiedToken::decode(text).map_err(|error| failed(&error.to_string()))?;
        let block = decoded.links().first().map(|link| link.caveats());
        let (Some(holder), Some((caveats, 0))) = (holder, block) else {
            // Every check of block 0 was written by this issuer; one that does not read back is not dropped.
            return Err(failed("a check of the grant does not read back"));
        };
        let grant = Grant {
            issuer: parts.issuer.clone(),
            id: chain.grant_id().to_owned(),
            subject: chain.subject().clone(),
            client: chain.client().to_owned(),
            actor: chain.actor().cloned(),
            holder,
            audiences: chain.audiences().to_vec(),
            rights: chain.rights().to_vec(),
            claims: chain.claims().to_vec(),
            issued_at: now,
            expires_at: until,
            max_depth: chain.max_depth().min(parts.bounds.max_depth),
            caveats,
        };
        let token = issue(&grant, root, &mut rng::os()).map_err(|error| failed(&error.to_string()))?;
        let record = record(&grant, until, parts.policy.digest());
        Ok((token, grant, record))
    }
}
