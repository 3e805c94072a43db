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
    began: Instant,
    ended: Instant,
    /// Between two parts of it.
    waited: Duration,
}

impl<T> Worked<T> {
    /// What came of work that began then and ends now.
    pub(crate) fn since(began: Instant, result: T) -> Self {
        Self {
            result,
            began,
            ended: Instant::now(),
            waited: Duration::ZERO,
        }
    }

    /// Together with the part of it that was done before: what lies between the two was spent waiting.
    pub(crate) fn after<B>(self, before: &Worked<B>) -> Self {
        let between = self.began.saturating_duration_since(before.ended);
        Self {
            began: before.began,
            waited: before.waited.saturating_add(between).saturating_add(self.waited),
            ..self
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let all = self.ended.saturating_duration_since(self.began);
        Phase {
            began: self.began,
            took: all.saturating_sub(self.waited),
        }
    }

    /// How long it waited, of what was asked for then.
    pub(super) fn waited(&self, submitted: Instant) -> Duration {
        let before = self.began.saturating_duration_since(submitted);
        before.saturating_add(self.waited)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_two_parts_waits_before_and_between_them() {
        let submitted = Instant::now();
        let part = |result: u8, from: u64, to: u64| Worked {
            result,
            began: submitted + Duration::from_millis(from),
            ended: submitted + Duration::from_millis(to),
            waited: Duration::ZERO,
        };
        let check = |worked: Worked<u8>, waited: u64, began: u64, took: u64| {
            let phase = worked.phase();
            assert_eq!(worked.waited(submitted), Duration::from_millis(waited));
            assert_eq!(phase.began, submitted + Duration::from_millis(began));
            assert_eq!(phase.took, Duration::from_millis(took));
        };
        check(part(1, 2, 5), 2, 2, 3);
        let both = part(2, 15, 19).after(&part(1, 2, 5));
        assert_eq!(both.result, 2);
        check(both, 12, 2, 7);
        check(part(3, 20, 21).after(&both), 13, 2, 8);
    }
}
