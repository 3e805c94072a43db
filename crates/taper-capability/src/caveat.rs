//! Caveats: one restriction each, compiled to one Datalog check over the request vocabulary.

use crate::{Error, names};
use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Op, Predicate, Rule, Term};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The most values that one caveat lists.
pub(crate) const MAX_VALUES: usize = 64;
/// The longest string in a caveat, in bytes.
pub(crate) const MAX_STRING: usize = 1024;
/// Integers that every JSON reader keeps exactly: ±(2^53 − 1).
pub(crate) const MAX_INTEGER: i64 = (1 << 53) - 1;

/// One restriction that a holder adds. A missing fact never satisfies a caveat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Caveat {
    /// Only these tools of one server.
    Tool {
        /// The server id.
        server: String,
        /// The tools' names.
        tools: Vec<String>,
    },
    /// Only these servers.
    Server {
        /// The server ids.
        servers: Vec<String>,
    },
    /// Every resource of this kind that the call names must match, and there must be one.
    Resource {
        /// The resource's kind, as the server's profile names it.
        kind: String,
        /// What its value must be.
        matches: ResourceMatch,
    },
    /// An argument of the call must match.
    Argument {
        /// Where it stands, an RFC 6901 pointer of object members such as `/options/limit`.
        pointer: String,
        /// What its value must be.
        matches: ArgumentMatch,
    },
    /// Not before this time, in seconds since the Unix epoch.
    NotBefore(i64),
}

/// What the value of a resource must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceMatch {
    /// One of these values.
    OneOf(Vec<String>),
    /// Below this prefix, which ends with `/`.
    Prefix(String),
}

/// What the value of an argument must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgumentMatch {
    /// This value, of this type.
    Equals(ArgumentValue),
    /// One of these values, all of one type.
    OneOf(Vec<ArgumentValue>),
    /// A string that starts so.
    Prefix(String),
}

/// A value that an argument can be compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ArgumentValue {
    /// A boolean.
    Bool(bool),
    /// An integer within ±(2^53 − 1).
    Integer(i64),
    /// A string.
    String(String),
}

impl Caveat {
    /// The check that this caveat compiles to (`spec/caveats.md`).
    ///
    /// # Errors
    /// [`Error::Caveat`] or [`Error::Name`] for a caveat that says nothing or cannot be expressed.
    pub fn to_check(&self) -> Result<Check, Error> {
        self.validate()?;
        Ok(match self {
            Self::Tool { server, tools } => check(
                CheckKind::One,
                vec![
                    predicate("server", vec![string(server)]),
                    predicate("tool", vec![variable("tool")]),
                ],
                vec![contains(strings(tools), vec![value(variable("tool"))])],
            ),
            Self::Server { servers } => check(
                CheckKind::One,
                vec![predicate("server", vec![variable("server")])],
                vec![contains(strings(servers), vec![value(variable("server"))])],
            ),
            Self::Resource { kind, matches } => check(
                CheckKind::All,
                vec![predicate("resource", vec![string(kind), variable("value")])],
                vec![match matches {
                    ResourceMatch::OneOf(values) => contains(strings(values), vec![value(variable("value"))]),
                    ResourceMatch::Prefix(prefix) => binary(
                        vec![value(variable("value"))],
                        vec![value(string(prefix))],
                        Binary::Prefix,
                    ),
                }],
            ),
            Self::Argument { pointer, matches } => check(
                CheckKind::One,
                vec![predicate("args", vec![variable("args")])],
                vec![match matches {
                    ArgumentMatch::Equals(wanted) => {
                        binary(argument(pointer)?, vec![value(term(wanted))], Binary::Equal)
                    }
                    ArgumentMatch::OneOf(wanted) => {
                        contains(wanted.iter().map(term).collect(), argument(pointer)?)
                    }
                    ArgumentMatch::Prefix(prefix) => {
                        binary(argument(pointer)?, vec![value(string(prefix))], Binary::Prefix)
                    }
                }],
            ),
            Self::NotBefore(at) => check(
                CheckKind::One,
                vec![predicate("time", vec![variable("time")])],
                vec![binary(
                    vec![value(variable("time"))],
                    vec![value(Term::Date(
                        u64::try_from(*at).map_err(|_| invalid("a time before 1970"))?,
                    ))],
                    Binary::GreaterOrEqual,
                )],
            ),
        })
    }

    fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Tool { server, tools } => {
                name(names::is_server, server)?;
                tools.iter().try_for_each(|tool| name(names::is_tool, tool))?;
                count(tools)
            }
            Self::Server { servers } => {
                servers
                    .iter()
                    .try_for_each(|server| name(names::is_server, server))?;
                count(servers)
            }
            Self::Resource { kind, matches } => {
                name(names::is_server, &kind.replace('_', "-"))?;
                match matches {
                    ResourceMatch::OneOf(values) => {
                        values.iter().try_for_each(|v| text(v))?;
                        count(values)
                    }
                    ResourceMatch::Prefix(prefix) if prefix.ends_with('/') => text(prefix),
                    ResourceMatch::Prefix(_) => Err(invalid(
                        "a resource prefix ends with `/`, so that it cannot match half a name",
                    )),
                }
            }
            Self::Argument { pointer, matches } => {
                argument(pointer)?;
                match matches {
                    ArgumentMatch::Equals(wanted) => argument_value(wanted),
                    ArgumentMatch::OneOf(wanted) => {
                        wanted.iter().try_for_each(argument_value)?;
                        let kind = |v: &ArgumentValue| std::mem::discriminant(v);
                        if wanted
                            .windows(2)
                            .any(|pair| matches!(pair, [a, b] if kind(a) != kind(b)))
                        {
                            return Err(invalid("the values of a list are of one type"));
                        }
                        count(wanted)
                    }
                    ArgumentMatch::Prefix(prefix) => text(prefix),
                }
            }
            Self::NotBefore(_) => Ok(()),
        }
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::Caveat(reason.into())
}

fn name(is: fn(&str) -> bool, name: &str) -> Result<(), Error> {
    if is(name) {
        Ok(())
    } else {
        Err(Error::Name(name.escape_debug().to_string()))
    }
}

fn count<T>(values: &[T]) -> Result<(), Error> {
    match values.len() {
        1..=MAX_VALUES => Ok(()),
        _ => Err(invalid(format!("a list has 1 to {MAX_VALUES} values"))),
    }
}

fn text(value: &str) -> Result<(), Error> {
    match value.len() {
        1..=MAX_STRING => Ok(()),
        _ => Err(invalid(format!("a string has 1 to {MAX_STRING} bytes"))),
    }
}

fn argument_value(value: &ArgumentValue) -> Result<(), Error> {
    match value {
        ArgumentValue::Bool(_) => Ok(()),
        ArgumentValue::Integer(i) if i.unsigned_abs() <= MAX_INTEGER.unsigned_abs() => Ok(()),
        ArgumentValue::Integer(_) => Err(invalid("integers are within ±(2^53 − 1)")),
        ArgumentValue::String(s) if s.len() <= MAX_STRING => Ok(()),
        ArgumentValue::String(_) => Err(invalid(format!("a string has at most {MAX_STRING} bytes"))),
    }
}

/// `$args.get("a").get("b")` for the pointer `/a/b`.
fn argument(pointer: &str) -> Result<Vec<Op>, Error> {
    let bad =
        || invalid("an argument is named by an RFC 6901 pointer of 1 to 8 members, such as `/repo_path`");
    let path = pointer.strip_prefix('/').ok_or_else(bad)?;
    let mut ops = vec![value(variable("args"))];
    for (depth, part) in path.split('/').enumerate() {
        if depth >= 8 || part.is_empty() || part.len() > 128 {
            return Err(bad());
        }
        let mut rest = part;
        while let Some(at) = rest.find('~') {
            match rest.as_bytes().get(at + 1) {
                Some(b'0' | b'1') => rest = rest.get(at + 2..).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        let member = part.replace("~1", "/").replace("~0", "~");
        ops.push(value(Term::Str(member)));
        ops.push(Op::Binary(Binary::Get));
    }
    Ok(ops)
}

pub(crate) fn check(kind: CheckKind, body: Vec<Predicate>, expressions: Vec<Expression>) -> Check {
    let head = Predicate::new("query".to_owned(), Vec::<Term>::new());
    Check {
        queries: vec![Rule::new(head, body, expressions, Vec::new())],
        kind,
    }
}

pub(crate) fn predicate(name: &str, terms: Vec<Term>) -> Predicate {
    Predicate::new(name.to_owned(), terms)
}

pub(crate) fn variable(name: &str) -> Term {
    Term::Variable(name.to_owned())
}

pub(crate) fn string(text: &str) -> Term {
    Term::Str(text.to_owned())
}

pub(crate) fn value(term: Term) -> Op {
    Op::Value(term)
}

pub(crate) fn binary(mut left: Vec<Op>, right: Vec<Op>, op: Binary) -> Expression {
    left.extend(right);
    left.push(Op::Binary(op));
    Expression { ops: left }
}

fn contains(set: BTreeSet<Term>, element: Vec<Op>) -> Expression {
    binary(vec![value(Term::Set(set))], element, Binary::Contains)
}

fn strings(values: &[String]) -> BTreeSet<Term> {
    values.iter().map(|v| string(v)).collect()
}

fn term(value: &ArgumentValue) -> Term {
    match value {
        ArgumentValue::Bool(b) => Term::Bool(*b),
        ArgumentValue::Integer(i) => Term::Integer(*i),
        ArgumentValue::String(s) => string(s),
    }
}

impl fmt::Display for Caveat {
    /// The caveat as a phrase, with everything a holder wrote escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool { server, tools } => {
                write!(
                    f,
                    "only {}",
                    list(tools.iter().map(|tool| format!("{server}:{tool}")))
                )
            }
            Self::Server { servers } => write!(f, "only on {}", list(servers)),
            Self::Resource {
                kind,
                matches: ResourceMatch::OneOf(values),
            } => {
                write!(
                    f,
                    "only {} {}",
                    kind.escape_debug(),
                    list(values.iter().map(|v| v.escape_debug()))
                )
            }
            Self::Resource {
                kind,
                matches: ResourceMatch::Prefix(prefix),
            } => {
                write!(f, "only {} below {}", kind.escape_debug(), prefix.escape_debug())
            }
            Self::Argument { pointer, matches } => {
                write!(f, "only with argument {} ", pointer.escape_debug())?;
                match matches {
                    ArgumentMatch::Equals(value) => write!(f, "= {value}"),
                    ArgumentMatch::OneOf(values) => write!(f, "one of {}", list(values)),
                    ArgumentMatch::Prefix(prefix) => write!(f, "starting with {prefix:?}"),
                }
            }
            Self::NotBefore(at) => match time::OffsetDateTime::from_unix_timestamp(*at) {
                Ok(t) => write!(
                    f,
                    "not before {:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                    t.year(),
                    u8::from(t.month()),
                    t.day(),
                    t.hour(),
                    t.minute(),
                    t.second()
                ),
                Err(_) => write!(f, "not before {at} (Unix time)"),
            },
        }
    }
}

impl fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::String(s) => write!(f, "{s:?}"),
        }
    }
}

fn list<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|v| v.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
