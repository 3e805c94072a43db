//! Static admission: a check is a program written by whoever held the token, so it is admitted by
//! its shape before any Datalog runs (P-16).
//!
//! The grammar: one query; at most two predicates, all words of the vocabulary with their arity;
//! expressions of a few operations without closures, regular expressions, lenient inequality,
//! arithmetic or extern functions; literals of bounded size; no expressions over a join of two words
//! that may have many facts. Each check then costs at most (facts of one word) evaluations of a few
//! operations over values that the request bounds, or one join without any.

use crate::{Caveat, Error, rules, vocabulary};
use biscuit_auth::builder::{Binary, Check, CheckKind, Op, Rule, Term, Unary};
use biscuit_auth::format::schema;

const MAX_PREDICATES: usize = 2;
const MAX_EXPRESSIONS: usize = 8;
const MAX_OPS: usize = 32;
const MAX_ELEMENTS: usize = 64;
const MAX_LITERAL: usize = 1024;

/// A check of a chain that was admitted.
#[derive(Clone, Debug)]
pub struct AdmittedCheck {
    check: Check,
    caveat: Option<Caveat>,
}

impl AdmittedCheck {
    /// The caveat that the check stands for, if it is one of ours.
    #[must_use]
    pub fn caveat(&self) -> Option<&Caveat> {
        self.caveat.as_ref()
    }

    /// The check as Datalog on one line, for people: control characters are escaped, and the text
    /// is not meant to be parsed again.
    #[must_use]
    pub fn datalog(&self) -> String {
        self.check.to_string().chars().flat_map(escape).collect()
    }

    /// The check itself, for the crate that evaluates it.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// The words that the check names.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.check
            .queries
            .iter()
            .flat_map(|query| query.body.iter().map(|predicate| predicate.name.as_str()))
    }
}

fn escape(c: char) -> std::vec::IntoIter<char> {
    if c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    {
        c.escape_unicode().collect::<Vec<_>>().into_iter()
    } else {
        vec![c].into_iter()
    }
}

/// Admits one check of block `block` (P-16).
pub(crate) fn admit(block: usize, index: usize, check: Check) -> Result<AdmittedCheck, Error> {
    if let Err(reason) = shape(&check)
        && !rules::ADMISSION.holds(false)
    {
        return Err(Error::Admission {
            block,
            check: index,
            reason,
        });
    }
    let caveat = Caveat::from_check(&check);
    Ok(AdmittedCheck { check, caveat })
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

/// Bounds the size of a check before it is converted: conversion recurses over its terms.
pub(crate) fn bounded(check: &schema::Check) -> Result<(), &'static str> {
    if check.queries.len() != 1 {
        return Err("it is not one query (`or` is not admitted)");
    }
    for query in &check.queries {
        if query.body.len() > MAX_PREDICATES {
            return Err("more than two predicates");
        }
        if query.expressions.len() > MAX_EXPRESSIONS
            || query.expressions.iter().any(|e| e.ops.len() > MAX_OPS)
        {
            return Err("too many operations");
        }
        if query.body.iter().any(|predicate| predicate.terms.len() > 4) {
            return Err("a predicate that is not of the vocabulary");
        }
    }
    Ok(())
}

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
        predicate.terms.iter().try_for_each(literal)?;
    }
    let several = query
        .body
        .iter()
        .filter(|predicate| vocabulary::is_multi_valued(&predicate.name))
        .count();
    if several > 1 && !query.expressions.is_empty() {
        return Err("expressions over a join of two words that may have many facts");
    }
    if query.expressions.len() > MAX_EXPRESSIONS {
        return Err("too many expressions");
    }
    query.expressions.iter().try_for_each(|expression| {
        if expression.ops.len() > MAX_OPS {
            return Err("too many operations");
        }
        expression.ops.iter().try_for_each(operation)
    })
}

fn operation(op: &Op) -> Result<(), &'static str> {
    match op {
        Op::Value(term) => literal(term),
        Op::Unary(Unary::Negate | Unary::Parens | Unary::Length) => Ok(()),
        Op::Unary(Unary::TypeOf) => Err("`.type()`"),
        Op::Unary(Unary::Ffi(_)) | Op::Binary(Binary::Ffi(_)) => Err("an unknown extern function"),
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
            | Binary::Get => Ok(()),
            Binary::HeterogeneousNotEqual => Err("lenient `!=` (it passes on a missing value; use `!==`)"),
            Binary::Regex => Err("`.matches()` (its cost is not bounded)"),
            Binary::TryOr => Err("`.try_or()`"),
            Binary::Or => Err("`or`"),
            Binary::LazyAnd | Binary::LazyOr | Binary::All | Binary::Any => Err("a closure"),
            _ => Err("an operator outside the grammar"),
        },
        Op::Closure(..) => Err("a closure"),
    }
}

fn literal(term: &Term) -> Result<(), &'static str> {
    match term {
        Term::Variable(_) | Term::Integer(_) | Term::Date(_) | Term::Bool(_) => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, refused: Option<&str>) {
        let parsed: Check = source.parse().unwrap();
        let result = shape(&parsed).err();
        match (result, refused) {
            (None, None) => {}
            (Some(reason), Some(part)) if reason.contains(part) => {}
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
        check(r#"check if args($a), $a.get("n") != 10"#, Some("lenient"));
        check(r#"check if tool("a") or tool("b")"#, Some("one query"));
        check(
            r#"check if tool("a"), server("b"), method("c")"#,
            Some("number of predicates"),
        );
        check(r#"check if true"#, Some("number of predicates"));
        check(r#"check if holder($a, $b)"#, Some("vocabulary"));
        check(r#"check if max_depth($a)"#, Some("vocabulary"));
        check(r#"check if unknown($a)"#, Some("vocabulary"));
        check(r#"check if tool($a, $b)"#, Some("vocabulary"));
        check(r#"check if tool($a), $a.matches("a*")"#, Some("matches"));
        check(r#"check if args($a), [1].any($x -> $x == 1)"#, Some("closure"));
        check(r#"check if args($a), $a.get("x") || true"#, Some("closure"));
        check(
            r#"check if args($a), ($a.get("x") === 1).try_or(true)"#,
            Some("closure"),
        );
        check(r#"check if args($a), $a.extern::f(1)"#, Some("extern"));
        check(r#"check if args($a), $a.get("x") === null"#, Some("null"));
        check(r#"check if args($a), $a === {"x": 1}"#, Some("map"));
        check(r#"check if args($a), $a.get("x") + 1 === 2"#, Some("operator"));
        check(r#"check if tool($a) trusting previous"#, Some("trusting"));
        check(r#"check all resource("repo", $r), claim("repo", $r)"#, None);
        check(r#"check if hop($a, $b), hop($c, $d), $a < $c"#, Some("join"));
        check(r#"check if hop($a, $b), time($t), $a < 3"#, None);
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
