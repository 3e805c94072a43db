//! The restrictions that `narrow` and `delegate` share, from words to caveats, and what they would do.

mod arguments;
mod hours;
mod reviewed;

pub(crate) use reviewed::Reviewed;

use std::collections::BTreeMap;

use rand_core::RngCore;
use taper_capability::{Caveat, ResourceMatch};
use taper_dpop::base64url_encode;
use taper_oauth::{Scope, ScopeTool};
use taper_service::clock::{parse_duration, parse_rfc3339};

use crate::failure::Failure;

/// What the help of both commands ends with.
pub(crate) const EXAMPLES: &str = "\
Everything said holds at once. The same option again gives alternatives, where that can be said:
  --tool git:git_log --tool git:git_show      either tool
  --repo 'acme/*' --arg-range max_count=1..10 a repository of acme, and a count from 1 to 10
  --arg 'branch=feature-*'                    an argument that starts so
  --arg-path file=/srv/data                   a path within /srv/data
  --arg-url url=https://api.example.com       a URL at that host
  --hours '09:00-17:30 +02:00 mon-fri'        at those hours (Z if no offset is said)
  --caveat '{\"max_calls\":{\"counter\":\"c1\",\"calls\":5}}'  any caveat as JSON, as `inspect` shows it";

/// What the next block restricts. Everything said holds at once.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Restrictions")]
pub(crate) struct Restrictions {
    /// Only this tool, `server:*` for all of one server.
    #[arg(long, value_name = "SERVER:TOOL")]
    tool: Vec<Scope>,
    /// Only this server.
    #[arg(long, value_name = "SERVER")]
    server: Vec<String>,
    /// Only messages of this method, such as `tools/call`.
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// Only at this resource URI of a server.
    #[arg(long, value_name = "URI")]
    audience: Vec<String>,
    /// Only this repository, `owner/*` for all below; short for `--resource repo=…`.
    #[arg(long, value_name = "REPO")]
    repo: Vec<String>,
    /// Only this resource, `kind=prefix/*` for all below.
    #[arg(long, value_name = "KIND=VALUE")]
    resource: Vec<String>,
    #[command(flatten)]
    arguments: arguments::Arguments,
    /// Only calls from this address or network, `10.0.0.0/8`.
    #[arg(long, value_name = "NETWORK")]
    from: Vec<String>,
    /// Only at these hours: `09:00-17:30 [OFFSET] [DAYS]`.
    #[arg(long, value_name = "HOURS", value_parser = hours::parse)]
    hours: Option<Caveat>,
    /// Not before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_before: Option<i64>,
    /// At most so many calls, of all who hold this or what is made from it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_calls: Option<i64>,
    /// Any caveat in its JSON form.
    #[arg(long, value_name = "JSON", value_parser = caveat)]
    caveat: Vec<Caveat>,
    /// At most so many hand-overs, counted from the issuer.
    #[arg(long, value_name = "N")]
    pub(crate) max_depth: Option<u32>,
    /// A word to whoever reads the chain.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Refuse to sign a restriction that changes nothing or allows nothing.
    #[arg(long)]
    pub(crate) strict: bool,
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
    /// One caveat for each kind of restriction. A counter of calls gets a name of its own from `rng`.
    pub(crate) fn caveats(&self, rng: &mut impl RngCore) -> Result<Vec<Caveat>, Failure> {
        let mut caveats = Vec::new();
        caveats.extend(tools(&self.tool)?);
        let mut list = |values: &[String], caveat: fn(Vec<String>) -> Caveat| {
            if !values.is_empty() {
                caveats.push(caveat(values.to_vec()));
            }
        };
        list(&self.server, |servers| Caveat::Server { servers });
        list(&self.method, |methods| Caveat::Method { methods });
        list(&self.audience, |audiences| Caveat::Audience { audiences });
        let networks: Vec<_> = self.from.iter().map(|text| network(text)).collect();
        list(&networks, |networks| Caveat::ClientAddress { networks });
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
        caveats.extend(self.arguments.caveats()?);
        caveats.extend(self.hours.clone());
        caveats.extend(self.not_before.map(Caveat::NotBefore));
        caveats.extend(self.max_calls.map(|calls| {
            // 64 bits: no two caveats of one chain share a counter by chance.
            let mut name = [0; 8];
            rng.fill_bytes(&mut name);
            Caveat::MaxCalls {
                counter: base64url_encode(&name),
                calls,
            }
        }));
        caveats.extend(self.caveat.iter().cloned());
        Ok(caveats)
    }
}

/// A bare address is the network of that address alone.
fn network(text: &str) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => format!("{text}/32"),
        Ok(std::net::IpAddr::V6(_)) => format!("{text}/128"),
        Err(_) => text.to_owned(),
    }
}

/// Reads a caveat's JSON form on the command line.
fn caveat(text: &str) -> Result<Caveat, String> {
    serde_json::from_str(text)
        .map_err(|e| format!("no caveat such as `{{\"server\":{{\"servers\":[\"git\"]}}}}`: {e}"))
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

/// Reads a time on the command line.
pub(super) fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).ok_or_else(|| "not a time such as `2030-01-31T09:30:00Z`".to_owned())
}

/// Reads a duration on the command line, in seconds.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::failure::Kind;
    use taper_capability::{ArgumentMatch, ArgumentValue};

    pub(super) fn read(words: &[&str]) -> Result<Vec<Caveat>, Kind> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            restrictions: Restrictions,
        }
        let line = std::iter::once("x").chain(words.iter().copied());
        let line = <Line as clap::Parser>::try_parse_from(line).map_err(|_| Kind::Usage)?;
        line.restrictions
            .caveats(&mut taper_service::rng::os())
            .map_err(|e| e.kind())
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
        check(
            &["--method", "tools/call", "--audience", "https://a.example/mcp"],
            Ok(vec![
                Caveat::Method {
                    methods: vec![text("tools/call")],
                },
                Caveat::Audience {
                    audiences: vec![text("https://a.example/mcp")],
                },
            ]),
        );
        check(
            &[
                "--from",
                "10.0.0.0/8",
                "--from",
                "192.0.2.7",
                "--from",
                "2001:db8::1",
            ],
            Ok(vec![Caveat::ClientAddress {
                networks: vec![text("10.0.0.0/8"), text("192.0.2.7/32"), text("2001:db8::1/128")],
            }]),
        );
        check(
            &["--caveat", r#"{"server":{"servers":["git"]}}"#],
            Ok(vec![Caveat::Server {
                servers: vec![text("git")],
            }]),
        );
        check(&["--caveat", r#"{"sever":{}}"#], Err(Kind::Usage));
        check(&["--caveat", "git"], Err(Kind::Usage));
        check(&["--max-calls", "0"], Err(Kind::Usage));
    }

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let counter = || match read(&["--max-calls", "5"]).unwrap().as_slice() {
            [Caveat::MaxCalls { counter, calls: 5 }] => counter.clone(),
            other => panic!("{other:?}"),
        };
        let (a, b) = (counter(), counter());
        assert_eq!((a.len(), a == b), (11, false));
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
