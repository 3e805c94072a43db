//! A proxy, its upstream, an issuer's root key and a holder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use taper_capability::{Grant, Party, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey, ProofClaims};
use taper_service::clock::ManualClock;
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use taper_store::{FeedKnown, FeedPage, Revocation, RevocationKey};
use tokio::sync::{Notify, watch};
use tower::service_fn;

use crate::body::{Body, full};
use crate::issuers::Issuers;
use crate::service::Shared;
use crate::{Config, Proxy};

pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const ISSUER: &str = "https://issuer.test";
pub(super) const URL: &str = "https://proxy.test/git/mcp";

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// Whether the proxy asked by itself.
    pub(super) fn is_own(&self) -> bool {
        self.headers
            .get("user-agent")
            .is_some_and(|agent| agent == "taper-proxy")
    }
}

type Script = Box<dyn FnMut(&Seen) -> Response<Body> + Send>;

/// An upstream that records.
#[derive(Clone)]
pub(super) struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    /// Whether what the proxy asks by itself is answered; it asks when it likes.
    tells: Arc<AtomicBool>,
    /// Something of that waits for an answer that does not come.
    waits: Arc<Notify>,
    /// What waits is answered too.
    always: Arc<watch::Sender<bool>>,
}

impl Recorder {
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn answers(&self, script: impl FnMut(&Seen) -> Response<Body> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(super) fn answers_json(&self, text: &'static str) {
        self.answers(move |_| json(text));
    }

    /// Whether the proxy's own questions are answered from now on.
    pub(super) fn tells(&self, tells: bool) {
        self.tells.store(tells, Ordering::SeqCst);
    }

    /// Everything is answered, what waits already too.
    pub(super) fn tells_always(&self) {
        self.tells(true);
        self.always.send_replace(true);
    }

    /// Until the proxy asked by itself and waits for the answer: it asks nothing else meanwhile.
    pub(super) async fn waits(&self) {
        self.waits.notified().await;
    }

    async fn start(shutdown: &Shutdown) -> (Self, SocketAddr) {
        let recorder = Self {
            seen: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(|_| {
                json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
            }))),
            tells: Arc::default(),
            waits: Arc::default(),
            always: Arc::new(watch::channel(false).0),
        };
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let addr = bound.local_addr();
        let this = recorder.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let this = this.clone();
            async move {
                let (parts, body) = request.into_parts();
                let seen = Seen {
                    method: parts.method,
                    headers: parts.headers,
                    body: body.collect().await.unwrap().to_bytes(),
                };
                if seen.is_own() && !this.tells.load(Ordering::SeqCst) {
                    this.waits.notify_one();
                    let mut always = this.always.subscribe();
                    always.wait_for(|always| *always).await.unwrap();
                }
                this.seen.lock().unwrap().push(seen.clone());
                let response = this.script.lock().unwrap()(&seen);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        shutdown.spawn("upstream", bound.serve(service, shutdown.clone()));
        (recorder, addr)
    }
}

pub(super) fn json(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

/// Everything, running.
pub(super) struct World {
    pub(super) addr: SocketAddr,
    pub(super) clock: Arc<ManualClock>,
    pub(super) root: RootKey,
    pub(super) holder: PrivateKey,
    pub(super) upstream: Recorder,
    pub(super) shared: Arc<Shared>,
    pub(super) shutdown: Shutdown,
    client: Client<HttpConnector, Full<Bytes>>,
    state: tempfile::TempDir,
}

/// What a test changes of the usual configuration.
#[derive(Clone, Default)]
pub(super) struct Setup {
    /// More lines at the top level.
    pub(super) top: &'static str,
    /// More lines of the server `git`.
    pub(super) server: &'static str,
    /// Instead of the table of the recording upstream, which is at `UPSTREAM`.
    pub(super) upstream: Option<String>,
    /// The policy; `None` for no file at all.
    pub(super) policy: Option<&'static str>,
    /// How its own tools are learned; not at all unless told.
    pub(super) catalogue: Option<&'static str>,
    /// With a feed whose first page has not come yet.
    pub(super) feed: bool,
}

pub(super) fn usual() -> Setup {
    Setup {
        policy: Some("allow if true;"),
        server: "read_only = ['git_log']\ntools.git_log = { resources = { repo = '{repo_path}' }, arguments = ['max_count'] }",
        ..Setup::default()
    }
}

pub(super) fn config(setup: &Setup, root: &RootKey, upstream: SocketAddr, folder: &Path) -> Config {
    let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
    key["kid"] = root.id().to_string().into();
    let set = serde_json::json!({ "keys": [key] });
    std::fs::write(folder.join("jwks.json"), set.to_string()).unwrap();
    std::fs::write(folder.join("policy.dl"), setup.policy.unwrap_or_default()).unwrap();
    taper_service::secret::write_private_file(&folder.join("secret"), b"hunter2").unwrap();
    let policies = if setup.policy.is_some() {
        "['policy.dl']"
    } else {
        "[]"
    };
    let feed = if setup.feed {
        "feed = { client_id = 'proxy', client_secret = { file = 'secret' }, uri = 'http://127.0.0.1:1/feed' }"
    } else {
        "without_feed = true"
    };
    let usual = format!(
        "{{ http = 'http://{upstream}/mcp', headers = {{ authorization = {{ file = 'secret' }} }} }}"
    );
    let text = format!(
        "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\npublic_url = 'https://proxy.test'\n\
         state = 'state'\npolicies = {policies}\noutbound = {{ allow_loopback_http = true }}\n{}\n\
         [[issuers]]\nissuer = '{ISSUER}'\njwks_file = 'jwks.json'\n{feed}\n\
         [servers.git]\nupstream = {}\ncatalogue = {{ {} }}\n{}\n",
        setup.top,
        setup
            .upstream
            .as_ref()
            .unwrap_or(&usual)
            .replace("UPSTREAM", &upstream.to_string()),
        setup.catalogue.unwrap_or("facts = 'off'"),
        setup.server,
    );
    taper_service::config::parse(&text, "proxy.toml").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

impl World {
    pub(super) async fn start(setup: Setup) -> Self {
        let root = RootKey::generate(7, &mut rng::os());
        let holder = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        Self::start_in(setup, tempfile::tempdir().unwrap(), root, holder).await
    }

    /// Ends the proxy, and starts another over the same state after `change`. The upstream is new.
    pub(super) async fn restarted_after(self, setup: Setup, change: impl FnOnce()) -> Self {
        drop((self.client, self.shared));
        self.shutdown.trigger();
        self.shutdown.drain(Duration::from_secs(30)).await.unwrap();
        change();
        // A program that another test is starting holds every descriptor of this process, locks
        // included, for a moment.
        let free = |lock: &str| {
            let file = std::fs::File::open(self.state.path().join("state").join(lock));
            file.map_or(true, |file| file.try_lock().is_ok())
        };
        while !["journal.lock", "seen.lock", "state/db"].into_iter().all(free) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self::start_in(setup, self.state, self.root, self.holder).await
    }

    pub(super) async fn start_in(
        setup: Setup,
        state: tempfile::TempDir,
        root: RootKey,
        holder: PrivateKey,
    ) -> Self {
        let shutdown = Shutdown::new();
        let (upstream, upstream_addr) = Recorder::start(&shutdown).await;
        let config = config(&setup, &root, upstream_addr, state.path());
        let clock = ManualClock::shared(NOW);
        let proxy = Proxy::open(&config, state.path(), Arc::clone(&clock) as _).unwrap();
        let bound = proxy.bind().await.unwrap();
        let (addr, shared) = (bound.local_addr(), Arc::clone(&bound.shared));
        let serving = shutdown.clone();
        shutdown.spawn("proxy", async move { bound.serve(serving).await.unwrap() });
        Self {
            addr,
            clock,
            root,
            holder,
            upstream,
            shared,
            shutdown,
            client: Client::builder(TokioExecutor::new()).build_http(),
            state,
        }
    }

    pub(super) fn grant(&self) -> Grant {
        Grant {
            issuer: ISSUER.into(),
            id: Grant::new_id(&mut rng::os()),
            subject: Party {
                iss: "https://idp.test".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: self.holder.public(),
            audiences: vec![URL.into()],
            rights: vec![
                Right::Tool {
                    server: "git".into(),
                    tool: "git_log".into(),
                },
                Right::Tool {
                    server: "git".into(),
                    tool: "git_push".into(),
                },
                Right::Resource {
                    server: "git".into(),
                    uri_prefix: "repo://acme/".into(),
                },
            ],
            claims: Vec::new(),
            issued_at: NOW,
            expires_at: NOW + 3600,
            max_depth: 3,
            caveats: Vec::new(),
        }
    }

    pub(super) fn issue(&self, grant: &Grant) -> Token {
        issue(grant, &self.root, &mut rng::os()).unwrap()
    }

    /// An honest request of the holder.
    pub(super) fn ask(&self, body: impl Into<String>) -> Ask<'_> {
        Ask {
            world: self,
            method: Method::POST,
            path: "/git/mcp".into(),
            body: body.into(),
            sent_body: None,
            token: self.issue(&self.grant()).as_str().to_owned(),
            key: None,
            scheme: "DPoP",
            claims: Box::new(|_| {}),
            proof: true,
            headers: vec![
                ("content-type", "application/json".into()),
                ("host", "proxy.test".into()),
            ],
        }
    }

    pub(super) fn call(&self, tool: &str, arguments: &str) -> Ask<'_> {
        self.ask(tool_call(tool, arguments))
    }

    /// The decisions in the journal: (outcome, rule).
    pub(super) async fn decisions(&self) -> Vec<(String, String)> {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        decided(&self.state_folder())
            .iter()
            .map(|record| (text(record, "outcome"), text(record, "rule")))
            .collect()
    }

    /// The folder of the journal.
    pub(super) fn state_folder(&self) -> PathBuf {
        self.state.path().join("state")
    }

    pub(super) fn revoke(&self, seq: u64, what: RevocationKey) {
        let entry = Revocation {
            seq,
            at: NOW,
            issuer: ISSUER.into(),
            what,
            until: None,
        };
        self.page(vec![entry], seq);
    }

    /// A page of the feed, as the follower would take it.
    pub(super) fn page(&self, entries: Vec<Revocation>, head: u64) {
        let now = taper_service::clock::Clock::unix(&*self.clock);
        take(&self.shared.gate.issuers, entries, head, now);
    }

    pub(super) async fn end(self) {
        drop(self.client);
        self.shutdown.trigger();
        self.shutdown.drain(Duration::from_secs(30)).await.unwrap();
    }
}

/// Takes the entries that lead to `head` as the next page of the issuer's feed.
pub(super) fn take(issuers: &Issuers, entries: Vec<Revocation>, head: u64, now: i64) {
    let feed = issuers.get(ISSUER).unwrap().feed().unwrap();
    let (reached, known) = (feed.reached(), feed.known());
    let page = FeedPage {
        issuer: ISSUER.into(),
        after: reached.seq,
        history: entries
            .iter()
            .fold(reached.history, |before, entry| entry.history(before)),
        entries,
        head,
        upto: head,
        known: Some(FeedKnown {
            seq: known.seq,
            history: Some(known.history),
        }),
        time: now,
    };
    issuers.take_page(ISSUER, &page, now, |_| Ok(())).unwrap();
}

/// The decisions in a journal, as JSON.
pub(super) fn decided(dir: &Path) -> Vec<Value> {
    taper_store::read_records(dir)
        .unwrap()
        .map(|record| serde_json::to_value(record.unwrap().record).unwrap())
        .filter(|record| record["kind"] == "decision")
        .collect()
}

pub(super) fn tool_call(tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// One request; what a test does not change is honest.
pub(super) struct Ask<'a> {
    pub(super) world: &'a World,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: String,
    /// Sent instead of the body that was signed.
    pub(super) sent_body: Option<String>,
    pub(super) token: String,
    pub(super) key: Option<PrivateKey>,
    pub(super) scheme: &'static str,
    pub(super) claims: Box<dyn Fn(&mut ProofClaims)>,
    pub(super) proof: bool,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Ask<'_> {
    pub(super) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(super) fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    pub(super) fn token(mut self, token: &str) -> Self {
        self.token = token.into();
        self
    }

    pub(super) fn key(mut self, key: &PrivateKey) -> Self {
        self.key = Some(PrivateKey::from_bytes(key.algorithm(), &key.to_bytes()).unwrap());
        self
    }

    pub(super) fn claims(mut self, change: impl Fn(&mut ProofClaims) + 'static) -> Self {
        self.claims = Box::new(change);
        self
    }

    pub(super) fn unbound(self) -> Self {
        self.claims(|claims| claims.content_digest = None)
    }

    /// Sets a header; an empty value removes it.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value.into()));
        }
        self
    }

    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        let world = self.world;
        let now = taper_service::clock::Clock::unix(&*world.clock);
        let mut claims = ProofClaims::new(self.method.as_str(), URL, now, &mut rng::os()).token(&self.token);
        if self.method == Method::POST {
            claims = claims.body(self.body.as_bytes());
        }
        (self.claims)(&mut claims);
        let body = self.sent_body.as_ref().unwrap_or(&self.body);
        let mut request = Request::new(Full::new(Bytes::from(body.clone())));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = format!("http://{}{}", world.addr, self.path).parse().unwrap();
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        if !self.scheme.is_empty() {
            let value = format!("{} {}", self.scheme, self.token);
            headers.insert("authorization", value.parse().unwrap());
        }
        if self.proof {
            let proof = claims.sign(self.key.as_ref().unwrap_or(&world.holder)).unwrap();
            headers.insert("dpop", proof.parse().unwrap());
        }
        request
    }

    pub(super) async fn send(&self) -> Answer {
        self.world.send(self.request()).await
    }
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(super) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    /// The body of an answer, `None` when it broke off.
    pub(super) async fn whole(&self, request: Request<Full<Bytes>>) -> Option<Bytes> {
        let response = self.client.request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?;
        Some(body.to_bytes())
    }
}
