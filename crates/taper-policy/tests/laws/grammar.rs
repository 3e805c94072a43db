//! Checks of the admitted grammar (P-16 to P-20) that are no caveats of ours, made with the library's builder.

use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Op, Predicate, Rule, Term, Unary};
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt;

/// One admitted check.
#[derive(Clone)]
pub(crate) struct Raw(Check);

impl Raw {
    pub(crate) fn to_check(&self) -> Check {
        self.0.clone()
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn text(s: &str) -> Term {
    Term::Str(s.into())
}

fn variable(name: &str) -> Term {
    Term::Variable(name.into())
}

/// A word with its terms: literals that often match, or variables. The flag says that several facts
/// may match.
fn any_predicate(suffix: &'static str) -> impl Strategy<Value = (Predicate, bool)> {
    let word = |name: &'static str, several: bool, terms: Vec<Vec<Term>>| (name, several, terms);
    let var = move |name: &str| variable(&format!("{name}{suffix}"));
    select(vec![
        word("time", false, vec![vec![]]),
        word("server", false, vec![vec![text("git")]]),
        word("audience", false, vec![vec![]]),
        word("method", false, vec![vec![text("tools/call")]]),
        word("tool", false, vec![vec![text("git_log"), text("git_show")]]),
        word("args", false, vec![vec![]]),
        word("args", false, vec![vec![]]),
        word("args", false, vec![vec![]]),
        word("resource", true, vec![vec![text("repo")], vec![text("acme/web")]]),
        word("uri", false, vec![vec![text("repo://acme/web")]]),
        word("prompt", false, vec![vec![text("review")]]),
        word("body_bound", false, vec![vec![Term::Bool(true)]]),
        word("client_ip", false, vec![vec![text("10.1.2.3")]]),
        word("hour", false, vec![vec![Term::Integer(8)]]),
        word("weekday", false, vec![vec![Term::Integer(5)]]),
        word("taper", false, vec![vec![Term::Integer(1)]]),
        word("issuer", false, vec![vec![]]),
        word("subject", false, vec![vec![], vec![text("alice")]]),
        word("client", false, vec![vec![text("dev")]]),
        word("actor", false, vec![vec![], vec![text("agent")]]),
        word("for_audience", true, vec![vec![]]),
        word("right", true, vec![vec![text("git")], vec![text("git_log")]]),
        word("right_any_tool", true, vec![vec![text("git")]]),
        word("claim", true, vec![vec![text("groups")], vec![text("eng")]]),
    ])
    .prop_flat_map(move |(name, several, terms)| {
        let terms: Vec<_> = terms
            .into_iter()
            .enumerate()
            .map(|(i, literals)| {
                let variable = Just(var(&format!("{name}{i}")));
                if literals.is_empty() {
                    variable.boxed()
                } else {
                    prop_oneof![2 => variable, 1 => select(literals)].boxed()
                }
            })
            .collect();
        terms.prop_map(move |terms| (Predicate::new(name.to_owned(), terms), several))
    })
}

fn set(values: &[&str]) -> Term {
    Term::Set(values.iter().map(|v| text(v)).collect())
}

/// What an expression may say of one variable, by the word that bound it.
fn about(name: &str) -> Vec<Vec<Op>> {
    let value = |term| Op::Value(term);
    let this = || value(variable(name));
    let binary = |left: Vec<Op>, right: Term, op: Binary| {
        let mut ops = left;
        ops.extend([value(right), Op::Binary(op)]);
        ops
    };
    let in_set = |set: Term| vec![value(set), this(), Op::Binary(Binary::Contains)];
    let member = |name: &str| vec![this(), value(text(name)), Op::Binary(Binary::Get)];
    let integers = |n| Term::Array((0..n).map(Term::Integer).collect());
    if name.starts_with("args") {
        vec![
            vec![
                this(),
                Op::Unary(Unary::Length),
                value(Term::Integer(5)),
                Op::Binary(Binary::GreaterThan),
            ],
            binary(vec![this()], text("ref"), Binary::Contains),
            binary(member("n"), Term::Integer(1), Binary::GreaterOrEqual),
            binary(member("n"), Term::Integer(1), Binary::HeterogeneousEqual),
            binary(member("n"), Term::Integer(2), Binary::NotEqual),
            binary(member("ref"), text("v1.2"), Binary::NotEqual),
            binary(member("ref"), text("x"), Binary::Suffix),
            binary(member("list"), text("main"), Binary::Contains),
            binary(member("list"), Term::Array(vec![text("main")]), Binary::Prefix),
            binary(member("path"), text("/srv"), Binary::Ffi("path_within".into())),
            binary(
                member("ip"),
                set(&["10.0.0.0/8"]),
                Binary::Ffi("in_network".into()),
            ),
            [
                vec![value(integers(3))],
                member("n"),
                vec![Op::Binary(Binary::Contains)],
            ]
            .concat(),
            [
                member("all"),
                vec![Op::Unary(Unary::Parens), Op::Unary(Unary::Negate)],
            ]
            .concat(),
            [
                binary(member("n"), Term::Integer(3), Binary::LessThan),
                binary(member("all"), Term::Bool(true), Binary::Equal),
                vec![Op::Binary(Binary::And)],
            ]
            .concat(),
        ]
    } else if name.starts_with("time") {
        vec![
            binary(vec![this()], Term::Date(1_799_999_000), Binary::GreaterThan),
            binary(vec![this()], Term::Date(1_800_000_100), Binary::LessOrEqual),
            binary(
                vec![this()],
                text("00:00/24:00/Z/12345"),
                Binary::Ffi("in_hours".into()),
            ),
        ]
    } else if name.starts_with("hour") || name.starts_with("weekday") || name.starts_with("taper") {
        vec![
            binary(vec![this()], Term::Integer(9), Binary::LessThan),
            vec![value(integers(12)), this(), Op::Binary(Binary::Contains)],
        ]
    } else if name.starts_with("body_bound") {
        vec![vec![this()], vec![this(), Op::Unary(Unary::Negate)]]
    } else {
        vec![
            in_set(set(&[
                "git",
                "git_log",
                "git_show",
                "tools/call",
                "acme/web",
                "repo",
                "alice",
                "eng",
                "groups",
                "dev",
                "10.1.2.3",
            ])),
            binary(vec![this()], text("git"), Binary::Prefix),
            binary(vec![this()], text("e"), Binary::Contains),
            binary(vec![this()], text("other/x"), Binary::NotEqual),
            binary(vec![this()], text("acme/web"), Binary::Equal),
            binary(vec![this()], Term::Integer(1), Binary::HeterogeneousEqual),
            // An error.
            binary(vec![this()], Term::Integer(1), Binary::LessThan),
            binary(vec![this()], text("[a-z./:_]+"), Binary::Ffi("full_match".into())),
            vec![
                this(),
                Op::Unary(Unary::Length),
                value(Term::Integer(64)),
                Op::Binary(Binary::LessThan),
            ],
        ]
    }
}

fn variables(body: &[Predicate]) -> Vec<String> {
    let terms = body.iter().flat_map(|predicate| &predicate.terms);
    terms
        .filter_map(|term| match term {
            Term::Variable(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn any_expressions(body: &[Predicate], several: bool) -> BoxedStrategy<Vec<Expression>> {
    let is_match = |op: &Op| matches!(op, Op::Binary(Binary::Ffi(name)) if name == "full_match");
    let names = variables(body);
    let all = names.iter().flat_map(|name| about(name));
    // Patterns beside a word with many facts are not admitted (P-20).
    let all: Vec<Vec<Op>> = all.filter(|ops| !(several && ops.iter().any(is_match))).collect();
    if all.is_empty() {
        return Just(vec![]).boxed();
    }
    let expression = (select(all), prop::bool::weighted(0.15)).prop_map(|(mut ops, not)| {
        if not {
            ops.push(Op::Unary(Unary::Negate));
        }
        Expression { ops }
    });
    prop::collection::vec(expression, 0..3).boxed()
}

/// Checks over one word or two, of all kinds.
pub(crate) fn any_raw() -> impl Strategy<Value = Raw> {
    let second = prop::option::weighted(0.3, any_predicate("_2"));
    let kind = prop_oneof![
        3 => Just(CheckKind::One),
        2 => Just(CheckKind::All),
        1 => Just(CheckKind::Reject),
    ];
    (any_predicate(""), second, kind)
        .prop_flat_map(|((first, several), second, kind)| {
            // A second word with many facts, or arguments beside one, is not admitted (P-19).
            let second = second.filter(|(second, also)| {
                !(several && (*also || second.name == "args")) && !(*also && first.name == "args")
            });
            let several = several || second.as_ref().is_some_and(|(_, also)| *also);
            let body: Vec<Predicate> = std::iter::once(first).chain(second.map(|(p, _)| p)).collect();
            (any_expressions(&body, several), Just(body), Just(kind))
        })
        .prop_map(|(expressions, body, kind)| {
            let head = Predicate::new("query".to_owned(), Vec::<Term>::new());
            Raw(Check {
                queries: vec![Rule::new(head, body, expressions, Vec::new())],
                kind,
            })
        })
}
