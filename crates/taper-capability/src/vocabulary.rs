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
    facts_of(chain, access, now, |_| true)
}

/// Those of them whose words are `wanted`: a fact that nothing names changes no answer.
#[must_use]
pub fn facts_of(
    chain: &VerifiedChain,
    access: &Access,
    now: i64,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Fact> {
    let mut facts = Facts {
        wanted: &wanted,
        all: Vec::new(),
    };
    of_grant(&mut facts, chain);
    of_request(&mut facts, chain, access, now);
    facts.all
}

/// The texts in those facts of an access whose words are `wanted`, but for what is in its arguments.
#[must_use]
pub fn texts_of(
    chain: &VerifiedChain,
    access: &Access,
    now: i64,
    wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let facts = facts_of(chain, access, now, |name| name != "args" && wanted(name));
    let terms = facts.into_iter().flat_map(|fact| fact.predicate.terms);
    let texts = terms.filter_map(|term| match term {
        Term::Str(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

/// What is asked for, and what was found of it.
struct Facts<'a> {
    wanted: &'a dyn Fn(&str) -> bool,
    all: Vec<Fact>,
}

impl Facts<'_> {
    fn wants(&self, name: &str) -> bool {
        (self.wanted)(name)
    }

    fn add(&mut self, name: &str, terms: Vec<Term>) {
        self.all.push(Fact::new(name.to_owned(), terms));
    }

    fn text(&mut self, name: &str, value: &str) {
        if self.wants(name) {
            self.add(name, vec![text(value)]);
        }
    }

    fn texts(&mut self, name: &str, first: &str, second: &str) {
        if self.wants(name) {
            self.add(name, vec![text(first), text(second)]);
        }
    }

    fn value(&mut self, name: &str, value: Term) {
        if self.wants(name) {
            self.add(name, vec![value]);
        }
    }
}

fn text(value: &str) -> Term {
    Term::Str(value.to_owned())
}

/// A time as a term has it; what lies before 1970 counts as 1970.
pub(crate) fn date(now: i64) -> u64 {
    u64::try_from(now).unwrap_or(0)
}

fn of_request(facts: &mut Facts<'_>, chain: &VerifiedChain, access: &Access, now: i64) {
    facts.value("time", Term::Date(date(now)));
    facts.value("hour", Term::Integer(now.rem_euclid(86_400) / 3600));
    // 1970-01-01 was a Thursday; Monday is 1, Sunday 7 (ISO 8601).
    let weekday = (now.div_euclid(86_400) + 3).rem_euclid(7) + 1;
    facts.value("weekday", Term::Integer(weekday));
    facts.text("audience", &access.audience);
    facts.text("server", &access.server);
    facts.text("method", &access.method);
    facts.value("depth", Term::Integer(i64::from(chain.depth())));
    if facts.wants("hop") {
        for (n, link) in chain.links().iter().enumerate() {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            let holder = text(&link.holder.thumbprint().to_string());
            facts.add("hop", vec![Term::Integer(n), holder]);
        }
    }
    if supplies(access.kind, "body_bound") {
        facts.value("body_bound", Term::Bool(access.body_bound));
    }
    if supplies(access.kind, "calls") && facts.wants("calls") {
        for (counter, n) in &access.calls {
            facts.add("calls", vec![text(counter), Term::Integer(*n)]);
        }
    }
    if let Some(ip) = access.client_ip.filter(|_| facts.wants("client_ip")) {
        facts.text("client_ip", &ip.to_canonical().to_string());
    }
    if let Some(tool) = access.tool.as_deref().filter(|_| supplies(access.kind, "tool")) {
        facts.text("tool", tool);
    }
    if let Some(said) = access
        .tool_facts
        .as_ref()
        .filter(|_| supplies(access.kind, "tool_hint"))
    {
        if facts.wants("tool_hint") {
            for (hint, value) in said.hints.iter().flat_map(ToolHints::named) {
                facts.add("tool_hint", vec![text(hint), Term::Bool(value)]);
            }
        }
        if let Some(digest) = &said.digest {
            facts.text("tool_digest", digest);
        }
    }
    if supplies(access.kind, "args") {
        if facts.wants("args") {
            let empty = crate::json::Value::Object(Vec::new());
            facts.add("args", vec![term(access.arguments.as_ref().unwrap_or(&empty))]);
        }
        for (kind, value) in &access.resources {
            facts.texts("resource", kind, value);
        }
    }
    if let Some(uri) = access.uri.as_deref().filter(|_| supplies(access.kind, "uri")) {
        facts.text("uri", uri);
    }
    if let Some(prompt) = access
        .prompt
        .as_deref()
        .filter(|_| supplies(access.kind, "prompt"))
    {
        facts.text("prompt", prompt);
    }
}

fn of_grant(facts: &mut Facts<'_>, chain: &VerifiedChain) {
    facts.value("taper", Term::Integer(1));
    facts.text("issuer", chain.issuer());
    facts.text("grant", chain.grant_id());
    facts.texts("subject", &chain.subject().iss, &chain.subject().sub);
    facts.text("client", chain.client());
    if let Some(actor) = chain.actor() {
        facts.texts("actor", &actor.iss, &actor.sub);
    }
    for audience in chain.audiences() {
        facts.text("for_audience", audience);
    }
    for (name, value) in chain.claims() {
        facts.texts("claim", name, value);
    }
    for right in chain.rights() {
        match right {
            Right::Tool { server, tool } => facts.texts("right", server, tool),
            Right::AnyTool { server } => facts.text("right_any_tool", server),
            Right::Resource { server, uri_prefix } => facts.texts("right_resource", server, uri_prefix),
            Right::Prompt { server, name } => facts.texts("right_prompt", server, name),
        }
    }
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
