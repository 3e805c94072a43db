//! Static admission: a check is a program written by whoever held the token, so it is admitted by
//! its shape before any Datalog runs (P-16 to P-20).
//!
//! The grammar of `spec/profile.md` has no construct whose cost depends on more than the sizes of
//! the token and of the request: each check costs at most (facts of one word) evaluations of a few
//! operations over values that the request bounds.

use crate::datalog::is_expression;
use crate::functions::{Applied, Call, Function};
use crate::{Access, ArgumentFlow, ArgumentReads, Caveat, Error, rules, vocabulary};
use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Op, Rule, Term, Unary};
use biscuit_auth::format::schema;
use std::sync::Arc;
use taper_dpop::RuleId;

const MAX_PREDICATES: usize = 2;
const MAX_EXPRESSIONS: usize = 8;
const MAX_OPS: usize = 32;
const MAX_ELEMENTS: usize = 64;
const MAX_LITERAL: usize = 1024;
/// The end of the year 9999, the last that RFC 3339 can write.
const MAX_DATE: u64 = 253_402_300_799;
/// What is converted at all: queries of a check, predicates and terms of a query.
const MAX_QUERIES: usize = 8;
const MAX_TERMS: usize = 64;

/// A check of a chain that was admitted.
#[derive(Clone, Debug)]
pub struct AdmittedCheck {
    check: Check,
    caveat: Option<Caveat>,
    calls: Vec<Call>,
    reads: ArgumentReads,
}

impl AdmittedCheck {
    /// The caveat that the check stands for, if it is one of ours.
    #[must_use]
    pub fn caveat(&self) -> Option<&Caveat> {
        self.caveat.as_ref()
    }

    /// The check as Datalog on one line, for people: what could forge anything is escaped, and the
    /// text is not meant to be parsed again.
    #[must_use]
    pub fn datalog(&self) -> String {
        crate::datalog::datalog(&self.check)
    }

    /// How many patterns it has, each of which is held compiled.
    pub(crate) fn patterns(&self) -> usize {
        patterns(&self.check)
    }

    /// The check itself, for the crate that evaluates it.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// Whether it certainly passes: it is a caveat of ours that `access` satisfies at `now`, in seconds
    /// since the Unix epoch. When it says no, only an evaluation knows.
    #[must_use]
    pub fn is_satisfied(&self, access: &Access, now: i64) -> bool {
        crate::satisfied::is_satisfied(self, access, now)
    }

    /// The words that the check names.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.check
            .queries
            .iter()
            .flat_map(|query| query.body.iter().map(|predicate| predicate.name.as_str()))
    }

    /// What it reads in the arguments of a call.
    #[must_use]
    pub fn reads(&self) -> &ArgumentReads {
        &self.reads
    }
}

impl AdmittedCheck {
    /// The extern functions that the check calls, with their literals read.
    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }
}

/// Admits one check of block `block` (P-16 to P-20).
pub(crate) fn admit(block: usize, index: usize, check: Check) -> Result<AdmittedCheck, Error> {
    let refused = |rule: RuleId, reason| Error::Admission {
        block,
        check: index,
        rule,
        reason,
    };
    for (rule, found) in [
        (rules::SHAPE, shape(&check)),
        (rules::OPERATORS, operators(&check)),
        (rules::LITERALS, literals(&check)),
        (rules::JOINS, joins(&check)),
    ] {
        if let Err(reason) = found
            && !rule.holds(false)
        {
            return Err(refused(rule, reason));
        }
    }
    let calls = match calls(&check) {
        Ok(calls) => calls,
        Err(_) if rules::EXTERNS.holds(false) => Vec::new(),
        Err(reason) => return Err(refused(rules::EXTERNS, reason)),
    };
    let caveat = Caveat::from_check(&check);
    let reads = ArgumentReads::of(&check.queries, [], &ArgumentFlow::default());
    Ok(AdmittedCheck {
        check,
        caveat,
        calls,
        reads,
    })
}

/// The date of a check of exactly the shape `check if time($t), $t < DATE`, in seconds since the
/// Unix epoch. Any other shape does not count as an expiry (P-10).
pub(crate) fn expiry(check: &Check) -> Option<i64> {
    let (
        [
            Rule {
                body,
                expressions,
                scopes,
                head,
                ..
            },
        ],
        CheckKind::One,
    ) = (check.queries.as_slice(), &check.kind)
    else {
        return None;
    };
    let ([time], [expression]) = (body.as_slice(), expressions.as_slice()) else {
        return None;
    };
    let (true, [Term::Variable(bound)]) = (time.name == "time", time.terms.as_slice()) else {
        return None;
    };
    match expression.ops.as_slice() {
        [
            Op::Value(Term::Variable(used)),
            Op::Value(Term::Date(at)),
            Op::Binary(Binary::LessThan),
        ] if used == bound && scopes.is_empty() && head.terms.is_empty() => i64::try_from(*at).ok(),
        _ => None,
    }
}

/// Bounds what is converted from protobuf at all, before P-16 and P-18 look at the result.
pub(crate) fn bounded(check: &schema::Check) -> Result<(), (RuleId, &'static str)> {
    let size = |query: &schema::Rule| {
        query.body.iter().fold(query.body.len(), |sum, predicate| {
            sum.saturating_add(predicate.terms.len())
        })
    };
    if check.queries.len() > MAX_QUERIES || check.queries.iter().any(|query| size(query) > MAX_TERMS) {
        return Err((rules::SHAPE, "it is too large"));
    }
    let long = |query: &schema::Rule| {
        query.expressions.len() > MAX_EXPRESSIONS || query.expressions.iter().any(|e| e.ops.len() > MAX_OPS)
    };
    if !rules::LITERALS.holds(!check.queries.iter().any(long)) {
        return Err((rules::LITERALS, "too many operations"));
    }
    Ok(())
}

/// The operations of a check: what each of its expressions has.
pub(crate) fn operations(check: &Check) -> usize {
    expressions(check).map(|expression| expression.ops.len()).sum()
}

/// How often a check calls an extern function.
pub(crate) fn extern_calls(check: &Check) -> usize {
    expressions(check)
        .flat_map(|expression| &expression.ops)
        .filter(|op| matches!(op, Op::Unary(Unary::Ffi(_)) | Op::Binary(Binary::Ffi(_))))
        .count()
}

fn expressions(check: &Check) -> impl Iterator<Item = &Expression> {
    check.queries.iter().flat_map(|query| &query.expressions)
}

/// P-16.
fn shape(check: &Check) -> Result<(), &'static str> {
    let [query] = check.queries.as_slice() else {
        return Err("it is not one query (`or` is not admitted)");
    };
    if !query.scopes.is_empty() {
        return Err("`trusting`");
    }
    if !query.head.terms.is_empty() {
        return Err("a query head with terms");
    }
    if query.body.is_empty() || query.body.len() > MAX_PREDICATES {
        return Err("a number of predicates other than one or two");
    }
    for predicate in &query.body {
        match vocabulary::word(&predicate.name) {
            Some(word) if word.arity == predicate.terms.len() => {}
            _ => return Err("a predicate that is not of the vocabulary"),
        }
        // Facts that grow with the chain: a child could be allowed what its parent is refused.
        match predicate.name.as_str() {
            "depth" | "hop" => return Err("a predicate that only policies may use"),
            "calls" if !matches!(Caveat::from_check(check), Some(Caveat::MaxCalls { .. })) => {
                return Err("`calls` in another form than that of the max-calls caveat");
            }
            _ => {}
        }
    }
    Ok(())
}

/// P-17.
fn operators(check: &Check) -> Result<(), &'static str> {
    if !expressions(check).all(|expression| is_expression(&expression.ops)) {
        return Err("an expression that does not end in one value");
    }
    // Only what `.get` finds may be of one type for one fact and of another for the next, and with it an
    // error or none: then the order of facts would decide.
    let gets = |query: &Rule| {
        let ops = query.expressions.iter().flat_map(|expression| &expression.ops);
        ops.into_iter().any(|op| matches!(op, Op::Binary(Binary::Get)))
    };
    let without_args = |query: &Rule| query.body.iter().all(|predicate| predicate.name != "args");
    if check
        .queries
        .iter()
        .any(|query| gets(query) && without_args(query))
    {
        return Err("`.get()` without `args`");
    }
    expressions(check)
        .flat_map(|expression| &expression.ops)
        .try_for_each(|op| match op {
            Op::Value(_) | Op::Unary(Unary::Negate | Unary::Parens | Unary::Length) => Ok(()),
            // Which ones is asked by P-20.
            Op::Unary(Unary::Ffi(_)) => Ok(()),
            Op::Unary(Unary::TypeOf) => Err("`.type()`"),
            Op::Binary(binary) => match binary {
                Binary::LessThan
                | Binary::GreaterThan
                | Binary::LessOrEqual
                | Binary::GreaterOrEqual
                | Binary::Equal
                | Binary::NotEqual
                | Binary::HeterogeneousEqual
                | Binary::Contains
                | Binary::Prefix
                | Binary::Suffix
                | Binary::And
                | Binary::Get
                | Binary::Ffi(_) => Ok(()),
                Binary::HeterogeneousNotEqual => {
                    Err("lenient `!=` (it passes on a missing value; use `!==`)")
                }
                Binary::Regex => Err("`.matches()` (its cost is not bounded; use `extern::full_match`)"),
                Binary::TryOr => Err("`.try_or()`"),
                Binary::Or => Err("`or`"),
                Binary::LazyAnd | Binary::LazyOr | Binary::All | Binary::Any => Err("a closure"),
                _ => Err("an operator outside the grammar"),
            },
            Op::Closure(..) => Err("a closure"),
        })
}

/// P-18.
fn literals(check: &Check) -> Result<(), &'static str> {
    for query in &check.queries {
        query
            .body
            .iter()
            .flat_map(|predicate| &predicate.terms)
            .try_for_each(literal)?;
        if query.expressions.len() > MAX_EXPRESSIONS {
            return Err("too many expressions");
        }
        for expression in &query.expressions {
            if expression.ops.len() > MAX_OPS {
                return Err("too many operations");
            }
            expression.ops.iter().try_for_each(|op| match op {
                Op::Value(term) => literal(term),
                _ => Ok(()),
            })?;
        }
    }
    Ok(())
}

fn literal(term: &Term) -> Result<(), &'static str> {
    match term {
        Term::Variable(_) | Term::Integer(_) | Term::Bool(_) => Ok(()),
        // Later ones are shown as others than they are.
        Term::Date(at) if *at <= MAX_DATE => Ok(()),
        Term::Str(s) if s.len() <= MAX_LITERAL => Ok(()),
        Term::Bytes(b) if b.len() <= MAX_LITERAL => Ok(()),
        Term::Set(elements) if elements.len() <= MAX_ELEMENTS => elements.iter().try_for_each(scalar),
        Term::Array(elements) if elements.len() <= MAX_ELEMENTS => elements.iter().try_for_each(scalar),
        Term::Null => Err("`null` (a missing value reads as null)"),
        Term::Map(_) => Err("a map literal"),
        Term::Parameter(_) => Err("a parameter"),
        _ => Err("a literal that is too large"),
    }
}

fn scalar(term: &Term) -> Result<(), &'static str> {
    match term {
        Term::Set(_) | Term::Array(_) | Term::Variable(_) => Err("a nested literal"),
        other => literal(other),
    }
}

/// P-19. A join visits each pair of facts, and each binding copies its values, `args` with them.
fn joins(check: &Check) -> Result<(), &'static str> {
    for query in &check.queries {
        let of = |is: fn(&str) -> bool| query.body.iter().filter(|p| is(&p.name)).count();
        let several = of(vocabulary::is_multi_valued);
        if several > 1 || (several == 1 && of(|name| name == "args") > 0) {
            return Err("a join that may be large");
        }
    }
    Ok(())
}

/// How many patterns a check has to compile.
pub(crate) fn patterns(check: &Check) -> usize {
    expressions(check)
        .flat_map(|expression| &expression.ops)
        .filter(|op| is_full_match(op))
        .count()
}

fn is_match(expression: &Expression) -> bool {
    expression.ops.iter().any(is_full_match)
}

fn is_full_match(op: &Op) -> bool {
    matches!(op, Op::Binary(Binary::Ffi(name)) if name == Function::FullMatch.name())
}

/// P-20.
fn calls(check: &Check) -> Result<Vec<Call>, &'static str> {
    // A match may take a millisecond: one for each of 64 resources would add up.
    let many = |query: &&Rule| query.body.iter().any(|p| vocabulary::is_multi_valued(&p.name));
    let of_many = check.queries.iter().filter(many);
    if of_many.flat_map(|query| &query.expressions).any(is_match) {
        return Err("`full_match` over a word of which there may be many facts");
    }
    let mut calls = Vec::new();
    for expression in expressions(check) {
        let mut before: Option<&Op> = None;
        for op in &expression.ops {
            match op {
                Op::Unary(Unary::Ffi(_)) => return Err("an extern function without an argument"),
                Op::Binary(Binary::Ffi(name)) => {
                    let function = Function::parse(name).ok_or("an unknown extern function")?;
                    let Some(Op::Value(literal)) = before else {
                        return Err("an extern function whose argument is not a literal");
                    };
                    let applied = Applied::new(function, literal)?;
                    calls.push((function, literal.clone(), Arc::new(applied)));
                }
                _ => {}
            }
            before = Some(op);
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, refused: Option<(&str, &str)>) {
        let parsed: Check = source.parse().unwrap();
        match (admit(0, 0, parsed), refused) {
            (Ok(_), None) => {}
            (Err(Error::Admission { rule, reason, .. }), Some((number, part)))
                if rule.as_str() == number && reason.contains(part) => {}
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn the_grammar_is_what_caveats_need_and_little_more() {
        check(r#"check if tool("git_log")"#, None);
        check(r#"check if server("git"), tool("git_log")"#, None);
        check(
            r#"check if server($s), tool($t), $s === "git", {"a", "b"}.contains($t)"#,
            None,
        );
        check(r#"check all resource("repo", $r), $r.starts_with("acme/")"#, None);
        check(r#"check if args($a), $a.get("n") <= 10"#, None);
        check(r#"reject if tool("git_show")"#, None);
        check(r#"check if claim("groups", "eng")"#, None);
        check(r#"check if args($a), $a.get("n") == 10"#, None);
        check(
            r#"check if args($a), $a.get("n") != 10"#,
            Some(("P-17", "lenient")),
        );
        check(r#"check if tool("a") or tool("b")"#, Some(("P-16", "one query")));
        check(
            r#"check if tool("a"), server("b"), method("c")"#,
            Some(("P-16", "number of predicates")),
        );
        check(r#"check if true"#, Some(("P-16", "number of predicates")));
        check(r#"check if holder($a, $b)"#, Some(("P-16", "vocabulary")));
        check(r#"check if max_depth($a)"#, Some(("P-16", "vocabulary")));
        check(r#"check if unknown($a)"#, Some(("P-16", "vocabulary")));
        check(r#"check if tool($a, $b)"#, Some(("P-16", "vocabulary")));
        check(
            r#"check if tool($a), $a.matches("a*")"#,
            Some(("P-17", "matches")),
        );
        check(
            r#"check if args($a), [1].any($x -> $x == 1)"#,
            Some(("P-17", "closure")),
        );
        check(
            r#"check if args($a), $a.get("x") || true"#,
            Some(("P-17", "closure")),
        );
        check(
            r#"check if args($a), ($a.get("x") === 1).try_or(true)"#,
            Some(("P-17", "closure")),
        );
        check(r#"check if args($a), $a.extern::f(1)"#, Some(("P-20", "extern")));
        check(
            r#"check if args($a), $a.get("x") === null"#,
            Some(("P-18", "null")),
        );
        check(r#"check if args($a), $a === {"x": 1}"#, Some(("P-18", "map")));
        check(
            r#"check if args($a), $a.get("x") + 1 === 2"#,
            Some(("P-17", "operator")),
        );
        check(
            r#"check if tool($a) trusting previous"#,
            Some(("P-16", "trusting")),
        );
        check(
            r#"check all resource("repo", $r), claim("repo", $r)"#,
            Some(("P-19", "join")),
        );
        check(r#"check all args($a), resource($k, $v)"#, Some(("P-19", "join")));
        check(r#"check if args($a), tool($t), $a.get("t") === $t"#, None);
        check(
            r#"check if claim($n, $v), ["a"].get($v.length()) === "a""#,
            Some(("P-17", "without `args`")),
        );
        check(
            "check if time($t), $t < 9999-12-31T23:59:59Z, $t > 1970-01-01T00:00:01Z",
            None,
        );
        check(
            r#"check if resource($a, $b), claim($c, $d), $a === $c"#,
            Some(("P-19", "join")),
        );
        check(r#"check if claim($a, $b), time($t), $a === "x""#, None);
        check(r#"check if hop($a, $b)"#, Some(("P-16", "only policies")));
        check(r#"check if depth($d), $d >= 2"#, Some(("P-16", "only policies")));
        check(r#"check all calls("a", $calls), $calls <= 2"#, None);
        check(r#"check if calls("a", $calls)"#, Some(("P-16", "max-calls")));
        check(
            r#"check if calls("a", $calls), $calls <= 2"#,
            Some(("P-16", "max-calls")),
        );
        check(
            r#"check all resource("repo", $r), args($a), $a.get("x") === $r"#,
            Some(("P-19", "join")),
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within("/a")"#,
            None,
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within($a)"#,
            Some(("P-20", "another type")),
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within("/a" + "b")"#,
            Some(("P-17", "operator")),
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within(("/a"))"#,
            Some(("P-20", "not a literal")),
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within("/a/")"#,
            Some(("P-20", "canonical path")),
        );
        check(
            r#"check if args($a), $a.get("p").extern::path_within()"#,
            Some(("P-20", "without an argument")),
        );
        check(
            r#"check if args($a), $a.get("p") === {1, 2}.union({3})"#,
            Some(("P-17", "operator")),
        );
    }

    #[test]
    fn only_one_shape_is_an_expiry() {
        let check = |source: &str, at: Option<i64>| {
            assert_eq!(expiry(&source.parse().unwrap()), at, "{source}");
        };
        check("check if time($t), $t < 1970-01-01T00:01:00Z", Some(60));
        check("check if time($t), $t <= 1970-01-01T00:01:00Z", None);
        check("check if time($t), $t < 1970-01-01T00:01:00Z or true", None);
        check("check if time($t), $t < 1970-01-01T00:01:00Z, true", None);
        check("check all time($t), $t < 1970-01-01T00:01:00Z", None);
        check("reject if time($t), $t < 1970-01-01T00:01:00Z", None);
        check("check if time($t), $u < 1970-01-01T00:01:00Z", None);
        check("check if hour($t), $t < 1970-01-01T00:01:00Z", None);
        check(
            "check if time($t), $t < 1970-01-01T00:01:00Z trusting previous",
            None,
        );
    }
}
