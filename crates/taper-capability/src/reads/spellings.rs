//! The names in the arguments of one call as a reader sees them that ignores case: each is folded at most once,
//! however many look for it, and none that is told from another without.

use super::texts::Texts;
use crate::json::{DOT_ABOVE, Value, folded, is_plainly_other};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// How many names are compared with each other as they are.
const FEW: usize = 16;

/// A name that is looked for, and what it is to a reader that ignores case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) text: String,
    fold: String,
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            fold: folded(text),
        }
    }
}

/// The objects of the arguments, and the texts that their reader knows.
pub(super) struct Spellings<'a> {
    arguments: &'a Value,
    texts: &'a [&'a Texts],
    /// By where they are: nothing is moved as long as this is there.
    objects: RefCell<HashMap<*const Value, Rc<Object>>>,
    /// The texts of the arguments.
    own: OnceCell<Texts>,
}

/// What is known of an object.
struct Object {
    /// Of each member's name.
    folds: Vec<OnceCell<String>>,
    has_twins: OnceCell<bool>,
    /// Whether a name is another spelling of a known text, and the same with the texts of the arguments.
    is_known: [OnceCell<bool>; 2],
}

impl Object {
    fn fold(&self, index: usize, name: &str) -> &str {
        let fold = self.folds.get(index);
        fold.map_or("", |fold| fold.get_or_init(|| folded(name)))
    }
}

impl<'a> Spellings<'a> {
    pub(super) fn new(arguments: &'a Value, texts: &'a [&'a Texts]) -> Self {
        Self {
            arguments,
            texts,
            objects: RefCell::default(),
            own: OnceCell::new(),
        }
    }

    fn object(&self, value: &Value) -> Rc<Object> {
        let mut objects = self.objects.borrow_mut();
        let object = objects.entry(std::ptr::from_ref(value)).or_insert_with(|| {
            let folds = members(value).map(|_| OnceCell::new()).collect();
            Rc::new(Object {
                folds,
                has_twins: OnceCell::new(),
                is_known: Default::default(),
            })
        });
        Rc::clone(object)
    }

    /// Whether a member of this object has another spelling of `name`.
    pub(super) fn has_other(&self, value: &Value, name: &Name) -> bool {
        let mut object = None;
        members(value).any(|(index, member)| {
            is_plainly_other(member, &name.text).unwrap_or_else(|| {
                let object = object.get_or_insert_with(|| self.object(value));
                object.fold(index, member) == name.fold
            })
        })
    }

    /// Whether two names of this object are one.
    pub(super) fn has_twins(&self, value: &Value) -> bool {
        let names = || members(value).map(|(_, name)| name);
        let count = names().count();
        if count < 2 {
            return false;
        }
        let object = self.object(value);
        *object.has_twins.get_or_init(|| {
            if count <= FEW && names().all(str::is_ascii) {
                let is_twin = |(index, name): (usize, &str)| {
                    let mut others = names().skip(index + 1);
                    others.any(|other| other.eq_ignore_ascii_case(name))
                };
                return members(value).any(is_twin);
            }
            let folds = members(value).map(|(index, name)| object.fold(index, name));
            let mut folds: Vec<&str> = folds.collect();
            folds.sort_unstable();
            folds.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
        })
    }

    /// Whether a name of this object is another spelling of a text that the reader knows, with `own` also of one
    /// of the arguments, or two of its names are one.
    pub(super) fn is_known(&self, value: &Value, own: bool) -> bool {
        if members(value).next().is_none() {
            return false;
        }
        let object = self.object(value);
        let [of_reader, of_all] = &object.is_known;
        let known = if own { of_all } else { of_reader };
        *known.get_or_init(|| {
            self.has_twins(value)
                || members(value).any(|(index, name)| {
                    let fold = object.fold(index, name);
                    self.texts.iter().any(|texts| texts.has_other(name, fold))
                        || (own && self.own().has_other(name, fold))
                })
        })
    }

    /// Whether this part stands in a name of this object, in another spelling.
    pub(super) fn has_other_part(&self, value: &Value, part: &Name) -> bool {
        let mut object = None;
        members(value).any(|(index, name)| {
            if name.contains(DOT_ABOVE) {
                return true;
            }
            let object = object.get_or_insert_with(|| self.object(value));
            let fold = object.fold(index, name);
            // Each place of the part as it is is one of it folded, as every letter counts.
            fold.contains(&part.fold) && places(fold, &part.fold) != places(name, &part.text)
        })
    }

    /// The names and texts of the arguments.
    fn own(&self) -> &Texts {
        self.own.get_or_init(|| {
            let mut texts = Texts::default();
            self.add(self.arguments, &mut texts);
            texts
        })
    }

    fn add(&self, value: &Value, texts: &mut Texts) {
        match value {
            Value::String(text) => texts.insert(text),
            Value::Array(elements) => elements.iter().for_each(|element| self.add(element, texts)),
            Value::Object(members) => {
                let object = self.object(value);
                for (index, (name, value)) in members.iter().enumerate() {
                    texts.insert_folded(name, object.fold(index, name));
                    self.add(value, texts);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// The names of an object.
pub(super) fn members(object: &Value) -> impl Iterator<Item = (usize, &str)> {
    let members = object.as_object().unwrap_or_default();
    let names = members.iter().map(|(name, _)| name.as_str());
    names.enumerate()
}

/// In how many places `part` stands in `text`, also where they overlap, with each byte looked at a few times at
/// most (Knuth, Morris and Pratt); nothing stands before each letter.
pub(super) fn places(text: &str, part: &str) -> usize {
    let part = part.as_bytes();
    if part.is_empty() {
        return text.chars().count();
    }
    // How much of the start of the part ends with each of its bytes.
    let mut starts: Vec<usize> = Vec::with_capacity(part.len());
    let longer = |starts: &[usize], mut length: usize, byte: u8| {
        while length > 0 && part.get(length) != Some(&byte) {
            length = starts.get(length - 1).copied().unwrap_or_default();
        }
        length + usize::from(part.get(length) == Some(&byte))
    };
    let mut length = 0;
    for (index, byte) in part.iter().enumerate() {
        if index > 0 {
            length = longer(&starts, length, *byte);
        }
        starts.push(length);
    }
    let (mut found, mut length) = (0, 0);
    for byte in text.bytes() {
        length = longer(&starts, length, byte);
        found += usize::from(length == part.len());
    }
    found
}
