//! The parts of a request in time.

use std::time::Duration;

use tokio::time::Instant;

/// When a part of a request began, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) began: Instant,
    pub(super) took: Duration,
}

/// The parts of a request, where it came to them.
#[derive(Debug, Default)]
pub(super) struct Phases {
    pub(super) queue: Option<Duration>,
    pub(super) verify: Option<Phase>,
    pub(super) decide: Option<Phase>,
    pub(super) journal: Option<Phase>,
    pub(super) upstream: Option<Phase>,
    pub(super) head: Option<Duration>,
}

/// How long work waited for a worker, and then took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worked<T> {
    pub(crate) result: T,
    pub(super) began: Instant,
    ended: Instant,
}

impl<T> Worked<T> {
    /// What came of work that began then and ends now.
    pub(crate) fn since(began: Instant, result: T) -> Self {
        Self {
            result,
            began,
            ended: Instant::now(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase {
            began: self.began,
            took: self.ended.saturating_duration_since(self.began),
        }
    }
}

/// Notes when work begins and ends.
pub(crate) fn worked<T>(work: impl FnOnce() -> T) -> Worked<T> {
    let began = Instant::now();
    Worked::since(began, work())
}

/// Whole nanoseconds.
pub(super) fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
