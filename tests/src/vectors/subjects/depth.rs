//! How often a capability may be handed on (D-05).

use std::rc::Rc;

use super::delegation::to_carol;
use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    depths(book);
}

fn depths(book: &mut Book) {
    for (name, description, fact) in [
        (
            "negative",
            "`max_depth` of a later block is negative.",
            "max_depth(-1)",
        ),
        (
            "too-large",
            "`max_depth` of a later block is 2^32.",
            "max_depth(4294967296)",
        ),
    ] {
        book.refuse(&format!("depth/{name}"), description, "D-04", "D-04", |s| {
            s.hand_to_bob().add(fact);
        });
    }
    book.accept("depth/exact", "As many hand-overs as block 0 allows.", |s| {
        s.grant.swap("max_depth", "max_depth(2)");
        to_carol(s);
    });
    book.refuse(
        "depth/one-more",
        "One hand-over more than block 0 allows.",
        "D-05",
        "accepted",
        |s| {
            s.grant.swap("max_depth", "max_depth(1)");
            to_carol(s);
        },
    );
    book.refuse(
        "depth/none-allowed",
        "Block 0 allows no hand-over.",
        "D-05",
        "accepted",
        |s| {
            s.grant.swap("max_depth", "max_depth(0)");
            s.hand_to_bob();
        },
    );
    book.accept("depth/narrowing-is-free", "Narrowings are no hand-overs.", |s| {
        s.grant.swap("max_depth", "max_depth(0)");
        s.narrow();
        s.narrow();
    });
    book.refuse(
        "depth/lowered",
        "Alice allows one hand-over in all, and Bob makes a second one.",
        "D-05",
        "accepted",
        |s| {
            let carol = Rc::clone(&s.keys.carol);
            s.hand_to_bob().add("max_depth(1)");
            s.hand_over(&carol);
        },
    );
    book.refuse(
        "depth/raised-again",
        "Bob's larger `max_depth` does not undo Alice's.",
        "D-05",
        "accepted",
        |s| {
            let carol = Rc::clone(&s.keys.carol);
            s.hand_to_bob().add("max_depth(1)");
            s.hand_over(&carol).add("max_depth(9)");
        },
    );
    book.refuse(
        "depth/lowered-too-late",
        "Bob, at depth 1, says that there may be no hand-over at all: that counts from block 0.",
        "D-05",
        "accepted",
        |s| {
            s.hand_to_bob();
            s.narrow().add("max_depth(0)");
        },
    );
    book.refuse(
        "depth/back-and-forth",
        "Hand-overs between the same two keys count each.",
        "D-05",
        "accepted",
        |s| {
            let alice = Rc::clone(&s.keys.alice);
            for _ in 0..2 {
                s.hand_to_bob();
                s.hand_over(&alice);
            }
        },
    );
}
