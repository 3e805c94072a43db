//! An answer lasts no longer than its permit (RULES 18, M-33): it is cut when the capability expires,
//! when something of it is revoked, and when the decision, asked again every 10 s, is no longer yes.
//!
//! An event stream is cut between two events and says why; any other answer breaks off, unless nothing
//! of it was sent: then its caller gets the refusal itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use taper_capability::json::Value;
use taper_capability::{Access, VerifiedPresentation};
use taper_policy::boundary::{self, Decision};
use taper_service::clock::SharedClock;
use taper_service::edge::BoxError;
use taper_service::pool::{CpuPool, PoolError};
use taper_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use crate::body::Body;
use crate::error;
use crate::events::Events;
use crate::gate::{Gate, refused};
use crate::refusal::Refusal;
use crate::rules;

const AGAIN: Duration = Duration::from_secs(10);
/// How often in a row it may be undecided whether a stream goes on.
const MAX_UNDECIDED: u8 = 3;

/// What an answer depends on.
pub(crate) struct Lease {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) presentation: Arc<VerifiedPresentation>,
    /// What was permitted: the access, and the reads that a subscription amounts to.
    pub(crate) accesses: Vec<Access>,
    pub(crate) expires_at: i64,
    /// When it was decided, in seconds since the Unix epoch.
    pub(crate) decided_at: i64,
    pub(crate) ending: Ending,
    pub(crate) shutdown: Shutdown,
}

/// What is said when an answer is cut.
pub(crate) struct Ending {
    pub(crate) server: String,
    pub(crate) decision_id: String,
    /// The id of the request that is answered.
    pub(crate) id: Option<Value>,
    /// Whether the stream answers nothing by itself and lasts until somebody ends it.
    pub(crate) standing: bool,
}

/// What is on its way back.
pub(crate) enum Flow {
    /// As it comes.
    Plain(Body),
    /// Event by event.
    Events(Events),
}

/// An answer that could not be ended otherwise than in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
struct Broken(Refusal);

struct State {
    lease: Lease,
    flow: Flow,
    expiry: Pin<Box<Sleep>>,
    again: Interval,
    changes: watch::Receiver<u64>,
    /// Whether nothing of the body was passed on yet.
    fresh: bool,
    /// Whether what was passed on ends with a whole event.
    boundary: bool,
    /// How often in a row it was undecided.
    undecided: u8,
}

/// The body, as long as its lease holds.
pub(crate) fn leased(flow: Flow, lease: Lease) -> Body {
    let left = lease.expires_at.saturating_sub(lease.clock.unix());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.reset();
    let changes = lease.gate.issuers.changes();
    let state = State {
        expiry: Box::pin(tokio::time::sleep(left)),
        lease,
        flow,
        again,
        changes,
        fresh: true,
        boundary: true,
        undecided: 0,
    };
    let frames = stream::unfold(Some(state), |state| async move { state?.next().await });
    StreamBody::new(frames).boxed_unsync()
}

type Next = Option<(Result<Frame<Bytes>, BoxError>, Option<State>)>;

impl State {
    async fn next(mut self) -> Next {
        // What was revoked between the answer's head and now is not in `changes`.
        if std::mem::take(&mut self.fresh)
            && let Err(refusal) = self.lease.check_now()
        {
            return self.cut(refusal);
        }
        loop {
            let standing = self.lease.ending.standing;
            let ask = tokio::select! {
                biased;
                () = self.expiry.as_mut() => {
                    // The wall clock decides; the timer only wakes.
                    self.expiry.as_mut().reset(tokio::time::Instant::now() + AGAIN);
                    true
                }
                _ = self.again.tick() => true,
                // Every stream hears of every revocation: only that is looked at, which needs no place in
                // the pool.
                Ok(()) = self.changes.changed() => false,
                // Requests are answered to their end, for which the listener has a deadline.
                () = self.lease.shutdown.cancelled(), if standing => return self.end(),
                next = self.flow.next() => match next? {
                    Ok((frame, boundary)) => {
                        self.boundary = boundary;
                        return Some((Ok(frame), Some(self)));
                    }
                    Err(error) => return Some((Err(error), None)),
                },
            };
            let checked = if ask {
                self.lease.check(&mut self.undecided).await
            } else {
                self.lease.check_now()
            };
            if let Err(refusal) = checked {
                return self.cut(refusal);
            }
        }
    }

    /// Ends a stream that answers nothing by itself.
    fn end(self) -> Next {
        let event = self.lease.ending.last().filter(|_| self.boundary)?;
        Some((Ok(Frame::data(event)), None))
    }

    /// Says why, where the answer has a place for it, and ends it.
    fn cut(self, refusal: Refusal) -> Next {
        let Self {
            lease,
            flow,
            boundary,
            ..
        } = self;
        lease.log(&refusal);
        let end = match flow {
            Flow::Events(_) if boundary => Ok(Frame::data(lease.ending.event(&refusal))),
            Flow::Events(_) | Flow::Plain(_) => Err(BoxError::from(Broken(refusal))),
        };
        Some((end, None))
    }
}

impl Flow {
    /// The next frame, and whether a whole event ends with it.
    async fn next(&mut self) -> Option<Result<(Frame<Bytes>, bool), BoxError>> {
        match self {
            Self::Plain(body) => Some(body.frame().await?.map(|frame| (frame, false))),
            Self::Events(events) => {
                let passed = events.next().await?;
                Some(passed.map(|passed| (Frame::data(passed.bytes), passed.boundary)))
            }
        }
    }
}

impl Ending {
    /// The answer to a request for notifications, which says that no more will come.
    fn last(&self) -> Option<Bytes> {
        let id = self.id.as_ref()?;
        let result = format!(
            r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#
        );
        let text =
            format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n\n");
        Some(Bytes::from(text))
    }

    /// The last event: the error that answers the request, or a comment where there is none.
    fn event(&self, refusal: &Refusal) -> Bytes {
        let text = match &self.id {
            Some(id) => {
                let error = error::cut(refusal, id, &self.decision_id);
                format!("event: message\ndata: {error}\n\n")
            }
            None => format!(": {} {}\n\n", rules::STREAM, error::why_cut(refusal).1),
        };
        Bytes::from(text)
    }
}

impl Lease {
    /// Whether the answer may begin: nothing has ended, and where the upstream took long, it would be
    /// allowed once more.
    ///
    /// # Errors
    /// What a new request would be told.
    pub(crate) async fn check_before(&self) -> Result<(), Refusal> {
        let waited = self.clock.unix().saturating_sub(self.decided_at);
        let checked = if u64::try_from(waited).is_ok_and(|waited| waited >= AGAIN.as_secs()) {
            self.check(&mut 0).await
        } else {
            self.check_now()
        };
        checked.inspect_err(|refusal| self.log(refusal))
    }

    /// Expiry and revocation.
    fn check_now(&self) -> Result<(), Refusal> {
        let checked = self.gate.recheck(self.presentation.chain(), self.clock.unix());
        if rules::STREAM.holds(checked.is_ok()) {
            Ok(())
        } else {
            checked
        }
    }

    /// Asks again; `undecided` counts how often in a row there was no answer.
    ///
    /// # Errors
    /// Why the answer ends.
    pub(crate) async fn check(&self, undecided: &mut u8) -> Result<(), Refusal> {
        self.check_now()?;
        let (gate, presentation) = (Arc::clone(&self.gate), Arc::clone(&self.presentation));
        let (accesses, now) = (self.accesses.clone(), self.clock.unix());
        let decided = self
            .pool
            .run(move || again(&gate, &presentation, accesses, now))
            .await;
        let refusal = match decided {
            Ok(Ok(())) => {
                *undecided = 0;
                return Ok(());
            }
            Ok(Err(refusal)) => refusal,
            Err(PoolError::Busy) => Refusal::Busy,
            Err(PoolError::Failed) => {
                *undecided = MAX_UNDECIDED;
                Refusal::Busy
            }
        };
        // A limit is not a denial; the next time is 10 s away. Lasting doubt ends the stream.
        if matches!(refusal, Refusal::Busy | Refusal::Indeterminate(_)) {
            *undecided = undecided.saturating_add(1);
            if *undecided < MAX_UNDECIDED {
                return Ok(());
            }
        }
        if rules::STREAM.holds(false) {
            return Ok(());
        }
        Err(refusal)
    }

    fn log(&self, refusal: &Refusal) {
        let (cause, grant) = (refusal.rule(), self.presentation.chain().grant_id());
        tracing::info!(rule = %rules::STREAM, %cause, mcp.server = self.ending.server, grant.id = grant, decision.id = self.ending.decision_id, reason = %refusal, "an answer was cut");
    }
}

/// Asks for every access of a stream. Each carries the calls that were counted at the beginning, so
/// none is counted again or denied by its own count (RULES 16).
fn again(
    gate: &Gate,
    presentation: &VerifiedPresentation,
    accesses: Vec<Access>,
    now: i64,
) -> Result<(), Refusal> {
    for access in accesses {
        match boundary::decide(&gate.policy, presentation, access, now) {
            Decision::Allow(_) => {}
            Decision::Deny(denial) => return Err(refused(denial, Vec::new())),
            Decision::Indeterminate(reason) => return Err(Refusal::Indeterminate(reason)),
        }
    }
    Ok(())
}
