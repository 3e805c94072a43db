//! The account of one request: what came of it, how long each part took, and one line in the log at its
//! end. It is closed when it is dropped, so a request that its caller gave up, or in which the program
//! panicked, has its line and its count as well.
//!
//! The same goes into the spans of its trace, where that is recorded (`traced`).

mod followed;
mod line;
mod parts;
mod spans;
mod words;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use taper_capability::VerifiedPresentation;
use taper_dpop::RuleId;
use taper_service::edge::CallerCertificate;
use taper_service::metrics::Held;
use taper_store::Outcome;
use tokio::time::Instant;

use self::followed::Followed;
use self::parts::{Phase, Phases};
pub(crate) use self::parts::{Worked, worked};
pub(crate) use self::words::{Came, End, Era, Kind};
use crate::body::Body;
use crate::gate::Judgement;
use crate::measured::Measured;
use crate::refusal::Refusal;
use crate::traced::{self, Trace, Traces};

/// The rule for which an answer was cut, known to who cuts it and to its account.
pub(crate) type Cause = Arc<OnceLock<RuleId>>;

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Account {
    measured: Arc<Measured>,
    _open: Held,
    started: Instant,
    /// Whether the line names the subject.
    names_subject: bool,
    server: usize,
    era: Era,
    kind: Kind,
    request_id: String,
    trace_id: Option<String>,
    /// Where it is recorded.
    trace: Option<Trace>,
    http_method: Method,
    method: Option<String>,
    tool: Option<String>,
    presentation: Option<Arc<VerifiedPresentation>>,
    /// What was decided, until the journal has it.
    pending: Option<(Outcome, Option<RuleId>)>,
    /// That the caller showed, if it did.
    certificate: Option<CallerCertificate>,
    decision: Option<Outcome>,
    came: Option<Came>,
    status: Option<StatusCode>,
    rule: Option<RuleId>,
    reason: Option<String>,
    end: Option<End>,
    cut: Cause,
    received: u64,
    sent: u64,
    phases: Phases,
}

impl Account {
    /// The account of a request whose head has just come.
    pub(crate) fn open(measured: &Arc<Measured>, request_id: &str, names_subject: bool) -> Self {
        Self {
            measured: Arc::clone(measured),
            _open: measured.open(),
            started: Instant::now(),
            names_subject,
            server: 0,
            era: Era::Unread,
            kind: Kind::Unread,
            request_id: request_id.to_owned(),
            trace_id: None,
            trace: None,
            http_method: Method::GET,
            method: None,
            tool: None,
            presentation: None,
            pending: None,
            certificate: None,
            decision: None,
            came: None,
            status: None,
            rule: None,
            reason: None,
            end: None,
            cut: Cause::default(),
            received: 0,
            sent: 0,
            phases: Phases::default(),
        }
    }

    /// It is a part of a trace, where it says so or `traces` are recorded; what the upstream shall know of
    /// that is put into `request`.
    pub(crate) fn within<B>(&mut self, request: &mut Request<B>, traces: Option<&Traces>, now_ms: i64) {
        self.http_method = request.method().clone();
        let headers = request.headers_mut();
        self.trace = traces.and_then(|traces| traces.begin(headers, now_ms));
        self.trace_id = match &self.trace {
            Some(trace) => Some(trace.id()),
            None => traced::context_of(headers).map(|context| context.trace_id()),
        };
    }

    /// It came over a connection with this certificate.
    pub(crate) fn certificate(&mut self, certificate: Option<&CallerCertificate>) {
        self.certificate = certificate.copied();
    }

    /// It is for this server.
    pub(crate) fn server(&mut self, id: &str) {
        self.server = self.measured.server(id);
    }

    /// It is a request for a page of the proxy's own.
    pub(crate) fn page(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// The capability and the proof were looked at.
    pub(crate) fn verified<T, E>(
        &mut self,
        submitted: Instant,
        worked: Worked<Result<T, E>>,
    ) -> Result<T, E> {
        self.waited(submitted, &worked);
        let phase = worked.phase();
        self.measured.verify.observe(phase.took);
        self.phases.verify = Some(phase);
        worked.result
    }

    /// Its presentation verified.
    pub(crate) fn presented(&mut self, presentation: &Arc<VerifiedPresentation>) {
        self.presentation = Some(Arc::clone(presentation));
    }

    /// Its body was read.
    pub(crate) fn received(&mut self, body: &Bytes) {
        self.received = body.len() as u64;
    }

    /// It was judged.
    pub(crate) fn judged(&mut self, submitted: Instant, worked: Worked<Judgement>) -> Judgement {
        self.waited(submitted, &worked);
        let phase = worked.phase();
        self.measured.decide.observe(phase.took);
        self.phases.decide = Some(phase);
        let judgement = worked.result;
        (self.era, self.kind) = judgement.read_as;
        // Of a method that nobody knows the name is the caller's text.
        if !matches!(self.kind, Kind::Unknown | Kind::Unread) {
            self.method = judgement.message.as_ref().map(|message| message.method.clone());
        }
        if let Some(record) = &judgement.record {
            self.tool = record
                .tool
                .as_ref()
                .filter(|tool| taper_capability::is_tool(tool))
                .cloned();
            let refusal = judgement.verdict.as_ref().err();
            self.pending = Some((record.outcome, refusal.map(Refusal::rule)));
        }
        judgement
    }

    fn waited<T>(&mut self, submitted: Instant, worked: &Worked<T>) {
        let waited = worked.waited(submitted);
        self.measured.queue.observe(waited);
        self.phases.queue = Some(self.phases.queue.unwrap_or_default().saturating_add(waited));
    }

    /// The journal was asked at `began` to take its decision, if there was one, and now has it or not.
    pub(crate) fn journaled(&mut self, began: Instant, has_it: bool) {
        let Some((outcome, rule)) = self.pending.take() else {
            return;
        };
        if has_it {
            self.decision = Some(outcome);
            self.measured.decided(outcome, rule);
        }
        let took = began.elapsed();
        self.phases.journal = Some(Phase { began, took });
        self.measured.journal.observe(took);
    }

    /// The upstream answered, or did not, since `began`.
    pub(crate) fn returned(&mut self, began: Instant) {
        let took = began.elapsed();
        self.phases.upstream = Some(Phase { began, took });
        self.measured.upstream(self.server, took);
    }

    /// Who cuts its answer notes the cause there.
    pub(crate) fn cut_by(&mut self, cause: &Cause) {
        self.cut = Arc::clone(cause);
    }

    /// It is refused.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        let rule = refusal.rule();
        self.rule = Some(rule);
        self.reason = Some(refusal.to_string());
        self.measured.refused(rule);
        self.came(match (refusal, self.decision) {
            (Refusal::Upstream(_) | Refusal::UpstreamStatus(_) | Refusal::UpstreamToken(_), _) => {
                Came::Failed
            }
            (refusal, _) if refusal.may_pass_later() => Came::Undecided,
            (_, Some(Outcome::Deny)) => Came::Denied,
            _ => Came::Refused,
        });
    }

    fn came(&mut self, came: Came) {
        self.came = Some(came);
        let took = self.started.elapsed();
        self.phases.head = Some(took);
        self.measured.came(self.server, self.era, self.kind, came);
        if self.presentation.is_some() && !matches!(came, Came::Aborted | Came::Panicked) {
            self.measured.head.observe(took);
        }
    }

    /// Its answer goes out now; the account is closed when that has ended.
    pub(crate) fn follow(mut self, response: Response<Body>) -> Response<Body> {
        self.status = Some(response.status());
        if self.came.is_none() {
            self.came(Came::Answered);
        }
        // Nobody takes the body of an answer to HEAD.
        if self.http_method == Method::HEAD || response.body().is_end_stream() {
            self.end = Some(End::Complete);
        }
        response.map(|body| Followed::new(body, self).boxed_unsync())
    }

    fn close(&mut self) {
        if self.came.is_none() {
            let panicked = std::thread::panicking();
            if panicked {
                self.measured.panics.add();
            }
            self.came(if panicked { Came::Panicked } else { Came::Aborted });
        }
        let end = match (self.end, self.cut.get(), self.status) {
            (Some(End::Complete), None, _) => End::Complete,
            (_, Some(_), _) => End::Cut,
            (Some(end), None, _) => end,
            (None, None, _) => End::Left,
        };
        self.end = Some(end);
        let cause = self.cut.get().copied();
        self.measured
            .ended(self.server, end, cause, self.received, self.sent);
        let is_told = self.write();
        if let Some(trace) = self
            .trace
            .take()
            .filter(|trace| is_told && trace.counts(self.presentation.is_some()))
        {
            self.record(&trace);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}
