//! The texts that a reader of arguments knows: any of them may be a name that it looks for.

use crate::json::folded;
use biscuit_auth::builder::{MapKey, Op, Term};
use std::collections::HashMap;

/// Texts, by what a reader that ignores case takes them for; `None` for several that are one to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts(HashMap<String, Option<String>>);

impl Texts {
    pub(super) fn insert(&mut self, text: &str) {
        self.insert_folded(text, &folded(text));
    }

    /// Adds a text that is `fold` to such a reader.
    pub(super) fn insert_folded(&mut self, text: &str, fold: &str) {
        match self.0.get_mut(fold) {
            Some(known) if known.as_deref() == Some(text) => {}
            Some(known) => *known = None,
            None => {
                self.0.insert(fold.to_owned(), Some(text.to_owned()));
            }
        }
    }

    /// Adds those of another.
    pub(super) fn extend(&mut self, other: &Self) {
        for (fold, text) in &other.0 {
            match text {
                Some(text) => self.insert_folded(text, fold),
                None => {
                    self.0.insert(fold.clone(), None);
                }
            }
        }
    }

    /// Whether another spelling of `name`, which is `fold` to a reader that ignores case, is among them.
    pub(super) fn has_other(&self, name: &str, fold: &str) -> bool {
        self.0
            .get(fold)
            .is_some_and(|known| known.as_deref() != Some(name))
    }

    /// Adds what stands in a term.
    pub(super) fn add(&mut self, term: &Term) {
        match term {
            Term::Str(text) => self.insert(text),
            Term::Set(terms) => terms.iter().for_each(|term| self.add(term)),
            Term::Array(terms) => terms.iter().for_each(|term| self.add(term)),
            Term::Map(entries) => {
                for (key, value) in entries {
                    if let MapKey::Str(text) = key {
                        self.insert(text);
                    }
                    self.add(value);
                }
            }
            _ => {}
        }
    }

    /// Adds all literals among operations.
    pub(super) fn add_all(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Value(term) => self.add(term),
                Op::Closure(_, body) => self.add_all(body),
                Op::Unary(_) | Op::Binary(_) => {}
            }
        }
    }
}
