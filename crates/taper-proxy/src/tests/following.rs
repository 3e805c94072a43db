//! Following an issuer: its root keys and its revocations, from a feed on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use taper_capability::RootKey;
use taper_service::clock::ManualClock;
use taper_service::edge::{Bound, EdgeLimits};
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use taper_store::{
    FEED_SIGNATURE, FEED_TYP, FeedKnown, FeedPage, FeedPosition, History, Revocation, RevocationKey,
    load_position, persist_position,
};
use tower::service_fn;

use super::support::{ISSUER, NOW};
use crate::body::{Body, full};
use crate::feed::{Follower, follow_keys};
use crate::issuers::{IssuerState, Issuers};
use crate::refusal::Refusal;

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer: status, `Taper-Signature`, body.
type Scripted = (u16, Option<String>, String);
/// What the issuer answers: a script by request target.
type Script = Arc<Mutex<Box<dyn FnMut(&str, &HeaderMap) -> Scripted + Send>>>;

async fn issuer(
    shutdown: &Shutdown,
    script: impl FnMut(&str, &HeaderMap) -> Scripted + Send + 'static,
) -> SocketAddr {
    let script: Script = Arc::new(Mutex::new(Box::new(script)));
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let addr = bound.local_addr();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = script.lock().unwrap()(&request.uri().to_string(), request.headers());
        let (status, signature, text) = answer;
        let mut response: Response<Body> = Response::new(full(text));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(signature) = signature {
            response
                .headers_mut()
                .insert(FEED_SIGNATURE, signature.parse().unwrap());
        }
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

/// The key set of one root key.
fn key_set(root: &RootKey) -> String {
    let mut key = serde_json::to_value(root.public().to_jwk()).unwrap();
    key["kid"] = root.id().to_string().into();
    json!({ "keys": [key] }).to_string()
}

/// A feed that revoked the grants `g1`, `g2`, … and was never pruned.
#[derive(Clone)]
struct Feed {
    entries: Vec<Revocation>,
}

impl Feed {
    fn of(grants: u64) -> Self {
        let entry = |seq: u64| Revocation {
            seq,
            at: NOW,
            issuer: ISSUER.into(),
            what: RevocationKey::Grant(format!("g{seq}")),
            until: None,
        };
        Self {
            entries: (1..=grants).map(entry).collect(),
        }
    }

    fn position(&self, seq: u64) -> FeedPosition {
        let told = self.entries.iter().take(usize::try_from(seq).unwrap());
        let history = told.fold(History::default(), |before, entry| entry.history(before));
        FeedPosition { seq, history }
    }

    /// The answer to a request target, of at most `limit` entries.
    fn page(&self, target: &str, limit: usize) -> FeedPage {
        let number = |name: &str| {
            let (_, rest) = target.split_once(&format!("{name}=")).unwrap();
            rest.split('&').next().unwrap().parse::<u64>().unwrap()
        };
        let (after, known, head) = (number("after"), number("known"), self.entries.len() as u64);
        let entries: Vec<Revocation> = self
            .entries
            .iter()
            .filter(|entry| entry.seq > after)
            .take(limit)
            .cloned()
            .collect();
        let upto = entries.last().map_or(head, |entry| entry.seq);
        FeedPage {
            issuer: ISSUER.into(),
            after,
            entries,
            head,
            upto,
            history: self.position(upto).history,
            known: Some(FeedKnown {
                seq: known,
                history: (known <= head).then(|| self.position(known).history),
            }),
            time: NOW,
        }
    }
}

/// As an issuer signs it.
fn signed(page: &FeedPage, root: &RootKey) -> Scripted {
    let body = serde_json::to_string(page).unwrap();
    let signature = root.sign_detached(FEED_TYP, body.as_bytes()).unwrap();
    (200, Some(signature), body)
}

/// A proxy's part that follows, with the issuer's keys known.
struct Following {
    shutdown: Shutdown,
    clock: Arc<ManualClock>,
    issuers: Arc<Issuers>,
    folder: tempfile::TempDir,
}

impl Following {
    fn new(root: &RootKey, floor: FeedPosition) -> Self {
        let state = IssuerState::new(ISSUER, None, Some(floor), Duration::from_secs(30));
        let issuers = Arc::new(Issuers::new(vec![state]));
        issuers.set_keys(ISSUER, key_set(root).as_bytes()).unwrap();
        Self {
            shutdown: Shutdown::new(),
            clock: ManualClock::shared(NOW),
            issuers,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn position_file(&self) -> std::path::PathBuf {
        self.folder.path().join("feed.json")
    }

    async fn follow(&self, script: impl FnMut(&str, &HeaderMap) -> Scripted + Send + 'static) {
        let addr = issuer(&self.shutdown, script).await;
        let follower = Follower {
            issuer: ISSUER.to_owned(),
            uri: format!("http://{addr}/revocations"),
            authorization: "Basic abc".parse().unwrap(),
            max_staleness: Duration::from_secs(30),
            position_file: self.position_file(),
        };
        let (issuers, clock) = (Arc::clone(&self.issuers), Arc::clone(&self.clock));
        let run = follower.run(issuers, fetcher(), clock as _, self.shutdown.clone());
        self.shutdown.spawn("follower", run);
    }

    fn reached(&self) -> FeedPosition {
        self.issuers.get(ISSUER).unwrap().feed().unwrap().reached()
    }

    fn refusal(&self) -> Option<Refusal> {
        let feed = self.issuers.get(ISSUER).unwrap().feed().unwrap();
        feed.refuse_doubt(NOW).err()
    }

    fn unready(&self) -> String {
        self.issuers.unready(NOW).join("\n")
    }

    async fn end(self) {
        self.shutdown.trigger();
        self.shutdown.drain(PATIENCE).await.unwrap();
    }
}

fn kept(path: &Path) -> FeedPosition {
    load_position(path, ISSUER).unwrap()
}

#[tokio::test]
async fn the_feed_is_followed_and_its_position_kept() {
    let (root, feed) = (RootKey::generate(1, &mut rng::os()), Feed::of(2));
    let following = Following::new(&root, FeedPosition::START);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, told) = (Arc::clone(&asked), feed.clone());
    let script = move |target: &str, headers: &HeaderMap| {
        let mut seen = seen.lock().unwrap();
        let credentials = headers["authorization"].to_str().unwrap();
        seen.push(format!("{target} {credentials}"));
        match seen.len() {
            1 => (500, None, String::new()),
            _ => signed(&told.page(target, 1), &root),
        }
    };
    following.follow(script).await;
    until("complete", || following.issuers.unready(NOW).is_empty()).await;
    until("asked again", || asked.lock().unwrap().len() >= 4).await;
    let first: Vec<String> = asked.lock().unwrap().iter().take(4).cloned().collect();
    assert_eq!(
        first,
        [
            "/revocations?after=0&wait=0&known=0 Basic abc",
            "/revocations?after=0&wait=0&known=0 Basic abc",
            "/revocations?after=1&wait=0&known=1 Basic abc",
            "/revocations?after=2&wait=25&known=2 Basic abc",
        ]
    );
    assert_eq!(following.reached(), feed.position(2));
    assert_eq!(kept(&following.position_file()), feed.position(2));
    following.end().await;
}

/// With a pause after each of them, these pages would take longer than anybody here waits.
#[tokio::test]
async fn pages_that_leave_some_behind_follow_each_other_at_once() {
    let root = RootKey::generate(1, &mut rng::os());
    let following = Following::new(&root, FeedPosition::START);
    let feed = Feed::of(100);
    following
        .follow(move |target, _| signed(&feed.page(target, 1), &root))
        .await;
    until("complete", || following.issuers.unready(NOW).is_empty()).await;
    assert_eq!(following.reached().seq, 100);
    following.end().await;
}

#[tokio::test]
async fn a_page_without_its_issuers_signature_is_not_believed() {
    let (root, other) = (
        RootKey::generate(1, &mut rng::os()),
        RootKey::generate(2, &mut rng::os()),
    );
    let following = Following::new(&root, FeedPosition::START);
    let asked = Arc::new(Mutex::new(0));
    let (count, root) = (Arc::clone(&asked), Arc::new(root));
    let script = move |target: &str, _: &HeaderMap| {
        let (feed, mut count) = (Feed::of(1), count.lock().unwrap());
        *count += 1;
        let good = signed(&feed.page(target, 1), &root);
        match *count {
            1 => (200, None, good.2),
            2 => (200, good.1, good.2.replace("g1", "g2")),
            _ => signed(&feed.page(target, 1), &other),
        }
    };
    following.follow(script).await;
    until("asked again", || *asked.lock().unwrap() >= 3).await;
    until("why", || !following.unready().is_empty()).await;
    let wanted = following.issuers.get(ISSUER).unwrap();
    let asked_for = tokio::time::timeout(PATIENCE, wanted.keys_wanted.notified()).await;
    assert!(asked_for.is_ok(), "an unknown key is asked for");
    assert_eq!(following.reached(), FeedPosition::START);
    let expected = format!(
        "{ISSUER}: its revocation feed is not complete yet: its pages are not signed by a root key that is known"
    );
    until("why", || following.unready() == expected).await;
    following.end().await;
}

#[tokio::test]
async fn a_new_root_key_is_waited_for_and_then_used_at_once() {
    let (old, new) = (
        RootKey::generate(1, &mut rng::os()),
        RootKey::generate(2, &mut rng::os()),
    );
    let following = Following::new(&old, FeedPosition::START);
    let set = key_set(&new);
    following
        .follow(move |target, _| signed(&Feed::of(1).page(target, 1), &new))
        .await;
    let state = following.issuers.get(ISSUER).unwrap();
    let asked_for = tokio::time::timeout(PATIENCE, state.keys_wanted.notified()).await;
    assert!(asked_for.is_ok(), "an unknown key is asked for");
    following.issuers.set_keys(ISSUER, set.as_bytes()).unwrap();
    until("complete", || following.issuers.unready(NOW).is_empty()).await;
    following.end().await;
}

/// What is enforced when a proxy stops is what it must be told again when it starts.
#[tokio::test]
async fn after_a_restart_a_feed_that_lost_what_was_enforced_is_refused() {
    let root = Arc::new(RootKey::generate(1, &mut rng::os()));
    let (whole, mut forked) = (Feed::of(3), Feed::of(4));
    forked.entries[1].what = RevocationKey::Grant("another".into());
    for (lost, reason) in [
        (Feed::of(2), "it lost revocations that were enforced here"),
        (forked, "it tells another history than it told here before"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("feed.json");
        persist_position(&path, ISSUER, whole.position(3)).unwrap();
        let following = Following::new(&root, kept(&path));
        assert!(
            matches!(following.refusal(), Some(Refusal::Stale)),
            "nothing is known yet"
        );
        let tells = Arc::new(Mutex::new(lost));
        let (told, key) = (Arc::clone(&tells), Arc::clone(&root));
        following
            .follow(move |target, _| signed(&told.lock().unwrap().page(target, 10), &key))
            .await;
        let mut streams = following.issuers.changes();
        until("refused", || {
            matches!(following.refusal(), Some(Refusal::FeedHistory))
        })
        .await;
        let woken = tokio::time::timeout(PATIENCE, streams.changed()).await;
        assert!(woken.is_ok(), "streams are looked at again");
        let expected = format!("{ISSUER}: its revocation feed is not complete yet: {reason}");
        assert_eq!(following.unready(), expected);
        assert_eq!(following.reached(), FeedPosition::START, "nothing of it is taken");
        // The issuer found what it had lost.
        *tells.lock().unwrap() = whole.clone();
        until("believed again", || following.refusal().is_none()).await;
        assert_eq!(following.reached(), whole.position(3));
        following.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_remembered_is_not_relied_on() {
    let root = RootKey::generate(1, &mut rng::os());
    let following = Following::new(&root, FeedPosition::START);
    // A folder cannot be replaced by a file.
    std::fs::create_dir_all(following.position_file().join("x")).unwrap();
    following
        .follow(move |target, _| signed(&Feed::of(1).page(target, 1), &root))
        .await;
    let expected = format!(
        "{ISSUER}: its revocation feed is not complete yet: its position cannot be written to the state folder"
    );
    until("why", || following.unready() == expected).await;
    assert_eq!(following.reached(), FeedPosition::START);
    std::fs::remove_dir_all(following.position_file()).unwrap();
    until("complete", || following.issuers.unready(NOW).is_empty()).await;
    following.end().await;
}

#[tokio::test]
async fn root_keys_are_fetched_with_patience() {
    let shutdown = Shutdown::new();
    let root = RootKey::generate(1, &mut rng::os());
    let set = key_set(&root);
    let mut answers = vec![(503, None, String::new()), (200, None, "{}".to_owned())].into_iter();
    let script = move |_: &str, _: &HeaderMap| answers.next().unwrap_or_else(|| (200, None, set.clone()));
    let addr = issuer(&shutdown, script).await;
    let state = IssuerState::new(ISSUER, None, None, Duration::MAX);
    let issuers = Arc::new(Issuers::new(vec![state]));
    let uri = format!("http://{addr}/jwks.json");
    let run = follow_keys(
        ISSUER.to_owned(),
        uri,
        Arc::clone(&issuers),
        fetcher(),
        Arc::new(ManualClock::new(NOW)),
        shutdown.clone(),
    );
    shutdown.spawn("keys", run);
    until("known", || issuers.unready(NOW).is_empty()).await;
    shutdown.trigger();
    shutdown.drain(PATIENCE).await.unwrap();
}
