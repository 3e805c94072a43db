//! How what a server says differs from what was approved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use taper_capability::json::Value;

use super::text::shown_within;
use super::{Pins, Preface};
use crate::catalogue::is_same;

/// One place where two values differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// RFC 6901.
    pub(crate) pointer: String,
    /// What was approved; nothing for a member that is new.
    pub(crate) old: Option<Value>,
    /// What is said now; nothing for a member that is gone.
    pub(crate) new: Option<Value>,
}

/// How one tool differs from what was approved of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was never approved.
    New(Value),
    /// It is not listed any more.
    Gone,
    /// It is listed more than once: which of them would be called is the server's secret.
    Twice,
    /// It is described differently. Empty for a definition that has no digest.
    Changed(Vec<Difference>),
}

/// All tools that differ, by name.
pub(crate) type Changes = BTreeMap<String, Change>;

/// Compares a complete list with what was approved. Entries without a name cannot be called.
pub(crate) fn changes(pins: &Pins, listed: &[Value]) -> Changes {
    let mut changes = Changes::new();
    let mut seen = BTreeSet::new();
    for entry in listed {
        let Some(name) = entry.get("name").and_then(Value::as_str) else {
            continue;
        };
        if !seen.insert(name) {
            changes.insert(name.to_owned(), Change::Twice);
            continue;
        }
        let Some(pin) = pins.tools.get(name) else {
            changes.insert(name.to_owned(), Change::New(entry.clone()));
            continue;
        };
        if crate::catalogue::facts(entry).digest.as_ref() != Some(&pin.digest) {
            let differences = differences(&pin.definition, entry);
            changes.insert(name.to_owned(), Change::Changed(differences));
        }
    }
    for name in pins.tools.keys().filter(|name| !seen.contains(name.as_str())) {
        changes.insert(name.clone(), Change::Gone);
    }
    changes
}

/// How what is shown before login differs from what the server says now.
pub(crate) fn preface_changes(old: Option<&Preface>, new: Option<&Preface>) -> Vec<Difference> {
    let value = |preface: Option<&Preface>| preface.map_or(Value::Object(Vec::new()), Preface::to_value);
    differences(&value(old), &value(new))
}

/// Where two values differ, in the order of the old one, then what is new.
fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(old, new, &mut String::new(), &mut found);
    found
}

fn collect(old: &Value, new: &Value, pointer: &mut String, found: &mut Vec<Difference>) {
    let pairs: Vec<(String, Option<&Value>, Option<&Value>)> = match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let kept = before
                .iter()
                .map(|(name, value)| (name.clone(), Some(value), new.get(name)));
            let fresh = after.iter().filter(|(name, _)| old.get(name).is_none());
            kept.chain(fresh.map(|(name, value)| (name.clone(), None, Some(value))))
                .collect()
        }
        (Value::Array(before), Value::Array(after)) => (0..before.len().max(after.len()))
            .map(|n| (n.to_string(), before.get(n), after.get(n)))
            .collect(),
        _ if is_same(old, new) => return,
        _ => {
            found.push(Difference {
                pointer: pointer.clone(),
                old: Some(old.clone()),
                new: Some(new.clone()),
            });
            return;
        }
    };
    let end = pointer.len();
    for (name, old, new) in pairs {
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        match (old, new) {
            (Some(old), Some(new)) => collect(old, new, pointer, found),
            _ => found.push(Difference {
                pointer: pointer.clone(),
                old: old.cloned(),
                new: new.cloned(),
            }),
        }
        pointer.truncate(end);
    }
}

impl Difference {
    /// `+`, `-` or `~`, the place, and what stands there, safe for a terminal and a log; of each value the
    /// first `max` bytes.
    fn line(&self, max: usize) -> String {
        let place = shown_within(&Value::String(self.pointer.clone()), max);
        let shown = |value: &Value| shown_within(value, max);
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("~ {place}: {} -> {}", shown(old), shown(new)),
            (Some(old), None) => format!("- {place}: {}", shown(old)),
            (None, Some(new)) => format!("+ {place}: {}", shown(new)),
            (None, None) => place,
        }
    }
}

impl fmt::Display for Difference {
    /// All of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(usize::MAX))
    }
}

impl Change {
    /// What happened to the tool.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::New(_) => "it was never approved",
            Self::Gone => "it is not listed any more",
            Self::Twice => "it is listed more than once",
            Self::Changed(differences) if differences.is_empty() => {
                "it has a number that not every reader holds, so that it has no digest"
            }
            Self::Changed(_) => "it is described differently",
        }
    }

    /// What is different, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines_within(usize::MAX).collect()
    }

    /// The same with the first `max` bytes of each value, as they are asked for.
    fn lines_within(&self, max: usize) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::New(definition) => Box::new(std::iter::once_with(move || {
                format!("+ {}", shown_within(definition, max))
            })),
            Self::Gone | Self::Twice => Box::new(std::iter::empty()),
            Self::Changed(differences) => Box::new(differences.iter().map(move |one| one.line(max))),
        }
    }

    /// The beginning of it, on one line of at most `max` bytes; more is not even written.
    pub(crate) fn summary(&self, max: usize) -> String {
        let mut all = self.what().to_owned();
        for (n, line) in self.lines_within(max).enumerate() {
            all.push_str(if n == 0 { ": " } else { "; " });
            all.push_str(&line);
            if all.len() > max {
                break;
            }
        }
        cut(all, max)
    }
}

/// The first `max` bytes of a text, and a sign when there is more.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    const MORE: &str = "…";
    if text.len() > max {
        let end = max.saturating_sub(MORE.len());
        let end = (0..=end).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use taper_capability::json::{JsonLimits, parse};

    use super::*;

    fn of(text: &str) -> Value {
        parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        differences(&of(old), &of(new))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn differences_have_their_place() {
        let check = |old: &str, new: &str, expected: &[&str]| assert_eq!(lines(old, new), expected, "{new}");
        check(r#"{"a":1,"b":[1,2]}"#, r#"{"b":[1.0,2],"a":10e-1}"#, &[]);
        check(
            r#"{"a":{"b/c":"x","~":1},"d":[1,2]}"#,
            r#"{"a":{"b/c":"y"},"d":[1,2,3],"e":null}"#,
            &[
                r#"~ "/a/b~1c": "x" -> "y""#,
                r#"- "/a/~0": 1"#,
                r#"+ "/d/2": 3"#,
                r#"+ "/e": null"#,
            ],
        );
        check(r#"{"a":1}"#, r#"{"a":"1"}"#, &[r#"~ "/a": 1 -> "1""#]);
        check(r#"{"a":{}}"#, r#"{"a":[]}"#, &[r#"~ "/a": {} -> []"#]);
        // Nothing of it reaches a terminal as it is.
        check(
            "{}",
            r#"{"\u001b[2J":"\u202eevil"}"#,
            &[r#"+ "/\u001b[2J": "\u202eevil""#],
        );
    }

    #[test]
    fn tools_change_in_five_ways() {
        let mut pins = Pins::default();
        for tool in [
            r#"{"name":"same","n":1}"#,
            r#"{"name":"other","description":"a"}"#,
            r#"{"name":"gone"}"#,
            r#"{"name":"two"}"#,
        ] {
            pins.approve(&of(tool)).unwrap();
        }
        let listed = [
            r#"{"n":1.0,"name":"same"}"#,
            r#"{"name":"other","description":"b"}"#,
            r#"{"name":"new"}"#,
            r#"{"name":"two"}"#,
            r#"{"name":"two"}"#,
            r#"{"title":"nameless"}"#,
        ];
        let changes = changes(&pins, &listed.map(of));
        let said: Vec<String> = changes
            .iter()
            .map(|(name, change)| format!("{name}: {}", change.summary(200)))
            .collect();
        assert_eq!(
            said,
            [
                "gone: it is not listed any more",
                r#"new: it was never approved: + {"name":"new"}"#,
                r#"other: it is described differently: ~ "/description": "a" -> "b""#,
                "two: it is listed more than once",
            ]
        );
        let short = changes["other"].summary(30);
        assert_eq!(short, "it is described differently\u{2026}");
        let huge = Change::New(Value::String("\u{7}".repeat(1_000_000)));
        assert!(huge.summary(100).len() <= 100);
    }
}
