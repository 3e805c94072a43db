//! Who is connected to an agent: a bounded number, of which the longest idle makes room for a newcomer.
//!
//! Somebody who keeps connections open, or talks nonsense on them, keeps nobody else from signing: its own
//! connections are closed first, and one that has just come is never the longest idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The connections that are served at once.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts what happens: a smaller number was earlier.
    next: u64,
    taken: Vec<Taken>,
}

#[derive(Debug)]
struct Taken {
    id: u64,
    process: Option<i32>,
    /// When it began to wait for a line; nothing while it is answered.
    idle_since: Option<u64>,
    stop: Arc<Notify>,
}

/// One connection's place; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    stop: Arc<Notify>,
}

impl Places {
    /// Room for `most` connections, `most_of_one` of them for one process.
    pub(super) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            table: Mutex::default(),
        })
    }

    /// A place for a connection of this process. Where there is none left, the longest idle connection ends: of
    /// the same process, if that has its share, else of any. Nothing while all of them are being answered.
    pub(super) fn take(self: &Arc<Self>, process: Option<i32>) -> Option<Place> {
        let mut table = self.table();
        let own = |taken: &Taken| process.is_some() && taken.process == process;
        let of_one = table.taken.iter().filter(|taken| own(taken)).count();
        if of_one >= self.most_of_one {
            table.end_longest_idle(own)?;
        } else if table.taken.len() >= self.most {
            table.end_longest_idle(|_| true)?;
        }
        let id = table.tick();
        let stop = Arc::new(Notify::new());
        table.taken.push(Taken {
            id,
            process,
            idle_since: Some(id),
            stop: stop.clone(),
        });
        Some(Place {
            places: self.clone(),
            id,
            stop,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Ends one that is idle; its place is free at once.
    fn end_longest_idle(&mut self, among: impl Fn(&Taken) -> bool) -> Option<()> {
        let idle = self.taken.iter().enumerate().filter(|(_, taken)| among(taken));
        let idle = idle.filter_map(|(at, taken)| Some((taken.idle_since?, at)));
        let (_, at) = idle.min()?;
        self.taken.swap_remove(at).stop.notify_one();
        Some(())
    }
}

impl Place {
    /// Ends when the connection is to end.
    pub(super) async fn ended(&self) {
        self.stop.notified().await;
    }

    /// A line came, which is answered now: the connection is not ended meanwhile. False when it has ended.
    pub(super) fn busy(&self) -> bool {
        self.set(|_| None)
    }

    /// The answer is out.
    pub(super) fn idle(&self) -> bool {
        self.set(Some)
    }

    fn set(&self, idle_since: impl Fn(u64) -> Option<u64>) -> bool {
        let mut table = self.places.table();
        let now = table.tick();
        let found = table.taken.iter_mut().find(|taken| taken.id == self.id);
        found.map(|taken| taken.idle_since = idle_since(now)).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().taken.retain(|taken| taken.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_ended(place: &Place) -> bool {
        !place.busy()
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let places = Places::new(3, 3);
        let all: Vec<_> = (0..3)
            .map(|process| places.take(Some(process)).unwrap())
            .collect();
        assert!(all[0].busy() && all[0].idle(), "the first one was heard last");
        let newcomer = places.take(Some(9)).unwrap();
        assert!(has_ended(&all[1]));
        // All of them are being answered: nobody makes room.
        for place in [&all[0], &all[2], &newcomer] {
            assert!(place.busy());
        }
        assert!(places.take(Some(9)).is_none());
        drop(newcomer);
        assert!(places.take(Some(9)).is_some());
    }

    #[test]
    fn one_process_has_its_share() {
        let places = Places::new(8, 2);
        let other = places.take(Some(1)).unwrap();
        let own: Vec<_> = (0..5).map(|_| places.take(Some(2)).unwrap()).collect();
        let ended = own.iter().filter(|place| has_ended(place)).count();
        assert_eq!((ended, has_ended(&other)), (3, false));
        // Who does not say its process is bounded by all the places alone.
        let unknown: Vec<_> = (0..3).map(|_| places.take(None).unwrap()).collect();
        assert!(!unknown.iter().any(has_ended));
    }

    #[tokio::test]
    async fn who_is_ended_is_told_so() {
        let places = Places::new(1, 1);
        let first = places.take(None).unwrap();
        let second = places.take(None).unwrap();
        first.ended().await;
        assert!(has_ended(&first) && !has_ended(&second));
        // What has ended gives nothing up that is another's by now.
        drop(first);
        assert!(!has_ended(&second));
    }
}
