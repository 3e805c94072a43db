use super::*;
use crate::json::{DOT_ABOVE, FOLDED, JsonLimits, folded, parse};
use biscuit_auth::builder::Check;
use proptest::prelude::*;

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
                End::Below(name) => format!(">{}", name.text),
                End::Number { below: false } => "#".to_owned(),
                End::Number { below: true } => "##".to_owned(),
                End::Any => "*".to_owned(),
                End::Own => "**".to_owned(),
                End::Part(part) => format!("~{}", part.text),
                End::Otherwise => "!".to_owned(),
            };
            let way: Vec<&str> = path.way.iter().map(|name| name.text.as_str()).collect();
            format!("{}{end}", way.join("/"))
        })
        .collect();
    assert_eq!(shown, expected, "{check}");
}

/// The same of an expression, beside a tool and what files state and derive.
#[track_caller]
fn of(expression: &str, expected: &[&str]) {
    let facts: Vec<Fact> = [
        r#"name("x")"#,
        r#"list(["x"])"#,
        "number(1)",
        r#"lists({"x": ["y"]})"#,
        r#"texts({"x": "y"})"#,
    ]
    .iter()
    .map(|fact| fact.parse().unwrap())
    .collect();
    let rule = "again($a, $t) <- args($a), tool($t)".parse().unwrap();
    let flow = ArgumentFlow::new(&facts, &[rule]);
    let body = "args($a), again($b, $u), tool($t), name($k), list($l), number($n), lists($m), texts($o)";
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
        (r#"$a.any($e -> $m.get($t).contains($e.get(0)))"#, &["#", "*"]),
        (
            r#"$a.any($e -> {"x": ["y"]}.get($t).contains($e.get(0)))"#,
            &["#", "*"],
        ),
        (
            r#"$a.any($e -> $m.any($p -> $p.get(1).contains($e.get(0))))"#,
            &["#", "*"],
        ),
        (
            r#"$a.any($e -> $o.get($t).contains($e.get(0)))"#,
            &["#", "*", "!"],
        ),
        (
            r#"$a.any($e -> $m.get($t).any($p -> $p.contains($e.get(0))))"#,
            &["#", "*", "!"],
        ),
        (
            r#"$a.any($e -> {"x"}.union({"y"}).contains($e.get(0)))"#,
            &["#", "*"],
        ),
        (
            r#"$a.any($e -> $e.any($p -> $m.get($p).length() === 1))"#,
            &["#", "*"],
        ),
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
    let is = ArgumentReads::default().are_ambiguous([&reads], [], &arguments, || vec!["Given".into()]);
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

/// An object with these names.
fn object<'a>(names: impl IntoIterator<Item = &'a String>) -> Value {
    let members = names.into_iter().map(|name| (name.clone(), Value::Null));
    Value::Object(members.collect())
}

/// How many letters are folded to look at `paths`.
#[track_caller]
fn letters(paths: impl IntoIterator<Item = ArgumentPath>, arguments: &Value, ambiguous: bool) -> usize {
    let mut reads = ArgumentReads {
        paths: paths.into_iter().collect(),
        ..ArgumentReads::default()
    };
    reads.texts.insert("known");
    let before = FOLDED.get();
    let is = reads.are_ambiguous([], [], arguments, Vec::new);
    assert_eq!(is, ambiguous);
    FOLDED.get() - before
}

#[test]
fn a_name_is_folded_once_for_all_that_look_for_one() {
    let name = |tail: &str| "\u{e9}".repeat(200) + tail;
    let names: Vec<String> = (0..100).map(|i| name(&format!("{i:03}"))).collect();
    let all: usize = names.iter().map(|name| name.chars().count()).sum();
    let top = ["o", "p", "q", "r"].map(|name| (name.to_owned(), object(&names)));
    let arguments = Value::Object(top.into());
    let ways = || {
        let ways = [&[][..], &["o"], &["p"], &["q"], &["r"]];
        ways.map(|way| way.iter().map(|name| Name::from(*name)).collect::<Vec<_>>())
    };
    let below = ways().into_iter().flat_map(|way| {
        (0..40).map(move |i| ArgumentPath {
            way: way.clone(),
            end: End::Below(name(&format!("x{i:02}")).as_str().into()),
        })
    });
    let below: Vec<ArgumentPath> = below.collect();
    let looked = letters(below.clone(), &arguments, false);
    assert!((all..=4 * all + 4).contains(&looked), "{looked} of {all}");
    let ends = [
        End::Any,
        End::Own,
        End::Number { below: false },
        End::Number { below: true },
        End::Part(name("xy").as_str().into()),
    ];
    let others = ends.into_iter().flat_map(|end| {
        ways().map(|way| ArgumentPath {
            way,
            end: end.clone(),
        })
    });
    // All that is there is one to `Own`, as each name occurs in other objects as it is.
    let looked = letters(others.chain(below), &arguments, false);
    assert!((all..=4 * all + 4).contains(&looked), "{looked} of {all}");
    let other = ArgumentPath::of_members(&["o".into(), name("X01")]);
    assert!(!other.is_ambiguous(&arguments));
    let upper = ArgumentPath::of_members(&["o".into(), name("001").to_uppercase()]);
    assert!(upper.is_ambiguous(&arguments));
}

#[test]
fn plain_names_are_compared_as_they_are() {
    let arguments = br#"{"path":"x","force":true,"target":{"path":"y","mode":1},"items":[{"a":1}]}"#;
    let arguments = parse(arguments, &JsonLimits::default()).unwrap();
    let paths = || {
        let below = ["force", "mirror", "items"].map(|name| End::Below(name.into()));
        let ends = below.into_iter().chain([
            End::Here,
            End::Number { below: true },
            End::Number { below: false },
        ]);
        ends.map(|end| ArgumentPath { way: Vec::new(), end })
    };
    assert_eq!(letters(paths(), &arguments, false), 0);
    let way = ArgumentPath::of_members(&["target".into(), "path".into()]);
    assert_eq!(letters(paths().chain([way]), &arguments, false), 0);
    let other = ArgumentPath::of_members(&["Target".into(), "path".into()]);
    assert_eq!(letters([other], &arguments, true), 0);
}

#[test]
fn a_part_is_counted_in_every_place() {
    for (text, part, count) in [
        ("aaaa", "aa", 3),
        ("abababa", "aba", 3),
        ("aabaabaaab", "aab", 3),
        ("\u{e9}\u{e9}\u{e8}", "\u{e9}", 2),
        ("a\u{e9}", "", 2),
        ("a", "ab", 0),
        ("", "a", 0),
    ] {
        assert_eq!(spellings::places(text, part), count, "{text} {part}");
    }
}

const NAME: &str = "[kKsSiIeEßſıİéÉ\u{212a}\u{307}\u{300}\u{390}µμσςΣﬁǅ_]{0,6}";

proptest! {
    /// What is found without folding, or with folds that are kept, is what folding finds.
    #[test]
    fn names_are_found_as_they_fold(
        drawn in prop::collection::btree_set(NAME, 1..5),
        name in NAME,
        is_drawn in any::<bool>(),
    ) {
        let mut names: Vec<String> = drawn.into_iter().collect();
        // Most that are drawn have nothing to do with each other.
        let name = if is_drawn { name } else { names[0].to_uppercase() };
        let swapped: String = name.chars().map(|c| c.to_uppercase().next().unwrap_or(c)).collect();
        if !names.contains(&swapped) {
            names.push(swapped);
        }
        let object = object(&names);
        let is_other = |member: &String| {
            let (short, long) = (member.len().min(name.len()), member.len().max(name.len()));
            *member != name && long <= short * 4 && folded(member) == folded(&name)
        };
        let at_top = |end: End| ArgumentPath { way: Vec::new(), end };
        let path = |end: End| at_top(end).is_ambiguous(&object);
        let expected = names.iter().any(is_other);
        prop_assert_eq!(path(End::Below(name.as_str().into())), expected);
        prop_assert_eq!(ArgumentPath::of_members(std::slice::from_ref(&name)).is_ambiguous(&object), expected);
        let folds: BTreeSet<String> = names.iter().map(|name| folded(name)).collect();
        let has_twins = folds.len() < names.len();
        prop_assert_eq!(path(End::Number { below: false }), has_twins);
        prop_assert_eq!(path(End::Number { below: true }), has_twins);
        // The names are among the texts of the arguments, so that no other is.
        prop_assert_eq!(path(End::Own), has_twins);
        let mut reads = ArgumentReads::default();
        reads.paths.insert(at_top(End::Any));
        reads.texts.insert(&name);
        let is_known = |member: &String| *member != name && folded(member) == folded(&name);
        let expected = has_twins || names.iter().any(is_known);
        prop_assert_eq!(reads.are_ambiguous([], [], &object, Vec::new), expected);
        let places = |text: &str, part: &str| {
            let is_place = |(i, _): &(usize, char)| text[*i..].starts_with(part);
            text.char_indices().filter(is_place).count()
        };
        let part: String = name.chars().take(2).collect();
        let has_part = |member: &String| {
            member.contains(DOT_ABOVE) || places(&folded(member), &folded(&part)) != places(member, &part)
        };
        prop_assert_eq!(path(End::Part(part.as_str().into())), names.iter().any(has_part));
    }
}
