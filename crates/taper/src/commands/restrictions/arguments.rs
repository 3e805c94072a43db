//! Restrictions of arguments, from words to caveats.

use serde_json::Value;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat};

use super::{grouped, network, prefix_or_all, split};
use crate::failure::Failure;

/// What arguments of a call must be. An argument is named by its name, or by an RFC 6901 pointer.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Restrictions")]
pub(super) struct Arguments {
    /// Only calls whose argument is this, `name=prefix*` to start so; quoted JSON stays a text.
    #[arg(long, value_name = "NAME=VALUE")]
    arg: Vec<String>,
    /// Only with an integer in this range, both ends included: `n=1..10`, `n=..10`.
    #[arg(long, value_name = "NAME=MIN..MAX")]
    arg_range: Vec<String>,
    /// Only with a path at or below this one.
    #[arg(long, value_name = "NAME=PATH")]
    arg_path: Vec<String>,
    /// Only with a URL at this host, `[scheme://]host[:port]`, `*.` for all names below.
    #[arg(long, value_name = "NAME=HOST")]
    arg_url: Vec<String>,
    /// Only with an address in this network.
    #[arg(long, value_name = "NAME=NETWORK")]
    arg_net: Vec<String>,
    /// Only with a text that matches this pattern as a whole.
    #[arg(long, value_name = "NAME=PATTERN")]
    arg_match: Vec<String>,
}

impl Arguments {
    /// One caveat for each argument and kind of restriction.
    pub(super) fn caveats(&self) -> Result<Vec<Caveat>, Failure> {
        let mut caveats = Vec::new();
        let options: [(&str, &[String], Read); 6] = [
            ("arg", &self.arg, values),
            ("arg-range", &self.arg_range, |values| range(one(values)?)),
            ("arg-path", &self.arg_path, |values| {
                Ok(ArgumentMatch::PathWithin(one(values)?.to_owned()))
            }),
            ("arg-url", &self.arg_url, |values| {
                Ok(ArgumentMatch::UrlHost(values.to_vec()))
            }),
            ("arg-net", &self.arg_net, |values| {
                Ok(ArgumentMatch::Network(
                    values.iter().map(|text| network(text)).collect(),
                ))
            }),
            ("arg-match", &self.arg_match, |values| {
                Ok(ArgumentMatch::Matches(one(values)?.to_owned()))
            }),
        ];
        for (option, texts, read) in options {
            for (name, values) in grouped(texts.iter().map(|text| split(option, text)))? {
                let matches = read(&values)
                    .map_err(|reason| Failure::usage(format!("`--{option} {name}=…`: {reason}")))?;
                caveats.push(Caveat::Argument {
                    pointer: pointer(&name),
                    matches,
                });
            }
        }
        Ok(caveats)
    }
}

/// From the values that were said for one name to a match, or why there is none.
type Read = fn(&[String]) -> Result<ArgumentMatch, String>;

fn values(values: &[String]) -> Result<ArgumentMatch, String> {
    match (prefix_or_all(values).map_err(|e| e.to_string())?, values) {
        (Some(prefix), _) => Ok(ArgumentMatch::Prefix(prefix.to_owned())),
        (None, [value]) => argument_value(value).map(ArgumentMatch::Equals),
        (None, values) => values
            .iter()
            .map(|value| argument_value(value))
            .collect::<Result<_, _>>()
            .map(ArgumentMatch::OneOf),
    }
}

/// The one value: a second one would be another restriction, not an alternative.
fn one(values: &[String]) -> Result<&str, String> {
    match values {
        [value] => Ok(value),
        _ => Err("one argument has one of these; narrow twice for both".to_owned()),
    }
}

fn range(text: &str) -> Result<ArgumentMatch, String> {
    let wrong = || "not a range such as `1..10`, `1..` or `..10`".to_owned();
    let (min, max) = text.split_once("..").ok_or_else(wrong)?;
    let bound = |text: &str| match text {
        "" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    match (bound(min)?, bound(max)?) {
        (None, None) => Err(wrong()),
        (min, max) => Ok(ArgumentMatch::Range { min, max }),
    }
}

/// Reads what a person types for a value: a boolean or an integer where it looks like one, JSON text
/// where it is quoted, else the text itself.
fn argument_value(text: &str) -> Result<ArgumentValue, String> {
    Ok(match serde_json::from_str::<Value>(text) {
        Ok(Value::Bool(value)) => ArgumentValue::Bool(value),
        Ok(Value::String(value)) => ArgumentValue::String(value),
        // A text would never equal the number that was meant.
        Ok(Value::Number(number)) => {
            ArgumentValue::Integer(number.as_i64().ok_or_else(|| {
                format!("`{text}` is no integer that a caveat can hold; quote it for a text")
            })?)
        }
        _ => ArgumentValue::String(text.to_owned()),
    })
}

/// A plain name is a member of the arguments (RFC 6901 section 3 escapes its `~` and `/`).
fn pointer(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{}", name.replace('~', "~0").replace('/', "~1"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn arguments_become_caveats() {
        let check = |words: &[&str], expected: Option<ArgumentMatch>| {
            let expected = expected.ok_or(Kind::Usage).map(|matches| {
                vec![Caveat::Argument {
                    pointer: "/a".into(),
                    matches,
                }]
            });
            assert_eq!(read(words), expected, "{words:?}");
        };
        let range = |min, max| Some(ArgumentMatch::Range { min, max });
        check(&["--arg-range", "a=1..10"], range(Some(1), Some(10)));
        check(&["--arg-range", "/a=-3.."], range(Some(-3), None));
        check(&["--arg-range", "a=..10"], range(None, Some(10)));
        for wrong in ["a=..", "a=10", "a=x..y", "a=1...5", "a"] {
            check(&["--arg-range", wrong], None);
        }
        check(&["--arg-range", "a=1..5", "--arg-range", "a=2..3"], None);
        check(
            &["--arg-path", "a=/srv/data"],
            Some(ArgumentMatch::PathWithin("/srv/data".into())),
        );
        check(&["--arg-path", "a=/x", "--arg-path", "a=/y"], None);
        check(
            &[
                "--arg-url",
                "a=https://example.com",
                "--arg-url",
                "a=*.example.org",
            ],
            Some(ArgumentMatch::UrlHost(vec![
                "https://example.com".into(),
                "*.example.org".into(),
            ])),
        );
        check(
            &["--arg-net", "a=10.0.0.0/8", "--arg-net", "a=192.0.2.7"],
            Some(ArgumentMatch::Network(vec![
                "10.0.0.0/8".into(),
                "192.0.2.7/32".into(),
            ])),
        );
        check(
            &["--arg-match", "a=v[0-9]+=x"],
            Some(ArgumentMatch::Matches("v[0-9]+=x".into())),
        );
        check(&["--arg-match", "a=x", "--arg-match", "a=y"], None);
    }
}
