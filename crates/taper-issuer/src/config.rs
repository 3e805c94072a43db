//! The configuration file of an issuer, and the checks that need no file beside it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use taper_oauth::jwt::DEFAULT_SKEW;
use taper_oauth::{SigningAlgorithm, TrustedIssuer, scope, uri};
use taper_service::config::SecretSource;
use taper_service::edge::{EdgeLimits, TlsConfig};
use taper_service::telemetry::Telemetry;
use taper_store::{JournalConfig, SeenLimits};
use url::Url;

use crate::error::OpenError;
use crate::rules;

/// An issuer's configuration. Relative paths start at the folder of the file. Load it with
/// [`taper_service::config::load`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public URL, without a trailing slash: the issuer identifier of every capability, and what proofs
    /// name as `htu` of its endpoints (RULES 19).
    pub issuer: String,
    /// Where the public endpoints listen.
    pub listen: SocketAddr,
    /// The certificate of `listen`, and of `admin_listen` where it says so. Without it TLS ends in front.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Where `/admin/v1` and `/metrics` listen. Default `127.0.0.1:9401`.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// The folder of the journal and the state.
    pub state: PathBuf,
    /// How the journal is kept.
    #[serde(default)]
    pub journal: JournalConfig,
    /// How many proofs are remembered, so that none is accepted twice.
    #[serde(default)]
    pub seen_proofs: SeenLimits,
    /// The keys that sign block 0; the first signs, the others still verify.
    pub root_keys: Vec<RootKeyConfig>,
    /// The grant policies (Datalog). Without any, nothing is granted, so at least one is wanted.
    pub policies: Vec<PathBuf>,
    /// Whose tokens are exchanged.
    #[serde(default)]
    pub trusted_issuers: Vec<TrustedIssuerConfig>,
    /// Who may ask.
    #[serde(default)]
    pub clients: Vec<ClientConfig>,
    /// What can be asked for.
    #[serde(default)]
    pub servers: Vec<ServerConfig>,
    /// The lifetime of a capability when a policy states none. Default 1 h.
    #[serde(default = "default_ttl", with = "taper_service::config::duration")]
    pub default_ttl: Duration,
    /// The longest lifetime of a capability, whatever a policy states. Default 24 h.
    #[serde(default = "max_ttl", with = "taper_service::config::duration")]
    pub max_ttl: Duration,
    /// The most hand-overs that a capability may allow, whatever a policy states; also what holds when a policy
    /// states none. Default 8.
    #[serde(default = "default_max_depth")]
    pub max_depth: u32,
    /// The claims of the subject token that go into the capability, for the policies of the boundary. Every
    /// holder of the capability can read them. Default `["groups"]`.
    #[serde(default = "default_claims")]
    pub capability_claims: Vec<String>,
    /// Whether proofs must carry a nonce of this node. Default `off`.
    #[serde(default)]
    pub nonce: NonceMode,
    /// Accepts plain http on loopback, for this issuer and for those it trusts. Default no.
    #[serde(default)]
    pub development: bool,
    /// What `/admin/v1` asks for.
    pub admin_token: SecretSource,
    /// How the keys of trusted issuers are fetched.
    #[serde(default)]
    pub outbound: OutboundConfig,
    /// The limits of both listeners.
    #[serde(default)]
    pub edge: EdgeLimits,
    /// What is logged.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// A root key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeyConfig {
    /// Its number, never used for another key: `kid` of the key set, `rootKeyId` of a token.
    pub id: u32,
    /// Its file, a private Ed25519 JWK with mode 0600; see [`crate::generate_root_key`].
    pub file: PathBuf,
}

/// An issuer of subject and actor tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuerConfig {
    /// Its identifier, compared with `iss` byte for byte.
    pub issuer: String,
    /// What `aud` of its tokens must name. Default: this issuer.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The signature algorithms that are accepted from it. Default RS256, PS256, ES256, EdDSA.
    #[serde(default)]
    pub algorithms: Vec<SigningAlgorithm>,
    /// Whether access tokens may have the `typ` `JWT` or none. Default no.
    #[serde(default)]
    pub allow_plain_typ: bool,
    /// The confidential clients, configured here under the id that they have there, whose ID tokens are
    /// accepted. Default none.
    #[serde(default)]
    pub id_token_clients: Vec<String>,
    /// Where its keys lie. Default: discovered.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Whether it and its keys may be on plain http at a loopback host, as the development provider is.
    /// Needs `development = true`.
    #[serde(default)]
    pub insecure_loopback: bool,
}

/// A client.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// Its id.
    pub id: String,
    /// Its secret; a client without one is public.
    #[serde(default)]
    pub secret: Option<SecretSource>,
    /// Whether it may read the revocation feed; needs a secret.
    #[serde(default)]
    pub feed: bool,
    /// Whether it may introspect; needs a secret.
    #[serde(default)]
    pub introspect: bool,
}

/// An MCP server behind a boundary proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Its id in scopes and rights.
    pub id: String,
    /// Its public resource URI, the audience of capabilities for it (RULES 19).
    pub resource: String,
}

/// Guarded outbound requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundConfig {
    /// Hosts that may have private addresses.
    pub trusted_hosts: Vec<String>,
    /// Certificate authorities beside the platform's, PEM files.
    pub ca_files: Vec<PathBuf>,
}

/// Whether proofs must carry a nonce of this node (RFC 9449 §8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonceMode {
    /// No, apart from the first minutes after a start that may have forgotten proofs.
    #[default]
    Off,
    /// Yes; every answer hands out the next one.
    Demand,
}

impl Config {
    /// Checks what can be checked without another file.
    ///
    /// # Errors
    /// [`OpenError::Config`], the first thing that is wrong.
    pub fn validate(&self) -> Result<(), OpenError> {
        self.check_issuer()?;
        non_empty("root_keys", &self.root_keys)?;
        non_empty("policies", &self.policies)?;
        non_empty("servers", &self.servers)?;
        unique(
            "root_keys",
            "id",
            self.root_keys.iter().map(|key| key.id.to_string()),
        )?;
        unique(
            "clients",
            "id",
            self.clients.iter().map(|client| client.id.clone()),
        )?;
        unique(
            "servers",
            "id",
            self.servers.iter().map(|server| server.id.clone()),
        )?;
        unique(
            "servers",
            "resource",
            self.servers.iter().map(|server| server.resource.clone()),
        )?;
        unique(
            "trusted_issuers",
            "issuer",
            self.trusted_issuers.iter().map(|trusted| trusted.issuer.clone()),
        )?;
        self.check_trusted()?;
        self.check_clients()?;
        self.check_servers()?;
        if self.default_ttl.is_zero() || self.default_ttl > self.max_ttl {
            return Err(OpenError::config(
                "default_ttl",
                "it must be above zero and at most `max_ttl`",
            ));
        }
        Ok(())
    }

    /// What the JWT check needs to know of a trusted issuer.
    pub(crate) fn trusted(&self, trusted: &TrustedIssuerConfig) -> TrustedIssuer {
        let audiences = if trusted.audiences.is_empty() {
            vec![self.issuer.clone()]
        } else {
            trusted.audiences.clone()
        };
        let usual = TrustedIssuer::new(trusted.issuer.clone(), audiences);
        TrustedIssuer {
            algorithms: if trusted.algorithms.is_empty() {
                usual.algorithms.clone()
            } else {
                trusted.algorithms.clone()
            },
            allow_plain_typ: trusted.allow_plain_typ,
            id_token_clients: trusted.id_token_clients.clone(),
            skew: DEFAULT_SKEW,
            ..usual
        }
    }

    /// The path below which the public endpoints lie: that of the issuer's URL, empty for a bare host.
    pub(crate) fn base_path(&self) -> Result<String, OpenError> {
        let url = Url::parse(&self.issuer).map_err(|error| OpenError::config("issuer", error))?;
        Ok(url.path().trim_end_matches('/').to_owned())
    }

    fn check_issuer(&self) -> Result<(), OpenError> {
        uri::issuer(&self.issuer, true).map_err(|error| OpenError::config("issuer", error))?;
        if self.issuer.ends_with('/') {
            return Err(OpenError::config("issuer", "leave the slash at its end out"));
        }
        // axum reads braces and asterisks of a path as patterns.
        if self.base_path()?.contains(['{', '}', '*', ':', '%']) {
            return Err(OpenError::config("issuer", "its path has a special character"));
        }
        let secure = uri::issuer(&self.issuer, false).is_ok();
        if !rules::DEVELOPMENT.holds(secure || self.development) {
            return Err(OpenError::config(
                "issuer",
                "plain http needs `development = true`",
            ));
        }
        if self.tls.is_some() && !secure {
            return Err(OpenError::config("issuer", "with `tls` it is an https url"));
        }
        Ok(())
    }

    fn check_trusted(&self) -> Result<(), OpenError> {
        for trusted in &self.trusted_issuers {
            let key = format!("trusted_issuers.{}", trusted.issuer);
            if !rules::DEVELOPMENT.holds(!trusted.insecure_loopback || self.development) {
                return Err(OpenError::config(
                    key,
                    "`insecure_loopback` (the development provider) needs `development = true`",
                ));
            }
            uri::issuer(&trusted.issuer, trusted.insecure_loopback)
                .map_err(|error| OpenError::config(key.as_str(), error))?;
            if let Some(jwks_uri) = &trusted.jwks_uri {
                uri::secure(jwks_uri, trusted.insecure_loopback)
                    .map_err(|error| OpenError::config(format!("{key}.jwks_uri"), error))?;
            }
            let confidential = |id: &String| {
                self.clients
                    .iter()
                    .any(|client| client.id == *id && client.secret.is_some())
            };
            if !trusted.id_token_clients.iter().all(confidential) {
                return Err(OpenError::config(
                    format!("{key}.id_token_clients"),
                    "each must be a configured client with a secret",
                ));
            }
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), OpenError> {
        for client in &self.clients {
            let key = format!("clients.{}", client.id);
            let printable = client.id.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if client.id.is_empty() || client.id.len() > 256 || !printable {
                return Err(OpenError::config(
                    key,
                    "an id has 1 to 256 printable ASCII characters",
                ));
            }
            if client.secret.is_none() && (client.feed || client.introspect) {
                return Err(OpenError::config(key, "`feed` and `introspect` need a `secret`"));
            }
        }
        Ok(())
    }

    fn check_servers(&self) -> Result<(), OpenError> {
        for server in &self.servers {
            let key = format!("servers.{}", server.id);
            if !scope::is_server(&server.id) {
                return Err(OpenError::config(
                    key,
                    "a server id has 1 to 64 of a-z, 0-9 and `-`",
                ));
            }
            let url =
                uri::absolute(&server.resource).map_err(|error| OpenError::config(key.as_str(), error))?;
            if !matches!(url.scheme(), "https" | "http") {
                return Err(OpenError::config(key, "`resource` is an http(s) URL"));
            }
        }
        Ok(())
    }
}

fn non_empty<T>(key: &str, items: &[T]) -> Result<(), OpenError> {
    if items.is_empty() {
        return Err(OpenError::config(key, "at least one is wanted"));
    }
    Ok(())
}

fn unique(key: &str, member: &str, values: impl Iterator<Item = String>) -> Result<(), OpenError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(OpenError::config(
                key,
                format!("`{member}` `{value}` is there twice"),
            ));
        }
        seen.insert(value);
    }
    Ok(())
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9401))
}

fn default_ttl() -> Duration {
    Duration::from_secs(3600)
}

fn max_ttl() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn default_max_depth() -> u32 {
    8
}

fn default_claims() -> Vec<String> {
    vec!["groups".to_owned()]
}
