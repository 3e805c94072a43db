//! One answer on its way to a client: what the program sent for it and nobody has read yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::lines::Id;

/// Messages that wait in one outlet.
pub(super) const MAX_ITEMS: usize = 256;
/// Their bytes together; a single message may be as long as a line.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// A message on its way to a client.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) line: Bytes,
    /// The id, when it is a request of the program.
    pub(super) ask: Option<Id>,
    /// Whether it is the answer, after which nothing comes.
    pub(super) last: bool,
    /// Its bytes' part of what one program may have waiting.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All was said.
    Done,
    /// The program ended.
    Gone,
    /// The client did not read.
    Cut,
}

/// Why an item was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Until something of it is read.
    Full(Item),
    /// It has ended.
    Ended(Item),
}

/// Between the one task that reads a program and the one that serves a client.
#[derive(Debug)]
pub(super) struct Outlet {
    state: Mutex<State>,
    ready: Notify,
    /// Told whenever something left an outlet of this program.
    room: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    end: Option<End>,
}

impl Outlet {
    /// An outlet that begins with `items`.
    pub(super) fn new(items: VecDeque<Item>, room: Arc<Notify>) -> Arc<Self> {
        let bytes = items.iter().map(|item| item.line.len()).sum();
        let state = State {
            items,
            bytes,
            end: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ready: Notify::new(),
            room,
        })
    }

    /// Adds an item, which ends the outlet when it is the last.
    ///
    /// # Errors
    /// The item, when there is no room for it, or the outlet has ended.
    pub(super) fn push(&self, item: Item) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(Refused::Ended(item));
        }
        let fits = state.items.len() < MAX_ITEMS && state.bytes.saturating_add(item.line.len()) <= MAX_BYTES;
        if !(fits || state.items.is_empty()) {
            return Err(Refused::Full(item));
        }
        state.bytes = state.bytes.saturating_add(item.line.len());
        state.end = item.last.then_some(End::Done);
        state.items.push_back(item);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// The next item, or why none comes any more. One task waits at a time.
    pub(super) async fn next(&self) -> Result<Item, End> {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.lock();
                if let Some(item) = state.items.pop_front() {
                    state.bytes = state.bytes.saturating_sub(item.line.len());
                    drop(state);
                    self.room.notify_one();
                    return Ok(item);
                }
                if let Some(end) = state.end {
                    return Err(end);
                }
            }
            ready.await;
        }
    }

    /// Nothing more is taken; what waits can still be read.
    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.ready.notify_one();
        self.room.notify_one();
    }

    /// Nothing more is taken, and what waits is given back.
    pub(super) fn close(&self, end: End) -> VecDeque<Item> {
        let mut state = self.lock();
        state.end = Some(end);
        state.bytes = 0;
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.ready.notify_one();
        self.room.notify_one();
        left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(line: &[u8], last: bool) -> Item {
        Item {
            line: Bytes::copy_from_slice(line),
            ask: None,
            last,
            room: None,
        }
    }

    #[tokio::test]
    async fn an_outlet_is_bounded_and_ends_with_the_answer() {
        let outlet = Outlet::new(VecDeque::new(), Arc::default());
        // A long message fits when nothing else waits.
        outlet.push(item(&vec![b'x'; MAX_BYTES + 1], false)).unwrap();
        assert!(matches!(outlet.push(item(b"a", false)), Err(Refused::Full(_))));
        assert_eq!(outlet.next().await.unwrap().line.len(), MAX_BYTES + 1);
        for _ in 0..MAX_ITEMS {
            outlet.push(item(b"a", false)).unwrap();
        }
        assert!(matches!(outlet.push(item(b"a", true)), Err(Refused::Full(_))));
        assert!(!outlet.next().await.unwrap().last);
        outlet.push(item(b"b", true)).unwrap();
        assert!(matches!(outlet.push(item(b"c", false)), Err(Refused::Ended(_))));
        outlet.end(End::Gone);
        while !outlet.next().await.unwrap().last {}
        assert_eq!(outlet.next().await.unwrap_err(), End::Done);
    }

    #[tokio::test]
    async fn closing_gives_back_what_waits() {
        let outlet = Outlet::new(VecDeque::from([item(b"a", false)]), Arc::default());
        assert_eq!(outlet.close(End::Cut).len(), 1);
        assert_eq!(outlet.next().await.unwrap_err(), End::Cut);
    }
}
