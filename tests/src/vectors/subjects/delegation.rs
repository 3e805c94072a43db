//! Every block after block 0 (D-01 to D-04, D-06), and whose proof counts.

use std::rc::Rc;

use crate::block::{Block, holder, holder_of};
use crate::book::Book;
use crate::kit::Signer;
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    third_party(book);
    signers(book);
    holders(book);
    facts(book);
    presenters(book);
}

fn third_party(book: &mut Book) {
    book.refuse(
        "link/plain",
        "A thief of the unsealed bytes appends a plain block that names nobody new.",
        "D-01",
        "D-02",
        |s| {
            s.narrow();
            s.links[0].signer = Signer::Nobody;
        },
    );
    book.refuse(
        "link/plain-hand-over",
        "A thief of the unsealed bytes appends a plain block that names the thief.",
        "D-01",
        "D-02",
        |s| {
            let mallory = Rc::clone(&s.keys.mallory);
            s.hand_over(&mallory);
            s.links[0].signer = Signer::Nobody;
        },
    );
    book.refuse(
        "link/plain-old-form",
        "A plain block in the old form of signatures.",
        "D-01",
        "D-02",
        |s| {
            s.narrow();
            s.links[0].signer = Signer::Nobody;
            s.links[0].version = None;
        },
    );
    book.refuse(
        "link/old-form",
        "A third-party block in the old form of signatures, which does not bind it to its place.",
        "D-01",
        "P-04",
        |s| {
            s.hand_to_bob();
            s.links[0].version = None;
        },
    );
    book.refuse(
        "link/old-form-stated",
        "A third-party block that says to be of form 0.",
        "D-01",
        "P-04",
        |s| {
            s.hand_to_bob();
            s.links[0].version = Some(0);
        },
    );
    book.refuse(
        "link/form-2",
        "A third-party block of a form that does not exist yet.",
        "D-01",
        "P-04",
        |s| {
            s.hand_to_bob();
            s.links[0].version = Some(2);
        },
    );
}

fn signers(book: &mut Book) {
    book.accept("link/good", "Alice hands on to Bob, Bob to Carol.", to_carol);
    book.accept(
        "link/back-again",
        "Bob hands back to Alice; that is a hand-over like any other.",
        |s| {
            let alice = Rc::clone(&s.keys.alice);
            s.hand_to_bob();
            s.hand_over(&alice);
        },
    );
    book.refuse(
        "link/stranger",
        "A stranger who saw the unsealed bytes signs a hand-over to themselves.",
        "D-02",
        "accepted",
        |s| {
            let mallory = Rc::clone(&s.keys.mallory);
            s.link(&mallory, Block::later(&holder(&mallory)));
            s.presenter = mallory;
        },
    );
    book.refuse(
        "link/skip-level",
        "Alice, who handed on to Bob, signs the block after his.",
        "D-02",
        "accepted",
        |s| {
            let (alice, carol) = (Rc::clone(&s.keys.alice), Rc::clone(&s.keys.carol));
            s.hand_to_bob();
            s.link(&alice, Block::later(&holder(&carol)));
            s.presenter = carol;
        },
    );
    book.refuse(
        "link/own-child",
        "Bob signs the block that names him.",
        "D-02",
        "accepted",
        |s| {
            let bob = Rc::clone(&s.keys.bob);
            s.link(&bob, Block::later(&holder(&bob)));
            s.presenter = bob;
        },
    );
    book.refuse(
        "link/by-the-root-key",
        "The issuer's root key signs a later block.",
        "D-02",
        "accepted",
        |s| {
            let (root, bob) = (Rc::clone(&s.root), Rc::clone(&s.keys.bob));
            s.link(&root, Block::later(&holder(&bob)));
            s.presenter = bob;
        },
    );
    book.refuse(
        "link/stranger-in-the-middle",
        "The first of two blocks is by a stranger, the second by the holder that it names.",
        "D-02",
        "accepted",
        |s| {
            let (mallory, bob) = (Rc::clone(&s.keys.mallory), Rc::clone(&s.keys.bob));
            s.link(&mallory, Block::later(&holder(&bob)));
            s.presenter = bob;
            s.narrow();
        },
    );
    book.refuse(
        "link/unknown-kind-of-signer",
        "The external key is of a kind that there is not.",
        "P-12",
        "D-01",
        |s| {
            s.hand_to_bob();
            s.token(|token| {
                let external = token.blocks[0].external_signature.as_mut().unwrap();
                external.public_key.algorithm = 2;
            });
        },
    );
    book.refuse(
        "link/spelling-of-the-signer",
        "The external key is the holder's in the uncompressed spelling.",
        "P-12",
        "D-01",
        |s| {
            let pat = Rc::clone(&s.keys.pat);
            s.hand_over(&pat);
            s.narrow();
            s.token(|token| {
                let key = &mut token.blocks[1]
                    .external_signature
                    .as_mut()
                    .unwrap()
                    .public_key
                    .key;
                let point = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).unwrap();
                *key = point.to_encoded_point(false).as_bytes().to_vec();
            });
        },
    );
}

pub(super) fn to_carol(s: &mut Scene) {
    let carol = Rc::clone(&s.keys.carol);
    s.hand_to_bob();
    s.hand_over(&carol);
}

fn holders(book: &mut Book) {
    book.refuse(
        "link/no-holder",
        "Block 1 names no holder.",
        "D-03",
        "D-03",
        |s| {
            s.narrow().drop("holder");
        },
    );
    book.refuse(
        "link/two-holders",
        "Block 1 names Alice and Bob.",
        "D-03",
        "accepted",
        |s| {
            let bob = holder(&s.keys.bob);
            s.narrow().add(&bob);
        },
    );
    book.refuse(
        "link/same-holder-twice",
        "Block 1 names Alice twice.",
        "D-03",
        "accepted",
        |s| {
            let alice = holder(&s.keys.alice);
            s.narrow().add(&alice);
        },
    );
    for (name, description, bytes) in [
        ("weak-holder", "Block 1 names the neutral point of Ed25519.", {
            let mut bytes = vec![0; 32];
            bytes[0] = 1;
            bytes
        }),
        ("short-holder", "Block 1 names a key of 16 bytes.", vec![7; 16]),
    ] {
        book.refuse(&format!("link/{name}"), description, "P-12", "D-03", |s| {
            s.narrow().swap("holder", &holder_of("ed25519", &bytes));
        });
    }
}

fn facts(book: &mut Book) {
    book.accept("link/note", "A note of 1,024 bytes.", |s| {
        s.hand_to_bob().add(&format!("note(\"{}\")", "n".repeat(1024)));
    });
    let mut add = |name: &str, description: &str, rule: &str, facts: &[String]| {
        book.refuse(&format!("link/{name}"), description, rule, "accepted", |s| {
            let block = s.hand_to_bob();
            for fact in facts {
                block.add(fact);
            }
        });
    };
    let one = |fact: &str| vec![fact.to_owned()];
    add(
        "long-note",
        "A note of 1,025 bytes.",
        "D-04",
        &one(&format!("note(\"{}\")", "n".repeat(1025))),
    );
    add(
        "note-of-bytes",
        "A note that is bytes.",
        "D-04",
        &one("note(hex:00)"),
    );
    add(
        "note-of-two",
        "A note with two terms.",
        "D-04",
        &one("note(\"a\", \"b\")"),
    );
    add(
        "right",
        "A right, which only block 0 gives.",
        "D-04",
        &one("right(\"web\", \"any\")"),
    );
    add(
        "claim",
        "A claim, which only block 0 makes.",
        "D-04",
        &one("claim(\"groups\", \"admin\")"),
    );
    add(
        "fact-of-the-request",
        "A fact of the request.",
        "D-04",
        &one("tool(\"git_log\")"),
    );
    add(
        "audience",
        "Another audience.",
        "D-04",
        &one("for_audience(\"https://other.example\")"),
    );
    add(
        "unknown-fact",
        "A fact of no known name.",
        "D-04",
        &one("admin(true)"),
    );
    add(
        "depth-of-text",
        "`max_depth` is a text.",
        "D-04",
        &one("max_depth(\"3\")"),
    );
    add(
        "two-notes",
        "Two notes.",
        "D-06",
        &["note(\"a\")".to_owned(), "note(\"b\")".to_owned()],
    );
    add(
        "same-note-twice",
        "The same note twice.",
        "D-06",
        &vec!["note(\"a\")".to_owned(); 2],
    );
    add(
        "two-depths",
        "Two `max_depth`, both large enough.",
        "D-06",
        &["max_depth(2)".to_owned(), "max_depth(3)".to_owned()],
    );
}

fn presenters(book: &mut Book) {
    let mut by = |name: &str, description: &str, who: fn(&Scene) -> crate::kit::Key| {
        book.refuse(
            &format!("presenter/{name}"),
            description,
            "R-14",
            "accepted",
            |s| {
                s.hand_to_bob();
                s.presenter = who(s);
            },
        );
    };
    by("grantor", "Alice presents what she handed on to Bob.", |s| {
        Rc::clone(&s.keys.alice)
    });
    by("stranger", "A thief presents with a key of their own.", |s| {
        Rc::clone(&s.keys.mallory)
    });
    by("other-kind", "A thief presents with a P-256 key.", |s| {
        Rc::clone(&s.keys.pat)
    });
    by("issuer", "The issuer presents with its root key.", |s| {
        Rc::clone(&s.root)
    });
    book.refuse(
        "presenter/next-holder",
        "Bob presents the token from before he was handed it.",
        "R-14",
        "accepted",
        |s| s.presenter = Rc::clone(&s.keys.bob),
    );
}
