//! Runs the expressions of a query without their values, and notes what they would read in the arguments.

use super::flow::Kinds;
use super::spellings::Name;
use super::{ArgumentFlow, ArgumentPath, End};
use biscuit_auth::builder::{Binary, MapKey, Op, Rule, Term, Unary};
use std::collections::{BTreeMap, BTreeSet};

/// What a query reads.
#[derive(Default)]
pub(super) struct Found {
    pub(super) paths: BTreeSet<ArgumentPath>,
    /// Whether it reads a member by a name that it puts together.
    pub(super) computed: bool,
}

/// What a query reads.
pub(super) fn query(query: &Rule, flow: &ArgumentFlow) -> Found {
    let mut scan = Scan {
        variables: flow.variables(query),
        bound: Vec::new(),
        found: Found::default(),
    };
    scan.body(query, flow);
    for expression in &query.expressions {
        scan.run(&expression.ops);
    }
    scan.found
}

/// A part of the arguments.
#[derive(Clone)]
struct Place {
    way: Vec<Name>,
    /// It stands somewhere below the way.
    below: bool,
    /// It is an element of what stands there, which for an object is a name and its value.
    is_element: bool,
    /// It may be a name.
    is_name: bool,
}

impl Place {
    fn arguments() -> Self {
        Self {
            way: Vec::new(),
            below: false,
            is_element: false,
            is_name: false,
        }
    }

    fn below(&self) -> Self {
        Self {
            way: self.way.clone(),
            below: true,
            is_element: false,
            is_name: false,
        }
    }

    /// An element of it.
    fn element(&self) -> Self {
        Self {
            is_element: true,
            is_name: self.is_element || self.is_name,
            ..self.below()
        }
    }
}

/// What a value on the stack is.
#[derive(Clone)]
enum Seen<'a> {
    /// A part of the arguments.
    Read(Place),
    /// A literal text.
    Text(String),
    /// A text that is put together.
    Computed,
    /// An integer, if it is a literal one.
    Integer(Option<i64>),
    /// A boolean, a date or another value without a spelling.
    Plain,
    /// A literal array, set or map.
    Literal(&'a Term),
    /// A value from outside of the arguments.
    Given(Kinds),
    /// A function: its parameters, and what it does.
    Closure(&'a [String], &'a [Op]),
}

/// What a value from outside of the arguments may be.
fn kinds(seen: &Seen<'_>) -> Kinds {
    match seen {
        Seen::Text(_) | Seen::Computed => Kinds::text(),
        Seen::Literal(term) => Kinds::of(term),
        Seen::Given(kinds) => kinds.clone(),
        Seen::Integer(_) | Seen::Plain => Kinds::default(),
        Seen::Read(_) | Seen::Closure(..) => Kinds::anything(),
    }
}

struct Scan<'a> {
    variables: BTreeMap<&'a str, Kinds>,
    bound: Vec<(&'a str, Seen<'a>)>,
    found: Found,
}

impl<'a> Scan<'a> {
    /// What the predicates of a query compare.
    fn body(&mut self, query: &'a Rule, flow: &ArgumentFlow) {
        let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for predicate in &query.body {
            for (index, term) in predicate.terms.iter().enumerate() {
                match term {
                    Term::Variable(name) => places.entry(name).or_default().push(&predicate.name),
                    literal if flow.of(&predicate.name, index).arguments => {
                        self.members(&Place::arguments(), literal);
                    }
                    _ => {}
                }
            }
        }
        // Facts of two predicates are joined by what their terms are as a whole.
        for (name, predicates) in places {
            let joins = predicates.len() > 1 && predicates.iter().any(|predicate| *predicate != "args");
            if joins && self.variables.get(name).is_some_and(|kinds| kinds.arguments) {
                self.note(&Place::arguments(), End::Any);
            }
        }
    }

    fn run(&mut self, ops: &'a [Op]) -> Seen<'a> {
        let mut stack: Vec<Seen<'a>> = Vec::new();
        for op in ops {
            let seen = match op {
                Op::Value(Term::Variable(name)) => self.variable(name),
                Op::Value(Term::Str(text)) => Seen::Text(text.clone()),
                Op::Value(Term::Integer(i)) => Seen::Integer(Some(*i)),
                Op::Value(term @ (Term::Set(_) | Term::Array(_) | Term::Map(_))) => Seen::Literal(term),
                Op::Value(_) => Seen::Plain,
                Op::Closure(parameters, body) => Seen::Closure(parameters, body),
                Op::Unary(Unary::Parens) => continue,
                Op::Unary(operator) => {
                    let operand = stack.pop().unwrap_or(Seen::Plain);
                    self.unary(operator, &operand)
                }
                Op::Binary(operator) => {
                    let right = stack.pop().unwrap_or(Seen::Plain);
                    let left = stack.pop().unwrap_or(Seen::Plain);
                    self.binary(operator, left, right)
                }
            };
            stack.push(seen);
        }
        stack.pop().unwrap_or(Seen::Plain)
    }

    fn variable(&self, name: &str) -> Seen<'a> {
        if let Some((_, seen)) = self.bound.iter().rev().find(|(known, _)| *known == name) {
            return seen.clone();
        }
        match self.variables.get(name) {
            Some(kinds) if !kinds.arguments => Seen::Given(kinds.clone()),
            _ => Seen::Read(Place::arguments()),
        }
    }

    fn note(&mut self, place: &Place, end: End) {
        self.found.paths.insert(ArgumentPath {
            way: place.way.clone(),
            end,
        });
    }

    /// Notes the names of the members of a literal that something at `place` is compared with.
    fn members(&mut self, place: &Place, literal: &Term) {
        match literal {
            Term::Set(terms) => terms.iter().for_each(|term| self.members(place, term)),
            Term::Array(terms) => terms.iter().for_each(|term| self.members(place, term)),
            Term::Map(entries) => {
                for (key, value) in entries {
                    if let MapKey::Str(name) = key {
                        self.note(place, End::Below(name.as_str().into()));
                    }
                    self.members(place, value);
                }
            }
            _ => {}
        }
    }

    /// Notes that a name is made into something else.
    fn otherwise(&mut self, seen: &Seen<'_>) {
        if let Seen::Read(place) = seen
            && (place.is_name || place.is_element)
        {
            self.note(place, if place.is_name { End::Otherwise } else { End::Any });
        }
    }

    fn unary(&mut self, operator: &Unary, operand: &Seen<'a>) -> Seen<'a> {
        match operator {
            Unary::Length => {
                if let Seen::Read(place) = operand {
                    let below = place.below;
                    self.note(place, End::Number { below });
                }
                self.otherwise(operand);
                Seen::Integer(None)
            }
            Unary::Ffi(_) => {
                self.otherwise(operand);
                Seen::Plain
            }
            Unary::TypeOf => Seen::Computed,
            Unary::Negate | Unary::Parens => Seen::Plain,
        }
    }

    fn binary(&mut self, operator: &Binary, left: Seen<'a>, right: Seen<'a>) -> Seen<'a> {
        match (left, right) {
            (Seen::Closure(..), Seen::Closure(..)) => Seen::Plain,
            (Seen::Closure(parameters, body), value) | (value, Seen::Closure(parameters, body)) => {
                self.call(operator, &value, parameters, body)
            }
            (left, right) => self.values(operator, &left, &right),
        }
    }

    /// A function that is called with the elements of `value`, or in place of it.
    fn call(
        &mut self,
        operator: &Binary,
        value: &Seen<'a>,
        parameters: &'a [String],
        body: &'a [Op],
    ) -> Seen<'a> {
        let element = match value {
            Seen::Read(place) => {
                if !parameters.is_empty() && !place.below {
                    self.note(place, End::Number { below: false });
                }
                Seen::Read(place.element())
            }
            value => Seen::Given(kinds(value).element()),
        };
        let known = self.bound.len();
        let named = parameters.iter().map(|name| (name.as_str(), element.clone()));
        self.bound.extend(named);
        let result = self.run(body);
        self.bound.truncate(known);
        match operator {
            Binary::All | Binary::Any => Seen::Plain,
            Binary::LazyAnd | Binary::LazyOr => result,
            // Whatever else there may be could give any part of the arguments.
            _ => Seen::Read(Place::arguments().element().element()),
        }
    }

    fn values(&mut self, operator: &Binary, left: &Seen<'a>, right: &Seen<'a>) -> Seen<'a> {
        match operator {
            Binary::Get => self.get(left, right),
            Binary::Contains => {
                self.contains(left, right);
                Seen::Plain
            }
            Binary::Equal
            | Binary::NotEqual
            | Binary::HeterogeneousEqual
            | Binary::HeterogeneousNotEqual
            | Binary::Prefix
            | Binary::Suffix => {
                let is_part = matches!(operator, Binary::Prefix | Binary::Suffix);
                self.compare(left, right, is_part.then_some(true));
                self.compare(right, left, is_part.then_some(false));
                Seen::Plain
            }
            Binary::Add => {
                self.otherwise(left);
                self.otherwise(right);
                match (left, right) {
                    (Seen::Text(a), Seen::Text(b)) => Seen::Text(format!("{a}{b}")),
                    (Seen::Integer(_), _) | (_, Seen::Integer(_)) => Seen::Integer(None),
                    _ => Seen::Computed,
                }
            }
            Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::BitwiseAnd
            | Binary::BitwiseOr
            | Binary::BitwiseXor => Seen::Integer(None),
            Binary::LessThan
            | Binary::GreaterThan
            | Binary::LessOrEqual
            | Binary::GreaterOrEqual
            | Binary::And
            | Binary::Or => Seen::Plain,
            Binary::Regex | Binary::Ffi(_) => {
                self.otherwise(left);
                self.otherwise(right);
                Seen::Plain
            }
            Binary::Union | Binary::Intersection => Seen::Given(kinds(left).or(kinds(right))),
            // These take functions.
            Binary::LazyAnd | Binary::LazyOr | Binary::All | Binary::Any | Binary::TryOr => {
                Seen::Read(Place::arguments().element().element())
            }
        }
    }

    fn get(&mut self, left: &Seen<'a>, key: &Seen<'a>) -> Seen<'a> {
        let Seen::Read(place) = left else {
            // The name is looked for among those of a map.
            if let Seen::Read(place) = key
                && (place.is_element || place.is_name)
            {
                self.note(place, End::Any);
            }
            let index = match key {
                Seen::Integer(index) => *index,
                _ => None,
            };
            return match left {
                Seen::Literal(_) | Seen::Given(_) => Seen::Given(kinds(left).member(index)),
                _ => Seen::Plain,
            };
        };
        let mut value = place.below();
        match key {
            Seen::Text(name) if !place.below => {
                value.way.push(name.as_str().into());
                value.below = false;
                self.note(&value, End::Here);
            }
            Seen::Text(name) => self.note(place, End::Below(name.as_str().into())),
            // The name is the first of a pair.
            Seen::Integer(index) => {
                if place.is_element {
                    self.note(place, End::Any);
                    value.is_name = index.is_none_or(|index| index == 0);
                }
            }
            Seen::Given(_) => {
                self.note(place, End::Any);
                value.is_name = place.is_element;
            }
            Seen::Read(_) => {
                self.note(place, End::Own);
                value.is_name = place.is_element;
            }
            Seen::Computed => {
                self.found.computed = true;
                self.note(place, End::Otherwise);
            }
            // No key.
            Seen::Plain | Seen::Literal(_) | Seen::Closure(..) => {}
        }
        Seen::Read(value)
    }

    fn contains(&mut self, left: &Seen<'a>, right: &Seen<'a>) {
        if let Seen::Read(place) = left {
            match right {
                Seen::Text(name) if !place.below => {
                    let mut way = place.way.clone();
                    way.push(name.as_str().into());
                    self.found.paths.insert(ArgumentPath { way, end: End::Here });
                }
                Seen::Text(name) => {
                    self.note(place, End::Below(name.as_str().into()));
                    // Of an entry, it may be the value of which there are two.
                    if place.is_element {
                        self.note(place, End::Number { below: true });
                    }
                    if place.is_name {
                        self.note(place, End::Part(name.as_str().into()));
                    }
                }
                Seen::Computed => {
                    // The arguments themselves are a map.
                    self.found.computed |= place.way.is_empty() && !place.below;
                    self.note(place, End::Otherwise);
                }
                Seen::Given(_) => {
                    self.note(place, End::Any);
                    self.otherwise(left);
                }
                Seen::Read(_) => {
                    self.note(place, End::Own);
                    self.otherwise(left);
                }
                Seen::Literal(_) | Seen::Integer(_) | Seen::Plain | Seen::Closure(..) => {
                    if place.is_element {
                        self.note(place, End::Any);
                    }
                    if let Seen::Literal(term) = right {
                        self.members(place, term);
                    }
                }
            }
        }
        if let Seen::Read(place) = right {
            if place.is_element || place.is_name {
                self.note(place, End::Any);
            }
            match left {
                Seen::Read(_) => {
                    self.note(place, End::Own);
                    self.otherwise(right);
                }
                Seen::Literal(term) => self.members(place, term),
                Seen::Given(kinds) => {
                    if kinds.parts() {
                        self.note(place, End::Any);
                    }
                    if kinds.texts() {
                        self.otherwise(right);
                    }
                }
                Seen::Text(_) | Seen::Computed => self.otherwise(right),
                Seen::Integer(_) | Seen::Plain | Seen::Closure(..) => {}
            }
        }
    }

    /// Notes what it means that `seen` is compared with `other`, or asked for a part of it: with `true` that it
    /// starts or ends with it, with `false` the other way round.
    fn compare(&mut self, seen: &Seen<'a>, other: &Seen<'a>, part: Option<bool>) {
        let Seen::Read(place) = seen else { return };
        if place.is_element || place.is_name {
            self.note(place, End::Any);
        }
        match other {
            Seen::Text(text) => match part {
                Some(true) if place.is_name => self.note(place, End::Part(text.as_str().into())),
                Some(false) => self.otherwise(seen),
                _ => {}
            },
            Seen::Literal(term) => self.members(place, term),
            Seen::Computed => self.otherwise(seen),
            Seen::Given(kinds) => {
                if kinds.parts() {
                    self.note(place, End::Any);
                }
                if kinds.texts() && part.is_some() {
                    self.otherwise(seen);
                }
            }
            Seen::Read(_) => {
                self.note(place, End::Own);
                if part.is_some() {
                    self.otherwise(seen);
                }
            }
            Seen::Integer(_) | Seen::Plain | Seen::Closure(..) => {}
        }
    }
}
