//! Checks from the fuzzer's bytes: any that the data model has, and neighbours of ours.

use crate::caveats::{CaveatSpec, Text};
use arbitrary::{Arbitrary, Unstructured};
use biscuit_auth::builder::{
    Binary, Check, CheckKind, Expression, MapKey, Op, Predicate, Rule, Scope, Term, Unary,
};
use taper_capability::vocabulary::WORDS;

/// Where a check comes from.
#[derive(Arbitrary, Debug)]
pub enum CheckSpec {
    /// A caveat as it compiles.
    Caveat(CaveatSpec),
    /// A caveat's check with one thing changed.
    Neighbour(CaveatSpec, Change),
    /// Anything.
    Free(FreeCheck),
    /// Datalog.
    Source(String),
}

/// What is changed in a check.
#[derive(Arbitrary, Debug)]
pub enum Change {
    /// Its kind.
    Kind(Kind),
    /// An operation.
    Op(u8, OpSpec),
    /// An operation less.
    Less(u8),
    /// An operation more.
    More(u8, OpSpec),
    /// An expression more.
    Expression(Vec<OpSpec>),
    /// A predicate more.
    Predicate(PredicateSpec),
    /// A query more.
    Query(QuerySpec),
    /// A predicate's term.
    Term(u8, TermSpec),
    /// A scope.
    Scope,
    /// A name of a variable.
    Rename(u8),
    /// A head that says something.
    Head(TermSpec),
}

/// The kinds of a check.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Kind {
    /// `check if`.
    One,
    /// `check all`.
    All,
    /// `reject if`.
    Reject,
}

/// A check of any shape.
#[derive(Arbitrary, Debug)]
pub struct FreeCheck {
    kind: Kind,
    first: QuerySpec,
    more: Vec<QuerySpec>,
}

/// A query of any shape.
#[derive(Arbitrary, Debug)]
pub struct QuerySpec {
    body: Vec<PredicateSpec>,
    expressions: Vec<Vec<OpSpec>>,
}

/// A predicate, mostly of the vocabulary and of its arity.
#[derive(Arbitrary, Debug)]
pub struct PredicateSpec {
    word: u8,
    terms: Vec<TermSpec>,
}

/// An operation.
#[derive(Arbitrary, Debug)]
pub enum OpSpec {
    /// A value.
    Value(TermSpec),
    /// A unary one.
    Unary(u8),
    /// A binary one.
    Binary(u8),
    /// A closure.
    Closure(Vec<OpSpec>),
}

/// A term.
#[derive(Arbitrary, Debug)]
pub enum TermSpec {
    /// A variable, mostly bound.
    Variable(u8),
    /// An integer.
    Integer(i64),
    /// A small one.
    Small(i8),
    /// A string.
    Text(Text),
    /// A time.
    Date(u32),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A boolean.
    Bool(bool),
    /// A set.
    Set(Vec<TermSpec>),
    /// An array.
    Array(Vec<TermSpec>),
    /// A map.
    Map(Vec<(Text, TermSpec)>),
    /// Null.
    Null,
}

const FUNCTIONS: [&str; 6] = [
    "path_within",
    "url_host",
    "in_network",
    "full_match",
    "in_hours",
    "unknown",
];

impl CheckSpec {
    /// The check, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<Check> {
        match self {
            Self::Caveat(caveat) => caveat.caveat().to_check().ok(),
            Self::Neighbour(caveat, change) => {
                let mut check = caveat.caveat().to_check().ok()?;
                change.apply(&mut check);
                Some(check)
            }
            Self::Free(free) => Some(free.check()),
            Self::Source(source) => source.parse().ok(),
        }
    }
}

impl Change {
    fn apply(&self, check: &mut Check) {
        match self {
            Self::Kind(kind) => check.kind = kind.kind(),
            Self::Query(query) => check.queries.push(query.rule()),
            _ => {}
        }
        let Some(query) = check.queries.first_mut() else {
            return;
        };
        match self {
            Self::Kind(_) | Self::Query(_) => {}
            Self::Expression(ops) => query.expressions.push(expression(ops)),
            Self::Predicate(predicate) => query.body.push(predicate.predicate()),
            Self::Scope => query.scopes.push(Scope::Previous),
            Self::Head(term) => query.head.terms.push(term.term()),
            Self::Term(at, term) => {
                if let Some(slot) = query
                    .body
                    .first_mut()
                    .and_then(|predicate| pick(&mut predicate.terms, *at))
                {
                    *slot = term.term();
                }
            }
            Self::Rename(name) => {
                for predicate in &mut query.body {
                    for term in &mut predicate.terms {
                        if let Term::Variable(_) = term {
                            *term = Term::Variable(variable(*name));
                        }
                    }
                }
            }
            Self::Op(at, _) | Self::Less(at) | Self::More(at, _) => {
                let Some(Expression { ops }) = query.expressions.last_mut() else {
                    return;
                };
                let at = usize::from(*at) % (ops.len() + 1);
                match self {
                    Self::Less(_) if at < ops.len() => {
                        ops.remove(at);
                    }
                    Self::Op(_, op) if at < ops.len() => ops[at] = op.op(),
                    Self::More(_, op) => ops.insert(at, op.op()),
                    _ => {}
                }
            }
        }
    }
}

fn pick<T>(of: &mut [T], at: u8) -> Option<&mut T> {
    let len = of.len();
    of.get_mut(usize::from(at).checked_rem(len)?)
}

impl Kind {
    fn kind(self) -> CheckKind {
        match self {
            Self::One => CheckKind::One,
            Self::All => CheckKind::All,
            Self::Reject => CheckKind::Reject,
        }
    }
}

impl FreeCheck {
    fn check(&self) -> Check {
        Check {
            kind: self.kind.kind(),
            queries: std::iter::once(&self.first)
                .chain(self.more.iter().take(2))
                .map(QuerySpec::rule)
                .collect(),
        }
    }
}

impl QuerySpec {
    fn rule(&self) -> Rule {
        Rule::new(
            Predicate {
                name: "query".into(),
                terms: vec![],
            },
            self.body.iter().take(4).map(PredicateSpec::predicate).collect(),
            self.expressions
                .iter()
                .take(4)
                .map(|ops| expression(ops))
                .collect(),
            vec![],
        )
    }
}

fn expression(ops: &[OpSpec]) -> Expression {
    Expression {
        ops: ops.iter().take(48).map(OpSpec::op).collect(),
    }
}

impl PredicateSpec {
    /// The fact's or predicate's form.
    #[must_use]
    pub fn predicate(&self) -> Predicate {
        let others = [
            "taper",
            "issuer",
            "grant",
            "holder",
            "for_audience",
            "right",
            "right_any_tool",
            "x",
        ];
        let at = usize::from(self.word) % (WORDS.len() + others.len());
        let (name, arity) = match WORDS.get(at) {
            Some(word) => (word.name, word.arity),
            None => (others[at - WORDS.len()], self.terms.len()),
        };
        let mut terms: Vec<_> = self.terms.iter().map(TermSpec::term).collect();
        // Every eighth has another arity.
        if self.word < 224 {
            terms.resize_with(arity, || Term::Variable(variable(0)));
        }
        Predicate {
            name: name.into(),
            terms,
        }
    }
}

impl OpSpec {
    fn op(&self) -> Op {
        let function = |n: &u8| FUNCTIONS[usize::from(*n) % FUNCTIONS.len()].to_owned();
        match self {
            Self::Value(term) => Op::Value(term.term()),
            Self::Unary(n) => Op::Unary(match n % 5 {
                0 => Unary::Negate,
                1 => Unary::Parens,
                2 => Unary::Length,
                3 => Unary::TypeOf,
                _ => Unary::Ffi(function(n)),
            }),
            Self::Binary(n) => Op::Binary(match n % 16 {
                0 => Binary::LessThan,
                1 => Binary::GreaterThan,
                2 => Binary::LessOrEqual,
                3 => Binary::GreaterOrEqual,
                4 => Binary::Equal,
                5 => Binary::NotEqual,
                6 => Binary::HeterogeneousEqual,
                7 => Binary::HeterogeneousNotEqual,
                8 => Binary::Contains,
                9 => Binary::Prefix,
                10 => Binary::Suffix,
                11 => Binary::Get,
                12 => Binary::And,
                13 => Binary::TryOr,
                14 => Binary::Regex,
                _ => Binary::Ffi(function(&(n / 16))),
            }),
            Self::Closure(ops) => Op::Closure(vec!["p".into()], ops.iter().take(8).map(Self::op).collect()),
        }
    }
}

impl TermSpec {
    /// The term.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::Variable(n) => Term::Variable(variable(*n)),
            Self::Integer(i) => Term::Integer(*i),
            Self::Small(i) => Term::Integer(i64::from(*i)),
            Self::Text(text) => Term::Str(text.text()),
            Self::Date(at) => Term::Date(u64::from(*at)),
            Self::Bytes(bytes) => Term::Bytes(bytes.clone()),
            Self::Bool(b) => Term::Bool(*b),
            Self::Set(terms) => Term::Set(terms.iter().map(Self::term).collect()),
            Self::Array(terms) => Term::Array(terms.iter().map(Self::term).collect()),
            Self::Map(pairs) => Term::Map(
                pairs
                    .iter()
                    .map(|(key, term)| (MapKey::Str(key.text()), term.term()))
                    .collect(),
            ),
            Self::Null => Term::Null,
        }
    }
}

fn variable(n: u8) -> String {
    let names = [
        "value",
        "tool",
        "args",
        "time",
        "calls",
        "server",
        "client_ip",
        "p",
    ];
    names[usize::from(n) % names.len()].to_owned()
}

/// A check from all of the bytes; the first says of which kind.
///
/// # Errors
/// When there are too few of them.
pub fn check_of(bytes: &[u8]) -> arbitrary::Result<Option<Check>> {
    match bytes.split_first() {
        Some((b's', source)) => Ok(std::str::from_utf8(source)
            .ok()
            .and_then(|source| source.parse().ok())),
        _ => CheckSpec::arbitrary_take_rest(Unstructured::new(bytes)).map(|spec| spec.check()),
    }
}
