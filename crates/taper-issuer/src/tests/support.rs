//! An issuer with its provider, and requests that are honest until a test changes them.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use taper_capability::{Roots, UnverifiedToken, VerifiedChain, Verifier};
use taper_dpop::{Algorithm, PrivateKey, ProofClaims, PublicKey, TokenHash};
use taper_oauth::exchange::{
    GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_CAPABILITY, TOKEN_TYPE_ID_TOKEN,
};
use taper_oauth::{Secret, client_auth};
use taper_service::clock::{Clock, ManualClock, SharedClock};
use taper_service::config::parse;
use taper_service::rng;
use taper_service::secret::write_private_file;
use taper_store::{EmbeddedStore, StoreError};
use tower::ServiceExt as _;
use url::form_urlencoded::Serializer;

use super::provider::Provider;
use crate::error::OpenError;
use crate::{Config, Issuer, generate_root_key};

pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const GIT: &str = "https://mcp.example/git/mcp";
pub(super) const ADMIN: &str = "the-admin-token";
pub(super) const SECRET: &str = "s3cret";
pub(super) const NEXT_SECRET: &str = "another-s3cret";

const POLICY: &str = r#"
grant_any_tool($s) <- claim("groups", "eng"), requested_any_tool($s);
grant_right($s, $t) <- claim("groups", "eng"), requested($s, $t);
grant_uri("git", "repo://acme/") <- claim("groups", "eng");
grant_prompt("git", "review") <- claim("groups", "eng");
grant_ttl(3600) <- client($c);
renew_for(86400) <- client("agent");
grant_depth(3) <- client($c);
deny("mallory gets nothing") <- subject($iss, "mallory");
"#;

/// The clock that an issuer has: somebody sets it, and once it can go on by itself.
#[derive(Debug)]
pub(super) struct RigClock {
    set: Arc<ManualClock>,
    seconds: AtomicI64,
}

impl RigClock {
    /// Who looks next sees the time as it is; who looks later sees it so many seconds later.
    pub(super) fn goes_on(&self, seconds: i64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for RigClock {
    fn unix_millis(&self) -> i64 {
        let now = self.set.unix_millis();
        self.set.advance(self.seconds.swap(0, Ordering::SeqCst));
        now
    }

    fn steady(&self) -> Duration {
        self.set.steady()
    }
}

pub(super) struct Rig {
    pub(super) provider: Provider,
    pub(super) clock: Arc<ManualClock>,
    pub(super) seen_clock: Arc<RigClock>,
    folder: tempfile::TempDir,
    pub(super) public: Router,
    pub(super) admin: Router,
    pub(super) holder: PrivateKey,
    pub(super) root: PublicKey,
    /// The routers have it.
    pub(super) store: Weak<EmbeddedStore>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
    pub(super) text: String,
}

/// The text of a configuration that opens, for tests to replace a part of.
pub(super) fn config_text(provider: &str) -> String {
    format!(
        r#"
issuer = "{ISSUER}"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
state = "state"
policies = ["grant.datalog"]
development = true
nonce = "off"
admin_token = {{ file = "admin-token" }}
root_keys = [{{ id = 7, file = "root.jwk" }}]
trusted_issuers = [{{ issuer = "{provider}", insecure_loopback = true, id_token_clients = ["web"] }}]
clients = [
  {{ id = "agent" }},
  {{ id = "other" }},
  {{ id = "batch", secret = {{ file = "web-secret" }} }},
  {{ id = "web", secret = {{ file = "web-secret" }} }},
  {{ id = "proxy", secret = {{ file = "web-secret" }}, feed = true, introspect = true }},
]
servers = [
  {{ id = "git", resource = "{GIT}" }},
  {{ id = "wiki", resource = "https://mcp.example/wiki/mcp" }},
]
"#
    )
}

/// The files that [`config_text`] names.
pub(super) fn write_files(folder: &Path) {
    generate_root_key(&folder.join("root.jwk"), &mut rng::os()).unwrap();
    write_private_file(&folder.join("admin-token"), ADMIN.as_bytes()).unwrap();
    write_private_file(&folder.join("web-secret"), SECRET.as_bytes()).unwrap();
    write_private_file(&folder.join("next-secret"), NEXT_SECRET.as_bytes()).unwrap();
    std::fs::write(folder.join("grant.datalog"), POLICY).unwrap();
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(|text| text).await
    }

    pub(super) async fn with(change: impl FnOnce(String) -> String) -> Self {
        let provider = Provider::start().await;
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        Self::open(provider, folder, change)
    }

    /// Opens an issuer over files that are there.
    pub(super) fn open(
        provider: Provider,
        folder: tempfile::TempDir,
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let config: Config = parse(&change(config_text(&provider.issuer)), "issuer.toml").unwrap();
        let clock = ManualClock::shared(NOW);
        let seen_clock = Arc::new(RigClock {
            set: Arc::clone(&clock),
            seconds: AtomicI64::new(0),
        });
        let shared: SharedClock = Arc::clone(&seen_clock) as SharedClock;
        let mut opened = Issuer::open(config.clone(), folder.path(), Arc::clone(&shared));
        // The state's last owner gives it up on a thread of its own.
        while matches!(&opened, Err(OpenError::Store(StoreError::InUse { .. }))) {
            std::thread::yield_now();
            opened = Issuer::open(config.clone(), folder.path(), Arc::clone(&shared));
        }
        let issuer = opened.unwrap();
        let root = std::fs::read_to_string(folder.path().join("root.jwk")).unwrap();
        Self {
            provider,
            clock,
            seen_clock,
            public: issuer.public_router(),
            admin: issuer.admin_router(),
            store: Arc::downgrade(&issuer.state.store),
            folder,
            holder: PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()),
            root: PrivateKey::from_jwk_str(&root).unwrap().public(),
        }
    }

    /// The same issuer after a restart, with files and configuration that may have changed meanwhile.
    pub(super) fn reopened(self, files: impl FnOnce(&Path), change: impl FnOnce(String) -> String) -> Self {
        let Self {
            provider,
            clock,
            folder,
            holder,
            public,
            admin,
            ..
        } = self;
        // They have the state.
        drop((public, admin));
        files(folder.path());
        let again = Self::open(provider, folder, change);
        again.clock.set(taper_service::clock::Clock::unix(&*clock));
        Self { holder, ..again }
    }

    /// The claims of an honest access token.
    pub(super) fn claims(&self) -> Value {
        json!({
            "iss": self.provider.issuer, "sub": "alice", "aud": ISSUER, "client_id": "agent",
            "iat": NOW - 10, "exp": NOW + 1800, "groups": ["eng"], "email": "alice@example.com",
        })
    }

    /// An access token with claims changed by `change`.
    pub(super) fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.provider.sign("at+jwt", &claims)
    }

    /// An honest token request, to be changed and sent.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask::new(self, "/token")
            .set("grant_type", GRANT_TOKEN_EXCHANGE)
            .set("client_id", "agent")
            .set("subject_token", self.token(|_| {}))
            .set("subject_token_type", TOKEN_TYPE_ACCESS_TOKEN)
            .set("requested_token_type", TOKEN_TYPE_CAPABILITY)
            .set("scope", "git:git_log git:git_show")
    }

    /// A capability for `git:git_log git:git_show`.
    pub(super) async fn capability(&self) -> String {
        let answer = self.ask().send().await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    pub(super) fn verify(&self, token: &str) -> VerifiedChain {
        let roots = Roots::new().trust(ISSUER, 7, self.root.clone(), None).unwrap();
        let token = UnverifiedToken::decode(token).unwrap();
        Verifier::new(roots).verify(token, NOW).unwrap()
    }

    pub(super) async fn get(&self, path: &str, authorization: Option<String>) -> Answer {
        send(&self.public, "GET", path, authorization, None).await
    }
}

/// A request to a POST endpoint of the public listener, with its proof.
pub(super) struct Ask<'a> {
    rig: &'a Rig,
    path: &'static str,
    fields: Vec<(&'static str, String)>,
    pub(super) key: Option<&'a PrivateKey>,
    pub(super) claims: ProofClaims,
    pub(super) proofs: usize,
    /// Whether the proof is bound to the body.
    pub(super) digest: bool,
    pub(super) authorization: Option<String>,
    pub(super) content_type: &'static str,
    /// Sent as it is instead of a fresh one.
    pub(super) proof: Option<String>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(rig: &'a Rig, path: &'static str) -> Self {
        let now = taper_service::clock::Clock::unix(&*rig.clock);
        Self {
            rig,
            path,
            fields: Vec::new(),
            key: None,
            claims: ProofClaims::new("POST", &format!("{ISSUER}{path}"), now, &mut rng::os()),
            proofs: 1,
            digest: false,
            authorization: None,
            content_type: "application/x-www-form-urlencoded",
            proof: None,
        }
    }

    /// Replaces a parameter.
    pub(super) fn set(self, name: &'static str, value: impl Into<String>) -> Self {
        let mut ask = self.without(name);
        ask.fields.push((name, value.into()));
        ask
    }

    /// Adds a parameter beside others of its name.
    pub(super) fn add(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| *known != name);
        self
    }

    /// Authenticates by Basic instead of by `client_id`.
    pub(super) fn basic(self, id: &str, secret: &str) -> Self {
        let mut ask = self.without("client_id");
        ask.authorization = Some(basic(id, secret));
        ask
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn ath(self, token: &str) -> Self {
        let ath = TokenHash::of(token).to_string();
        self.change(|ask| ask.claims.ath = Some(ath))
    }

    pub(super) async fn send(self) -> Answer {
        let body = Serializer::new(String::new()).extend_pairs(&self.fields).finish();
        let key = self.key.unwrap_or(&self.rig.holder);
        let claims = if self.digest {
            self.claims.body(body.as_bytes())
        } else {
            self.claims
        };
        let proof = self.proof.unwrap_or_else(|| claims.sign(key).unwrap());
        let mut request = Request::post(self.path).header("content-type", self.content_type);
        for _ in 0..self.proofs {
            request = request.header("dpop", &proof);
        }
        if let Some(authorization) = self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Body::from(body)).unwrap();
        answer(self.rig.public.clone().oneshot(request).await.unwrap()).await
    }

    /// Sends it and expects a refusal.
    pub(super) async fn refused(self, name: &str, status: u16, code: &str) -> Answer {
        let answer = self.send().await;
        let got = (answer.status.as_u16(), answer.json["error"].as_str());
        assert_eq!(got, (status, Some(code)), "{name}: {}", answer.text);
        assert_eq!(answer.headers["cache-control"], "no-store", "{name}");
        answer
    }

    /// Sends it and expects 200.
    pub(super) async fn accepted(self, name: &str) -> Answer {
        let answer = self.send().await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text);
        assert_eq!(answer.headers["cache-control"], "no-store", "{name}");
        answer
    }
}

pub(super) fn basic(id: &str, secret: &str) -> String {
    client_auth::basic_header(id, &Secret::new(secret))
        .expose()
        .to_owned()
}

pub(super) async fn send(
    router: &Router,
    method: &str,
    path: &str,
    authorization: Option<String>,
    body: Option<Value>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let body = match body {
        None => Body::empty(),
        Some(value) => {
            request = request.header("content-type", "application/json");
            Body::from(value.to_string())
        }
    };
    answer(router.clone().oneshot(request.body(body).unwrap()).await.unwrap()).await
}

async fn answer(response: axum::response::Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

pub(super) const ID_TOKEN: &str = TOKEN_TYPE_ID_TOKEN;
