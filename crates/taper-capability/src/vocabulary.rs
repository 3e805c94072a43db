//! The words that checks and policies may use, and the facts that stand for them (`spec/vocabulary.md`).
//!
//! Values enter as terms; Datalog text is never built by formatting.

use crate::chain::VerifiedChain;
use crate::grant::Right;
use crate::terms::term;
use crate::{Access, AccessKind, AdmittedCheck, ToolHints, functions};
use biscuit_auth::builder::{Fact, Term};
use biscuit_auth::datalog::ExternFunc;
use std::collections::HashMap;

/// One predicate of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its name.
    pub name: &'static str,
    /// How many terms it has.
    pub arity: usize,
    /// Where its facts come from.
    pub origin: Origin,
}

/// Where the facts of a word come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request, as the boundary read it.
    Request,
    /// Block 0.
    Grant,
}

const fn request(name: &'static str, arity: usize) -> Word {
    Word {
        name,
        arity,
        origin: Origin::Request,
    }
}

const fn grant(name: &'static str, arity: usize) -> Word {
    Word {
        name,
        arity,
        origin: Origin::Grant,
    }
}

/// Every word that a check may use. `holder` and `max_depth` are not among them: later blocks have
/// facts of those names, and a check must read the same whoever evaluates it.
pub const WORDS: [Word; 30] = [
    request("time", 1),
    request("audience", 1),
    request("server", 1),
    request("method", 1),
    request("tool", 1),
    request("args", 1),
    request("resource", 2),
    request("uri", 1),
    request("prompt", 1),
    request("depth", 1),
    request("hop", 2),
    request("calls", 2),
    request("tool_hint", 2),
    request("tool_digest", 1),
    request("body_bound", 1),
    request("client_ip", 1),
    request("hour", 1),
    request("weekday", 1),
    grant("taper", 1),
    grant("issuer", 1),
    grant("grant", 1),
    grant("subject", 2),
    grant("client", 1),
    grant("actor", 2),
    grant("for_audience", 1),
    grant("right", 2),
    grant("right_any_tool", 1),
    grant("right_resource", 2),
    grant("right_prompt", 2),
    grant("claim", 2),
];

/// The word of a name.
#[must_use]
pub fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name == name)
}

/// Whether one access may bring several facts of the word `name`.
#[must_use]
pub(crate) fn is_multi_valued(name: &str) -> bool {
    matches!(
        name,
        "resource"
            | "hop"
            | "calls"
            | "tool_hint"
            | "claim"
            | "for_audience"
            | "right"
            | "right_any_tool"
            | "right_resource"
            | "right_prompt"
    )
}

/// Whether an access of this kind supplies facts of the word `name`. Facts of block 0 and those
/// about the request as a whole are always there.
#[must_use]
pub fn supplies(kind: AccessKind, name: &str) -> bool {
    use AccessKind as K;
    match name {
        "tool" | "tool_hint" | "tool_digest" => matches!(kind, K::ToolCall | K::ListEntry),
        "args" | "resource" => kind == K::ToolCall,
        "uri" => matches!(kind, K::ResourceRead | K::Completion | K::ListEntry),
        "prompt" => matches!(kind, K::PromptGet | K::Completion | K::ListEntry),
        "calls" => !skips_unsupplied(kind),
        "body_bound" => kind != K::ListEntry,
        _ => word(name).is_some(),
    }
}

/// Whether a check that names a word which this kind does not supply is skipped. Otherwise it runs
/// and, having no fact to match, denies.
#[must_use]
pub fn skips_unsupplied(kind: AccessKind) -> bool {
    matches!(kind, AccessKind::Plumbing | AccessKind::ListEntry)
}

/// The extern functions for one evaluation of these checks. Literals that stand in them were read
/// when they were admitted; a policy may call the same functions.
#[must_use]
pub fn externs<'a>(checks: impl IntoIterator<Item = &'a AdmittedCheck>) -> HashMap<String, ExternFunc> {
    let calls = checks.into_iter().flat_map(AdmittedCheck::calls).cloned();
    functions::externs(calls.collect())
}

/// The facts of one access under one chain at `now`.
#[must_use]
pub fn facts(chain: &VerifiedChain, access: &Access, now: i64) -> Vec<Fact> {
    let mut facts = grant_facts(chain);
    let mut add = |name: &str, terms: Vec<Term>| facts.push(Fact::new(name.to_owned(), terms));
    let text = |s: &str| Term::Str(s.to_owned());
    add("time", vec![Term::Date(u64::try_from(now).unwrap_or(0))]);
    add("hour", vec![Term::Integer(now.rem_euclid(86_400) / 3600)]);
    // 1970-01-01 was a Thursday; Monday is 1, Sunday 7 (ISO 8601).
    add(
        "weekday",
        vec![Term::Integer((now.div_euclid(86_400) + 3).rem_euclid(7) + 1)],
    );
    add("audience", vec![text(&access.audience)]);
    add("server", vec![text(&access.server)]);
    add("method", vec![text(&access.method)]);
    add("depth", vec![Term::Integer(i64::from(chain.depth()))]);
    for (n, link) in chain.links().iter().enumerate() {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        add(
            "hop",
            vec![Term::Integer(n), text(&link.holder.thumbprint().to_string())],
        );
    }
    if supplies(access.kind, "body_bound") {
        add("body_bound", vec![Term::Bool(access.body_bound)]);
    }
    if supplies(access.kind, "calls") {
        for (counter, n) in &access.calls {
            add("calls", vec![text(counter), Term::Integer(*n)]);
        }
    }
    if let Some(ip) = access.client_ip {
        add("client_ip", vec![text(&ip.to_canonical().to_string())]);
    }
    if let Some(tool) = access.tool.as_deref().filter(|_| supplies(access.kind, "tool")) {
        add("tool", vec![text(tool)]);
    }
    if let Some(facts) = access
        .tool_facts
        .as_ref()
        .filter(|_| supplies(access.kind, "tool_hint"))
    {
        for (hint, value) in facts.hints.iter().flat_map(ToolHints::named) {
            add("tool_hint", vec![text(hint), Term::Bool(value)]);
        }
        if let Some(digest) = &facts.digest {
            add("tool_digest", vec![text(digest)]);
        }
    }
    if supplies(access.kind, "args") {
        let empty = crate::json::Value::Object(Vec::new());
        add("args", vec![term(access.arguments.as_ref().unwrap_or(&empty))]);
        for (kind, value) in &access.resources {
            add("resource", vec![text(kind), text(value)]);
        }
    }
    if let Some(uri) = access.uri.as_deref().filter(|_| supplies(access.kind, "uri")) {
        add("uri", vec![text(uri)]);
    }
    if let Some(prompt) = access
        .prompt
        .as_deref()
        .filter(|_| supplies(access.kind, "prompt"))
    {
        add("prompt", vec![text(prompt)]);
    }
    facts
}

fn grant_facts(chain: &VerifiedChain) -> Vec<Fact> {
    let text = |s: &str| Term::Str(s.to_owned());
    let mut facts = Vec::with_capacity(32);
    let mut add = |name: &str, terms: Vec<Term>| facts.push(Fact::new(name.to_owned(), terms));
    add("taper", vec![Term::Integer(1)]);
    add("issuer", vec![text(chain.issuer())]);
    add("grant", vec![text(chain.grant_id())]);
    add(
        "subject",
        vec![text(&chain.subject().iss), text(&chain.subject().sub)],
    );
    add("client", vec![text(chain.client())]);
    if let Some(actor) = chain.actor() {
        add("actor", vec![text(&actor.iss), text(&actor.sub)]);
    }
    for audience in chain.audiences() {
        add("for_audience", vec![text(audience)]);
    }
    for (name, value) in chain.claims() {
        add("claim", vec![text(name), text(value)]);
    }
    for right in chain.rights() {
        match right {
            Right::Tool { server, tool } => add("right", vec![text(server), text(tool)]),
            Right::AnyTool { server } => add("right_any_tool", vec![text(server)]),
            Right::Resource { server, uri_prefix } => {
                add("right_resource", vec![text(server), text(uri_prefix)])
            }
            Right::Prompt { server, name } => add("right_prompt", vec![text(server), text(name)]),
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_kinds_supply_only_words() {
        for (i, a) in WORDS.iter().enumerate() {
            assert!(WORDS.iter().skip(i + 1).all(|b| b.name != a.name), "{}", a.name);
        }
        assert!(!supplies(AccessKind::ToolCall, "holder"));
        assert!(supplies(AccessKind::ToolCall, "args") && !supplies(AccessKind::ListEntry, "args"));
    }

    #[test]
    fn weekdays_are_iso() {
        let weekday = |unix: i64| (unix.div_euclid(86_400) + 3).rem_euclid(7) + 1;
        assert_eq!(weekday(0), 4);
        assert_eq!(weekday(1_795_219_200), 6, "2026-11-21 is a Saturday");
        assert_eq!(weekday(-86_400), 3);
    }
}
