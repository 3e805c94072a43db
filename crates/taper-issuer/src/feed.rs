//! `GET /revocations?after=SEQ&wait=SECONDS`: the feed of revocations, as a long poll (RULES 29).
//!
//! ```json
//! {"entries":[{"seq":4,"at":1767225600,"issuer":"…","what":{"grant":"…"}}],"head":4,"upto":4,"time":1767225601}
//! ```

use std::time::Duration;

use axum::extract::{RawQuery, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use taper_oauth::{ErrorCode, Form};
use taper_store::{RevocationPage, Revocations as _};

use crate::error::Refusal;
use crate::state::State;
use crate::{http, rules};

/// The longest wait, in seconds.
const MAX_WAIT: u64 = 60;
/// The most entries in one answer; the reader asks again from the last one.
const MAX_ENTRIES: usize = 1000;

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Only entries with a higher number.
    #[serde(default)]
    after: u64,
    /// How long to wait for one, in seconds.
    #[serde(default)]
    wait: u64,
}

/// The endpoint.
pub(crate) async fn revocations(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
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
    let Query { after, wait } = parse(query)?;
    let mut page = read(state, after).await?;
    // A reader ahead of the head is not kept waiting: it has to see that the feed went back.
    if page.entries.is_empty() && page.head == after && wait > 0 {
        tokio::select! {
            _ = state.store.wait_past(after) => {}
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
            () = state.parts.tasks.cancelled() => {}
        }
        page = read(state, after).await?;
    }
    let answer = json!({
        "entries": page.entries,
        "head": page.head,
        "upto": page.upto,
        "time": state.clock.unix(),
    });
    Ok(http::json(StatusCode::OK, &answer))
}

async fn read(state: &State, after: u64) -> Result<RevocationPage, Refusal> {
    state
        .store
        .revocations_after(after, MAX_ENTRIES)
        .await
        .map_err(|error| Refusal::store(&error))
}

fn parse(query: &str) -> Result<Query, Refusal> {
    let malformed = || {
        Refusal::new(
            rules::FORM,
            ErrorCode::InvalidRequest,
            format!("the query is `after` (a number) and `wait` (0 to {MAX_WAIT} seconds)"),
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
        let check = |query: &str, expected: Option<(u64, u64)>| {
            let parsed = parse(query).ok().map(|query| (query.after, query.wait));
            assert_eq!(parsed, expected, "{query}");
        };
        check("", Some((0, 0)));
        check("after=7", Some((7, 0)));
        check("after=7&wait=60", Some((7, 60)));
        check("wait=61", None);
        check("after=-1", None);
        check("after=1&after=2", None);
        check("before=1", None);
    }
}
