//! `POST /token`: the token exchange of RFC 8693, from the bytes to the answer.
//!
//! Cheap work first: size, form, client, the proof's claims, its signature, then the subject token (the only
//! step that may touch the network), and only then the replay table, so that nobody without a token fills it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use taper_capability::{Grant, Party, Right, Token, issue};
use taper_dpop::PublicKey;
use taper_oauth::{
    ErrorCode, ExchangeRequest, McpDetail, Secret, SubjectClaims, TokenRequest, TokenResponse, TokenType,
    provenance,
};
use taper_service::rng;
use taper_store::{GrantRecord, Grants as _, RevocationKey};
use tokio::time::Instant;

use crate::clients::Client;
use crate::error::Refusal;
use crate::exchange::{self, Asker, Terms, Wish};
use crate::proof::Proven;
use crate::state::{Shared, State, claim_pairs};
use crate::trust::Role;
use crate::{http, renew, rules};

/// The endpoint.
pub(crate) async fn token(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let began = Instant::now();
    let outcome = answer(&state, &headers, body).await;
    state.metrics.token(began.elapsed());
    state.answer("token", outcome)
}

async fn answer(state: &State, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (form, bytes) = http::form(headers, body).await?;
    let client = state.parts.clients.authenticate(headers, &form)?;
    let TokenRequest::TokenExchange(request) =
        TokenRequest::from_form(&form).map_err(|answer| Refusal::answered(rules::FORM, answer))?;
    check_types(&request)?;
    let now = state.clock.unix();
    let url = state.parts.url("/token");
    let proven = state.gate.verify(headers, &url, None, now)?;
    proven
        .proof
        .binds(&bytes)
        .map_err(|error| Refusal::new(error.rule(), ErrorCode::InvalidDpopProof, error.to_string()))?;
    if renew::is_asked(&request) {
        return renew::answer(state, &request, &client, &proven).await;
    }
    let wish = exchange::wish(&request, &state.parts.servers, now)?;
    let asker = identify(state, &request, &client, &proven).await?;
    // Keys may have been fetched in between.
    let now = state.clock.unix();
    let account = format!("subject {} {}", asker.subject.iss, asker.subject.sub);
    state.gate.spend(&proven.proof, &account, now)?;
    let parties = std::iter::once(&asker.subject).chain(&asker.actor);
    refuse_revoked(state, parties, &asker.client, proven.proof.key()).await?;
    let asked_details = !request.authorization_details.is_empty();
    let granted = grant(state, asker, wish, proven.proof.key().clone(), now).await?;
    granted.answer(asked_details, now)
}

fn check_types(request: &ExchangeRequest) -> Result<(), Refusal> {
    let wanted = request.requested_token_type;
    if !rules::TOKEN_TYPE.holds(wanted.is_none_or(|kind| kind == TokenType::Capability)) {
        return Err(Refusal::new(
            rules::TOKEN_TYPE,
            ErrorCode::InvalidRequest,
            "`requested_token_type` is not a capability, and nothing else is issued here",
        ));
    }
    Ok(())
}

/// Verifies subject and actor token and decides who acts.
async fn identify(
    state: &State,
    request: &ExchangeRequest,
    client: &Client,
    proven: &Proven<'_>,
) -> Result<Asker, Refusal> {
    let trust = &state.parts.trust;
    let text = request.subject_token.expose();
    let subject = trust
        .verify(Role::Subject, text, request.subject_token_type, client)
        .await?;
    let actor = match &request.actor_token {
        None => None,
        Some((token, kind)) => Some((
            token,
            trust.verify(Role::Actor, token.expose(), *kind, client).await?,
        )),
    };
    let now = state.clock.unix();
    // One proof has one `ath`; where both tokens are bound, the actor's key is compared below.
    if subject.cnf_jkt.is_some() {
        proven.demand_token(text, now)?;
    } else if let Some((token, _)) = actor.as_ref().filter(|(_, claims)| claims.cnf_jkt.is_some()) {
        proven.demand_token(token.expose(), now)?;
    }
    let jkt = proven.proof.thumbprint().to_string();
    let acting = provenance(&subject, actor.as_ref().map(|(_, claims)| claims), &jkt)
        .map_err(|answer| Refusal::answered(rules::PROVENANCE, answer))?;
    if let Some(acting) = &acting
        && !rules::ONE_ACTOR.holds(acting.act.is_none())
    {
        return Err(Refusal::new(
            rules::ONE_ACTOR,
            ErrorCode::InvalidRequest,
            "the subject token already has an actor: a capability names one only",
        ));
    }
    let actor_ends = actor.as_ref().map_or(i64::MAX, |(_, claims)| claims.exp);
    Ok(Asker {
        subject_ends: subject.exp.min(actor_ends),
        claims: claim_pairs(&subject.claims),
        client: client.id().to_owned(),
        actor: acting.map(|acting| Party {
            iss: acting.iss,
            sub: acting.sub,
        }),
        subject: party(subject),
    })
}

fn party(claims: SubjectClaims) -> Party {
    Party {
        iss: claims.iss,
        sub: claims.sub,
    }
}

/// what is issued to them would be refused everywhere.
pub(crate) async fn refuse_revoked(
    state: &State,
    parties: impl Iterator<Item = &Party>,
    client: &str,
    key: &PublicKey,
) -> Result<(), Refusal> {
    let mut keys = vec![
        RevocationKey::Client(client.to_owned()),
        RevocationKey::Holder(key.thumbprint().to_string()),
    ];
    for party in parties {
        keys.push(RevocationKey::Subject {
            iss: party.iss.clone(),
            sub: party.sub.clone(),
        });
    }
    let Some(key) = state.revoked(&keys).await? else {
        return Ok(());
    };
    if rules::REVOKED.holds(false) {
        return Ok(());
    }
    let (code, description) = match key {
        RevocationKey::Client(_) => (ErrorCode::UnauthorizedClient, "the client is revoked"),
        RevocationKey::Holder(_) => (ErrorCode::InvalidDpopProof, "the key is revoked"),
        _ => (ErrorCode::InvalidRequest, "the subject or actor is revoked"),
    };
    Err(Refusal::new(rules::REVOKED, code, description))
}

struct Granted {
    token: Token,
    terms: Terms,
    wish: Wish,
}

/// Decides, issues and records. The capability leaves this function only when the record is on the disk.
async fn grant(
    state: &State,
    asker: Asker,
    wish: Wish,
    holder: PublicKey,
    now: i64,
) -> Result<Granted, Refusal> {
    let shared = Arc::clone(state);
    let (token, terms, wish, record) = state
        .pool
        .run(move || shared.decide_and_issue(&asker, wish, holder, now))
        .await
        .map_err(Refusal::pool)??;
    let (grant_id, holder_jkt) = (record.grant_id.clone(), record.holder_jkt.clone());
    let (subject, client) = (record.subject.clone(), record.client.clone());
    state
        .store
        .insert_grant(record)
        .await
        .map_err(|error| Refusal::store(&error))?;
    state.metrics.granted();
    tracing::info!(
        grant.id = grant_id,
        grant.subject = subject,
        grant.client = client,
        grant.expires_at = terms.expires_at,
        holder.jkt = holder_jkt,
        "granted"
    );
    Ok(Granted { token, terms, wish })
}

impl Shared {
    fn decide_and_issue(
        &self,
        asker: &Asker,
        wish: Wish,
        holder: PublicKey,
        now: i64,
    ) -> Result<(Token, Terms, Wish, GrantRecord), Refusal> {
        let parts = &self.parts;
        let terms = exchange::decide(&parts.policy, asker, &wish, &parts.servers, parts.bounds, now)?;
        let root = parts
            .keys
            .first()
            .ok_or_else(|| could_not_be_made("no root key".to_owned()))?;
        let grant = Grant {
            issuer: parts.issuer.clone(),
            id: Grant::new_id(&mut rng::os()),
            subject: asker.subject.clone(),
            client: asker.client.clone(),
            actor: asker.actor.clone(),
            holder,
            audiences: terms.audiences.clone(),
            rights: terms.rights.clone(),
            claims: asker
                .claims
                .iter()
                .filter(|(name, _)| parts.capability_claims.contains(name))
                .cloned()
                .collect(),
            issued_at: now,
            expires_at: terms.expires_at,
            max_depth: terms.max_depth,
            caveats: terms.caveats.clone(),
        };
        let token = issue(&grant, root, &mut rng::os()).map_err(|error| match error {
            taper_capability::Error::Text { .. }
            | taper_capability::Error::Counts(_)
            | taper_capability::Error::Admission { .. } => Refusal::new(
                rules::FITS,
                ErrorCode::InvalidScope,
                "what would be granted does not fit into one capability; ask for less",
            ),
            error => could_not_be_made(error.to_string()),
        })?;
        let record = record(&grant, terms.ends_at, parts.policy.digest());
        Ok((token, terms, wish, record))
    }
}

/// An error of this server, whose detail is for the operator.
pub(crate) fn could_not_be_made(detail: String) -> Refusal {
    Refusal::new(
        rules::POLICY,
        ErrorCode::ServerError,
        "the capability could not be made",
    )
    .with_detail(detail)
}

/// What is written down of a grant.
pub(crate) fn record(grant: &Grant, ends_at: i64, policy_digest: &str) -> GrantRecord {
    GrantRecord {
        issuer: grant.issuer.clone(),
        grant_id: grant.id.clone(),
        subject_iss: grant.subject.iss.clone(),
        subject: grant.subject.sub.clone(),
        client: grant.client.clone(),
        actor: grant.actor.as_ref().map(ToString::to_string),
        holder_jkt: grant.holder.thumbprint().to_string(),
        audiences: grant.audiences.clone(),
        rights: grant.rights.iter().map(ToString::to_string).collect(),
        issued_at: grant.issued_at,
        expires_at: grant.expires_at,
        ends_at: Some(ends_at),
        renewal: false,
        max_depth: grant.max_depth,
        policy_digest: policy_digest.to_owned(),
    }
}

impl Granted {
    fn answer(self, asked_details: bool, now: i64) -> Result<Response, Refusal> {
        let details = if asked_details {
            exchange::granted_details(&self.terms, &self.wish)
        } else {
            Vec::new()
        };
        written(
            &self.token,
            &self.terms.rights,
            self.terms.expires_at,
            details,
            now,
        )
    }
}

/// The answer that carries a capability.
pub(crate) fn written(
    token: &Token,
    rights: &[Right],
    expires_at: i64,
    details: Vec<McpDetail>,
    now: i64,
) -> Result<Response, Refusal> {
    let answer = TokenResponse::capability(
        Secret::new(token.as_str()),
        u64::try_from(expires_at.saturating_sub(now)).unwrap_or(0),
        &exchange::granted_scopes(rights),
        details,
    );
    let bytes = answer.to_json().map_err(|error| {
        Refusal::new(
            rules::FORM,
            ErrorCode::ServerError,
            "the answer could not be written",
        )
        .with_detail(error)
    })?;
    Ok(http::json_bytes(StatusCode::OK, bytes.to_vec()))
}
