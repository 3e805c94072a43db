//! Strict JSON (RFC 8259 without its latitude): what is accepted here has one reading everywhere.
//!
//! Refused besides plain syntax errors: a byte order mark, invalid UTF-8, duplicate member names
//! at any level (after unescaping), lone surrogates, NUL in strings, anything after the value, and
//! whatever exceeds the limits. Numbers keep their source text. General parsers merge duplicates
//! and round numbers, which is why this one exists (R-27).

use crate::rules;
use std::fmt;

/// How much JSON is accepted.
#[derive(Clone, Copy, Debug)]
pub struct JsonLimits {
    /// Bytes of text.
    pub bytes: usize,
    /// Levels of nesting.
    pub depth: usize,
    /// Values in all, member names included.
    pub nodes: usize,
    /// Elements of one array.
    pub elements: usize,
}

impl Default for JsonLimits {
    /// 1 MiB, 16 levels, 2,048 values, 256 elements an array: enough for tool calls, small enough
    /// that no check over them can run for long.
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            depth: 16,
            nodes: 2048,
            elements: 256,
        }
    }
}

/// A JSON value. Members keep their order, numbers their source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object; no name occurs twice.
    Object(Vec<(String, Value)>),
}

/// Why a text is not strict JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct JsonError {
    /// Where the parser stopped, counted from 0.
    pub offset: usize,
    /// What it objected to.
    pub reason: &'static str,
    /// Whether the text is JSON but exceeds a limit.
    pub over_limit: bool,
}

/// Parses one JSON value that fills `bytes`.
///
/// # Errors
/// [`JsonError`] at the first thing that is not strict JSON or exceeds `limits`.
pub fn parse(bytes: &[u8], limits: &JsonLimits) -> Result<Value, JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError {
            offset: limits.bytes,
            reason: "too many bytes",
            over_limit: true,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError {
        offset: e.valid_up_to(),
        reason: "not UTF-8",
        over_limit: false,
    })?;
    let mut parser = Parser {
        text,
        at: 0,
        nodes: 0,
        limits,
    };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.error("more after the value")),
    }
}

impl Value {
    /// The member of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// The members, if it is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The value at an RFC 6901 pointer; array indices are decimal without leading zeros.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer
            .strip_prefix('/')?
            .split('/')
            .try_fold(self, |value, part| match value {
                Self::Object(_) => value.get(&part.replace("~1", "/").replace("~0", "~")),
                Self::Array(elements) if part == "0" || !part.starts_with('0') => {
                    if !part.bytes().all(|b| b.is_ascii_digit()) {
                        return None;
                    }
                    elements.get(part.parse::<usize>().ok()?)
                }
                _ => None,
            })
    }

    /// Whether two member names of this object are one to a reader that ignores case.
    #[must_use]
    pub fn has_twins(&self) -> bool {
        let members = self.as_object().unwrap_or_default();
        let mut names: Vec<String> = members.iter().map(|(name, _)| folded(name)).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    }

    /// Whether this or any object in it has such names. What [`parse`] made is not deep.
    #[must_use]
    pub fn has_twins_within(&self) -> bool {
        self.any_object(&Self::has_twins)
    }

    /// Whether this object has a member that a reader which ignores case takes for `name`, and which is
    /// spelled otherwise.
    #[must_use]
    pub fn has_other_spelling(&self, name: &str) -> bool {
        let mut members = self.as_object().unwrap_or_default().iter();
        members.any(|(member, _)| is_other_spelling(member, name))
    }

    /// Whether this or any object in it is such.
    pub(crate) fn any_object(&self, is: &impl Fn(&Self) -> bool) -> bool {
        match self {
            Self::Object(members) => is(self) || members.iter().any(|(_, value)| value.any_object(is)),
            Self::Array(elements) => elements.iter().any(|element| element.any_object(is)),
            _ => false,
        }
    }
}

/// A name as a reader sees it that ignores case. Readers differ: the simple folding of Unicode makes the long
/// s an `s` and the Kelvin sign a `k`, upper case makes the dotless i an `i`, lower case the dotted capital.
/// Here all of these are one letter, so that names which any of them takes for one are one.
#[must_use]
pub fn folded(name: &str) -> String {
    if name.is_ascii() {
        count(name.len());
        return name.to_ascii_lowercase();
    }
    letters(name).collect()
}

/// What is left of the dotted capital in lower case, and the one letter that counts for nothing.
pub(crate) const DOT_ABOVE: char = '\u{307}';

/// The letters of a folded name, one after the other.
fn letters(name: &str) -> impl Iterator<Item = char> {
    let lower = name.chars().flat_map(char::to_lowercase);
    let letters = lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    letters.inspect(|_| count(1)).filter(|c| *c != DOT_ABOVE)
}

#[cfg(not(test))]
const fn count(_letters: usize) {}

/// Whether a reader that ignores case takes `a` for `b`, and they are not the same.
#[must_use]
pub fn is_other_spelling(a: &str, b: &str) -> bool {
    // They are folded as far as they are one: most differ in their first letter.
    is_plainly_other(a, b).unwrap_or_else(|| letters(a).eq(letters(b)))
}

/// The same, where it is seen without folding them; otherwise they are such when their folds are one.
pub(crate) fn is_plainly_other(a: &str, b: &str) -> Option<bool> {
    // No folding makes a name four times as long as another that it makes the same of, so that long names cost nothing.
    let (short, long) = (a.len().min(b.len()), a.len().max(b.len()));
    if long > short.saturating_mul(4) {
        return Some(false);
    }
    if a.is_ascii() && b.is_ascii() {
        return Some(a != b && a.eq_ignore_ascii_case(b));
    }
    (a == b).then_some(false)
}

impl fmt::Display for Value {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let string = |s: &str| serde_json::to_string(s).map_err(|_| fmt::Error);
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Number(n) => f.write_str(n),
            Self::String(s) => f.write_str(&string(s)?),
            Self::Array(elements) => {
                f.write_str("[")?;
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{element}")?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{}:{value}", string(name)?)?;
                }
                f.write_str("}")
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: usize,
    limits: &'a JsonLimits,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, reason: &'static str) -> JsonError {
        JsonError {
            offset: self.at,
            reason,
            over_limit: false,
        }
    }

    fn limit(&self, reason: &'static str) -> JsonError {
        JsonError {
            offset: self.at,
            reason,
            over_limit: true,
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn node(&mut self) -> Result<(), JsonError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            Err(self.limit("too many values"))
        } else {
            Ok(())
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.node()?;
        match self.peek() {
            Some(b'{' | b'[') if depth >= self.limits.depth => Err(self.limit("nested too deeply")),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            Some(_) => Err(self.error("not a JSON value")),
            None => Err(self.error("it ends early")),
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        if self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("not a JSON value"))
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut elements = Vec::new();
        self.space();
        if self.eat(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            if elements.len() >= self.limits.elements {
                return Err(self.limit("too many elements"));
            }
            self.space();
            elements.push(self.value(depth + 1)?);
            self.space();
            if self.eat(b']') {
                return Ok(Value::Array(elements));
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or `]` is missing"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut members = Vec::new();
        let mut names = std::collections::HashSet::new();
        self.space();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            self.node()?;
            if self.peek() != Some(b'"') {
                return Err(self.error("a member name is missing"));
            }
            let start = self.at;
            let name = self.string()?;
            if !rules::JSON.holds(names.insert(name.clone())) {
                return Err(JsonError {
                    offset: start,
                    reason: "a member name twice",
                    over_limit: false,
                });
            }
            self.space();
            if !self.eat(b':') {
                return Err(self.error("`:` is missing"));
            }
            self.space();
            members.push((name, self.value(depth + 1)?));
            self.space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or `}` is missing"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') && !self.digits() {
            return Err(self.error("a digit is missing"));
        }
        if self.eat(b'.') && !self.digits() {
            return Err(self.error("a digit is missing"));
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            if !self.digits() {
                return Err(self.error("a digit is missing"));
            }
        }
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a leading zero"));
        }
        Ok(Value::Number(
            self.text.get(start..self.at).unwrap_or_default().to_owned(),
        ))
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while matches!(self.peek(), Some(b) if b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            out.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("it ends early")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.eat(b'\\') && self.eat(b'u')) {
                    return Err(self.error("a lone surrogate"));
                }
                match self.hex4()? {
                    second @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return Err(self.error("a lone surrogate")),
                }
            }
            0 => return Err(self.error("a NUL")),
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.error("a lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| self.error("four hex digits are missing"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
thread_local! {
    /// How many letters were folded on this thread.
    pub(crate) static FOLDED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count(letters: usize) {
    FOLDED.set(FOLDED.get() + letters);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, reason: Option<&str>) {
        let result = parse(text.as_bytes(), &JsonLimits::default());
        assert_eq!(
            result.as_ref().err().map(|e| e.reason),
            reason,
            "{text:?}: {result:?}"
        );
    }

    #[test]
    fn only_strict_json_is_accepted() {
        check(
            r#" {"a": [1, -0, 1.5e+3, "\u00e9\ud83d\ude00\/"], "b": {"a": null}} "#,
            None,
        );
        check("0", None);
        check("", Some("it ends early"));
        check("\u{feff}{}", Some("not a JSON value"));
        check(r#"{"a":1,"a":2}"#, Some("a member name twice"));
        check(r#"{"a":1,"\u0061":2}"#, Some("a member name twice"));
        check(r#"{"x":{"a":1,"a":2}}"#, Some("a member name twice"));
        check(r#""\ud800""#, Some("a lone surrogate"));
        check(r#""\udc00""#, Some("a lone surrogate"));
        check(r#""\ud800\u0041""#, Some("a lone surrogate"));
        check(r#""\u0000""#, Some("a NUL"));
        check("\"\0\"", Some("a control character in a string"));
        check("\"\n\"", Some("a control character in a string"));
        check(r#""\x""#, Some("an unknown escape"));
        check("01", Some("a leading zero"));
        check("-", Some("a digit is missing"));
        check("1.", Some("a digit is missing"));
        check("1e", Some("a digit is missing"));
        check(".5", Some("not a JSON value"));
        check("NaN", Some("not a JSON value"));
        check("[1,]", Some("not a JSON value"));
        check("{\"a\":1,}", Some("a member name is missing"));
        check("{} {}", Some("more after the value"));
        check("{}//", Some("more after the value"));
        check("tru", Some("not a JSON value"));
        check(&"[".repeat(17), Some("nested too deeply"));
        check(&format!("{}{}", "[".repeat(16), "]".repeat(16)), None);
        check(&format!("[{}1]", "1,".repeat(256)), Some("too many elements"));
        check(
            &format!(
                "{{{}\"x\":1}}",
                (0..1024).map(|i| format!("\"{i}\":1,")).collect::<String>()
            ),
            Some("too many values"),
        );
        assert_eq!(
            parse(b"\"\xff\"", &JsonLimits::default()).unwrap_err().reason,
            "not UTF-8"
        );
    }

    #[test]
    fn pointers_and_case() {
        let value = parse(br#"{"a/b": [0, {"c~": "x"}], "A/B": 1}"#, &JsonLimits::default()).unwrap();
        assert_eq!(value.pointer("/a~1b/1/c~0").and_then(Value::as_str), Some("x"));
        assert_eq!(value.pointer("/a~1b/01"), None);
        assert_eq!(value.pointer("/a~1b/+1"), None);
        assert!(value.has_twins() && value.has_other_spelling("a/B"));
    }

    #[test]
    fn names_fold_as_any_reader_folds_them() {
        for (a, b) in [
            ("Name", "nAME"),
            ("s", "\u{17f}"),
            ("K", "\u{212a}"),
            ("i", "\u{131}"),
            ("i", "\u{130}"),
            ("i", "i\u{307}"),
            ("\u{3c3}", "\u{3c2}"),
            ("\u{e9}", "\u{c9}"),
            ("\u{b5}", "\u{3bc}"),
            ("stra\u{df}e", "STRASSE"),
        ] {
            assert!(is_other_spelling(a, b) && is_other_spelling(b, a), "{a} {b}");
        }
        for (a, b) in [("a", "a"), ("a", "b"), ("e", "\u{e9}"), ("a_b", "a-b"), ("", "a")] {
            assert!(!is_other_spelling(a, b), "{a} {b}");
        }
        for c in char::MIN..=char::MAX {
            let fold = folded(&c.to_string());
            for other in [c.to_uppercase().to_string(), c.to_lowercase().to_string()] {
                assert_eq!(folded(&other), fold, "{c:?}");
            }
        }
        let twins = |text: &str| {
            let value = parse(text.as_bytes(), &JsonLimits::default()).unwrap();
            (value.has_twins(), value.has_twins_within())
        };
        assert_eq!(twins(r#"{"a":[{"b":1},{"B":1}],"b":{}}"#), (false, false));
        assert_eq!(twins(r#"{"a":[{"b":1,"B":1}]}"#), (false, true));
        assert_eq!(twins(r#"{"a":1,"b":2,"A":1}"#), (true, true));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(|f| serde_json::json!(f)),
            "[^\0]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
                prop::collection::btree_map("[^\0]{0,6}", inner, 0..6)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn names_are_compared_as_they_fold(
            a in "[kKsSiIeEßſıİéÉ\u{212a}\u{307}\u{300}\u{390}µμσςΣﬁǅ_]{0,6}",
            b in "[kKsSiIeEßſıİéÉ\u{212a}\u{307}\u{300}\u{390}µμσςΣﬁǅ_]{0,6}",
        ) {
            let swapped: String = a.chars().map(|c| c.to_uppercase().next().unwrap_or(c)).collect();
            for other in [&a, &b, &swapped, &a.to_uppercase(), &a.to_lowercase()] {
                let (short, long) = (a.len().min(other.len()), a.len().max(other.len()));
                let is_other = a != *other && long <= short * 4 && folded(&a) == folded(other);
                prop_assert_eq!(is_other_spelling(&a, other), is_other);
                prop_assert_eq!(is_other_spelling(other, &a), is_other);
            }
        }

        #[test]
        fn agrees_with_a_general_parser(json in any_json()) {
            let value = parse(json.to_string().as_bytes(), &JsonLimits::default()).unwrap();
            let general = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(general(&value.to_string()), general(&json.to_string()));
        }

        #[test]
        fn accepts_nothing_that_a_general_parser_refuses(text in r#"[\[\]{},:"\\u0-9a-f. eE+\-tn]{0,24}"#) {
            if parse(text.as_bytes(), &JsonLimits::default()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn a_long_name_is_no_spelling_of_a_short_one() {
        let long = "fo\u{307}".repeat(1_000) + "rce";
        assert!(!is_other_spelling(&long, "force"));
        for (a, b) in [
            ("FORCE", "force"),
            ("\u{212a}", "k"),
            ("i\u{307}", "I"),
            ("\u{390}", "\u{3b9}\u{308}\u{301}"),
        ] {
            assert!(is_other_spelling(a, b), "{a} {b}");
            assert!(is_other_spelling(b, a), "{b} {a}");
        }
    }
}
