//! `POST /revoke`: taking back (RFC 7009 and its extensions, `spec/exchange.md`).
//!
//! [`form`] reads which of eight forms a request is. [`holder`] answers those whose authority is a key
//! and a chain, [`client`] those whose authority is a client's secret. The rule behind both: a key takes
//! back what was granted to it or what it signed, a client what was granted to it, and nothing else. So
//! nobody gains power over others by it, and whether the chain that is shown has ended or is revoked
//! itself makes no difference while its grant lives.

mod client;
mod form;
mod holder;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use taper_capability::VerifiedChain;
use taper_oauth::ErrorCode;
use taper_store::{
    Bound, GrantRecord, Grants as _, NewRevocation, RevocationKey, Revocations as _, StoreError,
};

use crate::error::Refusal;
use crate::state::State;
use crate::{http, rules};
use form::Asked;

/// How long a revocation is kept beyond the end of its grant, in seconds. A proxy whose clock is behind
/// takes a capability for live that long too long; proofs and the feed bear a skew of 60 s, and this is
/// five times as much.
const KEPT_BEYOND_END: i64 = 300;

/// How many revocations below one grant are kept for whoever could make any number of them: its
/// holders, who make keys and branches at will, and its client. Some are kept for ever, and every proxy
/// holds all of them in memory, some hundred bytes each. An agent that takes back each of a thousand
/// children is better served by revoking the grant.
const MAX_BELOW: u64 = 1_000;
/// How much earlier the limit is reached with each hand-over before the key: what was handed on cannot
/// use up the room of those above it. At the 16 hand-overs that a chain can have (P-21), 200 are left.
const LESS_PER_HAND_OVER: u64 = 50;

/// The endpoint.
pub(crate) async fn revoke(Extract(state): Extract<State>, headers: HeaderMap, body: Body) -> Response {
    let outcome = revoked(&state, &headers, body).await;
    state.answer("revoke", outcome)
}

async fn revoked(state: &State, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (form, bytes) = http::form(headers, body).await?;
    let done = match form::read(&form)? {
        Asked::ByHolder(asked) => holder::revoke(state, headers, &form, &bytes, asked).await?,
        Asked::ByClient(asked) => client::revoke(state, headers, &form, asked).await?,
    };
    Ok(http::json(StatusCode::OK, &done.answer()))
}

/// What was revoked, for the answer. Everything in it is on the disk.
#[derive(Default)]
struct Done {
    entries: Vec<(u64, RevocationKey)>,
    /// What to send as `after` to go on.
    next: Option<String>,
}

impl Done {
    /// There is nothing left to revoke: no capability of ours, or its grant has ended.
    fn nothing() -> Self {
        Self::default()
    }

    fn answer(&self) -> Value {
        let entry = |(seq, what): &(u64, RevocationKey)| json!({ "seq": seq, "what": what });
        let mut answer = json!({ "entries": self.entries.iter().map(entry).collect::<Vec<_>>() });
        if let (Some(next), Value::Object(members)) = (&self.next, &mut answer) {
            members.insert("next".to_owned(), next.as_str().into());
        }
        answer
    }
}

/// Records one revocation; it is on the disk when this returns. A key that is revoked already keeps its
/// number.
pub(crate) async fn record(
    state: &State,
    what: RevocationKey,
    until: Option<i64>,
    by: String,
) -> Result<u64, Refusal> {
    record_within(state, what, until, by, None).await
}

async fn record_within(
    state: &State,
    what: RevocationKey,
    until: Option<i64>,
    by: String,
    bound: Option<Bound>,
) -> Result<u64, Refusal> {
    let kind = what.kind();
    let revocation = NewRevocation {
        at: state.clock.unix(),
        issuer: state.parts.issuer.clone(),
        what,
        until,
        by: by.clone(),
    };
    let done = match bound {
        None => state.store.revoke(revocation).await,
        Some(bound) => state.store.revoke_within(revocation, bound).await,
    };
    let seq = done.map_err(|error| match error {
        StoreError::TooManyRevocations { .. } => too_many().with_detail(error),
        error => Refusal::store(&error),
    })?;
    state.metrics.revoked();
    tracing::info!(
        revocation.kind = kind,
        revocation.seq = seq,
        revocation.by = by,
        "revoked"
    );
    Ok(seq)
}

fn too_many() -> Refusal {
    Refusal::new(
        rules::REVOKE_COUNT,
        ErrorCode::TemporarilyUnavailable,
        "as much was revoked below this grant as is kept: revoke the grant itself (its client, or its \
         first holder), or ask an administrator",
    )
    .with_status(429)
}

/// As [`record`], as the whole answer, for something below a grant and as one of a bounded number.
/// `depth`: how many hand-overs there are before whoever asks.
async fn record_below(
    state: &State,
    grant: &str,
    depth: u32,
    what: RevocationKey,
    until: Option<i64>,
    by: String,
) -> Result<Done, Refusal> {
    let less = u64::from(depth).saturating_mul(LESS_PER_HAND_OVER);
    let limit = MAX_BELOW.saturating_sub(less);
    let bound = Bound {
        grant_id: grant.to_owned(),
        limit: if rules::REVOKE_COUNT.holds(false) {
            u64::MAX
        } else {
            limit
        },
    };
    let seq = record_within(state, what.clone(), until, by, Some(bound)).await?;
    Ok(Done {
        entries: vec![(seq, what)],
        next: None,
    })
}

/// As [`record`], as the whole answer.
async fn record_one(
    state: &State,
    what: RevocationKey,
    until: Option<i64>,
    by: String,
) -> Result<Done, Refusal> {
    let seq = record(state, what.clone(), until, by).await?;
    Ok(Done {
        entries: vec![(seq, what)],
        next: None,
    })
}

/// Until when a revocation below this grant is kept, and until when there is something to revoke: some
/// proxy may take its capabilities for live. The end is the recorded one, which no renewal passes: that of
/// a narrowed capability is earlier than that of others of its grant.
pub(crate) fn kept_until(record: &GrantRecord) -> i64 {
    beyond(record.end())
}

/// The end that block 0 says: that of a record which was lost, or is of a renewal.
fn signed_end(chain: &VerifiedChain) -> i64 {
    chain.links().first().map_or(i64::MIN, |link| link.expires_at)
}

/// A grant that ends at `end` counts nowhere any more.
fn beyond(end: i64) -> i64 {
    end.saturating_add(KEPT_BEYOND_END)
}

/// The newest record of a grant.
pub(crate) async fn grant_record(state: &State, id: &str) -> Result<Option<GrantRecord>, Refusal> {
    let found = state.store.grant(&state.parts.issuer, id).await;
    found.map_err(|error| Refusal::store(&error))
}

/// 32 bytes as a branch id is spelt.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
