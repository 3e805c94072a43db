//! Requests of a session that a server over HTTP has not answered: while a list is one of them, no other
//! request of the session has its id (M-32).
//!
//! Servers find the way of an answer by the id alone, some by its text whatever its type, and of two
//! requests with one id the later gets what comes. The list would be the answer of a request whose answer
//! nobody filters. Programs have this in their own routing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use taper_capability::json::Value;
use taper_service::edge::BoxError;

use crate::body::Body;
use crate::outstanding::Sessions;
use crate::refusal::Refusal;
use crate::rules;
use crate::session::Owner;

/// The longest id of a list, in bytes.
const MAX_ID: usize = 128;
/// Lists of one session whose answers were not read to their ends: their ids stay taken.
const MAX_LEFT: usize = 64;

/// The requests of one session.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    requests: Vec<Request>,
    next: u64,
}

#[derive(Debug)]
struct Request {
    id: String,
    number: u64,
    is_list: bool,
    /// Nobody reads its answer, which may still come.
    left: bool,
}

impl Unanswered {
    fn open(&mut self, id: &str, is_list: bool) -> Result<u64, Refusal> {
        let taken = |known: &Request| known.id == id && (known.is_list || is_list);
        if self.requests.iter().any(taken) {
            return Err(Refusal::Message("a request with this id is outstanding"));
        }
        if is_list && self.requests.iter().filter(|known| known.left).count() >= MAX_LEFT {
            return Err(Refusal::Crowded {
                what: "lists without an answer",
                whose: None,
            });
        }
        self.next = self.next.wrapping_add(1);
        self.requests.push(Request {
            id: id.to_owned(),
            number: self.next,
            is_list,
            left: false,
        });
        Ok(self.next)
    }

    fn close(&mut self, number: u64, answered: bool) {
        let known = self.requests.iter().position(|known| known.number == number);
        let Some(at) = known else { return };
        match self.requests.get_mut(at) {
            Some(known) if known.is_list && !answered => known.left = true,
            _ => drop(self.requests.swap_remove(at)),
        }
    }
}

impl Sessions {
    /// Takes `id` for a request in the owner's session, until its answer was read.
    ///
    /// # Errors
    /// When an outstanding list has the id, or the request is a list and another outstanding one has it;
    /// when too many lists were left, and when the session is not the owner's.
    pub(crate) fn ask(
        self: &Arc<Self>,
        session: &str,
        owner: &Owner,
        id: &Value,
        is_list: bool,
    ) -> Result<Option<Asking>, Refusal> {
        let (Value::String(id) | Value::Number(id)) = id else {
            return Ok(None);
        };
        match (id.len() > MAX_ID, is_list) {
            (true, true) => return Err(Refusal::Message("the id of a list is too long")),
            (true, false) => return Ok(None),
            (false, _) => {}
        }
        let opened = self.with(session, owner, |requests| requests.unanswered.open(id, is_list));
        let number = match opened {
            Some(opened) => opened?,
            None if rules::SESSION.holds(false) => return Ok(None),
            None => return Err(Refusal::Session),
        };
        Ok(Some(Asking {
            number,
            sessions: Arc::clone(self),
            session: session.to_owned(),
            owner: owner.clone(),
            answered: false,
        }))
    }
}

/// A request that is outstanding. The id of a list that is dropped without an answer stays taken as long as
/// the session is known.
#[derive(Debug)]
pub(crate) struct Asking {
    sessions: Arc<Sessions>,
    session: String,
    owner: Owner,
    number: u64,
    answered: bool,
}

impl Asking {
    /// Nothing more comes under this id.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }

    /// An answer that frees the id when it was read to its end.
    pub(crate) fn until_read(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| {
            let mut reading = Reading {
                body,
                asking: Some(self),
            };
            reading.look();
            reading.boxed_unsync()
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.sessions.with(&self.session, &self.owner, |requests| {
            requests.unanswered.close(self.number, self.answered);
        });
    }
}

struct Reading {
    body: Body,
    asking: Option<Asking>,
}

impl Reading {
    fn look(&mut self) {
        if self.body.is_end_stream() {
            self.ended();
        }
    }

    fn ended(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.answered();
        }
    }
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => self.look(),
            Some(Err(_)) => self.asking = None,
            None => self.ended(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outstanding::Requests;

    fn number(id: &str) -> Value {
        Value::Number(id.to_owned())
    }

    fn sessions() -> (Arc<Sessions>, Owner) {
        let (sessions, owner) = (Arc::new(Sessions::new(10)), Owner::with_grant("g"));
        assert!(sessions.claim("s", &owner, Requests::default()));
        assert!(sessions.claim("t", &owner, Requests::default()));
        (sessions, owner)
    }

    fn refused(asked: Result<Option<Asking>, Refusal>) -> &'static str {
        asked.unwrap_err().rule().as_str()
    }

    #[test]
    fn the_id_of_a_list_is_its_alone_until_it_was_answered() {
        let (sessions, owner) = sessions();
        let ask = |session: &str, id: &Value, is_list| sessions.ask(session, &owner, id, is_list);
        let text = Value::String("1".into());
        let list = ask("s", &number("1"), true).unwrap().unwrap();
        for id in [&number("1"), &text] {
            assert_eq!(refused(ask("s", id, false)), "M-16");
            assert_eq!(refused(ask("s", id, true)), "M-16");
        }
        let others = [ask("t", &text, false), ask("s", &number("2"), false)];
        assert_eq!(others.iter().filter(|other| other.is_ok()).count(), 2);
        // Two others may share an id, as far as this goes; a list may not come after them.
        let third = ask("s", &number("2"), false).unwrap();
        assert_eq!(refused(ask("s", &number("2"), true)), "M-16");
        drop((third, others));
        ask("s", &number("2"), true).unwrap().unwrap().answered();

        list.answered();
        drop(ask("s", &text, false).unwrap());
        // The answer of one that was left may still come.
        drop(ask("s", &number("1"), true).unwrap());
        assert_eq!(refused(ask("s", &text, false)), "M-16");
        let stranger = Owner::with_grant("g");
        assert_eq!(refused(sessions.ask("s", &stranger, &number("9"), false)), "M-24");
    }

    #[test]
    fn memory_is_bounded() {
        let (sessions, owner) = sessions();
        let ask = |id: &str, is_list| sessions.ask("s", &owner, &number(id), is_list);
        for n in 0..MAX_LEFT {
            drop(ask(&n.to_string(), true).unwrap());
        }
        assert_eq!(refused(ask("more", true)), "M-40");
        drop(ask("more", false).unwrap());
        let long = "1".repeat(MAX_ID + 1);
        assert_eq!(refused(ask(&long, true)), "M-16");
        assert!(ask(&long, false).unwrap().is_none());
        let kept = sessions.with("s", &owner, |requests| requests.unanswered.requests.len());
        assert_eq!(kept, Some(MAX_LEFT));
    }
}
