//! How much a daemon's journal takes of its disk, and how much is left there: a full disk stops it.
//!
//! A disk that hangs must not hang whoever scrapes, nor a thread of the runtime: it is looked at beside
//! everything else, and the page has what was found last.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{Gauge, Registry};
use crate::process::free_bytes;
use crate::shutdown::Shutdown;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(15);

/// What a journal takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of all its files.
    pub bytes: u64,
    /// How many files.
    pub files: usize,
}

/// Measures a journal; it reads its folder.
pub type Measure = Arc<dyn Fn() -> io::Result<Taken> + Send + Sync>;

/// The families of one daemon's journal. Clones share them.
#[derive(Clone, Debug)]
pub struct Disk {
    bytes: Gauge,
    files: Gauge,
    free: Gauge,
}

impl Disk {
    /// Puts them on the page; their names begin with `program`.
    pub fn new(registry: &mut Registry, program: &str) -> Self {
        let mut gauge = |what: &str, help: &str| registry.gauge(&format!("{program}_{what}"), help);
        Self {
            bytes: gauge("journal_bytes", "What the files of the journal take."),
            files: gauge("journal_files", "Files of the journal."),
            free: gauge(
                "state_free_bytes",
                "What is left on the disk of the state folder; 0 when it does not say so.",
            ),
        }
    }

    /// Looks at `folder` now and then, until `shutdown`.
    pub async fn follow(self, folder: PathBuf, measure: Measure, shutdown: Shutdown) {
        loop {
            let (this, folder, measure) = (self.clone(), folder.clone(), Arc::clone(&measure));
            let look = move || this.look(&folder, &measure);
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%error, "the disk could not be looked at");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn look(&self, folder: &std::path::Path, measure: &Measure) {
        match measure() {
            Ok(taken) => {
                self.bytes.set(i64::try_from(taken.bytes).unwrap_or(i64::MAX));
                self.files.set_count(taken.files);
            }
            Err(error) => tracing::warn!(%error, "the journal's files cannot be counted"),
        }
        let free = free_bytes(folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known what is left on the disk");
            0
        });
        self.free.set(i64::try_from(free).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_disk_is_looked_at_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let looks = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&looks);
        let measure: Measure = Arc::new(move || {
            let n = counting.fetch_add(1, Ordering::Relaxed) + 1;
            if n == 3 {
                return Err(io::Error::other("on purpose"));
            }
            Ok(Taken {
                bytes: 100 * n,
                files: 1,
            })
        });
        let mut registry = Registry::new();
        let disk = Disk::new(&mut registry, "x");
        let shutdown = Shutdown::new();
        let run = disk
            .clone()
            .follow(folder.path().to_owned(), measure, shutdown.clone());
        shutdown.spawn("disk", run);
        for (look, bytes) in [(1, 100), (2, 200), (3, 200), (4, 400)] {
            while looks.load(Ordering::Relaxed) < look || disk.bytes.get() != bytes {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        assert!(disk.free.get() > 0);
        let page = registry.render();
        assert!(
            page.contains("x_journal_bytes 400") && page.contains("x_journal_files 1"),
            "{page}"
        );
        disk.look(
            &folder.path().join("none"),
            &(Arc::new(|| Ok(Taken::default())) as Measure),
        );
        assert_eq!((disk.bytes.get(), disk.free.get()), (0, 0));
        shutdown.trigger();
        assert_eq!(shutdown.drain(Duration::from_secs(60)).await, Ok(()));
    }
}
