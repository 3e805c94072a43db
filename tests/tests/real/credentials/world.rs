//! An authorization server of somebody else's, a proxy of which each server's client proves itself in another
//! way there, and an upstream that asks the authorization server about what it is shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand_core::OsRng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use taper_capability::{Grant, Party, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::{Call, now};
use taper_tests::daemon::{self, free_port, write_private};
use taper_tests::upstream::{Received, Reply, Upstream, json as json_answer};
use taper_tests::{Answer, Running, answers, get, taper_ok};
use tempfile::TempDir;

use crate::parts::real;

const MINT: &str = "https://mint.example";
/// The identity provider whose subjects the authorization server knows by the same names.
pub(crate) const IDP: &str = "https://idp.example";
/// Callers: their names here, and which subject of which identity provider they are.
pub(crate) const SUBJECTS: [(&str, &str, &str); 4] = [
    ("alice", "alice", IDP),
    ("bob", "bob", IDP),
    ("mallory", "mallory", IDP),
    ("stranger", "alice", "https://other-idp.example"),
];
/// The servers, each with how its client proves itself.
const SERVERS: [(&str, &str); 9] = [
    ("basic", BASIC),
    (
        "post",
        "client_auth = 'client_secret_post'\nclient_secret = { file = 'post-secret' }",
    ),
    (
        "key",
        "client_auth = 'private_key_jwt'\nclient_key = 'client.jwk'",
    ),
    (
        "pki",
        "client_auth = 'tls_client_auth'\nclient_certificate = { certificate = 'pki.pem', key = 'pki-key.pem' }",
    ),
    (
        "own",
        "client_auth = 'self_signed_tls_client_auth'\nclient_certificate = { certificate = 'own.pem', key = 'own-key.pem' }",
    ),
    ("behalf", BASIC),
    ("wrong", BASIC),
    ("short", BASIC),
    ("late", BASIC),
];
/// `client_secret_basic` is the usual way.
const BASIC: &str = "client_secret = { file = 'SERVER-secret' }";
/// The clients whose secrets the authorization server knows, and the resource server's own.
const WITH_SECRETS: [&str; 6] = ["basic", "post", "behalf", "short", "late", "upstream"];
const MESSAGE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":{}}}"#;
/// How often, and after what time each, is looked whether something holds.
const LOOKS: u32 = 1200;
const BETWEEN: Duration = Duration::from_millis(50);

/// What the resource server knows of tokens, by their text.
type Known = Arc<Mutex<HashMap<String, Value>>>;

pub(crate) struct World {
    folder: TempDir,
    provider: Option<Running>,
    provider_url: String,
    pub(crate) proxy: Running,
    proxy_url: String,
    admin_url: String,
    upstream: Upstream,
    refused: Arc<AtomicU64>,
    holders: BTreeMap<&'static str, (Token, String)>,
}

impl World {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path();
        let [proxy_url, admin_url, provider_url] =
            [(); 3].map(|()| format!("http://127.0.0.1:{}", free_port()));
        certificates(dir);
        for key in ["client.jwk", "assertion.jwk"] {
            taper_ok(dir, &["keygen", "--out", key]);
        }
        let root = RootKey::generate(7, &mut OsRng);
        let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
        key["kid"] = root.id().to_string().into();
        let write = |name: &str, value: Value| std::fs::write(dir.join(name), value.to_string()).unwrap();
        write("mint.json", json!({ "keys": [key] }));
        write("clients.json", clients(&proxy_url));
        write(
            "subjects.json",
            json!({
                "issuer": proxy_url,
                "jwks_uri": format!("{proxy_url}/.well-known/jwks.json"),
                "subject_issuer": IDP,
                "subjects": ["alice", "bob"],
            }),
        );
        for client in WITH_SECRETS.iter().chain(&["wrong"]) {
            let secret = if *client == "wrong" {
                "it was changed"
            } else {
                &secret_of(client)
            };
            write_private(&dir.join(format!("{client}-secret")), secret);
        }
        let script = include_str!("../../../real/authorization-server.mjs");
        std::fs::write(dir.join("authorization-server.mjs"), script).unwrap();
        std::os::unix::fs::symlink(real("node_modules"), dir.join("node_modules")).unwrap();
        std::fs::write(dir.join("boundary.dl"), "allow if true;\n").unwrap();
        let provider = provider(dir, &provider_url);
        let refused = Arc::new(AtomicU64::new(0));
        let upstream = upstream(&provider.text("/introspection_endpoint"), &refused);
        let config = config(&[&proxy_url, &admin_url, &provider_url], &upstream.url);
        let proxy = daemon::start(dir, "proxy", &config, &proxy_url);
        let holder = |(name, subject, issuer): (&'static str, &str, &str)| {
            let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
            let grant = grant(&proxy_url, &key, subject, issuer);
            let token = issue(&grant, &root, &mut OsRng).unwrap();
            (name, (token, key.to_jwk_string().to_string()))
        };
        Self {
            provider: Some(provider),
            provider_url,
            proxy,
            admin_url,
            upstream,
            refused,
            holders: SUBJECTS.map(holder).into(),
            proxy_url,
            folder,
        }
    }

    pub(crate) fn call(&self, server: &str, caller: &str) -> Answer {
        let (token, key) = &self.holders[caller];
        let url = format!("{}/{server}/mcp", self.proxy_url);
        Call::mcp(&url, token.as_str(), key, MESSAGE).send()
    }

    /// What the authorization server was asked for by a client, in order.
    pub(crate) fn asked_by(&self, client: &str) -> Vec<Value> {
        let all = self.all_at_provider();
        let lines = all
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["client"] == client).collect()
    }

    /// The tokens that a server was shown.
    pub(crate) fn tokens_at(&self, server: &str) -> BTreeSet<String> {
        let path = format!("/{server}/mcp");
        let received = self.upstream.received();
        let here = received.iter().filter(|request| request.path() == path);
        here.map(|request| bearer(request).expect("a token")).collect()
    }

    /// Requests of which the upstream did not take the token.
    pub(crate) fn refused_by_upstreams(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    pub(crate) fn all_at_upstreams(&self) -> String {
        let received = self.upstream.received();
        let text = |request: &Received| {
            let headers = request.headers().into_iter();
            let headers: String = headers
                .map(|(name, value)| format!("{name}: {value}\n"))
                .collect();
            format!("{headers}{}\n", String::from_utf8_lossy(&request.body))
        };
        received.iter().map(text).collect()
    }

    pub(crate) fn all_at_provider(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("asked.log")).unwrap()
    }

    /// What callers present: the longest run of characters of each part of a capability that stays as it is
    /// also where it is sealed.
    pub(crate) fn capabilities(&self) -> Vec<(&'static str, String)> {
        let text = |token: &Token| token.as_str().chars().take(200).collect();
        let holders = self.holders.iter();
        holders.map(|(name, (token, _))| (*name, text(token))).collect()
    }

    /// The secrets of the clients.
    pub(crate) fn secrets(&self) -> BTreeSet<String> {
        let own = WITH_SECRETS.iter().filter(|client| **client != "upstream");
        own.map(|client| secret_of(client)).collect()
    }

    /// The counter of requests for tokens.
    pub(crate) fn count(&self, server: &str, outcome: &str) -> u64 {
        let name =
            format!(r#"taper_proxy_upstream_token_requests_total{{server="{server}",outcome="{outcome}"}} "#);
        let metrics = get(&self.admin_url, "/metrics").body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    pub(crate) fn ready(&self) -> Answer {
        get(&self.admin_url, "/readyz")
    }

    pub(crate) fn provider_goes(&mut self) {
        self.provider.take().unwrap().stop();
        assert!(!answers(&self.provider_url));
    }

    pub(crate) fn provider_comes(&mut self) {
        self.provider = Some(provider(self.folder.path(), &self.provider_url));
    }

    /// Waits until something holds.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let came = (0..LOOKS).any(|_| {
            let came = holds();
            if !came {
                std::thread::sleep(BETWEEN);
            }
            came
        });
        assert!(came, "there is not {what}: {}", self.proxy.log());
    }
}

fn secret_of(client: &str) -> String {
    // What a form or a header has to escape is among it.
    format!("{client}: 100% s3cret+/=&?")
}

fn provider(dir: &Path, url: &str) -> Running {
    let port = url.rsplit(':').next().unwrap();
    Running::start(
        Command::new(real("bin/node"))
            .arg(dir.join("authorization-server.mjs"))
            .args(["--port", port, "--dir"])
            .arg(dir),
    )
}

/// The clients as the authorization server has registered them.
fn clients(proxy_url: &str) -> Value {
    let by = |client: &str| match client {
        "key" => json!({
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": format!("{proxy_url}/.well-known/jwks.json"),
        }),
        "pki" => json!({
            "token_endpoint_auth_method": "tls_client_auth",
            "tls_client_auth_san_dns": "proxy.test",
        }),
        "own" => json!({
            "token_endpoint_auth_method": "self_signed_tls_client_auth",
            "certificate": "own.pem",
        }),
        "post" => json!({
            "token_endpoint_auth_method": "client_secret_post",
            "client_secret": secret_of(client),
        }),
        "behalf" => json!({
            "token_endpoint_auth_method": "client_secret_basic",
            "client_secret": secret_of(client),
            "grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        }),
        _ => json!({
            "token_endpoint_auth_method": "client_secret_basic",
            "client_secret": secret_of(client),
        }),
    };
    let names = SERVERS.iter().map(|(server, _)| *server).chain(["upstream"]);
    let named = |client: &str| {
        let mut metadata = by(client);
        metadata["client_id"] = client.into();
        metadata["scope"] = "mcp:call".into();
        metadata
    };
    names.map(named).collect()
}

/// An authority, the server's and a client's certificate of it, and a client's that signs itself.
fn certificates(dir: &Path) {
    let write = |name: &str, pem: &str| write_private(&dir.join(name), pem);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // A name of its own: what is signed by its own name signs itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca.pem", &authority.pem());
    for (name, host) in [("tls", "127.0.0.1"), ("pki", "proxy.test")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        write(
            &format!("{name}.pem"),
            &params.signed_by(&key, &authority).unwrap().pem(),
        );
        write(&format!("{name}-key.pem"), &key.serialize_pem());
    }
    let own = rcgen::generate_simple_self_signed(["proxy.test".to_owned()]).unwrap();
    write("own.pem", &own.cert.pem());
    write("own-key.pem", &own.signing_key.serialize_pem());
}

/// One upstream for all servers. It takes tokens that the authorization server calls active, and that are for
/// the server at this path; it says what it was told of the token.
fn upstream(introspection: &str, refused: &Arc<AtomicU64>) -> Upstream {
    let (introspection, known) = (introspection.to_owned(), Known::default());
    let refused = Arc::clone(refused);
    Upstream::answering(move |request| {
        let server = request.path().trim_start_matches('/').split('/').next().unwrap();
        let told = bearer(request).map(|token| introspect(&introspection, &known, &token));
        let is_good = |told: &Value| {
            let audience = told["aud"].as_str().unwrap_or_default();
            let ours = format!("https://up.test/{server}");
            told["active"] == true
                && told["exp"].as_i64().unwrap() > now()
                && audience.split('?').next() == Some(&ours)
        };
        let Some(told) = told.filter(is_good) else {
            refused.fetch_add(1, Ordering::SeqCst);
            return Reply::Whole(b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec());
        };
        let text = json!({
            "client": told["client_id"],
            "subject": told["sub"],
            "audience": told["aud"],
            "scope": told["scope"],
        });
        let content = json!([{ "type": "text", "text": text.to_string() }]);
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": content } });
        Reply::Whole(json_answer(&answer.to_string(), ""))
    })
}

fn bearer(request: &Received) -> Option<String> {
    let headers = request.headers();
    let (_, value) = headers.iter().find(|(name, _)| name == "authorization")?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

/// RFC 7662; what is active is asked for once, as resource servers do.
fn introspect(endpoint: &str, known: &Known, token: &str) -> Value {
    if let Some(told) = known.lock().unwrap().get(token) {
        return told.clone();
    }
    let escape = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let own = STANDARD.encode(format!("upstream:{}", escape(&secret_of("upstream"))));
    let answer = Call::new("POST", endpoint)
        .header("authorization", format!("Basic {own}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", escape(token)))
        .send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let (from, to) = (answer.body.find('{').unwrap(), answer.body.rfind('}').unwrap());
    let told: Value = serde_json::from_str(&answer.body[from..=to]).unwrap();
    if told["active"] == true {
        known.lock().unwrap().insert(token.to_owned(), told.clone());
    }
    told
}

fn config(urls: &[&str; 3], upstream: &str) -> String {
    let [proxy, admin, provider] = urls;
    let [listen, admin] = [proxy, admin].map(|url| url.trim_start_matches("http://"));
    let upstream = upstream.trim_end_matches("/mcp");
    let mut config = format!(
        r#"
listen = "{listen}"
admin_listen = "{admin}"
public_url = "{proxy}"
state = "proxy-state"
policies = ["boundary.dl"]
outbound = {{ allow_loopback_http = true, ca_files = ["ca.pem"] }}

[[issuers]]
issuer = "{MINT}"
jwks_file = "mint.json"
without_feed = true
"#
    );
    for (server, proof) in SERVERS {
        let proof = proof.replace("SERVER", server);
        let lifetime = if server == "short" { "?lifetime=6" } else { "" };
        let grant = if server == "behalf" {
            format!("grant = 'token_exchange'\nsubject_issuer = '{IDP}'\nassertion_key = 'assertion.jwk'")
        } else {
            "grant = 'client_credentials'".to_owned()
        };
        config += &format!(
            r#"
[servers.{server}]
catalogue = {{ facts = "off" }}
[servers.{server}.upstream]
http = "{upstream}/{server}/mcp"
[servers.{server}.upstream.oauth]
issuer = "{provider}"
client_id = "{server}"
scope = "mcp:call"
resource = "https://up.test/{server}{lifetime}"
{grant}
{proof}
"#
        );
    }
    config
}

fn grant(proxy_url: &str, holder: &PrivateKey, subject: &str, issuer: &str) -> Grant {
    let any = |server: &str| Right::AnyTool {
        server: server.into(),
    };
    Grant {
        issuer: MINT.into(),
        id: Grant::new_id(&mut OsRng),
        subject: Party {
            iss: issuer.into(),
            sub: subject.into(),
        },
        client: "dev".into(),
        actor: None,
        holder: holder.public(),
        audiences: SERVERS
            .iter()
            .map(|(server, _)| format!("{proxy_url}/{server}/mcp"))
            .collect(),
        rights: SERVERS.iter().map(|(server, _)| any(server)).collect(),
        claims: vec![],
        issued_at: now() - 10,
        expires_at: now() + 3_000,
        max_depth: 3,
        caveats: vec![],
    }
}
