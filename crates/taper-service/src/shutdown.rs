//! Tasks and their end: every task is tracked, a signal asks all of them to stop, and the program
//! leaves when they have, or when its patience ends.
//!
//! A task that panics takes the program down in an orderly way instead of leaving it running without
//! a part that it needs (a revocation feed, for example).

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The handle by which parts of one program start tasks and learn that they should end. Clones share
/// one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

/// Tasks were still running when the deadline of [`Shutdown::drain`] passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks were still running at the end of the shutdown deadline")]
pub struct Undrained {
    /// How many.
    pub tasks: usize,
}

impl Shutdown {
    /// A running program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a tracked task. A panic in it is logged under `name` and triggers the shutdown, after
    /// which [`Shutdown::failed`] is true.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        let watched = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                tracing::error!(task.name = name, "task panicked, shutting down");
                this.failed.store(true, Ordering::SeqCst);
                this.trigger();
            }
        };
        self.tasks.spawn(watched).abort_handle()
    }

    /// Completes when the shutdown has been triggered, at once if it was before.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the shutdown has been triggered.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks every task to end. Calling it again changes nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether a task panicked; the program should then exit with a failure.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until every task has ended. It does not trigger the shutdown.
    ///
    /// # Errors
    /// [`Undrained`] when some have not ended within `deadline`.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Undrained> {
        self.tasks.close();
        tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .map_err(|_| Undrained {
                tasks: self.tasks.len(),
            })
    }

    /// Triggers the shutdown on SIGINT or SIGTERM. The handlers are in place when this returns.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    #[cfg(unix)]
    pub fn on_signals(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let this = self.clone();
        self.spawn("signals", async move {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                () = this.cancelled() => return,
            };
            tracing::info!(signal = name, "shutting down");
            this.trigger();
        });
        Ok(())
    }

    /// Triggers the shutdown on Ctrl-C.
    ///
    /// # Errors
    /// Never on this platform.
    #[cfg(not(unix))]
    pub fn on_signals(&self) -> io::Result<()> {
        let this = self.clone();
        self.spawn("signals", async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => this.trigger(),
                () = this.cancelled() => {}
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_tasks_and_no_longer_than_its_deadline() {
        let shutdown = Shutdown::new();
        let (release, held) = oneshot::channel::<()>();
        shutdown.spawn("held", async move {
            let _ = held.await;
        });
        let stopping = shutdown.clone();
        shutdown.spawn("polite", async move { stopping.cancelled().await });
        assert_eq!(
            shutdown.drain(Duration::from_secs(5)).await,
            Err(Undrained { tasks: 2 })
        );
        shutdown.trigger();
        assert!(shutdown.is_triggered());
        assert_eq!(
            shutdown.drain(Duration::from_secs(5)).await,
            Err(Undrained { tasks: 1 })
        );
        release.send(()).unwrap();
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, Ok(()));
        assert!(!shutdown.failed());
    }

    #[tokio::test]
    async fn a_panicking_task_ends_the_program() {
        let shutdown = Shutdown::new();
        shutdown.spawn("broken", async { panic!("on purpose") });
        shutdown.cancelled().await;
        assert!(shutdown.failed());
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn waiting_for_signals_does_not_hold_up_the_end() {
        let shutdown = Shutdown::new();
        shutdown.on_signals().unwrap();
        shutdown.trigger();
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, Ok(()));
    }
}
