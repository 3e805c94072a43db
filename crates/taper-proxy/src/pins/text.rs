//! JSON for people: one spelling of it that is JSON, and that nothing in it can hide behind. What is not
//! plainly visible (control characters, those that reorder, join or vanish) is written as `\uXXXX`.

use taper_capability::escaped;
use taper_capability::json::Value;

/// A value on one line; what is over `max` bytes is not even written.
pub(crate) fn shown_within(value: &Value, max: usize) -> String {
    let mut out = Out::of(max);
    write(value, None, &mut out);
    out.text
}

/// A text between quotes, all of it.
pub(crate) fn shown_str(text: &str) -> String {
    let mut out = Out::of(usize::MAX);
    string(text, &mut out);
    out.text
}

/// A name that a stranger chose, with what is not plainly visible escaped; its beginning, if it is longer
/// than any that can be called.
pub(crate) fn shown_name(name: &str) -> String {
    let mut out = Out::of(MAX_NAME);
    string(name, &mut out);
    let mut text = out.text.trim_matches('"').to_owned();
    if out.full {
        text.push('…');
    }
    text
}

/// A value over several lines, two blanks a level; `level` is where it stands.
pub(crate) fn pretty(value: &Value, level: usize) -> String {
    let mut out = Out::of(usize::MAX);
    write(value, Some(level), &mut out);
    out.text
}

/// The longest name that is shown, in bytes.
const MAX_NAME: usize = 140;

/// Text that grows up to a bound.
struct Out {
    text: String,
    max: usize,
    /// Whether something did not fit.
    full: bool,
}

impl Out {
    fn of(max: usize) -> Self {
        Self {
            text: String::new(),
            max,
            full: false,
        }
    }

    fn push(&mut self, part: &str) {
        self.full = self.full || part.len() > self.max.saturating_sub(self.text.len());
        if !self.full {
            self.text.push_str(part);
        }
    }
}

fn write(value: &Value, level: Option<usize>, out: &mut Out) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(elements) => {
            let each = |element: &Value, level, out: &mut Out| write(element, level, out);
            sequence(("[", "]"), elements, level, out, each);
        }
        Value::Object(members) => {
            let each = |(name, member): &(String, Value), level: Option<usize>, out: &mut Out| {
                string(name, out);
                out.push(if level.is_some() { ": " } else { ":" });
                write(member, level, out);
            };
            sequence(("{", "}"), members, level, out, each);
        }
        // Numbers keep their text; there is nothing else that could hold any.
        plain => out.push(&plain.to_string()),
    }
}

fn sequence<T>(
    (open, close): (&str, &str),
    items: &[T],
    level: Option<usize>,
    out: &mut Out,
    each: impl Fn(&T, Option<usize>, &mut Out),
) {
    out.push(open);
    let inner = level.map(|level| level + 1);
    for (n, item) in items.iter().enumerate() {
        if out.full {
            return;
        }
        if n > 0 {
            out.push(",");
        }
        line(inner, out);
        each(item, inner, out);
    }
    if !items.is_empty() {
        line(level, out);
    }
    out.push(close);
}

fn line(level: Option<usize>, out: &mut Out) {
    if let Some(level) = level {
        out.push("\n");
        out.push(&"  ".repeat(level));
    }
}

fn string(text: &str, out: &mut Out) {
    out.push("\"");
    for c in text.chars() {
        match c {
            _ if out.full => return,
            '"' => out.push("\\\""),
            '\\' => out.push("\\\\"),
            '\n' => out.push("\\n"),
            '\t' => out.push("\\t"),
            c if (' '..='~').contains(&c) || is_visible(c) => out.push(c.encode_utf8(&mut [0; 4])),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push("\"");
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

    fn shown(value: &Value) -> String {
        shown_within(value, usize::MAX)
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
    fn what_does_not_fit_is_not_written() {
        let long = of(&format!(r#"[1,"{}",2]"#, "\u{202e}".repeat(10)));
        assert_eq!(shown_within(&long, 17), r#"[1,"\u202e\u202e"#);
        assert_eq!(shown_within(&long, 200), shown(&long));
        assert_eq!(shown_name("git log\u{7}"), "git log\\u0007");
        let name = shown_name(&"\u{7}".repeat(1_000_000));
        assert!(name.ends_with('…') && name.len() < 150, "{name}");
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
