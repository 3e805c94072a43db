//! What callers without a token are told, ready to be sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use taper_capability::json::Value;

use super::Pins;
use crate::message::Era;
use crate::methods::List;

/// Results, written once. Those of one list are for both eras.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The result of `initialize`; nothing for a server without the legacy era.
    pub(crate) initialize: Option<Bytes>,
    /// That of `server/discover`; nothing for a server without the modern era.
    pub(crate) discover: Option<Bytes>,
    /// Whether `initialize` gives a session.
    pub(crate) sessions: bool,
    /// The tools that are shown.
    pub(crate) tools: BTreeSet<String>,
    lists: Vec<(List, [Bytes; 2])>,
}

impl Shown {
    /// What the file has for this; nothing without its `before_login`.
    pub(crate) fn of(pins: &Pins) -> Option<Self> {
        let preface = pins.preface.as_ref()?;
        let lists = [List::Tools, List::Prompts, List::Resources, List::Templates].map(|list| {
            let entries = match list {
                List::Tools => pins.definitions().cloned().collect(),
                other => preface.list(other).to_vec(),
            };
            let result = vec![(list.member().to_owned(), Value::Array(entries))];
            let modern = modern(result.clone());
            (list, [Bytes::from(Value::Object(result).to_string()), modern])
        });
        let discover = preface.discover.as_ref();
        Some(Self {
            initialize: preface
                .initialize
                .as_ref()
                .map(|result| Bytes::from(result.to_string())),
            discover: discover.map(|result| modern(result.as_object().unwrap_or_default().to_vec())),
            sessions: preface.sessions,
            tools: pins.tools.keys().cloned().collect(),
            lists: lists.into(),
        })
    }

    /// The result of a list; an empty one where there is none.
    pub(crate) fn list(&self, list: List, era: Era) -> Bytes {
        let found = self.lists.iter().find(|(known, _)| *known == list);
        let written = found.map(|(_, [legacy, modern])| match era {
            Era::Legacy => legacy.clone(),
            Era::Modern => modern.clone(),
        });
        written.unwrap_or_default()
    }
}

/// A complete result of the modern era. It is not to be kept: after login there is another.
fn modern(mut result: Vec<(String, Value)>) -> Bytes {
    let mut add = |name: &str, value: Value| result.push((name.to_owned(), value));
    add("resultType", Value::String("complete".to_owned()));
    add("ttlMs", Value::Number("0".to_owned()));
    add("cacheScope", Value::String("private".to_owned()));
    Bytes::from(Value::Object(result).to_string())
}
