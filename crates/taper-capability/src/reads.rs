//! What checks, policies and templates read in the arguments of a call, by the names on the way to it: so
//! that a call can be refused in which a server that ignores case would find something else there (M-17).

mod flow;
mod scan;
#[cfg(test)]
mod tests;

pub use flow::ArgumentFlow;

use crate::json::{DOT_ABOVE, Value, folded};
use biscuit_auth::builder::{Fact, MapKey, Op, Rule, Term};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

/// The way to something that is read in the arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArgumentPath {
    /// Names of members, or indices of elements, from the arguments down.
    way: Vec<String>,
    end: End,
}

/// What is read there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// What the way leads to.
    Here,
    /// Members of this name, anywhere below it: of which element is not known before.
    Below(String),
    /// How many members it has; with `below`, so have the objects below it.
    Number { below: bool },
    /// Members below it, by names that are not known before: any text that the reader knows.
    Any,
    /// The same, by names that the arguments themselves may say.
    Own,
    /// Members below it, by this part of their names.
    Part(String),
    /// Members below it, by their names in a way that no comparison of names stands for.
    Otherwise,
}

/// Says of a name whether another spelling of it is among the texts that a reader knows, with `true` also among
/// those of the arguments.
type IsKnown<'a> = &'a dyn Fn(&str, bool) -> bool;

impl ArgumentPath {
    /// The way that member names lead.
    #[must_use]
    pub fn of_members(names: &[String]) -> Self {
        Self {
            way: names.to_vec(),
            end: End::Here,
        }
    }

    /// The way that an RFC 6901 pointer leads, whose tokens are escaped as they should be.
    #[must_use]
    pub fn of_pointer(pointer: &str) -> Self {
        let tokens = pointer.split('/').skip(1);
        Self {
            way: tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
            end: End::Here,
        }
    }

    /// Whether a reader that ignores case could find something else in `arguments` on this way: a member
    /// there has another spelling of the name that is read.
    #[must_use]
    pub fn is_ambiguous(&self, arguments: &Value) -> bool {
        self.differs(arguments, &|_, _| false)
    }

    fn differs(&self, arguments: &Value, is_known: IsKnown<'_>) -> bool {
        let mut value = arguments;
        for name in &self.way {
            if value.has_other_spelling(name) {
                return true;
            }
            let next = match value {
                Value::Array(elements) => name.parse().ok().and_then(|n: usize| elements.get(n)),
                value => value.get(name),
            };
            let Some(next) = next else { return false };
            value = next;
        }
        self.end.differs(value, is_known)
    }

    /// Whether it depends on texts that the reader knows.
    fn is_open(&self) -> bool {
        matches!(self.end, End::Any | End::Own)
    }
}

impl End {
    fn differs(&self, value: &Value, is_known: IsKnown<'_>) -> bool {
        let is_read = |own: bool| {
            value.any_object(&|object: &Value| {
                object.has_twins() || names(object).any(|name| is_known(name, own))
            })
        };
        match self {
            Self::Here => false,
            Self::Below(name) => value.any_object(&|object| object.has_other_spelling(name)),
            Self::Number { below: false } => value.has_twins(),
            Self::Number { below: true } => value.has_twins_within(),
            Self::Any => is_read(false),
            Self::Own => is_read(true),
            Self::Part(part) => {
                let fold = folded(part);
                value.any_object(&|object| names(object).any(|name| has_other_part(name, part, &fold)))
            }
            Self::Otherwise => value.any_object(&|object| names(object).next().is_some()),
        }
    }
}

fn names(object: &Value) -> impl Iterator<Item = &str> {
    let members = object.as_object().unwrap_or_default();
    members.iter().map(|(name, _)| name.as_str())
}

/// Whether to a reader that ignores case `part`, which is `fold` to it, stands in `name` where it does not stand
/// as it is. Each place of the one is a place of the other, unless a letter counts for nothing.
fn has_other_part(name: &str, part: &str, fold: &str) -> bool {
    let places = |text: &str, part: &str| {
        let from = |(i, _): &(usize, char)| text.get(*i..).is_some_and(|rest| rest.starts_with(part));
        text.char_indices().filter(from).count()
    };
    name.contains(DOT_ABOVE) || places(&folded(name), fold) != places(name, part)
}

/// What checks or policies read in the arguments of a call, and the texts that they know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgumentReads {
    paths: BTreeSet<ArgumentPath>,
    texts: Texts,
}

impl ArgumentReads {
    /// What `queries` read, which know each other's texts and those of `facts`.
    #[must_use]
    pub fn of<'a>(
        queries: impl IntoIterator<Item = &'a Rule>,
        facts: impl IntoIterator<Item = &'a Fact>,
        flow: &ArgumentFlow,
    ) -> Self {
        let mut reads = Self::default();
        let queries: Vec<&Rule> = queries.into_iter().collect();
        for query in &queries {
            reads.paths.append(&mut scan::query(query, flow).paths);
        }
        if !reads.is_open() {
            return reads;
        }
        for query in queries {
            for predicate in query.body.iter().chain([&query.head]) {
                predicate.terms.iter().for_each(|term| reads.texts.add(term));
            }
            for expression in &query.expressions {
                reads.texts.add_all(&expression.ops);
            }
        }
        for fact in facts {
            fact.predicate.terms.iter().for_each(|term| reads.texts.add(term));
        }
        reads
    }

    /// Whether a reader that ignores case could find something else in `arguments` where these or `others` look.
    /// `given` are the texts of the facts that stand beside the arguments; it is asked for them only if one of
    /// them may be the name of what is read.
    #[must_use]
    pub fn are_ambiguous<'a>(
        &'a self,
        others: impl IntoIterator<Item = &'a Self>,
        arguments: &Value,
        given: impl FnOnce() -> Vec<String>,
    ) -> bool {
        // What several look at is looked at once.
        let mut paths: BTreeSet<&ArgumentPath> = self.paths.iter().collect();
        let mut beside = Texts::default();
        for other in others {
            paths.extend(&other.paths);
            beside.extend(&other.texts);
        }
        if paths.iter().any(|path| path.is_open()) {
            given().iter().for_each(|text| beside.insert(text));
        }
        let own = OnceCell::new();
        let is_known = |name: &str, with_own: bool| {
            let fold = folded(name);
            let of_arguments = || {
                let own: &Texts = own.get_or_init(|| Texts::of_value(arguments));
                own.has_other(name, &fold)
            };
            self.texts.has_other(name, &fold) || beside.has_other(name, &fold) || (with_own && of_arguments())
        };
        paths.iter().any(|path| path.differs(arguments, &is_known))
    }

    fn is_open(&self) -> bool {
        self.paths.iter().any(ArgumentPath::is_open)
    }
}

/// Texts, by what a reader that ignores case takes them for; `None` for several that are one to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts(HashMap<String, Option<String>>);

impl Texts {
    /// The names and texts in a value.
    fn of_value(value: &Value) -> Self {
        let mut texts = Self::default();
        texts.add_value(value);
        texts
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.insert(text),
            Value::Array(elements) => elements.iter().for_each(|element| self.add_value(element)),
            Value::Object(members) => {
                for (name, value) in members {
                    self.insert(name);
                    self.add_value(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn insert(&mut self, text: &str) {
        let known = self
            .0
            .entry(folded(text))
            .or_insert_with(|| Some(text.to_owned()));
        if known.as_deref() != Some(text) {
            *known = None;
        }
    }

    /// Adds those of another.
    fn extend(&mut self, other: &Self) {
        for (fold, text) in &other.0 {
            match text {
                Some(text) => self.insert(text),
                None => {
                    self.0.insert(fold.clone(), None);
                }
            }
        }
    }

    /// Whether another spelling of `name`, which is `fold` to a reader that ignores case, is among them.
    fn has_other(&self, name: &str, fold: &str) -> bool {
        self.0
            .get(fold)
            .is_some_and(|known| known.as_deref() != Some(name))
    }

    /// Adds what stands in a term.
    fn add(&mut self, term: &Term) {
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
    fn add_all(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Value(term) => self.add(term),
                Op::Closure(_, body) => self.add_all(body),
                Op::Unary(_) | Op::Binary(_) => {}
            }
        }
    }
}
