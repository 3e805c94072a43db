//! Showing to people what a stranger wrote, so that it cannot pose as anything else.

use std::fmt::Write as _;

/// `text` with everything escaped that could forge a line, a colour or a direction: control and
/// format characters, line and paragraph separators, and the backslash itself, so that no two
/// texts look alike after it.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if c == '\\' {
                out.push_str("\\\\");
            } else if is_deceptive(c) {
                // Writing to a string cannot fail.
                let _ = write!(out, "{}", c.escape_default());
            } else {
                out.push(c);
            }
            out
        })
}

/// `text` in double quotes, escaped.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\\""))
}

/// Whether a character does something else than stand there.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_forges_a_line() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected, "{text:?}");
        check("plain é 日本", "plain é 日本");
        check("a\nb\r\tc", "a\\nb\\r\\tc");
        check("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}");
        check("\u{9b}31m", "\\u{9b}31m");
        check(
            "a\u{202e}b\u{2066}c\u{200b}d\u{feff}",
            "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}",
        );
        check("\\n", "\\\\n");
        assert_eq!(quoted("say \"hi\"\n"), "\"say \\\"hi\\\"\\n\"");
    }

    proptest! {
        #[test]
        fn escaping_is_injective_and_printable(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(escaped(&a) == escaped(&b), a == b);
            prop_assert!(!escaped(&a).chars().any(is_deceptive));
        }
    }
}
