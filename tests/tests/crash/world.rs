//! An issuer and a proxy as daemons of their own. `taper up` beside them is their identity provider.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand_core::{OsRng, RngCore as _};
use serde_json::Value;
use taper_capability::{Delegation, Token, UnverifiedToken};
use taper_dpop::{Algorithm, PrivateKey, base64url_encode};
use taper_store::RevocationKey;
use taper_tests::call::{Call, now};
use taper_tests::daemon::free_port;
use taper_tests::upstream::Upstream;
use taper_tests::{Answer, Running, Up, authority, get, named_by_run, taper_bin, taper_ok, try_raw};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// One of the two daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Issuer,
    Proxy,
}

/// Clients of which each has at most one capability.
const CLIENTS: u32 = 200;
/// How long a delegate may use what it has.
const DELEGATED_SECONDS: i64 = 3600;

/// A capability, its grant and its holder.
#[derive(Clone)]
pub(crate) struct Capability {
    pub(crate) grant: String,
    token: String,
    key: String,
}

impl std::fmt::Debug for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "capability of grant {}", self.grant)
    }
}

/// What revoking names: a word of its own for each revocation.
pub(crate) fn name(what: &RevocationKey) -> String {
    format!("{what:?}")
}

/// Where everything is. The daemons themselves are the test's.
pub(crate) struct World {
    up: Up,
    bin: PathBuf,
    sabotage: Option<&'static str>,
    states: PathBuf,
    pub(crate) upstream: Upstream,
    issuer_url: String,
    admin_url: String,
    proxy_url: String,
    key: String,
    access_token: String,
    feed_secret: String,
    admin_token: String,
}

impl World {
    /// Writes the files; the state folders of both lie in `states`.
    pub(crate) fn new(states: &Path) -> Self {
        let up = Up::start();
        up.keygen("alice");
        let access_token = access_token_of(&up, "alice");
        let url = || format!("http://127.0.0.1:{}", free_port());
        let read = |name: &str| {
            std::fs::read_to_string(up.dir().join(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        let world = Self {
            bin: taper_bin(),
            sabotage: None,
            states: states.to_owned(),
            upstream: Upstream::start(),
            issuer_url: url(),
            admin_url: url(),
            proxy_url: url(),
            key: read("alice.jwk"),
            access_token,
            feed_secret: read("up/feed-secret"),
            admin_token: read("up/admin-token"),
            up,
        };
        world.write_files();
        world
    }

    /// The same, with daemons that get something wrong on purpose.
    pub(crate) fn sabotaged(states: &Path, lie: &'static str) -> Self {
        Self {
            bin: named_by_run("TAPER_SABOTAGED_BIN"),
            sabotage: Some(lie),
            ..Self::new(states)
        }
    }

    fn write_files(&self) {
        let urls: Value =
            serde_json::from_str(&std::fs::read_to_string(self.dir().join("up/up.json")).unwrap()).unwrap();
        let provider = urls["idp"].as_str().unwrap();
        let (listen, admin) = (authority(&self.issuer_url), authority(&self.admin_url));
        let state = self.state(Daemon::Issuer).display().to_string();
        let (issuer, first, resource) = (&self.issuer_url, self.up.issuer(), self.mcp());
        let clients: String = (0..CLIENTS)
            .map(|n| format!("{{ id = \"client-{n}\" }}, "))
            .collect();
        let config = format!(
            r#"
issuer = "{issuer}"
listen = "{listen}"
admin_listen = "{admin}"
state = "{state}"
policies = ["up/issuer/grant.dl"]
admin_token = {{ file = "up/admin-token" }}
development = true
root_keys = [{{ id = 1, file = "up/issuer/root-1.jwk" }}]
trusted_issuers = [{{ issuer = "{provider}", audiences = ["{first}"], insecure_loopback = true }}]
clients = [{clients}{{ id = "dev" }}, {{ id = "proxy", secret = {{ file = "up/feed-secret" }}, feed = true }}]
servers = [{{ id = "git", resource = "{resource}" }}]
"#
        );
        std::fs::write(self.dir().join("issuer.toml"), config).unwrap();
        let (listen, url) = (authority(&self.proxy_url), &self.proxy_url);
        let state = self.state(Daemon::Proxy).display().to_string();
        let upstream = &self.upstream.url;
        let config = format!(
            r#"
listen = "{listen}"
public_url = "{url}"
state = "{state}"
policies = ["up/proxy/boundary.dl"]
outbound = {{ allow_loopback_http = true }}

[[issuers]]
issuer = "{issuer}"
jwks_uri = "{issuer}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "up/feed-secret" }} }}

[servers.git]
upstream = {{ http = "{upstream}" }}
read_only = ["git_log"]
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }} }}
"#
        );
        std::fs::write(self.dir().join("proxy.toml"), config).unwrap();
    }

    /// Starts one of the two, and waits until it is ready.
    pub(crate) fn start(&self, which: Daemon) -> Running {
        let name = match which {
            Daemon::Issuer => "issuer",
            Daemon::Proxy => "proxy",
        };
        let mut command = Command::new(&self.bin);
        command
            .env_remove("TAPER_SABOTAGE")
            .envs(self.sabotage.map(|lie| ("TAPER_SABOTAGE", lie)));
        command
            .current_dir(self.dir())
            .args([name, "--config", &format!("{name}.toml")]);
        Running::start_daemon(&mut command, self.url(which))
    }

    /// The state folder of one of the two.
    pub(crate) fn state(&self, which: Daemon) -> PathBuf {
        self.states.join(match which {
            Daemon::Issuer => "issuer",
            Daemon::Proxy => "proxy",
        })
    }

    /// Checks a journal without its daemon.
    #[track_caller]
    pub(crate) fn verify(&self, which: Daemon) {
        let state = self.state(which).display().to_string();
        let verified = taper_ok(self.dir(), &["audit", "verify", "--dir", &state]);
        assert!(verified.starts_with("intact "), "{which:?}: {verified}");
    }

    pub(crate) fn dir(&self) -> &Path {
        self.up.dir()
    }

    /// Whether one of the two says that it is ready.
    pub(crate) fn is_ready(&self, which: Daemon) -> bool {
        get(self.url(which), "/readyz").status == 200
    }

    pub(crate) fn url(&self, which: Daemon) -> &str {
        match which {
            Daemon::Issuer => &self.issuer_url,
            Daemon::Proxy => &self.proxy_url,
        }
    }

    pub(crate) fn mcp(&self) -> String {
        format!("{}/git/mcp", self.proxy_url)
    }

    /// A new capability of a new grant.
    #[track_caller]
    pub(crate) fn capability(&self) -> Capability {
        match self.try_capability() {
            Ok(capability) => capability,
            Err(answer) => panic!("{answer:?}"),
        }
    }

    /// The same, or what the issuer answered instead.
    pub(crate) fn try_capability(&self) -> Result<Capability, Answer> {
        self.exchange("dev", &self.access_token)
    }

    fn exchange(&self, client: &str, access_token: &str) -> Result<Capability, Answer> {
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&client_id={client}&scope=git:*\
             &subject_token_type=urn:ietf:params:oauth:token-type:access_token&subject_token={access_token}"
        );
        let url = format!("{}/token", self.issuer_url);
        let answer = sent(&Call::form(&url, &form, &self.key)).unwrap();
        if answer.status != 200 {
            return Err(answer);
        }
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let token = body["access_token"].as_str().unwrap().to_owned();
        Ok(Capability {
            grant: UnverifiedToken::decode(&token).unwrap().grant_id().to_owned(),
            token,
            key: self.key.clone(),
        })
    }

    /// A new capability of a subject that nobody else is, and what names the subject.
    pub(crate) fn of_subject(&self) -> (Capability, RevocationKey) {
        let subject = format!("subject-{:016x}", OsRng.next_u64());
        let capability = self
            .exchange("dev", &access_token_of(&self.up, &subject))
            .unwrap();
        let iss = decoded(&capability).subject().iss.clone();
        (capability, RevocationKey::Subject { iss, sub: subject })
    }

    /// A new capability of the `n`th client, which has no other, and what names the client.
    pub(crate) fn of_client(&self, n: u32) -> (Capability, RevocationKey) {
        assert!(n < CLIENTS);
        let client = format!("client-{n}");
        let capability = self.exchange(&client, &self.access_token).unwrap();
        (capability, RevocationKey::Client(client))
    }

    /// Hands a capability on to a new key.
    pub(crate) fn delegate(&self, parent: &Capability) -> Capability {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let holder = PrivateKey::from_jwk_str(&parent.key).unwrap();
        let child = Delegation::to(key.public())
            .until(now() + DELEGATED_SECONDS)
            .sign(&Token::parse(&parent.token).unwrap(), &holder, &mut OsRng)
            .unwrap();
        Capability {
            grant: parent.grant.clone(),
            token: child.sealed().unwrap().as_str().to_owned(),
            key: key.to_jwk_string().to_string(),
        }
    }

    /// A call of a tool; `None` if nobody listens.
    pub(crate) fn call(&self, capability: &Capability) -> Option<Answer> {
        sent(&self.call_of(capability))
    }

    /// The same, not sent yet.
    pub(crate) fn call_of(&self, capability: &Capability) -> Call {
        Call::mcp(&self.mcp(), &capability.token, &capability.key, CALL)
    }

    /// Revokes as an admin; the number, if it was acknowledged.
    pub(crate) fn revoke_as_admin(&self, capability: &Capability) -> Option<u64> {
        self.revoke(&grant(capability))
    }

    /// Revokes a key that nobody has; the number, if it was acknowledged.
    pub(crate) fn revoke_somebody(&self) -> Option<u64> {
        let mut thumbprint = [0; 32];
        OsRng.fill_bytes(&mut thumbprint);
        self.revoke(&RevocationKey::Holder(base64url_encode(&thumbprint)))
    }

    /// Revokes it as an admin; the number, if it was acknowledged.
    pub(crate) fn revoke(&self, what: &RevocationKey) -> Option<u64> {
        let url = format!("{}/admin/v1/revocations", self.admin_url);
        let call = Call::new("POST", &url)
            .header("authorization", format!("Bearer {}", self.admin_token))
            .header("content-type", "application/json")
            .body(serde_json::to_string(what).unwrap());
        let answer = sent(&call).filter(|answer| answer.status == 200)?;
        let body: Value = serde_json::from_str(&answer.body).ok()?;
        Some(body["seq"].as_u64().unwrap())
    }

    /// Revokes as the client does that holds it; whether it was acknowledged.
    pub(crate) fn revoke_as_client(&self, capability: &Capability) -> bool {
        let token = &capability.token;
        let url = format!("{}/revoke", self.issuer_url);
        let call = Call {
            token: Some(token.clone()),
            ..Call::form(&url, &format!("client_id=dev&token={token}"), &capability.key)
        };
        sent(&call).is_some_and(|answer| answer.status == 200)
    }

    /// How many tool calls the proxy's journal says were allowed, by grant.
    pub(crate) fn allowed(&self) -> BTreeMap<String, u64> {
        let state = self.state(Daemon::Proxy).display().to_string();
        let export = taper_ok(self.dir(), &["audit", "export", "--dir", &state]);
        let mut allowed = BTreeMap::new();
        for line in export.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let payload = &record["payload"];
            let decision = payload.get("decision").unwrap_or(payload);
            if decision["method"] == "tools/call" && decision["outcome"] == "allow" {
                let grant = decision["grant_id"].as_str().unwrap().to_owned();
                *allowed.entry(grant).or_default() += 1;
            }
        }
        allowed
    }

    /// The whole feed: what is revoked, see [`name`], by its number.
    #[track_caller]
    pub(crate) fn feed(&self) -> BTreeMap<u64, String> {
        let mut basic = base64url_encode(format!("proxy:{}", self.feed_secret).as_bytes())
            .replace('-', "+")
            .replace('_', "/");
        basic.extend(std::iter::repeat_n('=', (4 - basic.len() % 4) % 4));
        let (mut entries, mut after) = (BTreeMap::new(), 0);
        loop {
            let url = format!("{}/revocations?after={after}&wait=0", self.issuer_url);
            let answer = Call::new("GET", &url)
                .header("authorization", format!("Basic {basic}"))
                .send();
            assert_eq!(answer.status, 200, "{answer:?}");
            let page: Value = serde_json::from_str(&answer.body).unwrap();
            for entry in page["entries"].as_array().unwrap() {
                let seq = entry["seq"].as_u64().unwrap();
                assert!(seq > after, "numbers go up: {page:#}");
                after = seq;
                let what: RevocationKey = serde_json::from_value(entry["what"].clone()).unwrap();
                entries.insert(seq, name(&what));
            }
            if after >= page["head"].as_u64().unwrap() {
                return entries;
            }
        }
    }
}

/// An access token of a subject of the development identity provider.
fn access_token_of(up: &Up, subject: &str) -> String {
    let words = ["dev-token", "--dir", "up", "--subject", subject, "--group", "eng"];
    taper_ok(up.dir(), &words).trim().to_owned()
}

fn decoded(capability: &Capability) -> UnverifiedToken {
    UnverifiedToken::decode(&capability.token).unwrap()
}

/// What names the grant of a capability.
pub(crate) fn grant(capability: &Capability) -> RevocationKey {
    RevocationKey::Grant(capability.grant.clone())
}

/// What names the last hand-over of a chain.
pub(crate) fn branch(capability: &Capability) -> RevocationKey {
    let branch = decoded(capability).branch_ids().pop().unwrap();
    RevocationKey::Branch(branch.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What names the holder of a capability.
pub(crate) fn holder(capability: &Capability) -> RevocationKey {
    RevocationKey::Holder(thumbprint(capability))
}

/// What names every hand-over of one grant from the holder of one capability to that of the other.
pub(crate) fn delegation(from: &Capability, to: &Capability) -> RevocationKey {
    RevocationKey::Delegation {
        grant: from.grant.clone(),
        from: thumbprint(from),
        to: thumbprint(to),
    }
}

fn thumbprint(capability: &Capability) -> String {
    let key = PrivateKey::from_jwk_str(&capability.key).unwrap();
    key.public().thumbprint().to_string()
}

/// Sends it, a second time with a nonce if one is asked for.
fn sent(call: &Call) -> Option<Answer> {
    let answer = try_raw(&call.url, &call.bytes())?;
    let nonce = answer
        .head
        .lines()
        .find_map(|line| line.strip_prefix("dpop-nonce: "));
    match nonce {
        Some(nonce) if answer.head.contains("use_dpop_nonce") || answer.body.contains("use_dpop_nonce") => {
            let mut claims = call.claims();
            claims.nonce = Some(nonce.trim().to_owned());
            let again = call.clone().proven_by(call.key.as_ref().unwrap(), &claims);
            try_raw(&call.url, &again.bytes())
        }
        _ => Some(answer),
    }
}

/// Whether a call was refused because its grant is revoked.
pub(crate) fn is_revoked(answer: &Answer) -> bool {
    answer.status == 401 && answer.head.contains("M-12")
}
