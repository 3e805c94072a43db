//! M-17 is complete: where arguments are not refused for their keys, a decision is the same over the arguments that
//! a server sees which ignores case.

use super::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use taper_capability::json::Value;

/// What a policy knows beside its conditions.
const KNOWN: &str = r#"
    name("force"); list(["force", "key"]); set({"force", "o"}); entry(["force", true]); map({"force": true});
    named({"force": ["force", "key"]});
    other({"o": {"force": true}}); index(0);
    again($b, $u) <- args($b), tool($u); mixed($x) <- args($x); mixed($x) <- name($x);
"#;

const BODY: &str = "args($a), again($b, $u), tool($t), name($k), list($l), set($s), entry($e), map($m), named($n), index($i)";

/// Conditions that read the arguments in each way that there is. All their texts are in lower case.
const CONDITIONS: [&str; 55] = [
    r#"$a.contains("force")"#,
    r#"$a.get("force") === true"#,
    r#"$a.get("o").contains("force")"#,
    r#"$b.get("o").get("force") === true"#,
    r#"(true && $a.get("o")).contains("force")"#,
    r#"(($a)).get("o").get("key") === "force""#,
    r#"$a.get("o").get(0).contains("force")"#,
    r#"$a.get("o").get($i).get("force") === true"#,
    r#"$a.contains($k)"#,
    r#"$a.get($k) === true"#,
    r#"$a.contains($u) && $a.get($t) === true"#,
    r#"$a.contains("for" + "ce")"#,
    r#"$a.get("o").contains($a.get("key"))"#,
    r#"$a.get($a.get("key")) === true"#,
    r#"$a.get("o").any($x -> $b.contains($x.get(0)))"#,
    r#"$l.any($x -> $a.contains($x))"#,
    r#"$s.all($x -> $a.contains($x))"#,
    r#"["force", "o"].any($x -> $a.get($x) === true)"#,
    r#"$m.all($x -> $a.contains($x.get(0)))"#,
    r#"$a.any($x -> $x.get(0) === "force")"#,
    r#"$a.any($x -> $x.get($i) === $k)"#,
    r#"$a.all($x -> $l.contains($x.get(0)))"#,
    r#"$a.all($x -> {"force", "o"}.contains($x.get(0)))"#,
    r#"$a.any($x -> $m.contains($x.get(0)) && $m.get($x.get(0)))"#,
    r#"$a.any($x -> $x.any($y -> $m.get($y) === true))"#,
    r#"$a.all($x -> $n.get($t).contains($x.get(0)))"#,
    r#"$a.all($x -> {"force": ["force", "o"]}.get($t).contains($x.get(0)))"#,
    r#"$n.all($x -> $a.any($y -> $x.get(1).contains($y.get(0))))"#,
    r#"$a.any($x -> $x.get(1) === true)"#,
    r#"$a.all($x -> $x.contains("force"))"#,
    r#"$a.any($x -> $x === ["force", true])"#,
    r#"$a.any($x -> $e === $x)"#,
    r#"$a.any($x -> $x.starts_with(["force"]))"#,
    r#"$a.any($x -> $e.starts_with($x))"#,
    r#"$a.any($x -> [["force", true]].contains($x))"#,
    r#"$a.any($x -> $x.any($y -> $y === "force"))"#,
    r#"$a.any($x -> $b.any($y -> $x === $y && $x.get(0) === "force"))"#,
    r#"$a.get("o").any($x -> $a.get("key") === $x.get(0))"#,
    r#"$a.get("o") === {"force": true}"#,
    r#"$a.get("o") === $m"#,
    r#"[{"force": true}].contains($a.get("o"))"#,
    r#"$a.get("o").contains({"force": true})"#,
    r#"$a === {"o": {"force": true}}"#,
    r#"$a.get("o") === $a.get("key")"#,
    r#"$a.get("o") !== $a.get("force")"#,
    r#"$a.get("o").contains($a.get("key")) || $a.get("key").contains($a.get("o"))"#,
    r#"$a.get("o").length() === 1"#,
    r#"$a.any($x -> $x.get(1).length() === 1)"#,
    r#"$a.get("o").any($x -> $x.get(0).length() === 5)"#,
    r#"$a.any($x -> $x.get(0).starts_with("for"))"#,
    r#"$a.any($x -> $x.get(0).ends_with("rce") || $x.get(0).contains("orc"))"#,
    r#"$a.get("o").any($x -> $x.get(0).matches("^fo"))"#,
    r#"$a.get("o").any($x -> "force,key".contains($x.get(0)))"#,
    r#"$a.get("o").any($x -> $x.get(0) + "x" === "forcex")"#,
    r#"$a.get("o").any($x -> $x.get(0).starts_with($k))"#,
];

/// Conditions with predicates of their own.
const QUERIES: [&str; 5] = [
    r#"args({"force": true})"#,
    r#"again({"o": {"force": true}}, $t)"#,
    "args($a), other($a)",
    "again($a, $t), map($a)",
    r#"args($a), mixed($x), $a.contains($x)"#,
];

fn any_arguments() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => Just(Value::Bool(true)),
        1 => prop::sample::select(vec!["force", "o", "key"]).prop_map(|text| Value::String(text.into())),
    ];
    let names = || {
        prop::sample::select(vec![
            "force",
            "Force",
            "fORCE",
            "o",
            "O",
            "key",
            "\u{212a}ey",
            "fort",
        ])
    };
    let object = move |values: BoxedStrategy<Value>| {
        let members = prop::collection::btree_map(names(), values, 0..4);
        members.prop_map(|members| {
            Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name.into(), value))
                    .collect(),
            )
        })
    };
    let inner = leaf.boxed().prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            3 => object(inner.clone()),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    });
    prop::collection::btree_map(names(), inner, 0..4).prop_map(|members| {
        Value::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        )
    })
}

/// What a server sees that ignores case: of two keys that are one to it the last counts.
fn seen(value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(seen).collect()),
        Value::Object(members) => {
            let mut all: Vec<(String, Value)> = Vec::new();
            for (name, value) in members {
                let name = json::folded(name);
                all.retain(|(known, _)| *known != name);
                all.push((name, seen(value)));
            }
            Value::Object(all)
        }
        other => other.clone(),
    }
}

#[test]
fn what_is_not_refused_for_its_keys_is_decided_as_a_server_reads_it() {
    let w = any_tool();
    let p = w.present(&w.token, &w.holder);
    let bodies = CONDITIONS.iter().map(|condition| format!("{BODY}, {condition}"));
    let bodies = bodies.chain(QUERIES.iter().map(|query| (*query).to_owned()));
    let policies: Vec<(String, BoundaryPolicy, Cell<bool>)> = bodies
        .flat_map(|body| {
            [
                format!("{KNOWN} deny if {body}; allow if true;"),
                format!("{KNOWN} allow if {body};"),
            ]
        })
        .map(|source| {
            let loaded = policy(&[&source]);
            (source, loaded, Cell::new(false))
        })
        .collect();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(48));
    let passed = runner.run(&any_arguments(), |arguments| {
        // Such are refused before.
        prop_assume!(!arguments.has_twins());
        let access = |arguments: &Value| Access {
            arguments: Some(arguments.clone()),
            ..call("force", "{}", &[])
        };
        let as_sent = access(&arguments);
        let as_seen = access(&seen(&arguments));
        for (source, policy, differs) in &policies {
            let may = |access: &Access| rule(policy, &p, access.clone()).is_none();
            if may(&as_sent) == may(&as_seen) {
                continue;
            }
            differs.set(true);
            let texts = || vocabulary::texts_of(p.chain(), &as_sent, NOW, |word| policy.names(word));
            let is_refused = policy.reads().are_ambiguous([], [], &arguments, texts);
            prop_assert!(is_refused, "{source}: {arguments}");
        }
        Ok(())
    });
    passed.unwrap();
    let bites = policies.iter().filter(|(_, _, differs)| differs.get()).count();
    assert!(bites * 2 > policies.len(), "{bites} of {}", policies.len());
}
