//! Records that nobody waits for: a bounded queue of their own, so that they hold up nobody who does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::error::StoreError;
use crate::record::Record;

/// Records of one commit. When so many wait, they are written at once.
pub(crate) const TOGETHER: usize = 256;
/// Of these, in a commit that somebody waits for.
pub(crate) const BESIDE: usize = 64;
/// Records that may wait.
const RECORDS: usize = 4096;
/// Bytes of encoded records that may wait.
const BYTES: usize = 16 * 1024 * 1024;

/// A record that waits.
pub(crate) struct Later {
    pub(crate) record: Record,
    pub(crate) payload: Vec<u8>,
    _waiting: Waiting,
}

/// The end of the queue that callers have.
pub(crate) struct LaterSender {
    queue: mpsc::Sender<Later>,
    count: Arc<Count>,
}

/// The end of the queue that the writer has.
pub(crate) struct LaterReceiver {
    queue: mpsc::Receiver<Later>,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// The writer was told, or will look anyway.
    woken: AtomicBool,
    /// The same once more, when it need not wait for others.
    full: AtomicBool,
}

/// Counts a record from its queueing to the end of its commit.
struct Waiting {
    count: Arc<Count>,
    bytes: usize,
}

/// A queue.
pub(crate) fn channel() -> (LaterSender, LaterReceiver) {
    let (sender, receiver) = mpsc::channel(RECORDS);
    let count = Arc::new(Count::default());
    (
        LaterSender {
            queue: sender,
            count: Arc::clone(&count),
        },
        LaterReceiver {
            queue: receiver,
            count,
        },
    )
}

impl LaterSender {
    /// Queues a record. `wake` tells the writer, if nobody did or if it need not wait for more; it need not
    /// succeed while the writer has other work.
    pub(crate) fn send(
        &self,
        record: Record,
        payload: Vec<u8>,
        wake: impl FnOnce(),
    ) -> Result<(), StoreError> {
        let waiting = self.count.add(payload.len())?;
        let later = Later {
            record,
            payload,
            _waiting: waiting,
        };
        self.queue.try_send(later).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::QueueFull,
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        let queued = self.queue.max_capacity() - self.queue.capacity();
        let is_first = !self.count.woken.swap(true, Ordering::SeqCst);
        let is_full = queued >= TOGETHER && !self.count.full.swap(true, Ordering::SeqCst);
        if is_first || is_full {
            wake();
        }
        Ok(())
    }

    /// Whether the writer was told. For a test, which may say that it was.
    #[cfg(test)]
    pub(crate) fn woken(&self) -> &AtomicBool {
        &self.count.woken
    }

    /// Whether less than half of what may wait does, in records and in bytes.
    pub(crate) fn has_room(&self) -> bool {
        let bytes = self.count.bytes.load(Ordering::Relaxed);
        self.waiting() < RECORDS / 2 && bytes < BYTES / 2
    }

    /// How many records wait or are being written.
    pub(crate) fn waiting(&self) -> usize {
        self.count.records.load(Ordering::Relaxed)
    }
}

impl LaterReceiver {
    /// At most `limit` records. What is queued from now on wakes the writer again.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<Later> {
        self.count.woken.store(false, Ordering::SeqCst);
        self.count.full.store(false, Ordering::SeqCst);
        std::iter::from_fn(|| self.queue.try_recv().ok())
            .take(limit)
            .collect()
    }

    /// Takes no more from callers.
    pub(crate) fn close(&mut self) {
        self.queue.close();
    }

    /// As [`LaterReceiver::take`], of a closed queue. None is left once it returns none: it waits for who
    /// was handing a record in.
    pub(crate) fn take_rest(&mut self, limit: usize) -> Vec<Later> {
        let first = self.queue.blocking_recv();
        let mut rest: Vec<_> = first.into_iter().collect();
        rest.extend(std::iter::from_fn(|| self.queue.try_recv().ok()).take(limit));
        rest
    }

    /// How many records it has.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Count {
    fn add(self: &Arc<Self>, bytes: usize) -> Result<Waiting, StoreError> {
        let add = |all: usize| all.checked_add(bytes).filter(|all| *all <= BYTES);
        let added = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.map_err(|_| StoreError::QueueFull)?;
        self.records.fetch_add(1, Ordering::Relaxed);
        Ok(Waiting {
            count: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.count.records.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::decision;

    #[test]
    fn the_queue_is_bounded_in_records_and_in_bytes() {
        let (sender, mut receiver) = channel();
        let send = |bytes: usize| sender.send(decision("a"), vec![0; bytes], || {});
        for n in 0..RECORDS {
            assert_eq!(sender.has_room(), n < RECORDS / 2);
            send(1).unwrap();
        }
        assert!(matches!(send(1), Err(StoreError::QueueFull)));
        assert_eq!(sender.waiting(), RECORDS);
        let taken = receiver.take(usize::MAX);
        assert_eq!(
            (taken.len(), sender.waiting()),
            (RECORDS, RECORDS),
            "being written"
        );
        drop(taken);
        assert_eq!(sender.waiting(), 0);
        assert!(sender.has_room());
        send(BYTES).unwrap();
        assert!(!sender.has_room());
        assert!(matches!(send(1), Err(StoreError::QueueFull)));
        drop(receiver.take(1));
        send(1).unwrap();
        drop(receiver);
        assert!(matches!(send(1), Err(StoreError::Closed)));
        assert_eq!(sender.waiting(), 0);
    }

    #[test]
    fn the_writer_is_woken_once_for_what_it_takes_at_once() {
        let (sender, mut receiver) = channel();
        let wakes = std::cell::Cell::new(0);
        let send = || {
            let wake = || wakes.set(wakes.get() + 1);
            sender.send(decision("a"), Vec::new(), wake).unwrap();
        };
        (0..3).for_each(|_| send());
        assert_eq!(wakes.get(), 1);
        assert_eq!(receiver.take(2).len(), 2);
        assert_eq!(receiver.len(), 1);
        send();
        assert_eq!(wakes.get(), 2);
    }
}
