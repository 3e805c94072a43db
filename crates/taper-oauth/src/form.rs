//! `application/x-www-form-urlencoded` request bodies, read strictly (RFC 6749 §3.2, appendix B).
//!
//! The size is bounded first. Percent escapes must be complete, the text UTF-8 without NUL, and a name may
//! occur once: two parsers that pick different ones of two `client_id`s are an attack. Only `resource`
//! (RFC 8707) and `audience` (RFC 8693) may repeat. A parameter without a value counts as omitted; unknown
//! parameters are kept and never looked at.

use std::fmt;

use crate::error::{ErrorCode, OAuthError};
use crate::secret::Secret;

/// Parameters that may occur more than once.
pub const REPEATABLE: [&str; 2] = ["resource", "audience"];
/// How many parameters a body may have.
pub const MAX_FIELDS: usize = 64;

/// The parameters of a request. Values are wiped on drop and do not print: any of them may be a token.
pub struct Form {
    fields: Vec<(String, Secret)>,
}

impl Form {
    /// Reads a body of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// `invalid_request`: too large, too many parameters, a broken escape, not UTF-8, a repeated parameter.
    pub fn parse(body: &[u8], max_bytes: usize) -> Result<Self, OAuthError> {
        if body.len() > max_bytes {
            return Err(invalid(format!("the body is larger than {max_bytes} bytes")));
        }
        let mut fields: Vec<(String, Secret)> = Vec::new();
        for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            if fields.len() == MAX_FIELDS {
                return Err(invalid("too many parameters"));
            }
            let (name, value) = split_pair(pair);
            let name = decode(name).ok_or_else(|| invalid("malformed parameter name"))?;
            if name.is_empty() {
                return Err(invalid("a parameter has no name"));
            }
            let value = decode(value).ok_or_else(|| invalid(format!("malformed value of `{name}`")))?;
            let repeated = fields.iter().any(|(known, _)| *known == name);
            if repeated && !REPEATABLE.contains(&name.as_str()) {
                return Err(invalid(format!("`{name}` is repeated")));
            }
            fields.push((name, Secret::new(value)));
        }
        // Emptiness is dropped only now: `a=&a=1` is a repetition.
        fields.retain(|(_, value)| !value.expose().is_empty());
        Ok(Self { fields })
    }

    /// The value of a parameter; of a repeatable one, the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.expose())
    }

    /// The values of a repeatable parameter, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.expose())
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    /// `invalid_request`, naming the parameter.
    pub fn require(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name)
            .ok_or_else(|| invalid(format!("`{name}` is missing")))
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")?;
        f.debug_list()
            .entries(self.fields.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Decodes one form-encoded name or value; `None` when it is not one.
pub(crate) fn decode(encoded: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?,
            0x21..=0x7e => byte,
            _ => return None,
        });
    }
    if decoded.contains(&0) {
        return None;
    }
    String::from_utf8(decoded).ok()
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = pair.splitn(2, |&byte| byte == b'=');
    (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    )
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn invalid(description: impl AsRef<str>) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &str, expected: Result<&[(&str, &str)], &str>) {
        match (Form::parse(body.as_bytes(), 4096), expected) {
            (Ok(form), Ok(pairs)) => {
                let got: Vec<_> = form
                    .fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.expose()))
                    .collect();
                assert_eq!(got, pairs);
            }
            (Err(error), Err(part)) => {
                assert_eq!(error.code(), ErrorCode::InvalidRequest);
                assert!(error.description().contains(part), "{error}");
            }
            (got, _) => panic!("{body}: {got:?}"),
        }
    }

    #[test]
    fn bodies_are_read_strictly() {
        check("", Ok(&[]));
        check("a=1&b=x+y%2Bz", Ok(&[("a", "1"), ("b", "x y+z")]));
        check("a=1=2&&b=%c3%A4", Ok(&[("a", "1=2"), ("b", "ä")]));
        check("a=&b&c=1", Ok(&[("c", "1")]));
        check(
            "resource=u&audience=v&resource=w",
            Ok(&[("resource", "u"), ("audience", "v"), ("resource", "w")]),
        );
        check("scope=a&scope=a", Err("`scope` is repeated"));
        check("scope=&scope=a", Err("`scope` is repeated"));
        check("scope=a&sc%6fpe=b", Err("`scope` is repeated"));
        check("unknown=a&unknown=b", Err("repeated"));
        check("=1", Err("no name"));
        check("a=%2", Err("malformed value of `a`"));
        check("a=%zz", Err("malformed value"));
        check("a=%+1", Err("malformed value"));
        check("a=%ff", Err("malformed value"));
        check("a=%00", Err("malformed value"));
        check("a=ä", Err("malformed value"));
        check("a b=1", Err("malformed parameter name"));
    }

    #[test]
    fn size_and_count_have_a_limit() {
        assert!(Form::parse(b"a=12", 4).is_ok());
        assert!(Form::parse(b"a=123", 4).is_err());
        let body = |n: usize| (0..n).map(|i| format!("p{i}=1")).collect::<Vec<_>>().join("&");
        assert!(Form::parse(body(MAX_FIELDS).as_bytes(), 4096).is_ok());
        assert!(Form::parse(body(MAX_FIELDS + 1).as_bytes(), 4096).is_err());
    }

    #[test]
    fn values_do_not_print() {
        let form = Form::parse(b"subject_token=hunter2", 64).unwrap();
        assert_eq!(format!("{form:?}"), r#"Form["subject_token"]"#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Form::parse(&bytes, 256);
        }

        #[test]
        fn what_is_encoded_reads_back(value in "[^\0]{1,40}") {
            let body: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("a", &value).finish();
            let form = Form::parse(body.as_bytes(), 4096).unwrap();
            prop_assert_eq!(form.get("a"), Some(value.as_str()));
        }
    }
}
