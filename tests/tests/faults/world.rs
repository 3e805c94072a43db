//! One proxy before many servers, each with a trouble of its own and one without any; an issuer that the
//! test holds the root key of; and what the proxy's process holds, as the kernel tells it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand_core::OsRng;
use serde_json::json;
use taper_capability::{Grant, Party, Right, RootKey, issue};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::{Call, now};
use taper_tests::daemon::{free_port, write_private};
use taper_tests::{Running, authority, get, taper_bin};
use tempfile::TempDir;

use crate::wire::{Got, Wire};

/// The issuer whose root key the test has.
pub(crate) const MINT: &str = "https://mint.example";
/// A call that any of the upstreams answers.
pub(crate) const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
/// From now on this thread runs when no other on the machine has anything to do (`SCHED_IDLE`): with the lowest priority
/// alone it would still end its turn first.
pub(crate) fn steps_back() {
    let me = rustix::thread::gettid().as_raw_nonzero().to_string();
    let chrt = Command::new("chrt").args(["--idle", "--pid", "0", &me]).status();
    assert!(chrt.unwrap().success(), "chrt");
}

/// How long what must happen may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `holds`; whether it did.
pub(crate) fn until(holds: impl Fn() -> bool) -> bool {
    until_within(PATIENCE, holds)
}

/// The same for what may take longer.
pub(crate) fn until_within(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Who calls one server.
#[derive(Clone)]
pub(crate) struct Caller {
    at: String,
    url: String,
    pub(crate) token: String,
    jwk: String,
}

impl Caller {
    /// The call that passes.
    pub(crate) fn call(&self) -> Call {
        self.says(CALL)
    }

    /// Another message.
    pub(crate) fn says(&self, message: &str) -> Call {
        Call::mcp(&self.url, &self.token, &self.jwk, message).header("mcp-protocol-version", "2025-11-25")
    }

    /// A stream of the server's own messages.
    pub(crate) fn listens(&self) -> Call {
        let call = Call {
            method: "GET".into(),
            length: false,
            ..self.says("")
        };
        call.without("content-type")
            .instead("accept", "text/event-stream")
    }

    /// The stream of the modern era.
    pub(crate) fn subscribes(&self) -> Call {
        let (version, method) = ("2026-07-28", "subscriptions/listen");
        let meta = format!(r#"{{"io.modelcontextprotocol/protocolVersion":"{version}"}}"#);
        let params = format!(r#"{{"notifications":{{}},"_meta":{meta}}}"#);
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        self.says(&message)
            .instead("mcp-protocol-version", version)
            .header("mcp-method", method)
    }

    /// The call that passes where clocks say so many seconds more, with a nonce if there is one.
    pub(crate) fn call_at(&self, seconds: i64, nonce: Option<&str>) -> Call {
        let call = self.call();
        let mut claims = call.claims();
        claims.iat += seconds;
        claims.nonce = nonce.map(str::to_owned);
        call.proven_by(&self.jwk, &claims)
    }

    /// Where the proxy is.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// Makes one call on a connection of its own, and reads the answer as far as it goes.
    pub(crate) fn asks(&self, call: &Call) -> Got {
        Wire::open(&self.at).asks(call)
    }
}

/// A proxy under test.
pub(crate) struct World {
    dir: PathBuf,
    /// What else has to live as long.
    _folder: Option<TempDir>,
    pub(crate) proxy: Running,
    /// Where operators find it.
    admin: String,
    /// Where callers think that it is.
    public: String,
    /// Where callers find it.
    pub(crate) at: String,
    root: Arc<RootKey>,
}

/// How a proxy differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Where callers think that it is, if not where it is.
    pub(crate) public: Option<&'a str>,
    /// Further lines at the top.
    pub(crate) top: &'a str,
    /// The limits of the listener.
    pub(crate) edge: &'a str,
    /// Further issuers.
    pub(crate) issuers: &'a str,
    /// What stands before the program: a limit of the operating system.
    pub(crate) before: &'a [&'a str],
    /// Its environment.
    pub(crate) env: &'a [(&'a str, &'a Path)],
    /// The root key of the issuers, if the test has to have it first.
    pub(crate) root: Option<Arc<RootKey>>,
}

/// A root key for all issuers.
pub(crate) fn root_key() -> Arc<RootKey> {
    Arc::new(RootKey::generate(7, &mut OsRng))
}

impl World {
    /// A proxy before `servers`, tables of TOML.
    pub(crate) fn start(servers: &str, setup: &Setup<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut world = Self::start_in(folder.path(), servers, setup);
        world._folder = Some(folder);
        world
    }

    /// The same in a folder that has further files.
    pub(crate) fn start_in(dir: &Path, servers: &str, setup: &Setup<'_>) -> Self {
        let root = setup.root.clone().unwrap_or_else(root_key);
        let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
        key["kid"] = root.id().to_string().into();
        fs::write(dir.join("mint.json"), json!({ "keys": [key] }).to_string()).unwrap();
        fs::write(dir.join("faults.dl"), "allow if true;").unwrap();
        write_private(&dir.join("feed-secret"), "secret-of-the-feed");
        let at = format!("http://127.0.0.1:{}", free_port());
        let admin = format!("http://127.0.0.1:{}", free_port());
        let public = setup.public.map_or_else(|| at.clone(), str::to_owned);
        let Setup {
            top, edge, issuers, ..
        } = setup;
        let config = format!(
            r#"
listen = "{}"
admin_listen = "{}"
public_url = "{public}"
state = "state"
policies = ["faults.dl"]
outbound = {{ allow_loopback_http = true }}
telemetry = {{ format = "json", filter = "info" }}
{top}
[edge]
{edge}
[[issuers]]
issuer = "{MINT}"
jwks_file = "mint.json"
without_feed = true
{issuers}
{servers}"#,
            authority(&at),
            authority(&admin),
        );
        fs::write(dir.join("proxy.toml"), config).unwrap();
        let over_tls = public.starts_with("https:");
        let proxy = Self::run(dir, if over_tls { &admin } else { &at }, setup);
        Self {
            dir: dir.to_owned(),
            _folder: None,
            proxy,
            admin,
            public,
            at,
            root,
        }
    }

    fn run(dir: &Path, at: &str, setup: &Setup<'_>) -> Running {
        let program = taper_bin();
        let mut command = match setup.before {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.envs(setup.env.iter().copied()).current_dir(dir);
        Running::start_daemon(command.args(["proxy", "--config", "proxy.toml"]), at)
    }

    /// Where callers think that a server is.
    pub(crate) fn url(&self, server: &str) -> String {
        format!("{}/{server}/mcp", self.public)
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A holder of a new grant over all of a server, for `ttl` seconds.
    pub(crate) fn caller_for(&self, server: &str, ttl: i64) -> Caller {
        self.caller_at(server, now(), ttl)
    }

    /// The same, by an issuer whose clock says `at`.
    pub(crate) fn caller_at(&self, server: &str, at: i64, ttl: i64) -> Caller {
        self.caller_of(MINT, server, at, ttl)
    }

    /// The same, by another issuer with the same root key.
    pub(crate) fn caller_of(&self, issuer: &str, server: &str, at: i64, ttl: i64) -> Caller {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let grant = Grant {
            issuer: issuer.into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: key.public(),
            audiences: vec![self.url(server)],
            rights: vec![Right::AnyTool {
                server: server.into(),
            }],
            claims: vec![],
            issued_at: at - 10,
            expires_at: at + ttl,
            max_depth: 3,
            caveats: vec![],
        };
        let token = issue(&grant, &self.root, &mut OsRng).unwrap();
        Caller {
            at: self.at.clone(),
            url: self.url(server),
            token: token.as_str().to_owned(),
            jwk: key.to_jwk_string().to_string(),
        }
    }

    /// A holder of a new grant over all of a server.
    pub(crate) fn caller(&self, server: &str) -> Caller {
        self.caller_for(server, 3_000)
    }

    /// What `/readyz` says.
    pub(crate) fn ready(&self) -> String {
        get(&self.at, "/readyz").body
    }

    /// Whether its process has not ended.
    pub(crate) fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.proxy.id())).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// The size of its address space, in bytes.
    pub(crate) fn address_space(&self) -> usize {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.proxy.id())).unwrap();
        pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Ends it however it takes, and starts it anew on the same state, without a limit; the log of the first.
    pub(crate) fn restart(&mut self) -> String {
        self.proxy.kill();
        let next = Self::run(&self.dir, &self.at, &Setup::default());
        std::mem::replace(&mut self.proxy, next).crash()
    }

    /// Ends it; its folder, and its log.
    pub(crate) fn ends(self) -> (TempDir, String) {
        let folder = self._folder.expect("a folder of its own");
        let (success, log) = self.proxy.stop_for_log();
        assert!(success, "{log}");
        (folder, log)
    }

    /// What its process holds now.
    pub(crate) fn holds(&self) -> Held {
        Held::of(self.proxy.id())
    }

    /// All series of `/metrics`, with their labels, and their values.
    pub(crate) fn series(&self) -> BTreeMap<String, f64> {
        let text = get(&self.admin, "/metrics").body;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        series.collect()
    }

    /// A number of `/metrics`: the sum over the series of a family with all of `labels`.
    pub(crate) fn counted(&self, family: &str, labels: &[&str]) -> f64 {
        let series = self.series().into_iter().filter(|(series, _)| {
            let labelled = series
                .strip_prefix(family)
                .and_then(|rest| rest.strip_prefix('{'));
            labelled.is_some_and(|labelled| labels.iter().all(|label| labelled.contains(label)))
        });
        series.map(|(_, value)| value).sum()
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Open file descriptors.
    pub(crate) files: usize,
    pub(crate) threads: usize,
    /// Resident memory, in KiB.
    pub(crate) memory: usize,
}

impl Held {
    /// Of the process with this id.
    pub(crate) fn of(id: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self {
            files: fs::read_dir(format!("/proc/{id}/fd")).unwrap().count(),
            threads: number("Threads:"),
            memory: number("VmRSS:"),
        }
    }
}

/// Between two calls that go on while something else is in trouble.
const BETWEEN: Duration = Duration::from_millis(5);

/// Calls that go on while something else is in trouble.
pub(crate) struct Honest<'a> {
    pub(crate) caller: &'a Caller,
}

/// What honest callers saw.
#[derive(Debug, Default)]
pub(crate) struct Saw {
    /// How long each call took, sorted.
    pub(crate) took: Vec<Duration>,
    pub(crate) failed: Vec<String>,
    /// The 99th percentile of each part of a run.
    parts: Vec<Duration>,
}

impl Saw {
    /// The time within which `percent` of the calls were answered.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        percentile(&mut self.took.clone(), percent)
    }

    /// The 99th percentile of the middle one of its parts. What the machine does now and then for itself is in some parts
    /// only, and decides alone over the percentile of the whole where that is near to one call of a hundred.
    pub(crate) fn usual(&self) -> Duration {
        percentile(&mut self.parts.clone(), 50)
    }
}

impl Honest<'_> {
    /// Calls one after another, on one connection, until `over`.
    pub(crate) fn goes_on(&self, over: &AtomicBool) -> Saw {
        self.calls_while(BETWEEN, |_| !over.load(Ordering::Relaxed))
    }

    /// So many calls, with a pause after each.
    pub(crate) fn paced(&self, calls: usize, pause: Duration) -> Saw {
        self.calls_while(pause, |made| made < calls)
    }

    fn calls_while(&self, pause: Duration, goes_on: impl Fn(usize) -> bool) -> Saw {
        let mut saw = Saw::default();
        let mut wire = Wire::open(&self.caller.at);
        while goes_on(saw.took.len()) {
            let bytes = keep_open(&self.caller.call().bytes());
            let start = Instant::now();
            let got = wire.exchange(&bytes);
            saw.took.push(start.elapsed());
            if !(got.status == 200 && got.whole) {
                saw.failed.push(format!("{got:?}"));
                wire = Wire::open(&self.caller.at);
            }
            std::thread::sleep(pause);
        }
        saw.parts = saw
            .took
            .chunks(PART)
            .map(|part| percentile(&mut part.to_vec(), 99))
            .collect();
        saw.took.sort_unstable();
        saw
    }
}

/// Calls of a part: about a second.
const PART: usize = 150;

fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    let at = (took.len() * percent).div_ceil(100).saturating_sub(1);
    took.get(at).copied().unwrap_or_default()
}

/// The same request, on a connection that stays open.
pub(crate) fn keep_open(bytes: &[u8]) -> Vec<u8> {
    let close = b"connection: close\r\n";
    let at = bytes.windows(close.len()).position(|part| part == close).unwrap();
    [&bytes[..at], &bytes[at + close.len()..]].concat()
}
