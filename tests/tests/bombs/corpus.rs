//! The corpus: what a holder, a caller or a stranger can send that might cost much.

use crate::kit::{World, block, call};
use biscuit_auth::builder::{
    Binary, BlockBuilder, Check, CheckKind, Expression, Op, Predicate, Rule, Term, Unary,
};
use taper_capability::Token;
use taper_capability::json::JsonLimits;

/// One request.
pub(crate) struct Bomb {
    pub(crate) name: String,
    pub(crate) token: String,
    /// Instead of an honest proof.
    pub(crate) proof: Option<String>,
    pub(crate) body: String,
    pub(crate) resources: Vec<(String, String)>,
    /// The rule that refuses it; where none is named it may be decided as well.
    pub(crate) refused: Option<&'static str>,
}

impl Bomb {
    fn new(name: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            token: token.into(),
            proof: None,
            body: "{}".into(),
            resources: Vec::new(),
            refused: None,
        }
    }

    fn refused(mut self, rule: &'static str) -> Self {
        self.refused = Some(rule);
        self
    }
}

/// The most values that a template of a tool yields (M-21).
const RESOURCES: usize = 256;

/// Everything.
pub(crate) fn corpus(w: &World) -> Vec<Bomb> {
    [tokens(w), proofs(w), bodies(w), admitted(w)]
        .into_iter()
        .flatten()
        .collect()
}

/// Texts of one length that differ at their end only: the slowest to tell apart.
fn alike(i: usize, length: usize) -> String {
    format!("{}{i:05}", "x".repeat(length.saturating_sub(5)))
}

fn variable(name: &str) -> Term {
    Term::Variable(name.into())
}

fn check(kind: CheckKind, words: &[(&str, &[&str])], expressions: Vec<Vec<Op>>) -> Check {
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

fn checks(check: &Check, times: usize) -> BlockBuilder {
    (0..times).fold(BlockBuilder::new(), |block, _| {
        block.check(check.clone()).unwrap()
    })
}

/// `t == t == … == false`, which is true for none.
fn compared(values: usize, term: &Term) -> Vec<Op> {
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

/// Tokens that are refused for what they are.
fn tokens(w: &World) -> Vec<Bomb> {
    let grant = w.grant(3, 3);
    let mut bombs = Vec::new();
    let mut refuse = |name: &str, rule, source: BlockBuilder| {
        let token = w.narrowed(&grant, source).unwrap();
        bombs.push(Bomb::new(name, token.as_str()).refused(rule));
    };
    let times = |source: &str, n: usize| block(&format!("{source};").repeat(n));
    let call_of = |list: &str| {
        let inner = format!("{list}.any($y -> {list}.any($z -> $y === $z))");
        block(&format!("check if args($a), {list}.any($x -> {inner});"))
    };
    let list = format!(
        "[{}]",
        (0..64).map(|i| i.to_string()).collect::<Vec<_>>().join(",")
    );
    refuse("closures in closures", "P-17", call_of(&list));
    refuse(
        "a pattern of the library",
        "P-17",
        block(r#"check if tool($t), $t.matches("(a*)*b");"#),
    );
    refuse(
        "a join of three",
        "P-16",
        block("check if claim($a, $b), claim($c, $d), claim($e, $f);"),
    );
    refuse(
        "alternatives",
        "P-16",
        block(&format!("check if {};", vec!["claim($a, $b)"; 8].join(" or "))),
    );
    refuse(
        "nested counts",
        "P-20",
        block(r#"check if tool($t), $t.extern::full_match("((a{64}){64}){64}");"#),
    );
    refuse("33 checks", "P-21", times("check if tool($t)", 32));
    refuse(
        "17 calls",
        "P-21",
        times(r#"check if tool($t), $t.extern::full_match("a")"#, 17),
    );
    refuse(
        "many operations",
        "P-21",
        checks(
            &check(
                CheckKind::One,
                &[("args", &["a"])],
                vec![compared(14, &variable("a")); 8],
            ),
            3,
        ),
    );
    refuse(
        "an expression of 33 operations",
        "P-18",
        checks(
            &check(
                CheckKind::One,
                &[("args", &["a"])],
                vec![compared(16, &variable("a"))],
            ),
            1,
        ),
    );
    refuse(
        "257 facts",
        "P-21",
        (0..256).fold(BlockBuilder::new(), |block, i| {
            block.fact(format!("f({i})").as_str()).unwrap()
        }),
    );
    refuse(
        "513 symbols",
        "P-21",
        (0..128).fold(BlockBuilder::new(), |block, i| {
            let names = (0..5)
                .map(|j| format!("\"{i:02x}{j}\""))
                .collect::<Vec<_>>()
                .join(",");
            block.fact(format!("f({names})").as_str()).unwrap()
        }),
    );
    refuse(
        "a literal of 1,025 bytes",
        "P-18",
        block(&format!("check if tool(\"{}\");", "a".repeat(1_025))),
    );
    refuse(
        "65 elements",
        "P-18",
        block(&format!(
            "check if hour($h), [{}].contains($h);",
            vec!["1"; 65].join(",")
        )),
    );
    let nested = |levels| (0..levels).fold(Term::Integer(1), |term, _| Term::Array(vec![term]));
    let deep = |levels| {
        check(
            CheckKind::One,
            &[("args", &["a"])],
            vec![vec![
                Op::Value(nested(levels)),
                Op::Value(variable("a")),
                Op::Binary(Binary::Contains),
            ]],
        )
    };
    refuse("an array of 16 levels", "P-18", checks(&deep(16), 1));
    refuse(
        "two notes",
        "D-06",
        block(&format!(
            "note(\"{}\"); note(\"{}\");",
            "a".repeat(1_024),
            "b".repeat(1_024)
        )),
    );
    refuse(
        "a note of 1,025 bytes",
        "D-04",
        block(&format!("note(\"{}\");", "a".repeat(1_025))),
    );
    let chain = |blocks: usize, source: &str| {
        (0..blocks).fold(grant.clone(), |token, _| {
            w.narrowed(&token, block(source)).unwrap()
        })
    };
    bombs.push(Bomb::new("17 later blocks", chain(17, "").as_str()).refused("P-21"));
    bombs.push(Bomb::new("16 later blocks", chain(16, "").as_str()));
    let many = "check if tool($t);".repeat(22);
    bombs.push(Bomb::new("66 checks of a chain", chain(3, &many).as_str()).refused("P-21"));
    bombs.push(Bomb::new("1 MiB of token", "A".repeat(1 << 20)).refused("P-01"));
    bombs.push(Bomb::new("12 KiB of zeros", "A".repeat(12_288)).refused("P-02"));
    bombs.push(Bomb::new("12 KiB of nested fields", "Cg".repeat(6_144)).refused("P-02"));
    bombs
}

/// Proofs that are refused for what they are.
fn proofs(w: &World) -> Vec<Bomb> {
    let token = w.grant(3, 3);
    let proof = w.proof(token.as_str());
    let of = |name: &str, proof: String| Bomb {
        proof: Some(proof),
        ..Bomb::new(name, token.as_str()).refused("R-01")
    };
    let header = |json: String| {
        let mut parts = proof.splitn(2, '.');
        let _ = parts.next();
        format!(
            "{}.{}",
            taper_dpop::base64url_encode(json.as_bytes()),
            parts.next().unwrap()
        )
    };
    vec![
        of("1 MiB of proof", "a".repeat(1 << 20)),
        of("4,097 bytes of proof", "a".repeat(4_097)),
        of("4,096 dots", ".".repeat(4_096)),
        of("a proof of deep JSON", header("[".repeat(2_000))),
        of(
            "a proof with a deep key",
            header(format!(
                "{{\"typ\":\"dpop+jwt\",\"alg\":\"EdDSA\",\"jwk\":{}",
                "{\"x\":".repeat(400)
            )),
        ),
    ]
}

/// Bodies that are refused for what they are, and large ones that are not.
fn bodies(w: &World) -> Vec<Bomb> {
    let token = w.grant(3, 3);
    let of = |name: &str, body: String| Bomb {
        body,
        ..Bomb::new(name, token.as_str())
    };
    let most = JsonLimits::default();
    let array = |n: usize| vec!["1"; n].join(",");
    let numbers = |digits: usize| format!("{{\"n\":{}}}", "1".repeat(digits));
    let deep = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    let refused = [
        ("100,000 levels", "[".repeat(100_000)),
        ("17 levels", deep(most.depth)),
        (
            "an array of one element too many",
            format!("{{\"a\":[{}]}}", array(most.elements + 1)),
        ),
        (
            "one value too many",
            format!(
                "{{{}}}",
                (0..=most.nodes / 2)
                    .map(|i| format!("\"{i}\":1"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ),
        ("1 MiB and one byte", " ".repeat(most.bytes + 1)),
        ("a million quotes", "\"".repeat(1_000_000)),
        ("escapes without end", format!("\"{}", "\\u0061".repeat(170_000))),
        (
            "a name a thousand times",
            format!("{{{}}}", vec!["\"a\":1"; 1_000].join(",")),
        ),
    ];
    let taken = [
        ("a number of a million digits", numbers(1_000_000)),
        ("16 levels", deep(most.depth - 1)),
        (
            "a string of a million escapes",
            format!("{{\"a\":\"{}\"}}", "\\u0061".repeat(170_000)),
        ),
    ];
    let refused = refused
        .into_iter()
        .map(|(name, body)| of(name, body).refused("R-27"));
    refused
        .chain(taken.into_iter().map(|(name, body)| of(name, body)))
        .collect()
}

/// The largest bodies that are taken, by what they are full of.
pub(crate) fn large_bodies() -> Vec<(&'static str, String)> {
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
    ]
}

/// Chains that are within the grammar at its bounds, against the largest requests.
fn admitted(w: &World) -> Vec<Bomb> {
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
    let pattern = |pattern: &str, n| {
        vec![checks(
            &all(vec![called("full_match", Term::Str(pattern.into()))]),
            n,
        )]
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
        ("16 large patterns", pattern("([^a]{0,63}[^b]){8}", 16)),
        ("8 patterns of half the size", pattern("([^a]{0,31}[^b]){8}", 8)),
        (
            "16 patterns of many states",
            pattern("(x|y)*x(x|y){20}(x|y){20}(x|y){20}z", 16),
        ),
        ("16 nested repetitions", pattern("((x|xx|xxx|xxxx)*)*y", 16)),
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

/// The request as the boundary understood it, but for its arguments.
pub(crate) fn access(bomb: &Bomb) -> taper_capability::Access {
    call(bomb.resources.clone())
}

/// The proof that goes with it.
pub(crate) fn proof(w: &World, bomb: &Bomb) -> String {
    match &bomb.proof {
        Some(proof) => proof.clone(),
        None => w.proof(&bomb.token),
    }
}

/// A capability that somebody uses: a hand-over with two caveats.
pub(crate) fn honest(w: &World) -> Token {
    let source = r#"check if server("git"), tool($t), {"git_log", "git_show"}.contains($t);
        check all resource("repo", $r), {"acme/web"}.contains($r);"#;
    w.narrowed(&w.grant(3, 3), block(source)).unwrap()
}
