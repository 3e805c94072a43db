//! The configuration file of the proxy. Unknown keys are refused; secrets are named, never written.
//!
//! This module is the file as it is written. The module `profile` checks each server's part and makes it
//! ready for use; [`crate::Proxy::check`] does so for all of it.

mod limits;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use taper_service::config::{PrefixedSource, SecretSource, duration};
use taper_service::edge::{EdgeLimits, TlsConfig};
use taper_service::telemetry::Telemetry;
use taper_store::{JournalConfig, SeenLimits};

pub use self::limits::{Limits, Rate, Rates};
pub use self::upstream::{
    ClientAuth, ClientCertificate, EnvValue, Oauth, OauthGrant, StdioEra, StdioStderr, Upstream,
};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests are answered.
    pub listen: SocketAddr,
    /// Where operators look (`/healthz`, `/readyz`, `/metrics`). Default none.
    #[serde(default)]
    pub admin_listen: Option<SocketAddr>,
    /// The certificate of `listen`, and of `admin_listen` where it says so. Without it TLS ends in front.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// The URL under which callers know the proxy, without a path: `https`, or `http` on loopback without
    /// `tls`.
    /// Resource URIs and `htu` come from it, never from a request (RULES 19).
    pub public_url: String,
    /// The folder of the journal, the seen proofs and the feed heads.
    pub state: PathBuf,
    /// How the journal is kept.
    #[serde(default)]
    pub journal: JournalConfig,
    /// How many proofs are remembered, so that none is accepted twice.
    #[serde(default)]
    pub seen_proofs: SeenLimits,
    /// The boundary policy's files. With none, every call is denied.
    #[serde(default)]
    pub policies: Vec<PathBuf>,
    /// Whether every proof must carry a nonce of ours.
    #[serde(default)]
    pub nonce: NonceMode,
    /// How many proxies answer for these servers, this one included. Each keeps its own state, so with
    /// more than one nobody can count calls, capabilities with a max-calls caveat are refused
    /// (RULES 16), and `nonce` has to be `demand` (RULES 22). Default 1.
    #[serde(default = "default_proxies")]
    pub proxies: u32,
    /// How many proxies stand before this one and append to `X-Forwarded-For` (RULES 18). With 0 the
    /// socket's peer is the client.
    #[serde(default)]
    pub trusted_hops: usize,
    /// `Host` values that are answered beside the public URL's own.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `Origin` values that are answered beside the public URL's own.
    #[serde(default)]
    pub origins: Vec<String>,
    /// How many signature checks and policy evaluations may wait for a worker; beyond that 503.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Memory for chains that verified before, in MiB, so that the next call with the same capability
    /// skips their signatures (RULES 23); 0 keeps none. A grant has at most a sixteenth of it.
    #[serde(default = "default_verified_chains")]
    pub verified_chains_mib: u16,
    /// Limits of the listener.
    #[serde(default)]
    pub edge: EdgeLimits,
    /// Logs.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The line that the log gets for every request.
    #[serde(default)]
    pub request_log: RequestLog,
    /// Where spans of requests go.
    #[serde(default)]
    pub traces: Traces,
    /// Calls to issuers, and to authorization servers of upstreams.
    #[serde(default)]
    pub outbound: Outbound,
    /// Whose capabilities count.
    pub issuers: Vec<Issuer>,
    /// The servers, by id.
    pub servers: BTreeMap<String, Server>,
}

const fn default_proxies() -> u32 {
    1
}

const fn default_queue() -> usize {
    256
}

const fn default_verified_chains() -> u16 {
    64
}

/// Whether a proof needs a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonceMode {
    /// Only when the seen proofs cannot be complete (RULES 22).
    #[default]
    Off,
    /// Always.
    Demand,
}

/// What the line of a request says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLog {
    /// Whether it names the subject, which may be personal data. The grant and the last holder it names
    /// always, and the journal has the subject of every decision.
    pub subject: bool,
}

/// Where spans of requests go: OTLP over HTTP, as JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// The collector's URL, without `/v1/traces`: `https`, or `http` on loopback. Default
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` of the environment, and without that nothing is recorded.
    pub endpoint: Option<String>,
    /// The value of `Authorization` for the collector.
    pub authorization: Option<PrefixedSource>,
    /// Of how many requests whose caller names no trace spans are recorded, from 0 to 1. For others the
    /// caller's choice counts.
    pub sample: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            authorization: None,
            sample: 1.0,
        }
    }
}

/// What may be called beside the upstreams.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Permits issuers and authorization servers of upstreams on loopback, also without TLS. For development.
    pub allow_loopback_http: bool,
    /// Hosts of theirs that may have private addresses.
    pub trusted_hosts: Vec<String>,
    /// Certificate authorities of theirs beside the platform's, PEM files.
    pub ca_files: Vec<PathBuf>,
}

/// An issuer whose capabilities count.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its identifier, exactly as its capabilities name it.
    pub issuer: String,
    /// Where its root keys are fetched.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// A file with its root keys, instead.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The servers for which its capabilities may hold rights (RULES 8). Default: all.
    #[serde(default)]
    pub servers: Option<Vec<String>>,
    /// Its revocation feed.
    #[serde(default)]
    pub feed: Option<Feed>,
    /// Says that there is no feed on purpose: capabilities then last until they expire.
    #[serde(default)]
    pub without_feed: bool,
}

/// How an issuer's revocations are followed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Default: the issuer's URL and `/revocations`.
    #[serde(default)]
    pub uri: Option<String>,
    /// The proxy's client id at the issuer.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretSource,
    /// How old the newest complete answer may be before every call is refused with 503.
    #[serde(default = "default_staleness", with = "duration")]
    pub max_staleness: Duration,
}

const fn default_staleness() -> Duration {
    Duration::from_secs(30)
}

/// One MCP server behind the proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it is.
    pub upstream: Upstream,
    /// A name for people, in the resource metadata.
    #[serde(default)]
    pub name: Option<String>,
    /// Scopes that challenges and metadata name. Default `<id>:*`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Tools that only read: their proofs need no body digest (RULES 15).
    #[serde(default)]
    pub read_only: Vec<String>,
    /// What is known about its tools' arguments.
    #[serde(default)]
    pub tools: BTreeMap<String, Tool>,
    /// What is known about its kinds of resource.
    #[serde(default)]
    pub kinds: BTreeMap<String, Kind>,
    /// Whether proofs must carry the body's digest.
    #[serde(default)]
    pub body_binding: BodyBinding,
    /// When allowed calls of the tools in `read_only` are in the journal.
    #[serde(default)]
    pub audit: Recording,
    /// How a denial is told.
    #[serde(default)]
    pub deny_style: DenyStyle,
    /// Sizes, times, and how much may run at once.
    #[serde(default)]
    pub limits: Limits,
    /// How many requests may come in a time. Default: as many as do.
    #[serde(default)]
    pub rate: Rates,
    /// What the server says of its tools.
    #[serde(default)]
    pub catalogue: Catalogue,
    /// The tools that were approved: a file that `taper proxy pin` writes and people review. With it no
    /// other tool can be called, and none that the server describes otherwise (RULES 25). Default: none,
    /// and all tools are as the server says.
    #[serde(default)]
    pub pins: Option<PathBuf>,
    /// Who learns what the server offers.
    #[serde(default)]
    pub discovery: Discovery,
    /// Methods outside the protocol; all others are refused. They need some right on the server, and
    /// every check runs.
    #[serde(default)]
    pub extra_methods: Vec<String>,
}

/// What is known about a tool's arguments.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tool {
    /// The resources that a call touches: kind to template, or templates, such as `"{owner}/{repo}"`.
    pub resources: BTreeMap<String, OneOrMany>,
    /// Arguments beside those of the templates. A tool with templates gets no others (RULES 14).
    pub arguments: Vec<String>,
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// What is known about a kind of resource.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kind {
    /// Which values are canonical; others are denied.
    pub form: KindForm,
    /// Folds `A`–`Z` to lower case before the decision, for servers that do not tell them apart.
    pub ascii_lower: bool,
}

/// How canonical values of a kind look (RULES 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindForm {
    /// Segments between `/`: none of them empty, `.` or `..`; no `\`, no `%`, no leading `~`.
    #[default]
    Path,
    /// A path that starts with `/`.
    AbsolutePath,
    /// A URL that reads back as itself, with a path as above; one of `http` or `https` names no user.
    Url,
    /// Any text without control characters.
    Text,
}

/// How it is learned what a server says of its tools: their hints, their digests and which headers repeat
/// their arguments.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalogue {
    /// Whether the server is asked.
    pub facts: Facts,
    /// How often. Default 5 minutes; 1 hour for programs, since one is started each time.
    #[serde(deserialize_with = "some_duration")]
    pub refresh: Option<Duration>,
    /// How long an answer counts while newer ones fail. Default 12 times `refresh`.
    #[serde(deserialize_with = "some_duration")]
    pub max_age: Option<Duration>,
}

fn some_duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(from).map(Some)
}

impl Catalogue {
    /// How often the server is asked.
    #[must_use]
    pub fn refresh_of(&self, upstream: &Upstream) -> Duration {
        self.refresh.unwrap_or(match upstream {
            Upstream::Http { .. } => Duration::from_secs(5 * 60),
            Upstream::Stdio { .. } => Duration::from_secs(60 * 60),
        })
    }
}

/// Whether a server is asked for its tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Facts {
    /// Yes: over HTTP from the start on; a program when a policy or a check depends on its answer.
    #[default]
    Fetch,
    /// No. What depends on the answer is denied.
    Off,
}

/// Who learns what a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// Callers with a capability, as far as it goes.
    #[default]
    Token,
    /// Anybody, as far as it is in the file of `pins`; the server is not asked. Callers with a capability
    /// see what it lets them see, from the server.
    Catalogue,
}

/// Whether proofs must carry the body's digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyBinding {
    /// Yes, the tools in `read_only` apart.
    #[default]
    Required,
    /// Only where the proof has it.
    Optional,
}

/// When the decision about a call that changes nothing is in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recording {
    /// Before the call is forwarded, like every other decision.
    #[default]
    Before,
    /// Soon after: an allowed call of a tool in `read_only`, and plumbing, wait for no disk. What a
    /// crash of the proxy leaves unwritten then is missing in the audit log.
    Async,
}

/// How a denial by a caveat or a policy is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyStyle {
    /// Status 403 with a JSON-RPC error.
    #[default]
    Http,
    /// Status 200 with a JSON-RPC error.
    Jsonrpc,
    /// Status 200 with a tool result that is an error, so that a model reads it.
    ToolResult,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:0"
        public_url = "https://proxy.example"
        state = "state"
        [[issuers]]
        issuer = "https://issuer.example"
        jwks_file = "jwks.json"
        feed = { client_id = "proxy", client_secret = { env = "X" } }
        [servers.git]
        upstream = { http = "http://127.0.0.1:1/mcp", headers = { authorization = { env = "Y" } } }
        read_only = ["git_log"]
        tools.git_log = { resources = { repo = "{repo_path}" }, arguments = ["max_count"] }
        [servers.files]
        upstream = { stdio = ["server", "/data"], env = { A = "b", T = { env = "Z" } } }
        limits = { max_body = 1000, stream_idle = "10m" }
        rate.per_holder = { requests = 100, per = "1s", burst = 200 }
    "#;

    #[test]
    fn a_good_file() {
        let config: Config = taper_service::config::parse(GOOD, "proxy.toml").unwrap();
        assert_eq!(config.nonce, NonceMode::Off);
        assert!(matches!(config.servers["git"].upstream, Upstream::Http { .. }));
        let Upstream::Stdio { era, env, .. } = &config.servers["files"].upstream else {
            panic!("stdio");
        };
        assert_eq!(*era, StdioEra::Legacy);
        assert!(matches!(env["T"], EnvValue::Secret(_)));
        assert_eq!(config.servers["files"].limits.max_body, 1000);
        assert_eq!(config.servers["files"].limits.max_sessions, 10_000);
        assert_eq!(
            config.servers["files"].limits.stream_idle,
            Some(Duration::from_secs(600))
        );
        assert_eq!(config.servers["git"].limits.stream_idle, None);
        let rate = config.servers["files"].rate.per_holder.unwrap();
        assert_eq!(
            (rate.requests, rate.per, rate.burst),
            (100, Duration::from_secs(1), Some(200))
        );
        assert!(config.servers["git"].rate.per_holder.is_none());
        let feed = config.issuers[0].feed.as_ref().unwrap();
        assert_eq!(feed.max_staleness, Duration::from_secs(30));
    }

    #[test]
    fn misspelt_keys_are_errors() {
        let check = |from: &str, to: &str| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            assert!(
                taper_service::config::parse::<Config>(&text, "x").is_err(),
                "{to}"
            );
        };
        check("read_only =", "readonly =");
        check("http = \"http", "https = \"http");
        check("client_id", "clientid");
        check("resources =", "resource =");
        check("{ env = \"Y\" }", "\"hunter2\"");
        check("max_body", "maxbody");
        check("per_holder", "per_key");
        check("burst", "bursts");
        check("[servers.git]", "[servers.git]\nbody_binding = \"off\"");
    }

    #[test]
    fn the_room_for_seen_proofs_has_bounds() {
        let read = |table: &str| {
            let text = format!("{GOOD}[seen_proofs]\n{table}\n");
            let config = taper_service::config::parse::<Config>(&text, "proxy.toml");
            let line = GOOD.lines().count() + 1;
            config.map(|config| config.seen_proofs).map_err(|error| {
                let text = error.to_string();
                assert!(text.starts_with(&format!("proxy.toml:{line}:")), "{text}");
                text
            })
        };
        assert_eq!(read("").unwrap(), SeenLimits::default());
        let set = |total: usize, per_grant: usize| SeenLimits { total, per_grant };
        let check = |table: &str, wanted: SeenLimits| assert_eq!(read(table), Ok(wanted));
        check("total = 1000", set(1_000, 50_000));
        check("total = 10000000", set(10_000_000, 50_000));
        check("per_grant = 100", set(1_000_000, 100));
        check("per_grant = 10000000", set(1_000_000, 10_000_000));
        for (table, says) in [
            ("total = 999", "999 is not from 1000 to 10000000"),
            ("total = 10000001", "10000001 is not from 1000 to 10000000"),
            ("per_grant = 99", "99 is not from 100 to 10000000"),
            ("per_grant = 10000001", "10000001 is not from 100 to 10000000"),
            ("total = -1", "-1"),
            ("most = 1", "most"),
        ] {
            let told = read(table).unwrap_err();
            assert!(told.contains(says), "{told}");
        }
    }
}
