//! The life of one token, and the pauses after failures. Pure: times are whole seconds since the Unix
//! epoch, and a clock that is set back makes a token or a pause end, never last.

use std::fmt;
use std::sync::Arc;

use taper_oauth::Secret;
use tokio::sync::watch;

use super::{Cause, Failure};

/// The shortest life that is of use, in seconds: a token has to survive the request that it is for.
pub(super) const LEAST_LIFE: u64 = 5;
/// The life of a token of which the server does not say any, in seconds.
pub(super) const UNSAID_LIFE: u64 = 300;
/// The longest life that is believed, in seconds.
pub(super) const MOST_LIFE: u64 = 24 * 3600;
/// A new token is asked for this long before the end, in seconds, or a fifth of the life if that is longer.
const AHEAD: u64 = 30;
/// A token that its upstream refuses within this time of being issued, in seconds, is not replaced: the next
/// one would be refused too.
const SETTLED: i64 = 10;
/// The first pause after a failure, and the longest, in seconds. They double in between.
const FIRST_PAUSE: u64 = 1;
const LONGEST_PAUSE: u64 = 60;
/// The longest pause that a server may ask for by `Retry-After`, in seconds.
const LONGEST_ASKED: u64 = 300;

/// A token and its times.
pub(crate) struct Token {
    value: Secret,
    obtained: i64,
    expires: i64,
    renew: i64,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It is used.
    Good,
    /// It is used, and a new one is asked for.
    Old,
    /// It is not used any more.
    Ended,
}

impl Token {
    /// A token that was asked for at `obtained` and lives for `life` seconds from then.
    pub(super) fn new(value: Secret, obtained: i64, life: u64) -> Self {
        let life = life.min(MOST_LIFE);
        // A short life would be all renewal otherwise.
        let ahead = AHEAD.max(life / 5).min(life / 2);
        let after = |seconds: u64| obtained.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
        Self {
            value,
            obtained,
            expires: after(life),
            renew: after(life - ahead),
        }
    }

    /// The token, for the one header that carries it.
    pub(crate) fn value(&self) -> &Secret {
        &self.value
    }

    pub(super) fn age(&self, now: i64) -> Age {
        if now < self.obtained || now >= self.expires {
            Age::Ended
        } else if now >= self.renew {
            Age::Old
        } else {
            Age::Good
        }
    }

    /// Whether it was issued a moment ago.
    pub(super) fn is_new(&self, now: i64) -> bool {
        (0..SETTLED).contains(&now.saturating_sub(self.obtained))
    }
}

/// Nothing of the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What came of a request for a token.
pub(super) type Outcome = Result<Arc<Token>, Failure>;
/// A request under way: `None` until it ends.
pub(super) type Flight = watch::Receiver<Option<Outcome>>;

/// The place of one token.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) token: Option<Arc<Token>>,
    pub(super) flight: Option<Flight>,
    pub(super) pause: Pause,
    /// When it was used last, by a count.
    pub(super) used: u64,
}

impl Slot {
    /// Whether a request is under way.
    pub(super) fn is_asked(&self) -> bool {
        // One whose task ended without an outcome is none.
        self.flight
            .as_ref()
            .is_some_and(|flight| flight.has_changed().is_ok())
    }

    /// Whether nothing of it matters any more.
    pub(super) fn is_idle(&self, now: i64) -> bool {
        let ended = self
            .token
            .as_ref()
            .is_none_or(|token| token.age(now) == Age::Ended);
        ended && !self.is_asked() && self.pause.left(now).is_none()
    }
}

/// How long nobody is asked after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    failures: u32,
    since: i64,
    until: i64,
    cause: Option<Cause>,
}

impl Pause {
    /// Begins a pause after the failure of a request that was begun at `begun`: longer than the pause before
    /// it, or as long as was asked for. Requests that were under way together fail together: after the
    /// first of them the others make the pause no longer, unless they were asked to.
    pub(super) fn begin(&mut self, cause: Cause, asked: Option<u64>, begun: i64, now: i64) {
        let asked = asked.map_or(0, |asked| asked.min(LONGEST_ASKED));
        let is_known = self.cause.is_some() && (begun..=now).contains(&self.since);
        let (failures, usual) = if is_known {
            (self.failures, self.left(now).map_or(0, |(_, left)| left))
        } else {
            let doubled = FIRST_PAUSE << self.failures.min(16);
            (self.failures.saturating_add(1), doubled.min(LONGEST_PAUSE))
        };
        let seconds = usual.max(asked);
        *self = Self {
            failures,
            since: if is_known { self.since } else { now },
            until: now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)),
            cause: Some(cause),
        };
    }

    /// The pause that runs: why, and how many seconds are left of it.
    pub(super) fn left(&self, now: i64) -> Option<(Cause, u64)> {
        let runs = now >= self.since && now < self.until;
        let left = u64::try_from(self.until.saturating_sub(now)).unwrap_or(0);
        self.cause.filter(|_| runs).map(|cause| (cause, left))
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let check = |life: u64, renew: i64, expires: i64| {
            let token = Token::new(Secret::new("t"), 1000, life);
            assert_eq!(
                (token.renew - 1000, token.expires - 1000),
                (renew, expires),
                "{life}"
            );
            let ages = [-1, 0, renew - 1, renew, expires - 1, expires].map(|at| token.age(1000 + at));
            use Age::{Ended, Good, Old};
            assert_eq!(ages, [Ended, Good, Good, Old, Old, Ended], "{life}");
        };
        check(3600, 2880, 3600);
        check(300, 240, 300);
        check(150, 120, 150);
        check(100, 70, 100);
        check(60, 30, 60);
        check(40, 20, 40);
        check(5, 3, 5);
        check(u64::MAX, 69_120, 86_400);
    }

    #[test]
    fn a_token_is_new_for_a_moment_and_not_when_the_clock_was_set_back() {
        let token = Token::new(Secret::new("t"), 1000, 3600);
        assert_eq!(
            [999, 1000, 1009, 1010].map(|now| token.is_new(now)),
            [false, true, true, false]
        );
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_end_when_the_clock_is_set_back() {
        let mut pause = Pause::default();
        assert_eq!(pause.left(0), None);
        let lengths: Vec<u64> = (0..8)
            .map(|_| {
                let begun = pause.until;
                pause.begin(Cause::Unreachable, None, begun, 1000);
                pause.left(1000).unwrap().1
            })
            .collect();
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause.left(1059), Some((Cause::Unreachable, 1)));
        assert_eq!((pause.left(1060), pause.left(999)), (None, None));
        let mut asked = Pause::default();
        asked.begin(Cause::Refused, Some(120), 0, 0);
        assert_eq!(asked.left(0), Some((Cause::Refused, 120)));
        asked.begin(Cause::Refused, Some(u64::MAX), 120, 120);
        assert_eq!(asked.left(120), Some((Cause::Refused, 300)));
        asked.begin(Cause::Refused, Some(0), 420, 420);
        assert_eq!(asked.left(420), Some((Cause::Refused, 4)));
    }

    #[test]
    fn requests_that_fail_together_make_one_pause() {
        let mut pause = Pause::default();
        for begun in [90, 95, 100] {
            pause.begin(Cause::Unreachable, None, begun, 100);
            assert_eq!(pause.left(100), Some((Cause::Unreachable, 1)));
        }
        pause.begin(Cause::Refused, Some(20), 90, 100);
        assert_eq!(pause.left(100), Some((Cause::Refused, 20)));
        pause.begin(Cause::Unreachable, None, 90, 110);
        assert_eq!(pause.left(110), Some((Cause::Unreachable, 10)));
        // One that was begun after the pause counts, and so does any after the clock was set back.
        pause.begin(Cause::Unreachable, None, 120, 120);
        assert_eq!(pause.left(120), Some((Cause::Unreachable, 2)));
        pause.begin(Cause::Unreachable, None, 50, 50);
        assert_eq!(pause.left(50), Some((Cause::Unreachable, 4)));
    }

    #[test]
    fn a_token_does_not_print() {
        let slot = Slot {
            token: Some(Arc::new(Token::new(Secret::new("hunter2"), 0, 60))),
            ..Slot::default()
        };
        assert!(!format!("{slot:?}").contains("hunter2"));
    }
}
