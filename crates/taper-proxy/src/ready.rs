//! The configuration, checked: everything that can be wrong with it is found here, before a port is
//! opened or the state folder is touched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use taper_oauth::{client_auth, uri};
use taper_policy::PolicyFile;
use taper_policy::boundary::BoundaryPolicy;
use taper_service::clock::SharedClock;
use taper_service::config::resolve;
use taper_service::edge::{ClientIdentity, EdgeLimits, Tls, TlsError};
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::secret::SecretError;
use taper_store::{JournalConfig, RecordKind, SeenLimits, StoreError, load_position, position_file};

use crate::catalogue::Catalogue;
use crate::config::{self, Config, EnvValue};
use crate::feed::Follower;
use crate::headers::{Names, may_forward};
use crate::issuers::{IssuerState, Issuers, RootKeysError};
use crate::pins::Pinned;
use crate::profile::{Profile, ProfileError};
use crate::tokens::{Environment, SettingsError, Tokens};
use crate::traced::Traced;
use crate::upstream::{HttpSettings, HttpUpstream, StdioSettings, StdioUpstream, Upstream, client_config};

/// The largest policy or key file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A URL of the configuration cannot be used.
    #[error("`{name}`: {reason}")]
    Setting {
        /// The key.
        name: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A server's configuration.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A file cannot be read.
    #[error("cannot read `{}`: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A policy has mistakes.
    #[error("{0}")]
    Policy(#[from] taper_policy::PolicyErrors),
    /// A secret is absent or open to others.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An issuer's key file.
    #[error("issuer `{issuer}`: {error}")]
    RootKeys {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        error: RootKeysError,
    },
    /// The listener's certificate and its key.
    #[error("`tls`: {0}")]
    Tls(#[from] TlsError),
    /// Outbound requests cannot be set up.
    #[error(transparent)]
    Fetch(#[from] taper_service::fetch::FetchError),
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// All of the configuration that can be checked without taking the state folder.
pub(crate) struct Ready {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) edge: EdgeLimits,
    pub(crate) tls: Option<Tls>,
    pub(crate) state: PathBuf,
    pub(crate) journal: JournalConfig,
    pub(crate) seen_proofs: SeenLimits,
    pub(crate) names: Names,
    pub(crate) trusted_hops: usize,
    pub(crate) queue: usize,
    /// Bytes for chains that verified before.
    pub(crate) verified_chains: usize,
    pub(crate) log_subject: bool,
    pub(crate) traces: Option<Traced>,
    pub(crate) nonce: config::NonceMode,
    pub(crate) proxies: u32,
    pub(crate) policy: BoundaryPolicy,
    pub(crate) policy_record: RecordKind,
    pub(crate) servers: Vec<(Profile, Upstream, Catalogue)>,
    pub(crate) issuers: Vec<config::Issuer>,
    pub(crate) key_files: Vec<(String, Vec<u8>)>,
    pub(crate) key_uris: Vec<(String, String)>,
    pub(crate) feeds: Vec<(String, String, HeaderValue, Duration)>,
    pub(crate) fetcher: Fetcher,
}

impl Ready {
    /// How many connections the limits permit at once: from callers, from operators, and to upstreams.
    pub(crate) fn connections(&self) -> u64 {
        let listeners = 1 + u64::from(self.admin_listen.is_some());
        let to_upstreams = self.servers.iter().map(|(profile, ..)| {
            let limits = &profile.limits;
            (limits.max_running as u64).saturating_add(limits.max_streams as u64)
        });
        let from_callers = (self.edge.max_connections as u64).saturating_mul(listeners);
        to_upstreams.fold(from_callers, u64::saturating_add)
    }

    pub(crate) fn new(config: &Config, folder: &Path, clock: &SharedClock) -> Result<Self, OpenError> {
        let public = config.public_url.trim_end_matches('/');
        let parsed = uri::secure(public, true).map_err(|e| setting("public_url", e))?;
        if parsed.path() != "/" || parsed.query().is_some() {
            return Err(setting("public_url", "it has a path or a query"));
        }
        let names = names_of(config, &parsed);
        let tls = tls_of(config, &parsed, folder, clock.unix())?;
        if config.proxies == 0 {
            return Err(setting("proxies", "there is at least this one"));
        }
        if config.proxies > 1 && config.nonce == config::NonceMode::Off {
            // They do not share the proofs that they saw.
            return Err(setting(
                "nonce",
                "with `proxies` above 1 it has to be `demand`: a captured request would pass once at each",
            ));
        }

        let rules = fetch_rules(&config.outbound, folder)?;
        let around = Environment {
            folder,
            public_url: public,
            rules: &rules,
            clock,
        };
        let mut kept = Vec::new();
        for (id, server) in &config.servers {
            let profile = Profile::new(id, public, server)?;
            let upstream = upstream(id, server, &around)?;
            check_catalogue(id, &server.catalogue, &server.upstream)?;
            kept.push((profile, upstream));
        }
        if kept.is_empty() {
            return Err(setting("servers", "there is none"));
        }

        let mut files = Vec::new();
        for path in &config.policies {
            let path = resolve(folder, path);
            let bytes = read_file(&path)?;
            files.push(PolicyFile {
                name: path.display().to_string(),
                source: String::from_utf8(bytes).map_err(|_| OpenError::File {
                    path: path.clone(),
                    reason: "it is not UTF-8 text".to_owned(),
                })?,
            });
        }
        if files.is_empty() {
            tracing::warn!("there is no policy, every call will be denied");
        }
        let policy = BoundaryPolicy::load(&files)?;
        let named = policy.names("tool_hint") || policy.names("tool_digest");
        let described = |((profile, upstream), server): ((Profile, Upstream), &config::Server)| {
            let pinned = pinned(&profile.id, server, folder)?;
            let catalogue = Catalogue::new(&server.catalogue, &server.upstream, named, pinned);
            Ok((profile, upstream, catalogue))
        };
        let servers: Result<_, OpenError> = kept
            .into_iter()
            .zip(config.servers.values())
            .map(described)
            .collect();
        let servers = servers?;
        let policy_record = RecordKind::Policy {
            digest: policy.digest().to_owned(),
            files: files.into_iter().map(|file| file.name).collect(),
        };

        let mut ready = Self {
            listen: config.listen,
            admin_listen: config.admin_listen,
            edge: config.edge.clone(),
            tls,
            state: resolve(folder, &config.state),
            journal: config.journal,
            seen_proofs: config.seen_proofs,
            names,
            trusted_hops: config.trusted_hops,
            queue: config.queue,
            verified_chains: usize::from(config.verified_chains_mib) << 20,
            log_subject: config.request_log.subject,
            traces: Traced::of(config, folder)?,
            nonce: config.nonce,
            proxies: config.proxies,
            policy,
            policy_record,
            servers,
            issuers: config.issuers.clone(),
            key_files: Vec::new(),
            key_uris: Vec::new(),
            feeds: Vec::new(),
            fetcher: Fetcher::new(&rules)?,
        };
        if config.issuers.is_empty() {
            return Err(setting("issuers", "there is none"));
        }
        for (at, issuer) in config.issuers.iter().enumerate() {
            let twice = config
                .issuers
                .iter()
                .take(at)
                .any(|one| one.issuer == issuer.issuer);
            if twice {
                return Err(setting("issuers", format!("`{}` is there twice", issuer.issuer)));
            }
            ready.issuer(issuer, config, folder)?;
        }
        Ok(ready)
    }

    /// The issuers as they stood when the proxy last ran, and who follows them.
    pub(crate) fn issuers(&self) -> Result<(Issuers, Vec<Follower>), OpenError> {
        let mut states = Vec::new();
        let mut followers = Vec::new();
        for issuer in &self.issuers {
            let feed = self.feeds.iter().find(|(id, ..)| *id == issuer.issuer);
            let (floor, staleness) = match feed {
                None => (None, Duration::MAX),
                Some((id, uri, authorization, max_staleness)) => {
                    let position_file = position_file(&self.state, &file_name(id));
                    let floor = load_position(&position_file, id)?;
                    followers.push(Follower {
                        issuer: id.clone(),
                        uri: uri.clone(),
                        authorization: authorization.clone(),
                        max_staleness: *max_staleness,
                        position_file,
                    });
                    (Some(floor), *max_staleness)
                }
            };
            states.push(IssuerState::new(
                &issuer.issuer,
                issuer.servers.clone(),
                floor,
                staleness,
            ));
        }
        let issuers = Issuers::new(states);
        for (issuer, document) in &self.key_files {
            let refused = |error| OpenError::RootKeys {
                issuer: issuer.clone(),
                error,
            };
            issuers.set_keys(issuer, document).map_err(refused)?;
        }
        Ok((issuers, followers))
    }

    fn issuer(&mut self, issuer: &config::Issuer, config: &Config, folder: &Path) -> Result<(), OpenError> {
        let name = |key: &str| format!("issuers.{}.{key}", issuer.issuer);
        let loopback = config.outbound.allow_loopback_http;
        uri::issuer(&issuer.issuer, loopback).map_err(|e| setting(&name("issuer"), e))?;
        for server in issuer.servers.iter().flatten() {
            if !taper_capability::is_server(server) {
                return Err(setting(
                    &name("servers"),
                    format!("`{server}` is not a server id"),
                ));
            }
        }
        match (&issuer.jwks_uri, &issuer.jwks_file) {
            (Some(keys), None) => {
                uri::secure(keys, loopback).map_err(|e| setting(&name("jwks_uri"), e))?;
                self.key_uris.push((issuer.issuer.clone(), keys.clone()));
            }
            (None, Some(path)) => {
                let document = read_file(&resolve(folder, path))?;
                // Read once here, so that a check finds what a start would find.
                let alone = IssuerState::new(&issuer.issuer, None, None, Duration::MAX);
                Issuers::new(vec![alone])
                    .set_keys(&issuer.issuer, &document)
                    .map_err(|error| OpenError::RootKeys {
                        issuer: issuer.issuer.clone(),
                        error,
                    })?;
                self.key_files.push((issuer.issuer.clone(), document));
            }
            _ => {
                return Err(setting(
                    &name("jwks_uri"),
                    "one of `jwks_uri` and `jwks_file` is needed",
                ));
            }
        }
        let Some(feed) = &issuer.feed else {
            return if issuer.without_feed {
                Ok(())
            } else {
                Err(setting(
                    &name("feed"),
                    "it is missing; `without_feed = true` says that there is none",
                ))
            };
        };
        let default = || format!("{}/revocations", issuer.issuer.trim_end_matches('/'));
        let feed_uri = feed.uri.clone().unwrap_or_else(default);
        let parsed = uri::secure(&feed_uri, loopback).map_err(|e| setting(&name("feed.uri"), e))?;
        if parsed.query().is_some() {
            return Err(setting(&name("feed.uri"), "it has a query"));
        }
        let secret = feed.client_secret.read(folder)?;
        let secret = taper_oauth::Secret::new(secret.expose_str()?);
        let basic = client_auth::basic_header(&feed.client_id, &secret);
        let mut authorization =
            HeaderValue::from_str(basic.expose()).map_err(|e| setting(&name("feed.client_secret"), e))?;
        authorization.set_sensitive(true);
        self.feeds
            .push((issuer.issuer.clone(), feed_uri, authorization, feed.max_staleness));
        Ok(())
    }
}

fn tls_of(config: &Config, public: &url::Url, folder: &Path, now: i64) -> Result<Option<Tls>, OpenError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    if public.scheme() != "https" {
        return Err(setting("public_url", "with `tls` it is an https url"));
    }
    let tls = Tls::load(tls, folder, now)?;
    let host = public.host_str().unwrap_or_default();
    if !tls.names(host) {
        tracing::warn!(
            host,
            "the certificate does not name the host of the public url, whoever connects without something in front will refuse it"
        );
    }
    Ok(Some(tls))
}

fn names_of(config: &Config, public: &url::Url) -> Names {
    let host = public.host_str().unwrap_or_default();
    let authority = match public.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let mut hosts = config.hosts.clone();
    if let (None, Some(port)) = (public.port(), public.port_or_known_default()) {
        hosts.push(format!("{host}:{port}"));
    }
    let mut origins = config.origins.clone();
    origins.push(format!("{}://{authority}", public.scheme()));
    hosts.push(authority);
    Names { hosts, origins }
}

/// What may be called beside the upstreams.
pub(crate) fn fetch_rules(outbound: &config::Outbound, folder: &Path) -> Result<FetchRules, OpenError> {
    let mut extra_roots = Vec::new();
    for path in &outbound.ca_files {
        extra_roots.push(read_file(&resolve(folder, path))?);
    }
    Ok(FetchRules {
        allow_loopback_http: outbound.allow_loopback_http,
        trusted_hosts: outbound.trusted_hosts.clone(),
        extra_roots,
        ..FetchRules::default()
    })
}

fn check_catalogue(
    id: &str,
    catalogue: &config::Catalogue,
    upstream: &config::Upstream,
) -> Result<(), OpenError> {
    let refresh = catalogue.refresh_of(upstream);
    let name = |key: &str| format!("servers.{id}.catalogue.{key}");
    if refresh.is_zero() {
        return Err(setting(&name("refresh"), "it is nothing"));
    }
    if catalogue.max_age.is_some_and(|max_age| max_age < refresh) {
        return Err(setting(&name("max_age"), "it is shorter than `refresh`"));
    }
    Ok(())
}

/// What was approved of a server, if only that may be called.
fn pinned(id: &str, server: &config::Server, folder: &Path) -> Result<Option<Pinned>, OpenError> {
    let shows = server.discovery == config::Discovery::Catalogue;
    let Some(path) = &server.pins else {
        if shows {
            let reason = "`catalogue` needs `pins`: what is shown is what was approved";
            return Err(setting(&format!("servers.{id}.discovery"), reason));
        }
        return Ok(None);
    };
    let name = format!("servers.{id}.pins");
    if server.catalogue.facts == config::Facts::Off {
        let reason = "it needs `catalogue.facts = \"fetch\"`: what the server says is compared with it";
        return Err(setting(&name, reason));
    }
    let path = resolve(folder, path);
    let opened = Pinned::open(id, &path, shows).map_err(|error| {
        let path = path.display();
        setting(
            &name,
            format!("`{path}`: {error}; `taper proxy pin --server {id}` with this configuration writes it"),
        )
    });
    opened.map(Some)
}

pub(crate) fn upstream(
    id: &str,
    server: &config::Server,
    around: &Environment<'_>,
) -> Result<Upstream, OpenError> {
    let folder = around.folder;
    let refused = |reason: String| ProfileError::Upstream {
        server: id.to_owned(),
        reason,
    };
    match &server.upstream {
        config::Upstream::Http {
            http,
            headers,
            ca_file,
            tls,
            oauth,
            ..
        } => {
            let parsed = uri::absolute(http).map_err(|e| refused(format!("`{http}`: {e}")))?;
            if !matches!(parsed.scheme(), "http" | "https") || !parsed.username().is_empty() {
                return Err(refused(format!("`{http}` is not an http url without credentials")).into());
            }
            let uri: Uri = http.parse().map_err(|e| refused(format!("`{http}`: {e}")))?;
            for (key, is_there) in [("ca_file", ca_file.is_some()), ("tls", tls.is_some())] {
                if is_there && parsed.scheme() != "https" {
                    return Err(refused(format!("`{key}` is for an https url")).into());
                }
            }
            let identity = match tls {
                None => None,
                Some(files) => {
                    let loaded = ClientIdentity::load(files, folder, around.clock.unix());
                    Some(loaded.map_err(|e| refused(format!("`tls`: {e}")))?)
                }
            };
            let mut authorities = None;
            if let Some(path) = ca_file {
                let path = resolve(folder, path);
                authorities = Some((read_file(&path)?, path));
            }
            let pem = authorities.as_ref().map(|(pem, _)| pem.as_slice());
            let tls = client_config(pem, identity.as_ref()).map_err(|e| match &authorities {
                Some((_, path)) => refused(format!("`{}`: {e}", path.display())),
                None => refused(e.to_owned()),
            })?;
            let mut tokens = None;
            if let Some(oauth) = oauth {
                if uri::secure(http, true).is_err() {
                    let reason =
                        "with `oauth` it is an https url, or one of loopback: who reads a token can use it";
                    return Err(refused(format!("`{http}`: {reason}")).into());
                }
                let own = |name: &String| name.eq_ignore_ascii_case("authorization");
                if headers.keys().any(own) {
                    return Err(refused("`oauth` beside the header `authorization`".to_owned()).into());
                }
                tokens = Some(Arc::new(Tokens::new(id, oauth, around).map_err(|e| match e {
                    SettingsError::Secret(error) => OpenError::from(error),
                    other => refused(other.to_string()).into(),
                })?));
            }
            let mut set = Vec::new();
            for (name, source) in headers {
                let header = HeaderName::try_from(name.as_str()).ok();
                let credential =
                    |name: &HeaderName| *name == http::header::AUTHORIZATION || may_forward(name);
                let header = header.filter(credential).ok_or_else(|| ProfileError::Header {
                    server: id.to_owned(),
                    header: name.clone(),
                })?;
                let secret = source.read(folder)?;
                let mut value = HeaderValue::from_bytes(secret.expose())
                    .map_err(|_| refused(format!("the value of the header `{name}` is not one")))?;
                value.set_sensitive(true);
                set.push((header, value));
            }
            let settings = HttpSettings {
                uri,
                headers: set,
                tls,
                identity,
                tokens,
            };
            Ok(Upstream::Http(Box::new(HttpUpstream::new(
                settings,
                &server.limits,
            ))))
        }
        config::Upstream::Stdio {
            stdio,
            env,
            era,
            stderr,
            max_children,
            idle,
        } => {
            if stdio.is_empty() {
                return Err(refused("`stdio` names no command".to_owned()).into());
            }
            let mut variables = Vec::new();
            for (name, value) in env {
                let value = match value {
                    EnvValue::Plain(text) => taper_service::secret::Secret::new(text.as_str()),
                    EnvValue::Secret(source) => source.read(folder)?,
                };
                variables.push((name.clone(), value));
            }
            Ok(Upstream::Stdio(Box::new(StdioUpstream::new(StdioSettings {
                server: id.to_owned(),
                command: stdio.clone(),
                env: variables,
                era: *era,
                stderr: *stderr,
                max_children: *max_children,
                idle: *idle,
                limits: server.limits,
            }))))
        }
    }
}

pub(crate) fn setting(name: &str, reason: impl ToString) -> OpenError {
    OpenError::Setting {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, OpenError> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| OpenError::File {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(OpenError::File {
            path: path.to_owned(),
            reason: format!("it is larger than {MAX_FILE} bytes"),
        });
    }
    Ok(bytes)
}

/// A name of one issuer that fits into a file system.
fn file_name(issuer: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(issuer.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
