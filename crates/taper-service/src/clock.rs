//! Time: the one reader of the wall clock, a clock that tests set by hand, and how dates and
//! durations are written.
//!
//! Everything else takes `now` (seconds since the Unix epoch) as an argument, so that a decision can
//! be repeated and an expiry tested to the second.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A source of the current time.
pub trait Clock: Send + Sync + Debug {
    /// Whole seconds since the Unix epoch, rounded down.
    fn unix(&self) -> i64 {
        self.unix_millis().div_euclid(1000)
    }

    /// Milliseconds since the Unix epoch.
    fn unix_millis(&self) -> i64;

    /// The time by a clock that nobody sets, from a beginning of its own: only differences mean something.
    fn steady(&self) -> Duration;
}

/// The clock that a program hands to its parts.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's wall clock, ready to be shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn unix_millis(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clocks"
    )]
    fn steady(&self) -> Duration {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        BEGINNING.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that stands still until it is set or advanced.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicI64,
    passed: AtomicI64,
}

impl ManualClock {
    /// A clock standing at `unix` seconds.
    pub fn new(unix: i64) -> Self {
        Self {
            millis: AtomicI64::new(unix.saturating_mul(1000)),
            passed: AtomicI64::new(0),
        }
    }

    /// A clock standing at `unix` seconds, to be shared with the parts under test.
    pub fn shared(unix: i64) -> Arc<Self> {
        Arc::new(Self::new(unix))
    }

    /// Sets the clock to `unix` seconds, forward or back, while no time passes.
    pub fn set(&self, unix: i64) {
        self.millis.store(unix.saturating_mul(1000), Ordering::SeqCst);
    }

    /// Moves the clock by `seconds`; a negative number moves it back.
    pub fn advance(&self, seconds: i64) {
        self.advance_millis(seconds.saturating_mul(1000));
    }

    /// Moves the clock by `millis` milliseconds; a negative number moves it back.
    pub fn advance_millis(&self, millis: i64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
        self.passed.fetch_add(millis.max(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_millis(&self) -> i64 {
        self.millis.load(Ordering::SeqCst)
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// Writes `unix` seconds as an RFC 3339 date-time in UTC, `2026-01-31T09:30:00Z`.
///
/// RFC 3339 has four digits for the year: a time outside the years 0000 to 9999 is written as the
/// nearest one inside.
pub fn rfc3339(unix: i64) -> String {
    const YEAR_0000: i64 = -62_167_219_200;
    const YEAR_9999_END: i64 = 253_402_300_799;
    let t = OffsetDateTime::from_unix_timestamp(unix.clamp(YEAR_0000, YEAR_9999_END))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    let (hour, minute, second) = (t.hour(), t.minute(), t.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads an RFC 3339 date-time, at any offset, as seconds since the Unix epoch; fractions of a second
/// are dropped. `None` when `text` is anything else.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(OffsetDateTime::unix_timestamp)
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration such as `30s`, `10m`, `1h30m` or `2d`")]
pub struct DurationError {
    text: String,
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads a duration as whole seconds: `30s`, `10m`, `1h30m`, `2d`.
///
/// Units are `d`, `h`, `m`, `s`, each at most once and the larger first. A number without a unit is
/// refused, as is anything that does not fit into 64 bits.
///
/// # Errors
/// [`DurationError`] names the text.
pub fn parse_duration(text: &str) -> Result<u64, DurationError> {
    seconds_of(text).ok_or_else(|| DurationError {
        text: text.chars().take(64).collect(),
    })
}

fn seconds_of(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut units = UNITS.iter();
    let mut rest = text;
    loop {
        let at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, tail) = rest.split_at(at);
        let unit = tail.chars().next()?;
        let (_, seconds) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(*seconds)?)?;
        rest = tail.get(unit.len_utf8()..)?;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// Writes `seconds` the way [`parse_duration`] reads it: `5400` is `1h30m`, `0` is `0s`.
pub fn human_duration(seconds: u64) -> String {
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut rest = seconds;
    let mut text = String::new();
    for (name, size) in UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(100);
        clock.advance(5);
        clock.advance_millis(999);
        assert_eq!((clock.unix(), clock.unix_millis()), (105, 105_999));
        assert_eq!(clock.steady(), Duration::from_millis(5_999));
        clock.set(-1);
        assert_eq!(
            clock.steady(),
            Duration::from_millis(5_999),
            "setting takes no time"
        );
        clock.advance_millis(1);
        assert_eq!(clock.unix(), -1, "seconds are rounded down before the epoch too");
    }

    #[test]
    fn system_clock_is_this_century() {
        assert!(SystemClock.unix() > 1_700_000_000);
    }

    #[test]
    fn dates() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_rfc3339(text), expected, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-01-31T09:30:00Z", Some(1_769_851_800));
        check("2026-01-31T10:30:00+01:00", Some(1_769_851_800));
        check("2026-01-31T09:30:00.999Z", Some(1_769_851_800));
        check("2026-01-31", None);
        check("2026-01-31T09:30:00", None);
        check("2026-02-30T09:30:00Z", None);
        check("", None);
        check(&"9".repeat(100), None);
        assert_eq!(rfc3339(1_769_851_800), "2026-01-31T09:30:00Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        };
        check("30s", Some(30));
        check("10m", Some(600));
        check("1h", Some(3_600));
        check("2d", Some(172_800));
        check("1h30m", Some(5_400));
        check("0s", Some(0));
        for bad in [
            "",
            "10",
            "m",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "30m1h",
            "1h1h",
            "5w",
            "1s ",
            "99999999999999999999s",
        ] {
            check(bad, None);
        }
        check("213503982334602d", None);
        assert_eq!(
            parse_duration("soon").unwrap_err().to_string(),
            "`soon` is not a duration such as `30s`, `10m`, `1h30m` or `2d`"
        );
    }

    proptest! {
        #[test]
        fn durations_read_back(seconds: u64) {
            prop_assert_eq!(parse_duration(&human_duration(seconds)), Ok(seconds));
        }

        #[test]
        fn dates_read_back(unix in -62_167_219_200_i64..=253_402_300_799) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(unix)), Some(unix));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,24}") {
            let _ = parse_duration(&text);
            let _ = parse_rfc3339(&text);
        }
    }
}
