//! What is looked at when somebody asks for the page.

use taper_service::edge::{ClientIdentity, Tls};
use taper_service::metrics::{Counter, Gauge, Label, Registry};
use taper_service::process::Process;

use crate::config::Limits;
use crate::issuers::{IssuerState, Issuers};
use crate::service::Shared;

/// What the page tells of a server from the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told<'a> {
    pub(crate) id: &'a str,
    pub(crate) limits: Option<&'a Limits>,
    /// How many programs may run for it; none where it is no program.
    pub(crate) programs: usize,
    /// The certificate that it is shown.
    pub(crate) identity: Option<&'a ClientIdentity>,
}

/// What is looked at when somebody asks.
#[derive(Debug)]
pub(super) struct State {
    lookups: [Counter; 2],
    chains: Gauge,
    chain_bytes: Gauge,
    seen_proofs: Gauge,
    seen_proofs_limit: Gauge,
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
    fetched: Vec<String>,
    places: [Vec<Gauge>; 4],
    sessions: Vec<Gauge>,
    tasks: Vec<Gauge>,
    unapproved: Vec<Gauge>,
    programs: Vec<Gauge>,
    tokens: Vec<Gauge>,
    /// The certificates in use, and when they end.
    certificate: Vec<(Tls, Gauge)>,
    identities: Vec<(ClientIdentity, Gauge)>,
    process: Process,
}

impl State {
    /// Nothing is known yet. The root keys of the issuers `fetched` are fetched, those of the others are read at the
    /// start; `now` is in seconds since the Unix epoch.
    pub(super) fn new(
        new: &mut Registry,
        servers: &[Told<'_>],
        issuers: &Issuers,
        fetched: &[&str],
        tls: Option<Tls>,
        now: i64,
    ) -> Self {
        let server = || Label::new("server", servers.iter().map(|server| server.id));
        let names = issuers.names();
        let has_feed = |name: &&&str| issuers.get(name).is_some_and(|issuer| issuer.feed().is_some());
        let followed = || Label::new("issuer", names.iter().filter(has_feed));
        let feeds = names.iter().filter_map(|name| issuers.get(name)?.feed());
        let limits = new.gauges(
            "taper_proxy_feed_age_limit_seconds",
            "Above this age everything is refused (`max_staleness`).",
            followed(),
        );
        for (feed, limit) in feeds.zip(&limits) {
            limit.set(feed.max_staleness());
        }
        limited(new, servers);
        let places = |new: &mut Registry, what: &str, help: &str| {
            new.gauges(&format!("taper_proxy_{what}"), help, server())
        };
        Self {
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
            seen_proofs_limit: new.gauge(
                "taper_proxy_seen_proofs_limit",
                "How many there may be; beyond that every request is refused.",
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
                "How long ago the issuer's root keys were fetched; since 1970 before the first time.",
                Label::new("issuer", fetched),
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
            certificate: {
                let ends = new.gauges(
                    "taper_proxy_certificate_end_seconds",
                    "When the listener's certificate ends, in seconds since 1970.",
                    Label::new("listener", tls.iter().map(|_| "callers")),
                );
                tls.into_iter().zip(ends).collect()
            },
            identities: identities(new, servers),
            process: Process::new(new, now),
            fetched: fetched.iter().map(|issuer| (*issuer).to_owned()).collect(),
        }
    }

    /// The page, as things are now.
    pub(super) fn look(&self, shared: &Shared) {
        let (state, now) = (self, shared.clock.unix());
        let (chains, bytes) = shared.gate.chains.size();
        let (found, not_found) = shared.gate.chains.lookups();
        for (counter, count) in state.lookups.iter().zip([found, not_found]) {
            counter.take_over(count);
        }
        state.chains.set_count(chains);
        state.chain_bytes.set_count(bytes);
        state.seen_proofs.set_count(shared.store.seen_proofs());
        let most = shared.store.seen_proofs_limit();
        state.seen_proofs_limit.set_count(most);
        let (busy, waiting) = shared.pool.in_use();
        state.workers.set_count(busy);
        state.waiting.set_count(waiting);
        state.queued.set_count(shared.store.queued());
        state.later.set_count(shared.store.later_waiting());
        state.commits.take_over(shared.store.commits());
        state.store_up.set(i64::from(shared.store.check().is_ok()));
        state.ready.set(i64::from(shared.missing().is_empty()));
        state.process.look();
        for (tls, gauge) in &state.certificate {
            gauge.set(tls.ends().unwrap_or(0));
        }
        for (identity, gauge) in &state.identities {
            gauge.set(identity.ends().unwrap_or(0));
        }
        state.lines_dropped.take_over(taper_service::telemetry::dropped());
        state.uptime.set(now.saturating_sub(state.started));
        let issuers = &shared.gate.issuers;
        let names = issuers.names();
        let of_issuers = names.iter().filter_map(|name| issuers.get(name));
        let fetched = state.fetched.iter().filter_map(|name| issuers.get(name));
        for (issuer, keys_age) in fetched.zip(&state.keys_age) {
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

/// How many places there are, which does not change.
fn limited(new: &mut Registry, servers: &[Told<'_>]) {
    type Limit = fn(&Told<'_>) -> Option<usize>;
    let families: [(&str, &str, Limit); 4] = [
        ("running", "limits.max_running", |server| {
            Some(server.limits?.max_running)
        }),
        ("streams", "limits.max_streams", |server| {
            Some(server.limits?.max_streams)
        }),
        ("bodies", "limits.max_bodies", |server| {
            Some(server.limits?.max_bodies)
        }),
        ("programs", "max_children", |server| Some(server.programs)),
    ];
    for (what, key, limit) in families {
        let gauges = new.gauges(
            &format!("taper_proxy_{what}_limit"),
            &format!("What `taper_proxy_{what}` may be (`{key}`)."),
            Label::new("server", servers.iter().map(|server| server.id)),
        );
        for (server, gauge) in servers.iter().zip(gauges) {
            gauge.set_count(limit(server).unwrap_or(0));
        }
    }
}

fn identities(new: &mut Registry, servers: &[Told<'_>]) -> Vec<(ClientIdentity, Gauge)> {
    let shown = || {
        servers
            .iter()
            .filter_map(|server| Some((server.id, server.identity?)))
    };
    let gauges = new.gauges(
        "taper_proxy_upstream_certificate_end_seconds",
        "When the certificate ends that the server is shown, in seconds since 1970.",
        Label::new("server", shown().map(|(id, _)| id)),
    );
    shown()
        .map(|(_, identity)| identity.clone())
        .zip(gauges)
        .collect()
}
