//! What the issuer counts, as `/metrics` of the admin listener shows it, and the bounded log of refusals
//! (RULES 30). `examples/operations.md` says of every family what it means.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use taper_oauth::ErrorCode;
use taper_service::disk::Disk;
use taper_service::edge::{Listeners, Tls};
use taper_service::metrics::{Counter, Durations, Gauge, Held, Label, Registry, Shown, Table};
use taper_service::process::Process;

use crate::error::Refusal;
use crate::state::Shared;

/// How many refusals are logged in one second; the others are only counted.
const LOGGED_PER_SECOND: u64 = 20;
/// What answers, as the log and the label `endpoint` name it.
const ENDPOINTS: [&str; 5] = ["token", "revoke", "introspect", "revocations", "admin"];

/// All families of the issuer.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    grants: Counter,
    renewals: Counter,
    revocations: Counter,
    requests: Table<2>,
    refusals: Table<1>,
    token: Durations,
    readers: Gauge,
    state: State,
    started: i64,
    logged_second: AtomicI64,
    logged: AtomicU64,
    /// The connections of clients and proxies, and of operators.
    pub(crate) listeners: Listeners,
    pub(crate) disk: Disk,
}

/// What is looked at when somebody asks.
#[derive(Debug)]
struct State {
    sequence: Vec<Gauge>,
    seen_proofs: Gauge,
    seen_proofs_limit: Gauge,
    workers: Gauge,
    waiting: Gauge,
    queued: Gauge,
    commits: Counter,
    store_up: Gauge,
    lines_dropped: Counter,
    uptime: Gauge,
    /// The certificate in use, and when it ends.
    certificate: Vec<(Tls, Gauge)>,
    process: Process,
}

impl Metrics {
    /// Nothing is counted yet. `now` is in seconds since the Unix epoch.
    pub(crate) fn new(issuer: &str, tls: Option<Tls>, now: i64) -> Self {
        let mut registry = Registry::new();
        let new = &mut registry;
        let ends = new.gauges(
            "taper_issuer_certificate_end_seconds",
            "When the listener's certificate ends, in seconds since 1970.",
            Label::new("listener", tls.iter().map(|_| "callers")),
        );
        let codes = || ErrorCode::ALL.iter().map(|code| code.as_str());
        new.info(
            "taper_build",
            "The program.",
            &[("version", env!("CARGO_PKG_VERSION"))],
        );
        Self {
            grants: new.counter("taper_issuer_grants_total", "Capabilities granted."),
            renewals: new.counter(
                "taper_issuer_renewals_total",
                "Capabilities renewed, of grants that were.",
            ),
            revocations: new.counter("taper_issuer_revocations_total", "Revocations recorded."),
            requests: new.table(
                "taper_issuer_requests_total",
                "Requests, by what came of them: `ok` or an error code.",
                [
                    Label::new("endpoint", ENDPOINTS),
                    Label::new("outcome", std::iter::once("ok").chain(codes())),
                ],
                Shown::Counted,
            ),
            refusals: new.table(
                "taper_issuer_refusals_total",
                "Requests refused, by error code.",
                [Label::new("code", codes())],
                Shown::All,
            ),
            token: new.durations("taper_issuer_token_seconds", "Requests to the token endpoint."),
            readers: new.gauge(
                "taper_issuer_feed_readers",
                "Readers of the feed that are being answered or wait for news.",
            ),
            state: State {
                sequence: new.gauges(
                    "taper_issuer_feed_sequence",
                    "The number of the last revocation.",
                    Label::new("issuer", [issuer]),
                ),
                seen_proofs: new.gauge(
                    "taper_issuer_seen_proofs",
                    "Proofs that are remembered, so that none counts twice.",
                ),
                seen_proofs_limit: new.gauge(
                    "taper_issuer_seen_proofs_limit",
                    "How many there may be; beyond that every request with a proof is refused.",
                ),
                workers: new.gauge(
                    "taper_issuer_workers_busy",
                    "Workers for signatures that are at work.",
                ),
                waiting: new.gauge("taper_issuer_workers_waiting", "Work that waits for one."),
                queued: new.gauge(
                    "taper_issuer_journal_queue",
                    "Commands that wait for the journal's writer.",
                ),
                commits: new.counter(
                    "taper_issuer_journal_commits_total",
                    "Writes of the journal to the disk.",
                ),
                store_up: new.gauge(
                    "taper_issuer_store_up",
                    "1 while the store takes records and proofs, else 0.",
                ),
                lines_dropped: new.counter(
                    "taper_issuer_log_lines_dropped_total",
                    "Lines of the log that were dropped, for nobody read them.",
                ),
                uptime: new.gauge("taper_issuer_uptime_seconds", "Since the start."),
                certificate: tls.into_iter().zip(ends).collect(),
                process: Process::new(new, now),
            },
            listeners: Listeners::new(new, "taper_issuer", &["callers", "operators"]),
            disk: Disk::new(new, "taper_issuer"),
            started: now,
            registry,
            logged_second: AtomicI64::new(i64::MIN),
            logged: AtomicU64::new(0),
        }
    }

    pub(crate) fn granted(&self) {
        self.grants.add();
    }

    pub(crate) fn renewed(&self) {
        self.renewals.add();
    }

    pub(crate) fn revoked(&self) {
        self.revocations.add();
    }

    /// How long the token endpoint took, whatever it answered.
    pub(crate) fn token(&self, took: Duration) {
        self.token.observe(took);
    }

    /// One more reader of the feed, until this is dropped.
    pub(crate) fn reader(&self) -> Held {
        self.readers.hold()
    }

    /// Counts what an endpoint answers, and logs a refusal unless too many were logged in this second.
    pub(crate) fn answered(&self, endpoint: &'static str, refusal: Option<&Refusal>, now: i64) {
        let code = refusal.map(|refusal| refusal.answer.code());
        // A list of codes knows each of them.
        let known = code.and_then(|code| ErrorCode::ALL.iter().position(|known| *known == code));
        if let Some(endpoint) = ENDPOINTS.iter().position(|known| *known == endpoint) {
            self.requests.add([endpoint, known.map_or(0, |code| code + 1)]);
        }
        if let Some(code) = known {
            self.refusals.add([code]);
        }
        if let Some(refusal) = refusal.filter(|_| self.may_log(now)) {
            tracing::info!(
                http.endpoint = endpoint,
                rule = refusal.rule.as_str(),
                error.code = refusal.answer.code().as_str(),
                error.description = refusal.answer.description(),
                error.detail = refusal.detail.as_deref().unwrap_or_default(),
                "request refused"
            );
        }
    }

    /// The page, with the state as it is now; `sequence` is the number of the last revocation, where the
    /// state tells it.
    pub(crate) fn render(&self, shared: &Shared, sequence: Option<u64>) -> String {
        let state = &self.state;
        for (gauge, sequence) in state.sequence.iter().zip(sequence) {
            gauge.set(i64::try_from(sequence).unwrap_or(i64::MAX));
        }
        for (tls, gauge) in &state.certificate {
            gauge.set(tls.ends().unwrap_or(0));
        }
        state.process.look();
        let (busy, waiting) = shared.pool.in_use();
        state.workers.set_count(busy);
        state.waiting.set_count(waiting);
        state.seen_proofs.set_count(shared.store.seen_proofs());
        state
            .seen_proofs_limit
            .set_count(shared.store.seen_proofs_limit());
        state.queued.set_count(shared.store.queued());
        state.commits.take_over(shared.store.commits());
        state.store_up.set(i64::from(shared.store.check().is_ok()));
        state.lines_dropped.take_over(taper_service::telemetry::dropped());
        state.uptime.set(shared.clock.unix().saturating_sub(self.started));
        self.registry.render()
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
    fn what_is_answered_is_counted_and_refusals_are_logged_at_a_bounded_rate() {
        let metrics = Metrics::new("https://issuer.example.com", None, 0);
        let refusal = Refusal::new(rules::TARGET, ErrorCode::InvalidTarget, "x");
        for _ in 0..3 {
            metrics.answered("token", Some(&refusal), 7);
        }
        metrics.answered("revoke", None, 7);
        metrics.granted();
        let text = metrics.registry.render();
        for line in [
            "taper_issuer_grants_total 1",
            "taper_issuer_refusals_total{code=\"invalid_target\"} 3",
            "taper_issuer_refusals_total{code=\"invalid_scope\"} 0",
            "taper_issuer_requests_total{endpoint=\"token\",outcome=\"invalid_target\"} 3",
            "taper_issuer_requests_total{endpoint=\"revoke\",outcome=\"ok\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let logged = (0..100).filter(|_| metrics.may_log(8)).count();
        assert_eq!(logged as u64, LOGGED_PER_SECOND);
        assert!(metrics.may_log(9));
    }
}
