//! What checks, policies and templates read in the arguments of a call, by the names on the way to it: so
//! that a call can be refused in which a server that ignores case would find something else there (M-17).

mod flow;
mod scan;
mod spellings;
#[cfg(test)]
mod tests;
mod texts;

pub use flow::ArgumentFlow;

use crate::json::Value;
use biscuit_auth::builder::{Fact, Rule};
use spellings::{Name, Spellings, members};
use std::collections::BTreeSet;
use texts::Texts;

/// The way to something that is read in the arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArgumentPath {
    /// Names of members, or indices of elements, from the arguments down.
    way: Vec<Name>,
    end: End,
}

/// What is read there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// What the way leads to.
    Here,
    /// Members of this name, anywhere below it: of which element is not known before.
    Below(Name),
    /// How many members it has; with `below`, so have the objects below it.
    Number { below: bool },
    /// Members below it, by names that are not known before: any text that the reader knows.
    Any,
    /// The same, by names that the arguments themselves may say.
    Own,
    /// Members below it, by this part of their names.
    Part(Name),
    /// Members below it, by their names in a way that no comparison of names stands for.
    Otherwise,
}

impl ArgumentPath {
    /// The way that member names lead.
    #[must_use]
    pub fn of_members(names: &[String]) -> Self {
        Self {
            way: names.iter().map(|name| name.as_str().into()).collect(),
            end: End::Here,
        }
    }

    /// The way that an RFC 6901 pointer leads, whose tokens are escaped as they should be.
    #[must_use]
    pub fn of_pointer(pointer: &str) -> Self {
        let tokens = pointer.split('/').skip(1);
        Self {
            way: tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~").as_str().into())
                .collect(),
            end: End::Here,
        }
    }

    /// Whether a reader that ignores case could find something else in `arguments` on this way: a member
    /// there has another spelling of the name that is read.
    #[must_use]
    pub fn is_ambiguous(&self, arguments: &Value) -> bool {
        self.differs(arguments, &Spellings::new(arguments, &[]))
    }

    fn differs(&self, arguments: &Value, spellings: &Spellings<'_>) -> bool {
        let mut value = arguments;
        for name in &self.way {
            if spellings.has_other(value, name) {
                return true;
            }
            let next = match value {
                Value::Array(elements) => name.text.parse().ok().and_then(|n: usize| elements.get(n)),
                value => value.get(&name.text),
            };
            let Some(next) = next else { return false };
            value = next;
        }
        self.end.differs(value, spellings)
    }

    /// Whether it is met by each name in the arguments.
    fn is_any_name(&self) -> bool {
        self.way.is_empty() && self.end == End::Otherwise
    }

    /// Whether it depends on texts that the reader knows.
    fn is_open(&self) -> bool {
        matches!(self.end, End::Any | End::Own)
    }
}

impl End {
    fn differs(&self, value: &Value, spellings: &Spellings<'_>) -> bool {
        match self {
            Self::Here => false,
            Self::Below(name) => value.any_object(&|object| spellings.has_other(object, name)),
            Self::Number { below: false } => spellings.has_twins(value),
            Self::Number { below: true } => value.any_object(&|object| spellings.has_twins(object)),
            Self::Any => value.any_object(&|object| spellings.is_known(object, false)),
            Self::Own => value.any_object(&|object| spellings.is_known(object, true)),
            Self::Part(part) => value.any_object(&|object| spellings.has_other_part(object, part)),
            Self::Otherwise => value.any_object(&|object| members(object).next().is_some()),
        }
    }
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

    /// Whether a reader that ignores case could find something else in `arguments` where these or `others` look,
    /// or on `ways`. `given` are the texts of the facts that stand beside the arguments; it is asked for them only
    /// if one of them may be the name of what is read.
    #[must_use]
    pub fn are_ambiguous<'a>(
        &'a self,
        others: impl IntoIterator<Item = &'a Self>,
        ways: impl IntoIterator<Item = &'a ArgumentPath>,
        arguments: &Value,
        given: impl FnOnce() -> Vec<String>,
    ) -> bool {
        // What several look at is looked at once.
        let mut paths: BTreeSet<&ArgumentPath> = self.paths.iter().chain(ways).collect();
        let mut beside = Texts::default();
        for other in others {
            paths.extend(&other.paths);
            beside.extend(&other.texts);
        }
        if paths.iter().any(|path| path.is_open()) {
            given().iter().for_each(|text| beside.insert(text));
        }
        let texts = [&self.texts, &beside];
        let spellings = Spellings::new(arguments, &texts);
        paths.iter().any(|path| path.differs(arguments, &spellings))
    }

    fn is_open(&self) -> bool {
        self.paths.iter().any(ArgumentPath::is_open)
    }
}
