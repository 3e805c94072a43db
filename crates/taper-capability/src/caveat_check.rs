//! From a caveat to the one check that it compiles to. Values enter as terms; Datalog text is never
//! built by formatting.

use crate::functions::{Applied, Function};
use crate::{ArgumentMatch, ArgumentValue, Caveat, Error, ResourceMatch, names};
use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Op, Predicate, Rule, Term};
use std::collections::BTreeSet;

/// The most values that one caveat lists.
const MAX_VALUES: usize = 64;
/// The longest string in a caveat, in bytes.
const MAX_STRING: usize = 1024;
/// The most members of an argument's pointer.
const MAX_MEMBERS: usize = 8;
/// The longest member of an argument's pointer, in bytes.
const MAX_MEMBER: usize = 128;
/// Integers that every JSON reader keeps exactly: ±(2^53 − 1).
pub(crate) const MAX_INTEGER: i64 = (1 << 53) - 1;

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
            Self::Server { servers } => one_of("server", servers),
            Self::Method { methods } => one_of("method", methods),
            Self::Audience { audiences } => one_of("audience", audiences),
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
                argument_expressions(argument(pointer)?, matches),
            ),
            Self::ClientAddress { networks } => check(
                CheckKind::One,
                vec![predicate("client_ip", vec![variable("client_ip")])],
                vec![call(
                    vec![value(variable("client_ip"))],
                    Function::InNetwork,
                    Term::Set(strings(networks)),
                )],
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
            Self::Hours { .. } => check(
                CheckKind::One,
                vec![predicate("time", vec![variable("time")])],
                vec![call(
                    vec![value(variable("time"))],
                    Function::InHours,
                    self.hours().ok_or_else(|| invalid("hours"))?,
                )],
            ),
            Self::MaxCalls { counter, calls } => check(
                CheckKind::All,
                vec![predicate("calls", vec![string(counter), variable("calls")])],
                vec![binary(
                    vec![value(variable("calls"))],
                    vec![value(Term::Integer(*calls))],
                    Binary::LessOrEqual,
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
            Self::Method { methods: texts_ } | Self::Audience { audiences: texts_ } => texts(texts_),
            Self::Resource { kind, matches } => {
                name(names::is_kind, kind)?;
                match matches {
                    ResourceMatch::OneOf(values) => texts(values),
                    ResourceMatch::Prefix(prefix) if prefix.ends_with('/') => text(prefix),
                    ResourceMatch::Prefix(_) => Err(invalid(
                        "a resource prefix ends with `/`, so that it cannot match half a name",
                    )),
                }
            }
            Self::Argument { pointer, matches } => {
                argument(pointer)?;
                matches.validate()
            }
            Self::ClientAddress { networks } => {
                applied(Function::InNetwork, Term::Set(strings(networks)))?;
                count(networks)
            }
            Self::NotBefore(_) => Ok(()),
            Self::Hours { .. } => {
                let hours = self
                    .hours()
                    .ok_or_else(|| invalid("days are 1 (Monday) to 7 (Sunday)"))?;
                applied(Function::InHours, hours)
            }
            Self::MaxCalls { counter, calls } => {
                name(names::is_counter, counter)?;
                match calls {
                    1..=MAX_INTEGER => Ok(()),
                    _ => Err(invalid("at least one call is allowed, at most 2^53 − 1")),
                }
            }
        }
    }

    /// The literal of `in_hours`.
    fn hours(&self) -> Option<Term> {
        let Self::Hours {
            from,
            to,
            offset,
            days,
        } = self
        else {
            return None;
        };
        let digits: Option<String> = days
            .iter()
            .map(|day| char::from_digit(u32::from(*day), 10))
            .collect();
        Some(string(&format!("{from}/{to}/{offset}/{}", digits?)))
    }
}

impl ArgumentMatch {
    fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Equals(wanted) => argument_value(wanted),
            Self::OneOf(wanted) => {
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
            Self::Prefix(prefix) if prefix.ends_with(char::is_alphanumeric) => Err(invalid(
                "a prefix does not end with a letter or digit, so that it cannot match half a word",
            )),
            Self::Prefix(prefix) => text(prefix),
            Self::Range { min: None, max: None } => Err(invalid("a range has a smallest or a largest value")),
            Self::Range { min, max } => {
                [min, max].into_iter().flatten().try_for_each(|i| integer(*i))?;
                match (min, max) {
                    (Some(min), Some(max)) if min > max => Err(invalid("the range is empty")),
                    _ => Ok(()),
                }
            }
            Self::PathWithin(root) => applied(Function::PathWithin, string(root)),
            Self::UrlHost(hosts) => {
                count(hosts)?;
                applied(Function::UrlHost, Term::Set(strings(hosts)))
            }
            Self::Network(networks) => {
                count(networks)?;
                applied(Function::InNetwork, Term::Set(strings(networks)))
            }
            Self::Matches(pattern) => applied(Function::FullMatch, string(pattern)),
        }
    }
}

fn argument_expressions(argument: Vec<Op>, matches: &ArgumentMatch) -> Vec<Expression> {
    vec![match matches {
        ArgumentMatch::Equals(wanted) => binary(argument, vec![value(term(wanted))], Binary::Equal),
        ArgumentMatch::OneOf(wanted) => contains(wanted.iter().map(term).collect(), argument),
        ArgumentMatch::Prefix(prefix) => binary(argument, vec![value(string(prefix))], Binary::Prefix),
        ArgumentMatch::Range { min, max } => {
            let bound = |bound: &i64, op| binary(argument.clone(), vec![value(Term::Integer(*bound))], op);
            let least = min.iter().map(|min| bound(min, Binary::GreaterOrEqual));
            let most = max.iter().map(|max| bound(max, Binary::LessOrEqual));
            return least.chain(most).collect();
        }
        ArgumentMatch::PathWithin(root) => call(argument, Function::PathWithin, string(root)),
        ArgumentMatch::UrlHost(hosts) => call(argument, Function::UrlHost, Term::Set(strings(hosts))),
        ArgumentMatch::Network(networks) => call(argument, Function::InNetwork, Term::Set(strings(networks))),
        ArgumentMatch::Matches(pattern) => call(argument, Function::FullMatch, string(pattern)),
    }]
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::Caveat(reason.into())
}

fn applied(function: Function, literal: Term) -> Result<(), Error> {
    match &literal {
        Term::Str(s) => text(s)?,
        Term::Set(entries) => entries.iter().try_for_each(|entry| match entry {
            Term::Str(s) => text(s),
            _ => Ok(()),
        })?,
        _ => {}
    }
    Applied::takes(function, &literal).map_err(invalid)
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

fn texts(values: &[String]) -> Result<(), Error> {
    values.iter().try_for_each(|value| text(value))?;
    count(values)
}

fn integer(value: i64) -> Result<(), Error> {
    if value.unsigned_abs() <= MAX_INTEGER.unsigned_abs() {
        Ok(())
    } else {
        Err(invalid("integers are within ±(2^53 − 1)"))
    }
}

fn argument_value(value: &ArgumentValue) -> Result<(), Error> {
    match value {
        ArgumentValue::Bool(_) => Ok(()),
        ArgumentValue::Integer(i) => integer(*i),
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
        let member = unescaped(part).ok_or_else(bad)?;
        if depth >= MAX_MEMBERS || member.is_empty() || member.len() > MAX_MEMBER {
            return Err(bad());
        }
        ops.push(value(Term::Str(member)));
        ops.push(Op::Binary(Binary::Get));
    }
    Ok(ops)
}

/// A member as RFC 6901 section 4 reads it: `~1` is `/`, `~0` is `~`, and no other `~` stands there.
pub(crate) fn unescaped(part: &str) -> Option<String> {
    let mut parts = part.split('~');
    let mut member = parts.next()?.to_owned();
    for rest in parts {
        let (code, rest) = rest.split_at_checked(1)?;
        member.push(match code {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        member.push_str(rest);
    }
    Some(member)
}

fn one_of(word: &str, values: &[String]) -> Check {
    check(
        CheckKind::One,
        vec![predicate(word, vec![variable(word)])],
        vec![contains(strings(values), vec![value(variable(word))])],
    )
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

fn call(left: Vec<Op>, function: Function, literal: Term) -> Expression {
    binary(
        left,
        vec![value(literal)],
        Binary::Ffi(function.name().to_owned()),
    )
}

fn contains(set: BTreeSet<Term>, element: Vec<Op>) -> Expression {
    binary(vec![value(Term::Set(set))], element, Binary::Contains)
}

fn strings(values: &[String]) -> BTreeSet<Term> {
    values.iter().map(|v| string(v)).collect()
}

pub(crate) fn term(value: &ArgumentValue) -> Term {
    match value {
        ArgumentValue::Bool(b) => Term::Bool(*b),
        ArgumentValue::Integer(i) => Term::Integer(*i),
        ArgumentValue::String(s) => string(s),
    }
}
