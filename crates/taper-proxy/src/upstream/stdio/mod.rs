//! An upstream that is a program: one per session, or per owner in the modern era (RULES 21). To its
//! clients it looks like a Streamable HTTP server: answers are JSON when they come first, and event
//! streams as soon as something else belongs to their request; a legacy session has one stream to GET.
//!
//! ```text
//! mod      which program, and what its answers look like in HTTP
//! program  one program: requests in, messages out, each waiting no longer than it may
//! routing  which message belongs to whom
//! outlet   what waits for one client
//! process  start, pipes, end
//! lines    messages as lines
//! ```

mod answer;
mod lines;
mod outlet;
mod process;
mod program;
mod routing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use taper_service::rng;
use taper_service::secret::Secret;
use taper_service::shutdown::Shutdown;

use self::lines::{Id, line_of};
pub(super) use self::process::Lone;
use self::process::Start;
use self::program::{Patience, Program};
use self::routing::Asked;
use crate::body::{Body, empty};
use crate::config::{Limits, StdioEra, StdioStderr};
use crate::headers::SESSION;
use crate::message::Era;
use crate::permitted::{Call, Outbound};
use crate::refusal::Refusal;
use crate::rules;
use crate::session::Owner;

/// One owner has at most this part of the programs, but one in any case.
const OWNERS_SHARE: usize = 8;
/// One grant, with all its holders, at most this part, but one in any case.
const GRANTS_SHARE: usize = 4;

/// How to start the program, and those that run.
pub(crate) struct StdioUpstream {
    settings: Box<StdioSettings>,
    programs: Mutex<Programs>,
}

/// What a stdio upstream is configured with.
pub(crate) struct StdioSettings {
    pub(crate) server: String,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, Secret)>,
    pub(crate) era: StdioEra,
    pub(crate) stderr: StdioStderr,
    pub(crate) max_children: usize,
    pub(crate) idle: Duration,
    pub(crate) limits: Limits,
}

#[derive(Default)]
struct Programs {
    /// Those that take requests.
    by_key: HashMap<Key, Arc<Program>>,
    /// Those whose processes are there.
    running: Vec<Arc<Program>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Session(String),
    Owner(Owner),
}

impl StdioUpstream {
    /// An upstream of which no program runs yet.
    pub(crate) fn new(settings: StdioSettings) -> Self {
        Self {
            settings: Box::new(settings),
            programs: Mutex::default(),
        }
    }

    /// How many programs there are.
    pub(super) fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// How many there may be.
    pub(super) fn most(&self) -> usize {
        self.settings.max_children
    }

    pub(super) async fn send(
        &self,
        outbound: Outbound,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        let Some(call) = &outbound.call else {
            return self.without_call(&outbound, shutdown).await;
        };
        let owner = &outbound.owner;
        match (self.settings.era, outbound.era) {
            (StdioEra::Modern, Era::Modern) => {
                let program = self.program(Key::Owner(owner.clone()), Some(owner), shutdown)?;
                self.exchange(&program, call, &outbound).await
            }
            (StdioEra::Legacy, Era::Legacy) if call.method == "initialize" => {
                let session = rng::random_id_128(&mut rng::os());
                let program = self.program(Key::Session(session.clone()), Some(owner), shutdown)?;
                // Nobody knows the session until the answer's head is on its way.
                let unknown = program.stop.clone().drop_guard();
                let mut response = self.exchange(&program, call, &outbound).await?;
                unknown.disarm();
                if let Ok(session) = HeaderValue::try_from(session) {
                    response.headers_mut().insert(SESSION, session);
                }
                Ok(response)
            }
            (StdioEra::Legacy, Era::Legacy) => {
                let program = self.of_session(&outbound, shutdown)?;
                self.exchange(&program, call, &outbound).await
            }
            (StdioEra::Legacy, Era::Modern) | (StdioEra::Modern, Era::Legacy) => Err(Refusal::Revision {
                requested: call.revision.clone(),
            }),
        }
    }

    /// An answer to the program, its session's stream, or its session's end.
    async fn without_call(
        &self,
        outbound: &Outbound,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        if self.settings.era == StdioEra::Modern {
            return Err(Refusal::Method { allow: "POST" });
        }
        let program = self.of_session(outbound, shutdown)?;
        if outbound.method == Method::GET {
            return Ok(answer::stream(None, program.listen()?));
        }
        if outbound.method == Method::POST {
            return self.tell(&program, &outbound.body).await;
        }
        program.stop.cancel();
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    fn of_session(&self, outbound: &Outbound, shutdown: &Shutdown) -> Result<Arc<Program>, Refusal> {
        let session = outbound.session.clone().ok_or(Refusal::Session)?;
        self.program(Key::Session(session), None, shutdown)
    }

    /// Sends what has no answer.
    async fn tell(&self, program: &Program, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let sent = program.tell(line_of(body));
        match tokio::time::timeout(self.settings.limits.answer_timeout, sent).await {
            Err(_) => Err(Refusal::Upstream("the program does not read")),
            Ok(sent) => {
                sent?;
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::ACCEPTED;
                Ok(response)
            }
        }
    }

    async fn exchange(
        &self,
        program: &Arc<Program>,
        call: &Call,
        outbound: &Outbound,
    ) -> Result<Response<Body>, Refusal> {
        let Some(id) = &call.id else {
            if let Some(request) = call.cancels.as_ref().and_then(Id::of) {
                program.cancelled(&request);
            }
            return self.tell(program, &outbound.body).await;
        };
        let too_long = || Refusal::Message("an id or a progress token is too long");
        let reads = Reads::of(&outbound.headers);
        let progress = call
            .progress
            .as_ref()
            .map(|token| Id::of(token).ok_or_else(too_long));
        let reading = program.ask(Asked {
            id: Id::of(id).ok_or_else(too_long)?,
            progress: progress.transpose()?,
            streams: reads.events,
            is_list: call.list.is_some(),
            listens: call.method == "subscriptions/listen",
        })?;
        let first = async {
            program.send(line_of(&outbound.body)).await?;
            let gone = |_| Refusal::Upstream("the program ended");
            reading.next().await.map_err(gone)
        };
        match tokio::time::timeout(self.settings.limits.answer_timeout, first).await {
            Err(_) => Err(Refusal::Upstream("the program did not answer in time")),
            Ok(Err(refusal)) => Err(refusal),
            Ok(Ok(first)) if first.last && reads.json => Ok(answer::json(first, reading)),
            Ok(Ok(first)) => Ok(answer::stream(Some(first), reading)),
        }
    }

    /// The program of `key`; one is started for `owner` when there is none.
    fn program(&self, key: Key, owner: Option<&Owner>, shutdown: &Shutdown) -> Result<Arc<Program>, Refusal> {
        let mut programs = self.lock();
        programs.by_key.retain(|_, program| !program.stop.is_cancelled());
        programs.running.retain(|program| !program.gone.is_cancelled());
        if let Some(program) = programs.by_key.get(&key) {
            return Ok(Arc::clone(program));
        }
        let owner = owner.ok_or(Refusal::Session)?;
        let max = self.settings.max_children;
        let running = || programs.running.iter();
        let owned = running().filter(|program| program.owner == *owner);
        let granted = running().filter(|program| program.owner.grant() == owner.grant());
        let is_place = programs.running.len() < max
            && owned.count() < (max / OWNERS_SHARE).max(1)
            && granted.count() < (max / GRANTS_SHARE).max(1);
        if !rules::CHILDREN.holds(is_place) {
            return Err(Refusal::Children);
        }
        let program = self.start(owner, shutdown).map_err(|error| {
            tracing::error!(mcp.server = self.settings.server, %error, "cannot start the program");
            Refusal::Upstream("the program cannot be started")
        })?;
        programs.running.push(Arc::clone(&program));
        programs.by_key.insert(key, Arc::clone(&program));
        Ok(program)
    }

    fn start(&self, owner: &Owner, shutdown: &Shutdown) -> std::io::Result<Arc<Program>> {
        let settings = &self.settings;
        let (program, input) = Program::new(
            &settings.server,
            owner,
            settings.era,
            &settings.limits,
            Patience::default(),
        );
        let start = Start {
            command: &settings.command,
            env: &settings.env,
            stderr: settings.stderr,
            limits: settings.limits,
            idle: settings.idle,
        };
        process::start(&start, &program, input, shutdown)?;
        Ok(program)
    }

    /// Which era the program speaks.
    pub(super) fn era(&self) -> StdioEra {
        self.settings.era
    }

    /// A program for a question of the proxy's own, which no caller ever talks to.
    pub(super) fn lone(&self) -> std::io::Result<Lone> {
        Lone::start(&self.settings.command, &self.settings.env)
    }

    fn lock(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client reads, by its `Accept`. One that does not say gets JSON.
struct Reads {
    json: bool,
    events: bool,
}

impl Reads {
    fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            let ranges = value.to_str().unwrap_or_default().split(',');
            let range = |range: &str| {
                range
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_ascii_lowercase()
            };
            accepted.extend(ranges.map(range));
        }
        let names = |kind: &str| accepted.iter().any(|range| range == kind);
        let events = names("text/event-stream");
        Self {
            json: !events || names("application/json") || names("application/*") || names("*/*"),
            events,
        }
    }
}

impl std::fmt::Debug for StdioUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioUpstream")
            .field("server", &self.settings.server)
            .field("era", &self.settings.era)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
