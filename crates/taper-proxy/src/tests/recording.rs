//! Which decisions are in the journal before their request goes on (M-27), with `audit = "async"`.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use taper_capability::{Caveat, Narrowing};
use taper_service::rng;

use super::support::{Ask, Setup, World, decided, json as answer, usual};

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

fn later() -> Setup {
    Setup {
        server: "audit = 'async'\nread_only = ['git_log']\ntools.git_log = { resources = { repo = '{repo_path}' }, arguments = ['max_count'] }",
        ..usual()
    }
}

async fn status(ask: Ask<'_>) -> u16 {
    ask.send().await.status.as_u16()
}

fn tools(decisions: &[Value], outcome: &str) -> Vec<String> {
    let of_outcome = decisions.iter().filter(|record| record["outcome"] == outcome);
    of_outcome
        .filter_map(|record| record["tool"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn what_may_change_something_is_in_the_journal_before_it_is_forwarded() {
    let world = World::start(later()).await;
    let at_upstream = Arc::new(Mutex::new(Vec::new()));
    let (seen, dir) = (Arc::clone(&at_upstream), world.state_folder());
    world.upstream.answers(move |_| {
        seen.lock().unwrap().push(tools(&decided(&dir), "allow"));
        answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    });
    for calls in 1..=3 {
        assert_eq!(status(world.call("git_push", "{}")).await, 200);
        let journaled = at_upstream.lock().unwrap().last().cloned().unwrap();
        assert_eq!(journaled, vec!["git_push"; calls]);
    }
    let narrowing = Narrowing::new().only(Caveat::MaxCalls {
        counter: "c".into(),
        calls: 9,
    });
    let counted = narrowing.sign(&world.issue(&world.grant()), &world.holder, &mut rng::os());
    let counted = counted.unwrap();
    assert_eq!(
        status(world.call("git_log", LOG).token(counted.as_str())).await,
        200
    );
    let journaled = at_upstream.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        journaled.last().map(String::as_str),
        Some("git_log"),
        "a call that is counted"
    );
    // A denial is there as soon as the caller knows it.
    assert_eq!(status(world.call("git_log", r#"{"repo_path":"x"}"#)).await, 200);
    assert_eq!(status(world.call("git_log", r#"{"other":"x"}"#)).await, 403);
    let all = decided(&world.state_folder());
    assert_eq!(all.iter().filter(|record| record["outcome"] == "deny").count(), 1);
    world.end().await;
}

#[tokio::test]
async fn what_changes_nothing_is_in_the_journal_at_the_latest_when_the_proxy_ends() {
    let world = World::start(later()).await;
    world
        .upstream
        .answers_json(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#);
    for _ in 0..5 {
        assert_eq!(status(world.call("git_log", LOG)).await, 200);
    }
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
    assert_eq!(status(world.ask(list)).await, 200);
    world.shared.store.close().await.unwrap();
    let all = decided(&world.state_folder());
    assert_eq!(tools(&all, "allow"), ["git_log"; 5]);
    assert!(all.iter().any(|record| record["method"] == "tools/list"));
    assert_eq!(world.shared.store.later_waiting(), 0);
}

#[tokio::test]
async fn without_a_place_for_its_record_nothing_goes_on() {
    for setup in [usual(), later()] {
        let world = World::start(setup).await;
        assert_eq!(status(world.call("git_push", "{}")).await, 200);
        world.shared.store.close().await.unwrap();
        for ask in [world.call("git_log", LOG), world.call("git_push", "{}")] {
            let refused = ask.send().await;
            assert_eq!(refused.status.as_u16(), 503);
            assert_eq!(refused.json()["error"]["data"]["rule"], "M-27");
        }
        assert_eq!(world.upstream.seen().len(), 1);
    }
}

#[tokio::test]
async fn what_a_caller_wrote_at_length_is_in_the_journal_by_its_beginning() {
    let world = World::start(usual()).await;
    let long = "\u{e9}".repeat(150_000);
    let message = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#);
    let check = async |ask: Ask<'_>, status: u16, rule: &str, named: (&str, &str)| {
        assert_eq!(ask.send().await.status.as_u16(), status, "{rule}");
        let record = decided(&world.state_folder()).pop().unwrap();
        let told = |name: &str| record[name].as_str().unwrap_or_default();
        assert_eq!((told("outcome"), told("rule")), ("deny", rule));
        assert_eq!((told("method"), told("tool")), named);
        assert!(told("reason").len() <= 1_024, "{}", told("reason").len());
    };
    // A character of two bytes that would end at byte 126 is left out: the sign has three.
    let odd = format!("x{long}");
    let cut = format!("x{}\u{2026}", "\u{e9}".repeat(62));
    check(world.ask(message(&odd)), 403, "M-19", (&cut, "")).await;
    let cut = format!("{}\u{2026}", "\u{e9}".repeat(62));
    check(world.call(&long, "{}"), 403, "R-21", ("tools/call", &cut)).await;
    check(
        world.call(&long, r#"{"repo_path":"x"}"#),
        403,
        "R-21",
        ("tools/call", &cut),
    )
    .await;
    check(world.ask(message("acme/other")), 403, "M-19", ("acme/other", "")).await;
    world.end().await;
}

#[tokio::test]
async fn resources_of_any_length_are_no_reason_to_record_nothing() {
    let world = World::start(Setup {
        server: "tools.git_push.resources = { path = '{paths[]}' }",
        ..usual()
    })
    .await;
    let paths = |count: usize| {
        let path = format!("\"{}\"", "\u{e9}".repeat(2_000));
        format!("{{\"paths\":[{}]}}", vec![path; count].join(","))
    };
    assert_eq!(status(world.call("git_push", &paths(16))).await, 200);
    assert_eq!(status(world.call("git_push", &paths(64))).await, 403);
    assert_eq!(
        world.decisions().await,
        [
            ("allow".to_owned(), String::new()),
            ("deny".to_owned(), "M-21".to_owned())
        ]
    );
    world.end().await;
}
