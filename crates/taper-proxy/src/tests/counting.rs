//! Max-calls caveats: what is counted, under which counters, and what survives.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use taper_capability::{Caveat, Delegation, Grant, Narrowing, ResourceMatch, Token};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;
use taper_store::{Audit as _, CallCounters, Counter, Outcome, Record, Reservation, SeenProofs, StoreError};

use super::support::{Ask, NOW, Setup, URL, World, decided, json as answer, usual};
use crate::chains::Chains;
use crate::config::NonceMode;
use crate::gate::{self, Asked, Gate, Judgement};
use crate::headers::Credentials;
use crate::permitted::{Outbound, Permitted};
use crate::session::Owners;
use crate::stream::Lease;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const PAYROLL: &str = r#"{"repo_path":"acme/payroll"}"#;

fn at_most(calls: i64) -> Caveat {
    Caveat::MaxCalls {
        counter: "c1".into(),
        calls,
    }
}

fn narrowed(world: &World, token: &Token, caveats: Vec<Caveat>) -> Token {
    let narrowing = caveats.into_iter().fold(Narrowing::new(), Narrowing::only);
    narrowing.sign(token, &world.holder, &mut rng::os()).unwrap()
}

/// A capability of the holder for at most `calls` calls.
fn limited(world: &World, calls: i64) -> Token {
    narrowed(world, &world.issue(&world.grant()), vec![at_most(calls)])
}

/// A new key, and the capability handed on to it for at most `calls` calls.
fn handed(world: &World, token: &Token, calls: i64) -> (PrivateKey, Token) {
    let child = PrivateKey::generate(Algorithm::Es256, &mut rng::os());
    let delegation = Delegation::to(child.public())
        .until(NOW + 60)
        .only(at_most(calls));
    let token = delegation.sign(token, &world.holder, &mut rng::os()).unwrap();
    (child, token)
}

async fn status(ask: Ask<'_>) -> u16 {
    ask.send().await.status.as_u16()
}

/// The counters in the journal's decisions of this outcome.
fn counted(decisions: Vec<Value>, outcome: &str) -> Vec<Value> {
    let of_outcome = decisions
        .into_iter()
        .filter(|record| record["outcome"] == outcome);
    of_outcome
        .filter_map(|mut record| record.get_mut("counted").map(Value::take))
        .collect()
}

#[tokio::test]
async fn the_call_after_the_last_is_denied_and_each_is_in_the_journal_before_it_is_forwarded() {
    let world = World::start(usual()).await;
    let token = limited(&world, 5);
    let journaled = Arc::new(Mutex::new(Vec::new()));
    let (seen, dir) = (Arc::clone(&journaled), world.state_folder());
    world.upstream.answers(move |_| {
        let so_far = counted(decided(&dir), "allow").len();
        seen.lock().unwrap().push(so_far);
        answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    });
    // Read-only tools and others alike.
    for tool in ["git_log", "git_push", "git_log", "git_push", "git_log"] {
        let arguments = if tool == "git_log" { LOG } else { "{}" };
        assert_eq!(
            status(world.call(tool, arguments).token(token.as_str())).await,
            200
        );
    }
    assert_eq!(*journaled.lock().unwrap(), [1, 2, 3, 4, 5]);
    for _ in 0..3 {
        let denied = world.call("git_log", LOG).token(token.as_str()).send().await;
        assert_eq!(denied.status.as_u16(), 403);
        let error = &denied.json()["error"];
        assert_eq!(
            (&error["code"], &error["data"]["rule"], &error["data"]["link"]),
            (&json!(4403), &json!("R-22"), &json!(1))
        );
        assert_eq!(
            error["data"]["caveat"],
            json!({ "max_calls": { "counter": "c1", "calls": 5 } })
        );
    }
    assert_eq!(world.upstream.seen().len(), 5);
    assert_eq!(
        counted(decided(&world.state_folder()), "deny"),
        Vec::<Value>::new()
    );
    let other = limited(&world, 5);
    assert_eq!(
        status(world.call("git_log", LOG).token(other.as_str())).await,
        200,
        "another grant's counter of the same name"
    );
    let sealed = token.sealed().unwrap();
    assert_eq!(
        status(world.call("git_log", LOG).token(sealed.as_str())).await,
        403,
        "another text of the same capability"
    );
    world.end().await;
}

#[tokio::test]
async fn of_calls_that_come_together_as_many_pass_as_may() {
    let world = World::start(usual()).await;
    let token = limited(&world, 5);
    let calls = (0..20).map(|_| status(world.call("git_log", LOG).token(token.as_str())));
    let mut answers = join_all(calls).await;
    answers.sort_unstable();
    assert_eq!((&answers[..5], &answers[5..]), (&[200; 5][..], &[403; 15][..]));
    assert_eq!(world.upstream.seen().len(), 5);
    world.end().await;
}

#[tokio::test]
async fn what_is_denied_is_not_counted() {
    let setup = Setup {
        policy: Some("deny if tool(\"git_push\");\nallow if true;"),
        ..usual()
    };
    let world = World::start(setup).await;
    let web = Caveat::Resource {
        kind: "repo".into(),
        matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
    };
    let push = Caveat::Method {
        methods: vec!["tools/call".into(), "ping".into(), "tools/list".into()],
    };
    let token = narrowed(&world, &world.issue(&world.grant()), vec![web, push, at_most(2)]);
    let call = |tool: &str, arguments: &str| status(world.call(tool, arguments).token(token.as_str()));
    let other = |body: &str| status(world.ask(body).token(token.as_str()));
    for _ in 0..2 {
        assert_eq!(call("git_log", PAYROLL).await, 403, "a caveat");
        assert_eq!(
            call("git_push", "{}").await,
            403,
            "no such resource, and the policy"
        );
        assert_eq!(call("git_log", "{}").await, 403, "the profile");
        assert_eq!(call("git_show", "{}").await, 403, "the grant");
        assert_eq!(other("not json").await, 400);
        let read = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"repo://acme/web"}}"#;
        assert_eq!(other(read).await, 403, "the method");
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for expected in [200, 200, 403] {
        // Neither plumbing nor lists use up anything, before and after.
        assert_eq!((other(ping).await, other(list).await), (200, 200));
        assert_eq!(call("git_log", LOG).await, expected);
    }
    assert_eq!(counted(decided(&world.state_folder()), "allow").len(), 2);
    world.end().await;
}

#[tokio::test]
async fn a_childs_calls_count_for_its_parent_and_not_for_its_sibling() {
    let world = World::start(usual()).await;
    let parent = limited(&world, 5);
    let (one, first) = handed(&world, &parent, 3);
    let (two, second) = handed(&world, &parent, 3);
    let denied_by = async |key: &PrivateKey, token: &Token| {
        let answer = world
            .call("git_log", LOG)
            .token(token.as_str())
            .key(key)
            .send()
            .await;
        (answer.status.as_u16() != 200).then(|| answer.json()["error"]["data"]["link"].clone())
    };
    for _ in 0..3 {
        assert_eq!(denied_by(&one, &first).await, None);
    }
    assert_eq!(denied_by(&one, &first).await, Some(json!(2)), "its own limit");
    // Both links name their counter `c1`, so a child sees both, and the fuller one decides.
    assert_eq!(denied_by(&two, &second).await, Some(json!(2)));
    assert_eq!(denied_by(&world.holder, &parent).await, None);
    assert_eq!(denied_by(&world.holder, &parent).await, None);
    assert_eq!(denied_by(&world.holder, &parent).await, Some(json!(1)));

    let keys = counted(decided(&world.state_folder()), "allow");
    let used: Vec<usize> = keys.iter().map(|keys| keys.as_array().unwrap().len()).collect();
    assert_eq!(used, [2, 2, 2, 1, 1], "the child's calls under both counters");
    world.end().await;
}

#[tokio::test]
async fn siblings_share_the_parents_counter_only() {
    let world = World::start(usual()).await;
    let parent = limited(&world, 5);
    let (one, first) = named(&world, &parent, "own");
    let (two, second) = named(&world, &parent, "own");
    let link = async |key: &PrivateKey, token: &Token| {
        let ask = world.call("git_log", LOG).token(token.as_str()).key(key);
        ask.send().await.json()["error"]["data"]["link"].as_u64()
    };
    for (key, token) in [(&one, &first); 3] {
        assert_eq!(link(key, token).await, None);
    }
    assert_eq!(link(&one, &first).await, Some(2));
    assert_eq!(link(&two, &second).await, None);
    assert_eq!(link(&two, &second).await, None);
    assert_eq!(
        link(&two, &second).await,
        Some(1),
        "five calls of both, by the parent's limit"
    );
    world.end().await;
}

/// Handed on for three calls under a name that the parent does not use.
fn named(world: &World, token: &Token, counter: &str) -> (PrivateKey, Token) {
    let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let caveat = Caveat::MaxCalls {
        counter: counter.into(),
        calls: 3,
    };
    let delegation = Delegation::to(child.public()).until(NOW + 60).only(caveat);
    let token = delegation.sign(token, &world.holder, &mut rng::os()).unwrap();
    (child, token)
}

#[tokio::test]
async fn counts_survive_a_restart_and_the_loss_of_the_state() {
    let mut world = World::start(usual()).await;
    let token = limited(&world, 3);
    for lose in [false, true] {
        assert_eq!(
            status(world.call("git_log", LOG).token(token.as_str())).await,
            200
        );
        if lose {
            let state = world.state_folder().join("state");
            world = world
                .restarted_after(usual(), || std::fs::remove_dir_all(state).unwrap())
                .await;
        } else {
            world = world.restarted_after(usual(), || ()).await;
        }
    }
    assert_eq!(
        status(world.call("git_log", LOG).token(token.as_str())).await,
        200
    );
    assert_eq!(
        status(world.call("git_log", LOG).token(token.as_str())).await,
        403
    );
    world.end().await;
}

#[tokio::test]
async fn the_issuers_caveat_is_counted_for_the_grant_whoever_calls() {
    let world = World::start(usual()).await;
    let grant = Grant {
        caveats: vec![at_most(3)],
        ..world.grant()
    };
    let (token, renewed) = (
        world.issue(&grant),
        world.issue(&Grant {
            expires_at: grant.expires_at + 60,
            ..grant
        }),
    );
    let (child, handed) = handed(&world, &token, 3);
    assert_eq!(
        status(world.call("git_log", LOG).token(token.as_str())).await,
        200
    );
    assert_eq!(
        status(world.call("git_log", LOG).token(handed.as_str()).key(&child)).await,
        200
    );
    assert_eq!(
        status(world.call("git_log", LOG).token(renewed.as_str())).await,
        200
    );
    for token in [token, renewed] {
        assert_eq!(
            status(world.call("git_log", LOG).token(token.as_str())).await,
            403
        );
    }
    world.end().await;
}

#[tokio::test]
async fn a_subscription_is_one_call() {
    let world = World::start(usual()).await;
    let token = limited(&world, 2);
    let listen = |uris: &[&str]| {
        let params = json!({ "notifications": { "resourceSubscriptions": uris } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params });
        status(world.ask(body.to_string()).token(token.as_str()))
    };
    let three = ["repo://acme/a", "repo://acme/b", "repo://acme/c"];
    assert_eq!(listen(&[]).await, 200);
    assert_eq!(
        listen(&["repo://acme/a", "repo://other/b"]).await,
        403,
        "the second has no right"
    );
    assert_eq!(listen(&three).await, 200);
    assert_eq!(listen(&three[..1]).await, 200);
    assert_eq!(listen(&three).await, 403);
    assert_eq!(listen(&[]).await, 200, "plumbing");
    let keys = counted(decided(&world.state_folder()), "allow");
    assert_eq!(keys.len(), 2);
    world.end().await;
}

#[tokio::test]
async fn several_proxies_without_a_shared_store_count_nothing() {
    let setup = Setup {
        top: "proxies = 2\nnonce = 'demand'",
        ..usual()
    };
    let world = World::start(setup).await;
    let ask = world.call("git_log", LOG);
    let nonce = ask.send().await.header("dpop-nonce").to_owned();
    let with_nonce = || {
        let nonce = nonce.clone();
        world
            .call("git_log", LOG)
            .claims(move |c| c.nonce = Some(nonce.clone()))
    };
    let answer = with_nonce().token(limited(&world, 5).as_str()).send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["data"]["rule"]),
        (403, &json!("R-22"))
    );
    assert_eq!(status(with_nonce()).await, 200);
    world.end().await;
}

/// A gate of its own over the state of `world`'s.
fn gate(world: &World, counters: Arc<dyn CallCounters>) -> Gate {
    Gate {
        issuers: Arc::clone(&world.shared.gate.issuers),
        chains: Chains::new(1 << 20),
        policy: world.shared.gate.policy.clone(),
        proofs: gate::guard(
            Arc::clone(&world.shared.store) as Arc<dyn SeenProofs>,
            NonceMode::Off,
        ),
        counters: Some(counters),
    }
}

fn judged(gate: &Gate, ask: &Ask<'_>) -> Judgement {
    let headers = ask.request().headers().clone();
    let credentials = Credentials::of(&headers).unwrap();
    let presentation = gate.authenticate(&credentials, "POST", URL, NOW).unwrap();
    let asked = Asked {
        presentation: Arc::new(presentation),
        profile: Arc::clone(&ask.world.shared.servers.get("git").unwrap().profile),
        sessions: Arc::new(Owners::new(1)),
        tasks: Arc::new(Owners::new(1)),
        limiter: Arc::clone(&ask.world.shared.servers.get("git").unwrap().limiter),
        catalogue: Arc::clone(&ask.world.shared.servers.get("git").unwrap().catalogue),
        method: Method::POST,
        headers,
        body: Bytes::from(ask.body.clone()),
        client_ip: None,
        decision_id: "d".into(),
    };
    gate.judge(asked, NOW)
}

/// What a lasting answer to `ask` depends on.
fn lease(gate: &Gate, ask: &Ask<'_>, permitted: &Permitted<Outbound>) -> Lease {
    let credentials = Credentials::of(ask.request().headers()).unwrap();
    let presentation = gate.authenticate(&credentials, "POST", URL, NOW).unwrap();
    let shared = &ask.world.shared;
    let server = shared.servers.get("git").unwrap();
    shared.lease(
        server,
        Arc::new(presentation),
        permitted,
        "d",
        &ask.world.shutdown,
    )
}

/// Cannot count.
struct Broken;

impl CallCounters for Broken {
    fn reserve(&self, _: &str, _: &[Counter]) -> Result<Reservation, StoreError> {
        Err(StoreError::State("unreadable".into()))
    }
}

#[tokio::test]
async fn a_store_that_cannot_count_stops_what_is_to_be_counted() {
    let world = World::start(usual()).await;
    let gate = gate(&world, Arc::new(Broken));
    let judgement = judged(
        &gate,
        &world.call("git_log", LOG).token(limited(&world, 5).as_str()),
    );
    let refusal = judgement.verdict.err().unwrap();
    assert_eq!(refusal.rule().as_str(), "M-35");
    let record = judgement.record.unwrap();
    assert_eq!(
        (record.outcome, record.rule.as_deref()),
        (Outcome::Indeterminate, Some("M-35"))
    );
    assert!(judgement.calls.is_none());
    let uncounted = judged(&gate, &world.call("git_log", LOG));
    assert!(uncounted.verdict.is_ok() && uncounted.calls.is_none());
    world.end().await;
}

#[tokio::test]
async fn a_judgement_that_nobody_uses_counts_nothing_and_a_lasting_answer_counts_once() {
    let world = World::start(usual()).await;
    let gate = gate(&world, Arc::clone(&world.shared.store) as _);
    let token = limited(&world, 1);
    let ask = || world.call("git_log", LOG).token(token.as_str());
    let judgement = judged(&gate, &ask());
    assert!(judgement.verdict.is_ok() && judgement.calls.is_some());
    assert!(
        judged(&gate, &ask()).verdict.is_err(),
        "the one call is under way"
    );
    drop(judgement);
    let judgement = judged(&gate, &ask());
    let (calls, permitted) = (judgement.calls.unwrap(), judgement.verdict.unwrap());
    assert_eq!(calls.values(), [1]);
    let record = Record {
        at_ms: 0,
        kind: taper_store::RecordKind::Decision(judgement.record.unwrap()),
    };
    world.shared.store.append_counted(record, calls).await.unwrap();
    assert!(judged(&gate, &ask()).verdict.is_err());

    let lease = lease(&gate, &ask(), &permitted);
    for _ in 0..3 {
        assert!(lease.check(&mut 0).await.is_ok(), "not denied by its own count");
    }
    drop(lease);
    drop(gate);
    assert_eq!(counted(decided(&world.state_folder()), "allow").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn each_resource_of_a_subscription_is_asked_for_again() {
    let setup = Setup {
        policy: Some("deny if uri(\"repo://acme/b\"), time($t), $t >= 2027-01-15T08:00:10Z;\nallow if true;"),
        ..usual()
    };
    let world = World::start(setup).await;
    let gate = gate(&world, Arc::clone(&world.shared.store) as _);
    let token = limited(&world, 2);
    let listen = |uris: [&str; 2]| {
        let params = json!({ "notifications": { "resourceSubscriptions": uris } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params });
        world.ask(body.to_string()).token(token.as_str())
    };
    let leased = |uris: [&str; 2]| {
        let ask = listen(uris);
        let permitted = judged(&gate, &ask).verdict.unwrap();
        lease(&gate, &ask, &permitted)
    };
    let (free, bound) = (
        leased(["repo://acme/a", "repo://acme/c"]),
        leased(["repo://acme/a", "repo://acme/b"]),
    );
    assert!(free.check(&mut 0).await.is_ok() && bound.check(&mut 0).await.is_ok());
    world.clock.advance(10);
    assert!(free.check(&mut 0).await.is_ok() && bound.check(&mut 0).await.is_err());
    drop((free, bound, gate));
    world.end().await;
}
