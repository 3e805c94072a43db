//! The restrictions that `narrow` and `delegate` share, from words to caveats.

use std::collections::BTreeMap;

use serde_json::Value;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};
use taper_oauth::{Scope, ScopeTool};
use taper_service::clock::{parse_duration, parse_rfc3339};

use crate::failure::Failure;

/// What the next block restricts. Everything said holds at once.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Restrictions {
    /// Only this tool, as `server:tool`; may repeat for tools of the same server.
    #[arg(long, value_name = "SERVER:TOOL")]
    tool: Vec<Scope>,
    /// Only this server; may repeat.
    #[arg(long, value_name = "SERVER")]
    server: Vec<String>,
    /// Only this repository, `owner/name`, or `owner/*` for all below; may repeat. Short for
    /// `--resource repo=…`.
    #[arg(long, value_name = "REPO")]
    repo: Vec<String>,
    /// Only this resource, `kind=value`, or `kind=prefix/*`; may repeat.
    #[arg(long, value_name = "KIND=VALUE")]
    resource: Vec<String>,
    /// Only calls whose argument is this, `/pointer=value` or `name=value`, `name=prefix*`; may repeat.
    #[arg(long, value_name = "POINTER=VALUE")]
    arg: Vec<String>,
    /// Not before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_before: Option<i64>,
    /// At most so many hand-overs, counted from the issuer.
    #[arg(long, value_name = "N")]
    pub(crate) max_depth: Option<u32>,
    /// A word to whoever reads the chain.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

/// When the next block ends.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Expiry {
    /// Until this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "lifetime")]
    until: Option<i64>,
    /// For so long from now: `10m`, `1h30m`.
    #[arg(id = "lifetime", long = "for", value_name = "DURATION", value_parser = duration)]
    lifetime: Option<u64>,
}

impl Expiry {
    /// The end in seconds since the Unix epoch, if one was said.
    pub(crate) fn until(&self, now: i64) -> Result<Option<i64>, Failure> {
        let end = match (self.until, self.lifetime) {
            (Some(until), _) => until,
            (None, Some(seconds)) => now.saturating_add_unsigned(seconds),
            (None, None) => return Ok(None),
        };
        if end <= now {
            return Err(Failure::usage("the end is not in the future"));
        }
        Ok(Some(end))
    }
}

impl Restrictions {
    /// One caveat for each kind of restriction.
    pub(crate) fn caveats(&self) -> Result<Vec<Caveat>, Failure> {
        let mut caveats = Vec::new();
        caveats.extend(tools(&self.tool)?);
        if !self.server.is_empty() {
            caveats.push(Caveat::Server {
                servers: self.server.clone(),
            });
        }
        let repos = self
            .repo
            .iter()
            .map(|repo| ("repo".to_owned(), repo.clone()))
            .map(Ok);
        let others = self.resource.iter().map(|text| split("resource", text));
        for (kind, values) in grouped(repos.chain(others))? {
            let matches = match prefix_or_all(&values)? {
                Some(prefix) => ResourceMatch::Prefix(prefix.to_owned()),
                None => ResourceMatch::OneOf(values),
            };
            caveats.push(Caveat::Resource { kind, matches });
        }
        for (name, values) in grouped(self.arg.iter().map(|text| split("arg", text)))? {
            let matches = match (prefix_or_all(&values)?, values.as_slice()) {
                (Some(prefix), _) => ArgumentMatch::Prefix(prefix.to_owned()),
                (None, [value]) => ArgumentMatch::Equals(argument_value(value)?),
                (None, values) => ArgumentMatch::OneOf(
                    values
                        .iter()
                        .map(|v| argument_value(v))
                        .collect::<Result<_, _>>()?,
                ),
            };
            let pointer = pointer(&name);
            caveats.push(Caveat::Argument { pointer, matches });
        }
        caveats.extend(self.not_before.map(Caveat::NotBefore));
        Ok(caveats)
    }
}

/// Reads what a person types for a value: a boolean or an integer where it looks like one, JSON text
/// where it is quoted, else the text itself.
fn argument_value(text: &str) -> Result<ArgumentValue, Failure> {
    Ok(match serde_json::from_str::<Value>(text) {
        Ok(Value::Bool(value)) => ArgumentValue::Bool(value),
        Ok(Value::String(value)) => ArgumentValue::String(value),
        // A text would never equal the number that was meant.
        Ok(Value::Number(number)) => ArgumentValue::Integer(number.as_i64().ok_or_else(|| {
            Failure::usage(format!(
                "`{text}` is no integer that a caveat can hold; quote it for a text"
            ))
        })?),
        _ => ArgumentValue::String(text.to_owned()),
    })
}

/// Two tool caveats of different servers would allow nothing at all.
fn tools(scopes: &[Scope]) -> Result<Option<Caveat>, Failure> {
    let Some(first) = scopes.first() else {
        return Ok(None);
    };
    let mut tools = Vec::new();
    for scope in scopes {
        if scope.server() != first.server() {
            return Err(Failure::usage(
                "all `--tool` of one command are of the same server",
            ));
        }
        match scope.tool() {
            ScopeTool::Tool(tool) => tools.push(tool.clone()),
            ScopeTool::Any if scopes.len() == 1 => {
                return Ok(Some(Caveat::Server {
                    servers: vec![first.server().to_owned()],
                }));
            }
            ScopeTool::Any => return Err(Failure::usage("`server:*` stands alone")),
        }
    }
    Ok(Some(Caveat::Tool {
        server: first.server().to_owned(),
        tools,
    }))
}

fn split(option: &str, text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(Failure::usage(format!("`--{option} {text}` is not `name=value`"))),
    }
}

/// The values by name: several of one name are alternatives.
fn grouped(
    pairs: impl Iterator<Item = Result<(String, String), Failure>>,
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in pairs {
        let (name, value) = pair?;
        groups.entry(name).or_default().push(value);
    }
    Ok(groups)
}

/// The prefix, when the value ends with `*`; a caveat holds one prefix or any number of values.
fn prefix_or_all(values: &[String]) -> Result<Option<&str>, Failure> {
    match values {
        [value] => Ok(value.strip_suffix('*')),
        values if values.iter().any(|value| value.ends_with('*')) => {
            Err(Failure::usage("a value that ends with `*` stands alone"))
        }
        _ => Ok(None),
    }
}

/// A plain name is a member of the arguments (RFC 6901 section 3 escapes its `~` and `/`).
fn pointer(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{}", name.replace('~', "~0").replace('/', "~1"))
    }
}

/// Reads a time on the command line.
fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).ok_or_else(|| "not a time such as `2030-01-31T09:30:00Z`".to_owned())
}

/// Reads a duration on the command line, in seconds.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn read(words: &[&str]) -> Result<Vec<Caveat>, Kind> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            restrictions: Restrictions,
        }
        let line = std::iter::once("x").chain(words.iter().copied());
        let line = <Line as clap::Parser>::try_parse_from(line).map_err(|_| Kind::Usage)?;
        line.restrictions.caveats().map_err(|e| e.kind())
    }

    #[test]
    fn words_become_caveats() {
        let check = |words: &[&str], expected: Result<Vec<Caveat>, Kind>| {
            assert_eq!(read(words), expected, "{words:?}")
        };
        let text = |t: &str| t.to_owned();
        check(&[], Ok(vec![]));
        let tool = Caveat::Tool {
            server: text("git"),
            tools: vec![text("a"), text("b")],
        };
        check(&["--tool", "git:a", "--tool", "git:b"], Ok(vec![tool]));
        check(
            &["--tool", "git:*"],
            Ok(vec![Caveat::Server {
                servers: vec![text("git")],
            }]),
        );
        check(&["--tool", "git:*", "--tool", "git:a"], Err(Kind::Usage));
        check(&["--tool", "git:a", "--tool", "hub:a"], Err(Kind::Usage));
        check(&["--tool", "git"], Err(Kind::Usage));
        let repo = |matches| {
            Ok(vec![Caveat::Resource {
                kind: text("repo"),
                matches,
            }])
        };
        check(
            &["--repo", "acme/web"],
            repo(ResourceMatch::OneOf(vec![text("acme/web")])),
        );
        check(&["--repo", "acme/*"], repo(ResourceMatch::Prefix(text("acme/"))));
        check(
            &["--resource", "repo=a", "--repo", "b"],
            repo(ResourceMatch::OneOf(vec![text("b"), text("a")])),
        );
        check(&["--repo", "acme/*", "--repo", "b"], Err(Kind::Usage));
        check(&["--resource", "repo"], Err(Kind::Usage));
        check(&["--resource", "repo="], Err(Kind::Usage));
        let arg = |pointer: &str, matches| {
            Ok(vec![Caveat::Argument {
                pointer: text(pointer),
                matches,
            }])
        };
        check(
            &["--arg", "/max_count=5"],
            arg("/max_count", ArgumentMatch::Equals(ArgumentValue::Integer(5))),
        );
        check(
            &["--arg", "max_count=5"],
            arg("/max_count", ArgumentMatch::Equals(ArgumentValue::Integer(5))),
        );
        check(
            &["--arg", "a/b=true"],
            arg("/a~1b", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
        );
        check(
            &["--arg", "a=\"5\""],
            arg("/a", ArgumentMatch::Equals(ArgumentValue::String(text("5")))),
        );
        check(&["--arg", "a=1.5"], Err(Kind::Usage));
        check(
            &["--arg", "a=\"1.5\""],
            arg("/a", ArgumentMatch::Equals(ArgumentValue::String(text("1.5")))),
        );
        check(&["--arg", "a=x*"], arg("/a", ArgumentMatch::Prefix(text("x"))));
        let both = vec![ArgumentValue::Integer(1), ArgumentValue::Integer(2)];
        check(
            &["--arg", "a=1", "--arg", "a=2"],
            arg("/a", ArgumentMatch::OneOf(both)),
        );
        check(
            &["--not-before", "1970-01-01T00:00:10Z"],
            Ok(vec![Caveat::NotBefore(10)]),
        );
        check(&["--not-before", "tomorrow"], Err(Kind::Usage));
    }

    #[test]
    fn an_end_lies_in_the_future() {
        let check = |until, lifetime, expected| {
            let end = Expiry { until, lifetime }.until(1_000).map_err(|e| e.kind());
            assert_eq!(end, expected);
        };
        check(None, None, Ok(None));
        check(Some(1_001), None, Ok(Some(1_001)));
        check(Some(1_000), None, Err(Kind::Usage));
        check(None, Some(600), Ok(Some(1_600)));
        check(None, Some(0), Err(Kind::Usage));
        check(None, Some(u64::MAX), Ok(Some(i64::MAX)));
    }
}
