//! Upstreams that take tokens of their own authorization server (M-50 to M-53).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::shutdown::Shutdown;
use tokio::sync::{Semaphore, watch};
use tower::service_fn;

use super::support::{Answer, Setup, World, json, usual};
use crate::body::{Body, full};
use crate::tokens::Whose;

pub(super) const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

/// A request as the authorization server got it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) form: BTreeMap<String, String>,
}

type Script = Box<dyn FnMut(&Asked, usize) -> Response<Body> + Send>;

/// An authorization server that records what it is asked. It answers when it may.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    asked: watch::Sender<Vec<Asked>>,
    script: Arc<Mutex<Script>>,
    pub(super) may: Arc<Semaphore>,
}

/// The token `t1`, `t2`, …, by the number of the request.
pub(super) fn token(number: usize, more: &str) -> Response<Body> {
    json(format!(
        r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":3600{more}}}"#
    ))
}

impl Server {
    /// One that gives a new token to each request for one.
    pub(super) async fn start(shutdown: &Shutdown) -> Self {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let addr = bound.local_addr();
        let this = Self {
            addr,
            asked: watch::channel(Vec::new()).0,
            script: Arc::new(Mutex::new(Box::new(|_, number| token(number, "")))),
            may: Arc::new(Semaphore::new(1000)),
        };
        let server = this.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let this = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let asked = Asked {
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    form: url::form_urlencoded::parse(&body).into_owned().collect(),
                };
                this.asked.send_modify(|all| all.push(asked.clone()));
                this.may.acquire().await.unwrap().forget();
                let number = this.asked_for_tokens().len();
                let response = this.script.lock().unwrap()(&asked, number);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        shutdown.spawn("authorization-server", bound.serve(service, shutdown.clone()));
        this
    }

    pub(super) fn answers(&self, script: impl FnMut(&Asked, usize) -> Response<Body> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    pub(super) fn asked_for_tokens(&self) -> Vec<Asked> {
        let all = self.asked();
        all.into_iter().filter(|asked| asked.path == "/token").collect()
    }

    /// When it was asked `count` times.
    pub(super) async fn was_asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let reached = asked.wait_for(|all| all.len() >= count);
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .unwrap()
            .unwrap();
    }

    /// The table of an upstream whose tokens come from here.
    pub(super) fn upstream(&self, oauth: &str) -> Option<String> {
        let defaults = [
            ("grant", "'client_credentials'".to_owned()),
            ("token_endpoint", format!("'http://{}/token'", self.addr)),
            ("client_id", "'proxy'".to_owned()),
            ("client_secret", "{ file = 'secret' }".to_owned()),
        ];
        let mut lines: Vec<String> = oauth
            .lines()
            .map(str::to_owned)
            .filter(|line| !line.is_empty())
            .collect();
        for (key, value) in defaults {
            let is_set = lines.iter().any(|line| line.starts_with(&format!("{key} ")));
            let is_replaced = key == "token_endpoint" && lines.iter().any(|line| line.starts_with("issuer "));
            let is_unused =
                key == "client_secret" && lines.iter().any(|line| line.starts_with("client_key "));
            if !is_set && !is_replaced && !is_unused {
                lines.push(format!("{key} = {value}"));
            }
        }
        Some(format!(
            "{{ http = 'http://UPSTREAM/mcp', oauth = {{ {} }} }}",
            lines.join(", ")
        ))
    }
}

pub(super) async fn world(server: &Server, oauth: &str) -> World {
    let world = World::start(Setup {
        upstream: server.upstream(oauth),
        ..usual()
    })
    .await;
    world.upstream.answers(|_| json(RESULT));
    world
}

/// The tokens that the upstream saw, in order.
pub(super) fn shown(world: &World) -> Vec<String> {
    let bearer = |headers: &HeaderMap| {
        let all: Vec<_> = headers.get_all("authorization").iter().collect();
        assert!(all.len() <= 1, "{headers:?}");
        assert!(!headers.contains_key("dpop"));
        all.first()
            .map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    world
        .upstream
        .seen()
        .iter()
        .map(|seen| bearer(&seen.headers))
        .collect()
}

#[track_caller]
pub(super) fn refused(answer: &Answer, status: u16, rule: &str) {
    let told = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(told["error"]["data"]["rule"], rule, "{told}");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(!text.contains("hunter2") && !text.contains("127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_replaces_what_the_caller_sent() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(
        &server,
        "scope = 'a b'\nresource = 'https://up.test/mcp'\naudience = 'up'",
    )
    .await;
    assert!(server.asked().is_empty(), "nobody needed one yet");
    for _ in 0..3 {
        let answer = world.call("git_log", LOG).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(shown(&world), ["Bearer t1"; 3]);
    let asked = server.asked();
    let [asked] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    let form: Vec<(&str, &str)> = asked.form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        form,
        [
            ("audience", "up"),
            ("grant_type", "client_credentials"),
            ("resource", "https://up.test/mcp"),
            ("scope", "a b"),
        ]
    );
    assert_eq!(asked.headers["authorization"], "Basic cHJveHk6aHVudGVyMg==");
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn many_who_wait_share_one_request() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    let tokens = world.shared.servers["git"].upstream.tokens().unwrap();
    server.may.forget_permits(1000);
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(tokens.get(&Whose::Own))).collect();
    for one in &mut waiting {
        assert!(futures_util::poll!(one.as_mut()).is_pending());
    }
    // Who began it goes away, and it goes on.
    drop(waiting.remove(0));
    server.was_asked(1).await;
    server.may.add_permits(1000);
    for one in waiting {
        assert_eq!(one.await.unwrap().value().expose(), "t1");
    }
    assert_eq!(server.asked().len(), 1);

    // A failure is told to all who wait for it as well.
    server.answers(|_, _| {
        let mut answer = json("{}");
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    });
    world.clock.advance(3600);
    let waiting: Vec<_> = (0..100).map(|_| tokens.get(&Whose::Own)).collect();
    let all = futures_util::future::join_all(waiting).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(server.asked().len(), 2);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_nobody_waits() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    let call = async || world.call("git_log", LOG).send().await.status.as_u16();
    server.answers(|_, number| token_of(&format!(r#""t{number}","token_type":"bearer","expires_in":100"#)));
    assert_eq!(call().await, 200);
    world.clock.advance(69);
    assert_eq!((call().await, server.asked().len()), (200, 1));
    // From here on it is old, and the one that replaces it does not come.
    server.may.forget_permits(1000);
    world.clock.advance(1);
    assert_eq!((call().await, call().await), (200, 200));
    server.was_asked(2).await;
    assert_eq!(shown(&world), ["Bearer t1"; 4]);
    server.may.add_permits(1000);
    let upstream = &world.shared.servers["git"].upstream;
    let renewed = async {
        loop {
            if upstream
                .tokens()
                .unwrap()
                .get(&Whose::Own)
                .await
                .unwrap()
                .value()
                .expose()
                == "t2"
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap();
    assert_eq!(call().await, 200);
    assert_eq!(shown(&world)[4], "Bearer t2");
    assert_eq!(server.asked().len(), 2);

    // While nothing replaces it, it is used to its end and not longer.
    server.answers(|_, _| Response::new(full("no")));
    world.clock.advance(99);
    assert_eq!(call().await, 200);
    let failed = async {
        while upstream.tokens().unwrap().trouble().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed)
        .await
        .unwrap();
    world.clock.advance(1);
    let answer = world.call("git_log", LOG).send().await;
    refused(&answer, 503, "M-52");
    assert_eq!(shown(&world).len(), 6);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_replaced_once() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    let takes = |taken: &'static str| {
        world.upstream.answers(move |seen| {
            if seen.headers["authorization"] == taken {
                return json(RESULT);
            }
            let mut answer = json("{}");
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer
                .headers_mut()
                .insert("www-authenticate", "Bearer error=\"hunter2\"".parse().unwrap());
            answer
        });
    };
    let call = async || world.call("git_log", LOG).send().await;
    takes("Bearer t1");
    assert_eq!(call().await.status.as_u16(), 200);
    // Its server ends a token early.
    world.clock.advance(10);
    takes("Bearer t2");
    assert_eq!(call().await.status.as_u16(), 200);
    assert_eq!(shown(&world), ["Bearer t1", "Bearer t1", "Bearer t2"]);
    assert_eq!(world.upstream.seen()[1].body, world.upstream.seen()[2].body);

    // No token is taken any more: no caller has the server asked again and again.
    world.clock.advance(10);
    takes("Bearer none");
    let answer = call().await;
    refused(&answer, 502, "M-30");
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert_eq!((server.asked().len(), shown(&world).len()), (3, 5));
    for _ in 0..3 {
        refused(&call().await, 502, "M-30");
    }
    assert_eq!((server.asked().len(), shown(&world).len()), (3, 8));
    for (wait, asked) in [(9, 3), (1, 4), (9, 4)] {
        world.clock.advance(wait);
        refused(&call().await, 502, "M-30");
        assert_eq!(server.asked().len(), asked);
    }
    takes("Bearer t4");
    assert_eq!(call().await.status.as_u16(), 200);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn what_is_refused_of_one_request_is_in_nobody_elses_way() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    // As a server does that passes on what stands behind one of its tools.
    world
        .upstream
        .answers(|seen| match seen.body.windows(8).any(|at| at == b"git_push") {
            true => status(401, "{}"),
            false => json(RESULT),
        });
    let (fine, broken) = (
        async || world.call("git_log", LOG).send().await.status.as_u16(),
        async || world.call("git_push", LOG).send().await,
    );
    for (wait, asked) in [(0, 1), (0, 1), (10, 2), (0, 2), (10, 3)] {
        world.clock.advance(wait);
        refused(&broken().await, 502, "M-30");
        assert_eq!(fine().await, 200);
        assert_eq!(server.asked().len(), asked);
    }
    // A server that gives no other one now leaves the one that is there.
    server.answers(|_, _| status(503, "{}"));
    world.clock.advance(10);
    refused(&broken().await, 502, "M-30");
    assert_eq!((fine().await, server.asked().len()), (200, 4));
    refused(&broken().await, 502, "M-30");
    assert_eq!((fine().await, server.asked().len()), (200, 4));
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_list_that_was_not_sent_leaves_its_id() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    world.upstream.answers(|_| {
        let mut answer = json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#);
        answer
            .headers_mut()
            .insert("mcp-session-id", "s".parse().unwrap());
        answer
    });
    let token = world.issue(&world.grant());
    let send = async |body: &str, session: &str| {
        let ask = world
            .ask(body)
            .token(token.as_str())
            .header("mcp-session-id", session);
        ask.send().await
    };
    let initialize =
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    assert_eq!(send(initialize, "").await.header("mcp-session-id"), "s");
    server.answers(|_, _| status(500, "{}"));
    // As if its life were over.
    world.clock.advance(-1);
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    refused(&send(list, "s").await, 503, "M-50");
    server.answers(|_, number| self::token(number, ""));
    world.clock.advance(2);
    let answer = send(list, "s").await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_nobody_is_asked_in_vain() {
    type Answers = Box<dyn Fn() -> Response<Body> + Send>;
    let answers: Vec<(&str, &str, Answers)> = vec![
        ("M-50", "busy", Box::new(|| status(503, "{}"))),
        ("M-50", "too many", Box::new(|| status(429, "{}"))),
        (
            "M-50",
            "client",
            Box::new(|| status(401, r#"{"error":"invalid_client"}"#)),
        ),
        (
            "M-50",
            "scope",
            Box::new(|| status(400, r#"{"error":"invalid_scope"}"#)),
        ),
        ("M-52", "page", Box::new(|| status(404, "<html>hunter2</html>"))),
        ("M-52", "redirect", Box::new(|| moved("http://127.0.0.1:1/token"))),
        ("M-52", "no JSON", Box::new(|| json("hunter2"))),
        ("M-52", "empty", Box::new(|| json(""))),
        (
            "M-52",
            "other kind",
            Box::new(|| token_of(r#""t","token_type":"DPoP","expires_in":60"#)),
        ),
        (
            "M-52",
            "line end",
            Box::new(|| token_of(r#""t\r\nx: hunter2","token_type":"Bearer""#)),
        ),
        (
            "M-52",
            "twice",
            Box::new(|| token_of(r#""t","token_type":"Bearer","token_type":"Bearer""#)),
        ),
        (
            "M-52",
            "short life",
            Box::new(|| token_of(r#""t","token_type":"Bearer","expires_in":4"#)),
        ),
        (
            "M-52",
            "large",
            Box::new(|| token_of(&format!(r#""{}","token_type":"Bearer""#, "t".repeat(70_000)))),
        ),
    ];
    for (rule, name, answer) in answers {
        // One world for each: no failure is left over from the one before.
        let shutdown = Shutdown::new();
        let server = Server::start(&shutdown).await;
        let world = world(&server, "").await;
        server.answers(move |_, _| answer());
        let call = async || world.call("git_log", LOG).send().await;
        let first = call().await;
        refused(&first, 503, rule);
        assert_ne!(first.header("retry-after"), "", "{name}");
        refused(&call().await, 503, "M-53");
        assert_eq!((server.asked().len(), shown(&world).len()), (1, 0), "{name}");
        server.answers(|_, number| token(number, ""));
        world.clock.advance(1);
        assert_eq!(call().await.status.as_u16(), 200, "{name}");
        assert_eq!(shown(&world), ["Bearer t2"], "{name}");
        shutdown.trigger();
        world.end().await;
    }
}

fn status(status: u16, body: &'static str) -> Response<Body> {
    let mut answer = json(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn moved(to: &'static str) -> Response<Body> {
    let mut answer = status(307, "");
    answer.headers_mut().insert("location", to.parse().unwrap());
    answer
}

fn token_of(rest: &str) -> Response<Body> {
    json(format!(r#"{{"access_token":{rest}}}"#))
}

#[tokio::test]
async fn a_server_that_is_gone_is_not_called_for_every_request() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let nobody = "token_endpoint = 'http://127.0.0.1:1/token'";
    let world = world(&server, nobody).await;
    refused(&world.call("git_log", LOG).send().await, 503, "M-50");
    let paused = world.call("git_log", LOG).send().await;
    refused(&paused, 503, "M-53");
    assert_eq!(paused.header("retry-after"), "1");
    assert!(shown(&world).is_empty());
    // A decision that was recorded as allowed is what the journal has.
    let decisions = world.decisions().await;
    assert!(
        decisions.iter().all(|(outcome, _)| outcome == "allow"),
        "{decisions:?}"
    );
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_clock_that_steps_makes_no_token_last() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = world(&server, "").await;
    let call = async || world.call("git_log", LOG).send().await.status.as_u16();
    assert_eq!(call().await, 200);
    // Proofs are made at the same clock, capabilities last for an hour from where it stood.
    world.clock.advance(-20);
    assert_eq!((call().await, server.asked().len()), (200, 2));
    world.clock.advance(20);
    assert_eq!((call().await, server.asked().len()), (200, 2));
    world.clock.advance(3590);
    assert_eq!((call().await, server.asked().len()), (200, 3));
    assert_eq!(
        shown(&world),
        ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]
    );
    shutdown.trigger();
    world.end().await;
}

/// What is answered at the paths of metadata.
type Documents = Box<dyn Fn(&str) -> Option<Response<Body>> + Send>;

#[tokio::test]
async fn the_token_endpoint_is_what_the_issuers_own_metadata_says() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let addr = server.addr;
    let metadata = move |issuer: &str, endpoint: &str| {
        json(format!(
            r#"{{"issuer":"{issuer}","token_endpoint":"{endpoint}"}}"#
        ))
    };
    let own = format!("http://{addr}");
    let check = async |answer: Documents, expected: &str, paths: &[&str]| {
        let before = server.asked().len();
        server.answers(move |asked, number| match asked.path.as_str() {
            "/token" => token(number, ""),
            path => answer(path).unwrap_or_else(|| status(404, "")),
        });
        let world = world(&server, &format!("issuer = 'http://{addr}'")).await;
        let got = world.call("git_log", LOG).send().await;
        match expected {
            "" => assert_eq!(got.status.as_u16(), 200, "{got:?}"),
            rule => refused(&got, 503, rule),
        }
        if expected.is_empty() {
            world.clock.advance(3000);
            assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 200);
        }
        let asked: Vec<String> = server.asked()[before..]
            .iter()
            .map(|asked| asked.path.clone())
            .collect();
        assert_eq!(asked[..paths.len()], *paths, "{asked:?}");
        world.end().await;
    };
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    const OPENID: &str = "/.well-known/openid-configuration";
    let token_endpoint = format!("{own}/token");
    let (issuer, endpoint) = (own.clone(), token_endpoint.clone());
    check(
        Box::new(move |path| (path == OAUTH).then(|| metadata(&issuer, &endpoint))),
        "",
        &[OAUTH, "/token"],
    )
    .await;
    let (issuer, endpoint) = (own.clone(), token_endpoint.clone());
    check(
        Box::new(move |path| (path == OPENID).then(|| metadata(&issuer, &endpoint))),
        "",
        &[OAUTH, OPENID, "/token"],
    )
    .await;
    let endpoint = token_endpoint.clone();
    check(
        Box::new(move |path| (path == OAUTH).then(|| metadata("https://other.test", &endpoint))),
        "M-52",
        &[OAUTH],
    )
    .await;
    let issuer = own.clone();
    check(
        Box::new(move |path| (path == OAUTH).then(|| metadata(&issuer, "http://other.test/token"))),
        "M-52",
        &[OAUTH],
    )
    .await;
    check(Box::new(|_| None), "M-52", &[OAUTH, OPENID]).await;
    check(Box::new(|_| Some(status(500, ""))), "M-50", &[OAUTH]).await;
    shutdown.trigger();
}

#[tokio::test]
async fn what_the_proxy_asks_by_itself_has_a_token_too() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let world = World::start(Setup {
        upstream: server.upstream(""),
        catalogue: Some("facts = 'fetch'"),
        ..usual()
    })
    .await;
    world.upstream.tells(true);
    world
        .upstream
        .answers(|_| json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#));
    let (git, clock) = (&world.shared.servers["git"], Arc::clone(&world.clock) as _);
    assert_eq!(git.catalogue.fetch(git, &clock).await, Ok(0));
    let own: Vec<_> = world
        .upstream
        .seen()
        .into_iter()
        .filter(super::support::Seen::is_own)
        .collect();
    assert!(!own.is_empty());
    assert!(
        own.iter()
            .all(|seen| seen.headers["authorization"] == "Bearer t1"),
        "{own:?}"
    );
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn clients_prove_themselves_as_configured() {
    let shutdown = Shutdown::new();
    let server = Server::start(&shutdown).await;
    let ask = async |oauth: &str| {
        let before = server.asked().len();
        let world = world(&server, oauth).await;
        assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 200);
        world.end().await;
        server.asked()[before].clone()
    };
    let post = ask("client_auth = 'client_secret_post'").await;
    assert_eq!(
        (
            post.form["client_id"].as_str(),
            post.form["client_secret"].as_str()
        ),
        ("proxy", "hunter2")
    );
    assert!(!post.headers.contains_key("authorization"));
    let key = taper_dpop::PrivateKey::from_bytes(taper_dpop::Algorithm::Es256, &[7; 32]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.jwk");
    taper_service::secret::write_private_file(&path, key.to_jwk_string().as_bytes()).unwrap();
    let signed = ask(&format!(
        "client_auth = 'private_key_jwt'\nclient_key = '{}'\nassertion_audience = 'https://as.test'",
        path.display()
    ))
    .await;
    assert_eq!(
        signed.form["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    let claims = verified(&signed.form["client_assertion"], &key.public(), "https://as.test");
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&"proxy".into(), &"proxy".into())
    );
    assert!(!signed.headers.contains_key("authorization") && !signed.form.contains_key("client_secret"));
    shutdown.trigger();
}

/// The claims of a JWT that was signed with `key`, for `audience`, at the clock of the tests.
pub(super) fn verified(jwt: &str, key: &taper_dpop::PublicKey, audience: &str) -> Value {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = taper_dpop::base64url_decode(signature).unwrap();
    key.verify(signed.as_bytes(), &signature).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| -> Value {
        serde_json::from_slice(&taper_dpop::base64url_decode(part).unwrap()).unwrap()
    };
    assert_eq!(read(header)["kid"], key.thumbprint().to_string());
    let claims = read(claims);
    assert_eq!(claims["aud"], audience);
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!(
        life == 60 && claims["jti"].as_str().is_some_and(|jti| jti.len() == 22),
        "{claims}"
    );
    claims
}
