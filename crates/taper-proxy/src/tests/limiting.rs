//! What callers may use up: rates, places, bodies, decisions that run into a limit. Whoever is over gets
//! 429 or 503 and an honest neighbour does not notice.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use taper_capability::Grant;
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::clock::SystemClock;
use taper_service::edge::BoxError;
use taper_service::rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::accounts::{page, sum};
use super::support::{Answer, Ask, Setup, World, config, usual};
use crate::limits::Limiter;
use crate::{Config, Proxy};

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn with(server: &'static str) -> Setup {
    let Setup { server: usual, .. } = usual();
    let server = format!("{usual}\n{server}");
    Setup {
        server: Box::leak(server.into_boxed_str()),
        ..super::support::usual()
    }
}

/// Somebody who may call, and the capability for it.
struct Caller {
    key: PrivateKey,
    token: String,
}

impl Caller {
    /// Another holder of the grant that `change` makes of the usual one.
    fn new(world: &World, change: impl FnOnce(&mut Grant)) -> Self {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let mut grant = Grant {
            holder: key.public(),
            ..world.grant()
        };
        change(&mut grant);
        let token = world.issue(&grant).as_str().to_owned();
        Self { key, token }
    }

    fn call<'a>(&self, world: &'a World) -> Ask<'a> {
        world.call("git_log", LOG).token(&self.token).key(&self.key)
    }

    async fn status(&self, world: &World) -> u16 {
        self.call(world).send().await.status.as_u16()
    }
}

/// 429 or 503 with everything that belongs to it; of what was refused the upstream saw nothing, and the
/// journal has no decision.
#[track_caller]
fn limited(world: &World, ask: Ask<'_>, status: u16, rule: &'static str) -> impl Future<Output = Answer> {
    let caller = std::panic::Location::caller();
    let (request, before) = (ask.request(), world.upstream.seen().len());
    async move {
        let decided = world.decisions().await.len();
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{caller}: {answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["code"], &error["data"]["rule"]),
            (&4503.into(), &rule.into()),
            "{caller}"
        );
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!(after >= 1, "{caller}");
        assert_eq!(world.upstream.seen().len(), before, "{caller}");
        assert_eq!(world.decisions().await.len(), decided, "{caller}");
        answer
    }
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let watched = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, watched).await.is_ok(), "{what}");
}

pub(super) fn limiter(world: &World) -> &Limiter {
    &world.shared.servers.get("git").unwrap().limiter
}

/// An upstream each of whose answers is a stream of the kind, which lasts until its end is dropped.
pub(super) fn lasting(
    world: &World,
    kind: &'static str,
) -> mpsc::UnboundedReceiver<mpsc::Sender<&'static str>> {
    let (ends, opened) = mpsc::unbounded_channel();
    world.upstream.answers(move |_| {
        let (send, receive) = mpsc::channel::<&'static str>(8);
        ends.send(send).unwrap();
        let parts = stream::unfold(receive, |mut receive| async {
            let part = receive.recv().await?;
            let frame = Frame::data(Bytes::from_static(part.as_bytes()));
            Some((Ok::<_, BoxError>(frame), receive))
        });
        let mut response = Response::new(StreamBody::new(parts.boxed()).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(kind));
        response
    });
    opened
}

#[tokio::test]
async fn each_rate_counts_its_own_and_nobody_elses() {
    let same_grant = |world: &World, id: String| Caller::new(world, |grant| grant.id = id);
    let check = async |rate: &'static str, shared_by_grant: u16, shared_by_subject: u16| {
        let world = World::start(with(rate)).await;
        let id = Grant::new_id(&mut rng::os());
        let one = same_grant(&world, id.clone());
        assert_eq!((one.status(&world).await, one.status(&world).await), (200, 200));
        let answer = limited(&world, one.call(&world), 429, "M-39").await;
        assert_eq!(answer.header("retry-after"), "5", "{rate}");

        let other = same_grant(&world, id);
        assert_eq!(
            other.status(&world).await,
            shared_by_grant,
            "{rate}: another holder"
        );
        let third = Caller::new(&world, |_| ());
        assert_eq!(
            third.status(&world).await,
            shared_by_subject,
            "{rate}: another grant"
        );
        let stranger = Caller::new(&world, |grant| grant.subject.sub = "bob".into());
        assert_eq!(stranger.status(&world).await, 200, "{rate}: another subject");
        world.clock.advance(4);
        limited(&world, one.call(&world), 429, "M-39").await;
        world.clock.advance(1);
        assert_eq!(one.status(&world).await, 200);
        limited(&world, one.call(&world), 429, "M-39").await;
        world.end().await;
    };
    check(
        "rate.per_holder = { requests = 12, per = '1m', burst = 2 }",
        200,
        200,
    )
    .await;
    check(
        "rate.per_grant = { requests = 12, per = '1m', burst = 2 }",
        429,
        200,
    )
    .await;
    check(
        "rate.per_subject = { requests = 12, per = '1m', burst = 2 }",
        429,
        429,
    )
    .await;
}

#[tokio::test]
async fn a_captured_request_uses_up_nothing_of_its_holder() {
    let world = World::start(with(
        "rate.per_holder = { requests = 2, per = '1m' }\nlimits.max_undecided_per_holder = 1",
    ))
    .await;
    let ask = world.call("git_log", LOG);
    let captured = ask.request();
    assert_eq!(world.send(captured.clone()).await.status.as_u16(), 200);
    for _ in 0..10 {
        let answer = world.send(captured.clone()).await;
        assert!(answer.header("www-authenticate").contains("R-13"), "{answer:?}");
    }
    assert_eq!(ask.send().await.status.as_u16(), 200);
    limited(&world, world.call("git_log", LOG), 429, "M-39").await;
    world.end().await;
}

#[tokio::test]
async fn who_is_over_its_rate_takes_nothing_from_the_rest_of_its_grant() {
    let world = World::start(with(
        "rate.per_holder = { requests = 1, per = '1m' }\nrate.per_grant = { requests = 2, per = '1m' }",
    ))
    .await;
    let id = Grant::new_id(&mut rng::os());
    let caller = || Caller::new(&world, |grant| grant.id.clone_from(&id));
    let (one, two) = (caller(), caller());
    assert_eq!(one.status(&world).await, 200);
    for _ in 0..5 {
        limited(&world, one.call(&world), 429, "M-39").await;
    }
    assert_eq!(two.status(&world).await, 200);
    world.end().await;
}

#[tokio::test]
async fn a_grant_over_its_rate_makes_no_crowd_of_holders() {
    let world = World::start(with(
        "rate.per_holder = { requests = 9, per = '1m' }\nrate.per_grant = { requests = 1, per = '1m' }",
    ))
    .await;
    let id = Grant::new_id(&mut rng::os());
    let caller = || Caller::new(&world, |grant| grant.id.clone_from(&id));
    assert_eq!(caller().status(&world).await, 200);
    for _ in 0..3 {
        limited(&world, caller().call(&world), 429, "M-39").await;
    }
    assert_eq!(limiter(&world).callers(), [1, 1]);
    world.end().await;
}

#[tokio::test]
async fn who_is_over_its_rate_does_not_use_up_the_table_of_proofs() {
    let world = World::start(with("rate.per_holder = { requests = 1, per = '1m' }")).await;
    assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 200);
    let refused = world.call("git_log", LOG).request();
    assert_eq!(world.send(refused.clone()).await.status.as_u16(), 429);
    world.clock.advance(60);
    assert_eq!(
        world.send(refused.clone()).await.status.as_u16(),
        200,
        "its proof was not taken"
    );
    let again = world.send(refused).await;
    assert!(again.header("www-authenticate").contains("R-13"), "{again:?}");
    world.end().await;
}

#[tokio::test]
async fn what_ends_work_does_not_wait_for_its_place() {
    let world = World::start(with("limits.max_running = 1")).await;
    let mut opened = lasting(&world, "application/json");
    let call = world.open(world.call("git_log", LOG).request()).await;
    let _end = opened.recv().await.unwrap();
    limited(&world, world.call("git_log", LOG), 503, "M-40").await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let cancelled = world.open(world.ask(cancel).request()).await;
    assert_eq!(cancelled.status().as_u16(), 200);
    let _cancelled = opened.recv().await.unwrap();
    let ended = world.open(world.ask("").method(Method::DELETE).request()).await;
    assert_eq!(ended.status().as_u16(), 200);
    let _ended = opened.recv().await.unwrap();
    // Nothing is outstanding, which is found when it is decided.
    let answer = world.ask(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).send().await;
    assert_eq!(answer.status.as_u16(), 400, "{answer:?}");
    let request = cancel.replace(r#""method""#, r#""id":1,"method""#);
    limited(&world, world.ask(request), 503, "M-40").await;
    drop((call, cancelled, ended));
    world.end().await;
}

#[tokio::test]
async fn a_capability_for_another_server_is_not_in_the_way() {
    let world = World::start(with("limits.max_bodies = 4")).await;
    let foreign = Caller::new(&world, |grant| {
        grant.audiences = vec!["https://proxy.test/other/mcp".into()];
    });
    let _waiting = begun(&world, &head(&foreign.call(&world), true)).await;
    until("its body is waited for", || limiter(&world).foreign_in_use() == 1).await;
    assert_eq!(limiter(&world).in_use()[2], (0, 0, 0));
    limited(&world, foreign.call(&world), 429, "M-40").await;
    assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 200);
    world.end().await;
}

#[tokio::test]
async fn a_place_is_held_until_the_answer_ends() {
    let check = async |limit: &'static str, status: u16, bound: &str| {
        let world = World::start(with(limit)).await;
        let mut opened = lasting(&world, "application/json");
        let id = Grant::new_id(&mut rng::os());
        let one = Caller::new(&world, |grant| grant.id.clone_from(&id));
        let sibling = Caller::new(&world, |grant| grant.id.clone_from(&id));
        let stranger = Caller::new(&world, |_| ());
        let mut first = world.open(one.call(&world).request()).await;
        let end = opened.recv().await.unwrap();

        let (over, neighbour) = match bound {
            "holder" => (&one, Some(&sibling)),
            "grant" => (&sibling, Some(&stranger)),
            _ => (&stranger, None),
        };
        limited(&world, over.call(&world), status, "M-40").await;
        if let Some(neighbour) = neighbour {
            let answer = world.open(neighbour.call(&world).request()).await;
            assert_eq!(answer.status().as_u16(), 200, "{limit}");
            opened.recv().await.unwrap();
        }

        // Ended by the upstream.
        end.send("{}").await.unwrap();
        drop(end);
        assert!(first.body_mut().frame().await.unwrap().is_ok());
        assert!(first.body_mut().frame().await.is_none());
        until("the neighbour's answer has ended as well", || {
            limiter(&world).in_use()[0].0 == 0
        })
        .await;
        let second = world.open(over.call(&world).request()).await;
        assert_eq!(second.status().as_u16(), 200, "{limit}: the place is free again");
        let end = opened.recv().await.unwrap();
        limited(&world, over.call(&world), status, "M-40").await;

        // Ended by the caller.
        drop((first, second));
        until("all places are free", || {
            limiter(&world).in_use() == [(0, 0, 0); 3]
        })
        .await;
        assert_eq!(
            world.open(over.call(&world).request()).await.status().as_u16(),
            200
        );
        drop(end);
        world.end().await;
    };
    check("limits.max_running_per_holder = 1", 429, "holder").await;
    check("limits.max_running_per_grant = 1", 429, "grant").await;
    check("limits.max_running = 1", 503, "server").await;
}

#[tokio::test]
async fn a_refused_or_failed_request_leaves_its_place() {
    let world = World::start(with("limits.max_running = 1")).await;
    for _ in 0..3 {
        let denied = world.call("git_clone", "{}").send().await;
        assert_eq!(denied.status.as_u16(), 403);
        world.upstream.answers(|_| {
            let mut response = Response::new(crate::body::empty());
            *response.status_mut() = http::StatusCode::FOUND;
            response
        });
        assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 502);
    }
    world.upstream.answers_json("{}");
    assert_eq!(world.call("git_log", LOG).send().await.status.as_u16(), 200);
    world.end().await;
}

#[tokio::test]
async fn streams_have_places_of_their_own() {
    let world = World::start(with(
        "limits.max_streams_per_holder = 1\nlimits.max_running_per_holder = 1",
    ))
    .await;
    let mut opened = lasting(&world, "text/event-stream");
    let (one, other) = (Caller::new(&world, |_| ()), Caller::new(&world, |_| ()));
    let get = |caller: &Caller| {
        let ask = world.ask("").method(Method::GET);
        ask.token(&caller.token).key(&caller.key)
    };
    let listen = |caller: &Caller| {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
        world.ask(body).token(&caller.token).key(&caller.key)
    };
    let stream = world.open(get(&one).request()).await;
    assert_eq!(stream.status().as_u16(), 200);
    let _end = opened.recv().await.unwrap();
    limited(&world, get(&one), 429, "M-40").await;
    limited(&world, listen(&one), 429, "M-40").await;
    assert_eq!(limiter(&world).in_use()[1], (1, 1, 1));
    assert_eq!(sum(&page(&world), "taper_proxy_streams", "server=\"git\""), 1);

    let calling = world.open(one.call(&world).request()).await;
    assert_eq!(
        calling.status().as_u16(),
        200,
        "a stream is not in the way of a call"
    );
    let _call = opened.recv().await.unwrap();
    let neighbour = world.open(listen(&other).request()).await;
    assert_eq!(neighbour.status().as_u16(), 200);
    let _other = opened.recv().await.unwrap();
    drop(stream);
    until("the stream has ended", || limiter(&world).in_use()[1].0 == 1).await;
    assert_eq!(world.open(listen(&one).request()).await.status().as_u16(), 200);
    drop((calling, neighbour));
    world.end().await;
}

/// The head of a request, with its credentials or without.
fn head(ask: &Ask<'_>, authenticated: bool) -> String {
    let request = ask.request();
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri().path());
    for (name, value) in request.headers() {
        if authenticated || (name != "authorization" && name != "dpop") {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
    }
    format!("{head}content-length: {}\r\n\r\n", ask.body.len())
}

/// A connection on which a head was sent, and no body yet.
async fn begun(world: &World, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The beginning of the answer that is on its way.
async fn answered(stream: &mut TcpStream) -> String {
    let mut text = vec![0_u8; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut text)).await;
    text.truncate(read.unwrap().unwrap());
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn bodies_that_do_not_come_hold_a_bounded_number_of_places() {
    let world = World::start(with("limits.max_bodies = 4")).await;
    let bodies = || limiter(&world).in_use()[2].0;
    let id = Grant::new_id(&mut rng::os());
    let one = Caller::new(&world, |grant| grant.id.clone_from(&id));
    // Who proves nothing holds nothing.
    for _ in 0..8 {
        let mut anonymous = begun(&world, &head(&one.call(&world), false)).await;
        assert!(answered(&mut anonymous).await.starts_with("HTTP/1.1 401"));
    }
    assert_eq!(bodies(), 0);

    let (first, second) = (one.call(&world), one.call(&world));
    let sent = head(&first, true);
    let mut honest = begun(&world, &sent).await;
    until("its body is waited for", || bodies() == 1).await;
    // The same head, as a thief sends it, gets no place of its own.
    for _ in 0..8 {
        let mut thief = begun(&world, &sent).await;
        assert!(answered(&mut thief).await.contains("R-13"));
    }
    assert_eq!(bodies(), 1);
    let waiting_second = begun(&world, &head(&second, true)).await;
    until("the next one's too", || bodies() == 2).await;
    // Half of the places is a grant's share, whoever holds it.
    limited(&world, one.call(&world), 429, "M-40").await;
    let sibling = Caller::new(&world, |grant| grant.id.clone_from(&id));
    limited(&world, sibling.call(&world), 429, "M-40").await;
    let (other, third) = (Caller::new(&world, |_| ()), Caller::new(&world, |_| ()));
    assert_eq!(other.status(&world).await, 200);
    let waiting_third = begun(&world, &head(&other.call(&world), true)).await;
    let waiting_fourth = begun(&world, &head(&other.call(&world), true)).await;
    until("all places are taken", || bodies() == 4).await;
    limited(&world, third.call(&world), 503, "M-40").await;

    honest.write_all(first.body.as_bytes()).await.unwrap();
    assert!(answered(&mut honest).await.starts_with("HTTP/1.1 200"));
    until("its place is free", || bodies() == 3).await;
    // A head that was used gets none any more, and is not read.
    let mut thief = begun(&world, &sent).await;
    assert!(answered(&mut thief).await.contains("R-13"));
    assert_eq!(one.status(&world).await, 200);
    assert_eq!(third.status(&world).await, 200);
    drop((waiting_second, waiting_third, waiting_fourth));
    world.end().await;
}

/// More facts than an evaluation may have, for one tool.
const COSTLY: &str = "n(1); n(2); n(3); n(4); n(5); n(6); n(7); n(8); n(9); n(10); n(11); n(12); n(13); n(14); n(15); \
    n(16); n(17);\np($a, $b, $c) <- n($a), n($b), n($c), tool(\"git_push\");\nallow if true;";

#[tokio::test]
async fn who_makes_costly_decisions_waits_before_the_next_one() {
    let setup = Setup {
        policy: Some(COSTLY),
        ..with("limits.max_undecided_per_holder = 2\nlimits.max_undecided_per_grant = 3")
    };
    let world = World::start(setup).await;
    let id = Grant::new_id(&mut rng::os());
    let caller = || Caller::new(&world, |grant| grant.id.clone_from(&id));
    let (one, two, three) = (caller(), caller(), caller());
    let costly = async |caller: &Caller| {
        let ask = world.call("git_push", "{}").token(&caller.token).key(&caller.key);
        let answer = ask.send().await;
        let error = answer.json()["error"].clone();
        (
            answer.status.as_u16(),
            error["data"]["rule"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let undecided = (503, "R-26".to_owned());
    assert_eq!(costly(&one).await, undecided);
    assert_eq!(one.status(&world).await, 200, "below the number");
    assert_eq!(costly(&one).await, undecided);
    // Whatever it asks now, costly or not.
    let answer = limited(&world, one.call(&world), 429, "M-41").await;
    assert_eq!(answer.header("retry-after"), "60");
    assert_eq!(two.status(&world).await, 200, "another holder");
    assert_eq!(costly(&two).await, undecided);
    // New keys do not help: the grant has its number.
    limited(&world, three.call(&world), 429, "M-41").await;
    let other = Caller::new(&world, |_| ());
    assert_eq!(other.status(&world).await, 200, "another grant");
    world.clock.advance(60);
    assert_eq!((one.status(&world).await, three.status(&world).await), (200, 200));
    let outcomes = world.decisions().await;
    let costly = outcomes.iter().filter(|(outcome, _)| outcome == "indeterminate");
    assert_eq!(costly.count(), 3, "each is in the journal: {outcomes:?}");
    world.end().await;
}

#[tokio::test]
async fn costly_lists_are_counted() {
    let setup = Setup {
        policy: Some(COSTLY),
        ..with("limits.max_undecided_per_holder = 1")
    };
    let world = World::start(setup).await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let shown = async |tools: &'static str| {
        world.upstream.answers_json(tools);
        world.ask(list).send().await.json()["result"]["tools"].clone()
    };
    let log = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_log"}]}}"#;
    assert_eq!(shown(log).await[0]["name"], "git_log");
    let push = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"git_push"}]}}"#;
    assert_eq!(shown(push).await, serde_json::json!([]));
    limited(&world, world.ask(list), 429, "M-41").await;
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut_and_its_place_is_free() {
    let world = World::start(with("limits.answer_idle = '1s'\nlimits.max_running = 1")).await;
    let mut opened = lasting(&world, "application/json");
    let mut answer = world.open(world.call("git_log", LOG).request()).await;
    let end = opened.recv().await.unwrap();
    end.send("{").await.unwrap();
    assert!(answer.body_mut().frame().await.unwrap().is_ok());
    let next = tokio::time::timeout(PATIENCE, answer.body_mut().frame()).await;
    assert!(next.unwrap().unwrap().is_err(), "not a clean end");
    end.closed().await;
    until("its place is free", || limiter(&world).in_use()[0].0 == 0).await;
    world.end().await;
}

#[test]
fn limits_that_mean_nothing_are_found_at_the_start() {
    let check = |line: &str, named: &str| {
        let folder = tempfile::tempdir().unwrap();
        let root = taper_capability::RootKey::generate(7, &mut rng::os());
        let setup = with(Box::leak(line.to_owned().into_boxed_str()));
        let config: Config = config(&setup, &root, "127.0.0.1:1".parse().unwrap(), folder.path());
        let refused = Proxy::check(&config, folder.path(), &SystemClock::shared())
            .err()
            .map(|e| e.to_string());
        match refused {
            None => assert_eq!(named, "", "{line}"),
            Some(text) => assert!(!named.is_empty() && text.contains(named), "{line}: {text}"),
        }
    };
    check("rate.per_holder = { requests = 1, per = '1s' }", "");
    check(
        "rate.per_holder = { requests = 0, per = '1s' }",
        "rate.per_holder",
    );
    check("rate.per_grant = { requests = 1, per = '0s' }", "rate.per_grant");
    check(
        "rate.per_subject = { requests = 1, per = '1d', burst = 100 }",
        "rate.per_subject",
    );
    check("limits.max_running = 0", "limits.max_running");
    check("limits.max_bodies = 0", "limits.max_bodies");
    check(
        "limits.max_undecided_per_holder = 0",
        "limits.max_undecided_per_holder",
    );
}

#[tokio::test]
async fn a_call_without_a_place_uses_nothing_up() {
    let world = World::start(with("rate.per_holder = { requests = 2, per = '1m' }")).await;
    let caller = Caller::new(&world, |_| {});
    assert_eq!(caller.status(&world).await, 200, "its chain is known");
    let (passed, decided) = (world.upstream.seen().len(), world.decisions().await.len());
    let request = caller.call(&world).request();
    let places: Vec<_> = std::iter::from_fn(|| world.shared.pool.place().ok()).collect();
    for _ in 0..2 {
        let refused = world.send(request.clone()).await;
        assert_eq!(refused.status.as_u16(), 503, "{refused:?}");
        assert_eq!(refused.json()["error"]["data"]["rule"], "M-29");
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(world.upstream.seen().len(), passed);
    assert_eq!(world.decisions().await.len(), decided);
    drop(places);
    assert_eq!(
        world.send(request.clone()).await.status.as_u16(),
        200,
        "the same proof"
    );
    let again = world.send(request).await;
    assert_eq!(again.status.as_u16(), 401, "which passes once: {again:?}");
    world.end().await;
}
