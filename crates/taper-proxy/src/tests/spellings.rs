//! Arguments of which a server that ignores case would take another one than was read here (M-17).

use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, Narrowing};
use taper_service::rng;

use super::support::{Setup, World, usual};

/// Calls of `git_push` with these arguments: what passes, and what is refused for its spelling.
async fn check(setup: Setup, caveat: Option<Caveat>, passing: &[&str], refused: &[&str]) {
    let world = World::start(setup).await;
    let mut token = world.issue(&world.grant());
    if let Some(caveat) = caveat {
        let narrowing = Narrowing::new().only(caveat);
        token = narrowing.sign(&token, &world.holder, &mut rng::os()).unwrap();
    }
    for arguments in passing.iter().chain(refused) {
        let answer = world
            .call("git_push", arguments)
            .token(token.as_str())
            .send()
            .await;
        let expected = if passing.contains(arguments) {
            (200, serde_json::Value::Null)
        } else {
            (400, (-32600).into())
        };
        let told = (answer.status.as_u16(), answer.json()["error"]["code"].clone());
        assert_eq!(told, expected, "{arguments}: {:?}", answer.json());
    }
    assert_eq!(world.upstream.seen().len(), passing.len());
    let rules: Vec<String> = world
        .decisions()
        .await
        .into_iter()
        .map(|(_, rule)| rule)
        .collect();
    let (allowed, denied) = rules.split_at(passing.len());
    assert!(allowed.iter().all(String::is_empty), "{rules:?}");
    assert_eq!(denied, vec!["M-17"; refused.len()]);
    world.end().await;
}

fn policy(policy: &'static str) -> Setup {
    Setup {
        policy: Some(policy),
        ..usual()
    }
}

#[tokio::test]
async fn what_a_template_reads_has_one_spelling_on_the_way_to_it() {
    let setup = |server| Setup { server, ..usual() };
    check(
        setup("tools.git_push.resources = { path = '{/target/path}' }"),
        None,
        &[
            r#"{"target":{"path":"pub/a"}}"#,
            r#"{"target":{"path":"pub/a","x":1,"X":2}}"#,
            r#"{"target":{"path":"pub/a","env":{"PATH":"/bin","Path":"/x"}}}"#,
        ],
        &[
            r#"{"target":{"path":"pub/a","Path":"secret"}}"#,
            r#"{"target":{"PATH":"secret","path":"pub/a"}}"#,
            r#"{"target":{"path":"pub/a","pat\u0048":"secret"}}"#,
        ],
    )
    .await;
    check(
        setup("tools.git_push.resources = { path = '{/items/1/ks/paths[]}' }"),
        None,
        &[r#"{"items":[{"KS":1},{"ks":{"paths":["a"]}}]}"#],
        &[
            r#"{"items":[{},{"ks":{"paths":["a"],"Paths":["b"]}}]}"#,
            "{\"items\":[{},{\"ks\":{\"paths\":[\"a\"]},\"k\u{17f}\":{\"paths\":[\"b\"]}}]}",
            "{\"items\":[{},{\"ks\":{\"paths\":[\"a\"]},\"\u{212a}S\":{\"paths\":[\"b\"]}}]}",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_a_caveat_reads_has_one_spelling_on_the_way_to_it() {
    let caveat = Caveat::Argument {
        pointer: "/o/ninth".into(),
        matches: ArgumentMatch::Equals(ArgumentValue::Integer(5)),
    };
    check(
        usual(),
        Some(caveat),
        &[
            r#"{"o":{"ninth":5}}"#,
            r#"{"o":{"ninth":5,"headers":{"A":1,"a":2}}}"#,
        ],
        &[
            r#"{"o":{"ninth":5,"Ninth":6}}"#,
            "{\"o\":{\"n\u{131}nth\":6,\"ninth\":5}}",
            "{\"o\":{\"N\u{130}NTH\":6,\"ninth\":5}}",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_a_policy_reads_has_one_spelling() {
    check(
        policy("deny if args($a), $a.contains(\"force\") && $a.get(\"force\") === true; allow if true;"),
        None,
        &[r#"{"force":false}"#, "{}", r#"{"x":{"Force":true}}"#],
        &[r#"{"Force":true}"#, r#"{"FORCE":false}"#],
    )
    .await;
    check(
        policy(
            "push($a) <- args($a); allow if true;
             deny if push($a), $a.contains(\"o\") && $a.get(\"o\").contains(\"force\");",
        ),
        None,
        &[r#"{"o":{"x":1,"X":2}}"#, r#"{"p":{"Force":true}}"#],
        &[r#"{"o":{"Force":true}}"#, r#"{"O":{"force":true}}"#],
    )
    .await;
    check(
        policy(
            "allow if args($a), $a.get(\"paths\").all($p -> $p.get(\"to\").get(0).starts_with(\"pub/\"));",
        ),
        None,
        &[
            r#"{"paths":[{"to":["pub/a"],"from":{"x":1,"X":1}}],"To":1}"#,
            r#"{"paths":[]}"#,
        ],
        &[r#"{"paths":[{"to":["pub/a"],"To":["secret"]}]}"#],
    )
    .await;
    // A name that a policy has in a list, or compares with that of an entry.
    for text in [
        "deny if args($a), [\"force\", \"mirror\"].any($k -> $a.contains($k) && $a.get($k) === true); allow if true;",
        "deny if args($a), $a.any($e -> $e.get(0) === \"force\"); allow if true;",
    ] {
        check(
            policy(text),
            None,
            &[r#"{"x":1}"#, r#"{"forced":true}"#],
            &[r#"{"Force":true}"#, r#"{"x":{"FORCE":1}}"#],
        )
        .await;
    }
    // Which one is read is not known before.
    check(
        policy("deny if args($a), tool($t), $a.get(\"of\").contains($t); allow if true;"),
        None,
        &[r#"{"of":{"x":1},"headers":{"A":1,"a":2}}"#],
        &[
            r#"{"of":{"x":1,"y":[{"z":1,"Z":2}]}}"#,
            r#"{"of":{"GIT_PUSH":1}}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_name_that_a_policy_has_elsewhere_has_one_spelling() {
    for text in [
        "forbidden(\"force\"); deny if args($a), forbidden($k), $a.contains($k); allow if true;",
        "names([\"force\", \"mirror\"]); allow if true;
         deny if args($a), names($n), $n.any($k -> $a.contains($k));",
        "names({\"force\": 1}); allow if true;
         deny if args($a), names($n), $n.any($k -> $a.contains($k.get(0)));",
        "kind(\"bad\", \"force\"); forbidden($k) <- kind(\"bad\", $k); push($a) <- args($a);
         deny if push($a), forbidden($k), $a.any($e -> $e.get(0) === $k); allow if true;",
        "forbidden(\"force\") <- server(\"git\"); deny if args($a), forbidden($k), $a.contains($k);
         allow if true;",
        "deny if args($a), $a.contains(\"for\" + \"ce\"); allow if true;",
    ] {
        check(
            policy(text),
            None,
            &[r#"{"repoPath":"x"}"#, r#"{"forced":true,"x":"Force"}"#],
            &[r#"{"Force":true}"#],
        )
        .await;
    }
    // A text of the arguments may be the name too.
    check(
        policy("deny if args($a), $a.get(\"of\").contains($a.get(\"key\")); allow if true;"),
        None,
        &[r#"{"of":{"x":1},"key":"y"}"#],
        &[r#"{"of":{"X":1},"key":"x"}"#],
    )
    .await;
}

#[tokio::test]
async fn what_a_policy_compares_as_a_whole_has_names_of_one_spelling() {
    for text in [
        "deny if args($a), $a.any($e -> $e === [\"force\", true]); allow if true;",
        "deny if args($a), $a.any($e -> $e.starts_with([\"force\"])); allow if true;",
        "deny if args($a), $a.any($e -> [[\"force\", true]].contains($e)); allow if true;",
        "deny if args({\"force\": true}); allow if true;",
        "bad({\"force\": true}); deny if args($a), bad($a); allow if true;",
        "deny if args($a), $a.any($e -> $e.get(0).starts_with(\"for\")); allow if true;",
    ] {
        check(
            policy(text),
            None,
            &[r#"{"repoPath":"x"}"#, r#"{"x":"Force"}"#],
            &[r#"{"Force":true}"#],
        )
        .await;
    }
    for text in [
        "deny if args($a), $a.get(\"o\") === {\"force\": true}; allow if true;",
        "bad({\"force\": true}); deny if args($a), bad($o), $a.get(\"o\") === $o; allow if true;",
    ] {
        check(
            policy(text),
            None,
            &[r#"{"o":{"repoPath":"x"}}"#, r#"{"o":{},"headers":{"Force":1}}"#],
            &[r#"{"o":{"Force":true}}"#],
        )
        .await;
    }
}

#[tokio::test]
async fn what_nothing_reads_may_have_any_keys() {
    check(
        usual(),
        None,
        &[
            r#"{"headers":{"A":"1","a":"2"},"env":{"http_proxy":"x","HTTP_PROXY":"y"}}"#,
            r#"{"Path":"x"}"#,
        ],
        &[],
    )
    .await;
}

#[tokio::test]
async fn names_may_be_compared_with_a_list_of_each_tool() {
    for text in [
        "allowed({\"git_push\": [\"path\", \"max_count\"]}); allow if true;
         deny if args($a), tool($t), allowed($m), !$a.all($e -> $m.get($t).contains($e.get(0)));",
        "deny if args($a), tool($t), !$a.all($e -> {\"git_push\": [\"path\"]}.get($t).contains($e.get(0)));
         allow if true;",
    ] {
        let world = World::start(policy(text)).await;
        let token = world.issue(&world.grant());
        for (arguments, status) in [
            (r#"{"path":"x"}"#, 200),
            ("{}", 200),
            (r#"{"force":true}"#, 403),
            (r#"{"Path":"x"}"#, 403),
        ] {
            let call = world.call("git_push", arguments).token(token.as_str());
            let answer = call.send().await;
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{text} {arguments}: {:?}",
                answer.json()
            );
        }
        world.end().await;
    }
    // What is denied otherwise is not asked about; here another spelling would pass.
    check(
        policy(
            "denied({\"git_push\": [\"force\"]}); allow if true;
             deny if args($a), tool($t), denied($m), $a.any($e -> $m.get($t).contains($e.get(0)));",
        ),
        None,
        &[r#"{"path":"x"}"#, r#"{"paths":["x"],"maxCount":1}"#],
        &[r#"{"Force":true}"#, r#"{"x":{"FORCE":true}}"#],
    )
    .await;
}
