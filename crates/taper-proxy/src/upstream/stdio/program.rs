//! A running program as its clients see it: requests go in, messages come out to whom they belong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lines::{Id, Kind, Message};
use super::outlet::{End, Item, Outlet, Refused};
use super::routing::{Asked, Displaced, Routes, Way};
use crate::config::{Limits, StdioEra};
use crate::refusal::Refusal;
use crate::session::Owner;

/// Messages of clients that wait for a program that does not read.
const INPUT: usize = 16;
/// Our own messages to it that wait.
const REPLIES: usize = 1024;
/// Requests of one program whose answers clients wait for or read.
const MAX_REQUESTS: usize = 64;
/// Messages without an answer that are on their way to one program.
const MAX_SENDING: usize = 64;
/// Answers of one program that are waiting to be read, in lines of the greatest length.
const WAITING_LINES: usize = 4;

/// How long things wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a client that does not read.
    pub(super) stall: Duration,
    /// For a stream, when a program asks something.
    pub(super) ask: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(5),
            ask: Duration::from_secs(30),
        }
    }
}

/// What is to be written to a program.
pub(super) struct Input {
    /// Of clients.
    pub(super) lines: mpsc::Receiver<Vec<u8>>,
    /// Our own.
    pub(super) replies: mpsc::Receiver<Vec<u8>>,
}

/// A program that runs.
pub(super) struct Program {
    pub(super) server: String,
    pub(super) owner: Owner,
    lines: mpsc::Sender<Vec<u8>>,
    replies: mpsc::Sender<Vec<u8>>,
    routes: Mutex<Routes>,
    places: Arc<Semaphore>,
    sending: Semaphore,
    waiting: Arc<Semaphore>,
    room: Arc<Notify>,
    changed: Notify,
    stall: Duration,
    /// It is to end, and nothing more is sent to it.
    pub(super) stop: CancellationToken,
    /// Its processes are gone.
    pub(super) gone: CancellationToken,
}

impl Program {
    /// The two ends of a program's pipes: this, and what is to be written.
    pub(super) fn new(
        server: &str,
        owner: &Owner,
        era: StdioEra,
        limits: &Limits,
        patience: Patience,
    ) -> (Arc<Self>, Input) {
        let (lines, from_clients) = mpsc::channel(INPUT);
        let (replies, ours) = mpsc::channel(REPLIES);
        let waiting = limits.max_list.saturating_mul(WAITING_LINES);
        let program = Self {
            server: server.to_owned(),
            owner: owner.clone(),
            lines,
            replies,
            routes: Mutex::new(Routes::new(
                era,
                limits.answer_timeout,
                patience.ask,
                Instant::now(),
            )),
            places: Arc::new(Semaphore::new(MAX_REQUESTS)),
            sending: Semaphore::new(MAX_SENDING),
            waiting: Arc::new(Semaphore::new(waiting.min(u32::MAX as usize))),
            room: Arc::default(),
            changed: Notify::new(),
            stall: patience.stall,
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let input = Input {
            lines: from_clients,
            replies: ours,
        };
        (Arc::new(program), input)
    }

    /// Sends a line that has no answer. It has a place of its own: an answer of the client must not wait
    /// for the requests that wait for it.
    pub(super) async fn tell(&self, line: Vec<u8>) -> Result<(), Refusal> {
        let _place = self.sending.try_acquire().map_err(|_| Refusal::Waiting)?;
        self.send(line).await
    }

    /// Sends a line.
    pub(super) async fn send(&self, line: Vec<u8>) -> Result<(), Refusal> {
        let gone = || Refusal::Upstream("the program ended");
        self.routes().touch(Instant::now());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(gone()),
            sent = self.lines.send(line) => sent.map_err(|_| gone()),
        }
    }

    /// The client cancels a request.
    pub(super) fn cancelled(&self, id: &Id) {
        self.routes().cancel(id);
    }

    /// Registers a request; its answer can be read as soon as it was sent.
    pub(super) fn ask(self: &Arc<Self>, asked: Asked) -> Result<Reading, Refusal> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Refusal::Waiting)?;
        let outlet = Outlet::new(Default::default(), Arc::clone(&self.room));
        let id = asked.id.clone();
        let number = self.routes().open(asked, Arc::clone(&outlet), Instant::now())?;
        Ok(Reading {
            program: Arc::clone(self),
            outlet,
            request: Some((id, number)),
            _place: Some(place),
        })
    }

    /// Opens the session's stream.
    pub(super) fn listen(self: &Arc<Self>) -> Result<Reading, Refusal> {
        let room = Arc::clone(&self.room);
        let outlet = |items| Outlet::new(items, room);
        let outlet = self.routes().attach(outlet, Instant::now())?;
        Ok(Reading {
            program: Arc::clone(self),
            outlet,
            request: None,
            _place: None,
        })
    }

    /// Brings a message of the program to whom it belongs. Waits for a client that does not read, so the
    /// program waits too, but not for long: then that client's stream is cut.
    pub(super) async fn deliver(&self, message: Message) {
        let Message { line, kind } = message;
        let ask = match &kind {
            Kind::Request { id, method } if method == "ping" => {
                self.reply(format!(
                    r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#,
                    id.as_str()
                ));
                return;
            }
            Kind::Request { id, .. } => Some(id.clone()),
            _ => None,
        };
        let last = matches!(kind, Kind::Answer(_));
        let mut item = Item {
            line,
            ask,
            last,
            room: None,
        };
        loop {
            let way = self.routes().way(&kind);
            match way {
                Way::To(outlet) => match self.push(&outlet, item).await {
                    Ok(()) => return,
                    Err(_) if last => return,
                    Err(back) => {
                        item = back;
                        // Whoever ended it is about to tell the routes.
                        tokio::task::yield_now().await;
                    }
                },
                Way::Queue => {
                    let displaced = self.routes().enqueue(item, Instant::now());
                    self.changed.notify_one();
                    return self.displaced(displaced);
                }
                Way::Close(outlet) => return outlet.end(End::Done),
                Way::Nobody(reason) => {
                    tracing::debug!(
                        mcp.server = self.server,
                        reason,
                        "a message of the program is not delivered"
                    );
                    if let Some(ask) = &item.ask {
                        self.refuse(ask);
                    }
                    return;
                }
            }
        }
    }

    async fn push(&self, outlet: &Arc<Outlet>, mut item: Item) -> Result<(), Item> {
        let deadline = Instant::now() + self.stall;
        if item.room.is_none() {
            let bytes = u32::try_from(item.line.len()).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.waiting).acquire_many_owned(bytes);
            match tokio::time::timeout_at(deadline, room).await {
                Ok(Ok(room)) => item.room = Some(room),
                _ => {
                    self.cut(outlet);
                    return Err(item);
                }
            }
        }
        loop {
            match outlet.push(item) {
                Ok(()) => return Ok(()),
                Err(Refused::Ended(back)) => return Err(back),
                Err(Refused::Full(back)) => item = back,
            }
            if tokio::time::timeout_at(deadline, self.room.notified())
                .await
                .is_err()
            {
                self.cut(outlet);
                return Err(item);
            }
        }
    }

    /// Ends a stream whose client does not read.
    fn cut(&self, outlet: &Arc<Outlet>) {
        tracing::info!(
            mcp.server = self.server,
            "a stream was cut whose client does not read"
        );
        let served = self.routes().served(outlet);
        self.leave(outlet, served.as_ref(), End::Cut);
    }

    /// Nobody reads `outlet` any more.
    fn leave(&self, outlet: &Arc<Outlet>, request: Option<&(Id, u64)>, end: End) {
        let left = outlet.close(end);
        let now = Instant::now();
        let cancelled = request.filter(|(id, number)| self.routes().give_up(id, *number, now));
        if let Some((id, _)) = cancelled {
            self.reply(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"the client closed the stream"}}}}"#,
                id.as_str()
            ));
        }
        let displaced = self.routes().detach(outlet, left, now);
        self.changed.notify_one();
        self.displaced(displaced);
    }

    fn displaced(&self, displaced: Displaced) {
        if displaced.others > 0 {
            let count = displaced.others;
            tracing::debug!(
                mcp.server = self.server,
                count,
                "messages of the program were dropped"
            );
        }
        displaced.asks.iter().for_each(|ask| self.refuse(ask));
    }

    /// Tells the program that nobody was asked.
    fn refuse(&self, ask: &Id) {
        self.reply(format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"no client can be asked"}}}}"#,
            ask.as_str()
        ));
    }

    /// Never waited for: the program may be waiting for us to read.
    fn reply(&self, mut line: String) {
        line.push('\n');
        if self.replies.try_send(line.into_bytes()).is_err() && !self.stop.is_cancelled() {
            tracing::debug!(
                mcp.server = self.server,
                "the program does not read, a reply is dropped"
            );
        }
    }

    /// Looks after what waits, until the program was idle for `idle`.
    pub(super) async fn until_idle(&self, idle: Duration) {
        loop {
            let now = Instant::now();
            let (overdue, wake) = {
                let mut routes = self.routes();
                (routes.overdue(now), routes.wake(idle, now))
            };
            overdue.iter().for_each(|ask| self.refuse(ask));
            let Some(wake) = wake else { return };
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Nothing more is sent or answered.
    pub(super) fn end(&self) {
        self.stop.cancel();
        let readers = self.routes().end();
        readers.iter().for_each(|outlet| outlet.end(End::Gone));
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody reads an answer, or the session's stream, until this is dropped.
pub(super) struct Reading {
    program: Arc<Program>,
    outlet: Arc<Outlet>,
    /// `None` for the session's stream.
    request: Option<(Id, u64)>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// The next message, or why none comes any more.
    pub(super) async fn next(&self) -> Result<Item, End> {
        self.outlet.next().await
    }

    /// The id of the request.
    pub(super) fn id(&self) -> Option<&Id> {
        self.request.as_ref().map(|(id, _)| id)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.program.leave(&self.outlet, self.request.as_ref(), End::Done);
        self.program.routes().left(Instant::now());
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
