//! The decision at the issuer: what of the requested is granted (`spec/exchange.md`).
//!
//! A grant policy derives `grant_right(server, tool)`, `grant_any_tool(server)`,
//! `grant_uri(server, prefix)`, `grant_prompt(server, name)`, `grant_resource(server, kind, pattern)`, `grant_ttl(seconds)`, `grant_depth(n)`,
//! `renew_until(t)`, `renew_for(seconds)` and `deny(reason)`. Nothing derived is nothing granted, a `deny` wins, and
//! never more is granted than was requested.

use crate::boundary::is_canonical;
use crate::limits::limits;
use crate::source::{Dialect, digest, load};
use crate::{PolicyError, PolicyErrors, PolicyFile};
use biscuit_auth::builder::{Fact, Rule, Term};
use biscuit_auth::{Authorizer, AuthorizerBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use taper_capability::{Caveat, Party, ResourceMatch, Right, is_prompt, is_server, is_tool};

/// The words that a grant policy is given.
const GIVEN: [(&str, usize); 10] = [
    ("subject", 2),
    ("claim", 2),
    ("client", 1),
    ("actor", 2),
    ("scope", 1),
    ("requested", 2),
    ("requested_any_tool", 1),
    ("requested_uri", 2),
    ("requested_prompt", 2),
    ("resource", 1),
];

/// The heads that mean something; `time` is given besides.
const HEADS: [(&str, usize); 10] = [
    ("grant_right", 2),
    ("grant_any_tool", 1),
    ("grant_uri", 2),
    ("grant_prompt", 2),
    ("grant_resource", 3),
    ("grant_ttl", 1),
    ("grant_depth", 1),
    ("renew_until", 1),
    ("renew_for", 1),
    ("deny", 1),
];

/// A grant policy, parsed and linted once.
#[derive(Clone)]
pub struct GrantPolicy {
    prepared: AuthorizerBuilder,
    digest: String,
}

/// What is asked for, as far as it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// For whom.
    pub subject: Party,
    /// The subject token's claims.
    pub claims: Vec<(String, String)>,
    /// The authenticated client.
    pub client: String,
    /// Who acts for the subject.
    pub actor: Option<Party>,
    /// The scopes as they were asked for.
    pub scopes: Vec<String>,
    /// The rights that were asked for.
    pub requested: Vec<Right>,
    /// The `resource` parameters (RFC 8707).
    pub resources: Vec<String>,
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTerms {
    /// The rights, never more than were requested.
    pub rights: Vec<Right>,
    /// The lifetime in seconds: the smallest `grant_ttl`, if any was derived.
    pub ttl: Option<u64>,
    /// How often it may be handed on: the smallest `grant_depth`, if any was derived.
    pub max_depth: Option<u32>,
    /// Restrictions from `grant_resource`.
    pub caveats: Vec<Caveat>,
    /// Until when it may be renewed, in seconds since the Unix epoch: the smallest `renew_until`.
    pub renew_until: Option<i64>,
    /// For how many seconds from now it may be renewed: the smallest `renew_for`.
    pub renew_for: Option<u64>,
}

/// Why nothing is granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// The policy derived no right that was requested.
    #[error("the policy grants nothing of what was requested")]
    NothingGranted,
    /// The policy derived `deny(reason)`.
    #[error("{0}")]
    Denied(String),
    /// The policy could not be evaluated, or derived what cannot be granted.
    #[error("the grant policy failed: {0}")]
    Error(String),
}

impl GrantPolicy {
    /// Loads policy files. No file at all is a policy that grants nothing.
    ///
    /// # Errors
    /// Every mistake in them, with its place.
    pub fn load(files: &[PolicyFile]) -> Result<Self, PolicyErrors> {
        let given = || GIVEN.into_iter().chain([("time", 1)]).collect();
        let parsed = load(
            files,
            &Dialect {
                given: &given,
                heads: &HEADS,
                policies: false,
            },
        )?;
        let unusable = |error: biscuit_auth::error::Token| {
            PolicyErrors(vec![PolicyError {
                file: String::new(),
                line: 0,
                column: 0,
                message: error.to_string(),
            }])
        };
        let mut prepared = AuthorizerBuilder::new().set_limits(limits());
        for fact in parsed.facts {
            prepared = prepared.fact(fact).map_err(unusable)?;
        }
        for rule in parsed.rules {
            prepared = prepared.rule(rule).map_err(unusable)?;
        }
        Ok(Self {
            prepared,
            digest: digest(files),
        })
    }

    /// SHA-256 over the files' texts, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl fmt::Debug for GrantPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantPolicy({})", self.digest)
    }
}

/// Decides a request at `now`, in seconds since the Unix epoch.
///
/// # Errors
/// [`GrantRefusal`].
pub fn decide(policy: &GrantPolicy, request: &GrantRequest, now: i64) -> Result<GrantTerms, GrantRefusal> {
    let failed = |error: biscuit_auth::error::Token| GrantRefusal::Error(error.to_string());
    let mut builder = policy.prepared.clone();
    for fact in facts(request, now) {
        builder = builder.fact(fact).map_err(failed)?;
    }
    let mut world = builder.build_unauthenticated().map_err(failed)?;
    if let Some(reason) = derived(&mut world, "deny", 1)?.into_iter().next() {
        return Err(GrantRefusal::Denied(match reason.as_slice() {
            [Term::Str(reason)] => reason.clone(),
            _ => "denied by policy".to_owned(),
        }));
    }
    let rights = rights(&mut world, request)?;
    if rights.is_empty() {
        return Err(GrantRefusal::NothingGranted);
    }
    let smallest = |values: Vec<i64>| values.into_iter().min();
    let ttl = smallest(integers(&mut world, "grant_ttl")?)
        .map(u64::try_from)
        .transpose();
    let max_depth = smallest(integers(&mut world, "grant_depth")?)
        .map(u32::try_from)
        .transpose();
    let renew_until = smallest(integers(&mut world, "renew_until")?);
    let renew_for = smallest(integers(&mut world, "renew_for")?)
        .map(u64::try_from)
        .transpose();
    let range = |_| GrantRefusal::Error("a negative or too large number".to_owned());
    let caveats = resource_caveats(&mut world, &rights)?;
    Ok(GrantTerms {
        rights,
        ttl: ttl.map_err(range)?,
        max_depth: max_depth.map_err(range)?,
        caveats,
        renew_until,
        renew_for: renew_for.map_err(range)?,
    })
}

fn facts(request: &GrantRequest, now: i64) -> Vec<Fact> {
    let text = |s: &str| Term::Str(s.to_owned());
    let mut facts = Vec::new();
    let mut add = |name: &str, terms: Vec<Term>| facts.push(Fact::new(name.to_owned(), terms));
    add("time", vec![Term::Date(u64::try_from(now).unwrap_or(0))]);
    add(
        "subject",
        vec![text(&request.subject.iss), text(&request.subject.sub)],
    );
    add("client", vec![text(&request.client)]);
    if let Some(actor) = &request.actor {
        add("actor", vec![text(&actor.iss), text(&actor.sub)]);
    }
    for (name, value) in &request.claims {
        add("claim", vec![text(name), text(value)]);
    }
    for scope in &request.scopes {
        add("scope", vec![text(scope)]);
    }
    for resource in &request.resources {
        add("resource", vec![text(resource)]);
    }
    for right in &request.requested {
        match right {
            Right::Tool { server, tool } => add("requested", vec![text(server), text(tool)]),
            Right::AnyTool { server } => add("requested_any_tool", vec![text(server)]),
            Right::Resource { server, uri_prefix } => {
                add("requested_uri", vec![text(server), text(uri_prefix)]);
            }
            Right::Prompt { server, name } => add("requested_prompt", vec![text(server), text(name)]),
        }
    }
    facts
}

/// Every fact of a head that the policy derived.
fn derived(world: &mut Authorizer, head: &str, arity: usize) -> Result<Vec<Vec<Term>>, GrantRefusal> {
    let variables: Vec<Term> = (0..arity).map(|i| Term::Variable(format!("v{i}"))).collect();
    let predicate = |name: &str| biscuit_auth::builder::Predicate::new(name.to_owned(), variables.clone());
    let rule = Rule::new(predicate("found"), vec![predicate(head)], Vec::new(), Vec::new());
    let found: Vec<Fact> = world
        .query_with_limits(rule, limits())
        .map_err(|error: biscuit_auth::error::Token| GrantRefusal::Error(error.to_string()))?;
    Ok(found.into_iter().map(|fact| fact.predicate.terms).collect())
}

fn integers(world: &mut Authorizer, head: &str) -> Result<Vec<i64>, GrantRefusal> {
    derived(world, head, 1)?
        .into_iter()
        .map(|terms| match terms.as_slice() {
            [Term::Integer(n)] => Ok(*n),
            [Term::Date(at)] => {
                i64::try_from(*at).map_err(|_| GrantRefusal::Error(format!("`{head}` is out of range")))
            }
            _ => Err(GrantRefusal::Error(format!(
                "`{head}` is neither an integer nor a date"
            ))),
        })
        .collect()
}

fn rights(world: &mut Authorizer, request: &GrantRequest) -> Result<Vec<Right>, GrantRefusal> {
    let wrong = |head: &str| GrantRefusal::Error(format!("`{head}` derives what is no server or tool name"));
    let any: BTreeSet<String> = derived(world, "grant_any_tool", 1)?
        .into_iter()
        .map(|terms| match terms.as_slice() {
            [Term::Str(server)] if is_server(server) => Ok(server.clone()),
            _ => Err(wrong("grant_any_tool")),
        })
        .collect::<Result<_, _>>()?;
    let tools: BTreeSet<(String, String)> = derived(world, "grant_right", 2)?
        .into_iter()
        .map(|terms| match terms.as_slice() {
            [Term::Str(server), Term::Str(tool)] if is_server(server) && is_tool(tool) => {
                Ok((server.clone(), tool.clone()))
            }
            _ => Err(wrong("grant_right")),
        })
        .collect::<Result<_, _>>()?;
    let uris = pairs(world, "grant_uri", is_uri_prefix)?;
    let prompts = pairs(world, "grant_prompt", is_prompt)?;
    let mut granted = BTreeSet::new();
    for right in &request.requested {
        match right {
            Right::Tool { server, tool } => {
                if any.contains(server) || tools.contains(&(server.clone(), tool.clone())) {
                    granted.insert(right.clone());
                }
            }
            Right::AnyTool { server } if any.contains(server) => {
                granted.insert(right.clone());
            }
            Right::AnyTool { server: wanted } => {
                let here = tools.iter().filter(|(server, _)| server == wanted);
                granted.extend(here.map(|(server, tool)| Right::Tool {
                    server: server.clone(),
                    tool: tool.clone(),
                }));
            }
            Right::Resource { server, uri_prefix } => {
                let here = uris.iter().filter(|(of, _)| of == server);
                // What both allow: the narrower of what was asked for and what the policy says.
                let common = here.filter_map(|(_, uri)| match () {
                    () if uri_covers(uri, uri_prefix) => Some(uri_prefix),
                    () if uri_covers(uri_prefix, uri) => Some(uri),
                    () => None,
                });
                granted.extend(common.map(|uri| Right::Resource {
                    server: server.clone(),
                    uri_prefix: uri.clone(),
                }));
            }
            Right::Prompt { server, name } => {
                if prompts.contains(&(server.clone(), name.clone())) {
                    granted.insert(right.clone());
                }
            }
        }
    }
    Ok(granted.into_iter().collect())
}

/// What the policy derived of a head with a server and a name that `is_name` takes.
fn pairs(
    world: &mut Authorizer,
    head: &str,
    is_name: fn(&str) -> bool,
) -> Result<BTreeSet<(String, String)>, GrantRefusal> {
    derived(world, head, 2)?
        .into_iter()
        .map(|terms| match terms.as_slice() {
            [Term::Str(server), Term::Str(name)] if is_server(server) && is_name(name) => {
                Ok((server.clone(), name.clone()))
            }
            _ => Err(GrantRefusal::Error(format!(
                "`{head}` derives what is no server or cannot be granted there"
            ))),
        })
        .collect()
}

/// Whether `uri` can be granted: what no read of a canonical URI could use is a mistake.
#[must_use]
pub fn is_uri_prefix(uri: &str) -> bool {
    const LONGEST: usize = 1024;
    (1..=LONGEST).contains(&uri.len()) && is_canonical(uri)
}

/// Whether whoever may read `outer` may read `inner`: it is the same URI, or lies below one that ends with
/// `/`, as the boundary compares them.
#[must_use]
pub fn uri_covers(outer: &str, inner: &str) -> bool {
    inner == outer || (outer.ends_with('/') && inner.starts_with(outer))
}

/// `grant_resource(server, kind, pattern)` as caveats. A caveat holds for the whole capability, so
/// a pattern for one server beside rights on another cannot be expressed and is an error.
fn resource_caveats(world: &mut Authorizer, rights: &[Right]) -> Result<Vec<Caveat>, GrantRefusal> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let servers: BTreeSet<&str> = rights.iter().map(Right::server).collect();
    for terms in derived(world, "grant_resource", 3)? {
        let [Term::Str(server), Term::Str(kind), Term::Str(pattern)] = terms.as_slice() else {
            return Err(GrantRefusal::Error(
                "`grant_resource` has terms that are not strings".to_owned(),
            ));
        };
        if !servers.contains(server.as_str()) {
            continue;
        }
        if servers.len() > 1 {
            return Err(GrantRefusal::Error(
                "`grant_resource` with rights on several servers: request one server at a time".to_owned(),
            ));
        }
        kinds.entry(kind.clone()).or_default().insert(pattern.clone());
    }
    kinds
        .into_iter()
        .map(|(kind, patterns)| resource_caveat(kind, patterns))
        .collect()
}

fn resource_caveat(kind: String, patterns: BTreeSet<String>) -> Result<Caveat, GrantRefusal> {
    let (prefixes, values): (Vec<_>, Vec<_>) =
        patterns.into_iter().partition(|pattern| pattern.ends_with("/*"));
    let matches = match (prefixes.as_slice(), values.is_empty()) {
        ([], false) => ResourceMatch::OneOf(values),
        ([prefix], true) => ResourceMatch::Prefix(prefix.trim_end_matches('*').to_owned()),
        _ => {
            return Err(GrantRefusal::Error(format!(
                "`grant_resource` for `{kind}`: one prefix (`…/*`), or any number of exact values"
            )));
        }
    };
    let caveat = Caveat::Resource { kind, matches };
    caveat
        .to_check()
        .map_err(|error| GrantRefusal::Error(error.to_string()))?;
    Ok(caveat)
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
