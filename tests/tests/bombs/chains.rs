//! Chains that are within the grammar, at its bounds: the dearest that were found, against the largest requests.

use crate::corpus::Bomb;
use crate::kit::{World, block};
use biscuit_auth::builder::{
    Binary, BlockBuilder, Check, CheckKind, Expression, Op, Predicate, Rule, Term, Unary,
};
use taper_capability::json::JsonLimits;

/// The most values that a template of a tool yields (M-21).
const RESOURCES: usize = 64;

/// Texts of one length that differ at their end only: the slowest to tell apart.
fn alike(i: usize, length: usize) -> String {
    format!("{}{i:05}", "x".repeat(length.saturating_sub(5)))
}

pub(crate) fn variable(name: &str) -> Term {
    Term::Variable(name.into())
}

pub(crate) fn check(kind: CheckKind, words: &[(&str, &[&str])], expressions: Vec<Vec<Op>>) -> Check {
    let body = words.iter().map(|(word, terms)| {
        let terms: Vec<Term> = terms.iter().map(|name| variable(name)).collect();
        Predicate::new((*word).to_owned(), terms)
    });
    let expressions = expressions.into_iter().map(|ops| Expression { ops });
    let head = Predicate::new("query".to_owned(), Vec::<Term>::new());
    Check {
        queries: vec![Rule::new(
            head,
            body.collect::<Vec<_>>(),
            expressions.collect(),
            Vec::new(),
        )],
        kind,
    }
}

pub(crate) fn checks(check: &Check, times: usize) -> BlockBuilder {
    (0..times).fold(BlockBuilder::new(), |block, _| {
        block.check(check.clone()).unwrap()
    })
}

/// `t == t == … == false`, which is true for none.
pub(crate) fn compared(values: usize, term: &Term) -> Vec<Op> {
    let mut ops = vec![Op::Value(term.clone())];
    for _ in 1..values {
        ops.extend([Op::Value(term.clone()), Op::Binary(Binary::HeterogeneousEqual)]);
    }
    ops.extend([
        Op::Value(Term::Bool(true)),
        Op::Binary(Binary::HeterogeneousEqual),
        Op::Unary(Unary::Negate),
    ]);
    ops
}

/// `$v.<function>(<literal>)`, negated so that no value ends the check early.
fn called(function: &str, literal: Term) -> Vec<Op> {
    vec![
        Op::Value(variable("v")),
        Op::Value(literal),
        Op::Binary(Binary::Ffi(function.into())),
        Op::Unary(Unary::Negate),
    ]
}

fn strings(texts: impl Iterator<Item = String>) -> Term {
    Term::Set(texts.map(Term::Str).collect())
}

/// The argument that patterns are tried on.
const MATCHED: &str = "p";

/// Letters without a pattern to them, so that an automaton is never twice in the same state.
fn letters(count: usize) -> String {
    let mut state = 1_u64;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if state >> 63 == 0 { 'x' } else { 'y' }
    };
    (0..count).map(letter).collect()
}

/// The largest bodies that are taken, by what they are full of, and one for patterns.
fn large_bodies() -> Vec<(&'static str, String)> {
    let most = JsonLimits::default();
    let arrays = |length: usize, of: &dyn Fn(usize) -> String| {
        let per = 250;
        let count = most.nodes.div_ceil(per + 2);
        let members: Vec<String> = (0..count)
            .map(|a| {
                let left = (most.nodes - 2 * count - 1).saturating_sub(a * per).min(per);
                let elements: Vec<String> = (0..left).map(|i| of(a * per + i)).collect();
                format!("\"k{a}\":[{}]", elements.join(","))
            })
            .collect();
        let body = format!("{{{}}}", members.join(","));
        assert!(body.len() <= most.bytes, "{length}");
        body
    };
    let members = |length: usize, value: &str| {
        let members: Vec<String> = (0..(most.nodes - 1) / 2)
            .map(|i| format!("\"{}\":{value}", alike(i, length)))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    let long = (most.bytes - 20_000) / most.nodes;
    vec![
        (
            "strings that are alike",
            arrays(long, &|i| format!("\"{}\"", alike(i, long))),
        ),
        ("empty arrays", members(5, "[]")),
        ("fractions", arrays(3, &|_| "1.5".to_owned())),
        ("long names of fractions", members(long, "1.5")),
        (
            "a text to match",
            format!("{{\"{MATCHED}\":\"{}\"}}", letters(1_024)),
        ),
    ]
}

/// Chains that are beyond a bound which keeps the others cheap.
const BEYOND: [(&str, &str); 13] = [
    ("a pattern of resources", "P-20"),
    ("8 patterns of half the size", "P-20"),
    ("arguments compared, to the bound", "P-21"),
    ("arguments beside resources", "P-19"),
    ("resources beside arguments", "P-19"),
    ("pairs of resources", "P-19"),
    ("two pairs of resources", "P-19"),
    ("resources joined", "P-19"),
    ("two joins of resources", "P-19"),
    ("128 texts within texts", "P-21"),
    ("16 large patterns", "P-21"),
    ("16 patterns of many states", "P-21"),
    ("16 nested repetitions", "P-21"),
];

/// Chains at the bounds of the grammar, most within them, against the largest requests.
pub(crate) fn admitted(w: &World) -> Vec<Bomb> {
    let large: Vec<(String, String)> = (0..RESOURCES)
        .map(|i| ("repo".to_owned(), alike(i, 1_000)))
        .collect();
    let mut bombs = Vec::new();
    for (name, blocks) in chains() {
        let mut token = w.grant(3, 3);
        for block in blocks {
            token = w
                .narrowed(&token, block)
                .unwrap_or_else(|| panic!("{name}: too long"));
        }
        for (of, body) in large_bodies() {
            bombs.push(Bomb {
                body,
                resources: large.clone(),
                refused: BEYOND
                    .iter()
                    .find(|(beyond, _)| *beyond == name)
                    .map(|(_, rule)| *rule),
                ..Bomb::new(format!("{name}, {of}"), token.as_str())
            });
        }
    }
    bombs
}

fn chains() -> Vec<(&'static str, Vec<BlockBuilder>)> {
    let two = |source: &str, n: usize| {
        vec![
            block(&format!("{source};").repeat(n)),
            block(&format!("{source};").repeat(n)),
        ]
    };
    let resource: &[(&str, &[&str])] = &[("resource", &["k", "v"])];
    let all = |expressions: Vec<Vec<Op>>| check(CheckKind::All, resource, expressions);
    let args = |expressions| check(CheckKind::One, &[("args", &["a"])], expressions);
    let needle = Term::Str("x".repeat(500) + "y");
    let found = vec![
        Op::Value(variable("v")),
        Op::Value(needle),
        Op::Binary(Binary::Contains),
        Op::Unary(Unary::Negate),
    ];
    let set = strings((0..64).map(|i| format!("s{i}")));
    let in_set = vec![
        Op::Value(set.clone()),
        Op::Value(variable("v")),
        Op::Binary(Binary::Contains),
        Op::Unary(Unary::Negate),
    ];
    let networks = strings((0..64).map(|i| format!("10.{i}.0.0/16")));
    let hosts = strings((0..64).map(|i| format!("h{i}.example")));
    let match_of = |pattern: &str| called("full_match", Term::Str(pattern.into()));
    let text = || {
        let name = Op::Value(Term::Str(MATCHED.into()));
        [Op::Value(variable("a")), name, Op::Binary(Binary::Get)]
    };
    let pattern = |pattern: &str, n| {
        let ops = text().into_iter().chain(match_of(pattern).into_iter().skip(1));
        vec![checks(&args(vec![ops.collect()]), n)]
    };
    let failing = |n: usize| {
        let mut source = "check if args($a);".repeat(n);
        source.push_str(r#"check if args($a), $a.get("nope") === 1;"#);
        vec![block(&"check if args($a);".repeat(31)), block(&source)]
    };
    vec![
        ("no check", vec![]),
        ("62 times the arguments", two("check if args($a)", 31)),
        (
            "62 times the arguments twice",
            two("check if args($a), args($a)", 31),
        ),
        ("an error in the last of 63", failing(30)),
        (
            "arguments compared with themselves",
            vec![checks(&args(vec![compared(14, &variable("a")); 4]), 2)],
        ),
        (
            "arguments compared, to the bound",
            vec![checks(&args(vec![compared(14, &variable("a")); 8]), 2)],
        ),
        (
            "arguments beside resources",
            two("check all args($a), resource($k, $v)", 31),
        ),
        (
            "resources beside arguments",
            two("check all resource($k, $v), args($a)", 31),
        ),
        (
            "pairs of resources",
            two("check all resource($k, $v), resource($l, $w)", 31),
        ),
        (
            "two pairs of resources",
            vec![block(
                "check all resource($k, $v), resource($l, $w); check all resource($k, $v), resource($l, $w);",
            )],
        ),
        (
            "resources joined",
            two("check if resource($k, $v), resource($v, $k)", 31),
        ),
        (
            "two joins of resources",
            vec![block(
                "check if resource($k, $v), resource($v, $k); check if resource($k, $v), resource($v, $k);",
            )],
        ),
        ("sets", vec![checks(&all(vec![in_set; 1]), 16)]),
        ("sets compared", vec![checks(&all(vec![compared(3, &set); 2]), 2)]),
        (
            "resources compared",
            vec![checks(&all(vec![compared(14, &variable("v")); 4]), 2)],
        ),
        (
            "64 texts within texts",
            vec![checks(&all(vec![found.clone(); 8]), 8)],
        ),
        ("128 texts within texts", vec![checks(&all(vec![found; 8]), 16)]),
        (
            "a pattern of resources",
            vec![checks(&all(vec![match_of("acme/.*")]), 1)],
        ),
        ("16 large patterns", pattern("([^a]{0,63}[^b]){8}", 16)),
        ("8 patterns of half the size", pattern("([^a]{0,31}[^b]){8}", 8)),
        ("8 patterns of negated classes", pattern("[^a]{31}[^b]", 8)),
        (
            "8 classes of many planes",
            pattern(
                "([^\u{10fbf}-\u{13042}\u{1a002}-\u{1c085}\u{24045}-\u{260c8}\u{2e088}-\u{3010b}]{12})",
                8,
            ),
        ),
        (
            "16 patterns of many states",
            pattern("(x|y)*x(x|y){20}(x|y){20}(x|y){20}z", 16),
        ),
        ("16 nested repetitions", pattern("((x|xx|xxx|xxxx)*)*y", 16)),
        (
            "8 patterns of many states",
            pattern("(x|y)*x(x|y){20}(x|y){20}(x|y){20}z", 8),
        ),
        ("8 nested repetitions", pattern("((x|xx|xxx|xxxx)*)*y", 8)),
        (
            "16 paths",
            vec![checks(
                &all(vec![called("path_within", Term::Str("/a".into()))]),
                16,
            )],
        ),
        (
            "16 times 64 networks",
            vec![checks(&all(vec![called("in_network", networks)]), 16)],
        ),
        (
            "16 times 64 hosts",
            vec![checks(&all(vec![called("url_host", hosts)]), 16)],
        ),
    ]
}
