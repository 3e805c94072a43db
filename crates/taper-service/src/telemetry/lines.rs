//! Lines on their way to stderr: a thread of their own writes them, so that whoever logs never waits for
//! whoever reads. When the reader stalls, lines beyond a bound are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Lines that may wait; with the longest of some KiB, a few MiB.
const QUEUE: usize = 4096;
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_secs(2);

static STDERR: OnceLock<Lines> = OnceLock::new();

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Answered when everything before is written.
    Flush(SyncSender<()>),
}

/// Where lines go in. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// The process's stderr.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(super) fn stderr() -> io::Result<Self> {
        if let Some(lines) = STDERR.get() {
            return Ok(lines.clone());
        }
        let lines = Self::to(io::stderr())?;
        Ok(STDERR.get_or_init(|| lines).clone())
    }

    fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, target))?;
        Ok(Self {
            queue: sender,
            dropped: Arc::default(),
        })
    }

    fn drain(&self) {
        let (answer, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(answer)).is_ok() {
            // Who does not read by then does not get the last lines.
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(queue: &Receiver<Item>, mut target: impl Write) {
    while let Ok(item) = queue.recv() {
        match item {
            // Without a stderr there is nobody to tell.
            Item::Line(line) => drop(target.write_all(&line)),
            Item::Flush(answer) => drop(answer.send(())),
        }
    }
}

/// Waits, not long, until what was logged is written: before the process ends.
pub fn flush() {
    if let Some(lines) = STDERR.get() {
        lines.drain();
    }
}

/// How many lines were dropped since the start, because nobody read them.
pub fn dropped() -> u64 {
    STDERR
        .get()
        .map_or(0, |lines| lines.dropped.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_a_reader_that_stalls_holds_up_nobody() {
        let kept = Kept::default();
        let mut lines = Lines::to(kept.clone()).unwrap();
        for n in 0..3 {
            writeln!(lines, "{n}").unwrap();
        }
        lines.drain();
        assert_eq!(*kept.0.lock().unwrap(), b"0\n1\n2\n");
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 0);
        let stalled = kept.0.lock().unwrap();
        // One more may be in the hands of the thread.
        for _ in 0..QUEUE + 10 {
            lines.write_all(b"x").unwrap();
        }
        assert!(lines.dropped.load(Ordering::Relaxed) >= 9);
        drop(stalled);
        drop(lines);
    }
}
