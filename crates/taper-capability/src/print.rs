//! Showing to people what a stranger wrote, so that it cannot pose as anything else.

use std::fmt::Write as _;

/// `text` with everything escaped that is not plainly visible: control characters, also the line
/// ends, characters that reorder, hide or join what stands beside them, private and unassigned
/// ones, and the backslash itself, so that no two texts look the same because of it.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\\' {
            shown.push_str("\\\\");
        } else if is_visible(c) {
            shown.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    shown
}

/// `text` as [`escaped`], between double quotes, which are escaped inside.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\\""))
}

/// `text` as one of a list: quoted where a comma or a blank in it could make it look like two.
pub(crate) fn listed(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@*+~#?&=[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) && escaped(text) == text {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// The standard library's own notion for Debug, which escapes what is not printable and what would
/// join the character before it; and what reorders or is blank.
fn is_visible(c: char) -> bool {
    let plain = matches!(c, ' ' | '\'' | '"') || c.escape_debug().len() == 1;
    plain
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2800}' | '\u{1d159}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_deceive_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected, "{text:?}");
        check("for the review of PR 12", "for the review of PR 12");
        check("größer, 東京", "größer, 東京");
        check("a\nb\r\tc", "a\\u{a}b\\u{d}\\u{9}c");
        check("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}");
        check("\u{9b}31m", "\\u{9b}31m");
        check("\u{202e}olleh\u{2066}", "\\u{202e}olleh\\u{2066}");
        check("a\u{200b}b\u{feff}\u{3164}", "a\\u{200b}b\\u{feff}\\u{3164}");
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
            prop_assert!(escaped(&text).chars().all(|c| c == '\\' || is_visible(c)));
        }

        #[test]
        fn no_two_texts_look_the_same(a in "[\\\\nu{}a\n]{0,6}", b in "[\\\\nu{}a\n]{0,6}") {
            prop_assert_eq!(a == b, escaped(&a) == escaped(&b));
        }
    }
}
