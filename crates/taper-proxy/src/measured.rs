//! What the proxy counts, as `/metrics` of the admin listener shows it. `examples/operations.md` says of
//! every family what it means.
//!
//! A label says the id of a configured server or issuer, the number of a rule, or a word of this module:
//! never anything of a request, so that nobody can make series. Every request is counted once when it is
//! known what comes of it, and once more when its answer has ended; every refusal once, under its rule.

mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use taper_capability::rules as capability_rules;
use taper_dpop::RuleId;
use taper_dpop::rule::r;
use taper_service::disk::Disk;
use taper_service::edge::{Listeners, Tls};
use taper_service::metrics::{Counter, Durations, Gauge, Label, Registry, Shown, Table};
use taper_service::spans::Fates;
use taper_store::Outcome;
use tokio::time::Instant;

use self::state::State;
pub(crate) use self::state::Told;
use crate::account::{Came, End, Era, Kind};
use crate::issuers::Issuers;
use crate::rules;
use crate::service::Shared;
use crate::tokens::TOKEN_OUTCOMES;

/// How many lines about refusals before a presentation the log gets in one second; the others are of the
/// debug level.
const TOLD_PER_SECOND: u64 = 20;

/// All families of the proxy.
#[derive(Debug)]
pub(crate) struct Measured {
    registry: Registry,
    /// The values of the label `server`; the first is that of requests to none.
    servers: Vec<String>,
    slots: Slots,
    requests: Table<4>,
    refusals: Table<1>,
    decisions: Table<2>,
    answers: Table<2>,
    cuts: Table<1>,
    sizes: [Counter; 2],
    /// Head to permit or refusal, without the body.
    pub(crate) verify: Durations,
    pub(crate) decide: Durations,
    /// Waiting for a worker of the pool.
    pub(crate) queue: Durations,
    pub(crate) journal: Durations,
    upstream: Vec<Durations>,
    pub(crate) head: Durations,
    /// Work for a request in which the program failed.
    pub(crate) panics: Counter,
    open: Gauge,
    fates: Fates,
    /// Requests for tokens of upstreams, by server and [`TOKEN_OUTCOMES`].
    pub(crate) tokens: Table<2>,
    /// Lines about refusals before a presentation that were written at the debug level.
    pub(crate) quiet_lines: Counter,
    started: Instant,
    /// The second of the last such line, and how many lines it had.
    told_at: AtomicU64,
    told: AtomicU64,
    /// The connections of callers, and of operators.
    pub(crate) listeners: Listeners,
    pub(crate) disk: Disk,
    state: State,
}

/// The numbers of all rules that a refusal may have, and which of them each is.
#[derive(Debug)]
struct Slots {
    of: Vec<usize>,
    names: Vec<String>,
}

impl Slots {
    /// Every page has fewer rules than this.
    const PAGE: usize = 100;
    const PAGES: &'static [u8] = b"DMPR";

    fn new() -> Self {
        let own = rules::ALL.iter().map(|(rule, _)| rule);
        let all = capability_rules::ALL.iter().chain(r::ALL).chain(own);
        let mut names = vec!["none".to_owned()];
        let mut of = vec![0; Self::PAGES.len() * Self::PAGE];
        for rule in all {
            if let Some(slot) = Self::number(*rule).and_then(|number| of.get_mut(number)) {
                *slot = names.len();
                names.push(rule.to_string());
            }
        }
        Self { of, names }
    }

    /// The place of a number such as `M-07`.
    fn number(rule: RuleId) -> Option<usize> {
        let [page, b'-', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = rule.as_str().as_bytes() else {
            return None;
        };
        let page = Self::PAGES.iter().position(|one| one == page)?;
        Some(page * Self::PAGE + usize::from(tens - b'0') * 10 + usize::from(ones - b'0'))
    }

    fn of(&self, rule: Option<RuleId>) -> usize {
        let number = rule.and_then(Self::number);
        number
            .and_then(|number| self.of.get(number))
            .copied()
            .unwrap_or(0)
    }
}

impl Measured {
    /// Nothing is counted yet. The root keys of the issuers `fetched` are fetched; `now` is in seconds since the Unix epoch.
    pub(crate) fn new(
        servers: &[Told<'_>],
        issuers: &Issuers,
        fetched: &[&str],
        tls: Option<Tls>,
        now: i64,
    ) -> Self {
        let mut registry = Registry::new();
        let slots = Slots::new();
        let of_servers: Vec<String> = std::iter::once("none")
            .chain(servers.iter().map(|server| server.id))
            .map(str::to_owned)
            .collect();
        let server = || Label::new("server", of_servers.iter());
        let rule = || Label::new("rule", slots.names.iter());
        let new = &mut registry;
        new.info(
            "taper_build",
            "The program.",
            &[("version", env!("CARGO_PKG_VERSION"))],
        );
        let requests = new.table(
            "taper_proxy_requests_total",
            "Requests, by what came of them.",
            [
                server(),
                Label::new("era", Era::NAMES),
                Label::new("kind", Kind::NAMES),
                Label::new("outcome", Came::NAMES),
            ],
            Shown::Counted,
        );
        let refusals = new.table(
            "taper_proxy_refusals_total",
            "Requests that were refused, by the rule.",
            [rule()],
            Shown::All,
        );
        let decisions = new.table(
            "taper_proxy_decisions_total",
            "Decisions over a verified presentation, by the rule that decided against it.",
            [Label::new("outcome", ["allow", "deny", "indeterminate"]), rule()],
            Shown::Counted,
        );
        let answers = new.table(
            "taper_proxy_answers_total",
            "Answers that have ended, by how.",
            [server(), Label::new("end", End::NAMES)],
            Shown::Counted,
        );
        let cuts = new.table(
            "taper_proxy_cuts_total",
            "Answers that were cut, by the rule that was broken meanwhile.",
            [rule()],
            Shown::Counted,
        );
        let sizes = [
            new.counter(
                "taper_proxy_received_bytes_total",
                "Bytes of request bodies that were read.",
            ),
            new.counter("taper_proxy_sent_bytes_total", "Bytes of answers' bodies."),
        ];
        let verify = new.durations(
            "taper_proxy_verify_seconds",
            "Checking a capability and its proof, without waiting for a worker.",
        );
        let decide = new.durations(
            "taper_proxy_decide_seconds",
            "Reading and deciding a request whose presentation is verified, without waiting for a worker.",
        );
        let queue = new.durations(
            "taper_proxy_queue_seconds",
            "Waiting for a worker, for either of the two.",
        );
        let journal = new.durations(
            "taper_proxy_journal_seconds",
            "Until the journal had a decision, or had taken it in.",
        );
        let upstream = new.durations_by(
            "taper_proxy_upstream_seconds",
            "From sending a request to its upstream to the head of the answer.",
            server(),
        );
        let head = new.durations(
            "taper_proxy_request_seconds",
            "From the head of a request whose presentation verified to the head of its answer.",
        );
        let panics = new.counter(
            "taper_proxy_panics_total",
            "Requests in which the program failed: a defect.",
        );
        let open = new.gauge(
            "taper_proxy_open_requests",
            "Requests whose answer has not ended.",
        );
        let tokens = new.table(
            "taper_proxy_upstream_token_requests_total",
            "Requests to the authorization server of an upstream, by what came of them.",
            [server(), Label::new("outcome", TOKEN_OUTCOMES)],
            Shown::All,
        );
        let quiet_lines = new.counter(
            "taper_proxy_quiet_lines_total",
            "Lines of the request log that were written at the debug level, for there were too many.",
        );
        let fate = |new: &mut Registry, what: &str, help: &str| {
            new.counter(&format!("taper_proxy_spans_{what}_total"), help)
        };
        let listeners = Listeners::new(new, "taper_proxy", &["callers", "operators"]);
        let disk = Disk::new(new, "taper_proxy");
        let fates = Fates {
            sent: fate(new, "sent", "Spans that the collector took."),
            full: fate(new, "full", "Spans that were dropped, for too many waited."),
            failed: fate(new, "failed", "Spans that the collector did not take."),
        };
        let state = State::new(new, servers, issuers, fetched, tls, now);
        Self {
            registry,
            servers: of_servers,
            slots,
            requests,
            refusals,
            decisions,
            answers,
            cuts,
            sizes,
            verify,
            decide,
            queue,
            journal,
            upstream,
            head,
            panics,
            open,
            fates,
            tokens,
            quiet_lines,
            started: Instant::now(),
            told_at: AtomicU64::new(0),
            told: AtomicU64::new(0),
            listeners,
            disk,
            state,
        }
    }

    /// Where it is counted what becomes of spans.
    pub(crate) fn fates(&self) -> &Fates {
        &self.fates
    }

    /// The place of a server among the values of its label; 0 for none.
    pub(crate) fn server(&self, id: &str) -> usize {
        self.servers
            .iter()
            .skip(1)
            .position(|one| one == id)
            .map_or(0, |at| at + 1)
    }

    /// The id of a server by its place.
    pub(crate) fn server_name(&self, server: usize) -> &str {
        self.servers.get(server).map_or("none", String::as_str)
    }

    /// A request whose answer has not ended, until the answer is dropped.
    pub(crate) fn open(&self) -> taper_service::metrics::Held {
        self.open.hold()
    }

    /// A server answered with a head, or did not, after so long.
    pub(crate) fn upstream(&self, server: usize, took: Duration) {
        if let Some(durations) = self.upstream.get(server) {
            durations.observe(took);
        }
    }

    /// It is known what comes of a request.
    pub(crate) fn came(&self, server: usize, era: Era, kind: Kind, came: Came) {
        self.requests
            .add([server, era as usize, kind as usize, came as usize]);
    }

    /// A request is refused; its caller is told.
    pub(crate) fn refused(&self, rule: RuleId) {
        self.refusals.add([self.slots.of(Some(rule))]);
    }

    /// There was a decision, for the journal.
    pub(crate) fn decided(&self, outcome: Outcome, rule: Option<RuleId>) {
        let outcome = match outcome {
            Outcome::Allow => 0,
            Outcome::Deny => 1,
            Outcome::Indeterminate => 2,
        };
        self.decisions.add([outcome, self.slots.of(rule)]);
    }

    /// An answer has ended.
    pub(crate) fn ended(&self, server: usize, end: End, cause: Option<RuleId>, received: u64, sent: u64) {
        self.answers.add([server, end as usize]);
        if end == End::Cut {
            self.cuts.add([self.slots.of(cause)]);
        }
        let [all_received, all_sent] = &self.sizes;
        all_received.add_many(received);
        all_sent.add_many(sent);
    }

    /// Whether there is room for another line about nobody in particular. Two threads at the turn of a
    /// second may find room for one more; that is bounded too.
    pub(crate) fn may_tell(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        if self.told_at.swap(second, Ordering::Relaxed) != second {
            self.told.store(0, Ordering::Relaxed);
        }
        self.told.fetch_add(1, Ordering::Relaxed) < TOLD_PER_SECOND
    }

    /// The page, with the state as it is now.
    pub(crate) fn render(&self, shared: &Shared) -> String {
        self.state.look(shared);
        self.registry.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(servers: &[&'static str]) -> Measured {
        let servers: Vec<Told<'_>> = servers
            .iter()
            .map(|id| Told {
                id,
                ..Told::default()
            })
            .collect();
        Measured::new(&servers, &Issuers::new(Vec::new()), &[], None, 0)
    }

    #[test]
    fn every_rule_has_a_place_of_its_own_and_strangers_have_none() {
        let slots = Slots::new();
        let own = rules::ALL.iter().map(|(rule, _)| rule);
        let all: Vec<RuleId> = capability_rules::ALL
            .iter()
            .chain(r::ALL)
            .chain(own)
            .copied()
            .collect();
        for rule in &all {
            let slot = slots.of(Some(*rule));
            assert_eq!(slots.names[slot], rule.as_str());
        }
        assert_eq!(slots.names.len(), all.len() + 1);
        for stranger in ["X-01", "M-99", "M-1", "M-001", ""] {
            assert_eq!(slots.of(Some(RuleId::new(stranger))), 0, "{stranger}");
        }
        assert_eq!(slots.of(None), 0);
    }

    #[test]
    fn a_request_is_counted_under_its_words() {
        let measured = measured(&["git", "mail"]);
        let (git, mail) = (measured.server("git"), measured.server("mail"));
        assert_eq!(
            (measured.server("other"), measured.server_name(mail)),
            (0, "mail")
        );
        measured.came(git, Era::Modern, Kind::Tool, Came::Answered);
        measured.came(0, Era::Unread, Kind::Unread, Came::Refused);
        measured.refused(rules::PATH);
        measured.decided(Outcome::Deny, Some(capability_rules::RIGHT));
        measured.ended(git, End::Cut, Some(rules::REVOKED), 3, 4);
        let page = measured.registry.render();
        for line in [
            "taper_proxy_requests_total{server=\"git\",era=\"modern\",kind=\"tool\",outcome=\"answered\"} 1",
            "taper_proxy_requests_total{server=\"none\",era=\"none\",kind=\"none\",outcome=\"refused\"} 1",
            "taper_proxy_refusals_total{rule=\"M-01\"} 1",
            "taper_proxy_refusals_total{rule=\"M-02\"} 0",
            "taper_proxy_decisions_total{outcome=\"deny\",rule=\"R-21\"} 1",
            "taper_proxy_answers_total{server=\"git\",end=\"cut\"} 1",
            "taper_proxy_cuts_total{rule=\"M-12\"} 1",
            "taper_proxy_received_bytes_total 3",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_lines_a_second() {
        let measured = measured(&[]);
        for _ in 0..3 {
            let told = (0..10 * TOLD_PER_SECOND).filter(|_| measured.may_tell());
            assert_eq!(told.count() as u64, TOLD_PER_SECOND);
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_or_in_which_the_program_fails_is_counted() {
        use crate::account::Account;
        let measured = std::sync::Arc::new(measured(&["git"]));
        let given_up = Account::open(&measured, "a", false);
        let mut failing = Account::open(&measured, "b", false);
        failing.server("git");
        assert_eq!(measured.open.get(), 2);
        drop(given_up);
        let work = std::panic::AssertUnwindSafe(move || {
            let _account = failing;
            panic!("on purpose");
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(measured.open.get(), 0);
        let page = measured.registry.render();
        for (server, outcome) in [("none", "aborted"), ("git", "panicked")] {
            let line = format!(
                "taper_proxy_requests_total{{server=\"{server}\",era=\"none\",kind=\"none\",outcome=\"{outcome}\"}} 1"
            );
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
        assert_eq!((measured.answers.sum(), measured.panics.get()), (2, 1));
    }
}
