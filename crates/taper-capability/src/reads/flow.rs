//! Which terms of which facts may be the arguments: rules hand them on under other words.

use super::scan;
use crate::vocabulary;
use biscuit_auth::builder::{Fact, Rule, Term};
use std::collections::{BTreeMap, HashMap};

/// What may stand in each term of the facts that rules derive and files state.
#[derive(Clone, Debug, Default)]
pub struct ArgumentFlow(HashMap<String, Vec<Kinds>>);

/// What a value may be; numbers, dates and the like have no spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    /// The arguments.
    pub(super) arguments: bool,
    /// A text.
    pub(super) texts: bool,
    /// An array, a set or a map that is not of the arguments.
    pub(super) parts: bool,
}

impl Kinds {
    fn of(term: &Term) -> Self {
        Self {
            arguments: false,
            texts: matches!(term, Term::Str(_)),
            parts: matches!(term, Term::Set(_) | Term::Array(_) | Term::Map(_)),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            arguments: self.arguments || other.arguments,
            texts: self.texts || other.texts,
            parts: self.parts || other.parts,
        }
    }
}

impl ArgumentFlow {
    /// Follows the arguments from fact to fact.
    #[must_use]
    pub fn new<'a>(facts: impl IntoIterator<Item = &'a Fact>, rules: &[Rule]) -> Self {
        let mut flow = Self::default();
        for fact in facts {
            let kinds = fact.predicate.terms.iter().map(Kinds::of).collect();
            flow.add(&fact.predicate.name, kinds);
        }
        for rule in rules {
            flow.add(&rule.head.name, vec![Kinds::default(); rule.head.terms.len()]);
        }
        // Each round that does not end it adds a kind to a term, of which there are only so many.
        loop {
            let mut changed = false;
            for rule in rules {
                let bound = flow.variables(rule);
                let kinds = |term: &Term| match term {
                    Term::Variable(name) => bound.get(name.as_str()).copied().unwrap_or_default(),
                    literal => Kinds::of(literal),
                };
                changed |= flow.add(&rule.head.name, rule.head.terms.iter().map(kinds).collect());
            }
            if !changed {
                return flow;
            }
        }
    }

    /// Whether a query reads a member of the arguments by a name that it puts together: no text says which.
    #[must_use]
    pub fn has_computed_name(&self, query: &Rule) -> bool {
        scan::query(query, self).computed
    }

    /// What the variables of a query may be.
    pub(super) fn variables<'a>(&self, query: &'a Rule) -> BTreeMap<&'a str, Kinds> {
        let mut bound: BTreeMap<&str, Kinds> = BTreeMap::new();
        for predicate in &query.body {
            for (index, term) in predicate.terms.iter().enumerate() {
                if let Term::Variable(name) = term {
                    let kinds = bound.entry(name).or_default();
                    *kinds = kinds.or(self.of(&predicate.name, index));
                }
            }
        }
        bound
    }

    /// What a term of a predicate may be.
    pub(super) fn of(&self, predicate: &str, index: usize) -> Kinds {
        if vocabulary::word(predicate).is_some() {
            let arguments = predicate == "args";
            return Kinds {
                arguments,
                texts: !arguments,
                parts: false,
            };
        }
        let unknown = Kinds {
            arguments: false,
            texts: true,
            parts: true,
        };
        let terms = self.0.get(predicate);
        terms
            .and_then(|terms| terms.get(index))
            .copied()
            .unwrap_or(unknown)
    }

    /// Adds kinds to the terms of a predicate, and says whether they are new.
    fn add(&mut self, predicate: &str, kinds: Vec<Kinds>) -> bool {
        let known = self.0.entry(predicate.to_owned()).or_default();
        if known.len() < kinds.len() {
            known.resize(kinds.len(), Kinds::default());
        }
        let mut changed = false;
        for (known, kinds) in known.iter_mut().zip(kinds) {
            let all = known.or(kinds);
            changed |= all != *known;
            *known = all;
        }
        changed
    }
}
