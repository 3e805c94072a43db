//! Expiry: exactly one in each block, of one shape, and enforced (P-10, P-15).

use biscuit_auth::format::schema::op::Content as Op;
use biscuit_auth::format::schema::{self, term::Content};

use crate::block::{EXPIRY, LINK_ENDS, expiry};
use crate::book::Book;
use crate::scene::NOW;

pub(crate) fn vectors(book: &mut Book) {
    expiries(book);
    dates(book);
    ends(book);
}

fn expiries(book: &mut Book) {
    book.refuse(
        "expiry/none-in-block-0",
        "Block 0 has no expiry.",
        "P-10",
        "P-10",
        |s| {
            s.hand_to_bob();
            s.grant.drop(EXPIRY);
        },
    );
    book.refuse(
        "expiry/none-later",
        "Block 1 has no expiry.",
        "P-10",
        "P-10",
        |s| {
            s.hand_to_bob().drop(EXPIRY);
        },
    );
    book.refuse(
        "expiry/two",
        "Block 1 has two expiries.",
        "P-10",
        "accepted",
        |s| {
            s.hand_to_bob().add(&expiry("2027-01-15T08:20:00Z"));
        },
    );
    book.refuse(
        "expiry/same-twice",
        "Block 1 has the same expiry twice.",
        "P-10",
        "accepted",
        |s| {
            s.hand_to_bob().add(&expiry(LINK_ENDS));
        },
    );
    let mut shape = |name: &str, description: &str, without: &str, check: &str| {
        book.refuse(&format!("expiry/{name}"), description, "P-10", without, |s| {
            s.hand_to_bob().swap(EXPIRY, check);
        });
    };
    shape(
        "or-equal",
        "`<=` stands for `<`.",
        "P-10",
        "check if time($t), $t <= 2027-01-15T08:30:00Z",
    );
    shape(
        "turned",
        "The date stands on the left.",
        "P-10",
        "check if time($t), 2027-01-15T08:30:00Z > $t",
    );
    shape(
        "check-all",
        "`check all` stands for `check if`.",
        "P-10",
        "check all time($t), $t < 2027-01-15T08:30:00Z",
    );
    shape(
        "reject",
        "`reject if` stands for `check if`: it refuses before the date and passes after it.",
        "P-10",
        "reject if time($t), $t > 2027-01-15T08:30:00Z",
    );
    shape(
        "other-variable",
        "The variable that is compared is not the time.",
        "P-10",
        "check if time($t), $u < 2027-01-15T08:30:00Z",
    );
    shape(
        "two-expressions",
        "The expiry has a second expression.",
        "P-10",
        "check if time($t), $t < 2027-01-15T08:30:00Z, $t < 2027-01-15T08:40:00Z",
    );
    shape(
        "two-predicates",
        "The expiry names a second word.",
        "P-10",
        "check if time($t), tool($x), $t < 2027-01-15T08:30:00Z",
    );
    shape(
        "parentheses",
        "The comparison stands in parentheses.",
        "P-10",
        "check if time($t), ($t < 2027-01-15T08:30:00Z)",
    );
    shape(
        "another-word",
        "The word is not `time`.",
        "P-10",
        "check if depth($t), $t < 2027-01-15T08:30:00Z",
    );
    shape(
        "of-a-number",
        "The time is compared with a number.",
        "P-10",
        "check if time($t), $t < 1800001800",
    );
    shape(
        "or-true",
        "The expiry passes for ever: its second half is `true`.",
        "P-10",
        "check if time($t), $t < 2027-01-15T08:30:00Z or true",
    );
    shape(
        "trusting",
        "The expiry trusts the blocks before it.",
        "P-10",
        "check if time($t), $t < 2027-01-15T08:30:00Z trusting previous",
    );
}

fn dates(book: &mut Book) {
    let mut date = |name: &str, description: &str, date: u64| {
        book.refuse(&format!("expiry/{name}"), description, "P-10", "P-10", |s| {
            s.hand_to_bob();
            s.payload(1, move |block| {
                let ops = &mut block.checks[0].queries[0].expressions[0].ops;
                ops[1].content = Some(Op::Value(schema::Term {
                    content: Some(Content::Date(date)),
                }));
            });
        });
    };
    date(
        "largest-date",
        "The largest number of 64 bits as a date.",
        u64::MAX,
    );
    date(
        "date-of-63-bits",
        "The smallest date that no signed number of 64 bits holds.",
        1 << 63,
    );
}

fn ends(book: &mut Book) {
    book.accept("expiry/last-second", "One second before the end.", |s| {
        s.time = NOW + 3599;
    });
    book.refuse("expiry/at-the-end", "At the very end.", "P-15", "accepted", |s| {
        s.time = NOW + 3600;
    });
    book.refuse(
        "expiry/a-day-after",
        "A day after the end.",
        "P-15",
        "accepted",
        |s| {
            s.time = NOW + 86_400;
        },
    );
    book.accept(
        "expiry/last-second-of-a-link",
        "One second before the end of block 1.",
        |s| {
            s.hand_to_bob();
            s.time = NOW + 1799;
        },
    );
    book.refuse(
        "expiry/end-of-a-link",
        "Block 1 ends before block 0 does.",
        "P-15",
        "accepted",
        |s| {
            s.hand_to_bob();
            s.time = NOW + 1800;
        },
    );
    book.refuse(
        "expiry/child-outlives",
        "A child that says to end later than its parent ends with it.",
        "P-15",
        "accepted",
        |s| {
            s.hand_to_bob();
            s.narrow().ends("2027-01-15T08:50:00Z");
            s.time = NOW + 1800;
        },
    );
    book.refuse(
        "expiry/of-plumbing",
        "Plumbing ends with the capability too.",
        "P-15",
        "accepted",
        |s| {
            s.ask("plumbing", "ping");
            s.time = NOW + 3600;
        },
    );
    book.refuse(
        "expiry/long-past",
        "The grant ended in 1970.",
        "P-15",
        "accepted",
        |s| {
            s.grant.ends("1970-01-01T00:00:01Z");
        },
    );
}
