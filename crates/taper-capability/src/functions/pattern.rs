//! `full_match(pattern)`: a whole text by a small, portable dialect of regular expressions.
//!
//! The dialect means the same to every common engine, has no construct whose cost depends on more
//! than sizes, and is bounded; the automaton of the `regex` crate then runs in linear time.

use regex::{Regex, RegexBuilder};
use std::iter::Peekable;
use std::str::Chars;

const MAX_PATTERN: usize = 256;
const MAX_SIZE: usize = 256;
const MAX_COUNT: usize = 64;
const MAX_DEPTH: usize = 8;
const MAX_TEXT: usize = 1_024;
/// What a compiled pattern may take, in bytes; a backstop above what the size allows.
const MAX_PROGRAM: usize = 1 << 18;
/// The size of a class that reaches beyond ASCII, for each item and once more: in UTF-8 it is a small
/// automaton of its own.
const WIDE: usize = 4;

/// A pattern of the dialect, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, &'static str> {
        let written = Self::read(pattern)?;
        RegexBuilder::new(&format!("\\A(?:{written})\\z"))
            .size_limit(MAX_PROGRAM)
            .dfa_size_limit(0)
            .build()
            .map(Self)
            .map_err(|_| "`full_match` takes a pattern of its dialect")
    }

    /// The pattern as the engine is to be given it, not yet compiled: that costs far more than reading.
    pub(crate) fn read(pattern: &str) -> Result<String, &'static str> {
        if pattern.is_empty() || pattern.len() > MAX_PATTERN {
            return Err("`full_match` takes a pattern of 1 to 256 bytes");
        }
        let mut reader = Reader {
            rest: pattern.chars().peekable(),
            written: String::with_capacity(2 * MAX_PATTERN),
        };
        let size = reader
            .alternatives(0)
            .filter(|_| reader.rest.peek().is_none())
            .ok_or("`full_match` takes a pattern of its dialect")?;
        if size > MAX_SIZE {
            return Err("`full_match` takes a pattern of size 256 at most");
        }
        Ok(reader.written)
    }

    /// What the engine needs while it matches belongs to the clone and leaves with it. Otherwise it would
    /// stay in the pattern, which lasts as long as its chain: up to 3.4 MB were measured with the lazy
    /// automaton (`.*a.{0,15}b.{0,8}`, texts of 1,024 random letters), 46 KB without it. With both measures
    /// nothing stays beside the compiled pattern, at most 38 KB, and a match takes 13 KB and 2 µs more.
    pub(crate) fn matches(&self, text: &str) -> bool {
        text.len() <= MAX_TEXT && self.0.clone().is_match(text)
    }
}

/// Reads the dialect, writes it for the engine (groups do not capture, and whatever the engine may
/// take for syntax is escaped) and adds up its size. `None` is a pattern outside the dialect.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    written: String,
}

impl Reader<'_> {
    fn alternatives(&mut self, depth: usize) -> Option<usize> {
        let mut size = self.branch(depth)?;
        while self.rest.next_if_eq(&'|').is_some() {
            self.written.push('|');
            size = size.saturating_add(self.branch(depth)?);
        }
        Some(size)
    }

    fn branch(&mut self, depth: usize) -> Option<usize> {
        let mut size = self.repeat(depth)?;
        while self.rest.peek().is_some_and(|c| !matches!(c, '|' | ')')) {
            size = size.saturating_add(self.repeat(depth)?);
        }
        Some(size)
    }

    fn repeat(&mut self, depth: usize) -> Option<usize> {
        let size = self.atom(depth)?;
        match self.rest.peek() {
            Some('*' | '+' | '?') => {
                self.written.extend(self.rest.next());
                Some(size)
            }
            Some('{') => {
                self.rest.next();
                let times = self.counts()?;
                Some(size.saturating_mul(times))
            }
            _ => Some(size),
        }
    }

    /// `n}`, `n,}` or `n,m}`: how many copies of the atom it stands for.
    fn counts(&mut self) -> Option<usize> {
        let least = self.number()?;
        if self.rest.next_if_eq(&'}').is_some() {
            self.written.push_str(&format!("{{{least}}}"));
            return Some(least);
        }
        self.rest.next_if_eq(&',')?;
        if self.rest.next_if_eq(&'}').is_some() {
            self.written.push_str(&format!("{{{least},}}"));
            return Some(least + 1);
        }
        let most = self.number()?;
        self.rest.next_if_eq(&'}')?;
        self.written.push_str(&format!("{{{least},{most}}}"));
        (least <= most).then_some(most)
    }

    fn number(&mut self) -> Option<usize> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
            if digits.len() > 2 {
                return None;
            }
        }
        let spelt = digits == "0" || !digits.starts_with('0');
        digits.parse().ok().filter(|n| spelt && *n <= MAX_COUNT)
    }

    fn atom(&mut self, depth: usize) -> Option<usize> {
        match self.rest.next()? {
            '(' if depth < MAX_DEPTH => {
                self.written.push_str("(?:");
                let size = self.alternatives(depth + 1)?;
                self.rest.next_if_eq(&')')?;
                self.written.push(')');
                Some(size)
            }
            '[' => self.class(),
            '.' => {
                self.written.push_str("[^\\n]");
                Some(2 * WIDE)
            }
            '\\' => {
                let escaped = self.escaped()?;
                self.literal(escaped);
                Some(1)
            }
            c if !c.is_control() && !"*+?{}[]()|^$".contains(c) => {
                self.literal(c);
                Some(1)
            }
            _ => None,
        }
    }

    fn class(&mut self) -> Option<usize> {
        self.written.push('[');
        let mut wide = self.rest.next_if_eq(&'^').is_some();
        if wide {
            self.written.push('^');
        }
        let mut items = 0_usize;
        loop {
            items += 1;
            let from = self.member()?;
            wide |= !from.is_ascii();
            self.literal(from);
            if self.rest.next_if_eq(&'-').is_some() {
                let to = self.member()?;
                if from > to {
                    return None;
                }
                wide |= !to.is_ascii();
                self.written.push('-');
                self.literal(to);
            }
            if self.rest.next_if_eq(&']').is_some() {
                self.written.push(']');
                return Some(if wide { WIDE * (items + 1) } else { 1 });
            }
        }
    }

    fn member(&mut self) -> Option<char> {
        match self.rest.next()? {
            '\\' => self.escaped(),
            c if !c.is_control() && !"[]^-&~".contains(c) => Some(c),
            _ => None,
        }
    }

    fn escaped(&mut self) -> Option<char> {
        self.rest.next_if(|c| "\\.*+?{}[]()|^$-&~".contains(*c))
    }

    fn literal(&mut self, c: char) {
        self.written.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_matches() {
        let check = |pattern: &str, text: &str, expected: bool| {
            let got = Pattern::parse(pattern).unwrap().matches(text);
            assert_eq!(got, expected, "{pattern} {text:?}");
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("a", "ba", false);
        check("a|b", "ab", false);
        check("a|bc", "bc", true);
        check("v[0-9]{1,3}(\\.[0-9]+)*", "v1.20.3", true);
        check("v[0-9]{1,3}(\\.[0-9]+)*", "v1.20.3\n", false);
        check(".", "\n", false);
        check(".", "é", true);
        check("[^a]", "\n", true);
        check("[\\]\\-]+", "]-]", true);
        check("[a-c#/\"]+", "a#/\"", true);
        check("a{2,}", "aaa", true);
        check("a{2,}", "a", false);
        check("a{0}b", "b", true);
        check("#x ", "#x ", true);
        check("A", "a", false);
        check("(a|(b|c)d)+", "acdbd", true);
        check("a*", &"a".repeat(MAX_TEXT), true);
        check("a*", &"a".repeat(MAX_TEXT + 1), false);
    }

    /// What of this process is in memory, in KiB.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn matching_leaves_nothing_behind() {
        let mut state = 1_u64;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if state >> 63 == 0 { 'a' } else { 'b' }
        };
        let texts: Vec<String> = (0..3)
            .map(|_| (0..MAX_TEXT).map(|_| letter()).collect())
            .collect();
        let patterns: Vec<Pattern> = (0..60)
            .map(|_| Pattern::parse(".*a.{0,15}b.{0,8}").unwrap())
            .collect();
        let before = resident();
        for pattern in &patterns {
            for text in &texts {
                std::hint::black_box(pattern.matches(text));
            }
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 10, "{grown} KiB for {} patterns", patterns.len());
    }

    #[test]
    fn what_is_outside_the_dialect_is_refused() {
        for pattern in [
            "",
            "(",
            ")",
            "()",
            "a||b",
            "|a",
            "a|",
            "*",
            "a**",
            "a+?",
            "a{",
            "a{}",
            "a{1",
            "a{,2}",
            "a{65}",
            "a{02}",
            "a{2,1}",
            "a{100}",
            "^a",
            "a$",
            "(?i)a",
            "(?:a)",
            "\\d",
            "\\w",
            "\\b",
            "\\<",
            "\\n",
            "\\",
            "[",
            "[]",
            "[^]",
            "[a",
            "[a-]",
            "[-a]",
            "[b-a]",
            "[[:alpha:]]",
            "[a&&b]",
            "[a~~b]",
            "[a--b]",
            "a\nb",
            "]",
            "}",
            "a{ 1}",
            "(((((((((a)))))))))",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern:?}");
        }
        assert!(Pattern::parse("((((((((a))))))))").is_ok());
        assert!(Pattern::parse(&"a".repeat(MAX_PATTERN)).is_ok());
        assert!(Pattern::parse(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Pattern::parse("(a{4}){64}").is_ok());
        assert!(Pattern::parse("(a{4}){63,}").is_ok());
        assert!(Pattern::parse("(a{4}){64,}").is_err());
        assert!(Pattern::parse("((a{64}){64}){64}").is_err());
        assert!(Pattern::parse("a{64}{64}").is_err());
        assert!(Pattern::parse(".{32}").is_ok());
        assert!(Pattern::parse("[^a]{32}").is_ok());
        assert!(Pattern::parse("[^ab]{22}").is_err());
        assert!(Pattern::parse("[a-cé]{21}").is_ok());
        assert!(Pattern::parse("[a-cé]{22}").is_err());
        assert!(Pattern::parse("[a-z0-9]{64}").is_ok());
        assert!(Pattern::parse("(((((((a{0}){64}){64}){64}){64}){64}){64}){64}").is_ok());
        assert!(Pattern::parse(".{33}").is_err());
    }
}
