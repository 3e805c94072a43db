//! Following an issuer: its root keys and its revocations, from a feed on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use taper_capability::RootKey;
use taper_service::clock::{Clock as _, ManualClock};
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use tower::service_fn;

use super::support::{ISSUER, NOW};
use crate::body::{Body, full};
use crate::feed::{Follower, follow_keys};
use crate::issuers::{IssuerState, Issuers};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the issuer answers: a script by request target.
type Script = Arc<Mutex<Box<dyn FnMut(&str, &str) -> (u16, String) + Send>>>;

async fn issuer(shutdown: &Shutdown, script: Script) -> SocketAddr {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let addr = bound.local_addr();
    let service = service_fn(move |request: Request<Incoming>| {
        let credentials = request.headers().get("authorization");
        let credentials = credentials.map_or("", |value| value.to_str().unwrap()).to_owned();
        let (status, text) = script.lock().unwrap()(&request.uri().to_string(), &credentials);
        let mut response: Response<Body> = Response::new(full(text));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    shutdown.spawn("issuer", bound.serve(service, shutdown.clone()));
    addr
}

fn fetcher() -> Fetcher {
    Fetcher::new(&FetchRules {
        allow_loopback_http: true,
        ..FetchRules::default()
    })
    .unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let watched = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, watched).await.is_ok(), "{what}");
}

#[tokio::test]
async fn the_feed_is_followed_and_its_head_kept() {
    let (shutdown, folder) = (Shutdown::new(), tempfile::tempdir().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let script: Script = Arc::new(Mutex::new(Box::new(move |uri, credentials| {
        let mut seen = seen.lock().unwrap();
        seen.push(format!("{uri} {credentials}"));
        let entry = |seq: u64| json!({ "seq": seq, "at": NOW, "issuer": ISSUER, "what": { "grant": format!("g{seq}") } });
        match seen.len() {
            1 => (500, String::new()),
            2 => (
                200,
                json!({ "entries": [entry(1)], "head": 2, "upto": 1, "time": NOW }).to_string(),
            ),
            3 => (
                200,
                json!({ "entries": [entry(2)], "head": 2, "upto": 2, "time": NOW + 99 }).to_string(),
            ),
            // A feed that lost entries is not believed.
            _ => (
                200,
                json!({ "entries": [], "head": 1, "upto": 1, "time": NOW }).to_string(),
            ),
        }
    })));
    let addr = issuer(&shutdown, script).await;
    let clock = ManualClock::shared(NOW);
    let state = IssuerState::new(ISSUER, None, Some(0), Duration::from_secs(30));
    let issuers = Arc::new(Issuers::new(vec![state]));
    let root = RootKey::generate(1, &mut rng::os());
    let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
    key["kid"] = "1".into();
    let set = json!({ "keys": [key] }).to_string();
    issuers.set_keys(ISSUER, set.as_bytes()).unwrap();
    assert!(!issuers.unready(NOW).is_empty());

    let head_file = folder.path().join("head.json");
    let follower = Follower {
        issuer: ISSUER.to_owned(),
        uri: format!("http://{addr}/revocations"),
        authorization: "Basic abc".parse().unwrap(),
        max_staleness: Duration::from_secs(30),
        head_file: head_file.clone(),
    };
    let run = follower.run(
        Arc::clone(&issuers),
        fetcher(),
        Arc::clone(&clock) as _,
        shutdown.clone(),
    );
    shutdown.spawn("follower", run);
    until("complete", || issuers.unready(NOW).is_empty()).await;
    until("kept", || {
        taper_store::load_head(&head_file, ISSUER).is_ok_and(|head| head == Some(2))
    })
    .await;
    until("asked again", || asked.lock().unwrap().len() >= 4).await;
    let first: Vec<String> = asked.lock().unwrap().iter().take(4).cloned().collect();
    assert_eq!(
        first,
        [
            "/revocations?after=0&wait=0 Basic abc",
            "/revocations?after=0&wait=0 Basic abc",
            "/revocations?after=1&wait=0 Basic abc",
            "/revocations?after=2&wait=25 Basic abc",
        ]
    );
    // The issuer's clock was ahead by more; ours counts.
    assert!(issuers.unready(NOW + 30).is_empty() && !issuers.unready(NOW + 31).is_empty());
    assert_eq!(clock.unix(), NOW);
    shutdown.trigger();
    shutdown.drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn root_keys_are_fetched_with_patience() {
    let shutdown = Shutdown::new();
    let root = RootKey::generate(1, &mut rng::os());
    let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
    key["kid"] = "1".into();
    let set = json!({ "keys": [key] }).to_string();
    let mut answers = vec![(503, String::new()), (200, "{}".to_owned())].into_iter();
    let script: Script = Arc::new(Mutex::new(Box::new(move |_, _| {
        answers.next().unwrap_or_else(|| (200, set.clone()))
    })));
    let addr = issuer(&shutdown, script).await;
    let state = IssuerState::new(ISSUER, None, None, Duration::MAX);
    let issuers = Arc::new(Issuers::new(vec![state]));
    let uri = format!("http://{addr}/jwks.json");
    let run = follow_keys(
        ISSUER.to_owned(),
        uri,
        Arc::clone(&issuers),
        fetcher(),
        shutdown.clone(),
    );
    shutdown.spawn("keys", run);
    until("known", || issuers.unready(NOW).is_empty()).await;
    shutdown.trigger();
    shutdown.drain(PATIENCE).await.unwrap();
}
