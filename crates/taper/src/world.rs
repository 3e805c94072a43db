//! Everything that `demo` and `up` run, in one process and one folder: a development identity
//! provider, an issuer, a boundary proxy, and a small MCP server over two real git repositories.
//!
//! The daemons are the real ones, started from configuration files that are written into the folder
//! and can be read there. All of it is on loopback and for development only (RULES 32).

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use git_server::Calls;
use rand_core::RngCore as _;
use serde::{Deserialize, Serialize};
use taper_service::clock::SharedClock;
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::secret::write_private_file;
use taper_service::shutdown::Shutdown;
use taper_service::{config, rng};

use crate::dev;

/// The public OAuth client that development tokens are for.
pub(crate) const CLIENT_ID: &str = "dev";
const STATE_FILE: &str = "up.json";
const ADMIN_TOKEN: &str = "admin-token";
const FEED_SECRET: &str = "feed-secret";
const READY_TIMEOUT: Duration = Duration::from_secs(20);

const GRANT_POLICY: &str = include_str!("../policies/grant.dl");
const BOUNDARY_POLICY: &str = include_str!("../policies/boundary.dl");

/// The ports of a folder, remembered so that it always comes back on the same URLs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ports {
    issuer: u16,
    admin: u16,
    idp: u16,
    proxy: u16,
    git: u16,
}

/// Where everything is; also what `DIR/up.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Urls {
    /// The issuer.
    pub(crate) issuer: String,
    /// The development identity provider.
    pub(crate) idp: String,
    /// The servers behind the proxy.
    pub(crate) mcp: Mcp,
    /// The issuer's admin listener.
    pub(crate) admin: String,
    ports: Ports,
}

/// The servers behind the proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mcp {
    /// The git server.
    pub(crate) git: String,
}

/// All parts, running.
pub(crate) struct World {
    /// Where everything is.
    pub(crate) urls: Urls,
    /// The folder of it all, absolute.
    pub(crate) dir: PathBuf,
    /// What the MCP server was asked.
    pub(crate) calls: Calls,
    shutdown: Shutdown,
    /// Why a part ended before it was told to.
    broken: Arc<OnceLock<String>>,
}

impl World {
    /// Starts everything in `dir`, on the ports that it remembers, else on `port` and the four after
    /// it (0: free ones). `extra_policy` is a further boundary policy file. Returns when all is ready.
    pub(crate) async fn start(
        dir: &Path,
        port: u16,
        extra_policy: Option<&str>,
        clock: SharedClock,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let urls = remembered(&dir, port)?;
        let shutdown = Shutdown::new();
        let world = Self {
            calls: Calls::default(),
            urls,
            dir,
            shutdown,
            broken: Arc::default(),
        };
        match world.start_parts(extra_policy, clock).await {
            Ok(calls) => Ok(Self { calls, ..world }),
            Err(error) => {
                world.shutdown.trigger();
                Err(error)
            }
        }
    }

    /// The file of the admin token.
    pub(crate) fn admin_token_file(&self) -> PathBuf {
        self.dir.join(ADMIN_TOKEN)
    }

    /// The folder of the git repositories.
    pub(crate) fn repositories(&self) -> PathBuf {
        self.dir.join("repositories")
    }

    /// From here on SIGINT and SIGTERM stop everything in order.
    pub(crate) fn stop_on_signals(&self) -> Result<()> {
        Ok(self.shutdown.on_signals()?)
    }

    /// Ends when the process is told to, or a part fails.
    pub(crate) async fn run(self) -> Result<()> {
        self.shutdown.cancelled().await;
        self.stop().await
    }

    /// Stops everything and waits for it.
    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.trigger();
        self.shutdown
            .drain(Duration::from_secs(30))
            .await
            .map_err(|_| anyhow::anyhow!("a part did not stop in time"))?;
        match self.broken.get() {
            Some(reason) => bail!("{reason}"),
            None if self.shutdown.failed() => bail!("a part of the program failed; its log says why"),
            None => Ok(()),
        }
    }

    /// Runs a part; when it fails, everything ends.
    fn part<E: Display>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (shutdown, broken) = (self.shutdown.clone(), Arc::clone(&self.broken));
        self.shutdown.spawn(name, async move {
            if let Err(error) = part.await {
                // The first reason is the one that counts.
                let _ = broken.set(format!("{name}: {error}"));
                shutdown.trigger();
            }
        });
    }

    async fn start_parts(&self, extra_policy: Option<&str>, clock: SharedClock) -> Result<Calls> {
        self.write_files(extra_policy)?;
        let (repositories, now) = (self.repositories(), clock.unix());
        tokio::task::spawn_blocking(move || git_server::sample_repositories(&repositories, now))
            .await?
            .context("cannot make the sample repositories (is `git` installed?)")?;
        let ports = self.urls.ports;

        let provider = dev::Provider::open(&self.dir, &self.urls.idp)?;
        let listener = listen(ports.idp).await?;
        self.part("identity-provider", provider.serve(listener, self.stopping()));

        let git = git_server::Config::new(self.repositories(), "git", &mut rng::os());
        let calls = git.calls.clone();
        let listener = listen(ports.git).await?;
        self.part("git-server", git_server::serve(listener, git, self.stopping()));

        let folder = self.dir.join("issuer");
        let file: taper_issuer::Config = config::load(&folder.join("issuer.toml"))?;
        let issuer_clock = clock.clone();
        let issuer =
            tokio::task::spawn_blocking(move || taper_issuer::Issuer::open(file, &folder, issuer_clock))
                .await??;
        self.shutdown.spawn(
            "issuer",
            issuer
                .bind()
                .await
                .with_context(taken)?
                .serve(self.shutdown.clone()),
        );

        let folder = self.dir.join("proxy");
        let file: taper_proxy::Config = config::load(&folder.join("proxy.toml"))?;
        let proxy =
            tokio::task::spawn_blocking(move || taper_proxy::Proxy::open(&file, &folder, clock)).await??;
        let proxy = proxy.bind().await.with_context(taken)?;
        self.part("proxy", proxy.serve(self.shutdown.clone()));

        self.ready().await?;
        Ok(calls)
    }

    fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let shutdown = self.shutdown.clone();
        async move { shutdown.cancelled().await }
    }

    /// Waits until issuer and proxy say that they are ready.
    async fn ready(&self) -> Result<()> {
        let rules = FetchRules {
            allow_loopback_http: true,
            ..FetchRules::default()
        };
        let fetcher = Fetcher::new(&rules)?;
        let proxy = self.urls.mcp.git.trim_end_matches("/git/mcp");
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        for url in [format!("{}/readyz", self.urls.issuer), format!("{proxy}/readyz")] {
            loop {
                let last = match fetcher.get(&url, 64 * 1024).await {
                    Ok(answer) if answer.status.is_success() => break,
                    Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
                    Err(error) => error.to_string(),
                };
                if tokio::time::Instant::now() > deadline {
                    bail!("{url} is not ready: {last}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    fn write_files(&self, extra_policy: Option<&str>) -> Result<()> {
        for folder in ["issuer", "proxy"] {
            std::fs::create_dir_all(self.dir.join(folder))?;
        }
        for secret in [ADMIN_TOKEN, FEED_SECRET] {
            let path = self.dir.join(secret);
            if !path.exists() {
                write_private_file(&path, rng::random_secret_256(&mut rng::os()).expose())?;
            }
        }
        let root = self.dir.join("issuer/root-1.jwk");
        if !root.exists() {
            taper_issuer::generate_root_key(&root, &mut rng::os())?;
        }
        let write = |path: &str, text: &str| std::fs::write(self.dir.join(path), text);
        write("issuer/grant.dl", GRANT_POLICY)?;
        write("issuer/issuer.toml", &self.issuer_config())?;
        write("proxy/boundary.dl", BOUNDARY_POLICY)?;
        if let Some(policy) = extra_policy {
            write("proxy/extra.dl", policy)?;
        }
        write("proxy/proxy.toml", &self.proxy_config(extra_policy.is_some()))?;
        let state = serde_json::to_string_pretty(&self.urls)?;
        write(STATE_FILE, &state)?;
        Ok(())
    }

    // The values are URLs of ours, port numbers and constants; none needs escaping in TOML.
    fn issuer_config(&self) -> String {
        let Urls {
            issuer,
            idp,
            mcp,
            ports,
            ..
        } = &self.urls;
        format!(
            r#"# Written by `taper up`; for development only.
issuer = "{issuer}"
listen = "127.0.0.1:{}"
admin_listen = "127.0.0.1:{}"
state = "state"
policies = ["grant.dl"]
admin_token = {{ file = "../{ADMIN_TOKEN}" }}
development = true

[[root_keys]]
id = 1
file = "root-1.jwk"

[[trusted_issuers]]
issuer = "{idp}"
insecure_loopback = true

[[clients]]
id = "{CLIENT_ID}"

[[clients]]
id = "proxy"
secret = {{ file = "../{FEED_SECRET}" }}
feed = true

[[servers]]
id = "git"
resource = "{}"
"#,
            ports.issuer, ports.admin, mcp.git
        )
    }

    fn proxy_config(&self, extra_policy: bool) -> String {
        let Urls { issuer, ports, .. } = &self.urls;
        let extra = if extra_policy { ", \"extra.dl\"" } else { "" };
        format!(
            r#"# Written by `taper up`; for development only.
listen = "127.0.0.1:{0}"
public_url = "http://127.0.0.1:{0}"
state = "state"
policies = ["boundary.dl"{extra}]
outbound = {{ allow_loopback_http = true }}

[[issuers]]
issuer = "{issuer}"
jwks_uri = "{issuer}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "../{FEED_SECRET}" }} }}

[servers.git]
name = "Two sample git repositories"
upstream = {{ http = "http://127.0.0.1:{1}/mcp" }}
scopes = ["git:git_log", "git:git_show"]
read_only = ["git_log", "git_show"]
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["max_count"] }}
tools.git_show = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["revision"] }}
"#,
            ports.proxy, ports.git
        )
    }
}

/// What `DIR/up.json` says of a folder where `taper up` runs or ran.
pub(crate) fn read_urls(dir: &Path) -> Result<Urls> {
    let path = dir.join(STATE_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "{} cannot be read; `taper up --dir {}` makes it",
            path.display(),
            dir.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what `taper up` wrote", path.display()))
}

fn remembered(dir: &Path, port: u16) -> Result<Urls> {
    if dir.join(STATE_FILE).exists() {
        return read_urls(dir);
    }
    let ports = if port == 0 {
        free_ports()?
    } else {
        consecutive(port)?
    };
    let loopback = |port: u16| format!("http://127.0.0.1:{port}");
    Ok(Urls {
        issuer: loopback(ports.issuer),
        idp: format!("{}/development", loopback(ports.idp)),
        mcp: Mcp {
            git: format!("{}/git/mcp", loopback(ports.proxy)),
        },
        admin: loopback(ports.admin),
        ports,
    })
}

/// Where ports are looked for: below those that systems give to outgoing connections, which could take
/// one of these between the look and its use.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// Five free ports: held all at once so that they differ, then let go for the parts to take.
fn free_ports() -> Result<Ports> {
    let mut rng = rng::os();
    let mut held = Vec::new();
    for _ in 0..1_000 {
        let offset = rng.next_u32() % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(offset)?;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if let [issuer, admin, idp, proxy, git] = held.as_slice() {
            let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
            return Ok(Ports {
                issuer: port(issuer)?,
                admin: port(admin)?,
                idp: port(idp)?,
                proxy: port(proxy)?,
                git: port(git)?,
            });
        }
    }
    bail!("no five free ports were found")
}

fn consecutive(port: u16) -> Result<Ports> {
    let nth = |n: u16| {
        port.checked_add(n)
            .context("the ports after --port would pass 65535")
    };
    Ok(Ports {
        issuer: port,
        admin: nth(1)?,
        idp: nth(2)?,
        proxy: nth(3)?,
        git: nth(4)?,
    })
}

async fn listen(port: u16) -> Result<tokio::net::TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
        .with_context(taken)
}

fn taken() -> &'static str {
    "a remembered port is taken: stop the other process, or use another --dir"
}
