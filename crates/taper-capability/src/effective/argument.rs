//! What one argument must still be.

use super::narrower;
use crate::functions::{Applied, Function, Root};
use crate::{ArgumentMatch, ArgumentValue};
use biscuit_auth::builder::Term;
use serde::Serialize;
use std::collections::BTreeSet;

/// What one argument must be. Every member that is there must hold. Where the values can be listed
/// there is `one_of` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectiveArgument {
    /// One of these; none of them when the caveats contradict each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_of: Option<BTreeSet<ArgumentValue>>,
    /// An integer, at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// An integer, at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// A string that starts so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A canonical path, this one or below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_within: Option<String>,
    /// An address in one of these networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// A URL at one of the hosts of each of these lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub url_hosts: Vec<BTreeSet<String>>,
    /// A string that matches each of these patterns as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
}

impl EffectiveArgument {
    /// Whether no value is left.
    pub(super) fn is_empty(&self) -> bool {
        self.one_of.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Adds a match.
    pub(super) fn keep(&mut self, matches: &ArgumentMatch) {
        if let Some(values) = &mut self.one_of {
            values.retain(|value| holds(matches, value));
            return;
        }
        match matches {
            ArgumentMatch::Equals(value) => return self.list(std::iter::once(value)),
            ArgumentMatch::OneOf(values) => return self.list(values),
            ArgumentMatch::Range { min, max } => {
                self.min = self.min.into_iter().chain(*min).max();
                self.max = self.max.into_iter().chain(*max).min();
            }
            ArgumentMatch::Prefix(new) => match &self.prefix {
                Some(prefix) if prefix.starts_with(new.as_str()) => {}
                Some(prefix) if !new.starts_with(prefix.as_str()) => return self.contradict(),
                _ => self.prefix = Some(new.clone()),
            },
            ArgumentMatch::PathWithin(new) => match &self.path_within {
                Some(path) if is_within(path, new) => {}
                Some(path) if !is_within(new, path) => return self.contradict(),
                _ => self.path_within = Some(new.clone()),
            },
            ArgumentMatch::Network(networks) => {
                let kept = narrower(self.networks.take(), networks);
                if kept.is_empty() {
                    return self.contradict();
                }
                self.networks = Some(kept);
            }
            ArgumentMatch::UrlHost(hosts) => {
                let new: BTreeSet<String> = hosts.iter().cloned().collect();
                if self.url_hosts.iter().any(|hosts| are_apart(hosts, &new)) {
                    return self.contradict();
                }
                if !self.url_hosts.iter().any(|hosts| hosts.is_subset(&new)) {
                    self.url_hosts.retain(|hosts| !new.is_subset(hosts));
                    self.url_hosts.push(new);
                }
            }
            ArgumentMatch::Matches(pattern) => {
                if !self.patterns.contains(pattern) {
                    self.patterns.push(pattern.clone());
                }
            }
        }
        let crossed = matches!((self.min, self.max), (Some(min), Some(max)) if min > max);
        // No value is an integer and a string.
        let mixed = (self.min.is_some() || self.max.is_some()) && self.is_string();
        if crossed || mixed {
            self.contradict();
        }
    }

    /// From now on a list: those of `values` that fit what was there.
    fn list<'a>(&mut self, values: impl IntoIterator<Item = &'a ArgumentValue>) {
        let before = self.matches();
        let fits = |value: &&ArgumentValue| before.iter().all(|matches| holds(matches, value));
        let kept = values.into_iter().filter(fits).cloned().collect();
        *self = Self {
            one_of: Some(kept),
            ..Self::default()
        };
    }

    fn contradict(&mut self) {
        *self = Self {
            one_of: Some(BTreeSet::new()),
            ..Self::default()
        };
    }

    fn is_string(&self) -> bool {
        self.prefix.is_some()
            || self.path_within.is_some()
            || self.networks.is_some()
            || !self.url_hosts.is_empty()
            || !self.patterns.is_empty()
    }

    /// The members as matches, all of which hold.
    pub(super) fn matches(&self) -> Vec<ArgumentMatch> {
        let list = |values: &BTreeSet<ArgumentValue>| ArgumentMatch::OneOf(values.iter().cloned().collect());
        let mut all: Vec<_> = self.one_of.iter().map(list).collect();
        if self.min.is_some() || self.max.is_some() {
            all.push(ArgumentMatch::Range {
                min: self.min,
                max: self.max,
            });
        }
        all.extend(self.prefix.clone().map(ArgumentMatch::Prefix));
        all.extend(self.path_within.clone().map(ArgumentMatch::PathWithin));
        all.extend(self.networks.clone().map(ArgumentMatch::Network));
        all.extend(
            self.url_hosts
                .iter()
                .map(|hosts| ArgumentMatch::UrlHost(hosts.iter().cloned().collect())),
        );
        all.extend(self.patterns.iter().cloned().map(ArgumentMatch::Matches));
        all
    }
}

/// Whether a value satisfies a match, as the compiled check would decide it.
fn holds(matches: &ArgumentMatch, value: &ArgumentValue) -> bool {
    let texts = |texts: &[String]| Term::Set(texts.iter().cloned().map(Term::Str).collect());
    let (function, literal) = match (matches, value) {
        (ArgumentMatch::Equals(wanted), value) => return wanted == value,
        (ArgumentMatch::OneOf(values), value) => return values.contains(value),
        (ArgumentMatch::Range { min, max }, ArgumentValue::Integer(i)) => {
            return min.is_none_or(|min| min <= *i) && max.is_none_or(|max| *i <= max);
        }
        (ArgumentMatch::Prefix(prefix), ArgumentValue::String(text)) => {
            return text.starts_with(prefix.as_str());
        }
        (ArgumentMatch::PathWithin(root), _) => (Function::PathWithin, Term::Str(root.clone())),
        (ArgumentMatch::UrlHost(hosts), _) => (Function::UrlHost, texts(hosts)),
        (ArgumentMatch::Network(networks), _) => (Function::InNetwork, texts(networks)),
        (ArgumentMatch::Matches(pattern), _) => (Function::FullMatch, Term::Str(pattern.clone())),
        (ArgumentMatch::Range { .. } | ArgumentMatch::Prefix(_), _) => return false,
    };
    let ArgumentValue::String(text) = value else {
        return false;
    };
    // A literal that the function does not take allows nothing.
    Applied::new(function, &literal).is_ok_and(|call| call.holds(&Term::Str(text.clone())) == Ok(true))
}

fn is_within(path: &str, root: &str) -> bool {
    Root::parse(root).is_some_and(|root| root.contains(path))
}

/// Whether no URL is at a host of both lists, for their hosts alone: schemes and ports may set
/// them apart, too, but that is not claimed.
fn are_apart(a: &BTreeSet<String>, b: &BTreeSet<String>) -> bool {
    let covers = |wide: &str, narrow: &str| {
        wide.strip_prefix('*')
            .is_some_and(|suffix| narrow.ends_with(suffix))
    };
    !a.iter()
        .flat_map(|a| b.iter().map(move |b| (host(a), host(b))))
        .any(|(a, b)| a == b || covers(a, b) || covers(b, a))
}

/// The host of `[scheme://]host[:port]`.
fn host(entry: &str) -> &str {
    let rest = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    match rest.rsplit_once(':') {
        // `[…]` without a port: its last colon is the address's own.
        Some((host, _)) if !rest.ends_with(']') => host,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(matches: &[ArgumentMatch]) -> EffectiveArgument {
        let mut argument = EffectiveArgument::default();
        matches.iter().for_each(|one| argument.keep(one));
        argument
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn intersections_are_computed_where_they_can_be() {
        use ArgumentMatch as M;
        let range = |min, max| M::Range { min, max };
        let int = ArgumentValue::Integer;
        let ints = |values: &[i64]| M::OneOf(values.iter().copied().map(int).collect());
        let text = |t: &str| ArgumentValue::String(t.into());
        let hosts = |values: &[&str]| M::UrlHost(texts(values));
        let networks = |values: &[&str]| M::Network(texts(values));
        let check = |matches: &[M], json: serde_json::Value| {
            assert_eq!(serde_json::to_value(of(matches)).unwrap(), json, "{matches:?}");
        };
        use serde_json::json;
        let nothing = || json!({"one_of": []});
        check(
            &[
                range(Some(1), None),
                range(None, Some(9)),
                range(Some(0), Some(5)),
            ],
            json!({"min": 1, "max": 5}),
        );
        check(&[range(Some(6), None), range(None, Some(5))], nothing());
        check(
            &[range(Some(2), Some(5)), ints(&[1, 2, 5, 6])],
            json!({"one_of": [2, 5]}),
        );
        check(&[ints(&[1, 2]), range(Some(2), None)], json!({"one_of": [2]}));
        check(&[M::Equals(int(1)), M::Equals(text("1"))], nothing());
        check(&[range(Some(1), None), M::Prefix("a/".into())], nothing());
        check(
            &[M::Prefix("a/".into()), M::Prefix("a/b/".into())],
            json!({"prefix": "a/b/"}),
        );
        check(
            &[M::Prefix("a/b/".into()), M::Prefix("a/".into())],
            json!({"prefix": "a/b/"}),
        );
        check(&[M::Prefix("a/".into()), M::Prefix("b/".into())], nothing());
        check(
            &[M::PathWithin("/srv".into()), M::PathWithin("/srv/data".into())],
            json!({"path_within": "/srv/data"}),
        );
        check(
            &[M::PathWithin("/srv/a".into()), M::PathWithin("/srv/ab".into())],
            nothing(),
        );
        check(
            &[M::PathWithin("/".into()), M::PathWithin("srv".into())],
            nothing(),
        );
        check(
            &[M::PathWithin("/srv".into()), M::Equals(text("/srv/../etc"))],
            nothing(),
        );
        check(
            &[
                networks(&["10.0.0.0/8", "fd00::/8"]),
                networks(&["10.1.0.0/16", "10.2.0.0/16"]),
            ],
            json!({"networks": ["10.1.0.0/16", "10.2.0.0/16"]}),
        );
        check(&[networks(&["10.0.0.0/8"]), networks(&["fd00::/8"])], nothing());
        check(
            &[hosts(&["a.example", "b.example"]), hosts(&["a.example"])],
            json!({"url_hosts": [["a.example"]]}),
        );
        check(
            &[
                hosts(&["*.example.com"]),
                hosts(&["https://api.example.com:8443"]),
            ],
            json!({"url_hosts": [["*.example.com"], ["https://api.example.com:8443"]]}),
        );
        check(&[hosts(&["*.example.com"]), hosts(&["example.com"])], nothing());
        check(&[hosts(&["[::1]"]), hosts(&["[::2]"])], nothing());
        check(
            &[hosts(&["[::1]:80"]), hosts(&["[::1]"])],
            json!({"url_hosts": [["[::1]:80"], ["[::1]"]]}),
        );
        check(
            &[hosts(&["a.example"]), M::Equals(text("https://a.example/x"))],
            json!({"one_of": ["https://a.example/x"]}),
        );
        check(
            &[
                M::Matches("a+".into()),
                M::Matches("a+".into()),
                M::Prefix("a-".into()),
            ],
            json!({"prefix": "a-", "patterns": ["a+"]}),
        );
        check(
            &[M::Matches("a+".into()), M::OneOf(vec![text("aa"), text("b")])],
            json!({"one_of": ["aa"]}),
        );
    }
}
