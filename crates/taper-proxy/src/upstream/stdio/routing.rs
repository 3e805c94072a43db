//! Where each message of a program goes (spec/proxy.md, "Programs as upstreams"). No waiting here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lines::{Id, Kind, Notification};
use super::outlet::{Item, MAX_BYTES, MAX_ITEMS, Outlet};
use crate::config::StdioEra;
use crate::refusal::Refusal;
use crate::rules;

/// Requests that are remembered although nobody waits for their answers.
const MAX_GIVEN_UP: usize = 256;

/// A request of the client, as far as routing needs it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: Id,
    pub(super) progress: Option<Id>,
    /// Whether the client reads an event stream.
    pub(super) streams: bool,
    /// Whether the answer is a list, of which not all may be shown.
    pub(super) is_list: bool,
    /// Whether it is `subscriptions/listen`.
    pub(super) listens: bool,
}

/// A request that the program has not answered.
#[derive(Debug)]
struct Request {
    asked: Asked,
    number: u64,
    waits: Waits,
    /// Its client cancelled it: the program does not have to answer.
    cancelled: bool,
}

#[derive(Debug)]
enum Waits {
    Client(Arc<Outlet>),
    /// The client went away then.
    Nobody(Instant),
}

/// Where a message goes.
#[derive(Debug)]
pub(super) enum Way {
    To(Arc<Outlet>),
    /// It waits until the session's stream is opened.
    Queue,
    /// The program ended this stream.
    Close(Arc<Outlet>),
    Nobody(&'static str),
}

/// What came of a message that is to wait.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    /// Requests of the program that nobody will get.
    pub(super) asks: Vec<Id>,
    /// How many other messages were dropped.
    pub(super) others: usize,
}

impl Displaced {
    fn add(&mut self, item: Item) {
        match item.ask {
            Some(ask) => self.asks.push(ask),
            None => self.others += 1,
        }
    }
}

/// The streams of one program and the requests that it has not answered.
#[derive(Debug)]
pub(super) struct Routes {
    era: StdioEra,
    /// How long the id of a request that was given up stays taken.
    keep: Duration,
    /// How long a request of the program waits for a stream.
    ask: Duration,
    requests: HashMap<Id, Request>,
    session: Option<Arc<Outlet>>,
    queue: VecDeque<(Item, Instant)>,
    queued_bytes: usize,
    next: u64,
    readers: usize,
    used: Instant,
    ended: bool,
}

impl Routes {
    /// No requests and no stream yet.
    pub(super) fn new(era: StdioEra, keep: Duration, ask: Duration, now: Instant) -> Self {
        Self {
            era,
            keep,
            ask,
            requests: HashMap::new(),
            session: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            next: 0,
            readers: 0,
            used: now,
            ended: false,
        }
    }

    /// Takes a request; its number tells it from a later one with the same id.
    ///
    /// # Errors
    /// When the id or the progress token is taken, too many were given up, or the program has ended.
    pub(super) fn open(&mut self, asked: Asked, outlet: Arc<Outlet>, now: Instant) -> Result<u64, Refusal> {
        if self.ended {
            return Err(Refusal::Upstream("the program ended"));
        }
        let keep = self.keep;
        // The late answer to a list must not pass for that of a request whose answer is not filtered.
        self.requests.retain(|_, request| match request.waits {
            Waits::Nobody(since) => request.asked.is_list || now < since + keep,
            Waits::Client(_) => true,
        });
        let again =
            |known: &Request| matches!(known.waits, Waits::Nobody(_)) && known.asked.listens && asked.listens;
        if self.requests.get(&asked.id).is_some_and(|known| !again(known)) {
            return Err(Refusal::Message("a request with this id is outstanding"));
        }
        let same_progress = |request: &Request| {
            let live = matches!(request.waits, Waits::Client(_));
            live && asked.progress.is_some() && request.asked.progress == asked.progress
        };
        if self.requests.values().any(same_progress) {
            return Err(Refusal::Message(
                "a request with this progress token is outstanding",
            ));
        }
        let given_up = |request: &&Request| matches!(request.waits, Waits::Nobody(_));
        if self.requests.values().filter(given_up).count() >= MAX_GIVEN_UP {
            return Err(Refusal::Waiting);
        }
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let request = Request {
            asked,
            number,
            waits: Waits::Client(outlet),
            cancelled: false,
        };
        self.requests.insert(request.asked.id.clone(), request);
        self.readers += 1;
        self.used = now;
        Ok(number)
    }

    /// Opens the session's stream with what waits for it.
    ///
    /// # Errors
    /// When it is open already, or the program has ended.
    pub(super) fn attach(
        &mut self,
        outlet: impl FnOnce(VecDeque<Item>) -> Arc<Outlet>,
        now: Instant,
    ) -> Result<Arc<Outlet>, Refusal> {
        if self.ended {
            return Err(Refusal::Session);
        }
        if !rules::ONE_STREAM.holds(self.session.is_none()) {
            return Err(Refusal::SecondStream);
        }
        self.queued_bytes = 0;
        let items = self.queue.drain(..).map(|(item, _)| item).collect();
        let outlet = outlet(items);
        self.session = Some(Arc::clone(&outlet));
        self.readers += 1;
        self.used = now;
        Ok(outlet)
    }

    /// Where a message goes. What it answers or ends is no longer waited for after this.
    pub(super) fn way(&mut self, kind: &Kind) -> Way {
        match kind {
            Kind::Answer(id) => match self.requests.remove(id).map(|request| request.waits) {
                Some(Waits::Client(outlet)) => Way::To(outlet),
                Some(Waits::Nobody(_)) => Way::Nobody("the client went away"),
                None => Way::Nobody("nothing was asked under this id"),
            },
            Kind::Request { .. } if self.era == StdioEra::Modern => {
                Way::Nobody("a program of this era asks nothing")
            }
            Kind::Request { .. } => self.sole_or_session(),
            Kind::Notification(told) => self.notified(told),
        }
    }

    fn notified(&mut self, told: &Notification) -> Way {
        let modern = self.era == StdioEra::Modern;
        if modern && told.method == "notifications/cancelled" {
            let ended = told.request.as_ref();
            let ended = ended.and_then(|id| Some((id, self.listener(id)?)));
            return match ended {
                Some((id, outlet)) => {
                    self.requests.remove(id);
                    Way::Close(outlet)
                }
                None => Way::Nobody("no subscription has this id"),
            };
        }
        if let Some(id) = told.subscription.as_ref().filter(|_| modern) {
            return self
                .listener(id)
                .map_or(Way::Nobody("no subscription has this id"), Way::To);
        }
        match told.method.as_str() {
            "notifications/progress" => {
                let mut known = self.requests.values();
                let request =
                    known.find(|request| told.progress.is_some() && request.asked.progress == told.progress);
                match request.map(|request| (&request.waits, request.asked.streams)) {
                    Some((Waits::Client(outlet), true)) => Way::To(Arc::clone(outlet)),
                    Some((Waits::Nobody(_), _)) => Way::Nobody("the client went away"),
                    _ => self.session_stream(),
                }
            }
            "notifications/message" | "notifications/cancelled" => self.sole_or_session(),
            _ => self.session_stream(),
        }
    }

    fn listener(&self, id: &Id) -> Option<Arc<Outlet>> {
        let request = self.requests.get(id)?;
        match &request.waits {
            Waits::Client(outlet) if request.asked.listens && request.asked.streams => {
                Some(Arc::clone(outlet))
            }
            _ => None,
        }
    }

    /// The one request that is under way, else the session's stream. What its client cancelled or left is
    /// not under way: a server need not answer it, so it could stand in the way for long.
    fn sole_or_session(&self) -> Way {
        let mut under_way = self.requests.values().filter_map(|request| match &request.waits {
            Waits::Client(outlet) if !request.asked.listens && !request.cancelled => {
                Some((outlet, request.asked.streams))
            }
            _ => None,
        });
        match (under_way.next(), under_way.next()) {
            (Some((outlet, true)), None) => Way::To(Arc::clone(outlet)),
            _ => self.session_stream(),
        }
    }

    fn session_stream(&self) -> Way {
        match (&self.session, self.era) {
            (_, StdioEra::Modern) => Way::Nobody("it names no request"),
            (Some(outlet), StdioEra::Legacy) => Way::To(Arc::clone(outlet)),
            (None, StdioEra::Legacy) => Way::Queue,
        }
    }

    /// Keeps an item until the session's stream is opened; older notifications make room.
    pub(super) fn enqueue(&mut self, item: Item, now: Instant) -> Displaced {
        let mut displaced = Displaced::default();
        self.put(item, now, &mut displaced);
        displaced
    }

    fn put(&mut self, mut item: Item, now: Instant, displaced: &mut Displaced) {
        // The queue has bounds of its own.
        item.room = None;
        let length = item.line.len();
        while self.queue.len() >= MAX_ITEMS || self.queued_bytes.saturating_add(length) > MAX_BYTES {
            let oldest = self.queue.iter().position(|(item, _)| item.ask.is_none());
            match oldest.and_then(|at| self.queue.remove(at)) {
                Some((oldest, _)) if length <= MAX_BYTES => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(oldest.line.len());
                    displaced.add(oldest);
                }
                other => {
                    self.queue.extend(other);
                    displaced.add(item);
                    return;
                }
            }
        }
        self.queued_bytes = self.queued_bytes.saturating_add(length);
        self.queue.push_back((item, now + self.ask));
    }

    /// The client of a request went away. Whether the program is to be told.
    pub(super) fn give_up(&mut self, id: &Id, number: u64, now: Instant) -> bool {
        match self.requests.get_mut(id) {
            Some(request) if request.number == number && matches!(request.waits, Waits::Client(_)) => {
                request.waits = Waits::Nobody(now);
                self.era == StdioEra::Modern && !self.ended
            }
            _ => false,
        }
    }

    /// The client cancelled a request.
    pub(super) fn cancel(&mut self, id: &Id) {
        if let Some(request) = self.requests.get_mut(id) {
            request.cancelled = true;
        }
    }

    /// The id and number of the request that `outlet` serves.
    pub(super) fn served(&self, outlet: &Arc<Outlet>) -> Option<(Id, u64)> {
        let serves =
            |request: &&Request| matches!(&request.waits, Waits::Client(known) if Arc::ptr_eq(known, outlet));
        let request = self.requests.values().find(serves)?;
        Some((request.asked.id.clone(), request.number))
    }

    /// The session's stream is over; what was not read waits for the next one.
    pub(super) fn detach(&mut self, outlet: &Arc<Outlet>, left: VecDeque<Item>, now: Instant) -> Displaced {
        let mut displaced = Displaced::default();
        if !self
            .session
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, outlet))
        {
            left.into_iter().for_each(|item| displaced.add(item));
            return displaced;
        }
        self.session = None;
        let later: Vec<_> = self.queue.drain(..).collect();
        self.queued_bytes = 0;
        for item in left.into_iter().chain(later.into_iter().map(|(item, _)| item)) {
            self.put(item, now, &mut displaced);
        }
        displaced
    }

    /// Somebody stopped reading.
    pub(super) fn left(&mut self, now: Instant) {
        self.readers = self.readers.saturating_sub(1);
        self.used = now;
    }

    /// Something was sent that has no answer.
    pub(super) fn touch(&mut self, now: Instant) {
        self.used = now;
    }

    /// Requests of the program that waited too long for a stream.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Id> {
        let (late, kept): (Vec<_>, Vec<_>) = self
            .queue
            .drain(..)
            .partition(|(item, until)| item.ask.is_some() && *until <= now);
        self.queue.extend(kept);
        let length = |(item, _): &(Item, Instant)| item.line.len();
        self.queued_bytes = self.queue.iter().map(length).sum();
        late.into_iter().filter_map(|(item, _)| item.ask).collect()
    }

    /// When to look again at what waits, or `None` when the program was idle for `idle`.
    pub(super) fn wake(&self, idle: Duration, now: Instant) -> Option<Instant> {
        let since = if self.readers > 0 { now } else { self.used };
        let ends = since + idle;
        let asks = self.queue.iter().filter(|(item, _)| item.ask.is_some());
        let first = asks.map(|(_, until)| *until).min();
        (now < ends || self.readers > 0).then(|| first.map_or(ends, |first| first.min(ends)))
    }

    /// Nothing more comes: everybody who reads an answer or the stream.
    pub(super) fn end(&mut self) -> Vec<Arc<Outlet>> {
        self.ended = true;
        self.queue.clear();
        let requests = self
            .requests
            .drain()
            .filter_map(|(_, request)| match request.waits {
                Waits::Client(outlet) => Some(outlet),
                Waits::Nobody(_) => None,
            });
        requests.chain(self.session.take()).collect()
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
