//! A proxy with a root key of this bench's own, and requests that it permits.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rand_core::OsRng;
use taper_capability::{Caveat, Delegation, Grant, Party, ResourceMatch, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey, ProofClaims};

use crate::process::Process;

const ISSUER: &str = "https://issuer.example";
/// How long everything lasts, in seconds.
const TTL: i64 = 3600;
/// A grant has a quota of live proofs, so the requests are spread over several.
pub(crate) const GRANTS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);
/// What is called: its proofs carry the body's digest all the same, as our own clients send it.
pub(crate) const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// When the decision about a call is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    /// Before the call is forwarded.
    Before,
    /// Soon after.
    Async,
}

impl Recording {
    /// The server of the proxy that is configured so.
    const fn server(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Async => "async",
        }
    }
}

/// Whether a proxy remembers what verified before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It does: all but the first calls of a capability skip the signatures of its chain.
    On,
    /// Every call verifies everything.
    Off,
}

/// What is written about each request beside the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Nothing.
    Quiet,
    /// One line, to a file, as a service does by default.
    Lines,
}

/// How a proxy is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) memory: Memory,
    pub(crate) log: Log,
}

impl Setup {
    /// Nothing but errors is logged, chains are remembered.
    pub(crate) const KNOWN: Self = Self {
        memory: Memory::On,
        log: Log::Quiet,
    };
    /// The same without a memory of chains.
    pub(crate) const NEW: Self = Self {
        memory: Memory::Off,
        log: Log::Quiet,
    };
    /// Chains are remembered, and each request has its line.
    pub(crate) const LOGGED: Self = Self {
        memory: Memory::On,
        log: Log::Lines,
    };
}

/// A running proxy and the key that it trusts.
pub(crate) struct World {
    root: RootKey,
    pub(crate) proxy: Process,
}

/// A capability and its holder's key.
struct Holder {
    token: Token,
    key: PrivateKey,
}

fn now() -> anyhow::Result<i64> {
    Ok(i64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    )?)
}

impl World {
    /// Starts `program` as a proxy in `dir`, which is made, before `upstream`, at a port that was free a moment ago, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub(crate) fn start(program: &Path, dir: &Path, upstream: &str, setup: Setup) -> anyhow::Result<Self> {
        std::fs::create_dir(dir)?;
        let root = RootKey::generate(1, &mut OsRng);
        let mut jwk = serde_json::to_value(root.public().to_jwk())?;
        jwk.as_object_mut()
            .context("a key is an object")?
            .insert("kid".to_owned(), "1".into());
        std::fs::write(
            dir.join("roots.json"),
            serde_json::json!({ "keys": [jwk] }).to_string(),
        )?;
        std::fs::write(dir.join("allow.dl"), "allow if true;\n")?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let server = |recording: Recording| {
            let id = recording.server();
            format!(
                r#"
[servers.{id}]
upstream = {{ http = "{upstream}" }}
audit = "{id}"
read_only = ["git_log"]
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }} }}
"#
            )
        };
        let config = format!(
            r#"
listen = "{address}"
public_url = "http://{address}"
state = "state"
policies = ["allow.dl"]
telemetry = {{ filter = "{}" }}
verified_chains_mib = {}
issuers = [{{ issuer = "{ISSUER}", jwks_file = "roots.json", without_feed = true }}]
{}{}"#,
            if setup.log == Log::Lines { "info" } else { "warn" },
            if setup.memory == Memory::On { 64 } else { 0 },
            server(Recording::Before),
            server(Recording::Async)
        );
        std::fs::write(dir.join("proxy.toml"), config)?;
        let child = Command::new(program)
            .current_dir(dir)
            .args(["proxy", "--config", "proxy.toml"])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log"))?)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let proxy = Process::new(child, format!("http://{address}"));
        let begun = Instant::now();
        while !is_ready(proxy.address()) {
            if begun.elapsed() > PATIENCE {
                bail!("the proxy is not ready");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { root, proxy })
    }

    /// So many calls by capabilities with so many hand-overs of two caveats each, as bytes. The first
    /// [`GRANTS`] of them show each capability once.
    ///
    /// # Errors
    /// When something cannot be signed.
    pub(crate) fn calls(
        &self,
        recording: Recording,
        hand_overs: usize,
        count: usize,
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let url = format!("{}/{}/mcp", self.proxy.url, recording.server());
        let now = now()?;
        let holders: Vec<Holder> = (0..GRANTS)
            .map(|_| self.sealed(recording.server(), &url, hand_overs, now))
            .collect::<anyhow::Result<_>>()?;
        let one = |holder: &Holder| signed(self.proxy.address(), &url, holder, now);
        holders.iter().cycle().take(count).map(one).collect()
    }

    /// So many requests for a stream, by capabilities that were never handed over, as bytes.
    ///
    /// # Errors
    /// When something cannot be signed.
    pub(crate) fn streams(&self, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let (server, now) = (Recording::Async.server(), now()?);
        let url = format!("{}/{server}/mcp", self.proxy.url);
        let holders: Vec<Holder> = (0..GRANTS)
            .map(|_| self.sealed(server, &url, 0, now))
            .collect::<anyhow::Result<_>>()?;
        let one = |holder: &Holder| {
            let claims = ProofClaims::new("GET", &url, now, &mut OsRng);
            let token = holder.token.as_str();
            let proof = claims.token(token).sign(&holder.key)?;
            let credentials = format!("authorization: DPoP {token}\r\ndpop: {proof}\r\n");
            let address = self.proxy.address();
            let path = url.split_once(address).map_or("", |(_, path)| path);
            Ok(open_stream(address, path, &credentials))
        };
        holders.iter().cycle().take(count).map(one).collect()
    }

    /// Somebody of each grant who signs a call when it is made.
    ///
    /// # Errors
    /// When something cannot be signed.
    pub(crate) fn callers(&self, recording: Recording, hand_overs: usize) -> anyhow::Result<Vec<Caller>> {
        (0..GRANTS).map(|_| self.caller(recording, hand_overs)).collect()
    }

    /// Somebody who signs a call when it is made.
    ///
    /// # Errors
    /// When something cannot be signed.
    pub(crate) fn caller(&self, recording: Recording, hand_overs: usize) -> anyhow::Result<Caller> {
        let url = format!("{}/{}/mcp", self.proxy.url, recording.server());
        let mut holder = self.holder(recording.server(), &url, hand_overs, now()?)?;
        let unsealed = holder.token.clone();
        holder.token = holder.token.sealed()?;
        Ok(Caller {
            address: self.proxy.address().to_owned(),
            url,
            holder,
            unsealed,
        })
    }

    fn holder(&self, server: &str, url: &str, hand_overs: usize, now: i64) -> anyhow::Result<Holder> {
        let mut key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let grant = Grant {
            issuer: ISSUER.into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "bench".into(),
            actor: None,
            holder: key.public(),
            audiences: vec![url.into()],
            rights: vec![Right::AnyTool {
                server: server.into(),
            }],
            claims: vec![],
            issued_at: now,
            expires_at: now + TTL,
            max_depth: 8,
            caveats: vec![],
        };
        let mut token = issue(&grant, &self.root, &mut OsRng)?;
        for _ in 0..hand_overs {
            let next = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
            let tools = Caveat::Tool {
                server: server.into(),
                tools: vec!["git_log".into()],
            };
            let repo = Caveat::Resource {
                kind: "repo".into(),
                matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
            };
            let hand_over = Delegation::to(next.public())
                .until(now + TTL)
                .only(tools)
                .only(repo);
            token = hand_over.sign(&token, &key, &mut OsRng)?;
            key = next;
        }
        Ok(Holder { token, key })
    }

    fn sealed(&self, server: &str, url: &str, hand_overs: usize, now: i64) -> anyhow::Result<Holder> {
        let holder = self.holder(server, url, hand_overs, now)?;
        Ok(Holder {
            token: holder.token.sealed()?,
            key: holder.key,
        })
    }
}

/// A client that holds a capability.
pub(crate) struct Caller {
    address: String,
    url: String,
    holder: Holder,
    unsealed: Token,
}

impl Caller {
    /// A call with a proof of its own, as bytes.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub(crate) fn call(&self) -> anyhow::Result<Vec<u8>> {
        signed(&self.address, &self.url, &self.holder, now()?)
    }

    /// The server's URL at the proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The capability as it was obtained.
    pub(crate) fn token(&self) -> &str {
        self.unsealed.as_str()
    }

    /// The private key.
    pub(crate) fn key(&self) -> String {
        self.holder.key.to_jwk_string().to_string()
    }
}

fn signed(address: &str, url: &str, holder: &Holder, now: i64) -> anyhow::Result<Vec<u8>> {
    let claims = ProofClaims::new("POST", url, now, &mut OsRng).body(CALL.as_bytes());
    let token = holder.token.as_str();
    let proof = claims.token(token).sign(&holder.key)?;
    let path = url.split_once(address).map_or("", |(_, path)| path);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nauthorization: DPoP {token}\r\n\
         dpop: {proof}\r\ncontent-length: {}\r\n\r\n{CALL}",
        CALL.len()
    );
    Ok(head.into_bytes())
}

/// The same call without credentials, for a server that asks for none.
pub(crate) fn bare_calls(address: &str, count: usize) -> Vec<Vec<u8>> {
    vec![bare_call(address, "/mcp"); count]
}

/// One of them, to this path.
pub(crate) fn bare_call(address: &str, path: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{CALL}",
        CALL.len()
    );
    head.into_bytes()
}

/// A request for a stream, with these header lines.
pub(crate) fn open_stream(address: &str, path: &str, credentials: &str) -> Vec<u8> {
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n{credentials}\r\n");
    head.into_bytes()
}

fn is_ready(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let asked = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
