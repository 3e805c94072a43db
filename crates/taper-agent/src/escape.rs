//! Showing text of other parties: it can neither start a line nor command a terminal.

use std::fmt::Write as _;

/// `text` with everything escaped that is not plainly visible: control characters, also the line
/// ends, format characters that reorder or hide text, private and unassigned ones, and the backslash
/// itself, so that no two texts look the same because of it.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || (is_visible(c) && c != '\\') {
            shown.push(c);
        } else if c == '\\' {
            shown.push_str("\\\\");
        } else {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    shown
}

/// As [`printable`], between double quotes, which are escaped inside.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text).replace('"', "\\\""))
}

/// The standard library's own notion for Debug: it escapes what is not printable and what would
/// join the character before it.
fn is_visible(c: char) -> bool {
    matches!(c, '\'' | '"') || (c.escape_debug().len() == 1 && !reorders(c))
}

fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_deceive_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected, "{text:?}");
        check("for the review of PR 12", "for the review of PR 12");
        check("größer, 東京", "größer, 東京");
        check("a\nb", "a\\u{a}b");
        check("\u{1b}[31mred", "\\u{1b}[31mred");
        check("\u{202e}olleh", "\\u{202e}olleh");
        check("a\u{200b}b", "a\\u{200b}b");
        check("a\u{0301}", "a\\u{301}");
        check("\u{2028}", "\\u{2028}");
        check("\u{a0}", "\\u{a0}");
        check("\\n", "\\\\n");
        check("it's \"x\"", "it's \"x\"");
        assert_eq!(quoted("it's \"x\""), "\"it's \\\"x\\\"\"");
        assert_eq!(quoted("\\\""), "\"\\\\\\\"\"");
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(char::is_control));
            let breaks_out = shown.contains(['\u{2028}', '\u{2029}', '\u{202e}']);
            prop_assert!(!breaks_out);
        }

        #[test]
        fn no_two_texts_look_the_same(a in "[\\\\nu{}a\n]{0,6}", b in "[\\\\nu{}a\n]{0,6}") {
            prop_assert_eq!(a == b, printable(&a) == printable(&b));
        }
    }
}
