//! Lists show only what the caller could use (RULES 12, M-32), in JSON answers and in event streams.

mod read;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taper_capability::json::Value;
use taper_capability::{Access, AccessKind, VerifiedPresentation};
use taper_policy::boundary::{self, Hidden};
use taper_service::clock::SharedClock;
use taper_service::pool::{CpuPool, PoolError};

use self::read::{Read, ReadError};
use crate::catalogue::{Catalogue, Needed, facts};
use crate::events::{LARGE, answer_limits};
use crate::gate::Gate;
use crate::limits::Limiter;
use crate::message::Era;
use crate::methods::List;
use crate::profile::Profile;
use crate::refusal::Refusal;
use crate::rules;
use crate::session::Owner;
use crate::sse::Event;
use crate::tasks::Tasks;

/// How long the entries of one answer may take to decide: a list is one request, not a thousand.
pub(crate) const FILTER_TIME: Duration = Duration::from_secs(2);
/// The members of a result that hold lists.
const LISTS: [&str; 5] = [
    List::Tools.member(),
    List::Resources.member(),
    List::Templates.member(),
    List::Prompts.member(),
    List::Tasks.member(),
];
/// After what time a stream asks again for a worker.
const RETRY: Duration = Duration::from_millis(50);

/// Filters the messages of one answer.
#[derive(Clone)]
pub(crate) struct ListFilter {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) presentation: Arc<VerifiedPresentation>,
    pub(crate) profile: Arc<Profile>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) era: Era,
    /// The lists that the answer may hold: one for its request, all for a resumed stream.
    pub(crate) lists: &'static [List],
    /// How long the entries of one message may take to decide.
    pub(crate) time: Duration,
}

/// Why a list cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the entries could not be decided in time")]
    TooLong,
    #[error("an event is too large")]
    TooLarge,
    #[error("no worker was free")]
    Busy,
    #[error("the work ended without an answer")]
    Failed,
}

impl ListError {
    /// What the caller is told: what the upstream did, or that it could not be decided.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Busy | Self::Failed => Refusal::Busy,
            Self::TooLong => Refusal::Indeterminate(self.to_string()),
            _ => Refusal::Upstream("its list cannot be filtered"),
        }
    }

    /// Whether the message is at fault, and will be whenever it comes.
    fn is_of_the_message(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::TooLong | Self::TooLarge | Self::Busy | Self::Failed => false,
        }
    }
}

impl ListFilter {
    /// A message with its entries filtered; messages without a list come back as they are.
    pub(crate) async fn message(&self, message: Bytes) -> Result<Bytes, ListError> {
        let this = self.clone();
        let filtered = self.pool.run(move || this.filter(message)).await;
        filtered.map_err(|error| match error {
            PoolError::Busy => ListError::Busy,
            PoolError::Failed => ListError::Failed,
        })?
    }

    /// The same for a message of a stream, which waits until a worker is free: its lease ends it if that
    /// takes too long. A small one without a list needs none.
    pub(crate) async fn in_turn(&self, message: Bytes) -> Result<Bytes, ListError> {
        if message.len() < LARGE {
            let read = self.read(&message)?;
            if !self.lists.iter().any(|list| read.holds(list.member())) {
                return Ok(message);
            }
        }
        loop {
            match self.message(message.clone()).await {
                Err(ListError::Busy) => tokio::time::sleep(RETRY).await,
                filtered => return filtered,
            }
        }
    }

    /// An event with its entries filtered; one without a list comes back as it is, but for lines in which a
    /// client could find another one. `None` is an event of a
    /// stream opened by GET that is left out, since nobody can tell whether a client would find a list in it.
    pub(crate) async fn event(&self, event: Event) -> Result<Option<Bytes>, ListError> {
        let Some(message) = event.data().map(Bytes::from) else {
            return Ok(Some(event.plain()));
        };
        let server = &self.profile.id;
        match self.in_turn(message.clone()).await {
            Ok(filtered) if filtered == message => Ok(Some(event.plain())),
            Ok(filtered) => Ok(Some(Bytes::from(event.with_data(&filtered)))),
            // Cut for it, a stream that its client resumes would be cut there for ever.
            Err(error) if self.lists == List::ALL && error.is_of_the_message() => {
                tracing::warn!(%error, mcp.server = server, "an event was left out of a stream");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, mcp.server = server, "a stream was cut");
                Err(error)
            }
        }
    }

    fn read(&self, message: &[u8]) -> Result<Read, ReadError> {
        Read::new(message, &answer_limits(self.profile.limits.max_list), &LISTS)
    }

    /// A list of which entries could not be decided counts as one decision that could not (M-41).
    fn filter(&self, message: Bytes) -> Result<Bytes, ListError> {
        let mut undecided = false;
        let filtered = self.filtered(message, &mut undecided);
        if undecided || matches!(filtered, Err(ListError::TooLong)) {
            self.limiter.undecided(self.presentation.chain());
        }
        filtered
    }

    fn filtered(&self, message: Bytes, undecided: &mut bool) -> Result<Bytes, ListError> {
        let mut read = self.read(&message)?;
        let begun = tokio::time::Instant::now();
        let now = self.clock.unix();
        let needed = Needed::by(&self.gate.policy, self.presentation.chain());
        let mut filtered = false;
        for list in self.lists {
            let mut in_time = true;
            filtered |= read.keep(list.member(), |entry| {
                in_time = in_time && begun.elapsed() < self.time;
                in_time && rules::LIST.holds(self.shows(*list, entry, needed, now, undecided))
            })?;
            if !in_time {
                return Err(ListError::TooLong);
            }
        }
        if !filtered {
            return Ok(message);
        }
        Ok(Bytes::from(read.into_private(self.era == Era::Modern)))
    }

    fn shows(&self, list: List, entry: &Value, needed: Needed, now: i64, undecided: &mut bool) -> bool {
        // What a client may take for another entry is not one that may be shown.
        let text = |name: &str| {
            let value = entry.get(name).filter(|_| !entry.has_other_spelling(name));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        let entry_of = |method: &str| {
            Access::new(
                AccessKind::ListEntry,
                &self.profile.id,
                &self.profile.resource,
                method,
            )
        };
        let access = match list {
            // A task is no more than a name to others.
            List::Tasks => {
                let owner = Owner::of(self.presentation.chain());
                return text("taskId").is_some_and(|task| self.tasks.is_owned(&task, &owner));
            }
            List::Tools => {
                // The entry speaks for itself; a call goes by what the proxy was told.
                let told = (needed.any() || self.catalogue.pinned().is_some()).then(|| facts(entry));
                let digest = told.as_ref().and_then(|told| told.digest.as_deref());
                if !rules::PINS.holds(self.catalogue.shows(entry, digest)) {
                    return false;
                }
                let facts = told.filter(|_| needed.any());
                if !rules::FACTS.holds(facts.as_ref().is_none_or(|facts| needed.met_by(facts))) {
                    return false;
                }
                Access {
                    tool: text("name"),
                    tool_facts: facts,
                    ..entry_of("tools/call")
                }
            }
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
        let shown = boundary::visible(&self.gate.policy, &self.presentation, &access, now);
        *undecided |= matches!(shown, Err(Hidden::Undecided));
        shown.is_ok()
    }
}
