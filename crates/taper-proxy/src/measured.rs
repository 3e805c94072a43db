//! What the proxy counts, as `/metrics` of the admin listener shows it. `examples/operations.md` says of
//! every family what it means.
//!
//! A label says the id of a configured server or issuer, the number of a rule, or a word of this module:
//! never anything of a request, so that nobody can make series. Every request is counted once when it is
//! known what comes of it, and once more when its answer has ended; every refusal once, under its rule.

use std::sync::atomic::{AtomicU64, Ordering};

use taper_capability::rules as capability_rules;
use taper_dpop::RuleId;
use taper_dpop::rule::r;
use taper_service::metrics::{Counter, Durations, Gauge, Label, Registry, Shown, Table};
use taper_service::spans::Fates;
use taper_store::Outcome;
use tokio::time::Instant;

use crate::account::{Came, End, Era, Kind};
use crate::issuers::{IssuerState, Issuers};
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
    pub(crate) upstream: Durations,
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
    state: State,
}

/// What is looked at when somebody asks.
#[derive(Debug)]
struct State {
    lookups: [Counter; 2],
    chains: Gauge,
    chain_bytes: Gauge,
    seen_proofs: Gauge,
    workers: Gauge,
    waiting: Gauge,
    queued: Gauge,
    later: Gauge,
    commits: Counter,
    store_up: Gauge,
    ready: Gauge,
    lines_dropped: Counter,
    uptime: Gauge,
    started: i64,
    feed_age: Vec<Gauge>,
    feed_sequence: Vec<Gauge>,
    keys_age: Vec<Gauge>,
    places: [Vec<Gauge>; 4],
    sessions: Vec<Gauge>,
    tasks: Vec<Gauge>,
    unapproved: Vec<Gauge>,
    programs: Vec<Gauge>,
    tokens: Vec<Gauge>,
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
    /// Nothing is counted yet. `now` is in seconds since the Unix epoch.
    pub(crate) fn new(servers: &[&str], issuers: &Issuers, now: i64) -> Self {
        let mut registry = Registry::new();
        let slots = Slots::new();
        let of_servers: Vec<String> = std::iter::once("none")
            .chain(servers.iter().copied())
            .map(str::to_owned)
            .collect();
        let server = || Label::new("server", of_servers.iter());
        let one_server = || Label::new("server", servers.iter().copied());
        let names = issuers.names();
        let issuer = || Label::new("issuer", names.iter());
        let has_feed = |name: &&&str| issuers.get(name).is_some_and(|issuer| issuer.feed().is_some());
        let followed = || Label::new("issuer", names.iter().filter(has_feed));
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
        let upstream = new.durations(
            "taper_proxy_upstream_seconds",
            "From sending a request to its upstream to the head of the answer.",
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
        let fates = Fates {
            sent: fate(new, "sent", "Spans that the collector took."),
            full: fate(new, "full", "Spans that were dropped, for too many waited."),
            failed: fate(new, "failed", "Spans that the collector did not take."),
        };
        let places = |new: &mut Registry, what: &str, help: &str| {
            new.gauges(&format!("taper_proxy_{what}"), help, one_server())
        };
        let state = State {
            lookups: [
                new.counter(
                    "taper_proxy_verified_chain_hits_total",
                    "Capabilities whose text had verified before.",
                ),
                new.counter(
                    "taper_proxy_verified_chain_misses_total",
                    "Capabilities that had to be looked at anew.",
                ),
            ],
            chains: new.gauge(
                "taper_proxy_verified_chains",
                "Capabilities in the cache of verified ones.",
            ),
            chain_bytes: new.gauge(
                "taper_proxy_verified_chains_bytes",
                "What they take, as it is reckoned.",
            ),
            seen_proofs: new.gauge(
                "taper_proxy_seen_proofs",
                "Proofs that are remembered, so that none counts twice.",
            ),
            workers: new.gauge(
                "taper_proxy_workers_busy",
                "Workers for signatures and policies that are at work.",
            ),
            waiting: new.gauge("taper_proxy_workers_waiting", "Work that waits for one."),
            queued: new.gauge(
                "taper_proxy_journal_queue",
                "Commands that wait for the journal's writer.",
            ),
            later: new.gauge(
                "taper_proxy_journal_later",
                "Records that are handed in and not on the disk yet.",
            ),
            commits: new.counter(
                "taper_proxy_journal_commits_total",
                "Writes of the journal to the disk.",
            ),
            store_up: new.gauge(
                "taper_proxy_store_up",
                "1 while the store takes records and proofs, else 0.",
            ),
            ready: new.gauge("taper_proxy_ready", "1 while `/readyz` answers 200, else 0."),
            lines_dropped: new.counter(
                "taper_proxy_log_lines_dropped_total",
                "Lines of the log that were dropped, for nobody read them.",
            ),
            uptime: new.gauge("taper_proxy_uptime_seconds", "Since the start."),
            started: now,
            feed_age: new.gauges(
                "taper_proxy_feed_age_seconds",
                "How long ago it was known what is revoked; since 1970 before the first time.",
                followed(),
            ),
            feed_sequence: new.gauges(
                "taper_proxy_feed_sequence",
                "The number of the last revocation that is enforced.",
                followed(),
            ),
            keys_age: new.gauges(
                "taper_proxy_root_keys_age_seconds",
                "How long ago the issuer's root keys were taken; since 1970 before the first time.",
                issuer(),
            ),
            places: [
                places(
                    new,
                    "running",
                    "Requests that have a place (`limits.max_running`).",
                ),
                places(
                    new,
                    "streams",
                    "Streams that have a place (`limits.max_streams`).",
                ),
                places(
                    new,
                    "replies",
                    "Answers and cancellations of clients that have a place.",
                ),
                places(
                    new,
                    "bodies",
                    "Request bodies that are read (`limits.max_bodies`).",
                ),
            ],
            sessions: places(
                new,
                "sessions",
                "Sessions that are remembered (`limits.max_sessions`).",
            ),
            tasks: places(new, "tasks", "Tasks that are remembered (`limits.max_tasks`)."),
            unapproved: places(
                new,
                "unapproved_tools",
                "Tools that are not as they were approved (`pins`).",
            ),
            programs: places(new, "programs", "Programs that run (`max_children`)."),
            tokens: places(
                new,
                "upstream_tokens",
                "Tokens of the server that are kept (`oauth.max_tokens`).",
            ),
        };
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
        self.look(shared);
        self.registry.render()
    }

    fn look(&self, shared: &Shared) {
        let (state, now) = (&self.state, shared.clock.unix());
        let (chains, bytes) = shared.gate.chains.size();
        let (found, not_found) = shared.gate.chains.lookups();
        for (counter, count) in state.lookups.iter().zip([found, not_found]) {
            counter.take_over(count);
        }
        state.chains.set_count(chains);
        state.chain_bytes.set_count(bytes);
        state.seen_proofs.set_count(shared.store.seen_proofs());
        let (busy, waiting) = shared.pool.in_use();
        state.workers.set_count(busy);
        state.waiting.set_count(waiting);
        state.queued.set_count(shared.store.queued());
        state.later.set_count(shared.store.later_waiting());
        state.commits.take_over(shared.store.commits());
        state.store_up.set(i64::from(shared.store.check().is_ok()));
        state.ready.set(i64::from(shared.missing().is_empty()));
        state.lines_dropped.take_over(taper_service::telemetry::dropped());
        state.uptime.set(now.saturating_sub(state.started));
        let issuers = &shared.gate.issuers;
        let names = issuers.names();
        let of_issuers = names.iter().filter_map(|name| issuers.get(name));
        for (issuer, keys_age) in of_issuers.clone().zip(&state.keys_age) {
            keys_age.set(now.saturating_sub(issuer.keys_at()));
        }
        let feeds = of_issuers.filter_map(IssuerState::feed);
        for (feed, (age, sequence)) in feeds.zip(state.feed_age.iter().zip(&state.feed_sequence)) {
            age.set(now.saturating_sub(feed.as_of().unwrap_or(0)));
            sequence.set(i64::try_from(feed.reached().seq).unwrap_or(i64::MAX));
        }
        for (at, server) in shared.servers.values().enumerate() {
            let set = |gauges: &[Gauge], count: usize| {
                if let Some(gauge) = gauges.get(at) {
                    gauge.set_count(count);
                }
            };
            for (gauges, taken) in state.places.iter().zip(server.limiter.taken()) {
                set(gauges, taken);
            }
            set(&state.sessions, server.sessions.len());
            set(&state.tasks, server.tasks.len());
            let pinned = server.catalogue.pinned();
            set(&state.unapproved, pinned.map_or(0, |pinned| pinned.differing()));
            set(&state.programs, server.upstream.programs());
            set(
                &state.tokens,
                server.upstream.tokens().map_or(0, |tokens| tokens.len()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let measured = Measured::new(&["git", "mail"], &Issuers::new(Vec::new()), 0);
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
        let measured = Measured::new(&[], &Issuers::new(Vec::new()), 0);
        for _ in 0..3 {
            let told = (0..10 * TOLD_PER_SECOND).filter(|_| measured.may_tell());
            assert_eq!(told.count() as u64, TOLD_PER_SECOND);
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_or_in_which_the_program_fails_is_counted() {
        use crate::account::Account;
        let measured = std::sync::Arc::new(Measured::new(&["git"], &Issuers::new(Vec::new()), 0));
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
