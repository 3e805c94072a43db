//! The tables notice. With one rule switched off in the sabotaged program, rows of that rule fail, and of
//! the others none.

use crate::row::{Findings, Row};
use crate::tables;
use crate::world::{Base, Setup, World};

/// A rule, and a row that passes the proxy without it.
pub(crate) const OFF: [(&str, &str); 27] = [
    ("R-05", "proofs: another method"),
    ("R-06", "proofs: another server"),
    ("R-07", "proofs: a proof of 320 seconds ago"),
    ("R-09", "proofs: another token"),
    ("R-11", "proofs: the signature of another proof"),
    ("R-12", "proofs: a byte changed on the way"),
    ("R-13", "proofs: the same request again"),
    (
        "R-14",
        "capabilities: the parent's capability with the child's key",
    ),
    ("R-20", "capabilities: for another server's audience"),
    ("R-21", "methods: tool \"git_reset\""),
    ("R-23", "methods: what a policy denies"),
    ("P-15", "capabilities: a child that has expired"),
    ("D-01", "capabilities: a plain block behind it"),
    ("D-02", "capabilities: a hand-over that a stranger signed"),
    ("M-12", "capabilities: of a grant that was revoked"),
    ("M-14", "proofs: no digest for a tool that writes"),
    ("M-17", "arguments: nested argument: in another case too"),
    ("M-18", "heads: another name"),
    ("M-24", "sessions: of its child"),
    ("M-44", "pins: described in other words"),
    ("M-45", "pins: of which nothing is known"),
    ("M-47", "login: a list from a cursor on"),
    ("M-48", "login: more than the rate"),
    ("M-50", "tokens: of a subject that is refused"),
    ("M-51", "tokens: of another provider's alice"),
    ("M-52", "tokens: with a token that ends at once"),
    ("M-53", "tokens: of one that was refused a moment ago"),
];

/// Of the rows that are another rule's, one in so many is run as well.
const OTHERS: usize = 16;

/// What is wrong with one sabotaged proxy.
pub(crate) fn without(base: &Base, rule: &'static str, named: &str) -> Vec<String> {
    let setup = Setup {
        without: Some(rule),
        ..Setup::default()
    };
    let world = World::start(base, &format!("without-{rule}"), setup);
    let (mut own, mut others) = (Findings::default(), Findings::default());
    // The rule's own rows come last: what they get past the proxy may leave it in doubt about others.
    let mut rows_of_rule = Vec::new();
    for (family, rows) in tables() {
        let (of_rule, rest): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.rule == rule);
        for row in rest.iter().step_by(OTHERS) {
            others.run_quickly(&world, family, row);
        }
        rows_of_rule.extend(of_rule.into_iter().map(|row| (family, row)));
    }
    for (family, row) in &rows_of_rule {
        own.run_quickly(&world, family, row);
    }
    let mut wrong = Vec::new();
    if !own.wrong.contains_key(named) {
        wrong.push(format!("without {rule}: `{named}` is not noticed"));
    }
    for (row, what) in others.wrong {
        wrong.push(format!("without {rule}: {row} fails: {what:?}"));
    }
    wrong
}
