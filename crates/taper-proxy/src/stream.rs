//! An answer lasts no longer than its permit (RULES 18, M-33): it is cut when the capability expires,
//! when something of it is revoked, and when the decision, asked again every 10 s, is no longer yes.
//!
//! An event stream is cut between two events and says why; any other answer breaks off, unless nothing
//! of it was sent: then its caller gets the refusal itself. None of this waits for the caller to read.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use memchr::memmem;
use taper_capability::json::{self, Value};
use taper_capability::{Access, VerifiedPresentation};
use taper_policy::boundary::{self, Decision};
use taper_service::clock::SharedClock;
use taper_service::edge::{BoxError, read_body};
use taper_service::pool::{CpuPool, PoolError};
use taper_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use crate::account::Cause;
use crate::body::Body;
use crate::error;
use crate::events::{Events, answer_limits};
use crate::gate::{Gate, refused};
use crate::handover::{Giver, handover};
use crate::limits::Place;
use crate::refusal::Refusal;
use crate::rules;
use crate::sse::Event;

const AGAIN: Duration = Duration::from_secs(10);
/// How long a stream waits until it may be decided again: thousands that were opened together are asked about together.
const TURN: Duration = Duration::from_secs(1);
/// How often in a row it may be undecided whether a stream goes on.
const MAX_UNDECIDED: u8 = 3;
/// Up to this size an answer whose size is known is read whole before its head goes out, in bytes. So
/// much may wait for each request of a connection without a place.
const SHORT: u64 = 16 * 1024;
/// What a caller has to take within its time, in bytes: a slow one takes large events too.
const PIECE: usize = 64 * 1024;
/// How large an event is kept to see whether it was the answer, in bytes.
const KEPT: usize = 16 * 1024;

/// What an answer depends on.
pub(crate) struct Lease {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) presentation: Arc<VerifiedPresentation>,
    /// What was permitted: the access, and the reads that a subscription amounts to.
    pub(crate) accesses: Vec<Arc<Access>>,
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
    /// Where it is noted why.
    pub(crate) cut: Cause,
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

/// Where an answer goes.
pub(crate) struct Way {
    /// What the answer takes up. It is free when the answer has ended, whether its caller reads or not.
    pub(crate) place: Option<Place>,
    /// How long a piece may wait for a caller that does not take it.
    pub(crate) caller_idle: Duration,
}

/// An answer that could not be ended otherwise than in the middle.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the answer was cut: {0}")]
    Cut(Refusal),
    #[error("the caller did not take the answer")]
    NotTaken,
    #[error("the proxy ends")]
    Ending,
}

/// A piece on offer.
struct Offered {
    /// Whether the stream could end after it.
    boundary: bool,
    /// The event, where it may be what answers the request.
    answer: Option<Seen>,
    /// When it is given up.
    until: Instant,
}

/// An event that may be what answers the request.
#[derive(Clone)]
enum Seen {
    /// It is read when that matters.
    Event(Bytes),
    /// Too large to be kept: taken for the answer.
    Large,
}

struct State {
    lease: Lease,
    flow: Flow,
    giver: Giver,
    caller_idle: Duration,
    /// What follows the piece on offer, and whether the stream could end after it.
    rest: Option<(Bytes, bool)>,
    offered: Option<Offered>,
    expiry: Pin<Box<Sleep>>,
    again: Interval,
    changes: watch::Receiver<u64>,
    /// Whether what was taken ends with a whole event.
    boundary: bool,
    /// The last that was taken and may have answered the request.
    answered: Option<Seen>,
    /// How often in a row it was undecided.
    undecided: u8,
}

/// What happened.
enum Now {
    /// Something that calls for another decision.
    Ask,
    /// Something was revoked.
    Look,
    /// The piece on offer was taken.
    Taken,
    /// The upstream has sent something, or ended.
    Came(Option<Result<(Bytes, bool), BoxError>>),
    /// Nobody reads any more, or the proxy ends.
    Left,
    NotTaken,
    Shutdown,
}

/// The whole of an answer that is short and known to be: its upstream and its place need not wait for a
/// caller that does not read. Others come back as they are.
///
/// # Errors
/// M-30 when it breaks off or takes longer than `time`.
pub(crate) async fn short(flow: Flow, time: Duration) -> Result<Result<Bytes, Flow>, Refusal> {
    match flow {
        Flow::Plain(body) if body.size_hint().exact().is_some_and(|size| size <= SHORT) => {
            let whole = read_body(body, SHORT as usize, time).await;
            whole
                .map(Ok)
                .map_err(|_| Refusal::Upstream("its answer broke off"))
        }
        flow => Ok(Err(flow)),
    }
}

/// The body, as long as its lease holds. A task of its own ends the answer, its request to the upstream
/// and its place also while the caller does not read, when nobody asks for the body.
pub(crate) fn leased(flow: Flow, lease: Lease, way: Way) -> Body {
    let left = lease.expires_at.saturating_sub(lease.clock.unix());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.reset();
    let changes = lease.gate.issuers.changes();
    let (giver, taker) = handover();
    let Way { place, caller_idle } = way;
    let shutdown = lease.shutdown.clone();
    let state = State {
        expiry: Box::pin(tokio::time::sleep(left)),
        lease,
        flow,
        giver,
        caller_idle,
        rest: None,
        offered: None,
        again,
        changes,
        boundary: true,
        answered: None,
        undecided: 0,
    };
    shutdown.spawn("answer", async move {
        let giver = state.run().await;
        // Whoever learns of the end finds the place free.
        drop(place);
        drop(giver);
    });
    taker.boxed_unsync()
}

impl State {
    /// Until the answer has ended, of which only its last piece is left then.
    async fn run(mut self) -> Giver {
        // What was revoked between the answer's head and now is not in `changes`.
        if let Err(refusal) = self.lease.check_now() {
            return self.cut(refusal);
        }
        loop {
            let now = self.next().await;
            let checked = match now {
                Now::Ask => self.lease.check(&mut self.undecided).await,
                Now::Look => self.lease.check_now(),
                Now::Taken => {
                    self.taken();
                    self.offer_rest();
                    continue;
                }
                Now::Came(Some(Ok((bytes, boundary)))) => {
                    self.rest = Some((bytes, boundary));
                    self.offer_rest();
                    continue;
                }
                Now::Came(None) | Now::Left => return self.giver,
                Now::Came(Some(Err(error))) => {
                    self.giver.offer(Err(error));
                    return self.giver;
                }
                Now::NotTaken if rules::PLACES.holds(false) => {
                    self.wait_again();
                    continue;
                }
                Now::NotTaken => return self.give_up(),
                Now::Shutdown => return self.end(),
            };
            if let Err(refusal) = checked {
                return self.cut(refusal);
            }
        }
    }

    async fn next(&mut self) -> Now {
        let offered = self.offered.as_ref().map(|offered| offered.until);
        let until = offered.unwrap_or_else(Instant::now);
        let standing = self.lease.ending.standing && matches!(self.flow, Flow::Events(_));
        tokio::select! {
            biased;
            () = self.giver.left() => Now::Left,
            () = self.expiry.as_mut() => {
                // The wall clock decides; the timer only wakes.
                self.expiry.as_mut().reset(Instant::now() + AGAIN);
                Now::Ask
            }
            _ = self.again.tick() => Now::Ask,
            // Every stream hears of every revocation: only that is looked at, which needs no place in
            // the pool.
            Ok(()) = self.changes.changed() => Now::Look,
            () = self.giver.taken(), if offered.is_some() => Now::Taken,
            () = tokio::time::sleep_until(until), if offered.is_some() => Now::NotTaken,
            // Requests are answered to their end, for which the listener has a deadline.
            () = self.lease.shutdown.cancelled(), if standing && offered.is_none() => Now::Shutdown,
            next = self.flow.next(), if offered.is_none() => Now::Came(next),
        }
    }

    /// Offers what is left of what came, in pieces of which each may take its time.
    fn offer_rest(&mut self) {
        let Some((mut rest, boundary)) = self.rest.take() else {
            return;
        };
        let piece = rest.split_to(rest.len().min(PIECE));
        let last = rest.is_empty();
        let answer = match &self.flow {
            Flow::Events(_) if last && boundary && self.lease.ending.id.is_some() => {
                // What ends in the middle of an event is the end of one that passed in parts.
                if self.boundary {
                    Seen::in_event(&piece)
                } else {
                    Some(Seen::Large)
                }
            }
            Flow::Events(_) | Flow::Plain(_) => None,
        };
        if !last {
            self.rest = Some((rest, boundary));
        }
        self.giver.offer(Ok(piece));
        self.offered = Some(Offered {
            boundary: last && boundary,
            answer,
            until: Instant::now() + self.caller_idle,
        });
    }

    fn wait_again(&mut self) {
        if let Some(offered) = &mut self.offered {
            offered.until = Instant::now() + self.caller_idle;
        }
    }

    /// What was on offer has reached the caller.
    fn taken(&mut self) {
        if let Some(offered) = self.offered.take() {
            self.boundary = offered.boundary;
            self.answered = offered.answer.or_else(|| self.answered.take());
        }
    }

    /// Takes back what was not taken. Whether the answer could end here.
    fn stop(&mut self) -> bool {
        if !self.giver.withdraw() {
            self.taken();
        }
        self.boundary && matches!(self.flow, Flow::Events(_))
    }

    /// Whether the request was answered already.
    fn is_answered(&self) -> bool {
        match (&self.answered, &self.lease.ending.id) {
            (Some(Seen::Event(event)), Some(id)) => answers(event, id),
            (Some(Seen::Large), _) => true,
            _ => false,
        }
    }

    /// Ends a stream that answers nothing by itself.
    fn end(mut self) -> Giver {
        if self.stop() {
            if let Some(event) = self.lease.ending.last().filter(|_| !self.is_answered()) {
                self.giver.offer(Ok(event));
            }
        } else {
            self.giver.offer(Err(Broken::Ending.into()));
        }
        self.giver
    }

    /// Says why, where the answer has a place for it, and ends it.
    fn cut(mut self, refusal: Refusal) -> Giver {
        self.lease.log(&refusal);
        // Of two causes the first counts.
        let _ = self.lease.ending.cut.set(refusal.rule());
        let end = if self.stop() {
            Ok(self.lease.ending.event(&refusal, self.is_answered()))
        } else {
            Err(Broken::Cut(refusal).into())
        };
        self.giver.offer(end);
        self.giver
    }

    /// Ends an answer that nobody takes.
    fn give_up(self) -> Giver {
        let (server, chain) = (self.lease.ending.server.as_str(), self.lease.presentation.chain());
        tracing::info!(rule = %rules::PLACES, mcp.server = server, grant.id = chain.grant_id(), decision.id = self.lease.ending.decision_id, "an answer was cut: its caller does not take it");
        let _ = self.lease.ending.cut.set(rules::PLACES);
        self.giver.offer(Err(Broken::NotTaken.into()));
        self.giver
    }
}

impl Flow {
    /// The next bytes, and whether a whole event ends with them.
    async fn next(&mut self) -> Option<Result<(Bytes, bool), BoxError>> {
        loop {
            let next = match self {
                // Trailers do not pass.
                Self::Plain(body) => body
                    .frame()
                    .await
                    .map(|frame| frame.map(|frame| (frame.into_data().unwrap_or_default(), false))),
                Self::Events(events) => events
                    .next()
                    .await
                    .map(|passed| passed.map(|passed| (passed.bytes, passed.boundary))),
            };
            match next {
                Some(Ok((bytes, _))) if bytes.is_empty() => {}
                next => return next,
            }
        }
    }
}

impl Seen {
    /// Whether an event may be an answer, without reading it: nobody writes the two keys with escapes.
    fn in_event(event: &Bytes) -> Option<Self> {
        let has = |key: &[u8]| memmem::find(event, key).is_some();
        if !has(b"\"result\"") && !has(b"\"error\"") {
            return None;
        }
        Some(if event.len() > KEPT {
            Self::Large
        } else {
            // A copy: a slice may hold on to a buffer of many.
            Self::Event(Bytes::copy_from_slice(event))
        })
    }
}

/// Whether an event is the answer to the request `id`.
fn answers(event: &Bytes, id: &Value) -> bool {
    let Some(data) = Event::new(event.clone()).data() else {
        return false;
    };
    json::parse(&data, &answer_limits(KEPT)).is_ok_and(|message| {
        message.get("id") == Some(id)
            && message.get("method").is_none()
            && (message.get("result").is_some() || message.get("error").is_some())
    })
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

    /// The last event: the error that answers the request, or a comment where there is none or it was
    /// `answered`.
    fn event(&self, refusal: &Refusal, answered: bool) -> Bytes {
        let text = match self.id.as_ref().filter(|_| !answered) {
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
            .run_behind(TURN, move || again(&gate, &presentation, accesses, now))
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
    accesses: Vec<Arc<Access>>,
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
