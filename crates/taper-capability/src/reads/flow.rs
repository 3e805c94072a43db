//! Which terms of which facts may be the arguments: rules hand them on under other words.

use super::{ArgumentPath, scan};
use crate::vocabulary;
use biscuit_auth::builder::{Fact, Rule, Term};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What may stand in each term of the facts that rules derive and files state.
#[derive(Clone, Debug, Default)]
pub struct ArgumentFlow(HashMap<String, Vec<Kinds>>);

/// What a value may be; numbers, dates and the like have no spelling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    /// The arguments.
    pub(super) arguments: bool,
    texts: bool,
    /// What stands in it, if it may be an array or a set that is not of the arguments.
    lists: Option<Arc<Kinds>>,
    /// What its values are, if it may be a map that is not of the arguments.
    maps: Option<Arc<Kinds>>,
    /// What the value is, if it may be an entry of such a map: its name and that.
    entries: Option<Arc<Kinds>>,
    /// Anything else that is not of the arguments.
    anything: bool,
}

impl Kinds {
    /// A literal.
    pub(super) fn of(term: &Term) -> Self {
        let all = |terms: &mut dyn Iterator<Item = &Term>| {
            let kinds = terms.fold(Self::default(), |kinds, term| kinds.or(Self::of(term)));
            Some(Arc::new(kinds))
        };
        match term {
            Term::Str(_) => Self::text(),
            Term::Set(terms) => Self {
                lists: all(&mut terms.iter()),
                ..Self::default()
            },
            Term::Array(terms) => Self {
                lists: all(&mut terms.iter()),
                ..Self::default()
            },
            Term::Map(entries) => Self {
                maps: all(&mut entries.values()),
                ..Self::default()
            },
            Term::Variable(_) | Term::Parameter(_) => Self::anything(),
            Term::Integer(_) | Term::Date(_) | Term::Bytes(_) | Term::Bool(_) | Term::Null => Self::default(),
        }
    }

    pub(super) fn text() -> Self {
        Self {
            texts: true,
            ..Self::default()
        }
    }

    pub(super) fn anything() -> Self {
        Self {
            anything: true,
            ..Self::default()
        }
    }

    /// Whether it may be a text.
    pub(super) fn texts(&self) -> bool {
        self.texts || self.anything
    }

    /// Whether it may be an array, a set or a map.
    pub(super) fn parts(&self) -> bool {
        self.lists.is_some() || self.maps.is_some() || self.entries.is_some() || self.anything
    }

    /// What `.get` may give of it, with `index` if that is known.
    pub(super) fn member(&self, index: Option<i64>) -> Self {
        let entry = self.entries.as_deref().map(|value| match index {
            Some(0) => Self::text(),
            Some(_) => value.clone(),
            None => value.clone().or(Self::text()),
        });
        let parts = [
            self.lists.as_deref().cloned(),
            self.maps.as_deref().cloned(),
            entry,
        ];
        self.with(parts)
    }

    /// What a function is called with that goes through it.
    pub(super) fn element(&self) -> Self {
        let entry = self.maps.clone().map(|value| Self {
            entries: Some(value),
            ..Self::default()
        });
        let of_entry = self
            .entries
            .as_deref()
            .map(|value| value.clone().or(Self::text()));
        self.with([self.lists.as_deref().cloned(), entry, of_entry])
    }

    fn with(&self, parts: [Option<Self>; 3]) -> Self {
        let from = Self {
            anything: self.anything,
            ..Self::default()
        };
        parts.into_iter().flatten().fold(from, Self::or)
    }

    pub(super) fn or(self, other: Self) -> Self {
        let both = |a: Option<Arc<Self>>, b: Option<Arc<Self>>| match (a, b) {
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(a), Some(b)) => Some(Arc::new(a.as_ref().clone().or(b.as_ref().clone()))),
            (a, b) => a.or(b),
        };
        Self {
            arguments: self.arguments || other.arguments,
            texts: self.texts || other.texts,
            lists: both(self.lists, other.lists),
            maps: both(self.maps, other.maps),
            entries: both(self.entries, other.entries),
            anything: self.anything || other.anything,
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
                    Term::Variable(name) => bound.get(name.as_str()).cloned().unwrap_or_default(),
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

    /// Whether a query makes something else of what may be a name of the arguments, wherever one stands: each call
    /// that has an argument would be refused for it.
    #[must_use]
    pub fn refuses_all(&self, query: &Rule) -> bool {
        let found = scan::query(query, self);
        !found.computed && found.paths.iter().any(ArgumentPath::is_any_name)
    }

    /// What the variables of a query may be.
    pub(super) fn variables<'a>(&self, query: &'a Rule) -> BTreeMap<&'a str, Kinds> {
        let mut bound: BTreeMap<&str, Kinds> = BTreeMap::new();
        for predicate in &query.body {
            for (index, term) in predicate.terms.iter().enumerate() {
                if let Term::Variable(name) = term {
                    let kinds = bound.entry(name).or_default();
                    *kinds = std::mem::take(kinds).or(self.of(&predicate.name, index));
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
                ..Kinds::default()
            };
        }
        let terms = self.0.get(predicate);
        terms
            .and_then(|terms| terms.get(index))
            .cloned()
            .unwrap_or_else(Kinds::anything)
    }

    /// Adds kinds to the terms of a predicate, and says whether they are new.
    fn add(&mut self, predicate: &str, kinds: Vec<Kinds>) -> bool {
        let known = self.0.entry(predicate.to_owned()).or_default();
        if known.len() < kinds.len() {
            known.resize(kinds.len(), Kinds::default());
        }
        let mut changed = false;
        for (known, kinds) in known.iter_mut().zip(kinds) {
            let all = known.clone().or(kinds);
            changed |= all != *known;
            *known = all;
        }
        changed
    }
}
