//! An answer that may hold lists: read so that no client reads it otherwise, and written with fewer entries.

use taper_capability::json::{self, JsonLimits, Value};

/// The member that says for whom a client may keep a list.
const SCOPE: &str = "cacheScope";

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
        let is_folded = |result: &Value| has_folded(result, members) || has_folded(result, &[SCOPE]);
        if has_folded(&parsed, &["result"]) || parsed.get("result").is_some_and(is_folded) {
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
            match result.iter_mut().find(|(name, _)| name == SCOPE) {
                Some((_, scope)) => *scope = private,
                None if is_modern => result.push((SCOPE.to_owned(), private)),
                None => {}
            }
        }
        self.0.to_string()
    }
}

/// Whether two keys of an object, or one of them and one of `keys`, differ in letter case only.
fn has_folded(object: &Value, keys: &[&str]) -> bool {
    object.has_twins() || keys.iter().any(|key| object.has_other_spelling(key))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(result: &str) -> Result<Read, ReadError> {
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        Read::new(message.as_bytes(), &JsonLimits::default(), &["tools"])
    }

    #[test]
    fn what_another_reader_may_take_for_a_list_or_its_scope_is_refused() {
        for result in [
            r#"{"Tools":[]}"#,
            r#"{"tools":[],"TOOLS":[]}"#,
            r#"{"tools":[],"cachescope":"public"}"#,
            r#"{"x":1,"X":2}"#,
            "{\"tool\u{17f}\":[]}",
            "{\"k\":1,\"\u{212a}\":2}",
        ] {
            assert!(matches!(read(result), Err(ReadError::Folded)), "{result}");
        }
        let message = "{\"jsonrpc\":\"2.0\",\"id\":1,\"re\u{17f}ult\":{\"tools\":[]}}";
        let spelt = Read::new(message.as_bytes(), &JsonLimits::default(), &["tools"]);
        assert!(matches!(spelt, Err(ReadError::Folded)));
        assert!(matches!(
            read(r#"{"tools":{}}"#).unwrap().keep("tools", |_| true),
            Err(ReadError::NotAnArray)
        ));
    }

    #[test]
    fn what_is_left_is_for_one_caller() {
        let check = |result: &str, is_modern: bool, expected: &str| {
            let mut read = read(result).unwrap();
            assert!(read.keep("tools", |tool| tool.as_str() != Some("b")).unwrap());
            let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{expected}}}"#);
            assert_eq!(read.into_private(is_modern), expected);
        };
        check(r#"{"tools":["a","b"]}"#, false, r#"{"tools":["a"]}"#);
        check(
            r#"{"tools":["b"]}"#,
            true,
            r#"{"tools":[],"cacheScope":"private"}"#,
        );
        check(
            r#"{"cacheScope":"public","tools":["a"]}"#,
            false,
            r#"{"cacheScope":"private","tools":["a"]}"#,
        );
    }
}
