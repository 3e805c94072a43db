//! Requests of a server that its sessions' streams have shown and that nobody has answered yet (M-20).
//!
//! A client's answer is let through once, for an id that its own session was shown. While the answer is
//! judged its request is taken; a refusal gives it back, and what was sent on is never taken again.

use std::collections::VecDeque;
use std::sync::Arc;

use taper_capability::json::Value;

use crate::session::{Owner, Owners};
use crate::unanswered::Unanswered;

/// Requests of one session that may wait for their answers, and answered ones that are remembered.
const MAX_REQUESTS: usize = 64;
/// The longest id that is remembered, in bytes.
const MAX_ID: usize = 128;

/// The sessions of one server, each with its outstanding requests.
pub(crate) type Sessions = Owners<Requests>;

/// What a session was asked, and what it asked. The oldest requests leave first.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    shown: VecDeque<Shown>,
    next: u64,
    /// The other way round: requests of the client.
    pub(crate) unanswered: Unanswered,
}

#[derive(Debug)]
struct Shown {
    id: Value,
    number: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// An answer is being judged.
    Taken,
    Answered,
}

impl Requests {
    /// The client is about to see a request with this id. A server uses an id once in a session, so one
    /// that was answered stays answered when its event is repeated.
    pub(crate) fn show(&mut self, id: &Value) {
        let (Value::String(text) | Value::Number(text)) = id else {
            return;
        };
        if text.len() > MAX_ID || self.shown.iter().any(|shown| shown.id == *id) {
            return;
        }
        self.next = self.next.wrapping_add(1);
        self.shown.push_back(Shown {
            id: id.clone(),
            number: self.next,
            state: State::Waiting,
        });
        self.forget(|state| state != State::Answered);
    }

    fn take(&mut self, id: &Value) -> Option<u64> {
        let mut waiting = self.shown.iter_mut();
        let shown = waiting.find(|shown| shown.id == *id && shown.state == State::Waiting)?;
        shown.state = State::Taken;
        Some(shown.number)
    }

    fn settle(&mut self, number: u64, state: State) {
        let mut taken = self.shown.iter_mut();
        let shown = taken.find(|shown| shown.number == number && shown.state == State::Taken);
        if let Some(shown) = shown {
            shown.state = state;
        }
        self.forget(|state| state == State::Answered);
    }

    /// Drops the oldest of a kind when there are too many of it.
    fn forget(&mut self, of: impl Fn(State) -> bool) {
        let count = self.shown.iter().filter(|shown| of(shown.state)).count();
        if count > MAX_REQUESTS {
            let oldest = self.shown.iter().position(|shown| of(shown.state));
            oldest.and_then(|at| self.shown.remove(at));
        }
    }
}

impl Sessions {
    /// Takes the outstanding request `id` of the owner's session, if there is one.
    pub(crate) fn answer(self: &Arc<Self>, session: &str, owner: &Owner, id: &Value) -> Option<Answering> {
        let number = self.with(session, owner, |requests| requests.take(id))??;
        Some(Answering {
            sessions: Arc::clone(self),
            session: session.to_owned(),
            owner: owner.clone(),
            number,
        })
    }
}

/// An outstanding request that is being answered. Dropped before its answer was sent on, it is outstanding
/// again.
#[derive(Debug)]
pub(crate) struct Answering {
    sessions: Arc<Sessions>,
    session: String,
    owner: Owner,
    number: u64,
}

impl Answering {
    /// The answer is on its way: the request is answered, whatever becomes of it.
    pub(crate) fn sent(&self) {
        self.settle(State::Answered);
    }

    fn settle(&self, state: State) {
        self.sessions.with(&self.session, &self.owner, |requests| {
            requests.settle(self.number, state);
        });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.settle(State::Waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(id: u32) -> Value {
        Value::Number(id.to_string())
    }

    fn sessions() -> (Arc<Sessions>, Owner) {
        let (sessions, owner) = (Arc::new(Sessions::new(10)), Owner::with_grant("g"));
        assert!(sessions.claim("s", &owner, Requests::default()));
        (sessions, owner)
    }

    fn show(sessions: &Sessions, owner: &Owner, id: &Value) {
        sessions.with("s", owner, |requests| requests.show(id)).unwrap();
    }

    #[test]
    fn a_request_is_answered_once_and_in_its_own_session() {
        let (sessions, mine) = sessions();
        let other = Owner::with_grant("g");
        assert!(sessions.claim("t", &mine, Requests::default()));
        show(&sessions, &mine, &number(1));
        let text = Value::String("1".into());
        let wrong = [
            ("s", &mine, text.clone()),
            ("s", &mine, number(2)),
            ("t", &mine, number(1)),
            ("s", &other, number(1)),
            ("u", &mine, number(1)),
        ];
        for (session, owner, id) in &wrong {
            assert!(
                sessions.answer(session, owner, id).is_none(),
                "{session} {owner:?} {id:?}"
            );
        }
        let refused = sessions.answer("s", &mine, &number(1)).unwrap();
        assert!(
            sessions.answer("s", &mine, &number(1)).is_none(),
            "another is being judged"
        );
        drop(refused);
        let sent = sessions.answer("s", &mine, &number(1)).unwrap();
        sent.sent();
        drop(sent);
        assert!(sessions.answer("s", &mine, &number(1)).is_none());
        show(&sessions, &mine, &number(1));
        assert!(
            sessions.answer("s", &mine, &number(1)).is_none(),
            "shown again, as a resumed stream does"
        );
        show(&sessions, &mine, &text);
        assert!(sessions.answer("s", &mine, &text).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let (sessions, mine) = sessions();
        for id in 0..100 {
            show(&sessions, &mine, &number(id));
        }
        assert!(
            sessions.answer("s", &mine, &number(35)).is_none(),
            "the oldest left"
        );
        for id in 36..100 {
            sessions.answer("s", &mine, &number(id)).unwrap().sent();
        }
        for id in 100..200 {
            show(&sessions, &mine, &number(id));
            sessions.answer("s", &mine, &number(id)).unwrap().sent();
        }
        show(&sessions, &mine, &Value::String("x".repeat(MAX_ID + 1)));
        show(&sessions, &mine, &Value::Null);
        let kept = sessions.with("s", &mine, |requests| requests.shown.len());
        assert_eq!(kept, Some(MAX_REQUESTS));
        assert!(sessions.answer("s", &mine, &number(199)).is_none());
    }
}
