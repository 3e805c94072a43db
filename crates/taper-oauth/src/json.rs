//! Strict JSON: what two parsers could read differently is refused.
//!
//! Duplicate member names (after unescaping), depth beyond [`MAX_DEPTH`], NUL in a string, trailing bytes,
//! a byte order mark and lone surrogates are errors. The size is checked before the parser sees a byte. The
//! parser is the one that reads proofs, [`taper_dpop::json`].

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::WireError;

pub use taper_dpop::json::MAX_DEPTH;

/// Parses one JSON value of at most `max_bytes` bytes.
///
/// # Errors
/// [`WireError::TooLarge`], [`WireError::Json`].
pub fn parse(bytes: &[u8], max_bytes: usize) -> Result<Value, WireError> {
    if bytes.len() > max_bytes {
        return Err(WireError::TooLarge { limit: max_bytes });
    }
    taper_dpop::json::parse(bytes).map_err(not_json)
}

/// Parses one JSON object of at most `max_bytes` bytes.
///
/// # Errors
/// As [`parse`], and [`WireError::Json`] when it is not an object.
pub fn parse_object(bytes: &[u8], max_bytes: usize) -> Result<Map<String, Value>, WireError> {
    match parse(bytes, max_bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(WireError::Json("not an object".to_owned())),
    }
}

/// Parses strictly, then reads a `T` out of the value.
///
/// # Errors
/// As [`parse`], and [`WireError::Json`] when the value has another shape.
pub fn read<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, WireError> {
    serde_json::from_value(parse(bytes, max_bytes)?).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> WireError {
    WireError::Json(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        match (parse(text.as_bytes(), 256), expected) {
            (Ok(value), Ok(json)) => assert_eq!(value.to_string(), json),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn only_unambiguous_json_passes() {
        check(
            r#" {"a":[1,-2,1.5,true,null,"x"]} "#,
            Ok(r#"{"a":[1,-2,1.5,true,null,"x"]}"#),
        );
        check(r#"{"a":1,"A":2}"#, Ok(r#"{"a":1,"A":2}"#));
        check(r#"{"a":1,"a":2}"#, Err("duplicate"));
        check(r#"{"a":1,"\u0061":2}"#, Err("duplicate"));
        check(r#"{"x":[{"a":1,"a":1}]}"#, Err("duplicate"));
        check("{\"a\":1}x", Err("trailing"));
        check("\u{feff}{}", Err("expected value"));
        check(r#""\ud83d\ude00""#, Ok("\"😀\""));
        check(r#""\ud83d\u0041""#, Err("surrogate"));
        check(r#""\ude00""#, Err("surrogate"));
        check(r#""\ud83d""#, Err("hex escape"));
        check(r#""\u0000""#, Err("nul"));
        check(r#"{"\u0000":1}"#, Err("nul"));
        check("1e999", Err("out of range"));
        check("", Err("EOF"));
    }

    #[test]
    fn depth_and_size_have_a_limit() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        check(&nested(MAX_DEPTH), Ok(&nested(MAX_DEPTH)));
        check(&nested(MAX_DEPTH + 1), Err("deep"));
        assert_eq!(parse(&[b' '; 257], 256), Err(WireError::TooLarge { limit: 256 }));
    }

    #[test]
    fn an_object_is_asked_for_by_name() {
        assert!(parse_object(b"{}", 16).is_ok());
        assert!(parse_object(b"[]", 16).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, 256);
        }
    }
}
