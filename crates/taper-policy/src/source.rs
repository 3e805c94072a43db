//! Policy sources: parsing and linting, with every error at its line and column.

use biscuit_auth::builder as token;
use biscuit_parser::builder::{Binary, Check, Expression, Fact, Op, Policy, Predicate, Rule, Unary};
use biscuit_parser::parser::parse_source;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use taper_capability::{ArgumentFlow, ArgumentReads};

/// One policy file: its name, for messages, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// The name as it shall stand in messages.
    pub name: String,
    /// The Datalog.
    pub source: String,
}

/// One mistake in a policy, `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PolicyError {
    /// The file's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// All mistakes of a set of policy files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// A name that no text says cannot be looked for in its other spellings (M-17).
const COMPUTED: &str = "a name in the arguments is put together; write it whole, or state it as a fact: a server \
                        that ignores case would find another spelling of it";

/// Of what is made of a name, no text says how it would come out for the other spellings (M-17).
const MADE_OF_NAMES: &str = "something else is made of the names of the arguments, so that every call with an argument \
                             would be refused: a server that ignores case would find another spelling of them; compare \
                             them as they are, or with a literal part, or name the argument whose members are meant";

/// What a kind of policy may say.
pub(crate) struct Dialect<'a> {
    /// The words that are given: name and arity.
    pub(crate) given: &'a dyn Fn() -> Vec<(&'static str, usize)>,
    /// The heads that mean something to the program: name and arity.
    pub(crate) heads: &'static [(&'static str, usize)],
    /// Whether `allow if`, `deny if` and `check if` are used.
    pub(crate) policies: bool,
}

/// The parsed elements of all files, in the order of the files, converted for evaluation.
#[derive(Default)]
pub(crate) struct Parsed {
    pub(crate) facts: Vec<token::Fact>,
    pub(crate) rules: Vec<token::Rule>,
    /// With the position `file:line`.
    pub(crate) checks: Vec<(String, token::Check)>,
    /// With the position `file:line`.
    pub(crate) policies: Vec<(String, token::Policy)>,
    /// What they read in the arguments of a call.
    pub(crate) reads: ArgumentReads,
}

/// Parses and lints. The answer is everything that is wrong, not only the first.
pub(crate) fn load(files: &[PolicyFile], dialect: &Dialect<'_>) -> Result<Parsed, PolicyErrors> {
    let mut errors = Vec::new();
    let mut parsed = Parsed::default();
    let mut sources = Vec::new();
    for file in files {
        match parse_source(&file.source) {
            Ok(source) => sources.push((file, source)),
            Err(found) => errors.extend(found.iter().map(|error| {
                let message = error
                    .message
                    .clone()
                    .unwrap_or_else(|| "not Datalog: a fact, rule, check or policy ends with `;`".to_owned());
                at(file, error.input, message)
            })),
        }
    }
    let mut words: HashMap<String, usize> = (dialect.given)()
        .into_iter()
        .chain(dialect.heads.iter().copied())
        .map(|(n, a)| (n.to_owned(), a))
        .collect();
    let given: Vec<&str> = (dialect.given)().into_iter().map(|(name, _)| name).collect();
    for (file, source) in &sources {
        let heads = source.facts.iter().map(|(text, fact)| (*text, &fact.predicate));
        for (text, head) in heads.chain(source.rules.iter().map(|(text, rule)| (*text, &rule.head))) {
            if given.contains(&head.name.as_str()) {
                errors.push(at(
                    file,
                    text,
                    format!(
                        "`{}` is given by the request or the token; a policy may not define it",
                        head.name
                    ),
                ));
                continue;
            }
            match words.insert(head.name.clone(), head.terms.len()) {
                Some(arity) if arity != head.terms.len() => {
                    errors.push(at(
                        file,
                        text,
                        format!(
                            "`{}` has {arity} terms elsewhere and {} here",
                            head.name,
                            head.terms.len()
                        ),
                    ));
                }
                _ => {}
            }
        }
    }
    let mut queries: Vec<(&PolicyFile, &str, Vec<token::Rule>)> = Vec::new();
    for (file, source) in sources {
        let mut lint = Lint {
            file,
            words: &words,
            errors: &mut errors,
        };
        if !source.scopes.is_empty() {
            lint.error(&file.source, "`trusting` is not used in policies".to_owned());
        }
        for (text, fact) in source.facts {
            parsed.facts.extend(lint.fact(text, fact));
        }
        for (text, rule) in source.rules {
            lint.rule(text, &rule);
            let rule = token::Rule::from(rule);
            queries.push((file, text, vec![rule.clone()]));
            parsed.rules.push(rule);
        }
        for (text, check) in source.checks {
            lint.check(text, &check, dialect);
            let check = token::Check::from(check);
            queries.push((file, text, check.queries.clone()));
            parsed.checks.push((position(file, text), check));
        }
        for (text, policy) in source.policies {
            lint.policy(text, &policy, dialect);
            let policy = token::Policy::from(policy);
            queries.push((file, text, policy.queries.clone()));
            parsed.policies.push((position(file, text), policy));
        }
    }
    if given.contains(&"args") {
        let flow = ArgumentFlow::new(&parsed.facts, &parsed.rules);
        for (file, text, queries) in &queries {
            if queries.iter().any(|query| flow.has_computed_name(query)) {
                errors.push(at(file, text, COMPUTED.to_owned()));
            }
            if queries.iter().any(|query| flow.refuses_all(query)) {
                errors.push(at(file, text, MADE_OF_NAMES.to_owned()));
            }
        }
        let all = queries.iter().flat_map(|(_, _, queries)| queries);
        parsed.reads = ArgumentReads::of(all, &parsed.facts, &flow);
    }
    if errors.is_empty() {
        Ok(parsed)
    } else {
        Err(PolicyErrors(errors))
    }
}

/// SHA-256 over the files' texts in hexadecimal: the version of a policy in the audit log.
pub(crate) fn digest(files: &[PolicyFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.source.len().to_be_bytes());
        hash.update(&file.source);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Lint<'a> {
    file: &'a PolicyFile,
    words: &'a HashMap<String, usize>,
    errors: &'a mut Vec<PolicyError>,
}

impl Lint<'_> {
    fn error(&mut self, text: &str, message: String) {
        self.errors.push(at(self.file, text, message));
    }

    fn fact(&mut self, text: &str, fact: Fact) -> Option<token::Fact> {
        let variable =
            |term: &biscuit_parser::builder::Term| matches!(term, biscuit_parser::builder::Term::Variable(_));
        if fact.predicate.terms.iter().any(variable) {
            self.error(text, "a fact has no variables".to_owned());
            return None;
        }
        Some(fact.into())
    }

    fn rule(&mut self, text: &str, rule: &Rule) {
        rule.body
            .iter()
            .for_each(|predicate| self.predicate(text, predicate));
        rule.expressions
            .iter()
            .for_each(|expression| self.expression(text, expression));
        if !rule.scopes.is_empty() {
            self.error(text, "`trusting` is not used in policies".to_owned());
        }
        if let Err(variables) = rule.validate_variables() {
            self.error(
                text,
                format!("a variable of the head is not bound in the body: {variables}"),
            );
        }
    }

    fn check(&mut self, text: &str, check: &Check, dialect: &Dialect<'_>) {
        if !dialect.policies {
            self.error(
                text,
                "a grant policy has rules only; checks belong to the boundary".to_owned(),
            );
        }
        check.queries.iter().for_each(|query| self.rule(text, query));
    }

    fn policy(&mut self, text: &str, policy: &Policy, dialect: &Dialect<'_>) {
        if !dialect.policies {
            self.error(text, "a grant policy derives `grant_…` and `deny(reason)`; `allow` and `deny` belong to the boundary".to_owned());
        }
        policy.queries.iter().for_each(|query| self.rule(text, query));
    }

    /// A word that nobody gives would silently never match, and a `deny` on it never deny.
    fn predicate(&mut self, text: &str, predicate: &Predicate) {
        match self.words.get(&predicate.name) {
            Some(arity) if *arity == predicate.terms.len() => {}
            Some(arity) => self.error(
                text,
                format!(
                    "`{}` has {arity} terms, not {}",
                    predicate.name,
                    predicate.terms.len()
                ),
            ),
            None => {
                let near = self.words.keys().max_by(|a, b| {
                    let near = |word: &str| strsim::jaro_winkler(word, &predicate.name);
                    near(a).total_cmp(&near(b)).then_with(|| b.cmp(a))
                });
                let hint = match near {
                    Some(word) if strsim::jaro_winkler(word, &predicate.name) > 0.75 => {
                        format!(", did you mean `{word}`?")
                    }
                    _ => String::new(),
                };
                self.error(
                    text,
                    format!("nothing gives or derives `{}`{hint}", predicate.name),
                );
            }
        }
    }

    fn expression(&mut self, text: &str, expression: &Expression) {
        expression.ops.iter().for_each(|op| self.operation(text, op));
    }

    fn operation(&mut self, text: &str, op: &Op) {
        match op {
            Op::Closure(_, ops) => ops.iter().for_each(|op| self.operation(text, op)),
            Op::Binary(Binary::TryOr) => {
                self.error(text, "`.try_or()` hides errors; an error must deny".to_owned())
            }
            Op::Binary(Binary::HeterogeneousEqual) => {
                self.error(
                    text,
                    "`==` compares values of different types; use `===`".to_owned(),
                );
            }
            Op::Binary(Binary::HeterogeneousNotEqual) => {
                self.error(
                    text,
                    "`!=` is true for values of different types and for missing ones; use `!==`".to_owned(),
                );
            }
            Op::Binary(Binary::Ffi(name)) | Op::Unary(Unary::Ffi(name)) => {
                self.error(text, format!("there is no extern function `{name}`"));
            }
            _ => {}
        }
    }
}

/// The error at the place of `text`, which is a part of the file's source.
fn at(file: &PolicyFile, text: &str, message: String) -> PolicyError {
    let offset = (text.as_ptr() as usize)
        .saturating_sub(file.source.as_ptr() as usize)
        .min(file.source.len());
    let before = file.source.get(..offset).unwrap_or_default();
    let blank = text.len() - text.trim_start().len();
    let before = file.source.get(..offset + blank).unwrap_or(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    PolicyError {
        file: file.name.clone(),
        line,
        column,
        message,
    }
}

fn position(file: &PolicyFile, text: &str) -> String {
    let PolicyError { file, line, .. } = at(file, text, String::new());
    format!("{file}:{line}")
}
