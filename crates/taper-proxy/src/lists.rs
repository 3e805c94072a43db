//! Lists show only what the caller could use (RULES 12, M-32), in JSON answers and in event streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use taper_capability::json::{self, JsonLimits, Value};
use taper_capability::{Access, AccessKind, VerifiedPresentation};
use taper_policy::boundary;
use taper_service::clock::SharedClock;
use taper_service::edge::BoxError;
use taper_service::pool::CpuPool;

use crate::body::Body;
use crate::gate::Gate;
use crate::message::Era;
use crate::methods::List;
use crate::profile::Profile;
use crate::rules;
use crate::sse::Events;

/// How long the entries of one answer may take to decide: a list is one request, not a thousand.
pub(crate) const FILTER_TIME: Duration = Duration::from_secs(2);
/// The members of a result that hold lists.
const LISTS: [&str; 4] = [
    List::Tools.member(),
    List::Resources.member(),
    List::Templates.member(),
    List::Prompts.member(),
];

/// Filters the messages of one answer.
#[derive(Clone)]
pub(crate) struct ListFilter {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) presentation: Arc<VerifiedPresentation>,
    pub(crate) profile: Arc<Profile>,
    pub(crate) era: Era,
    /// The lists that the answer may hold: one for its request, all for a resumed stream.
    pub(crate) lists: &'static [List],
    /// How long the entries of one message may take to decide.
    pub(crate) time: Duration,
}

/// Why a list cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("the list is not strict JSON: {0}")]
    Json(#[from] json::JsonError),
    #[error("the answer is not one message")]
    NotAMessage,
    #[error("a key differs from another or from the protocol's in letter case only")]
    Folded,
    #[error("the entries could not be decided in time")]
    TooLong,
    #[error("the list is not an array")]
    NotAnArray,
    #[error("an event is too large")]
    TooLarge,
    #[error("no worker was free")]
    Busy,
    #[error("the upstream broke off")]
    Broken,
}

impl ListFilter {
    /// A message with its entries filtered; messages without a list come back as they are.
    pub(crate) async fn message(&self, message: Bytes) -> Result<Bytes, ListError> {
        let this = self.clone();
        let filtered = self.pool.run(move || this.filter(message)).await;
        filtered.map_err(|_| ListError::Busy)?
    }

    /// An event stream, filtered event by event.
    pub(crate) fn stream(self, body: Body) -> Body {
        let state = Some((self, body, Events::default()));
        let frames = stream::unfold(state, |state| async move {
            let (filter, mut body, mut events) = state?;
            loop {
                let item: Result<Option<Bytes>, ListError> = match body.frame().await {
                    None => return None,
                    Some(Err(_)) => Err(ListError::Broken),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => filter.events(&mut events, &data).await,
                        Err(_) => continue,
                    },
                };
                match item {
                    Ok(None) => {}
                    Ok(Some(bytes)) => return Some((Ok(Frame::data(bytes)), Some((filter, body, events)))),
                    Err(error) => {
                        tracing::warn!(%error, mcp.server = filter.profile.id, "a stream was cut");
                        return Some((Err(BoxError::from(error)), None));
                    }
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn events(&self, events: &mut Events, data: &[u8]) -> Result<Option<Bytes>, ListError> {
        let mut out = Vec::new();
        for event in events.push(data) {
            match event.data() {
                None => out.extend(event.into_bytes()),
                Some(message) => {
                    let message = Bytes::from(message);
                    let filtered = self.message(message.clone()).await?;
                    if filtered == message {
                        out.extend(event.into_bytes());
                    } else {
                        out.extend(event.with_data(&filtered));
                    }
                }
            }
        }
        if events.buffered() > self.profile.limits.max_list {
            return Err(ListError::TooLarge);
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    fn filter(&self, message: Bytes) -> Result<Bytes, ListError> {
        let limits = JsonLimits {
            bytes: self.profile.limits.max_list,
            depth: 64,
            nodes: 1 << 20,
            elements: 1 << 16,
        };
        let mut parsed = json::parse(&message, &limits)?;
        // A batch has no `result`, and another spelling may be what a client reads.
        if parsed.as_object().is_none() {
            return Err(ListError::NotAMessage);
        }
        if has_folded(&parsed, &["result"])
            || parsed
                .get("result")
                .is_some_and(|result| has_folded(result, &LISTS))
        {
            return Err(ListError::Folded);
        }
        let begun = tokio::time::Instant::now();
        let Some(Value::Object(result)) = member(&mut parsed, "result") else {
            return Ok(message);
        };
        let now = self.clock.unix();
        let mut filtered = false;
        for list in self.lists {
            match result.iter_mut().find(|(name, _)| name == list.member()) {
                None => {}
                Some((_, Value::Array(entries))) => {
                    let mut in_time = true;
                    entries.retain(|entry| {
                        in_time = in_time && begun.elapsed() < self.time;
                        in_time && rules::LIST.holds(self.shows(*list, entry, now))
                    });
                    if !in_time {
                        return Err(ListError::TooLong);
                    }
                    filtered = true;
                }
                Some(_) => return Err(ListError::NotAnArray),
            }
        }
        if !filtered {
            return Ok(message);
        }
        let private = Value::String("private".to_owned());
        match result.iter_mut().find(|(name, _)| name == "cacheScope") {
            Some((_, scope)) => *scope = private,
            None if self.era == Era::Modern => result.push(("cacheScope".to_owned(), private)),
            None => {}
        }
        Ok(Bytes::from(parsed.to_string()))
    }

    fn shows(&self, list: List, entry: &Value, now: i64) -> bool {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        let entry_of = |method: &str| {
            Access::new(
                AccessKind::ListEntry,
                &self.profile.id,
                &self.profile.resource,
                method,
            )
        };
        let access = match list {
            List::Tools => Access {
                tool: text("name"),
                ..entry_of("tools/call")
            },
            List::Prompts => Access {
                prompt: text("name"),
                ..entry_of("prompts/get")
            },
            List::Resources => Access {
                uri: text("uri"),
                ..entry_of("resources/read")
            },
            // What a template can yield begins with what stands before its first variable.
            List::Templates => Access {
                uri: text("uriTemplate").and_then(|uri| uri.split('{').next().map(str::to_owned)),
                ..entry_of("resources/read")
            },
        };
        boundary::visible(&self.gate.policy, &self.presentation, &access, now).is_some()
    }
}

/// Whether two keys of an object, or one of them and one of `keys`, differ in letter case only.
fn has_folded(object: &Value, keys: &[&str]) -> bool {
    let other_spelling = |name: &str| {
        keys.iter()
            .any(|key| *key != name && key.eq_ignore_ascii_case(name))
    };
    object.case_conflict().is_some()
        || object
            .as_object()
            .unwrap_or_default()
            .iter()
            .any(|(name, _)| other_spelling(name))
}

fn member<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match object {
        Value::Object(members) => members
            .iter_mut()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value),
        _ => None,
    }
}
