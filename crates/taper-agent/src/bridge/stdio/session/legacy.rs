//! The legacy era: a session that is opened, forgotten by its server, opened once more, and ended; and its
//! streams, which are taken up again where they broke off.

use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use super::super::super::channel::Upward;
use super::super::super::trouble::Trouble;
use super::super::message::{Message, SESSION, stream_headers};
use super::{CallId, Session, What};

/// How often a stream is taken up again without a new event.
const MAX_RESUMED: u32 = 5;
/// How long to wait before a stream is taken up again, in milliseconds, unless the server says.
const PAUSE: u64 = 1_000;
/// What a server says is held to these.
const SHORTEST_PAUSE: u64 = 500;
const LONGEST_PAUSE: u64 = 30_000;
/// A stream of a session that lasted as long is one that works.
const LASTED: i64 = 10_000;

/// A session, or what is left of it.
#[derive(Debug)]
pub(super) struct Legacy {
    /// How the client opened it.
    pub(super) initialize: Message,
    /// What it sent when it was open.
    pub(super) greeting: Option<Message>,
    session: Option<HeaderValue>,
    revision: Option<String>,
    /// How often it was opened.
    pub(super) epoch: u64,
    pub(super) state: State,
    /// What is sent again when it is open again.
    waiting: Vec<Message>,
}

/// Whether messages can be sent in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its opening is under way.
    Opening,
    /// They can.
    Open,
    /// It was forgotten, and opening it again failed.
    Lost,
}

impl Legacy {
    pub(super) fn headers(&self) -> HeaderMap {
        Message::legacy_headers(self.session.as_ref(), self.revision.as_deref())
    }

    fn stream(&self, last_event: Option<&str>) -> Upward {
        Upward {
            method: Method::GET,
            headers: stream_headers(self.session.as_ref(), self.revision.as_deref(), last_event),
            body: bytes::Bytes::new(),
        }
    }

    /// The end of the session, if it has an id.
    pub(super) fn farewell(self) -> Option<Upward> {
        self.session.as_ref()?;
        Some(Upward {
            method: Method::DELETE,
            ..self.stream(None)
        })
    }
}

impl Session {
    /// The client opens a session.
    pub(super) fn begin_legacy(&mut self, initialize: &Message) {
        self.end_stream();
        let epoch = self.legacy.as_ref().map_or(0, |legacy| legacy.epoch) + 1;
        self.legacy = Some(Legacy {
            initialize: initialize.clone(),
            greeting: None,
            session: None,
            revision: None,
            epoch,
            state: State::Opening,
            waiting: Vec::new(),
        });
    }

    /// The head of the answer to `initialize`.
    pub(super) fn session_given(&mut self, headers: &HeaderMap) {
        if let Some(legacy) = &mut self.legacy {
            legacy.session = headers.get(SESSION).cloned();
        }
    }

    /// The answer to the client's `initialize`, or to ours.
    pub(super) fn initialized(&mut self, answer: &Value) {
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        let revision = answer.pointer("/result/protocolVersion").and_then(Value::as_str);
        legacy.revision = revision.map(str::to_owned);
        legacy.state = match answer.get("result") {
            Some(_) => State::Open,
            None => State::Lost,
        };
        if legacy.state == State::Lost {
            legacy.session = None;
        }
    }

    /// The server does not know the session in which a message was sent: it is sent again in another,
    /// which is opened first.
    pub(super) fn send_again(&mut self, message: Message, epoch: u64) {
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        if legacy.epoch != epoch && legacy.state == State::Open {
            return self.dispatch(message, true);
        }
        legacy.waiting.push(message);
        if legacy.state != State::Opening {
            self.reopen();
        }
    }

    /// Opens the session once more, as the client did.
    pub(super) fn reopen(&mut self) {
        self.end_stream();
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        legacy.state = State::Opening;
        (legacy.session, legacy.revision) = (None, None);
        legacy.epoch += 1;
        let request = Upward {
            method: Method::POST,
            headers: Message::legacy_headers(None, None),
            body: legacy.initialize.body.clone(),
        };
        self.open(What::Reopen, request);
    }

    /// Our `initialize` has its answer.
    pub(super) fn reopened(&mut self, answer: &Value) {
        self.initialized(answer);
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        if legacy.state == State::Lost {
            return self.not_reopened(&Trouble::Answer(
                "the server does not open another session".to_owned(),
            ));
        }
        match legacy.greeting.clone() {
            Some(greeting) => {
                legacy.state = State::Opening;
                let request = Upward {
                    method: Method::POST,
                    headers: legacy.headers(),
                    body: greeting.body,
                };
                self.open(What::Greeting, request);
            }
            None => self.greeted(),
        }
    }

    /// The session is open again, and the server knows it.
    pub(super) fn greeted(&mut self) {
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        legacy.state = State::Open;
        let listens = legacy.greeting.is_some();
        let waiting = std::mem::take(&mut legacy.waiting);
        if listens {
            self.listen();
        }
        for message in waiting {
            self.dispatch(message, true);
        }
    }

    pub(super) fn not_reopened(&mut self, trouble: &Trouble) {
        let Some(legacy) = &mut self.legacy else {
            return;
        };
        legacy.state = State::Lost;
        for message in std::mem::take(&mut legacy.waiting) {
            if let Some(id) = message.id() {
                self.refuse(id, trouble);
            }
        }
    }

    /// Opens the stream of the session.
    pub(super) fn listen(&mut self) {
        let request = self.legacy.as_ref().map(|legacy| legacy.stream(None));
        if let Some(request) = request.filter(|_| self.closing.is_none()) {
            self.open(What::Listen, request);
        }
    }

    fn end_stream(&mut self) {
        let streams = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.what, What::Listen));
        let streams: Vec<_> = streams.map(|(at, _)| *at).collect();
        for at in streams {
            self.give_up(at);
        }
    }

    /// A stream broke off. Whether it will be taken up again.
    pub(super) fn resume(&mut self, at: CallId) -> bool {
        let closing = self.closing.is_some();
        let Some(call) = self.calls.get_mut(&at) else {
            return false;
        };
        let in_session = |legacy: &Legacy| legacy.session.is_some() && legacy.epoch == call.epoch;
        if !self.legacy.as_ref().is_some_and(in_session) {
            return false;
        }
        if matches!(call.what, What::Listen) {
            if closing {
                return false;
            }
            let has_lasted = self.now.saturating_sub(call.since) >= LASTED;
            if has_lasted && matches!(call.reader, super::Reader::Events(_)) {
                call.resumed = 0;
            }
        } else if call.resumed >= MAX_RESUMED || call.last_event.is_none() {
            return false;
        }
        let first = call.retry.unwrap_or(PAUSE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let pause = first.saturating_mul(1 << call.resumed.min(10)).min(LONGEST_PAUSE);
        call.resumed = call.resumed.saturating_add(1);
        call.reader = super::Reader::Head;
        let due = self.now.saturating_add_unsigned(pause);
        self.timers.insert((due, at));
        true
    }

    /// Takes a stream up where it broke off.
    pub(super) fn take_up(&mut self, at: CallId) {
        let Some(call) = self.calls.get(&at) else {
            return;
        };
        match &self.legacy {
            Some(legacy) if legacy.epoch == call.epoch => {
                let request = legacy.stream(call.last_event.as_deref());
                self.out.push(super::Output::Open(at, request));
            }
            // Another session knows nothing of its events.
            _ => self.finish(at, Trouble::Answer("it broke off".to_owned())),
        }
    }
}
