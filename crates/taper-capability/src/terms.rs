//! JSON arguments as Datalog terms, injectively (`spec/vocabulary.md`).

use crate::caveat_check::MAX_INTEGER;
use crate::json::Value;
use biscuit_auth::builder::{MapKey, Term};

/// The term of a JSON value. Integers within ±(2^53 − 1) are integers; every other number is the
/// *bytes* of its source text, which no JSON value is otherwise.
pub(crate) fn term(value: &Value) -> Term {
    match value {
        Value::Null => Term::Null,
        Value::Bool(b) => Term::Bool(*b),
        Value::Number(text) => number(text),
        Value::String(s) => Term::Str(s.clone()),
        Value::Array(elements) => Term::Array(elements.iter().map(term).collect()),
        Value::Object(members) => Term::Map(
            members
                .iter()
                .map(|(name, value)| (MapKey::Str(name.clone()), term(value)))
                .collect(),
        ),
    }
}

fn number(text: &str) -> Term {
    let integer = text
        .parse::<i64>()
        .ok()
        .filter(|i| i.unsigned_abs() <= MAX_INTEGER.unsigned_abs());
    match integer {
        // `-0` parses as 0 and is not the same text.
        Some(i) if text != "-0" => Term::Integer(i),
        _ => Term::Bytes(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_confused() {
        let bytes = |t: &str| Term::Bytes(t.as_bytes().to_vec());
        let check = |text: &str, wanted: Term| assert_eq!(number(text), wanted, "{text}");
        check("0", Term::Integer(0));
        check("-1", Term::Integer(-1));
        check("9007199254740991", Term::Integer(MAX_INTEGER));
        check("9007199254740992", bytes("9007199254740992"));
        check("-9007199254740992", bytes("-9007199254740992"));
        check("99999999999999999999", bytes("99999999999999999999"));
        check("-0", bytes("-0"));
        check("1.0", bytes("1.0"));
        check("1e2", bytes("1e2"));
    }
}
