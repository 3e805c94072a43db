//! The daemon: everything is checked before a port is opened, then it serves until it is told to stop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use taper_service::clock::SharedClock;
use taper_service::disk::Taken;
use taper_service::edge::{Bound, Tls};
use taper_service::fetch::Fetcher;
use taper_service::files;
use taper_service::pool::CpuPool;
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use taper_service::spans::{self, Exporter};
use taper_store::{Audit as _, EmbeddedStore, JournalConfig, Record, RecordKind, SeenProofs, journal_size};
use tokio::time::Instant;
use tower::service_fn;

use crate::catalogue::{self, Catalogue};
use crate::chains::Chains;
use crate::config::{Config, Discovery};
use crate::feed::{Follower, follow_keys};
use crate::gate::{self, Gate};
use crate::issuers::Issuers;
use crate::limits::{Addresses, Limiter};
use crate::measured::{Measured, Told};
use crate::outstanding::Sessions;
use crate::profile::{Profile, ProfileError};
use crate::ready::{OpenError, Ready};
use crate::service::{Server, Shared, answer, answer_admin};
use crate::tasks::Tasks;
use crate::tokens;
use crate::traced::Traces;
use crate::upstream::Upstream;

/// How often the state forgets what has ended.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How often seen proofs that have ended are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(15);

/// A proxy whose configuration, policies, secrets and state are in order. No port is open yet.
pub struct Proxy {
    ready: Ready,
    issuers: Issuers,
    followers: Vec<Follower>,
    store: Arc<EmbeddedStore>,
    clock: SharedClock,
}

/// A proxy with its ports open, not answering yet.
pub struct BoundProxy {
    pub(crate) shared: Arc<Shared>,
    public: Bound,
    admin: Option<Bound>,
    tls: Option<Tls>,
    followers: Vec<Follower>,
    journal: JournalConfig,
    key_uris: Vec<(String, String)>,
    policy: RecordKind,
    fetcher: Fetcher,
    exporter: Option<Exporter>,
}

impl Proxy {
    /// Checks everything that [`Proxy::open`] does, without touching the state folder. `folder` is the
    /// configuration file's; relative paths start there. It reads files: not for a runtime thread.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(config: &Config, folder: &Path, clock: &SharedClock) -> Result<(), OpenError> {
        Ready::new(config, folder, clock).map(drop)
    }

    /// Checks the configuration and opens the state folder. It reads files: not for a runtime thread.
    ///
    /// # Errors
    /// The first mistake; a state folder that another process has or that is damaged.
    pub fn open(config: &Config, folder: &Path, clock: SharedClock) -> Result<Self, OpenError> {
        let ready = Ready::new(config, folder, &clock)?;
        let of_store = Arc::clone(&clock);
        let now_ms = Arc::new(move || of_store.unix_millis());
        let (store, report) = EmbeddedStore::open_with(
            &ready.state,
            "proxy",
            ready.journal.settings(ready.seen_proofs),
            now_ms,
            rng::os(),
        )?;
        let (steady, opened) = (Arc::clone(&clock), clock.steady());
        let store = store.with_steady_clock(Arc::new(move || steady.steady().saturating_sub(opened)));
        tracing::info!(
            records = report.records,
            dropped_bytes = report.dropped_bytes,
            created = report.created,
            "journal opened"
        );
        let (issuers, followers) = ready.issuers()?;
        for (issuer, _) in &ready.key_files {
            if let Some(issuer) = issuers.get(issuer) {
                issuer.keys_taken(clock.unix());
            }
        }
        Ok(Self {
            ready,
            issuers,
            followers,
            store: Arc::new(store),
            clock,
        })
    }

    /// Opens the ports.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn bind(self) -> Result<BoundProxy, OpenError> {
        let Self {
            ready,
            issuers,
            followers,
            store,
            clock,
        } = self;
        files::allow(ready.connections());
        let tls = ready.tls.as_ref();
        let public = Bound::bind(ready.listen, ready.edge.clone()).await?.over(tls);
        let admin = match ready.admin_listen {
            None => None,
            Some(listen) => {
                let bound = Bound::bind(listen, ready.edge.clone()).await?;
                Some(bound.over(tls.filter(|tls| tls.for_admin())))
            }
        };
        let server = |(profile, upstream, catalogue): (Profile, Upstream, Catalogue)| {
            let sessions = Arc::new(Sessions::new(profile.limits.max_sessions));
            let tasks = Arc::new(Tasks::new(profile.limits.max_tasks));
            let server = Server {
                limiter: Arc::new(limiter(&profile, &clock)?),
                addresses: addresses(&profile, &clock)?,
                profile: Arc::new(profile),
                upstream,
                sessions,
                catalogue: Arc::new(catalogue),
                tasks,
            };
            Ok((server.profile.id.clone(), Arc::new(server)))
        };
        let servers: Result<_, OpenError> = ready.servers.into_iter().map(server).collect();
        let issuers = Arc::new(issuers);
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let gate = Gate {
            issuers: Arc::clone(&issuers),
            chains: Chains::new(ready.verified_chains),
            policy: ready.policy,
            proofs: gate::guard(Arc::clone(&store) as Arc<dyn SeenProofs>, ready.nonce),
            counters: (ready.proxies == 1).then(|| Arc::clone(&store) as Arc<dyn taper_store::CallCounters>),
        };
        let servers: BTreeMap<String, Arc<Server>> = servers?;
        let keys = tokens::key_set(servers.values().filter_map(|server| server.upstream.tokens()));
        let told: Vec<Told<'_>> = servers.iter().map(told).collect();
        let fetched: Vec<&str> = ready.key_uris.iter().map(|(issuer, _)| issuer.as_str()).collect();
        let measured = Measured::new(&told, &issuers, &fetched, ready.tls.clone(), clock.unix());
        let public = public.counted(measured.listeners.of(0));
        let admin = admin.map(|admin| admin.counted(measured.listeners.of(1)));
        for (id, server) in &servers {
            if let Some(tokens) = server.upstream.tokens() {
                tokens.count_in(&measured.tokens, measured.server(id));
            }
        }
        let (traces, exporter) = match ready.traces {
            None => (None, None),
            Some(traced) => {
                let (spans, exporter) =
                    spans::exporter(traced.collector, traced.fetcher, measured.fates().clone());
                (Some(Traces::new(spans, traced.sample)), Some(exporter))
            }
        };
        let shared = Shared {
            measured: Arc::new(measured),
            traces,
            log_subject: ready.log_subject,
            servers,
            keys,
            gate: Arc::new(gate),
            names: ready.names,
            trusted_hops: ready.trusted_hops,
            store,
            pool: CpuPool::new(workers, ready.queue),
            clock,
        };
        Ok(BoundProxy {
            shared: Arc::new(shared),
            public,
            admin,
            tls: ready.tls,
            followers,
            key_uris: ready.key_uris,
            journal: ready.journal,
            policy: ready.policy_record,
            fetcher: ready.fetcher,
            exporter,
        })
    }
}

impl BoundProxy {
    /// Where requests are answered.
    pub fn local_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where operators look.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Bound::local_addr)
    }

    /// Answers until `shutdown`, then ends running requests and closes the journal.
    ///
    /// # Errors
    /// When the start cannot be recorded, or the journal had failed.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), OpenError> {
        let shared = self.shared;
        let started = RecordKind::Started {
            role: "proxy".to_owned(),
        };
        for kind in [started, self.policy] {
            let at_ms = shared.clock.unix_millis();
            shared.store.append(Record { at_ms, kind }).await?;
        }
        for follower in self.followers {
            let (issuers, clock) = (Arc::clone(&shared.gate.issuers), Arc::clone(&shared.clock));
            let run = follower.run(issuers, self.fetcher.clone(), clock, shutdown.clone());
            shutdown.spawn("revocation-feed", run);
        }
        for (issuer, uri) in self.key_uris {
            let issuers = Arc::clone(&shared.gate.issuers);
            let clock = Arc::clone(&shared.clock);
            let run = follow_keys(
                issuer,
                uri,
                issuers,
                self.fetcher.clone(),
                clock,
                shutdown.clone(),
            );
            shutdown.spawn("root-keys", run);
        }
        if let Some(exporter) = self.exporter {
            shutdown.spawn("spans", exporter.run());
        }
        if let Some(tls) = self.tls {
            let clock = Arc::clone(&shared.clock);
            shutdown.spawn("certificate", tls.follow(clock, shutdown.clone()));
        }
        for server in shared.servers.values() {
            if let Some(identity) = server.upstream.identity() {
                let run = identity
                    .clone()
                    .follow(Arc::clone(&shared.clock), shutdown.clone());
                shutdown.spawn("upstream-certificate", run);
            }
            if let Some(tokens) = server.upstream.tokens() {
                let issuers = Arc::clone(&shared.gate.issuers);
                shutdown.spawn(
                    "upstream-tokens",
                    tokens::follow(Arc::clone(tokens), issuers, shutdown.clone()),
                );
            }
            let run = catalogue::follow(Arc::clone(server), Arc::clone(&shared.clock), shutdown.clone());
            shutdown.spawn("catalogue", run);
            let run = catalogue::follow_pins(Arc::clone(server), shutdown.clone());
            shutdown.spawn("pins", run);
        }
        let measure = {
            let folder = shared.store.folder().to_owned();
            move || journal_size(&folder).map(|(bytes, files)| Taken { bytes, files })
        };
        let folder = shared.store.folder().to_owned();
        let disk = shared.measured.disk.clone();
        shutdown.spawn("disk", disk.follow(folder, Arc::new(measure), shutdown.clone()));
        let (store, clock) = (Arc::clone(&shared.store), Arc::clone(&shared.clock));
        shutdown.spawn("sweep", sweep(store, self.journal, clock, shutdown.clone()));
        if let Some(admin) = self.admin {
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer_admin(&shared, &request);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            shutdown.spawn("admin", admin.serve(service, shutdown.clone()));
        }
        tracing::info!(listen = %self.public.local_addr(), "the proxy is answering");
        let service = {
            let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
            service_fn(move |request: Request<Incoming>| {
                // It is large, and the connection moves it more than once.
                Box::pin(answer(Arc::clone(&shared), shutdown.clone(), request))
            })
        };
        self.public.serve(service, shutdown).await;
        if let Some(traces) = &shared.traces {
            traces.close();
        }
        shared.store.close().await?;
        Ok(())
    }
}

/// What the page tells of a server from the start.
fn told<'a>((id, server): (&'a String, &'a Arc<Server>)) -> Told<'a> {
    Told {
        id,
        limits: Some(&server.profile.limits),
        programs: server.upstream.max_programs(),
        identity: server.upstream.identity(),
    }
}

fn limiter(profile: &Profile, clock: &SharedClock) -> Result<Limiter, OpenError> {
    let limiter = Limiter::new(&profile.id, &profile.limits, &profile.rates, Arc::clone(clock));
    limiter.map_err(|(key, reason)| refused_rate(profile, key, reason))
}

/// What callers without a token may use up, where they are told anything.
fn addresses(profile: &Profile, clock: &SharedClock) -> Result<Option<Addresses>, OpenError> {
    if profile.discovery == Discovery::Token {
        return Ok(None);
    }
    let addresses = Addresses::new(&profile.rates, Arc::clone(clock));
    let refused = |reason| refused_rate(profile, "per_address", reason);
    addresses.map(Some).map_err(refused)
}

fn refused_rate(profile: &Profile, key: &str, reason: &str) -> OpenError {
    let (server, key, reason) = (profile.id.clone(), format!("rate.{key}"), reason.to_owned());
    ProfileError::Limit { server, key, reason }.into()
}

/// Lets the state forget what has ended, and the journal what is old, now and then: by a time that has
/// proved right ([`taper_store::SweepClock`]), never as the first act.
async fn sweep(store: Arc<EmbeddedStore>, journal: JournalConfig, clock: SharedClock, shutdown: Shutdown) {
    let started = Instant::now();
    let mut believed = store.sweep_clock().await;
    let mut swept = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => store.forget_ended_proofs(clock.unix()).await,
        }
        if swept.elapsed() < SWEEP_EVERY {
            continue;
        }
        swept = Instant::now();
        let now = match store
            .sweep_time(&mut believed, clock.unix(), started.elapsed())
            .await
        {
            Ok(Some(now)) => now,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "the time to sweep by cannot be written down");
                continue;
            }
        };
        match store.sweep(now).await {
            Ok(swept) => tracing::debug!(counters = swept.counters, "the state was swept"),
            Err(error) => tracing::warn!(%error, "the state cannot be swept"),
        }
        if let Some(before_ms) = journal.drop_before(now.saturating_mul(1000)) {
            match store.retire(before_ms).await {
                Ok(Some(retired)) => tracing::info!(
                    store.first = retired.end,
                    store.segments = retired.segments,
                    store.carried = retired.carried,
                    "old records were dropped"
                ),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "old records cannot be dropped"),
            }
        }
    }
}
