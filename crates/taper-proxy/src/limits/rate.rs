//! Requests in a time, per caller: a bucket each, refilled evenly (GCRA, by `governor`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use taper_service::clock::SharedClock;

use super::table::{Key, Table};
use crate::config;

/// Callers with a bucket of their own, for each rate.
pub(super) const MAX_BUCKETS: usize = 16_384;
/// How often buckets that are full again are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The longest time in which an empty bucket fills.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The time that has passed, by the clock of the program. A clock that is set back stops nobody: time
/// goes on from there.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    clock: SharedClock,
    read: Arc<Mutex<Reading>>,
}

#[derive(Debug)]
struct Reading {
    wall_ms: i64,
    passed: Duration,
}

impl Pace {
    pub(super) fn new(clock: SharedClock) -> Self {
        let wall_ms = clock.unix_millis();
        let passed = Duration::ZERO;
        Self {
            clock,
            read: Arc::new(Mutex::new(Reading { wall_ms, passed })),
        }
    }
}

impl Clock for Pace {
    type Instant = Duration;

    fn now(&self) -> Duration {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let wall_ms = self.clock.unix_millis();
        let since = u64::try_from(wall_ms.saturating_sub(read.wall_ms)).unwrap_or(0);
        read.wall_ms = wall_ms;
        read.passed = read.passed.saturating_add(Duration::from_millis(since));
        read.passed
    }
}

/// One rate and the buckets of all who were here lately.
#[derive(Debug)]
pub(super) struct Buckets {
    limiter: RateLimiter<Key, Store, Pace, NoOpMiddleware<Duration>>,
    /// The same buckets, to look into.
    view: RateLimiter<Key, View, Pace, NoOpMiddleware<Duration>>,
    pace: Pace,
    swept: Mutex<Duration>,
}

impl Buckets {
    pub(super) fn new(quota: Quota, pace: Pace) -> Self {
        let table = Arc::new(Table::new(MAX_BUCKETS));
        Self {
            limiter: RateLimiter::new(quota, Store(Arc::clone(&table)), pace.clone()),
            view: RateLimiter::new(quota, View(table), pace.clone()),
            swept: Mutex::new(pace.now()),
            pace,
        }
    }

    /// Whether there is a request in the caller's bucket; nothing is taken.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub(super) fn ask(&self, key: &Key) -> Result<(), Duration> {
        let asked = self.view.check_key(key);
        asked.map_err(|not| not.wait_time_from(self.pace.now()))
    }

    /// Takes one request out of the caller's bucket.
    ///
    /// # Errors
    /// How long it takes until there is one; nothing was taken.
    pub(super) fn take(&self, key: &Key) -> Result<(), Duration> {
        self.sweep();
        let taken = self.limiter.check_key(key);
        taken.map_err(|not| not.wait_time_from(self.pace.now()))
    }

    /// How many callers have a bucket of their own.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }

    /// A bucket that is full again is like none.
    fn sweep(&self) {
        let now = self.pace.now();
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_sub(*swept) < SWEEP_EVERY {
                return;
            }
            *swept = now;
        }
        self.limiter.retain_recent();
    }
}

/// What `governor` keeps of each caller.
#[derive(Debug)]
struct Store(Arc<Table<Nanos>>);

/// The same, read only.
#[derive(Debug)]
struct View(Arc<Table<Nanos>>);

impl StateStore for View {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.change(key, |bucket| {
            (measure(bucket.copied()).map(|(answer, _)| answer), None)
        })
    }
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.change(key, |bucket| match measure(bucket.copied()) {
            Ok((answer, next)) => (Ok(answer), Some(next)),
            Err(refused) => (Err(refused), None),
        })
    }
}

impl ShrinkableKeyedStateStore<Key> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain(|bucket| *bucket > drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// The rate as `governor` takes it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn quota(rate: &config::Rate) -> Result<Quota, &'static str> {
    let burst = rate.burst.unwrap_or(rate.requests);
    let burst = std::num::NonZeroU32::new(burst).ok_or("`requests` and `burst` are at least 1")?;
    let every = rate
        .per
        .checked_div(rate.requests)
        .ok_or("`requests` and `burst` are at least 1")?;
    if every.checked_mul(burst.get()).is_none_or(|fill| fill > LONGEST) {
        return Err("`burst` requests take more than 30 days at this rate");
    }
    let quota = Quota::with_period(every).ok_or("`per` is too short")?;
    Ok(quota.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_service::clock::ManualClock;

    fn buckets(requests: u32, per: u64, burst: Option<u32>) -> (Arc<ManualClock>, Buckets) {
        let clock = ManualClock::shared(1_000);
        let per = Duration::from_secs(per);
        let quota = quota(&config::Rate { requests, per, burst }).unwrap();
        let buckets = Buckets::new(quota, Pace::new(Arc::clone(&clock) as _));
        (clock, buckets)
    }

    fn key(n: usize) -> Key {
        Key::of(&[&n.to_be_bytes()])
    }

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let (clock, buckets) = buckets(10, 1, Some(3));
        let took = |n: usize| buckets.take(&key(n)).is_ok();
        assert!(took(1) && took(1) && took(1) && !took(1));
        assert!(took(2), "another caller");
        assert_eq!(buckets.take(&key(1)), Err(Duration::from_millis(100)));
        clock.advance_millis(99);
        assert!(!took(1));
        clock.advance_millis(1);
        assert!(took(1) && !took(1));
        clock.advance(3_600);
        assert!(
            took(1) && took(1) && took(1) && !took(1),
            "never more than the burst"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nobody() {
        let (clock, buckets) = buckets(1, 1, None);
        assert!(buckets.take(&key(1)).is_ok());
        clock.advance(-86_400);
        assert!(buckets.take(&key(1)).is_err());
        clock.advance(1);
        assert!(buckets.take(&key(1)).is_ok());
    }

    #[test]
    fn a_flood_of_callers_does_not_grow_the_table() {
        let (clock, buckets) = buckets(1, 60, None);
        for n in 0..MAX_BUCKETS {
            assert!(buckets.take(&key(n)).is_ok());
        }
        assert!(
            buckets.take(&key(MAX_BUCKETS)).is_ok(),
            "the first of those who share"
        );
        for n in MAX_BUCKETS..MAX_BUCKETS + 1_000 {
            assert!(buckets.take(&key(n)).is_err());
        }
        assert_eq!(buckets.len(), MAX_BUCKETS);
        clock.advance(121);
        assert!(buckets.take(&key(MAX_BUCKETS + 1)).is_ok());
        assert_eq!(buckets.len(), 1, "full buckets were forgotten");
    }

    #[test]
    fn rates_that_mean_nothing_are_refused() {
        let check = |requests: u32, per: u64, burst: Option<u32>| {
            let per = Duration::from_secs(per);
            quota(&config::Rate { requests, per, burst }).is_ok()
        };
        assert!(check(1, 1, None) && check(100, 1, Some(200)) && check(1_000_000, 1, None));
        assert!(!check(0, 1, None) && !check(1, 1, Some(0)) && !check(0, 1, Some(1)));
        assert!(!check(1, 0, None) && !check(u32::MAX, 1, None), "no time at all");
        assert!(!check(1, 86_400, Some(u32::MAX)));
    }
}
