//! Caveats: one restriction each (`spec/caveats.md`). They compile to one Datalog check over the
//! request vocabulary and read back from it.

use crate::print::{escaped, quoted};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// Only messages of these methods, plumbing such as `initialize` included.
    Method {
        /// The methods' names.
        methods: Vec<String>,
    },
    /// Only at these resource URIs of servers.
    Audience {
        /// The URIs.
        audiences: Vec<String>,
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
    /// Only calls from these networks.
    ClientAddress {
        /// The networks, `address/length`.
        networks: Vec<String>,
    },
    /// Not before this time, in seconds since the Unix epoch.
    NotBefore(i64),
    /// Only at these hours.
    Hours {
        /// From when on, `HH:MM`.
        from: String,
        /// Before when, `HH:MM` up to `24:00`. Earlier than `from` runs over midnight.
        to: String,
        /// `Z` or the fixed offset from UTC, `+HH:MM` or `-HH:MM`.
        offset: String,
        /// On which days, 1 (Monday) to 7 (Sunday), ascending.
        days: Vec<u8>,
    },
    /// At most so many calls under this caveat.
    MaxCalls {
        /// The name under which the calls are counted, `[A-Za-z0-9_-]{1,64}`.
        counter: String,
        /// How many.
        calls: i64,
    },
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
    /// A string that starts so. The prefix does not end with a letter or digit.
    Prefix(String),
    /// An integer from `min` to `max`, both included; one may be left out.
    Range {
        /// The smallest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<i64>,
        /// The largest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<i64>,
    },
    /// A canonical path, this one or below it.
    PathWithin(String),
    /// A plain URL at one of these hosts, `[scheme://]host[:port]`.
    UrlHost(Vec<String>),
    /// An address in one of these networks, `address/length`.
    Network(Vec<String>),
    /// A string that matches this pattern as a whole.
    Matches(String),
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

impl fmt::Display for Caveat {
    /// The caveat as a phrase, with everything a holder wrote escaped ([`crate::escaped`]).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool { server, tools } => {
                let tools = tools.iter().map(|tool| format!("{server}:{tool}"));
                write!(f, "only {}", list(tools))
            }
            Self::Server { servers } => write!(f, "only on {}", list(servers)),
            Self::Method { methods } => write!(f, "only by method {}", list(methods)),
            Self::Audience { audiences } => write!(f, "only at {}", list(audiences)),
            Self::Resource { kind, matches } => match matches {
                ResourceMatch::OneOf(values) => write!(f, "only {} {}", escaped(kind), list(values)),
                ResourceMatch::Prefix(prefix) => {
                    write!(f, "only {} below {}", escaped(kind), escaped(prefix))
                }
            },
            Self::Argument { pointer, matches } => {
                write!(f, "only with argument {} {matches}", escaped(pointer))
            }
            Self::ClientAddress { networks } => write!(f, "only from {}", list(networks)),
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
            Self::Hours {
                from,
                to,
                offset,
                days,
            } => {
                let offset = if offset == "Z" {
                    "UTC".to_owned()
                } else {
                    format!("UTC{}", escaped(offset))
                };
                write!(f, "only from {} to {} {offset}", escaped(from), escaped(to))?;
                if days.len() < 7 {
                    let name = |day: &u8| {
                        DAYS.get(usize::from(*day).wrapping_sub(1))
                            .copied()
                            .unwrap_or("?")
                    };
                    write!(f, " on {}", list(days.iter().map(name)))?;
                }
                Ok(())
            }
            Self::MaxCalls { counter, calls } => {
                write!(f, "at most {calls} calls (counter {})", escaped(counter))
            }
        }
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl fmt::Display for ArgumentMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(value) => write!(f, "= {value}"),
            Self::OneOf(values) => write!(f, "one of {}", joined(values.iter().map(ToString::to_string))),
            Self::Prefix(prefix) => write!(f, "starting with {}", quoted(prefix)),
            Self::Range { min, max } => match (min, max) {
                (Some(min), Some(max)) => write!(f, "from {min} to {max}"),
                (Some(min), None) => write!(f, "of {min} or more"),
                (None, Some(max)) => write!(f, "of {max} or less"),
                (None, None) => f.write_str("of any integer"),
            },
            Self::PathWithin(root) => write!(f, "a path within {}", quoted(root)),
            Self::UrlHost(hosts) => write!(f, "a URL at {}", list(hosts)),
            Self::Network(networks) => write!(f, "an address in {}", list(networks)),
            Self::Matches(pattern) => write!(f, "matching {}", quoted(pattern)),
        }
    }
}

impl fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::String(s) => f.write_str(&quoted(s)),
        }
    }
}

fn list<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    joined(
        values
            .into_iter()
            .map(|value| crate::print::listed(&value.to_string())),
    )
}

fn joined(values: impl IntoIterator<Item = String>) -> String {
    values.into_iter().collect::<Vec<_>>().join(", ")
}
