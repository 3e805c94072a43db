//! What comes back from the proxy.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::super::trouble::Trouble;
use super::legacy::State;
use super::{Call, CallId, LINGER, Output, Reader, Session, What};
use crate::sse::Decoder;

/// What an answer's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Events,
    Other,
}

impl Session {
    pub(super) fn head(&mut self, at: CallId, status: StatusCode, headers: &HeaderMap) {
        let form = form(headers);
        let Some(call) = self.calls.get_mut(&at) else {
            return;
        };
        let is_lost = status == StatusCode::NOT_FOUND;
        match &mut call.what {
            What::Request {
                message,
                replayed,
                answered,
            } => {
                if call.resumed > 0 && !(status == StatusCode::OK && form == Form::Events) {
                    self.out.push(Output::Drop(at));
                    let said = format!("it broke off, and its stream cannot be had: {status}");
                    return self.finish(at, Trouble::Answer(said));
                }
                let in_session = message.modern.is_none() && message.method != "initialize";
                if is_lost && in_session && !*replayed && !*answered && self.legacy.is_some() {
                    let (message, epoch) = (message.clone(), call.epoch);
                    self.give_up(at);
                    return self.send_again(message, epoch);
                }
                let opens = message.modern.is_none() && message.method == "initialize";
                self.begin_reading(at, status, form);
                if opens && status.is_success() {
                    self.session_given(headers);
                }
            }
            What::Reopen => {
                self.begin_reading(at, status, form);
                if status.is_success() {
                    self.session_given(headers);
                }
            }
            What::Note { message, replayed } => {
                // An answer belongs to the session that asked.
                let again = is_lost
                    && message.modern.is_none()
                    && message.answers.is_none()
                    && !*replayed
                    && self.legacy.is_some();
                let (message, epoch) = (message.clone(), call.epoch);
                self.give_up(at);
                if again && message.method != "notifications/initialized" {
                    return self.send_again(message, epoch);
                }
                self.noted(&message, status);
            }
            What::Greeting => {
                self.give_up(at);
                match status.is_success() {
                    true => self.greeted(),
                    false => self.not_reopened(&Trouble::Answer(format!(
                        "the server refused to go on in another session, with status {}",
                        status.as_u16()
                    ))),
                }
            }
            What::Listen if status == StatusCode::OK && form == Form::Events => {
                call.reader = Reader::Events(Decoder::new(self.bounds.answer));
                call.since = self.now;
            }
            // 405: it has none. 409: the old one is not over yet.
            What::Listen
                if [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
                    || status.is_server_error() =>
            {
                self.out.push(Output::Drop(at));
                self.broke(at, None);
            }
            What::Listen => self.give_up(at),
            What::Farewell => {
                self.give_up(at);
                self.done = true;
            }
        }
    }

    /// The server has a message that gets no answer.
    fn noted(&mut self, message: &super::Message, status: StatusCode) {
        if status.is_success() && message.method == "notifications/initialized" && self.legacy.is_some() {
            self.listen();
        }
        self.end_cancelled(message);
    }

    /// What a legacy client cancelled has been told of, so its stream is of no use any more.
    fn end_cancelled(&mut self, message: &super::Message) {
        if message.cancels.is_some() {
            let idle = |call: &Call| matches!(&call.what, What::Request { message: other, answered: true, .. } if other.id() == message.cancels.as_ref());
            let idle: Vec<_> = self
                .calls
                .iter()
                .filter(|(_, call)| idle(call))
                .map(|(at, _)| *at)
                .collect();
            for at in idle {
                self.give_up(at);
            }
        }
    }

    fn begin_reading(&mut self, at: CallId, status: StatusCode, form: Form) {
        let max = self.bounds.answer;
        let Some(call) = self.calls.get_mut(&at) else {
            return;
        };
        match form {
            Form::Json => call.reader = Reader::Json(BytesMut::new()),
            Form::Events if status.is_success() => call.reader = Reader::Events(Decoder::new(max)),
            _ => {
                self.out.push(Output::Drop(at));
                let said = format!("its status is {}, and it is no message", status.as_u16());
                self.finish(at, Trouble::Answer(said));
            }
        }
    }

    pub(super) fn data(&mut self, at: CallId, bytes: &Bytes) {
        let Some(call) = self.calls.get_mut(&at) else {
            return;
        };
        let events = match &mut call.reader {
            Reader::Head => return,
            Reader::Json(body) if bytes.len() <= self.bounds.answer.saturating_sub(body.len()) => {
                body.extend_from_slice(bytes);
                return;
            }
            Reader::Json(_) => Err(()),
            Reader::Events(decoder) => decoder.push(bytes).map_err(|_| ()),
        };
        let Ok(events) = events else {
            self.out.push(Output::Drop(at));
            let said = format!("it is larger than {} bytes", self.bounds.answer);
            return self.finish(at, Trouble::Answer(said));
        };
        for event in events {
            // It may have ended with the event before.
            let Some(call) = self.calls.get_mut(&at) else {
                return;
            };
            call.last_event = event.id;
            call.retry = event.retry.or(call.retry);
            if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                call.resumed = 0;
                self.event(at, &data);
            }
        }
    }

    pub(super) fn end(&mut self, at: CallId) {
        let Some(call) = self.calls.get_mut(&at) else {
            return;
        };
        if let Reader::Json(body) = &mut call.reader {
            let body = std::mem::take(body).freeze();
            return self.answer(at, &body);
        }
        self.broke(at, None);
    }

    pub(super) fn failed(&mut self, at: CallId, trouble: Trouble) {
        self.broke(at, Some(trouble));
    }

    /// An answer ended, or there is none.
    fn broke(&mut self, at: CallId, trouble: Option<Trouble>) {
        let Some(call) = self.calls.get(&at) else {
            return;
        };
        let streamed = matches!(call.reader, Reader::Events(_)) || call.resumed > 0;
        let wanted = match &call.what {
            What::Request { answered, .. } => !answered && streamed,
            What::Listen => true,
            _ => false,
        };
        if wanted && self.resume(at) {
            return;
        }
        let trouble = trouble.unwrap_or_else(|| Trouble::Answer("it broke off".to_owned()));
        self.finish(at, trouble);
    }

    /// The end of a call; who still waits for it learns of the trouble.
    pub(super) fn finish(&mut self, at: CallId, trouble: Trouble) {
        let Some(call) = self.calls.remove(&at) else {
            return;
        };
        self.timers.retain(|(_, other)| *other != at);
        self.lift(at);
        match call.what {
            What::Request {
                message, answered, ..
            } => {
                if let Some(id) = message.id().filter(|_| !answered) {
                    self.refuse(id, &trouble);
                }
                if message.method == "initialize" && message.modern.is_none() && !answered {
                    self.legacy = None;
                }
            }
            What::Reopen | What::Greeting => self.not_reopened(&trouble),
            What::Farewell => self.done = true,
            What::Note { message, .. } => self.end_cancelled(&message),
            What::Listen => {}
        }
    }

    /// One event of a stream.
    fn event(&mut self, at: CallId, data: &[u8]) {
        let Some(message) = Envelope::read(data) else {
            return;
        };
        if message.is_from_server() {
            if let Some(id) = &message.id {
                self.asked(id);
            }
            return self.write(data);
        }
        let Some(id) = message.id.as_ref().filter(|_| message.is_answer()) else {
            return;
        };
        match self.calls.get(&at).map(|call| &call.what) {
            Some(What::Reopen) => self.take_reopened(at, data),
            // An answer may also come over the stream of the session.
            Some(_) => {
                if let Some(to) = self.running(id) {
                    self.deliver(to, data);
                    let due = self.now.saturating_add(LINGER);
                    self.timers.insert((due, to));
                }
            }
            None => {}
        }
    }

    /// The whole of an answer that is no stream.
    fn answer(&mut self, at: CallId, body: &[u8]) {
        let (own, is_wanted) = match self.calls.get(&at).map(|call| &call.what) {
            Some(What::Request {
                message, answered, ..
            }) => (message.id().cloned().unwrap_or_default(), !answered),
            Some(What::Reopen) => return self.take_reopened(at, body),
            _ => return self.give_up(at),
        };
        let message = Envelope::read(body).filter(|message| is_wanted && message.is_answer());
        if let Some(message) = message {
            match (&message.id, message.error) {
                (Some(id), _) if *id == own => self.deliver(at, body),
                // Who refused did not read so far; the client waits for its own id.
                (None, Some(error)) => {
                    let error = error.get();
                    let line = format!(r#"{{"jsonrpc":"2.0","id":{own},"error":{error}}}"#);
                    self.deliver(at, line.as_bytes());
                }
                _ => {}
            }
        }
        self.finish(
            at,
            Trouble::Answer("it is not the answer to this request".to_owned()),
        );
    }

    /// Hands the answer to the request that waits for it.
    fn deliver(&mut self, at: CallId, line: &[u8]) {
        let Some(call) = self.calls.get_mut(&at) else {
            return;
        };
        let What::Request {
            message, answered, ..
        } = &mut call.what
        else {
            return;
        };
        *answered = true;
        let opens = message.method == "initialize" && message.modern.is_none();
        if opens || message.method == "tools/list" {
            // Only these are read any further.
            let value: Value = serde_json::from_slice(line).unwrap_or_default();
            if opens {
                self.initialized(&value);
                self.legacy = self.legacy.take().filter(|legacy| legacy.state == State::Open);
            } else if let Some(result) = value.get("result") {
                self.params.learn(result);
            }
        }
        self.write(line);
    }

    fn take_reopened(&mut self, at: CallId, message: &[u8]) {
        self.give_up(at);
        self.reopened(&serde_json::from_slice(message).unwrap_or_default());
    }

    /// Writes a message as one line. A raw line end stands between tokens only, where a space is the same.
    fn write(&mut self, message: &[u8]) {
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let line: Vec<u8> = message
            .iter()
            .map(|byte| if ends(byte) { b' ' } else { *byte })
            .collect();
        self.out.push(Output::Write(line.into()));
    }
}

/// What is read of a message of the server: who it is for. The rest passes unread, be it as it may.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<IgnoredAny>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(message).ok()
    }

    fn is_from_server(&self) -> bool {
        self.method.is_some()
    }

    /// Whether it has a result, or an error that is one of JSON-RPC.
    fn is_answer(&self) -> bool {
        #[derive(Deserialize)]
        struct Code {
            #[serde(rename = "code")]
            _code: i64,
        }
        let is_error = |error: &RawValue| serde_json::from_str::<Code>(error.get()).is_ok();
        self.method.is_none() && (self.result.is_some() || self.error.is_some_and(is_error))
    }
}

fn form(headers: &HeaderMap) -> Form {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    match kind.trim() {
        kind if kind.eq_ignore_ascii_case("application/json") => Form::Json,
        kind if kind.eq_ignore_ascii_case("text/event-stream") => Form::Events,
        _ => Form::Other,
    }
}
