//! JSON for people: one spelling of it that is JSON, and that nothing in it can hide behind. What is not
//! plainly visible (control characters, those that reorder, join or vanish) is written as `\uXXXX`.

use std::fmt::Write as _;

use taper_capability::escaped;
use taper_capability::json::Value;

/// A value on one line.
pub(crate) fn shown(value: &Value) -> String {
    let mut out = String::new();
    write(value, None, &mut out);
    out
}

/// A text as [`shown`].
pub(crate) fn shown_str(text: &str) -> String {
    let mut out = String::new();
    string(text, &mut out);
    out
}

/// A value over several lines, two blanks a level; `level` is where it stands.
pub(crate) fn pretty(value: &Value, level: usize) -> String {
    let mut out = String::new();
    write(value, Some(level), &mut out);
    out
}

fn write(value: &Value, level: Option<usize>, out: &mut String) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(elements) => {
            let each = |element: &Value, level, out: &mut String| write(element, level, out);
            sequence(('[', ']'), elements, level, out, each);
        }
        Value::Object(members) => {
            let each = |(name, member): &(String, Value), level: Option<usize>, out: &mut String| {
                string(name, out);
                out.push(':');
                if level.is_some() {
                    out.push(' ');
                }
                write(member, level, out);
            };
            sequence(('{', '}'), members, level, out, each);
        }
        // Numbers keep their text; there is nothing else that could hold any.
        plain => out.push_str(&plain.to_string()),
    }
}

fn sequence<T>(
    (open, close): (char, char),
    items: &[T],
    level: Option<usize>,
    out: &mut String,
    each: impl Fn(&T, Option<usize>, &mut String),
) {
    out.push(open);
    let inner = level.map(|level| level + 1);
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        line(inner, out);
        each(item, inner, out);
    }
    if !items.is_empty() {
        line(level, out);
    }
    out.push(close);
}

fn line(level: Option<usize>, out: &mut String) {
    if let Some(level) = level {
        out.push('\n');
        out.push_str(&"  ".repeat(level));
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            c if is_visible(c) => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

fn is_visible(c: char) -> bool {
    escaped(c.encode_utf8(&mut [0; 4])).chars().eq([c])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taper_capability::json::{JsonLimits, parse};

    use super::*;

    fn of(text: &str) -> Value {
        parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    #[test]
    fn what_could_deceive_is_escaped_and_stays_json() {
        let check = |text: &str, expected: &str| {
            assert_eq!(shown_str(text), expected);
            assert_eq!(of(expected), Value::String(text.to_owned()));
        };
        check("größer \"x\" \\ 東京", "\"größer \\\"x\\\" \\\\ 東京\"");
        check("\u{1b}[2Ja\u{7}\r\n\t", "\"\\u001b[2Ja\\u0007\\u000d\\n\\t\"");
        check("a\u{202e}b\u{2066}c\u{200b}", "\"a\\u202eb\\u2066c\\u200b\"");
        check("\u{e0041}\u{feff}\u{9b}", "\"\\udb40\\udc41\\ufeff\\u009b\"");
        assert_eq!(
            shown(&of(r#"{"a\u001b":[1.50,{}],"b":null}"#)),
            r#"{"a\u001b":[1.50,{}],"b":null}"#
        );
    }

    #[test]
    fn several_lines() {
        let value = of(r#"{"a":[1,{"b":[]}],"c":{}}"#);
        let expected =
            "{\n    \"a\": [\n      1,\n      {\n        \"b\": []\n      }\n    ],\n    \"c\": {}\n  }";
        assert_eq!(pretty(&value, 1), expected);
    }

    proptest! {
        #[test]
        fn a_text_reads_back(text in any::<String>()) {
            prop_assume!(!text.contains('\0'));
            let shown = shown_str(&text);
            prop_assert_eq!(of(&shown), Value::String(text));
            prop_assert!(shown.chars().all(|c| (' '..='~').contains(&c) || is_visible(c)));
        }
    }
}
