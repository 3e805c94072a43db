//! The decision at the boundary (`spec/presentation.md`, R-20 to R-26).
//!
//! First what block 0 grants, natively; then all checks of the chain, then every `deny` of every
//! policy file, then `allow`. Files cannot reorder this, and a policy can only subtract.

use crate::denial::{Denial, DenialKind};
use crate::grant::uri_covers;
use crate::limits::limits;
use crate::source::{Dialect, Parsed, digest, load};
use crate::{PolicyErrors, PolicyFile};
use biscuit_auth::AuthorizerBuilder;
use biscuit_auth::builder::{Expression, Fact, Op, Policy, PolicyKind, Term};
use biscuit_auth::error::{FailedCheck, Logic, MatchedPolicy, Token as TokenError};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use taper_capability::{
    Access, AccessKind, AdmittedCheck, ArgumentReads, Right, VerifiedChain, VerifiedPresentation, rules,
    vocabulary,
};

/// The policies of a boundary, parsed, linted and ordered once.
#[derive(Clone)]
pub struct BoundaryPolicy {
    prepared: AuthorizerBuilder,
    /// The positions of the policies' own checks, which come before those of a chain.
    checks: Vec<String>,
    /// The positions of the policies, denies first.
    policies: Vec<String>,
    /// The predicates that their bodies name.
    named: BTreeSet<String>,
    /// What they read in the arguments of a call.
    reads: ArgumentReads,
    /// Whether they say yes to everything: the first `allow` is `allow if true`, and nothing else is said.
    allows_all: bool,
    digest: String,
}

impl BoundaryPolicy {
    /// Loads policy files. No file at all is a policy under which everything is denied.
    ///
    /// # Errors
    /// Every mistake in them, with its place.
    pub fn load(files: &[PolicyFile]) -> Result<Self, PolicyErrors> {
        let given = || {
            vocabulary::WORDS
                .iter()
                .map(|word| (word.name, word.arity))
                .collect()
        };
        let Parsed {
            facts,
            rules,
            checks,
            policies,
            reads,
        } = load(
            files,
            &Dialect {
                given: &given,
                heads: &[],
                policies: true,
            },
        )?;
        let (denies, allows): (Vec<_>, Vec<_>) = policies
            .into_iter()
            .partition(|(_, p)| p.kind == PolicyKind::Deny);
        let mut prepared = AuthorizerBuilder::new().set_limits(limits());
        let mut positions = (Vec::new(), Vec::new());
        let allows_all = rules.is_empty()
            && checks.is_empty()
            && denies.is_empty()
            && allows.first().is_some_and(|(_, policy)| is_unconditional(policy));
        let of_checks = checks.iter().flat_map(|(_, check)| &check.queries);
        let of_policies = denies
            .iter()
            .chain(&allows)
            .flat_map(|(_, policy)| &policy.queries);
        let queries = rules.iter().chain(of_checks).chain(of_policies);
        let named: BTreeSet<String> = queries
            .flat_map(|rule| rule.body.iter().map(|predicate| predicate.name.clone()))
            .collect();
        let unusable = |error: TokenError| {
            PolicyErrors(vec![crate::PolicyError {
                file: String::new(),
                line: 0,
                column: 0,
                message: error.to_string(),
            }])
        };
        for fact in facts {
            prepared = prepared.fact(fact).map_err(unusable)?;
        }
        for rule in rules {
            prepared = prepared.rule(rule).map_err(unusable)?;
        }
        for (position, check) in checks {
            prepared = prepared.check(check).map_err(unusable)?;
            positions.0.push(position);
        }
        for (position, policy) in denies.into_iter().chain(allows) {
            prepared = prepared.policy(policy).map_err(unusable)?;
            positions.1.push(position);
        }
        Ok(Self {
            prepared,
            checks: positions.0,
            policies: positions.1,
            named,
            reads,
            allows_all,
            digest: digest(files),
        })
    }

    /// Whether anything in the files depends on facts of this predicate.
    #[must_use]
    pub fn names(&self, predicate: &str) -> bool {
        self.named.contains(predicate)
    }

    /// What the files read in the arguments of a call.
    #[must_use]
    pub fn reads(&self) -> &ArgumentReads {
        &self.reads
    }

    /// SHA-256 over the files' texts, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Whether a policy's first query is `true`.
fn is_unconditional(policy: &Policy) -> bool {
    policy.queries.first().is_some_and(|query| {
        let is_true = |expression: &Expression| expression.ops == [Op::Value(Term::Bool(true))];
        query.body.is_empty() && query.scopes.is_empty() && query.expressions.iter().all(is_true)
    })
}

impl fmt::Debug for BoundaryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BoundaryPolicy({} checks, {} policies, {})",
            self.checks.len(),
            self.policies.len(),
            self.digest
        )
    }
}

/// What was decided.
#[derive(Debug)]
pub enum Decision {
    /// It may pass.
    Allow(Permit),
    /// It may not.
    Deny(Denial),
    /// Evaluation reached a limit (R-26): ask again later. The reason is the operator's.
    Indeterminate(String),
}

/// The permission for one access. It is made in [`decide`] and nowhere else:
///
/// ```compile_fail
/// fn forge(access: taper_capability::Access) -> taper_policy::boundary::Permit {
///     taper_policy::boundary::Permit { access: access.into(), expires_at: i64::MAX }
/// }
/// ```
/// while it can be read:
/// ```
/// fn read(permit: &taper_policy::boundary::Permit) -> &taper_capability::Access {
///     permit.access()
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    access: Arc<Access>,
    expires_at: i64,
}

impl Permit {
    /// What is permitted.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The same, for who keeps it.
    #[must_use]
    pub fn shared_access(&self) -> Arc<Access> {
        Arc::clone(&self.access)
    }

    /// Until when, in seconds since the Unix epoch: a stream is cut then.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }
}

/// That an entry of a list may be shown. It permits no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible(());

/// Decides one access of a presentation at `now`.
#[must_use]
pub fn decide(
    policy: &BoundaryPolicy,
    presentation: &VerifiedPresentation,
    access: impl Into<Arc<Access>>,
    now: i64,
) -> Decision {
    let access = access.into();
    match judge(policy, presentation, &access, now) {
        Outcome::Allow => Decision::Allow(Permit {
            access,
            expires_at: presentation.chain().expires_at(),
        }),
        Outcome::Deny(denial) => Decision::Deny(*denial),
        Outcome::Indeterminate(reason) => Decision::Indeterminate(reason),
    }
}

/// Whether an entry of a list may be shown: the same decision, for an access of kind
/// [`AccessKind::ListEntry`].
///
/// # Errors
/// Why it is hidden.
pub fn visible(
    policy: &BoundaryPolicy,
    presentation: &VerifiedPresentation,
    entry: &Access,
    now: i64,
) -> Result<Visible, Hidden> {
    if entry.kind != AccessKind::ListEntry {
        return Err(Hidden::Denied);
    }
    match judge(policy, presentation, entry, now) {
        Outcome::Allow => Ok(Visible(())),
        Outcome::Deny(_) => Err(Hidden::Denied),
        Outcome::Indeterminate(_) => Err(Hidden::Undecided),
    }
}

/// Why an entry is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The caller could not use it.
    Denied,
    /// The decision ran into a limit, which costs as much as a decision may.
    Undecided,
}

/// Whether [`decide`] would say of this access what it says without an evaluation: either nothing but what block 0
/// grants, or that nothing is left to evaluate. That takes microseconds, an evaluation up to its limits.
#[must_use]
pub fn is_short(policy: &BoundaryPolicy, chain: &VerifiedChain, access: &Access, now: i64) -> bool {
    granted(chain, access, now).is_err() || (policy.allows_all && open(chain, access, now).next().is_none())
}

/// Whether a decision over this chain depends on facts of `predicate`: the policy names it, or a check of
/// the chain. Without such facts a `deny` would be silent, so who cannot supply them must not ask.
#[must_use]
pub fn depends_on(policy: &BoundaryPolicy, chain: &VerifiedChain, predicate: &str) -> bool {
    let mut checks = chain.links().iter().flat_map(|link| &link.caveats);
    policy.names(predicate) || checks.any(|check| check.words().any(|word| word == predicate))
}

enum Outcome {
    Allow,
    Deny(Box<Denial>),
    Indeterminate(String),
}

fn deny(rule: taper_dpop::RuleId, kind: DenialKind, reason: impl Into<String>) -> Denial {
    Denial {
        rule,
        kind,
        link: None,
        caveat: None,
        obtainable: Vec::new(),
        reason: reason.into(),
    }
}

fn judge(policy: &BoundaryPolicy, presentation: &VerifiedPresentation, access: &Access, now: i64) -> Outcome {
    let chain = presentation.chain();
    match granted(chain, access, now) {
        Ok(()) => evaluate(policy, chain, access, now),
        Err(denial) => Outcome::Deny(denial),
    }
}

/// What block 0 grants, natively: without a match nothing else is asked.
fn granted(chain: &VerifiedChain, access: &Access, now: i64) -> Result<(), Box<Denial>> {
    if !rules::NOT_EXPIRED.holds(now < chain.expires_at()) {
        return Err(Box::new(deny(
            rules::NOT_EXPIRED,
            DenialKind::Expired,
            "the capability has expired",
        )));
    }
    if !rules::AUDIENCE.holds(chain.audiences().contains(&access.audience)) {
        return Err(Box::new(deny(
            rules::AUDIENCE,
            DenialKind::Audience,
            "the capability is for another audience",
        )));
    }
    if rules::RIGHT.holds(has_right(chain.rights(), access)) {
        return Ok(());
    }
    let obtainable = access
        .tool
        .iter()
        .map(|tool| format!("{}:{tool}", access.server))
        .collect();
    let reason = format!("the grant has no right to `{}`", access.method);
    Err(Box::new(Denial {
        obtainable,
        ..deny(rules::RIGHT, DenialKind::NoRight, reason)
    }))
}

fn has_right(rights: &[Right], access: &Access) -> bool {
    let here = || rights.iter().filter(|right| right.server() == access.server);
    let tool = |name: &str| {
        here().any(|right| match right {
            Right::Tool { tool, .. } => tool == name,
            Right::AnyTool { .. } => true,
            _ => false,
        })
    };
    let prompt =
        |wanted: &str| here().any(|right| matches!(right, Right::Prompt { name, .. } if name == wanted));
    let resource = |uri: &str| {
        is_canonical(uri)
            && here().any(|right| match right {
                Right::Resource { uri_prefix, .. } => uri_covers(uri_prefix, uri),
                _ => false,
            })
    };
    let named = || match (&access.tool, &access.prompt, &access.uri) {
        (Some(name), None, None) => tool(name),
        (None, Some(name), None) => prompt(name),
        (None, None, Some(uri)) => resource(uri),
        _ => false,
    };
    match access.kind {
        AccessKind::ToolCall => access.tool.as_deref().is_some_and(tool),
        AccessKind::ResourceRead => access.uri.as_deref().is_some_and(resource),
        AccessKind::PromptGet => access.prompt.as_deref().is_some_and(prompt),
        AccessKind::Completion | AccessKind::ListEntry => named(),
        AccessKind::Task | AccessKind::LoggingLevel => here().next().is_some(),
        AccessKind::Plumbing => true,
    }
}

/// Whether a URI has one reading: no empty segment but the last, none that is `.` or `..`, no backslash,
/// escape or control character (which parsers drop).
pub(crate) fn is_canonical(uri: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
    };
    let path = match uri.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => uri,
    };
    // `file:///path` has an empty authority.
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    let mut plain = true;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        plain &= segment != "." && segment != ".." && (last || !segment.is_empty());
    }
    plain && !uri.contains(|c: char| c.is_control() || c == '\\' || c == '%')
}

/// The checks of the chain and the policies, in one evaluation. What certainly passes is left out of it, and
/// there is none when nothing is left to ask.
fn evaluate(policy: &BoundaryPolicy, chain: &VerifiedChain, access: &Access, now: i64) -> Outcome {
    let checks: Vec<(usize, &AdmittedCheck)> = open(chain, access, now).collect();
    if checks.is_empty() && policy.allows_all {
        return Outcome::Allow;
    }
    match run(policy, chain, access, now, &checks) {
        Ok(_) => Outcome::Allow,
        Err(TokenError::RunLimit(_)) if rules::LIMITS.holds(false) => Outcome::Allow,
        Err(TokenError::RunLimit(limit)) => Outcome::Indeterminate(limit.to_string()),
        Err(TokenError::FailedLogic(Logic::Unauthorized {
            policy: matched,
            checks: failed,
        })) => refused(policy, &checks, Some(matched), &failed),
        Err(TokenError::FailedLogic(Logic::NoMatchingPolicy { checks: failed })) => {
            refused(policy, &checks, None, &failed)
        }
        Err(_) if rules::EVALUATION.holds(false) => Outcome::Allow,
        Err(error) => {
            let at_fault = at_fault(chain, access, now, &checks);
            let denial = deny(rules::EVALUATION, DenialKind::Error, error.to_string());
            Outcome::Deny(Box::new(match at_fault {
                Some((link, check)) => Denial {
                    link: Some(link),
                    caveat: check.caveat().cloned(),
                    kind: DenialKind::Caveat,
                    reason: format!("{error}: {}", check.datalog()),
                    ..denial
                },
                None => denial,
            }))
        }
    }
}

/// The checks of the chain that have to be evaluated, with the links that they are in.
fn open<'a>(
    chain: &'a VerifiedChain,
    access: &'a Access,
    now: i64,
) -> impl Iterator<Item = (usize, &'a AdmittedCheck)> {
    let checks = chain
        .links()
        .iter()
        .flat_map(|link| link.caveats.iter().map(|check| (link.index, check)));
    checks.filter(move |(_, check)| applies(check, access.kind) && !check.is_satisfied(access, now))
}

/// For plumbing and list entries a check about something that they do not have is skipped (R-22).
fn applies(check: &AdmittedCheck, kind: AccessKind) -> bool {
    !vocabulary::skips_unsupplied(kind) || check.words().all(|word| vocabulary::supplies(kind, word))
}

/// The first check that ends with an error. The facts are made once for all: they cost more than a check.
fn at_fault<'a>(
    chain: &VerifiedChain,
    access: &Access,
    now: i64,
    checks: &[(usize, &'a AdmittedCheck)],
) -> Option<(usize, &'a AdmittedCheck)> {
    let mut builder = AuthorizerBuilder::new().set_limits(limits());
    for fact in vocabulary::facts(chain, access, now) {
        builder = builder.fact(fact).ok()?;
    }
    let mut authorizer = builder
        .register_extern_funcs(vocabulary::externs(checks.iter().map(|(_, check)| *check)))
        .build_unauthenticated()
        .ok()?;
    let fails = |(_, check): &&(usize, &AdmittedCheck)| {
        check.check().queries.iter().any(|query| {
            let found: Result<Vec<Fact>, _> = authorizer.query_all(query.clone());
            matches!(found, Err(TokenError::Execution(_)))
        })
    };
    checks.iter().find(fails).copied()
}

fn run(
    policy: &BoundaryPolicy,
    chain: &VerifiedChain,
    access: &Access,
    now: i64,
    checks: &[(usize, &AdmittedCheck)],
) -> Result<usize, TokenError> {
    let mut builder = policy.prepared.clone();
    let named =
        |word: &str| policy.names(word) || checks.iter().any(|(_, check)| check.words().any(|w| w == word));
    for fact in vocabulary::facts_of(chain, access, now, named) {
        builder = builder.fact(fact)?;
    }
    for (_, check) in checks {
        builder = builder.check(check.check().clone())?;
    }
    builder
        .register_extern_funcs(vocabulary::externs(checks.iter().map(|(_, check)| *check)))
        .build_unauthenticated()?
        .authorize()
}

fn refused(
    policy: &BoundaryPolicy,
    checks: &[(usize, &AdmittedCheck)],
    matched: Option<MatchedPolicy>,
    failed: &[FailedCheck],
) -> Outcome {
    let failed: Vec<usize> = failed
        .iter()
        .map(|check| match check {
            FailedCheck::Authorizer(check) => usize::try_from(check.check_id).unwrap_or(usize::MAX),
            FailedCheck::Block(_) => usize::MAX,
        })
        .collect();
    let own = policy.checks.len();
    if let Some(first) = failed.iter().find(|i| **i >= own)
        && !rules::CHECKS.holds(false)
    {
        let mut denial = deny(rules::CHECKS, DenialKind::Caveat, "a check of the chain failed");
        if let Some((link, check)) = first.checked_sub(own).and_then(|i| checks.get(i)) {
            denial.link = Some(*link);
            denial.caveat = check.caveat().cloned();
            denial.reason = check.datalog();
        }
        return Outcome::Deny(Box::new(denial));
    }
    if let Some(position) = failed.iter().find_map(|i| policy.checks.get(*i))
        && !rules::POLICY_DENY.holds(false)
    {
        return Outcome::Deny(Box::new(deny(
            rules::POLICY_DENY,
            DenialKind::Policy,
            format!("check at {position}"),
        )));
    }
    match matched {
        Some(MatchedPolicy::Deny(i)) if !rules::POLICY_DENY.holds(false) => {
            let position = policy.policies.get(i).map_or("?", String::as_str);
            Outcome::Deny(Box::new(deny(
                rules::POLICY_DENY,
                DenialKind::Policy,
                format!("deny at {position}"),
            )))
        }
        None if !rules::POLICY_ALLOW.holds(false) => Outcome::Deny(Box::new(deny(
            rules::POLICY_ALLOW,
            DenialKind::Policy,
            "no `allow` applies",
        ))),
        // A refusal whose rule a sabotage build switched off; without that feature none is.
        _ if [rules::CHECKS, rules::POLICY_DENY, rules::POLICY_ALLOW]
            .iter()
            .any(|rule| rule.holds(false)) =>
        {
            Outcome::Allow
        }
        // A refusal of a shape that is not known here is still one.
        _ => Outcome::Deny(Box::new(deny(
            rules::EVALUATION,
            DenialKind::Error,
            "the evaluation refused for an unknown reason",
        ))),
    }
}

#[cfg(test)]
#[path = "boundary_tests.rs"]
mod tests;
