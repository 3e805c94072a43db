//! What one entry of a tool list says of its tool: hints, digest, and which headers repeat arguments.

use sha2::{Digest as _, Sha256};
use taper_capability::json::Value;
use taper_capability::{ToolFacts, ToolHints};

use super::decimal::Decimal;
use super::params::{Param, params};

/// The largest magnitude of an integer that every reader of JSON agrees on (RULES 13, RFC 7493 §2.2).
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// A tool as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) facts: ToolFacts,
    pub(crate) params: Vec<Param>,
}

impl Definition {
    /// What a strictly parsed entry says. What cannot be read with certainty is absent, never guessed.
    pub(crate) fn of(entry: &Value) -> Self {
        Self {
            facts: facts(entry),
            params: entry.get("inputSchema").map(params).unwrap_or_default(),
        }
    }
}

/// Hints and digest of an entry.
pub(crate) fn facts(entry: &Value) -> ToolFacts {
    ToolFacts {
        hints: hints(entry),
        digest: digest(entry),
    }
}

/// Whether two values that are neither arrays nor objects say the same; numbers by their value.
pub(crate) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || Decimal::parse(a).is_some_and(|a| Decimal::parse(b) == Some(a))
        }
        _ => a == b,
    }
}

/// The hints; nothing when one of them is something else than a boolean.
fn hints(entry: &Value) -> Option<ToolHints> {
    let none = Value::Object(Vec::new());
    let annotations = match entry.get("annotations") {
        None | Some(Value::Null) => &none,
        Some(annotations @ Value::Object(_)) => annotations,
        Some(_) => return None,
    };
    let hint = |name: &str, default: bool| match annotations.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(Value::Bool(value)) => Some(*value),
        Some(_) => None,
    };
    let unsaid = ToolHints::default();
    Some(ToolHints {
        read_only: hint("readOnlyHint", unsaid.read_only)?,
        destructive: hint("destructiveHint", unsaid.destructive)?,
        idempotent: hint("idempotentHint", unsaid.idempotent)?,
        open_world: hint("openWorldHint", unsaid.open_world)?,
    })
}

/// SHA-256 of the RFC 8785 form (RULES 25).
fn digest(entry: &Value) -> Option<String> {
    let mut canonical = String::new();
    write(entry, &mut canonical)?;
    let hash = Sha256::digest(canonical);
    Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The RFC 8785 form. Nothing for a value with a number that it would change: two definitions that differ
/// must not share a digest.
fn write(value: &Value, out: &mut String) -> Option<()> {
    match value {
        Value::Number(text) => out.push_str(&number(text)?),
        Value::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(element, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<&(String, Value)> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, (name, member)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(name).ok()?);
                out.push(':');
                write(member, out)?;
            }
            out.push('}');
        }
        // Strings as ECMAScript writes them: the short escapes, then lower-case `\u00xx`, nothing else.
        plain => out.push_str(&plain.to_string()),
    }
    Some(())
}

/// A number as ECMAScript writes it, if a double holds it as it stands.
fn number(text: &str) -> Option<String> {
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() || value.abs() > MAX_SAFE {
        return None;
    }
    let mut buffer = ryu_js::Buffer::new();
    let written = buffer.format_finite(value);
    (Decimal::parse(written)? == Decimal::parse(text)?).then(|| written.to_owned())
}

#[cfg(test)]
mod tests {
    use taper_capability::json::{JsonLimits, parse};

    use super::*;

    fn of(text: &str) -> ToolFacts {
        facts(&parse(text.as_bytes(), &JsonLimits::default()).unwrap())
    }

    #[test]
    fn hints_and_their_defaults() {
        let check = |annotations: &str, expected: Option<[bool; 4]>| {
            let entry = format!(r#"{{"name":"t"{annotations}}}"#);
            let hints = of(&entry)
                .hints
                .map(|hints| hints.named().map(|(_, value)| value));
            assert_eq!(hints, expected, "{annotations}");
        };
        check("", Some([false, true, false, true]));
        check(r#","annotations":null"#, Some([false, true, false, true]));
        check(
            r#","annotations":{"title":"x"}"#,
            Some([false, true, false, true]),
        );
        check(
            r#","annotations":{"readOnlyHint":true,"destructiveHint":false}"#,
            Some([true, false, false, true]),
        );
        check(
            r#","annotations":{"idempotentHint":true,"openWorldHint":false,"readOnlyHint":null}"#,
            Some([false, true, true, false]),
        );
        check(r#","annotations":{"readOnlyHint":"true"}"#, None);
        check(r#","annotations":{"destructiveHint":0}"#, None);
        check(r#","annotations":[]"#, None);
    }

    #[test]
    fn the_digest_is_of_the_canonical_form() {
        // Of `{"a":[1,1.5,"é"],"name":"t"}`, by sha256sum.
        let known = "361fa96787ec2575688d8f4793996820200d3b1937bfef6579a9441595de1ce0";
        let spelt = of(r#"{ "name": "t", "a": [1.0, 15e-1, "\u00e9"] }"#);
        assert_eq!(spelt.digest.as_deref(), Some(known));
        let differs = |a: &str, b: &str| assert_ne!(of(a).digest, of(b).digest, "{a} {b}");
        differs(r#"{"name":"t"}"#, r#"{"name":"u"}"#);
        differs(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#);
        differs(r#"{"a":"1"}"#, r#"{"a":1}"#);
        differs(r#"{"a":null}"#, r#"{}"#);
    }

    /// The examples of RFC 8785 §3.2.2 and §3.2.3.
    #[test]
    fn the_form_is_that_of_rfc_8785() {
        let check = |text: &str, expected: Option<&str>| {
            let mut out = String::new();
            let written = write(&parse(text.as_bytes(), &JsonLimits::default()).unwrap(), &mut out);
            assert_eq!(written.map(|()| out.as_str()), expected, "{text}");
        };
        check(
            r#"{"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
            Some(r#"{"literals":[null,true,false],"string":"€$\u000f\nA'B\"\\\\\"/"}"#),
        );
        check(
            r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#,
            Some(
                "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}",
            ),
        );
        check(
            "[4.50,2e-3,0.000000000000000000000000001,-0]",
            Some("[4.5,0.002,1e-27,0]"),
        );
        check("[-7.0,1e3,0.000001,0.0000001]", Some("[-7,1000,0.000001,1e-7]"));
        check("5e-324", Some("5e-324"));
        check("333333333.33333329", None);
    }

    #[test]
    fn a_number_that_would_change_has_no_digest() {
        let check = |number: &str, there: bool| {
            let digest = of(&format!(r#"{{"a":[{{"b":{number}}}]}}"#)).digest;
            assert_eq!(digest.is_some(), there, "{number}");
        };
        for number in [
            "0",
            "-0",
            "1.50",
            "9007199254740991",
            "-9007199254740991",
            "1e3",
            "0.1",
            "1e-7",
            "5e-324",
        ] {
            check(number, true);
        }
        for number in [
            "9007199254740992",
            "9007199254740993",
            "-9007199254740992",
            "1e16",
            "1e400",
            "1e-400",
            "0.10000000000000000001",
            "1.0000000000000001",
        ] {
            check(number, false);
        }
    }
}
