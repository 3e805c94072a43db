//! The extern functions that checks may call (`spec/caveats.md`): what Datalog cannot say about a
//! path, a URL, an address, a text or a time of day.
//!
//! A function's right-hand side is a literal. It is read once, at admission (P-20), and a literal
//! that the function does not take refuses the token. At evaluation a value of another type is an
//! error, a value without a single reading is `false`; nothing is normalised.

mod hours;
mod network;
mod path;
mod pattern;
mod url;

pub(crate) use hours::Hours;
pub(crate) use network::Network;
pub(crate) use path::Root;
pub(crate) use pattern::Pattern;
pub(crate) use url::HostEntry;

use biscuit_auth::builder::Term;
use biscuit_auth::datalog::ExternFunc;
use std::collections::HashMap;
use std::sync::Arc;

/// The most entries that a function's set has.
const MAX_ENTRIES: usize = 64;

/// The functions, by the names that Datalog calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Function {
    PathWithin,
    UrlHost,
    InNetwork,
    FullMatch,
    InHours,
}

impl Function {
    pub(crate) const ALL: [Self; 5] = [
        Self::PathWithin,
        Self::UrlHost,
        Self::InNetwork,
        Self::FullMatch,
        Self::InHours,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PathWithin => "path_within",
            Self::UrlHost => "url_host",
            Self::InNetwork => "in_network",
            Self::FullMatch => "full_match",
            Self::InHours => "in_hours",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// A function with its literal, read.
#[derive(Clone, Debug)]
pub(crate) enum Applied {
    PathWithin(Root),
    UrlHost(Vec<HostEntry>),
    InNetwork(Vec<Network>),
    FullMatch(Pattern),
    InHours(Hours),
}

impl Applied {
    /// Reads the literal of a function. The error says what the function takes.
    pub(crate) fn new(function: Function, literal: &Term) -> Result<Self, &'static str> {
        match (function, literal) {
            (Function::PathWithin, Term::Str(root)) => Root::parse(root)
                .map(Self::PathWithin)
                .ok_or("`path_within` takes a canonical path"),
            (Function::FullMatch, Term::Str(pattern)) => Pattern::parse(pattern).map(Self::FullMatch),
            (Function::InHours, Term::Str(hours)) => Hours::parse(hours)
                .map(Self::InHours)
                .ok_or("`in_hours` takes `HH:MM/HH:MM/OFFSET/DAYS`"),
            (Function::UrlHost, Term::Set(entries)) => entries_of(entries, HostEntry::parse)
                .map(Self::UrlHost)
                .ok_or("`url_host` takes a set of `[scheme://]host[:port]`"),
            (Function::InNetwork, Term::Set(entries)) => entries_of(entries, Network::parse)
                .map(Self::InNetwork)
                .ok_or("`in_network` takes a set of `address/length`"),
            _ => Err("an extern function with an argument of another type"),
        }
    }

    /// Whether a function takes a literal, without the work of getting it ready.
    pub(crate) fn takes(function: Function, literal: &Term) -> Result<(), &'static str> {
        match (function, literal) {
            (Function::FullMatch, Term::Str(pattern)) => Pattern::read(pattern).map(|_| ()),
            _ => Self::new(function, literal).map(|_| ()),
        }
    }

    /// The function's value. The error is for a value of a type that the function does not take.
    pub(crate) fn holds(&self, value: &Term) -> Result<bool, String> {
        match (self, value) {
            (Self::PathWithin(root), Term::Str(path)) => Ok(root.contains(path)),
            (Self::UrlHost(entries), Term::Str(url)) => Ok(url::is_at(url, entries)),
            (Self::InNetwork(networks), Term::Str(address)) => Ok(network::is_in(address, networks)),
            (Self::FullMatch(pattern), Term::Str(text)) => Ok(pattern.matches(text)),
            (Self::InHours(hours), Term::Date(at)) => Ok(hours.contain(*at)),
            _ => Err("a value of another type".to_owned()),
        }
    }
}

fn entries_of<T>(
    entries: &std::collections::BTreeSet<Term>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        return None;
    }
    entries
        .iter()
        .map(|entry| match entry {
            Term::Str(text) => parse(text),
            _ => None,
        })
        .collect()
}

/// A function, its literal, and what was read from it at admission.
pub(crate) type Call = (Function, Term, Arc<Applied>);

/// The functions for one evaluation. Literals that were read at admission are found in `calls`;
/// others, which stand in an operator's policy, are read when they are met.
pub(crate) fn externs(calls: Vec<Call>) -> HashMap<String, ExternFunc> {
    let calls = Arc::new(calls);
    Function::ALL
        .into_iter()
        .map(|function| {
            let calls = Arc::clone(&calls);
            let call = move |value: Term, literal: Option<Term>| {
                let literal = literal.ok_or("an argument is missing")?;
                let found = calls.iter().find(|(f, l, _)| *f == function && *l == literal);
                let holds = match found {
                    Some((_, _, applied)) => applied.holds(&value)?,
                    None => Applied::new(function, &literal)?.holds(&value)?,
                };
                Ok(Term::Bool(holds))
            };
            (function.name().to_owned(), ExternFunc::new(Arc::new(call)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_takes_its_own_types_only() {
        let text = |s: &str| Term::Str(s.to_owned());
        let set = |s: &str| Term::Set([text(s)].into());
        let check = |function, literal: Term, value: Term, expected: Result<Option<bool>, ()>| {
            let got = Applied::new(function, &literal).map_err(|_| ());
            let got = got.map(|applied| applied.holds(&value).ok());
            assert_eq!(got, expected, "{function:?} {literal:?} {value:?}");
        };
        check(Function::PathWithin, text("/a"), text("/a/b"), Ok(Some(true)));
        check(Function::PathWithin, text("/a"), Term::Null, Ok(None));
        check(Function::PathWithin, text("/a/"), text("/a/b"), Err(()));
        check(Function::PathWithin, set("/a"), text("/a/b"), Err(()));
        check(
            Function::UrlHost,
            set("a.example"),
            text("https://a.example"),
            Ok(Some(true)),
        );
        check(
            Function::UrlHost,
            text("a.example"),
            text("https://a.example"),
            Err(()),
        );
        check(
            Function::UrlHost,
            Term::Set([].into()),
            text("https://a.example"),
            Err(()),
        );
        check(
            Function::UrlHost,
            Term::Set([Term::Integer(1)].into()),
            text(""),
            Err(()),
        );
        check(
            Function::InNetwork,
            set("10.0.0.0/8"),
            text("10.1.2.3"),
            Ok(Some(true)),
        );
        check(
            Function::InNetwork,
            set("10.0.0.0/8"),
            Term::Integer(10),
            Ok(None),
        );
        check(Function::FullMatch, text("a+"), text("aa"), Ok(Some(true)));
        check(Function::FullMatch, text("(a"), text("aa"), Err(()));
        check(
            Function::InHours,
            text("00:00/24:00/Z/1234567"),
            Term::Date(0),
            Ok(Some(true)),
        );
        check(
            Function::InHours,
            text("00:00/24:00/Z/1234567"),
            text("now"),
            Ok(None),
        );
    }

    #[test]
    fn a_set_has_one_to_64_entries() {
        let networks = |n: u8| Term::Set((0..n).map(|i| Term::Str(format!("10.{i}.0.0/16"))).collect());
        let check = |n, ok| assert_eq!(Applied::new(Function::InNetwork, &networks(n)).is_ok(), ok, "{n}");
        check(0, false);
        check(1, true);
        check(64, true);
        check(65, false);
    }

    /// What Datalog gets: each call its own literal, whether it was read before or stands in a policy.
    #[test]
    fn datalog_calls_the_functions_that_it_names() {
        let literal = Term::Str("[a]+".to_owned());
        let read = |function, literal: &Term| {
            let applied = Arc::new(Applied::new(function, literal).unwrap());
            (function, literal.clone(), applied)
        };
        // The same literal for two functions, and two literals for one.
        let calls = vec![
            read(Function::PathWithin, &literal),
            read(Function::FullMatch, &literal),
            read(Function::FullMatch, &Term::Str("b".to_owned())),
        ];
        let check = |source: &str, passes: bool| {
            let authorizer = biscuit_auth::AuthorizerBuilder::new().set_extern_funcs(externs(calls.clone()));
            let built = authorizer
                .code(format!("allow if {source};"))
                .unwrap()
                .build_unauthenticated();
            assert_eq!(built.unwrap().authorize().is_ok(), passes, "{source}");
        };
        check(r#""aa".extern::full_match("[a]+")"#, true);
        check(r#""[a]+/x".extern::full_match("[a]+")"#, false);
        check(r#""[a]+/x".extern::path_within("[a]+")"#, true);
        check(r#""aa".extern::path_within("[a]+")"#, false);
        check(r#""b".extern::full_match("b")"#, true);
        check(r#""b".extern::full_match("[c]")"#, false);
        check(r#""c".extern::full_match("[c]")"#, true);
        check(r#""c".extern::full_match("(c")"#, false);
        check(r#""10.0.0.1".extern::in_network({"10.0.0.0/8"})"#, true);
        check(r#""10.0.0.1".extern::other("10.0.0.0/8")"#, false);
    }

    #[test]
    fn every_function_has_its_name() {
        for function in Function::ALL {
            assert_eq!(Function::parse(function.name()), Some(function));
        }
        assert_eq!(Function::parse("matches"), None);
    }
}
