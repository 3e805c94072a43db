//! Checks as Datalog for people. Biscuit prints strings and names as they are, so that a string
//! with a quotation mark in it can pose as more of the check; here they are escaped first.

use crate::print::escaped;
use biscuit_auth::builder::{Binary, Check, MapKey, Op, Predicate, Term, Unary};

/// The check on one line. No two checks look alike because of what a string or a name holds, but
/// the text is not meant to be parsed again.
pub(crate) fn datalog(check: &Check) -> String {
    let mut check = check.clone();
    for query in &mut check.queries {
        query.body.iter_mut().for_each(predicate);
        for expression in &mut query.expressions {
            if is_expression(&expression.ops) {
                ops(&mut expression.ops);
            } else {
                // Biscuit panics when it prints such a thing.
                expression.ops = vec![Op::Value(Term::Variable("<not an expression>".to_owned()))];
            }
        }
    }
    check.to_string()
}

/// Whether operations, in the order of a stack, have the operands that they take and end in one
/// value, in closures too. Biscuit decodes any sequence.
pub(crate) fn is_expression(ops: &[Op]) -> bool {
    let depth = ops.iter().try_fold(0_usize, |depth, op| match op {
        Op::Value(_) => depth.checked_add(1),
        Op::Closure(_, body) => is_expression(body).then_some(depth.checked_add(1)?),
        Op::Unary(_) => (depth >= 1).then_some(depth),
        Op::Binary(_) => (depth >= 2).then(|| depth - 1),
    });
    depth == Some(1)
}

fn predicate(predicate: &mut Predicate) {
    name(&mut predicate.name);
    predicate.terms.iter_mut().for_each(term);
}

/// Escapes the names and texts of an expression, and puts what another operator would tear apart
/// between parentheses: Biscuit prints operands one after the other.
fn ops(all: &mut Vec<Op>) {
    // What is on the stack: its operations, and whether it binds loosely.
    let mut stack: Vec<(Vec<Op>, bool)> = Vec::new();
    for mut op in std::mem::take(all) {
        let (mut operands, loose) = match &mut op {
            Op::Value(value) => {
                term(value);
                (Vec::new(), false)
            }
            Op::Closure(parameters, body) => {
                parameters.iter_mut().for_each(name);
                ops(body);
                (Vec::new(), false)
            }
            Op::Unary(unary) => {
                if let Unary::Ffi(function) = unary {
                    name(function);
                }
                let apart = *unary != Unary::Parens;
                (operand(stack.pop(), apart), *unary == Unary::Negate)
            }
            Op::Binary(binary) => {
                if let Binary::Ffi(function) = binary {
                    name(function);
                }
                let right = operand(stack.pop(), true);
                let mut both = operand(stack.pop(), true);
                both.extend(right);
                (both, is_infix(binary))
            }
        };
        operands.push(op);
        stack.push((operands, loose));
    }
    all.extend(stack.into_iter().flat_map(|(ops, _)| ops));
}

fn operand(operand: Option<(Vec<Op>, bool)>, apart: bool) -> Vec<Op> {
    let (mut ops, loose) = operand.unwrap_or_default();
    if loose && apart {
        ops.push(Op::Unary(Unary::Parens));
    }
    ops
}

/// Whether an operator stands between its operands; the others are methods.
fn is_infix(binary: &Binary) -> bool {
    !matches!(
        binary,
        Binary::Contains
            | Binary::Prefix
            | Binary::Suffix
            | Binary::Regex
            | Binary::Intersection
            | Binary::Union
            | Binary::All
            | Binary::Any
            | Binary::Get
            | Binary::Ffi(_)
            | Binary::TryOr
    )
}

fn term(value: &mut Term) {
    match value {
        Term::Variable(text) | Term::Parameter(text) => name(text),
        Term::Str(text) => *text = inner(text),
        Term::Set(set) => {
            let mut terms: Vec<Term> = std::mem::take(set).into_iter().collect();
            terms.iter_mut().for_each(term);
            set.extend(terms);
        }
        Term::Array(terms) => terms.iter_mut().for_each(term),
        Term::Map(map) => {
            let shown = std::mem::take(map).into_iter().map(|(key, mut value)| {
                term(&mut value);
                let key = match key {
                    MapKey::Str(text) => MapKey::Str(inner(&text)),
                    other => other,
                };
                (key, value)
            });
            map.extend(shown);
        }
        Term::Integer(_) | Term::Date(_) | Term::Bytes(_) | Term::Bool(_) | Term::Null => {}
    }
}

/// What stands between the quotation marks of a string.
fn inner(text: &str) -> String {
    escaped(text).replace('"', "\\\"")
}

/// A name as it is when it is one, else between angle brackets, which no Datalog has.
fn name(text: &mut String) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    if text.is_empty() || !text.chars().all(plain) {
        *text = format!("<{}>", inner(text).replace('>', "\\>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_cannot_pose_as_more_of_the_check() {
        for source in [
            r#"check if tool("log"), resource("repo", $r), $r === "acme/web""#,
            r#"check if args($a), $a.get("x").extern::path_within("/srv")"#,
            r#"check if server($s), {"a", "b"}.contains($s)"#,
            r#"reject if method($m), ["a"].any($p -> $p === $m)"#,
        ] {
            let check: Check = source.parse().unwrap();
            assert_eq!(datalog(&check), source);
        }
        let crafted = |text: &str| {
            let mut check: Check = r#"check if server("x")"#.parse().unwrap();
            check.queries[0].body[0].terms = vec![Term::Str(text.to_owned())];
            datalog(&check)
        };
        assert_eq!(
            crafted("git\"), tool(\"log"),
            r#"check if server("git\"), tool(\"log")"#
        );
        assert_eq!(
            crafted("\u{1b}[2J\n\u{202e}\\"),
            r#"check if server("\u{1b}[2J\u{a}\u{202e}\\")"#
        );
        let word = |name: &str| Op::Value(Term::Variable(name.to_owned()));
        let mut check: Check = r#"check if server($s), tool($t), $s === "x""#.parse().unwrap();
        check.queries[0].expressions[0].ops = vec![
            word("s"),
            Op::Value(Term::Str("git".to_owned())),
            Op::Binary(Binary::Equal),
            word("t"),
            Op::Value(Term::Str("push".to_owned())),
            Op::Binary(Binary::Equal),
            Op::Binary(Binary::And),
            Op::Unary(Unary::Negate),
        ];
        assert_eq!(
            datalog(&check),
            r#"check if server($s), tool($t), !(($s === "git") &&! ($t === "push"))"#
        );
        let bare = |ops: Vec<Op>| {
            let mut check: Check = r#"check if server("x"), $x === 1"#.parse().unwrap();
            check.queries[0].expressions[0].ops = ops;
            datalog(&check)
        };
        let one = || Op::Value(Term::Integer(1));
        for ops in [
            vec![],
            vec![one(), one()],
            vec![Op::Unary(Unary::Negate)],
            vec![one(), Op::Binary(Binary::And)],
            vec![one(), Op::Closure(vec![], vec![]), Op::Binary(Binary::LazyAnd)],
        ] {
            assert_eq!(bare(ops), r#"check if server("x"), $<not an expression>"#);
        }
        let mut check: Check = r#"check if server("x"), $x === 1"#.parse().unwrap();
        check.queries[0].body[0].name = "tool(\"log\"), server\n".to_owned();
        check.queries[0].expressions[0].ops[0] =
            Op::Value(Term::Variable("x === 1 or true\u{1b}".to_owned()));
        assert_eq!(
            datalog(&check),
            r#"check if <tool(\"log\"), server\u{a}>("x"), $<x === 1 or true\u{1b}> === 1"#
        );
    }
}
