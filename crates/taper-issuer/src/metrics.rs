//! A few counters in the Prometheus text format, and the bounded log of refusals (RULES 30).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use taper_oauth::ErrorCode;

use crate::error::Refusal;

/// How many refusals are logged in one second; the others are only counted.
const LOGGED_PER_SECOND: u64 = 20;

/// What is counted since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    grants: AtomicU64,
    revocations: AtomicU64,
    refusals: [AtomicU64; ErrorCode::ALL.len()],
    logged_second: AtomicI64,
    logged: AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            grants: AtomicU64::new(0),
            revocations: AtomicU64::new(0),
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            logged_second: AtomicI64::new(i64::MIN),
            logged: AtomicU64::new(0),
        }
    }

    pub(crate) fn granted(&self) {
        self.grants.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn revoked(&self) {
        self.revocations.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal and logs it, unless too many were logged in this second.
    pub(crate) fn refused(&self, endpoint: &'static str, refusal: &Refusal, now: i64) {
        let code = refusal.answer.code();
        let counters = ErrorCode::ALL.iter().zip(&self.refusals);
        for (_, counter) in counters.filter(|(known, _)| **known == code) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if self.may_log(now) {
            tracing::info!(
                http.endpoint = endpoint,
                rule = refusal.rule.as_str(),
                error.code = code.as_str(),
                error.description = refusal.answer.description(),
                error.detail = refusal.detail.as_deref().unwrap_or_default(),
                "request refused"
            );
        }
    }

    /// The Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let mut plain = |name: &str, help: &str, value: &AtomicU64| {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}",
                value.load(Ordering::Relaxed)
            );
        };
        plain("taper_issuer_grants_total", "Capabilities granted.", &self.grants);
        plain(
            "taper_issuer_revocations_total",
            "Revocations recorded.",
            &self.revocations,
        );
        let name = "taper_issuer_refusals_total";
        let _ = writeln!(
            text,
            "# HELP {name} Requests refused, by error code.\n# TYPE {name} counter"
        );
        for (code, counter) in ErrorCode::ALL.iter().zip(&self.refusals) {
            let _ = writeln!(
                text,
                "{name}{{code=\"{code}\"}} {}",
                counter.load(Ordering::Relaxed)
            );
        }
        text
    }

    /// Two threads at the turn of a second may log a line more; that is bounded too.
    fn may_log(&self, now: i64) -> bool {
        if self.logged_second.swap(now, Ordering::Relaxed) != now {
            self.logged.store(0, Ordering::Relaxed);
        }
        self.logged.fetch_add(1, Ordering::Relaxed) < LOGGED_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;

    #[test]
    fn refusals_are_counted_by_code_and_logged_at_a_bounded_rate() {
        let metrics = Metrics::new();
        let refusal = Refusal::new(rules::TARGET, ErrorCode::InvalidTarget, "x");
        for _ in 0..3 {
            metrics.refused("token", &refusal, 7);
        }
        metrics.granted();
        let text = metrics.render();
        assert!(text.contains("taper_issuer_grants_total 1\n"), "{text}");
        assert!(
            text.contains("taper_issuer_refusals_total{code=\"invalid_target\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("taper_issuer_refusals_total{code=\"invalid_scope\"} 0\n"),
            "{text}"
        );
        let logged = (0..100).filter(|_| metrics.may_log(8)).count();
        assert_eq!(logged as u64, LOGGED_PER_SECOND);
        assert!(metrics.may_log(9));
    }
}
