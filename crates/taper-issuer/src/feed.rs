//! `GET /revocations?after=SEQ&wait=SECONDS&known=SEQ`: the feed of revocations, as a long poll
//! (RULES 29, `spec/revocation.md`).
//!
//! ```json
//! {"issuer":"https://issuer.example","after":3,
//!  "entries":[{"seq":4,"at":1767225600,"issuer":"https://issuer.example","what":{"grant":"…"},"until":1767229260}],
//!  "head":4,"upto":4,"history":"…","known":{"seq":3,"history":"…"},"time":1767225601}
//! ```
//!
//! The header `Taper-Signature` is a detached JWS over exactly these bytes by the current root key, so
//! a reader trusts a page for what it says and not for the way that it came.

use std::time::Duration;

use axum::extract::{RawQuery, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use taper_oauth::{ErrorCode, Form};
use taper_store::{
    FEED_BYTES, FEED_ENTRIES, FEED_SIGNATURE, FEED_TYP, FeedKnown, FeedPage, History, Revocation,
    RevocationPage, Revocations as _, StoreError,
};

use crate::error::Refusal;
use crate::state::State;
use crate::{http, rules};

/// The longest wait, in seconds.
const MAX_WAIT: u64 = 60;
const SIGNATURE: HeaderName = HeaderName::from_static(FEED_SIGNATURE);

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Only entries with a higher number.
    #[serde(default)]
    after: u64,
    /// How long to wait for one, in seconds.
    #[serde(default)]
    wait: u64,
    /// A number whose history the reader wants to hear again.
    known: Option<u64>,
}

/// The endpoint.
pub(crate) async fn revocations(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let _reader = state.metrics.reader();
    let outcome = page(&state, &headers, query.as_deref().unwrap_or_default()).await;
    state.answer("revocations", outcome)
}

async fn page(state: &State, headers: &HeaderMap, query: &str) -> Result<Response, Refusal> {
    // The client authenticates by header; an empty form has no parameters to do so.
    let form = Form::parse(b"", 0).map_err(|answer| Refusal::answered(rules::FORM, answer))?;
    let client = state.parts.clients.authenticate(headers, &form)?;
    if !rules::PRIVILEGE.holds(client.may_read_feed()) {
        return Err(Refusal::new(
            rules::PRIVILEGE,
            ErrorCode::UnauthorizedClient,
            "this client may not read the feed",
        ));
    }
    let query = parse(query)?;
    // Before the state is read: a page must not claim to be newer than what it was read from.
    let mut time = state.clock.unix();
    let mut page = read(state, query.after).await?;
    // A reader ahead of the head is not kept waiting: it has to see that the feed went back.
    if page.upto == query.after && page.head == query.after && query.wait > 0 {
        tokio::select! {
            _ = state.store.wait_past(query.after) => {}
            () = tokio::time::sleep(Duration::from_secs(query.wait)) => {}
            () = state.parts.tasks.cancelled() => {}
        }
        time = state.clock.unix();
        page = read(state, query.after).await?;
    }
    let known = match query.known {
        None => None,
        Some(seq) => {
            let history = state.store.history_at(seq).await;
            let history = history.map_err(|error| Refusal::store(&error))?.map(History);
            Some(FeedKnown { seq, history })
        }
    };
    let page = FeedPage {
        issuer: state.parts.issuer.clone(),
        after: query.after,
        entries: page.entries,
        head: page.head,
        upto: page.upto,
        history: History(page.history),
        known,
        time,
    };
    signed(state, page).await
}

/// A page of bounded size. What another issuer revoked in the same state is left out of it.
async fn read(state: &State, after: u64) -> Result<RevocationPage, Refusal> {
    let failed = |error: StoreError| Refusal::store(&error);
    let page = state.store.revocations_after(after, FEED_ENTRIES).await;
    let mut page = page.map_err(failed)?;
    let fits = fitting(&page.entries);
    if fits < page.entries.len() {
        page.entries.truncate(fits);
        page.upto = page.entries.last().map_or(after, |entry| entry.seq);
        let history = state.store.history_at(page.upto).await.map_err(failed)?;
        page.history = history.ok_or_else(|| failed(StoreError::State("the feed has no history".into())))?;
    }
    page.entries.retain(|entry| entry.issuer == state.parts.issuer);
    Ok(page)
}

/// How many entries a page carries. One goes out whatever its size: the request that made it was bounded.
fn fitting(entries: &[Revocation]) -> usize {
    let mut bytes = 0_usize;
    let fit = entries.iter().take_while(|entry| {
        let json = serde_json::to_vec(entry).unwrap_or_default();
        bytes = bytes.saturating_add(json.len());
        bytes <= FEED_BYTES
    });
    fit.count().max(1)
}

/// The answer with the signature over its bytes. Signing a large page takes milliseconds, and must not
/// wait behind the requests of clients: neither a runtime thread nor the pool does it.
async fn signed(state: &State, page: FeedPage) -> Result<Response, Refusal> {
    let shared = State::clone(state);
    let sign = move || {
        let body = serde_json::to_vec(&page).ok()?;
        let key = shared.parts.keys.first()?;
        let signature = key.sign_detached(FEED_TYP, &body).ok()?;
        Some((body, HeaderValue::try_from(signature).ok()?))
    };
    let done = tokio::task::spawn_blocking(sign).await.ok().flatten();
    let unsigned = || StoreError::State("a page of the feed could not be signed".into());
    let (body, signature) = done.ok_or_else(|| Refusal::store(&unsigned()))?;
    let mut response = http::json_bytes(StatusCode::OK, body);
    response.headers_mut().insert(SIGNATURE, signature);
    Ok(response)
}

fn parse(query: &str) -> Result<Query, Refusal> {
    let malformed = || {
        Refusal::new(
            rules::FORM,
            ErrorCode::InvalidRequest,
            format!("the query is `after` and `known` (numbers) and `wait` (0 to {MAX_WAIT} seconds)"),
        )
    };
    let query: Query = serde_urlencoded::from_str(query).map_err(|_| malformed())?;
    if query.wait > MAX_WAIT {
        return Err(malformed());
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let check = |query: &str, expected: Option<(u64, u64, Option<u64>)>| {
            let parsed = parse(query).ok();
            let parsed = parsed.map(|query| (query.after, query.wait, query.known));
            assert_eq!(parsed, expected, "{query}");
        };
        check("", Some((0, 0, None)));
        check("after=7", Some((7, 0, None)));
        check("after=7&wait=60&known=5", Some((7, 60, Some(5))));
        check("known=", None);
        check("wait=61", None);
        check("after=-1", None);
        check("after=1&after=2", None);
        check("before=1", None);
    }
}
