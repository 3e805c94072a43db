//! What checks, policies and templates read in the arguments of a call, by the names on the way to it: so
//! that a call can be refused in which a server that ignores case would find something else there (M-17).

use crate::json::Value;
use biscuit_auth::builder::{Binary, MapKey, Op, Rule, Term, Unary};
use std::collections::BTreeSet;

/// The way to something that is read in the arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArgumentPath {
    /// Names of members, or indices of elements, from the arguments down.
    way: Vec<String>,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// What the way leads to.
    Here,
    /// Members of this name, anywhere below it: of which element is not known before.
    Below(String),
    /// Members below it, of names that are not known before.
    Any,
}

impl ArgumentPath {
    /// The way that member names lead.
    #[must_use]
    pub fn of_members(names: &[String]) -> Self {
        Self {
            way: names.to_vec(),
            end: End::Here,
        }
    }

    /// The way that an RFC 6901 pointer leads, whose tokens are escaped as they should be.
    #[must_use]
    pub fn of_pointer(pointer: &str) -> Self {
        let tokens = pointer.split('/').skip(1);
        Self {
            way: tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
            end: End::Here,
        }
    }

    /// What the expressions of a query read, if its variables stand for the arguments.
    #[must_use]
    pub fn of_query(query: &Rule) -> BTreeSet<Self> {
        let mut found = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for expression in &query.expressions {
            scan(&expression.ops, &[], &mut found);
            texts_of(&expression.ops, &mut texts);
        }
        // A name that is not known before may be any text of the query.
        let open: Vec<Vec<String>> = found
            .iter()
            .filter(|path| path.end == End::Any)
            .map(|path| path.way.clone())
            .collect();
        for way in open {
            found.extend(texts.iter().map(|text| Self {
                way: way.clone(),
                end: End::Below(text.clone()),
            }));
        }
        found
    }

    /// Whether a reader that ignores case could find something else in `arguments` on this way: a member
    /// there has another spelling of the name that is read.
    #[must_use]
    pub fn is_ambiguous(&self, arguments: &Value) -> bool {
        let mut value = arguments;
        for name in &self.way {
            if value.has_other_spelling(name) {
                return true;
            }
            let next = match value {
                Value::Array(elements) => name.parse().ok().and_then(|n: usize| elements.get(n)),
                value => value.get(name),
            };
            let Some(next) = next else { return false };
            value = next;
        }
        match &self.end {
            End::Here => false,
            End::Below(name) => value.any_object(&|object| object.has_other_spelling(name)),
            End::Any => value.has_twins_within(),
        }
    }
}

/// What a value on the stack is.
#[derive(Clone)]
enum Seen<'a> {
    /// What stands at `way` in the arguments, or with `below` anything under it: an element of it, which for an object
    /// is a name and its value, or a part of one.
    Read {
        way: Vec<String>,
        below: bool,
        is_element: bool,
    },
    /// A literal text.
    Text(&'a str),
    /// A literal integer.
    Index,
    /// A function: its parameters, and what it does.
    Closure(&'a [String], &'a [Op]),
    /// Something that is no part of the arguments.
    Other,
}

/// Runs operations without their values, and notes what they would read. Variables that are not among
/// `bound` stand for the arguments.
fn scan(ops: &[Op], bound: &[(&str, Seen)], found: &mut BTreeSet<ArgumentPath>) {
    let mut stack: Vec<Seen> = Vec::new();
    for op in ops {
        let seen = match op {
            Op::Value(Term::Variable(name)) => bound
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map_or_else(Seen::arguments, |(_, seen)| seen.clone()),
            Op::Value(Term::Str(text)) => Seen::Text(text),
            Op::Value(Term::Integer(_)) => Seen::Index,
            Op::Value(_) => Seen::Other,
            Op::Closure(parameters, body) => Seen::Closure(parameters, body),
            Op::Unary(Unary::Parens) => continue,
            Op::Unary(_) => stack.pop().unwrap_or(Seen::Other).below(),
            Op::Binary(operator) => {
                let right = stack.pop().unwrap_or(Seen::Other);
                let left = stack.pop().unwrap_or(Seen::Other);
                binary(operator, left, right, bound, found)
            }
        };
        stack.push(seen);
    }
}

/// All literal texts among the operations.
fn texts_of(ops: &[Op], found: &mut BTreeSet<String>) {
    for op in ops {
        match op {
            Op::Value(term) => texts_in(term, found),
            Op::Closure(_, body) => texts_of(body, found),
            Op::Unary(_) | Op::Binary(_) => {}
        }
    }
}

fn texts_in(term: &Term, found: &mut BTreeSet<String>) {
    match term {
        Term::Str(text) => {
            found.insert(text.clone());
        }
        Term::Set(terms) => terms.iter().for_each(|term| texts_in(term, found)),
        Term::Array(terms) => terms.iter().for_each(|term| texts_in(term, found)),
        Term::Map(entries) => {
            for (key, value) in entries {
                if let MapKey::Str(text) = key {
                    found.insert(text.clone());
                }
                texts_in(value, found);
            }
        }
        _ => {}
    }
}

fn binary<'a>(
    operator: &Binary,
    left: Seen<'a>,
    right: Seen<'a>,
    bound: &[(&str, Seen)],
    found: &mut BTreeSet<ArgumentPath>,
) -> Seen<'a> {
    for operand in [&left, &right] {
        if let Seen::Closure(parameters, body) = operand {
            // What it is called with is an element of what stands on the left.
            let element = left.clone().element();
            let parameters = parameters.iter().map(|name| (name.as_str(), element.clone()));
            let inner: Vec<(&str, Seen)> = bound.iter().cloned().chain(parameters).collect();
            scan(body, &inner, found);
        }
    }
    match (operator, left, right) {
        (
            Binary::Get | Binary::Contains,
            Seen::Read {
                mut way,
                below,
                is_element,
            },
            key,
        ) => {
            let (end, below) = match key {
                // Perhaps the name.
                Seen::Index if is_element => (End::Any, true),
                Seen::Index => {
                    return Seen::Read {
                        way,
                        below: true,
                        is_element: false,
                    };
                }
                Seen::Text(name) if below => (End::Below(name.to_owned()), true),
                Seen::Text(name) => {
                    way.push(name.to_owned());
                    (End::Here, false)
                }
                _ => (End::Any, true),
            };
            found.insert(ArgumentPath {
                way: way.clone(),
                end,
            });
            Seen::Read {
                way,
                below,
                is_element: false,
            }
        }
        // Whatever is made of a part of the arguments may hold parts of it.
        (_, left @ Seen::Read { .. }, _) => left.below(),
        // So may what a function gives.
        (_, Seen::Closure(..), _) => Seen::arguments().below(),
        (_, _, right) => right.below(),
    }
}

impl Seen<'_> {
    fn arguments() -> Self {
        Self::Read {
            way: Vec::new(),
            below: false,
            is_element: false,
        }
    }

    /// Something in this, or made of it.
    fn below(self) -> Self {
        match self {
            Self::Read { way, .. } => Self::Read {
                way,
                below: true,
                is_element: false,
            },
            _ => Self::Other,
        }
    }

    /// An element of this.
    fn element(self) -> Self {
        match self.below() {
            Self::Read { way, below, .. } => Self::Read {
                way,
                below,
                is_element: true,
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{JsonLimits, parse};
    use biscuit_auth::builder::Check;

    /// What a check reads, as `way/end`: `=` is here, `>name` below, `*` anything below.
    #[track_caller]
    fn reads(check: &str, expected: &[&str]) {
        let parsed: Check = check.parse().unwrap();
        let found = ArgumentPath::of_query(&parsed.queries[0]);
        let shown: Vec<String> = found
            .iter()
            .map(|path| {
                let end = match &path.end {
                    End::Here => "=".to_owned(),
                    End::Below(name) => format!(">{name}"),
                    End::Any => "*".to_owned(),
                };
                format!("{}{end}", path.way.join("/"))
            })
            .collect();
        assert_eq!(shown, expected, "{check}");
    }

    #[test]
    fn what_is_read_is_found_in_every_form() {
        let of = |expression: &str| format!("check if args($a), tool($t), {expression}");
        for (expression, expected) in [
            (r#"$a.get("x") === 1"#, &["x="][..]),
            (
                r#"$a.get("x").get("y").get("z") === 1"#,
                &["x=", "x/y=", "x/y/z="],
            ),
            (r#"1 === $a.get("x"), ($a).get("y") === 1"#, &["x=", "y="]),
            (r#"{1, 2}.contains($a.get("x"))"#, &["x="]),
            (r#"$a.contains("x")"#, &["x="]),
            (
                r#"$a.get("x").contains("y") && !($a.get("z") === 1)"#,
                &["x=", "x/y=", "z="],
            ),
            (r#"$a.get("x").get(0) === 1"#, &["x="]),
            (r#"$a.get("x").get(0).get("y") === 1"#, &["x=", "x>y"]),
            (r#"$a.get("x").get($t) === 1"#, &["x=", "x>x", "x*"]),
            (r#"$a.get($a.get("x")) === 1"#, &[">x", "*", "x="]),
            (r#"$a.get("x").any($p -> $p.get("y") === 1)"#, &["x=", "x>y"]),
            (
                r#"$a.get("x").all($p -> $p.get("y").any($q -> $q.get("z") === $a.get("w")))"#,
                &["w=", "x=", "x>y", "x>z"],
            ),
            (r#"["x", {"y"}].any($k -> $a.get($k) === 1)"#, &[">x", ">y", "*"]),
            (r#"$a.any($e -> $e.get(0) === "x")"#, &[">x", "*"]),
            (
                r#"$a.get("x").all($p -> $p.get("y").get(0).starts_with("z/"))"#,
                &["x=", "x>y"],
            ),
            (
                r#"{"x": "z"}.any($e -> $a.get($e.get(0)) === 1)"#,
                &[">x", ">z", "*"],
            ),
            (r#"$a.get("x") === 1 || $a.get("y") === 1"#, &["x=", "y="]),
            (r#"$a.get("x").try_or(false).get("y") === 1"#, &[">y", "x="]),
            (r#"$a.length() === 1"#, &[]),
            (r#"$t === "x""#, &[]),
        ] {
            reads(&of(expression), expected);
        }
    }

    #[test]
    fn only_the_way_is_looked_at() {
        let check = |path: &ArgumentPath, arguments: &str, ambiguous: bool| {
            let arguments = parse(arguments.as_bytes(), &JsonLimits::default()).unwrap();
            assert_eq!(path.is_ambiguous(&arguments), ambiguous, "{path:?} {arguments}");
        };
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
        let end = |end: End| ArgumentPath {
            way: vec!["o".into()],
            end,
        };
        let below = end(End::Below("x".into()));
        check(&below, r#"{"o":[[{"x":1,"y":1,"Y":2}]],"x":{"X":1}}"#, false);
        check(&below, r#"{"o":[[{"y":{"X":2}}]]}"#, true);
        check(
            &end(End::Any),
            r#"{"o":[{"y":{"x":2}}],"p":{"x":1,"X":1}}"#,
            false,
        );
        check(&end(End::Any), r#"{"o":[{"y":{"x":2,"X":2}}]}"#, true);
    }
}
