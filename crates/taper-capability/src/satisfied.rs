//! Caveats that hold beyond doubt, read off the access and the time without an evaluation.
//!
//! This only ever says yes. A caveat that does not hold, a check in another form, a value of another type:
//! all of that is left to the evaluation, which alone says no, and why. So what is said here has to pass
//! there, which `taper-policy` tests against the library (`tests/agreement.rs`).

use crate::caveat_check::{term, unescaped};
use crate::functions::Applied;
use crate::json::Value;
use crate::vocabulary::{date, supplies};
use crate::{Access, AdmittedCheck, ArgumentMatch, ArgumentValue, Caveat, ResourceMatch, terms};
use biscuit_auth::builder::Term;

/// Whether the check is a caveat of ours that this access certainly satisfies at `now`. A pattern is never
/// certain: it costs as much as the evaluation.
pub(crate) fn is_satisfied(check: &AdmittedCheck, access: &Access, now: i64) -> bool {
    let Some(caveat) = check.caveat() else {
        return false;
    };
    let among = |all: &[String], one: &str| all.iter().any(|each| each == one);
    let given = |word: &str| supplies(access.kind, word);
    match caveat {
        Caveat::Tool { server, tools } => {
            let tool = access.tool.as_deref().filter(|_| given("tool"));
            *server == access.server && tool.is_some_and(|tool| among(tools, tool))
        }
        Caveat::Server { servers } => among(servers, &access.server),
        Caveat::Method { methods } => among(methods, &access.method),
        Caveat::Audience { audiences } => among(audiences, &access.audience),
        Caveat::Resource { kind, matches } => {
            let holds = |value: &str| match matches {
                ResourceMatch::OneOf(values) => among(values, value),
                ResourceMatch::Prefix(prefix) => value.starts_with(prefix.as_str()),
            };
            let of_kind = || access.resources.iter().filter(|(of, _)| of == kind);
            given("resource") && of_kind().next().is_some() && of_kind().all(|(_, value)| holds(value))
        }
        Caveat::Argument { pointer, matches } => {
            let arguments = access.arguments.as_ref().filter(|_| given("args"));
            let found = arguments.and_then(|arguments| member(arguments, pointer));
            found.is_some_and(|value| fits(check, value, matches))
        }
        Caveat::ClientAddress { .. } => access.client_ip.is_some_and(|ip| {
            let text = Term::Str(ip.to_canonical().to_string());
            applied(check).is_some_and(|function| function.holds(&text) == Ok(true))
        }),
        Caveat::NotBefore(at) => u64::try_from(*at).is_ok_and(|at| date(now) >= at),
        Caveat::Hours { .. } => {
            let time = Term::Date(date(now));
            applied(check).is_some_and(|function| function.holds(&time) == Ok(true))
        }
        Caveat::MaxCalls { counter, calls } => {
            let of_counter = || access.calls.iter().filter(|(name, _)| name == counter);
            given("calls") && of_counter().next().is_some() && of_counter().all(|(_, n)| n <= calls)
        }
    }
}

/// The only function that a caveat calls, with its literal.
fn applied(check: &AdmittedCheck) -> Option<&Applied> {
    match check.calls() {
        [(_, _, applied)] => Some(applied),
        _ => None,
    }
}

/// The argument that a caveat's pointer names: members of objects only.
fn member<'a>(arguments: &'a Value, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    path.split('/')
        .try_fold(arguments, |value, part| value.get(&unescaped(part)?))
}

fn fits(check: &AdmittedCheck, value: &Value, matches: &ArgumentMatch) -> bool {
    if matches!(value, Value::Array(_) | Value::Object(_)) {
        return false;
    }
    let found = terms::term(value);
    let is = |wanted: &ArgumentValue| found == term(wanted);
    match (matches, &found) {
        (ArgumentMatch::Equals(wanted), _) => is(wanted),
        (ArgumentMatch::OneOf(wanted), _) => wanted.iter().any(is),
        (ArgumentMatch::Prefix(prefix), Term::Str(text)) => text.starts_with(prefix.as_str()),
        (ArgumentMatch::Range { min, max }, Term::Integer(n)) => {
            min.is_none_or(|min| *n >= min) && max.is_none_or(|max| *n <= max)
        }
        (ArgumentMatch::PathWithin(_) | ArgumentMatch::UrlHost(_) | ArgumentMatch::Network(_), _) => {
            applied(check).is_some_and(|function| function.holds(&found) == Ok(true))
        }
        _ => false,
    }
}
