//! What a whole chain still allows: the rights of block 0 after every caveat of every link.
//!
//! The picture is an upper bound. What it leaves out is refused; what it lists may still fail a
//! check that is not a caveat of ours ([`Effective::other_checks`]), a policy, or a revocation.
//! It is about what a right names: tool calls, resources and prompts. What a list shows, and
//! messages that need no right of their own (`initialize`, log levels, tasks), are not judged.

mod argument;
mod hours;
mod review;
mod show;

pub use argument::EffectiveArgument;
pub use hours::EffectiveHours;
pub use review::Review;

use crate::grant::Right;
use crate::print::escaped;
use crate::{Caveat, ResourceMatch, UnverifiedLink, UnverifiedToken, VerifiedChain};
use ipnet::IpNet;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a chain still allows. As JSON, a member that is absent does not restrict:
///
/// ```json
/// {"servers": {"git": {"tools": ["git_log"], "resources": [], "prompts": []}},
///  "resources": {"repo": {"one_of": ["acme/web"]}},
///  "arguments": {"/max_count": {"min": 1, "max": 5}},
///  "methods": ["tools/call"],
///  "audiences": ["https://proxy.example/git/mcp"],
///  "networks": ["10.0.0.0/8"],
///  "not_before": 1800000000, "expires_at": 1800003600,
///  "hours": [{"from": "09:00", "to": "17:30", "offset": "Z", "days": [1, 2, 3, 4, 5]}],
///  "max_calls": [{"counter": "c1", "calls": 5}],
///  "depth": 1, "max_depth": 3, "hand_overs_left": 2,
///  "other_checks": ["check if body_bound(true)"],
///  "nothing": "why nothing is allowed at all"}
/// ```
///
/// Texts are as they stand in the token, but for `other_checks` and `nothing`, which are escaped;
/// [`Display`](std::fmt::Display) escapes everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// By server, what remains of the rights. A server without any is left out.
    pub servers: BTreeMap<String, EffectiveServer>,
    /// By kind, what every resource that a call names must be. A call names at least one of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, EffectiveResource>,
    /// By RFC 6901 pointer, what an argument must be. Each of them must be given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, EffectiveArgument>,
    /// The only methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<BTreeSet<String>>,
    /// The only resource URIs of servers.
    pub audiences: BTreeSet<String>,
    /// The only networks from which a call may come, `address/length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// The latest start, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// The earliest end, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// The hours, all of which must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<EffectiveHours>,
    /// The counters, all of which must hold; what they stand at is known to the boundary only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub max_calls: Vec<EffectiveCalls>,
    /// How often it was handed on.
    pub depth: u32,
    /// How often it may be handed on in all.
    pub max_depth: u32,
    /// How often it may still be handed on.
    pub hand_overs_left: u32,
    /// Checks that are no caveats of ours, as escaped Datalog. They must hold, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_checks: Vec<String>,
    /// Why nothing is allowed at all, where that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
}

/// What remains of the rights on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectiveServer {
    /// Which tools may be called.
    pub tools: EffectiveTools,
    /// What may be read: URIs, or all below one that ends with `/`.
    pub resources: BTreeSet<String>,
    /// Which prompts may be had.
    pub prompts: BTreeSet<String>,
}

/// Tools of one server: `"any"`, or the list of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectiveTools {
    /// Every tool.
    Any,
    /// These.
    Only(BTreeSet<String>),
}

/// What the resources of one kind must be. One of the members is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectiveResource {
    /// One of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_of: Option<BTreeSet<String>>,
    /// Below this prefix, which ends with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
}

/// At most so many calls under a counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveCalls {
    /// The counter's name.
    pub counter: String,
    /// How many calls in all, not how many are left.
    pub calls: i64,
}

impl Effective {
    /// What a verified chain still allows.
    #[must_use]
    pub fn of_verified(chain: &VerifiedChain) -> Self {
        let checks = || chain.links().iter().flat_map(|link| &link.caveats);
        let mut effective = Self::granted(chain.rights(), chain.audiences());
        effective.expires_at = chain.expires_at();
        effective.set_depth(chain.depth(), chain.max_depth());
        effective.other_checks = checks()
            .filter(|check| check.caveat().is_none())
            .map(crate::AdmittedCheck::datalog)
            .collect();
        checks()
            .filter_map(crate::AdmittedCheck::caveat)
            .for_each(|caveat| effective.only(caveat));
        effective
    }

    /// What a token says that it allows. Nothing of it is verified, and whoever shows it says so.
    #[must_use]
    pub fn of_unverified(token: &UnverifiedToken) -> Self {
        let mut effective = Self::granted(token.rights(), token.audiences());
        effective.expires_at = token.expires_at();
        effective.set_depth(token.depth(), token.max_depth());
        effective.other_checks = token
            .links()
            .iter()
            .flat_map(UnverifiedLink::other_checks)
            .collect();
        for link in token.links() {
            link.caveats().0.iter().for_each(|caveat| effective.only(caveat));
        }
        effective
    }

    /// Adds a caveat, as the next link would.
    pub fn only(&mut self, caveat: &Caveat) {
        match caveat {
            Caveat::Tool { server, tools } => {
                self.tool_calls_only();
                self.servers.retain(|name, _| name == server);
                if let Some(rights) = self.servers.get_mut(server) {
                    rights.tools.keep(tools);
                }
                self.rights_remain(|| format!("no tool of the list may be called on {}", escaped(server)));
            }
            Caveat::Server { servers } => {
                self.servers.retain(|name, _| servers.contains(name));
                self.rights_remain(|| format!("there is no right on {}", listed(servers)));
            }
            Caveat::Method { methods } => {
                let kept = both(self.methods.take(), methods);
                self.fails_when(kept.is_empty(), || "no method fits all caveats".to_owned());
                self.methods = Some(kept);
            }
            Caveat::Audience { audiences } => {
                self.audiences.retain(|audience| audiences.contains(audience));
                let none = self.audiences.is_empty();
                self.fails_when(none, || "it counts for none of these audiences".to_owned());
            }
            Caveat::Resource { kind, matches } => {
                self.tool_calls_only();
                let resource = self.resources.entry(kind.clone()).or_default();
                resource.keep(matches);
                let empty = resource.one_of.as_ref().is_some_and(BTreeSet::is_empty);
                self.fails_when(empty, || format!("no {} fits all caveats", escaped(kind)));
            }
            Caveat::Argument { pointer, matches } => {
                self.tool_calls_only();
                let argument = self.arguments.entry(pointer.clone()).or_default();
                argument.keep(matches);
                let empty = argument.is_empty();
                self.fails_when(empty, || {
                    format!("no value of argument {} fits all caveats", escaped(pointer))
                });
            }
            Caveat::ClientAddress { networks } => {
                let kept = narrower(self.networks.take(), networks);
                self.fails_when(kept.is_empty(), || "no address is in all networks".to_owned());
                self.networks = Some(kept);
            }
            Caveat::NotBefore(at) => {
                self.not_before = Some(self.not_before.map_or(*at, |before| before.max(*at)));
                let ended = *at >= self.expires_at;
                self.fails_when(ended, || "it begins when the capability has ended".to_owned());
            }
            Caveat::Hours {
                from,
                to,
                offset,
                days,
            } => self.at_hours(EffectiveHours {
                from: from.clone(),
                to: to.clone(),
                offset: offset.clone(),
                days: days.clone(),
            }),
            Caveat::MaxCalls { counter, calls } => self.max_calls.push(EffectiveCalls {
                counter: counter.clone(),
                calls: *calls,
            }),
        }
    }

    /// As it is after one more hand-over.
    #[must_use]
    pub fn handed_on(mut self) -> Self {
        self.set_depth(self.depth.saturating_add(1), self.max_depth);
        self
    }

    /// Ends at `unix` (seconds since the Unix epoch), or when it did, whichever is earlier.
    pub fn until(&mut self, unix: i64) {
        self.expires_at = self.expires_at.min(unix);
        let never = self.not_before.is_some_and(|at| at >= self.expires_at);
        self.fails_when(never, || "it ends before it begins".to_owned());
    }

    /// What rights alone allow: no end, no depth.
    fn granted(rights: &[Right], audiences: &[String]) -> Self {
        let mut servers: BTreeMap<String, EffectiveServer> = BTreeMap::new();
        for right in rights {
            let server = servers.entry(right.server().to_owned()).or_default();
            match right {
                Right::Tool { tool, .. } => server.tools.add(tool),
                Right::AnyTool { .. } => server.tools = EffectiveTools::Any,
                Right::Resource { uri_prefix, .. } => {
                    server.resources.insert(uri_prefix.clone());
                }
                Right::Prompt { name, .. } => {
                    server.prompts.insert(name.clone());
                }
            }
        }
        let mut effective = Self {
            servers,
            resources: BTreeMap::new(),
            arguments: BTreeMap::new(),
            methods: None,
            audiences: audiences.iter().cloned().collect(),
            networks: None,
            not_before: None,
            expires_at: i64::MAX,
            hours: Vec::new(),
            max_calls: Vec::new(),
            depth: 0,
            max_depth: 0,
            hand_overs_left: 0,
            other_checks: Vec::new(),
            nothing: None,
        };
        effective.rights_remain(|| "it has no rights".to_owned());
        effective
    }

    fn set_depth(&mut self, depth: u32, max_depth: u32) {
        self.depth = depth;
        self.max_depth = max_depth;
        self.hand_overs_left = max_depth.saturating_sub(depth);
        self.fails_when(depth > max_depth, || {
            format!("it was handed on {depth} times and may be {max_depth} times")
        });
    }

    /// A caveat about tools, arguments or resources of calls: nothing else has those facts.
    fn tool_calls_only(&mut self) {
        for server in self.servers.values_mut() {
            server.resources.clear();
            server.prompts.clear();
        }
        self.rights_remain(|| "no right to call a tool remains".to_owned());
    }

    fn rights_remain(&mut self, otherwise: impl FnOnce() -> String) {
        self.servers.retain(|_, server| !server.is_empty());
        self.fails_when(self.servers.is_empty(), otherwise);
    }

    /// The first reason stays.
    fn fails_when(&mut self, fails: bool, reason: impl FnOnce() -> String) {
        if fails && self.nothing.is_none() {
            self.nothing = Some(reason());
        }
    }
}

impl EffectiveServer {
    fn is_empty(&self) -> bool {
        self.resources.is_empty()
            && self.prompts.is_empty()
            && matches!(&self.tools, EffectiveTools::Only(tools) if tools.is_empty())
    }
}

impl Default for EffectiveTools {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Serialize for EffectiveTools {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Only(tools) => tools.serialize(serializer),
        }
    }
}

impl EffectiveTools {
    fn add(&mut self, tool: &str) {
        if let Self::Only(tools) = self {
            tools.insert(tool.to_owned());
        }
    }

    fn keep(&mut self, only: &[String]) {
        match self {
            Self::Any => *self = Self::Only(only.iter().cloned().collect()),
            Self::Only(tools) => tools.retain(|tool| only.contains(tool)),
        }
    }
}

impl EffectiveResource {
    fn keep(&mut self, matches: &ResourceMatch) {
        match matches {
            ResourceMatch::OneOf(values) => self.one_of = Some(both(self.one_of.take(), values)),
            ResourceMatch::Prefix(prefix) => match self.below.take() {
                Some(below) if below.starts_with(prefix.as_str()) => self.below = Some(below),
                Some(below) if !prefix.starts_with(below.as_str()) => self.one_of = Some(BTreeSet::new()),
                _ => self.below = Some(prefix.clone()),
            },
        }
        if let Some(values) = &mut self.one_of {
            let below = self.below.take().unwrap_or_default();
            values.retain(|value| value.starts_with(below.as_str()));
        }
    }
}

/// The values of `new` that were allowed before.
fn both(before: Option<BTreeSet<String>>, new: &[String]) -> BTreeSet<String> {
    let allowed = |value: &String| before.as_ref().is_none_or(|before| before.contains(value));
    new.iter().filter(|value| allowed(value)).cloned().collect()
}

/// The networks within both lists: of two networks one holds the other, or they are disjoint.
fn narrower(before: Option<Vec<String>>, new: &[String]) -> Vec<String> {
    let parse =
        |texts: &[String]| -> Vec<IpNet> { texts.iter().filter_map(|text| text.parse().ok()).collect() };
    let new = parse(new);
    let mut kept: Vec<IpNet> = match before.as_deref().map(parse) {
        None => new,
        Some(before) => before
            .iter()
            .flat_map(|a| new.iter().map(move |b| (a, b)))
            .filter_map(|(a, b)| match (a.contains(b), b.contains(a)) {
                (true, _) => Some(*b),
                (_, true) => Some(*a),
                _ => None,
            })
            .collect(),
    };
    kept.sort_unstable();
    kept.dedup();
    let all = kept.clone();
    kept.retain(|a| !all.iter().any(|b| a != b && b.contains(a)));
    kept.iter().map(ToString::to_string).collect()
}

fn listed<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let values: Vec<_> = values
        .into_iter()
        .map(|value| crate::print::listed(value))
        .collect();
    values.join(", ")
}
