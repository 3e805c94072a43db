//! The corpus: what a holder, a caller or a stranger can send that might cost much.

use crate::chains::{admitted, check, checks, compared, variable};
use crate::kit::{World, block, call};
use biscuit_auth::builder::{Binary, BlockBuilder, CheckKind, Op, Term};
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
    pub(crate) fn new(name: impl Into<String>, token: impl Into<String>) -> Self {
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

/// Everything.
pub(crate) fn corpus(w: &World) -> Vec<Bomb> {
    [tokens(w), proofs(w), bodies(w), admitted(w)]
        .into_iter()
        .flatten()
        .collect()
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
        block(&format!("check if {};", ["claim($a, $b)"; 8].join(" or "))),
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
            ["1"; 65].join(",")
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
            format!("{{{}}}", ["\"a\":1"; 1_000].join(",")),
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
