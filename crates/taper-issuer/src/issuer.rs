//! The issuer as a program sees it: open everything, bind, serve, end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use taper_service::clock::SharedClock;
use taper_service::config::resolve;
use taper_service::disk::Taken;
use taper_service::edge::Bound;
use taper_service::files;
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use taper_store::{Audit as _, EmbeddedStore, JournalConfig, Record, RecordKind, journal_size};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::OpenError;
use crate::state::{Parts, Shared, State};
use crate::{admin, configured, discovery, feed, introspect, revoke, token};

/// What the journal's checkpoints call this daemon.
const JOURNAL: &str = "issuer";
/// How long fetches of keys may go on after the last answer.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the state forgets what has ended.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How often seen proofs that have ended are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(15);

/// An authorization server whose keys, policies and state are checked and open.
pub struct Issuer {
    pub(crate) state: State,
    config: Config,
}

/// An issuer with open ports that do not answer yet.
pub struct BoundIssuer {
    state: State,
    journal: JournalConfig,
    public: Bound,
    admin: Bound,
}

/// Why an issuer could not start listening.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// The start could not be recorded.
    #[error(transparent)]
    Store(#[from] taper_store::StoreError),
}

/// Checks a configuration with its keys, secrets and policies, as `--check-config` does. It opens neither a
/// port nor the state, but reads files. `folder` is the configuration file's.
///
/// # Errors
/// [`OpenError`], the first thing that is wrong.
pub fn check(config: &Config, folder: &Path, clock: &SharedClock) -> Result<(), OpenError> {
    Parts::load(config, folder, clock).map(|_| ())
}

impl Issuer {
    /// Reads keys, secrets and policies and opens the state; `folder` is the configuration file's. It reads
    /// files for as long as the journal is: call it before the runtime serves, or under `spawn_blocking`.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing listens.
    pub fn open(config: Config, folder: &Path, clock: SharedClock) -> Result<Self, OpenError> {
        let parts = Parts::load(&config, folder, &clock)?;
        let now = Arc::clone(&clock);
        let (store, report) = EmbeddedStore::open_with(
            &resolve(folder, &config.state),
            JOURNAL,
            config.journal.settings(config.seen_proofs),
            Arc::new(move || now.unix_millis()),
            rng::os(),
        )?;
        let (steady, opened) = (Arc::clone(&clock), clock.steady());
        let store = store.with_steady_clock(Arc::new(move || steady.steady().saturating_sub(opened)));
        tracing::info!(
            store.records = report.records,
            store.replayed = report.replayed,
            store.dropped_bytes = report.dropped_bytes,
            "state opened"
        );
        if let Some(reason) = report.state_unreadable {
            tracing::warn!(reason, "the state was rebuilt from the journal");
        }
        let state = Arc::new(Shared::new(parts, &config, store, clock));
        Ok(Self { state, config })
    }

    /// Opens both ports and records the start.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(self) -> Result<BoundIssuer, BindError> {
        let edge = &self.config.edge;
        files::allow((edge.max_connections as u64).saturating_mul(2));
        let parts = &self.state.parts;
        let tls = parts.tls.as_ref();
        let public = Bound::bind(self.config.listen, edge.clone()).await?.over(tls);
        let admin = Bound::bind(self.config.admin_listen, edge.clone()).await?;
        let admin = admin.over(tls.filter(|tls| tls.for_admin()));
        let listeners = &self.state.metrics.listeners;
        let (public, admin) = (public.counted(listeners.of(0)), admin.counted(listeners.of(1)));
        let started = RecordKind::Started {
            role: JOURNAL.to_owned(),
        };
        let policy = RecordKind::Policy {
            digest: parts.policy.digest().to_owned(),
            files: parts.policy_files.clone(),
        };
        for kind in [started, policy] {
            let at_ms = self.state.clock.unix_millis();
            self.state.store.append(Record { at_ms, kind }).await?;
        }
        configured::record(&self.state).await?;
        Ok(BoundIssuer {
            state: self.state,
            journal: self.config.journal,
            public,
            admin,
        })
    }

    /// What the public port answers.
    #[cfg(test)]
    pub(crate) fn public_router(&self) -> Router {
        public_router(Arc::clone(&self.state))
    }

    /// What the admin port answers.
    #[cfg(test)]
    pub(crate) fn admin_router(&self) -> Router {
        admin::router(Arc::clone(&self.state))
    }
}

impl BoundIssuer {
    /// Where the public endpoints listen.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where the admin endpoints listen.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Answers until `shutdown` is triggered and running requests have ended; then closes the state.
    pub async fn serve(self, shutdown: Shutdown) {
        let Self {
            state,
            journal,
            public,
            admin,
        } = self;
        tracing::info!(
            issuer = state.parts.issuer,
            listen = %public.local_addr(),
            admin_listen = %admin.local_addr(),
            "issuer is ready"
        );
        let tasks = state.parts.tasks.clone();
        if let Some(tls) = state.parts.tls.clone() {
            tasks.spawn("certificate", tls.follow(Arc::clone(&state.clock), tasks.clone()));
        }
        let folder = state.store.folder().to_owned();
        let measure = {
            let folder = folder.clone();
            move || journal_size(&folder).map(|(bytes, files)| Taken { bytes, files })
        };
        let disk = state.metrics.disk.clone();
        tasks.spawn("disk", disk.follow(folder, Arc::new(measure), tasks.clone()));
        tasks.spawn("sweep", sweep(Arc::clone(&state), journal, tasks.clone()));
        let public = public.serve(public_router(Arc::clone(&state)), shutdown.clone());
        let admin = admin.serve(admin::router(Arc::clone(&state)), shutdown.clone());
        let ending = async {
            shutdown.cancelled().await;
            tasks.trigger();
        };
        tokio::join!(public, admin, ending);
        if let Err(error) = tasks.drain(DRAIN).await {
            tracing::warn!(%error, "tasks outlived the shutdown");
        }
        if let Err(error) = state.store.close().await {
            tracing::error!(%error, "the state could not be closed");
        }
    }
}

/// Lets the state forget what has ended, and the journal what is old, now and then: by a time that has
/// proved right ([`taper_store::SweepClock`]), never as the first act.
async fn sweep(state: State, journal: JournalConfig, tasks: Shutdown) {
    let started = Instant::now();
    let mut believed = state.store.sweep_clock().await;
    let mut swept = Instant::now();
    loop {
        tokio::select! {
            () = tasks.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => state.store.forget_ended_proofs(state.clock.unix()).await,
        }
        if swept.elapsed() < SWEEP_EVERY {
            continue;
        }
        swept = Instant::now();
        let now = match state
            .store
            .sweep_time(&mut believed, state.clock.unix(), started.elapsed())
            .await
        {
            Ok(Some(now)) => now,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "the time to sweep by cannot be written down");
                continue;
            }
        };
        match state.store.sweep(now).await {
            Ok(swept) => tracing::debug!(
                grants = swept.grants,
                revocations = swept.revocations,
                refresh_families = swept.refresh_families,
                "the state was swept"
            ),
            Err(error) => tracing::warn!(%error, "the state cannot be swept"),
        }
        if let Some(before_ms) = journal.drop_before(now.saturating_mul(1000)) {
            match state.store.retire(before_ms).await {
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

/// The endpoints lie below the path of the issuer's URL, the metadata where RFC 8414 §3.1 puts it.
fn public_router(state: State) -> Router {
    let base = state.parts.base_path.clone();
    let at = |path: &str| format!("{base}{path}");
    let metadata = format!("/.well-known/oauth-authorization-server{base}");
    let mut router = Router::new()
        .route(&at("/token"), post(token::token))
        .route(&at("/revoke"), post(revoke::revoke))
        .route(&at("/introspect"), post(introspect::introspect))
        .route(&at("/revocations"), get(feed::revocations))
        .route(&at("/.well-known/jwks.json"), get(discovery::key_set))
        .route(&metadata, get(discovery::metadata))
        .route("/healthz", get(discovery::healthz))
        .route("/readyz", get(discovery::readyz));
    if !base.is_empty() {
        // Many clients append the segment instead of inserting it.
        router = router.route(
            &at("/.well-known/oauth-authorization-server"),
            get(discovery::metadata),
        );
    }
    router.with_state(state)
}
