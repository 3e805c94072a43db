//! Caveats from the fuzzer's bytes, valid or not.

use arbitrary::Arbitrary;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};

/// A string: one that means something here, or any.
#[derive(Arbitrary, Clone, Debug)]
pub enum Text {
    /// One of a list.
    Known(u8),
    /// Any.
    Any(String),
}

const TEXTS: [&str; 24] = [
    "git",
    "git_log",
    "git_show",
    "repo",
    "acme/web",
    "acme/",
    "acme/payroll",
    "tools/call",
    "max_count",
    "repo_path",
    "https://proxy.example/git/mcp",
    "10.0.0.0/8",
    "/srv/data",
    "[a-z]+",
    "example.com",
    "https://*.example.com:8443",
    "09:00/17:30/+02:00/12345",
    "09:00",
    "24:00",
    "Z",
    "c",
    "",
    "\u{202e}",
    "a\n\u{1b}[31m",
];
/// A caveat, valid or not.
#[derive(Arbitrary, Debug)]
pub enum CaveatSpec {
    /// By tool.
    Tool(Text, Vec<Text>),
    /// By server.
    Server(Vec<Text>),
    /// By method.
    Method(Vec<Text>),
    /// By audience.
    Audience(Vec<Text>),
    /// By resource.
    Resource(Text, Vec<Text>),
    /// By resource prefix.
    ResourcePrefix(Text, Text),
    /// An argument's value.
    Equals(Text, Value),
    /// An argument's values.
    OneOf(Text, Vec<Value>),
    /// An argument's beginning.
    Prefix(Text, Text),
    /// An argument's range.
    Range(Text, Option<i64>, Option<i64>),
    /// An argument's path.
    PathWithin(Text, Text),
    /// An argument's host.
    UrlHost(Text, Vec<Text>),
    /// An argument's network.
    Network(Text, Vec<Text>),
    /// An argument's pattern.
    Matches(Text, Text),
    /// By address.
    ClientAddress(Vec<Text>),
    /// By time.
    NotBefore(i64),
    /// By hours.
    Hours(Text, Text, Text, Vec<u8>),
    /// By calls.
    MaxCalls(Text, i64),
}

/// A value of an argument.
#[derive(Arbitrary, Debug)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A string.
    Text(Text),
}

impl Text {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Known(n) => TEXTS[usize::from(*n) % TEXTS.len()].to_owned(),
            Self::Any(text) => text.clone(),
        }
    }

    /// As a pointer: a leading slash more often than not.
    fn pointer(&self) -> String {
        match self {
            Self::Known(_) => format!("/{}", self.text()),
            Self::Any(text) => text.clone(),
        }
    }
}

impl Value {
    fn value(&self) -> ArgumentValue {
        match self {
            Self::Bool(b) => ArgumentValue::Bool(*b),
            Self::Integer(i) => ArgumentValue::Integer(*i),
            Self::Text(text) => ArgumentValue::String(text.text()),
        }
    }
}

impl CaveatSpec {
    /// The caveat.
    #[must_use]
    pub fn caveat(&self) -> Caveat {
        let texts = |texts: &[Text]| texts.iter().map(Text::text).collect::<Vec<_>>();
        let argument = |pointer: &Text, matches| Caveat::Argument {
            pointer: pointer.pointer(),
            matches,
        };
        match self {
            Self::Tool(server, tools) => Caveat::Tool {
                server: server.text(),
                tools: texts(tools),
            },
            Self::Server(servers) => Caveat::Server {
                servers: texts(servers),
            },
            Self::Method(methods) => Caveat::Method {
                methods: texts(methods),
            },
            Self::Audience(audiences) => Caveat::Audience {
                audiences: texts(audiences),
            },
            Self::Resource(kind, values) => Caveat::Resource {
                kind: kind.text(),
                matches: ResourceMatch::OneOf(texts(values)),
            },
            Self::ResourcePrefix(kind, prefix) => Caveat::Resource {
                kind: kind.text(),
                matches: ResourceMatch::Prefix(prefix.text()),
            },
            Self::Equals(p, value) => argument(p, ArgumentMatch::Equals(value.value())),
            Self::OneOf(p, values) => {
                argument(p, ArgumentMatch::OneOf(values.iter().map(Value::value).collect()))
            }
            Self::Prefix(p, prefix) => argument(p, ArgumentMatch::Prefix(prefix.text())),
            Self::Range(p, min, max) => argument(p, ArgumentMatch::Range { min: *min, max: *max }),
            Self::PathWithin(p, root) => argument(p, ArgumentMatch::PathWithin(root.text())),
            Self::UrlHost(p, hosts) => argument(p, ArgumentMatch::UrlHost(texts(hosts))),
            Self::Network(p, networks) => argument(p, ArgumentMatch::Network(texts(networks))),
            Self::Matches(p, pattern) => argument(p, ArgumentMatch::Matches(pattern.text())),
            Self::ClientAddress(networks) => Caveat::ClientAddress {
                networks: texts(networks),
            },
            Self::NotBefore(at) => Caveat::NotBefore(*at),
            Self::Hours(from, to, offset, days) => Caveat::Hours {
                from: from.text(),
                to: to.text(),
                offset: offset.text(),
                days: days.iter().map(|day| day % 10).collect(),
            },
            Self::MaxCalls(counter, calls) => Caveat::MaxCalls {
                counter: counter.text(),
                calls: *calls,
            },
        }
    }
}
