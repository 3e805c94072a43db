//! The account of one request: what came of it, how long each part took, and one line in the log at its
//! end. It is closed when it is dropped, so a request that its caller gave up, or in which the program
//! panicked, has its line and its count as well.
//!
//! The same goes into the spans of its trace, where that is recorded (`traced`).
//!
//! A line says what a check admitted, never a header or an argument. The target is `taper::request`. What
//! is refused before there is a presentation, or because its proof was used before, anybody can cause: such
//! lines are of the debug level beyond so many a second, counted, and without spans (RULES 30).

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use taper_capability::{AccessKind, VerifiedPresentation};
use taper_dpop::RuleId;
use taper_dpop::rule::r;
use taper_service::edge::{BoxError, CallerCertificate};
use taper_service::metrics::Held;
use taper_service::spans::Value;
use taper_store::Outcome;
use tokio::time::Instant;

use crate::body::Body;
use crate::gate::Judgement;
use crate::measured::Measured;
use crate::message;
use crate::methods::{Class, Subject};
use crate::refusal::Refusal;
use crate::rules;
use crate::traced::{self, Part, Trace, Traces};

/// Levels of the line, as parameters.
const DEBUG: u8 = 0;
const INFO: u8 = 1;
const WARN: u8 = 2;

/// Names of the values of a label, in the order of the enumeration.
macro_rules! words {
    ($(#[doc = $what:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Its words, in this order.
            pub(crate) const NAMES: &'static [&'static str] = &[$($word),+];

            /// Its word.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// The era of a request's message.
    Era {
        /// No message was read.
        Unread = "none",
        /// Up to 2025-11-25.
        Legacy = "legacy",
        /// 2026-07-28 and later.
        Modern = "modern",
    }
}

words! {
    /// What a request is.
    Kind {
        /// Nothing of it was read, or it is for nobody here.
        Unread = "none",
        /// `tools/call`.
        Tool = "tool",
        /// A list of tools, resources, templates, prompts or tasks.
        List = "list",
        /// `resources/*` about one resource.
        Resource = "resource",
        /// `prompts/get`.
        Prompt = "prompt",
        /// `completion/complete`.
        Completion = "completion",
        /// `tasks/*` about one task.
        Task = "task",
        /// `logging/setLevel`.
        Logging = "logging",
        /// `subscriptions/listen`, and GET within a session.
        Stream = "stream",
        /// `initialize`, `ping`, `server/discover`, notifications.
        Plumbing = "plumbing",
        /// A method that the operator added.
        Extra = "extra",
        /// A method that nobody knows.
        Unknown = "unknown",
        /// A client's answer to a request of the server.
        Reply = "reply",
        /// DELETE of a session.
        End = "end",
        /// `/healthz` and `/readyz`.
        Health = "health",
        /// The metadata of a protected resource.
        Metadata = "metadata",
        /// What is told without a token.
        Catalogue = "catalogue",
    }
}

words! {
    /// What came of a request.
    Came {
        /// Its caller got the upstream's answer, or a page of the proxy's.
        Answered = "answered",
        /// It was decided, and the answer was no.
        Denied = "denied",
        /// It broke a rule that needs no decision.
        Refused = "refused",
        /// It could not be decided now; another time it may be.
        Undecided = "undecided",
        /// It was permitted, and the upstream did not answer as it should.
        Failed = "failed",
        /// Its caller was gone before there was an answer.
        Aborted = "aborted",
        /// The program failed.
        Panicked = "panicked",
    }
}

words! {
    /// How an answer ended.
    End {
        /// All of it was handed over.
        Complete = "complete",
        /// The proxy cut it: the permit ended, or its caller did not take it.
        Cut = "cut",
        /// It broke off on the upstream's side, or the proxy stopped.
        Broken = "broken",
        /// Its caller went away.
        Left = "left",
    }
}

/// When a part of a request began, and how long it took.
#[derive(Clone, Copy, Debug)]
struct Phase {
    began: Instant,
    took: Duration,
}

/// The parts of a request, where it came to them.
#[derive(Debug, Default)]
struct Phases {
    queue: Option<Duration>,
    verify: Option<Phase>,
    decide: Option<Phase>,
    journal: Option<Phase>,
    upstream: Option<Phase>,
    head: Option<Duration>,
}

/// The rule for which an answer was cut, known to who cuts it and to its account.
pub(crate) type Cause = Arc<OnceLock<RuleId>>;

/// How long work waited for a worker, and then took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worked<T> {
    pub(crate) result: T,
    began: Instant,
    ended: Instant,
}

impl<T> Worked<T> {
    /// What came of work that began then and ends now.
    pub(crate) fn since(began: Instant, result: T) -> Self {
        Self {
            result,
            began,
            ended: Instant::now(),
        }
    }

    fn phase(&self) -> Phase {
        Phase {
            began: self.began,
            took: self.ended.saturating_duration_since(self.began),
        }
    }
}

/// Notes when work begins and ends.
pub(crate) fn worked<T>(work: impl FnOnce() -> T) -> Worked<T> {
    let began = Instant::now();
    Worked::since(began, work())
}

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
        let waited = worked.began.saturating_duration_since(submitted);
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
        self.measured.upstream.observe(took);
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
        response.map(|body| Followed { body, account: self }.boxed_unsync())
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

    /// Hands in its spans: of them, the first says what the line says.
    fn record(&self, trace: &Trace) {
        let server = self.measured.server_name(self.server);
        let what = self.method.as_deref().unwrap_or(self.kind.as_str());
        let chain = self
            .presentation
            .as_ref()
            .map(|presentation| presentation.chain());
        let holder = chain.map(|chain| chain.last_holder().thumbprint().to_string());
        let texts = [
            ("http.request.method", Some(self.http_method.as_str())),
            ("mcp.server", Some(server)),
            ("mcp.era", Some(self.era.as_str())),
            ("mcp.kind", Some(self.kind.as_str())),
            ("mcp.method.name", self.method.as_deref()),
            ("gen_ai.tool.name", self.tool.as_deref()),
            ("taper.outcome", self.came.map(Came::as_str)),
            ("taper.decision", self.decision.map(word)),
            ("taper.rule", self.rule.map(RuleId::as_str)),
            ("taper.end", self.end.map(End::as_str)),
            ("taper.cause", self.cut.get().map(|rule| rule.as_str())),
            ("taper.request.id", Some(self.request_id.as_str())),
            ("taper.grant.id", chain.map(|chain| chain.grant_id())),
            ("taper.holder", holder.as_deref()),
        ];
        let mut attributes: Vec<(&'static str, Value)> = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, Value::Text(text?.to_owned()))))
            .collect();
        if let Some(status) = self.status {
            let status = i64::from(status.as_u16());
            attributes.push(("http.response.status_code", Value::Number(status)));
        }
        let failed = matches!(self.came, Some(Came::Failed | Came::Undecided | Came::Panicked));
        let parts = [
            ("verify", self.phases.verify),
            ("decide", self.phases.decide),
            ("journal", self.phases.journal),
            (traced::UPSTREAM, self.phases.upstream),
        ];
        let parts = parts.into_iter().filter_map(|(name, phase)| {
            let phase = phase?;
            let start = nanos(phase.began.saturating_duration_since(self.started));
            let end = start.saturating_add(nanos(phase.took));
            Some(Part { name, start, end })
        });
        let whole = nanos(self.started.elapsed());
        trace.end(format!("{what} {server}"), attributes, failed, whole, parts);
    }

    /// Whether anybody could have caused it, who has no key or only a captured request: then it may be one of
    /// a flood.
    fn is_anybodys(&self) -> bool {
        self.presentation.is_none() || self.rule == Some(r::REPLAY)
    }

    /// Writes the line. Whether it is one of the usual level or above.
    fn write(&self) -> bool {
        let is_trouble =
            matches!(self.came, Some(Came::Failed | Came::Panicked)) || self.rule == Some(rules::AUDIT);
        if self.kind == Kind::Health {
            self.line::<DEBUG>();
            return false;
        }
        if self.is_anybodys() && !self.measured.may_tell() {
            self.measured.quiet_lines.add();
            self.line::<DEBUG>();
            return false;
        }
        if is_trouble {
            self.line::<WARN>();
        } else {
            self.line::<INFO>();
        }
        true
    }

    fn line<const LEVEL: u8>(&self) {
        macro_rules! line {
            ($($fields:tt)*) => {
                if LEVEL == WARN {
                    tracing::warn!(target: "taper::request", { $($fields)* }, "request");
                } else if LEVEL == INFO {
                    tracing::info!(target: "taper::request", { $($fields)* }, "request");
                } else {
                    tracing::debug!(target: "taper::request", { $($fields)* }, "request");
                }
            };
        }
        let is_on = if LEVEL == WARN {
            tracing::enabled!(target: "taper::request", tracing::Level::WARN)
        } else if LEVEL == INFO {
            tracing::enabled!(target: "taper::request", tracing::Level::INFO)
        } else {
            tracing::enabled!(target: "taper::request", tracing::Level::DEBUG)
        };
        if !is_on {
            return;
        }
        let chain = self
            .presentation
            .as_ref()
            .map(|presentation| presentation.chain());
        let holder = chain.map(|chain| chain.last_holder().thumbprint().to_string());
        let subject = chain
            .filter(|_| self.names_subject)
            .map(|chain| chain.subject().sub.as_str());
        let us = |took: Option<Duration>| took.map(|took| nanos(took) / 1000);
        let took = |phase: Option<Phase>| us(phase.map(|phase| phase.took));
        line!(
            mcp.server = self.measured.server_name(self.server),
            mcp.era = self.era.as_str(),
            mcp.kind = self.kind.as_str(),
            mcp.method = self.method.as_deref(),
            mcp.tool = self.tool.as_deref(),
            outcome = self.came.map(Came::as_str),
            decision = self.decision.map(word),
            rule = self.rule.map(RuleId::as_str),
            reason = self.reason.as_deref(),
            http.status = self.status.map(|status| status.as_u16()),
            end = self.end.map(End::as_str),
            cause = self.cut.get().map(|rule| rule.as_str()),
            request.id = self.request_id,
            trace.id = self.trace_id.as_deref(),
            grant.id = chain.map(|chain| chain.grant_id()),
            holder = holder.as_deref(),
            certificate = self.certificate.map(tracing::field::display),
            subject,
            bytes.received = self.received,
            bytes.sent = self.sent,
            us.queue = us(self.phases.queue),
            us.verify = took(self.phases.verify),
            us.decide = took(self.phases.decide),
            us.journal = took(self.phases.journal),
            us.upstream = took(self.phases.upstream),
            us.head = us(self.phases.head),
            us.whole = us(Some(self.started.elapsed())),
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Deny => "deny",
        Outcome::Indeterminate => "indeterminate",
    }
}

impl From<message::Era> for Era {
    fn from(era: message::Era) -> Self {
        match era {
            message::Era::Legacy => Self::Legacy,
            message::Era::Modern => Self::Modern,
        }
    }
}

impl Kind {
    /// What a method of this class is.
    pub(crate) fn of(method: &str, class: Option<Class>) -> Self {
        let Some(class) = class else {
            return Self::Unknown;
        };
        match (class.list, class.kind, class.subject) {
            (Some(_), _, _) => Self::List,
            (None, AccessKind::ToolCall, _) => Self::Tool,
            (None, AccessKind::ResourceRead, _) => Self::Resource,
            (None, AccessKind::PromptGet, _) => Self::Prompt,
            (None, AccessKind::Completion, _) => Self::Completion,
            (None, AccessKind::Task, _) => Self::Task,
            (None, AccessKind::LoggingLevel, _) if method == "logging/setLevel" => Self::Logging,
            (None, AccessKind::LoggingLevel, _) => Self::Extra,
            (None, AccessKind::Plumbing, Subject::Subscriptions) => Self::Stream,
            (None, AccessKind::Plumbing | AccessKind::ListEntry, _) => Self::Plumbing,
        }
    }
}

/// A body with the account of its request.
struct Followed {
    body: Body,
    account: Account,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.account.sent = self.account.sent.saturating_add(sent);
                if self.body.is_end_stream() {
                    self.account.end = Some(End::Complete);
                }
            }
            Some(Err(_)) => self.account.end = Some(End::Broken),
            None => self.account.end = Some(End::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
