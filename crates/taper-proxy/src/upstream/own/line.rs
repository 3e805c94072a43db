//! One conversation of the proxy's own: over HTTP or with a program, in the era that the server has.

use std::time::Duration;

use ::http::header::HeaderValue;
use taper_capability::json::Value;

use super::super::{HttpUpstream, Upstream};
use super::program::Talk;
use super::{
    Collected, Description, MAX_SIZE_PAGES, OwnError, OwnRequest, Question, Spoken, answer, asking,
    initialize, initialized, revision,
};
use crate::config::StdioEra;
use crate::headers::{self, SESSION};
use crate::message::{LEGACY, MODERN};
use crate::methods::List;
use crate::pins::Preface;

/// How long it may take to end a session of its own, whatever the list took.
const END_TIME: Duration = Duration::from_secs(5);

/// One conversation with a server.
pub(super) struct Line<'a> {
    channel: Channel<'a>,
    spoken: Spoken,
    /// The session that the server gave for this, to be ended however this ends.
    opened: Option<Spoken>,
    /// The id of the next request. The handshake has the 0.
    next: usize,
    max_page: usize,
    /// What the answers of one list may still have in bytes.
    left: usize,
}

enum Channel<'a> {
    Http(&'a HttpUpstream),
    Program(Box<Talk>, StdioEra),
}

const SPOKEN_MODERN: Spoken = Spoken {
    revision: MODERN,
    session: None,
};

impl<'a> Line<'a> {
    /// Nothing is said yet; a program is started.
    pub(super) fn new(upstream: &'a Upstream, max_page: usize) -> Result<Self, OwnError> {
        let channel = match upstream {
            Upstream::Http(upstream) => Channel::Http(upstream),
            Upstream::Stdio(upstream) => Channel::Program(Box::new(Talk::start(upstream)?), upstream.era()),
        };
        Ok(Self {
            channel,
            spoken: SPOKEN_MODERN,
            opened: None,
            next: 1,
            max_page,
            left: max_page.saturating_mul(MAX_SIZE_PAGES),
        })
    }

    /// Its tools. Over HTTP in the modern era first, which needs no handshake; a server that does not take that is
    /// asked in the legacy one.
    pub(super) async fn tools(&mut self) -> Result<Vec<Value>, OwnError> {
        match self.channel {
            Channel::Program(_, StdioEra::Modern) => {}
            Channel::Program(_, StdioEra::Legacy) => drop(self.handshake().await?),
            Channel::Http(_) => match self.all(List::Tools).await {
                Err(error) if error.is_no() => drop(self.handshake().await?),
                other => return other,
            },
        }
        self.all(List::Tools).await
    }

    /// What it says of itself, and all its lists.
    pub(super) async fn describe(&mut self) -> Result<Description, OwnError> {
        let (legacy, modern) = match &self.channel {
            Channel::Http(_) => (true, true),
            Channel::Program(_, era) => (*era == StdioEra::Legacy, *era == StdioEra::Modern),
        };
        let discover = if modern {
            match self.ask(Question::Discover, None).await {
                Err(error) if error.is_no() && legacy => None,
                said => Some(said?),
            }
        } else {
            None
        };
        let initialize = match &discover {
            _ if !legacy => None,
            None => Some(self.handshake().await?),
            // A server of the modern era alone may refuse this in any words.
            Some(_) => self.handshake().await.ok(),
        };
        // A program has a session for each caller, which the proxy gives.
        let gives = self.opened.is_some() || matches!(self.channel, Channel::Program(..));
        let sessions = gives && initialize.is_some();
        if discover.is_some() {
            self.spoken = SPOKEN_MODERN;
        }
        let said = discover.as_ref().or(initialize.as_ref());
        let has = |name: &str| {
            let capabilities = said.and_then(|said| said.get("capabilities"));
            capabilities.is_some_and(|capabilities| capabilities.get(name).is_some())
        };
        let (prompts, resources) = (has("prompts"), has("resources"));
        let lists = [
            (List::Prompts, prompts),
            (List::Resources, resources),
            (List::Templates, resources),
        ];
        let mut preface = Preface::new(initialize.as_ref(), discover.as_ref(), sessions);
        let tools = self.all(List::Tools).await?;
        for (list, _) in lists.into_iter().filter(|(_, has)| *has) {
            match self.all(list).await {
                // Many servers say that they have resources, and have no templates.
                Err(error) if error.is_no() => {}
                entries => preface.set_list(list, entries?),
            }
        }
        Ok(Description { tools, preface })
    }

    /// Begins in the legacy era: the result of `initialize`.
    async fn handshake(&mut self) -> Result<Value, OwnError> {
        self.next = 1;
        let result = match &mut self.channel {
            Channel::Program(talk, _) => {
                talk.send(&initialize()).await?;
                let result = talk.answer(0, self.max_page, &mut self.left).await?;
                self.spoken.revision = revision(&result)?;
                talk.send(&initialized()).await?;
                return Ok(result);
            }
            Channel::Http(upstream) => {
                let response = upstream.ask(OwnRequest::initialize()).await?;
                let session = match headers::single(response.headers(), &SESSION) {
                    Ok(Some(session)) => HeaderValue::from_str(session).ok(),
                    Ok(None) => None,
                    Err(_) => return Err(OwnError::Malformed("it gave two sessions")),
                };
                // Until the server has chosen a revision, it is the one that was offered.
                self.spoken = Spoken {
                    revision: LEGACY[0],
                    session,
                };
                let opens = self.spoken.session.is_some();
                self.opened = opens.then(|| self.spoken.clone());
                let result = answer(response, 0, self.max_page, &mut self.left).await?;
                self.spoken.revision = revision(&result)?;
                self.opened = opens.then(|| self.spoken.clone());
                let notified = upstream.ask(OwnRequest::initialized(&self.spoken)).await?;
                if !notified.status().is_success() {
                    return Err(OwnError::Status(notified.status()));
                }
                result
            }
        };
        Ok(result)
    }

    /// A whole list.
    async fn all(&mut self, list: List) -> Result<Vec<Value>, OwnError> {
        self.left = self.max_page.saturating_mul(MAX_SIZE_PAGES);
        let mut collected = Collected::of(list);
        loop {
            let cursor = collected.cursor.clone();
            let result = self.ask(Question::List(list), cursor.as_deref()).await?;
            if collected.take(result)? {
                return Ok(collected.entries);
            }
        }
    }

    async fn ask(&mut self, question: Question, cursor: Option<&str>) -> Result<Value, OwnError> {
        let id = self.next;
        self.next += 1;
        match &mut self.channel {
            Channel::Http(upstream) => {
                let request = OwnRequest::asking(&self.spoken, id, question, cursor);
                let response = upstream.ask(request).await?;
                answer(response, id, self.max_page, &mut self.left).await
            }
            Channel::Program(talk, _) => {
                let message = asking(self.spoken.revision, id, question, cursor);
                talk.send(&message).await?;
                talk.answer(id, self.max_page, &mut self.left).await
            }
        }
    }

    /// Ends the session that was opened for this.
    pub(super) async fn end(&self) {
        if let (Channel::Http(upstream), Some(spoken)) = (&self.channel, &self.opened) {
            // The server forgets the session by itself if this fails.
            let _ = tokio::time::timeout(END_TIME, upstream.ask(OwnRequest::end(spoken))).await;
        }
    }
}
