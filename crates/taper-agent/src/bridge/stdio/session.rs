//! Lines of a client in, requests to the proxy out, and back, without IO: both eras, one message a line.
//!
//! Order: what carries no answer (notifications, answers to the server) is sent before anything that
//! comes after it; requests run side by side. Every request gets exactly one answer, unless the client
//! cancelled it.

mod answers;
mod legacy;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use self::legacy::{Legacy, State};
use super::super::channel::Upward;
use super::super::trouble::Trouble;
use super::message::{Kind, Message};
use super::params::Params;
use crate::sse::Decoder;

/// Messages of the client that wait before no further line is read.
const MAX_WAITING: usize = 16;
/// How long requests may go on after the client closed its end, in milliseconds.
const GRACE: i64 = 30_000;
/// How long messages wait for one before them that gets no answer, in milliseconds.
const PATIENCE: i64 = 30_000;
/// How long an answered stream may stay open, in milliseconds.
const LINGER: i64 = 5_000;
/// Questions of the server that are remembered.
const MAX_QUESTIONS: usize = 1024;
/// How long the end of a session may take, in milliseconds.
const FAREWELL: i64 = 2_000;

/// One exchange with the proxy.
pub(super) type CallId = u64;

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// A line of the client, without its end.
    Line(Bytes),
    /// A line that was too long, and is gone.
    TooLong,
    /// The client closed its end.
    Closed,
    /// The process is to end soon.
    Stop,
    /// The head of an answer.
    Head(CallId, StatusCode, HeaderMap),
    /// A part of its body.
    Data(CallId, Bytes),
    /// Its end.
    End(CallId),
    /// There is no answer, or no more of it.
    Failed(CallId, Trouble),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    /// Send this request, and report what comes of it under this id.
    Open(CallId, Upward),
    /// Give up this request, and report nothing more of it.
    Drop(CallId),
    /// Write this line to the client.
    Write(Bytes),
    /// Nothing more will come.
    Done,
}

/// What bounds a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The largest line of the client, in bytes.
    pub(super) line: usize,
    /// The largest answer that is not a stream, and the largest event, in bytes.
    pub(super) answer: usize,
    /// Requests that are under way at once.
    pub(super) running: usize,
}

/// One client's messages.
#[derive(Debug)]
pub(super) struct Session {
    bounds: Bounds,
    last: CallId,
    queue: VecDeque<Message>,
    calls: BTreeMap<CallId, Call>,
    /// The message that everything after it waits for, and until when.
    barrier: Option<(CallId, i64)>,
    legacy: Option<Legacy>,
    /// The revision that modern messages name.
    modern: String,
    params: Params,
    /// The sessions in which the server asked, by its ids.
    questions: BTreeMap<String, VecDeque<u64>>,
    timers: BTreeSet<(i64, CallId)>,
    /// Until when requests may go on.
    closing: Option<i64>,
    done: bool,
    now: i64,
    out: Vec<Output>,
}

/// An exchange that is under way.
#[derive(Debug)]
struct Call {
    what: What,
    reader: Reader,
    /// Which of the legacy sessions it was sent in.
    epoch: u64,
    last_event: Option<String>,
    retry: Option<u64>,
    /// How often a stream was taken up again without a new event.
    resumed: u32,
    /// When the stream began.
    since: i64,
}

#[derive(Debug)]
enum What {
    /// A request of the client.
    Request {
        message: Message,
        answered: bool,
        replayed: bool,
    },
    /// A notification of the client, or its answer.
    Note { message: Message, replayed: bool },
    /// `initialize` once more, after the server forgot the session.
    Reopen,
    /// `notifications/initialized` once more.
    Greeting,
    /// The stream of a session.
    Listen,
    /// The end of a session.
    Farewell,
}

/// How the answer of a call is read.
#[derive(Debug)]
enum Reader {
    /// Its head is still to come.
    Head,
    Json(BytesMut),
    Events(Decoder),
}

impl Session {
    /// At its beginning.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last: 0,
            queue: VecDeque::new(),
            calls: BTreeMap::new(),
            barrier: None,
            legacy: None,
            modern: crate::mcp::MODERN_VERSION.to_owned(),
            params: Params::default(),
            questions: BTreeMap::new(),
            timers: BTreeSet::new(),
            closing: None,
            done: false,
            now: 0,
            out: Vec::new(),
        }
    }

    /// Whether a further line may be read.
    pub(super) fn takes_lines(&self) -> bool {
        self.queue.len() < MAX_WAITING && self.closing.is_none()
    }

    /// When [`Input::Tick`] is due, in milliseconds since the Unix epoch.
    pub(super) fn deadline(&self) -> Option<i64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let barrier = self.barrier.map(|(_, until)| until);
        [timer, barrier, self.closing].into_iter().flatten().min()
    }

    /// Takes what happened at `now`, in milliseconds since the Unix epoch.
    pub(super) fn step(&mut self, input: Input, now: i64) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Line(line) => self.line(line),
            Input::TooLong => self.refuse(&Value::Null, &Trouble::TooLarge(self.bounds.line)),
            Input::Closed => self.close(GRACE),
            Input::Stop => self.close(0),
            Input::Head(call, status, headers) => self.head(call, status, &headers),
            Input::Data(call, bytes) => self.data(call, &bytes),
            Input::End(call) => self.end(call),
            Input::Failed(call, trouble) => self.failed(call, trouble),
            Input::Tick => self.tick(),
        }
        self.pump();
        self.leave();
        std::mem::take(&mut self.out)
    }

    fn line(&mut self, line: Bytes) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        match Message::read(Bytes::copy_from_slice(line)) {
            Ok(message) => self.queue.push_back(message),
            Err((id, trouble)) => self.refuse(&id, &trouble),
        }
    }

    /// Sends what need not wait.
    fn pump(&mut self) {
        while self.barrier.is_none() {
            let state = match self.queue.front() {
                None => return,
                // These belong to no session.
                Some(next) if next.modern.is_some() || next.method == "initialize" => State::Open,
                Some(_) => self.legacy.as_ref().map_or(State::Open, |legacy| legacy.state),
            };
            if state == State::Opening {
                return;
            }
            let Some(message) = self.queue.pop_front() else {
                return;
            };
            match state {
                State::Lost => self.send_again(message, 0),
                State::Open | State::Opening => self.dispatch(message, false),
            }
        }
    }

    fn dispatch(&mut self, message: Message, replayed: bool) {
        if let Some(revision) = &message.modern {
            self.modern.clone_from(revision);
        }
        match &message.kind {
            Kind::Request(id) => {
                let id = id.clone();
                if self.running(&id).is_some() {
                    let twice = Trouble::Malformed("a request with this id is under way");
                    return self.refuse(&id, &twice);
                }
                let waiting = self.calls.values().filter(|call| call.is_waiting());
                if waiting.count() >= self.bounds.running {
                    return self.refuse(&id, &Trouble::Busy(self.bounds.running));
                }
                if message.method == "initialize" && message.modern.is_none() {
                    self.begin_legacy(&message);
                }
                let request = self.post(&message);
                let what = What::Request {
                    message,
                    answered: false,
                    replayed,
                };
                self.open(what, request);
            }
            Kind::Note => self.dispatch_note(message, replayed),
        }
    }

    fn dispatch_note(&mut self, message: Message, replayed: bool) {
        if message
            .answers
            .as_ref()
            .is_some_and(|id| self.is_of_another_session(id))
        {
            return;
        }
        let cancelled = message.cancels.as_ref().and_then(|id| self.running(id));
        let call = cancelled.and_then(|call| self.calls.get_mut(&call));
        if let (Some(at), Some(call)) = (cancelled, call) {
            let is_modern = matches!(&call.what, What::Request { message, .. } if message.modern.is_some());
            if let What::Request { answered, .. } = &mut call.what {
                // Nobody waits for it any more.
                *answered = true;
            }
            if is_modern {
                // Over HTTP, leaving is how a modern request is cancelled.
                return self.give_up(at);
            }
        }
        if let Some(legacy) = &mut self.legacy
            && message.method == "notifications/initialized"
        {
            legacy.greeting = Some(message.clone());
        }
        let request = self.post(&message);
        let at = self.open(What::Note { message, replayed }, request);
        self.barrier = Some((at, self.now.saturating_add(PATIENCE)));
    }

    /// Whether what the client answers was asked in a session that is over: in the present one it would be
    /// the answer to another question.
    fn is_of_another_session(&mut self, id: &Value) -> bool {
        let id = id.to_string();
        let Some(asked) = self.questions.get_mut(&id) else {
            return false;
        };
        let epoch = asked.pop_front();
        if asked.is_empty() {
            self.questions.remove(&id);
        }
        let present = self.legacy.as_ref().map(|legacy| legacy.epoch);
        present.is_some() && epoch != present
    }

    /// The server asks the client.
    fn asked(&mut self, id: &Value) {
        let Some(legacy) = &self.legacy else {
            return;
        };
        let id = id.to_string();
        if self.questions.len() < MAX_QUESTIONS || self.questions.contains_key(&id) {
            let asked = self.questions.entry(id).or_default();
            // One that nobody answered is of no use when there are so many of its name.
            if asked.len() >= MAX_QUESTIONS {
                asked.pop_front();
            }
            asked.push_back(legacy.epoch);
        }
    }

    fn post(&self, message: &Message) -> Upward {
        let headers = match &self.legacy {
            _ if message.modern.is_some() => message.modern_headers(&self.modern, &self.params),
            None if message.id().is_none() => message.modern_headers(&self.modern, &self.params),
            Some(legacy) if message.method != "initialize" => legacy.headers(),
            _ => Message::legacy_headers(None, None),
        };
        Upward {
            method: Method::POST,
            headers,
            body: message.body.clone(),
        }
    }

    fn open(&mut self, what: What, request: Upward) -> CallId {
        self.last += 1;
        let call = Call {
            what,
            reader: Reader::Head,
            epoch: self.legacy.as_ref().map_or(0, |legacy| legacy.epoch),
            last_event: None,
            retry: None,
            resumed: 0,
            since: self.now,
        };
        self.calls.insert(self.last, call);
        self.out.push(Output::Open(self.last, request));
        self.last
    }

    /// Forgets a call and ends what of it is under way.
    fn give_up(&mut self, at: CallId) {
        if self.calls.remove(&at).is_some() {
            self.timers.retain(|(_, call)| *call != at);
            self.out.push(Output::Drop(at));
        }
        self.lift(at);
    }

    /// Nothing waits for this call any more.
    fn lift(&mut self, at: CallId) {
        self.barrier = self.barrier.filter(|(barrier, _)| *barrier != at);
    }

    /// The call that a request with this id is.
    fn running(&self, id: &Value) -> Option<CallId> {
        let found = self.calls.iter().find(|(_, call)| match &call.what {
            What::Request {
                message, answered, ..
            } => !answered && message.id() == Some(id),
            _ => false,
        });
        found.map(|(at, _)| *at)
    }

    fn refuse(&mut self, id: &Value, trouble: &Trouble) {
        let line = trouble.to_message(id).to_string();
        self.out.push(Output::Write(line.into()));
    }

    fn tick(&mut self) {
        while let Some((at, call)) = self.timers.first().copied() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            let is_answered = |call: &Call| matches!(call.what, What::Request { answered: true, .. });
            match self.calls.get(&call).is_some_and(is_answered) {
                true => self.give_up(call),
                false => self.take_up(call),
            }
        }
        self.barrier = self.barrier.filter(|(_, until)| *until > self.now);
    }

    fn close(&mut self, grace: i64) {
        let until = self.now.saturating_add(grace);
        self.closing = Some(self.closing.map_or(until, |known| known.min(until)));
        // What has no end of its own.
        let endless = |call: &Call| match &call.what {
            What::Listen => true,
            What::Request { message, .. } => message.method == "subscriptions/listen",
            _ => false,
        };
        let endless: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| endless(call))
            .map(|(at, _)| *at)
            .collect();
        for at in endless {
            self.give_up(at);
        }
    }

    /// Ends what is to end, once the client has closed its end.
    fn leave(&mut self) {
        let Some(until) = self.closing else {
            return;
        };
        let farewell = |call: &Call| matches!(call.what, What::Farewell);
        let answered = |call: &Call| matches!(call.what, What::Request { answered: true, .. });
        let idle: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| answered(call))
            .map(|(at, _)| *at)
            .collect();
        for at in idle {
            self.give_up(at);
        }
        let is_late = until <= self.now;
        if is_late {
            self.queue.clear();
            let rest: Vec<_> = self.calls.keys().copied().collect();
            for at in rest {
                let parting = self.calls.get(&at).is_some_and(farewell);
                self.give_up(at);
                self.done |= parting;
            }
        }
        if !self.done && self.queue.is_empty() && self.calls.is_empty() {
            match self.legacy.take().and_then(|legacy| legacy.farewell()) {
                Some(request) => {
                    self.closing = Some(self.now.saturating_add(FAREWELL));
                    self.open(What::Farewell, request);
                }
                None => self.done = true,
            }
        }
        if self.done {
            self.closing = None;
            self.out.push(Output::Done);
        }
    }
}

impl Call {
    /// Whether the client waits for its answer.
    fn is_waiting(&self) -> bool {
        matches!(self.what, What::Request { answered: false, .. })
    }
}

#[cfg(test)]
mod tests;
