use super::*;
use crate::json::{JsonLimits, parse};
use biscuit_auth::builder::Check;

/// What a check reads: `=` at the end of the way, `>name` below, `#` how many members (`##` below), `*` by any
/// name, `**` also by one of the arguments, `~part` by a part, `!` otherwise.
#[track_caller]
fn reads(check: &str, flow: &ArgumentFlow, expected: &[&str]) {
    let parsed: Check = check.parse().unwrap();
    let found = ArgumentReads::of(&parsed.queries, [], flow);
    let shown: Vec<String> = found
        .paths
        .iter()
        .map(|path| {
            let end = match &path.end {
                End::Here => "=".to_owned(),
                End::Below(name) => format!(">{name}"),
                End::Number { below: false } => "#".to_owned(),
                End::Number { below: true } => "##".to_owned(),
                End::Any => "*".to_owned(),
                End::Own => "**".to_owned(),
                End::Part(part) => format!("~{part}"),
                End::Otherwise => "!".to_owned(),
            };
            format!("{}{end}", path.way.join("/"))
        })
        .collect();
    assert_eq!(shown, expected, "{check}");
}

/// The same of an expression, beside a tool and what files state and derive.
#[track_caller]
fn of(expression: &str, expected: &[&str]) {
    let facts: Vec<Fact> = [r#"name("x")"#, r#"list(["x"])"#, "number(1)"]
        .iter()
        .map(|fact| fact.parse().unwrap())
        .collect();
    let rule = "again($a, $t) <- args($a), tool($t)".parse().unwrap();
    let flow = ArgumentFlow::new(&facts, &[rule]);
    let body = "args($a), again($b, $u), tool($t), name($k), list($l), number($n)";
    reads(&format!("check if {body}, {expression}"), &flow, expected);
}

#[test]
fn what_is_read_is_found_in_every_form() {
    for (expression, expected) in [
        (r#"$a.get("x") === 1"#, &["x="][..]),
        (
            r#"$a.get("x").get("y").get("z") === 1"#,
            &["x=", "x/y=", "x/y/z="],
        ),
        (r#"1 === $a.get("x"), ($b).get("y") === 1"#, &["x=", "y="]),
        (r#"{1, 2}.contains($a.get("x"))"#, &["x="]),
        (r#"$a.contains("x")"#, &["x="]),
        (
            r#"$a.get("x").contains("y") && !($a.get("z") === 1)"#,
            &["x=", "x/y=", "z="],
        ),
        (r#"$a.get("x").get(0) === 1"#, &["x="]),
        (r#"$a.get("x").get(0).get("y") === 1"#, &["x=", "x>y"]),
        (r#"$a.get("x").get($t) === 1"#, &["x=", "x*"]),
        (r#"$a.get($a.get("x")) === 1"#, &["**", "x="]),
        (
            r#"$a.get("x").any($p -> $p.get("y") === 1)"#,
            &["x=", "x>y", "x#"],
        ),
        (
            r#"$a.get("x").all($p -> $p.get("y").any($q -> $q.get("z") === 1))"#,
            &["x=", "x>y", "x>z", "x#"],
        ),
        (r#"["x", {"y"}].any($p -> $a.get($p) === 1)"#, &["*"]),
        (r#"$a.any($e -> $e.get(0) === "x")"#, &["#", "*"]),
        (r#"$a.any($e -> $e.get(1) === "x")"#, &["#", "*"]),
        (
            r#"$a.get("x").all($p -> $p.get("y").get(0).starts_with("z/"))"#,
            &["x=", "x>y", "x#"],
        ),
        (r#"{"x": "z"}.any($e -> $a.get($e.get(0)) === 1)"#, &["*"]),
        (r#"$a.get("x") === 1 || $a.get("y") === 1"#, &["x=", "y="]),
        (r#"(true && $a.get("x")).get("y") === 1"#, &["x=", "x/y="]),
        (r#"$a.get("x").try_or(false).get("y") === 1"#, &[">y", "x="]),
        (
            r#"$a.length() === 1, $a.get("x").get(0).length() === 1"#,
            &["#", "x=", "x##"],
        ),
        (
            r#"$t === "x", $l.contains($t), $u.starts_with("x"), $k.contains($u + "y")"#,
            &[],
        ),
    ] {
        of(expression, expected);
    }
}

#[test]
fn a_name_may_stand_elsewhere() {
    for (expression, expected) in [
        (r#"$a.contains($k)"#, &["*"][..]),
        (r#"$l.any($p -> $b.contains($p))"#, &["*"]),
        (r#"$a.get("x").get($n) === 1"#, &["x=", "x*"]),
        (r#"$a.get("x").contains("y" + "z")"#, &["x=", "x/yz="]),
    ] {
        of(expression, expected);
    }
}

#[test]
fn a_whole_is_read_with_its_names() {
    for (expression, expected) in [
        (r#"$a.any($e -> $e === ["x", true])"#, &["#", "*"][..]),
        (r#"$a.any($e -> ["x", true] === $e)"#, &["#", "*"]),
        (r#"$a.any($e -> $e.starts_with(["x"]))"#, &["#", "*"]),
        (r#"$a.any($e -> [["x", true]].contains($e))"#, &["#", "*"]),
        (r#"$a.any($e -> $e.contains("x"))"#, &[">x", "#", "##"]),
        (r#"$a.get("x") === {"y": [{"z": 1}]}"#, &["x=", "x>y", "x>z"]),
        (r#"[{"y": 1}].contains($a.get("x"))"#, &["x=", "x>y"]),
        (r#"$a.get("x").contains([{"y": 1}])"#, &["x=", "x>y"]),
        (r#"$a.get("x") === $a.get("y")"#, &["x=", "x**", "y=", "y**"]),
        (
            r#"$a.get("x").contains($a.get("y"))"#,
            &["x=", "x**", "y=", "y**"],
        ),
        (r#"$a.get("x") === $l, $a.get("y") === $k"#, &["x=", "x*", "y="]),
        (r#"$l.contains($a.get("x"))"#, &["x=", "x*"]),
    ] {
        of(expression, expected);
    }
}

#[test]
fn names_are_not_always_compared() {
    for (expression, expected) in [
        (
            r#"$a.any($e -> $e.get(0).starts_with("x"))"#,
            &["#", "*", "~x"][..],
        ),
        (
            r#"$a.any($e -> $e.get(0).contains("x"))"#,
            &[">x", "#", "*", "~x"],
        ),
        (r#"$a.any($e -> $e.get(0).matches("x"))"#, &["#", "*", "!"]),
        (r#"$a.any($e -> $e.get(0) + "x" === "y")"#, &["#", "*", "!"]),
        (
            r#"$a.any($e -> $e.get(0).length() === 1)"#,
            &["#", "##", "*", "!"],
        ),
        (r#"$a.any($e -> $e.get(0).starts_with($t))"#, &["#", "*", "!"]),
        (r#"$a.any($e -> "x,y".contains($e.get(0)))"#, &["#", "*", "!"]),
        (r#"$a.any($e -> $l.contains($e.get(0)))"#, &["#", "*"]),
        (r#"$a.any($e -> $e.any($p -> $p === "x"))"#, &["#", "*"]),
        (
            r#"$a.get("x").all($p -> $p.all($q -> $q.starts_with("y")))"#,
            &["x=", "x#", "x*", "x~y"],
        ),
        (r#"$a.contains($t + "y")"#, &["!"]),
    ] {
        of(expression, expected);
    }
}

#[test]
fn predicates_compare_their_terms() {
    let facts: Vec<Fact> = vec![r#"bad({"x": 1})"#.parse().unwrap()];
    let rules: Vec<Rule> = [
        "two($t, $a) <- tool($t), args($a)",
        "three($z, $y) <- two($y, $z)",
    ]
    .iter()
    .map(|rule| rule.parse().unwrap())
    .collect();
    let flow = ArgumentFlow::new(&facts, &rules);
    for (check, expected) in [
        (r#"check if args({"x": {"y": 1}})"#, &[">x", ">y"][..]),
        (r#"check if three({"x": 1}, $t)"#, &[">x"]),
        ("check if args($a), bad($a)", &["*"]),
        ("check if three($a, $t), bad($a)", &["*"]),
        ("check if three($a, $t), bad($t)", &[]),
        ("check if args($a), args($a)", &[]),
        (r#"check if three($a, $t), $a.get("x") === $t"#, &["x="]),
        (r#"check if three($a, $t), $t.contains("x")"#, &[]),
    ] {
        reads(check, &flow, expected);
    }
}

#[test]
fn a_name_that_is_put_together_is_told() {
    let flow = ArgumentFlow::default();
    for (expression, is_computed) in [
        (r#"$a.get($t + "x") === 1"#, true),
        (r#"$a.contains($t + "x")"#, true),
        (r#"$a.get("x").get("y" + $t) === 1"#, true),
        (r#"$a.get("x" + "y") === 1"#, false),
        (r#"$a.get("x").contains($t + "y")"#, false),
        (r#"$a.get("x") === $t + "y""#, false),
        (r#"$a.get("x").get(1 + 1) === 1"#, false),
    ] {
        let check = format!("check if args($a), tool($t), {expression}");
        let parsed: Check = check.parse().unwrap();
        assert_eq!(flow.has_computed_name(&parsed.queries[0]), is_computed, "{check}");
    }
}

#[track_caller]
fn check(path: &ArgumentPath, arguments: &str, ambiguous: bool) {
    let arguments = parse(arguments.as_bytes(), &JsonLimits::default()).unwrap();
    let mut reads = ArgumentReads::default();
    reads.paths.insert(path.clone());
    reads.texts.insert("known");
    let is = ArgumentReads::default().are_ambiguous([&reads], &arguments, || vec!["Given".into()]);
    assert_eq!(is, ambiguous, "{path:?} {arguments}");
}

fn at_o(end: End) -> ArgumentPath {
    ArgumentPath {
        way: vec!["o".into()],
        end,
    }
}

#[test]
fn only_the_way_is_looked_at() {
    let path = ArgumentPath::of_pointer("/o~1p/1/x");
    assert_eq!(
        path,
        ArgumentPath::of_members(&["o/p".into(), "1".into(), "x".into()])
    );
    check(&path, "{}", false);
    check(&path, r#"{"O/p":1}"#, true);
    check(
        &path,
        r#"{"o/p":[{"X":1},{"x":1,"y":{"X":1}}],"x":{"X":1}}"#,
        false,
    );
    check(&path, r#"{"o/p":[{},{"x":1,"X":2}]}"#, true);
    check(&path, r#"{"o/p":[{},{"X":2}]}"#, true);
    check(&path, r#"{"o/p":{"1":{"x":1,"X":2}}}"#, true);
    let below = at_o(End::Below("x".into()));
    check(&below, r#"{"o":[[{"x":1,"y":1,"Y":2}]],"x":{"X":1}}"#, false);
    check(&below, r#"{"o":[[{"y":{"X":2}}]]}"#, true);
    let number = at_o(End::Number { below: false });
    check(&number, r#"{"o":{"x":1,"y":{"z":1,"Z":1}}}"#, false);
    check(&number, r#"{"o":{"x":1,"X":1}}"#, true);
    let number = at_o(End::Number { below: true });
    check(&number, r#"{"o":{"x":1,"y":{"z":1,"Z":1}}}"#, true);
}

#[test]
fn any_name_is_one_that_is_known() {
    for (any, own) in [(at_o(End::Any), false), (at_o(End::Own), true)] {
        check(&any, r#"{"o":[{"y":{"x":2}}],"p":{"x":1,"X":1}}"#, own);
        check(&any, r#"{"o":[{"y":{"z":2}}],"p":{"x":1,"X":1}}"#, false);
        check(&any, r#"{"o":[{"y":{"x":2,"X":2}}]}"#, true);
        check(&any, r#"{"o":{"known":1,"Given":[{"camelCase":1}]}}"#, false);
        check(&any, r#"{"o":{"y":{"Known":1}}}"#, true);
        check(&any, r#"{"o":[{"given":1}]}"#, true);
        check(&any, r#"{"o":{"y":1},"p":{"Y":1}}"#, own);
        check(&any, r#"{"o":{"Y":1},"p":"y"}"#, own);
    }
}

#[test]
fn a_part_of_a_name_has_one_spelling() {
    let part = at_o(End::Part("for".into()));
    check(
        &part,
        r#"{"o":{"force":1,"camelCase":1,"before":"For"},"For":1}"#,
        false,
    );
    check(&part, r#"{"o":{"Force":1}}"#, true);
    check(&part, r#"{"o":{"forFOR":1}}"#, true);
    check(&part, "{\"o\":{\"\u{307}for\":1}}", true);
    let otherwise = at_o(End::Otherwise);
    check(&otherwise, r#"{"o":[["a",1],{}],"p":{"x":1}}"#, false);
    check(&otherwise, r#"{"o":[{"x":1}]}"#, true);
}

#[test]
fn texts_are_known_in_each_spelling() {
    let mut texts = Texts::default();
    texts.insert("a");
    texts.insert("a");
    assert!(!texts.has_other("a", "a") && texts.has_other("A", "a"));
    let mut more = Texts::default();
    more.insert("b");
    more.extend(&texts);
    assert!(!more.has_other("a", "a") && more.has_other("B", "b"));
    texts.insert("A");
    more.extend(&texts);
    assert!(more.has_other("a", "a") && more.has_other("A", "a") && !more.has_other("b", "b"));
}
