//! What every endpoint of one issuer shares.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;
use taper_capability::{RootKey, Roots, UnverifiedToken, VerifiedChain, Verifier};
use taper_oauth::ErrorCode;
use taper_policy::PolicyFile;
use taper_policy::grant::GrantPolicy;
use taper_service::clock::SharedClock;
use taper_service::config::resolve;
use taper_service::edge::Tls;
use taper_service::pool::CpuPool;
use taper_service::secret::Secret;
use taper_service::shutdown::Shutdown;
use taper_store::{EmbeddedStore, RevocationKey, SeenProofs};

use crate::clients::Clients;
use crate::config::Config;
use crate::error::{OpenError, Refusal};
use crate::exchange::{Bounds, Servers};
use crate::http;
use crate::metrics::Metrics;
use crate::proof::ProofGate;
use crate::trust::Trust;
use crate::{keys, rules};

/// Closures of CPU work that wait at most; beyond that, 503.
const QUEUE: usize = 256;

/// Everything that comes from the configuration and its files, without state.
pub(crate) struct Parts {
    pub(crate) issuer: String,
    pub(crate) base_path: String,
    pub(crate) keys: Vec<RootKey>,
    pub(crate) policy: GrantPolicy,
    pub(crate) policy_files: Vec<String>,
    pub(crate) clients: Clients,
    pub(crate) servers: Servers,
    pub(crate) trust: Trust,
    pub(crate) bounds: Bounds,
    pub(crate) capability_claims: Vec<String>,
    pub(crate) verifier: Verifier,
    pub(crate) admin_token: Secret,
    pub(crate) tls: Option<Tls>,
    /// Ends with the daemon; long polls and fetches of keys listen to it.
    pub(crate) tasks: Shutdown,
}

/// A running issuer, as its endpoints see it.
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) gate: ProofGate,
    pub(crate) clock: SharedClock,
    pub(crate) pool: CpuPool,
    pub(crate) metrics: Metrics,
}

/// What endpoints take as their axum state.
pub(crate) type State = Arc<Shared>;

impl Parts {
    pub(crate) fn load(config: &Config, folder: &Path, clock: &SharedClock) -> Result<Self, OpenError> {
        config.validate()?;
        let tasks = Shutdown::new();
        let keys = keys::load(folder, &config.root_keys)?;
        let files = policy_files(config, folder)?;
        let policy = GrantPolicy::load(&files).map_err(|error| OpenError::Policy(error.to_string()))?;
        let mut roots = Roots::new();
        for key in &keys {
            roots = roots
                .trust(&config.issuer, key.id(), key.public(), None)
                .map_err(|error| OpenError::config("root_keys", error))?;
        }
        let secret = |source| OpenError::Secret {
            key: "admin_token".to_owned(),
            source,
        };
        Ok(Self {
            issuer: config.issuer.clone(),
            base_path: config.base_path()?,
            keys,
            policy,
            policy_files: files.into_iter().map(|file| file.name).collect(),
            clients: Clients::load(folder, &config.clients)?,
            servers: config
                .servers
                .iter()
                .map(|server| (server.id.clone(), server.resource.clone()))
                .collect(),
            trust: Trust::new(config, folder, Arc::clone(clock), tasks.clone())?,
            bounds: Bounds {
                default_ttl: seconds(config.default_ttl),
                max_ttl: seconds(config.max_ttl),
                max_depth: config.max_depth,
            },
            capability_claims: config.capability_claims.clone(),
            verifier: Verifier::new(roots),
            admin_token: config.admin_token.read(folder).map_err(secret)?,
            tls: tls(config, folder, clock.unix())?,
            tasks,
        })
    }

    /// The URL of an endpoint, as proofs name it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }
}

impl Shared {
    pub(crate) fn new(parts: Parts, config: &Config, store: EmbeddedStore, clock: SharedClock) -> Self {
        let store = Arc::new(store);
        let now = clock.unix();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let metrics = Metrics::new(&parts.issuer, parts.tls.clone(), now);
        Self {
            parts,
            gate: ProofGate::new(Arc::clone(&store) as Arc<dyn SeenProofs>, config.nonce),
            store,
            clock,
            pool: CpuPool::new(workers, QUEUE),
            metrics,
        }
    }

    /// The answer of an endpoint: it is counted, the nonce is handed out.
    pub(crate) fn answer(&self, endpoint: &'static str, outcome: Result<Response, Refusal>) -> Response {
        let now = self.clock.unix();
        let nonce = self.gate.nonce(outcome.as_ref().err(), now);
        self.metrics.answered(endpoint, outcome.as_ref().err(), now);
        let mut response = outcome.unwrap_or_else(|refusal| http::refusal(&refusal));
        if let Some(nonce) = nonce {
            response.headers_mut().insert(http::DPOP_NONCE, nonce);
        }
        response
    }

    /// Verifies a capability of this issuer. `Ok(None)`: it is none, or has ended.
    pub(crate) async fn capability(self: &Arc<Self>, text: &str) -> Result<Option<VerifiedChain>, Refusal> {
        self.chain(text, self.clock.unix()).await
    }

    /// As [`Shared::capability`], also when it has ended: it still says who granted and signed what.
    pub(crate) async fn signed_chain(self: &Arc<Self>, text: &str) -> Result<Option<VerifiedChain>, Refusal> {
        self.chain(text, i64::MIN).await
    }

    async fn chain(self: &Arc<Self>, text: &str, now: i64) -> Result<Option<VerifiedChain>, Refusal> {
        let (state, text) = (Arc::clone(self), zeroize::Zeroizing::new(text.to_owned()));
        self.pool
            .run(move || {
                UnverifiedToken::decode(&text)
                    .and_then(|token| state.parts.verifier.verify(token, now))
                    .ok()
            })
            .await
            .map_err(Refusal::pool)
    }

    /// Whether any of `keys` is revoked.
    pub(crate) async fn revoked(&self, keys: &[RevocationKey]) -> Result<Option<RevocationKey>, Refusal> {
        use taper_store::Revocations as _;
        self.store
            .is_revoked(&self.parts.issuer, keys)
            .await
            .map_err(|error| Refusal::store(&error))
    }
}

/// Refuses whoever is not the admin.
pub(crate) fn demand_admin(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut given = headers.get_all(axum::http::header::AUTHORIZATION).iter();
    let only = given.next().filter(|_| given.next().is_none());
    let sent = only
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token);
    if rules::ADMIN.holds(shared.parts.admin_token.matches(sent.as_bytes())) {
        return Ok(());
    }
    Err(Refusal::new(
        rules::ADMIN,
        ErrorCode::InvalidToken,
        "the admin token is missing or wrong",
    ))
}

fn tls(config: &Config, folder: &Path, now: i64) -> Result<Option<Tls>, OpenError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    let tls = Tls::load(tls, folder, now)?;
    let url = url::Url::parse(&config.issuer).map_err(|error| OpenError::config("issuer", error))?;
    let host = url.host_str().unwrap_or_default();
    if !tls.names(host) {
        tracing::warn!(
            host,
            "the certificate does not name the issuer's host, whoever connects without something in front will refuse it"
        );
    }
    Ok(Some(tls))
}

fn policy_files(config: &Config, folder: &Path) -> Result<Vec<PolicyFile>, OpenError> {
    let read = |path: &std::path::PathBuf| {
        let path = resolve(folder, path);
        let name = path.display().to_string();
        let source = std::fs::read_to_string(&path)
            .map_err(|error| OpenError::Policy(format!("cannot read `{name}`: {error}")))?;
        Ok(PolicyFile { name, source })
    };
    config.policies.iter().map(read).collect()
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The claims of a subject as pairs of name and value.
pub(crate) fn claim_pairs(claims: &BTreeMap<String, Vec<String>>) -> Vec<(String, String)> {
    let pairs = |(name, values): (&String, &Vec<String>)| -> Vec<(String, String)> {
        values.iter().map(|value| (name.clone(), value.clone())).collect()
    };
    claims.iter().flat_map(pairs).collect()
}
