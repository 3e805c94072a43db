//! One proxy before an upstream that keeps what it gets, an issuer that the test holds the root key of,
//! and holders of its capabilities. A second issuer, that of `taper up`, brings the revocations.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand_core::OsRng;
use serde_json::{Value, json};
use taper_capability::{Caveat, Delegation, Grant, Party, ResourceMatch, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey, PublicKey};
use taper_tests::call::{Call, now};
use taper_tests::daemon::{free_port, write_private};
use taper_tests::upstream::Upstream;
use taper_tests::{Answer, Running, Up, authority, named_by_run, raw, taper_bin, taper_ok};

use crate::{guarded, script};

/// The issuer whose root key the test has.
pub(crate) const MINT: &str = "https://mint.example";
/// Another one, whose capabilities count for the server `other` only.
pub(crate) const NARROW_MINT: &str = "https://narrow.example";
/// The call that passes, but for the era's envelope.
pub(crate) const HONEST: &str = r#""name":"git_log","arguments":{"repo_path":"acme/web"}"#;
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// How long a line of the log may take. It is written before the answer is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two eras of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Within a session that was initialized.
    Legacy,
    /// Without a session, with all that it is about repeated in headers.
    Modern,
}

impl Era {
    pub(crate) const BOTH: [Self; 2] = [Self::Legacy, Self::Modern];

    pub(crate) fn revision(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// Who presents a capability.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) key: Key,
    pub(crate) token: Token,
    /// Its session at the server `git`.
    pub(crate) session: String,
}

impl Holder {
    pub(crate) fn jwk(&self) -> String {
        self.key.to_jwk_string().to_string()
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.key.public()
    }
}

/// What all proxies of the tests share: `taper up`, two root keys, and what was revoked.
pub(crate) struct Base {
    pub(crate) up: Up,
    pub(crate) root: RootKey,
    pub(crate) narrow_root: RootKey,
    pub(crate) stranger_root: RootKey,
    /// Chains of `taper up`'s issuer, by name, with the keys of their last holders.
    pub(crate) of_up: Vec<(&'static str, Token, Key)>,
}

/// A key that stands in several places.
pub(crate) type Key = Arc<PrivateKey>;

pub(crate) fn new_key() -> Key {
    Arc::new(PrivateKey::generate(Algorithm::EdDsa, &mut OsRng))
}

impl Base {
    pub(crate) fn start() -> Self {
        let up = Up::start();
        let root = RootKey::generate(7, &mut OsRng);
        let narrow_root = RootKey::generate(8, &mut OsRng);
        for (file, root) in [("mint.json", &root), ("narrow.json", &narrow_root)] {
            let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
            key["kid"] = root.id().to_string().into();
            let set = json!({ "keys": [key] });
            std::fs::write(up.dir().join(file), set.to_string()).unwrap();
        }
        guarded::prepare(up.dir());
        let mut base = Self {
            up,
            root,
            narrow_root,
            stranger_root: RootKey::generate(7, &mut OsRng),
            of_up: Vec::new(),
        };
        base.grow();
        base
    }

    /// Two grants, one of them revoked; below the other one a branch, a hand-over and a key that are.
    fn grow(&mut self) {
        let up = &self.up;
        for name in ["gone", "live"] {
            up.capability(name, "git:*");
            let text = std::fs::read_to_string(up.dir().join(format!("{name}.cap"))).unwrap();
            let jwk = std::fs::read_to_string(up.dir().join(format!("{name}.jwk"))).unwrap();
            let key = Arc::new(PrivateKey::from_jwk_str(&jwk).unwrap());
            self.of_up.push((name, Token::parse(text.trim()).unwrap(), key));
        }
        let (_, live, live_key) = self.of_up[1].clone();
        let admin = self.up.process.text("/admin");
        let admin_token = self.up.process.text("/admin_token_file");
        let issuer = self.up.issuer();
        let revoke = |words: &[&str]| {
            taper_ok(self.up.dir(), &[&["revoke"], words].concat());
        };
        let as_admin = ["--admin-url", &admin, "--admin-token-file", &admin_token];
        let gone = taper_capability::UnverifiedToken::decode(self.of_up[0].1.as_str()).unwrap();
        revoke(&[&as_admin[..], &["--grant", gone.grant_id()]].concat());
        let mut children = Vec::new();
        for name in ["branch", "hand-over", "key", "spared"] {
            let key = new_key();
            let child = Delegation::to(key.public())
                .until(now() + 900)
                .sign(&live, &live_key, &mut OsRng)
                .unwrap();
            let (cap, jwk) = (format!("{name}.cap"), format!("{name}.jwk"));
            write_private(&self.up.dir().join(&cap), child.as_str());
            write_private(&self.up.dir().join(&jwk), &key.to_jwk_string());
            let jkt = key.public().thumbprint().to_string();
            match name {
                "branch" => revoke(&[
                    "--issuer",
                    &issuer,
                    "--token",
                    &cap,
                    "--key",
                    "live.jwk",
                    "--last-hand-over",
                ]),
                "hand-over" => revoke(&[
                    "--issuer", &issuer, "--token", "live.cap", "--key", "live.jwk", "--to", &jkt,
                ]),
                "key" => revoke(&[&as_admin[..], &["--holder", &jkt]].concat()),
                _ => {}
            }
            children.push((name, child, key));
        }
        self.of_up.extend(children);
    }

    /// Where callers think that the server is.
    pub(crate) fn url(&self, server: &str) -> String {
        self.up.mcp().replace("/git/", &format!("/{server}/"))
    }

    /// The grant of the honest holder.
    pub(crate) fn grant(&self, holder: &PublicKey) -> Grant {
        let tool = |server: &str, tool: &str| Right::Tool {
            server: server.into(),
            tool: tool.into(),
        };
        let mut rights = vec![
            tool("git", "git_log"),
            tool("git", "git_show"),
            tool("git", "git_push"),
            tool("git", "git_clone"),
            tool("git", "git_move"),
            tool("git", "git_read"),
            tool("notes", "note_write"),
            Right::Resource {
                server: "git".into(),
                uri_prefix: "repo://acme/web/".into(),
            },
            Right::Prompt {
                server: "git".into(),
                name: "review".into(),
            },
        ];
        let mut audiences = vec![self.url("git"), self.url("notes")];
        for server in script::TROUBLED.iter().chain(&guarded::GUARDED) {
            rights.push(Right::AnyTool {
                server: (*server).into(),
            });
            audiences.push(self.url(server));
        }
        Grant {
            issuer: MINT.into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: holder.clone(),
            audiences,
            rights,
            claims: vec![],
            issued_at: now() - 10,
            expires_at: now() + 3_000,
            max_depth: 3,
            caveats: vec![],
        }
    }

    pub(crate) fn issue(&self, grant: &Grant) -> Token {
        issue(grant, &self.root, &mut OsRng).unwrap()
    }

    fn config(&self, name: &str, listen: &str, upstream: &str, authority: &str, setup: &Setup) -> String {
        let up = &self.up;
        let base = up.mcp().replace("/git/mcp", "");
        let issuer = up.issuer();
        let upstream = upstream.replace("/mcp", "");
        let troubled: String = script::TROUBLED
            .iter()
            .map(|id| {
                format!("[servers.{id}]\nupstream = {{ http = \"{upstream}/{id}\" }}\nread_only = [\"x\"]\n")
            })
            .collect();
        let guarded = guarded::config(&upstream, authority);
        let (top, limits, edge) = (setup.top, setup.limits, setup.edge);
        format!(
            r#"
listen = "{listen}"
public_url = "{base}"
state = "{name}-state"
policies = ["bypass.dl"]
outbound = {{ allow_loopback_http = true }}
telemetry = {{ format = "json", filter = "info,taper_proxy=debug,taper::request=debug" }}
{top}
[edge]
{edge}
[[issuers]]
issuer = "{issuer}"
jwks_uri = "{issuer}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "up/feed-secret" }} }}
[[issuers]]
issuer = "{MINT}"
jwks_file = "mint.json"
without_feed = true
[[issuers]]
issuer = "{NARROW_MINT}"
jwks_file = "narrow.json"
servers = ["other"]
without_feed = true

[servers.git]
upstream = {{ http = "{upstream}/git", headers = {{ authorization = {{ file = "own-credentials" }} }}, forward_headers = ["x-own"] }}
scopes = ["git:git_log", "git:git_show"]
read_only = ["git_log", "git_show"]
extra_methods = ["acme/echo"]
{limits}
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["max_count"] }}
tools.git_show = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["revision"] }}
tools.git_push = {{ resources = {{ repo = "{{owner}}/{{repo}}" }}, arguments = ["force"] }}
tools.git_clone = {{ resources = {{ url = "{{url}}" }} }}
tools.git_move = {{ resources = {{ file = ["{{source}}", "{{destination}}"] }} }}
tools.git_read = {{ resources = {{ file = "{{paths[]}}" }} }}
kinds.url.form = "url"
kinds.file.form = "absolute_path"

[servers.notes]
upstream = {{ http = "{upstream}/notes" }}
[servers.other]
upstream = {{ http = "{upstream}/other" }}
{troubled}{guarded}"#
        )
    }
}

/// How a proxy differs from the usual one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup {
    /// Further lines at the top.
    pub(crate) top: &'static str,
    /// The limits of the server `git`.
    pub(crate) limits: &'static str,
    /// The limits of the listener.
    pub(crate) edge: &'static str,
    /// The rule that is switched off; the sabotaged program runs then.
    pub(crate) without: Option<&'static str>,
}

/// One proxy, and who uses it.
pub(crate) struct World<'a> {
    pub(crate) base: &'a Base,
    pub(crate) proxy: Running,
    /// Where the proxy really listens.
    pub(crate) at: String,
    pub(crate) upstream: Upstream,
    /// The first holder of the grant.
    pub(crate) alice: Holder,
    /// To whom alice handed on, the log of what lies below `acme/` only.
    pub(crate) bob: Holder,
    /// The same once more.
    pub(crate) carol: Holder,
    /// The first holder of another grant of the same subject.
    pub(crate) dave: Holder,
    file: String,
    setup: Setup,
}

impl<'a> World<'a> {
    pub(crate) fn start(base: &'a Base, name: &str, setup: Setup) -> Self {
        let dir = base.up.dir();
        let upstream = Upstream::answering(script::answer);
        let at = format!("http://127.0.0.1:{}", free_port());
        let file = format!("bypass-{name}.toml");
        let of_tokens = Upstream::answering(guarded::authority);
        let tokens = of_tokens.url.trim_end_matches("/mcp");
        let config = base.config(name, authority(&at), &upstream.url, tokens, &setup);
        std::fs::write(dir.join(&file), config).unwrap();
        let policy = r#"allow if true; deny if tool("git_show"), resource("repo", "acme/payroll");
            deny if server("notes"), args($a), $a.contains("overwrite") && $a.get("overwrite") === true;"#;
        std::fs::write(dir.join("bypass.dl"), policy).unwrap();
        write_private(&dir.join("own-credentials"), script::OWN_CREDENTIALS);
        let proxy = run(dir, &file, &at, setup);
        let (alice, bob, carol, dave) = holders(base);
        let mut world = Self {
            base,
            proxy,
            at,
            upstream,
            alice,
            bob,
            carol,
            dave,
            file,
            setup,
        };
        for name in ["alice", "bob", "carol", "dave"] {
            let session = world.open(world.holder(name));
            world.holder_mut(name).session = session;
        }
        world.know_the_lists();
        world
    }

    /// Until the proxy knows the lists of the servers whose tools are pinned.
    fn know_the_lists(&self) {
        for server in guarded::LISTED {
            let call = || self.ask(&self.alice, Era::Modern, server, "tools/call", guarded::LOOK);
            let passes = (0..400).any(|_| {
                let passes = self.send(&self.with_nonce(call()).bytes()).status == 200;
                if !passes {
                    std::thread::sleep(Duration::from_millis(20));
                }
                passes
            });
            assert!(passes, "the list of {server} is not known: {}", self.proxy.log());
        }
    }

    /// Ends the proxy as a crash does, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.proxy.kill();
        self.proxy = run(self.base.up.dir(), &self.file, &self.at, self.setup);
    }

    fn holder(&self, name: &str) -> &Holder {
        match name {
            "alice" => &self.alice,
            "bob" => &self.bob,
            "carol" => &self.carol,
            _ => &self.dave,
        }
    }

    fn holder_mut(&mut self, name: &str) -> &mut Holder {
        match name {
            "alice" => &mut self.alice,
            "bob" => &mut self.bob,
            "carol" => &mut self.carol,
            _ => &mut self.dave,
        }
    }

    /// Opens a session at the server `git`.
    pub(crate) fn open(&self, holder: &Holder) -> String {
        let inner =
            r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}"#;
        let call = self
            .ask(holder, Era::Legacy, "git", "initialize", inner)
            .without("mcp-session-id");
        let answer = self.send(&self.with_nonce(call).bytes());
        let session = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "));
        session
            .unwrap_or_else(|| panic!("no session: {answer:?}"))
            .to_owned()
    }

    /// The same call, with a nonce in its proof where this proxy demands one.
    pub(crate) fn with_nonce(&self, call: Call) -> Call {
        if !self.setup.top.contains("demand") {
            return call;
        }
        let nonce = self.nonce();
        let claims = call.claims().nonce(Some(&nonce));
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    }

    /// A fresh nonce of this proxy.
    pub(crate) fn nonce(&self) -> String {
        let answer = self.send(&self.honest(Era::Legacy).bytes());
        let nonce = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("dpop-nonce: "));
        nonce.unwrap_or_else(|| panic!("no nonce: {answer:?}")).to_owned()
    }

    /// The call that passes.
    pub(crate) fn honest(&self, era: Era) -> Call {
        self.ask(&self.alice, era, "git", "tools/call", HONEST)
    }

    /// A message of a holder to a server. `inner` is what stands within `params`.
    pub(crate) fn ask(&self, holder: &Holder, era: Era, server: &str, method: &str, inner: &str) -> Call {
        let call = Call::mcp(&self.base.url(server), holder.token.as_str(), &holder.jwk(), "");
        let call = said(call, era, method, inner);
        match era {
            Era::Legacy if server == "git" => call.header("mcp-session-id", &holder.session),
            _ => call,
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        raw(&self.at, bytes)
    }

    /// Sends a request and waits until its line is in the log, so that it is not taken for another's.
    pub(crate) fn send_and_see(&self, call: &Call) {
        let from = self.proxy.logged();
        self.send(&call.bytes());
        let line = self.proxy.find_in_log(from, PATIENCE, |log| {
            log.contains("\"target\":\"taper::request\"").then_some(())
        });
        assert!(line.is_some(), "{}", self.proxy.log());
    }

    /// The rule that the proxy logged since `from`, once it has logged one.
    pub(crate) fn rule_since(&self, from: usize) -> Option<String> {
        self.proxy.find_in_log(from, PATIENCE, |log| {
            log.lines().find_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                let rule = event["rule"].as_str()?;
                (event["target"] == "taper::request").then(|| rule.to_owned())
            })
        })
    }
}

fn run(dir: &Path, file: &str, at: &str, setup: Setup) -> Running {
    let mut command = match setup.without {
        Some(rule) => {
            let mut command = Command::new(named_by_run("TAPER_SABOTAGED_BIN"));
            command.env("TAPER_SABOTAGE", rule);
            command
        }
        None => Command::new(taper_bin()),
    };
    Running::start_daemon(command.current_dir(dir).args(["proxy", "--config", file]), at)
}

/// The same request with another message, and the headers of its era.
pub(crate) fn said(call: Call, era: Era, method: &str, inner: &str) -> Call {
    let meta = format!(r#""_meta":{{"{VERSION}":"{}"}}"#, era.revision());
    let inner = match era {
        Era::Legacy => inner.to_owned(),
        Era::Modern if inner.is_empty() => meta,
        Era::Modern => format!("{inner},{meta}"),
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{inner}}}}}"#);
    let call = call.body(&body).instead("mcp-protocol-version", era.revision());
    if era == Era::Legacy {
        return call;
    }
    let call = call.instead("mcp-method", method).without("mcp-name");
    match name_of(method, &body) {
        Some(name) => call.header("mcp-name", name),
        None => call,
    }
}

/// What a modern message repeats as `Mcp-Name`, in the form that a header can hold.
fn name_of(method: &str, body: &str) -> Option<String> {
    use base64::Engine as _;
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => "taskId",
        _ => return None,
    };
    // The rest of the message may be what no reader takes.
    let (_, rest) = body.split_once(&format!("\"{member}\":"))?;
    let name: String = serde_json::Deserializer::from_str(rest)
        .into_iter()
        .next()?
        .ok()?;
    let plain = name.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    Some(if plain {
        name
    } else {
        let encoded = base64::engine::general_purpose::STANDARD.encode(name);
        format!("=?base64?{encoded}?=")
    })
}

fn holders(base: &Base) -> (Holder, Holder, Holder, Holder) {
    let first = || {
        let key = new_key();
        let token = base.issue(&base.grant(&key.public()));
        Holder {
            key,
            token,
            session: String::new(),
        }
    };
    let alice = first();
    let child = || {
        let key = new_key();
        let token = Delegation::to(key.public())
            .until(now() + 900)
            .only(Caveat::Tool {
                server: "git".into(),
                tools: vec!["git_log".into()],
            })
            .only(Caveat::Resource {
                kind: "repo".into(),
                matches: ResourceMatch::Prefix("acme/".into()),
            })
            .sign(&alice.token, &alice.key, &mut OsRng)
            .unwrap();
        Holder {
            key,
            token,
            session: String::new(),
        }
    };
    let (bob, carol) = (child(), child());
    (alice, bob, carol, first())
}
