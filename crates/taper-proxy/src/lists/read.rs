//! An answer that may hold lists: read so that no client reads it otherwise, and written with fewer entries.

use taper_capability::json::{self, JsonLimits, Value};

/// Why an answer cannot be filtered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the list is not strict JSON: {0}")]
    Json(#[from] json::JsonError),
    #[error("the answer is not one message")]
    NotAMessage,
    #[error("a key differs from another or from the protocol's in letter case only")]
    Folded,
    #[error("the list is not an array")]
    NotAnArray,
}

/// One message of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read(Value);

impl Read {
    /// Reads a message of which the result may hold lists in these `members`.
    pub(crate) fn new(message: &[u8], limits: &JsonLimits, members: &[&str]) -> Result<Self, ReadError> {
        let parsed = json::parse(message, limits)?;
        // A batch has no `result`, and another spelling may be what a client reads.
        if parsed.as_object().is_none() {
            return Err(ReadError::NotAMessage);
        }
        if has_folded(&parsed, &["result"])
            || parsed
                .get("result")
                .is_some_and(|result| has_folded(result, members))
        {
            return Err(ReadError::Folded);
        }
        Ok(Self(parsed))
    }

    /// Whether its result has this member.
    pub(crate) fn holds(&self, member: &str) -> bool {
        let result = self.0.get("result");
        result.is_some_and(|result| result.get(member).is_some())
    }

    /// Drops the entries of a list that are not to be kept; whether there is such a list.
    pub(crate) fn keep(&mut self, list: &str, keep: impl FnMut(&Value) -> bool) -> Result<bool, ReadError> {
        let Some(Value::Object(result)) = member(&mut self.0, "result") else {
            return Ok(false);
        };
        match result.iter_mut().find(|(name, _)| name == list) {
            None => Ok(false),
            Some((_, Value::Array(entries))) => {
                entries.retain(keep);
                Ok(true)
            }
            Some(_) => Err(ReadError::NotAnArray),
        }
    }

    /// The message, for one caller alone: in the modern era it says so.
    pub(crate) fn into_private(mut self, is_modern: bool) -> String {
        if let Some(Value::Object(result)) = member(&mut self.0, "result") {
            let private = Value::String("private".to_owned());
            match result.iter_mut().find(|(name, _)| name == "cacheScope") {
                Some((_, scope)) => *scope = private,
                None if is_modern => result.push(("cacheScope".to_owned(), private)),
                None => {}
            }
        }
        self.0.to_string()
    }
}

/// Whether two keys of an object, or one of them and one of `keys`, differ in letter case only.
fn has_folded(object: &Value, keys: &[&str]) -> bool {
    let other_spelling = |name: &str| {
        keys.iter()
            .any(|key| *key != name && key.eq_ignore_ascii_case(name))
    };
    object.case_conflict().is_some()
        || object
            .as_object()
            .unwrap_or_default()
            .iter()
            .any(|(name, _)| other_spelling(name))
}

fn member<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match object {
        Value::Object(members) => members
            .iter_mut()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value),
        _ => None,
    }
}
