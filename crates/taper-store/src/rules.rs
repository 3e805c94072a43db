//! What a journal must be: the rules A-nn, as `spec/journal.md` lists them. Whatever is refused or
//! reported names the rule that it breaks.

use std::fmt;

/// The number of a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule(&'static str);

impl Rule {
    /// A reason that names the rule.
    pub(crate) fn says(self, reason: impl fmt::Display) -> String {
        format!("{reason} ({self})")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        $($(#[doc = $doc])+ pub(crate) const $name: Rule = Rule($number);)+

        /// Every rule with its sentence, in the order of their numbers.
        #[cfg(test)]
        const ALL: &[(Rule, &str)] = &[$(($name, concat!($($doc),+)),)+];
    };
}

rules! {
    /// A segment starts with the magic line, the number of its first record, which its name has as well, the peaks of the tree before it, the checkpoint of that tree, and a checksum.
    SEGMENT = "A-01";
    /// The checkpoint in a segment's header is the journal's, with the size and the root of its peaks.
    SEGMENT_CHECKPOINT = "A-02";
    /// A segment goes on where the one before it ends, with the same tree.
    CONTINUES = "A-03";
    /// A record has a length within the limit and the checksum over its number, length, salt and payload.
    FRAME = "A-04";
    /// Only the newest segment may end within a record.
    TAIL = "A-05";
    /// Every record that a checkpoint signs for is there.
    COMPLETE = "A-06";
    /// The records up to a checkpoint are the ones that it was signed for.
    ROOT = "A-07";
    /// A checkpoint is a note with the journal's origin, signed with its key, without an extension.
    CHECKPOINT = "A-08";
    /// The signing key is private and that of the verifier key, and both are of the store's name.
    KEYS = "A-09";
    /// A journal that does not begin with record 0 has a signed record that says how far it was dropped, with the root up to there.
    BEGINNING = "A-10";
    /// A folder with a state, a checkpoint or records is not a new store.
    GONE = "A-11";
    /// One process writes a journal.
    ONE_WRITER = "A-12";
    /// After a failed write nothing is accepted until the store is opened again.
    FAILED = "A-13";
    /// A payload is one record as JSON, of at most 256 KiB.
    RECORD = "A-14";
    /// The path of a receipt leads from its salt and payload to the root of its checkpoint.
    RECEIPT = "A-15";
    /// A journal has the records of every checkpoint of it that was kept elsewhere, and at least as many.
    KEPT_ELSEWHERE = "A-16";
    /// A store whose repair was begun does not open before the repair is finished.
    UNFINISHED = "A-17";
    /// A journal has all the records that the state beside it was made from.
    AHEAD = "A-18";
    /// When both slots of `journal.head` are good, the newer one signs for at least as many records as `checkpoint` and the header of the newest segment.
    SLOTS = "A-19";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_the_page_lists_them() {
        let page = include_str!("../../../spec/journal.md");
        for (n, (rule, sentence)) in ALL.iter().enumerate() {
            assert_eq!(rule.to_string(), format!("A-{:02}", n + 1));
            let row = format!("| {rule} | {} |", sentence.trim());
            assert!(page.contains(&row), "{row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| A-")).count();
        assert_eq!(rows, ALL.len());
    }
}
