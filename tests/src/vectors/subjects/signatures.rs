//! Signatures and next keys (P-04, P-14).

use std::rc::Rc;

use biscuit_auth::format::schema;
use taper_dpop::Algorithm;

use crate::block::{Block, holder};
use crate::book::Book;
use crate::kit::{self, Signer};
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    broken(book);
    forms(book);
    rearranged(book);
    next_keys(book);
}

/// Each breaks one signature of a chain of a hand-over to a P-256 key and one of that key.
fn broken(book: &mut Book) {
    book.accept(
        "signature/good",
        "Alice hands on to Pat, who hands on to Bob.",
        chain,
    );
    book.accept(
        "signature/high-s",
        "The external signature by a P-256 key has a high s; libraries write such ones.",
        |s| {
            chain(s);
            s.links[1].signer = Signer::HighS(Rc::clone(&s.keys.pat));
        },
    );
    let mut bend = |name: &str, description: &str, bend: fn(&mut schema::Biscuit)| {
        book.refuse(
            &format!("signature/{name}"),
            description,
            "P-04",
            "accepted",
            |s| {
                chain(s);
                s.token(bend);
            },
        );
    };
    bend(
        "block-0",
        "One bit of the signature of block 0 is flipped.",
        |t| {
            t.authority.signature[10] ^= 1;
        },
    );
    bend(
        "block-0-plus-order",
        "The second half of the signature of block 0 is larger than the order of the group.",
        |t| t.authority.signature = kit::plus_order(&t.authority.signature),
    );
    bend(
        "block-1",
        "One bit of the signature of block 1 is flipped.",
        |t| {
            t.blocks[0].signature[10] ^= 1;
        },
    );
    bend(
        "external",
        "One bit of the external signature of block 1 is flipped.",
        |t| {
            t.blocks[0].external_signature.as_mut().unwrap().signature[10] ^= 1;
        },
    );
    bend(
        "external-p256",
        "One bit of the external signature of block 2, by a P-256 key, is flipped.",
        |t| t.blocks[1].external_signature.as_mut().unwrap().signature[20] ^= 1,
    );
    bend("seal", "One bit of the final signature is flipped.", |t| {
        let Some(schema::proof::Content::FinalSignature(seal)) = &mut t.proof.content else {
            panic!("the token is sealed")
        };
        seal[10] ^= 1;
    });
    bend(
        "no-proof",
        "The token has neither a next secret nor a seal.",
        |t| {
            t.proof.content = None;
        },
    );
    bend("empty-seal", "The final signature has no bytes.", |t| {
        t.proof.content = Some(schema::proof::Content::FinalSignature(Vec::new()));
    });
    bend(
        "unsealed-by-guess",
        "The next secret is not the one of the last next key.",
        |t| {
            t.proof.content = Some(schema::proof::Content::NextSecret(vec![7; 32]));
        },
    );
    bend("note", "One letter of the note in block 1 is changed.", |t| {
        let payload = &mut t.blocks[0].block;
        let at = payload.windows(5).position(|five| five == b"hello").unwrap();
        payload[at] = b'j';
    });
    bend("next-key", "Another key stands as next key of block 1.", |t| {
        t.blocks[0].next_key = t.authority.next_key.clone();
    });
    bend(
        "signature-version",
        "Block 0 claims a form of signatures that does not exist.",
        |t| {
            t.authority.version = Some(2);
        },
    );
    bend(
        "new-form-claimed",
        "Block 0 is signed in the old form and claims the new one.",
        |t| {
            t.authority.version = Some(1);
        },
    );
    book.refuse(
        "signature/second-on-block-0",
        "Block 0 has an external signature, which only later blocks have.",
        "D-01",
        "P-04",
        |s| {
            chain(s);
            s.token(|t| t.authority.external_signature = t.blocks[0].external_signature.clone());
        },
    );
    book.refuse(
        "signature/sealed-by-stranger",
        "A stranger seals the token with a key of their own.",
        "P-04",
        "accepted",
        |s| {
            chain(s);
            let mallory = Rc::clone(&s.keys.mallory);
            s.token(move |t| {
                let message = [&t.blocks[1].block[..], &t.blocks[1].signature].concat();
                let seal = kit::sign(&mallory, &message);
                t.proof.content = Some(schema::proof::Content::FinalSignature(seal));
            });
        },
    );
    book.accept(
        "signature/narrowed-by-p256",
        "A P-256 holder narrows for itself.",
        |s| {
            let pat = Rc::clone(&s.keys.pat);
            s.hand_over(&pat);
            s.narrow();
        },
    );
}

fn forms(book: &mut Book) {
    for (name, description, version) in [
        (
            "new-form",
            "Block 0 is signed in the new form although it is of version 3.",
            Some(1),
        ),
        (
            "old-form-stated",
            "Block 0 says that it is signed in form 0.",
            Some(0),
        ),
    ] {
        book.accept(&format!("signature/{name}"), description, |s| {
            s.pieces(move |pieces| pieces[0].version = version);
        });
    }
}

fn chain(s: &mut Scene) {
    let (pat, bob) = (Rc::clone(&s.keys.pat), Rc::clone(&s.keys.bob));
    s.hand_over(&pat).add("note(\"hello\")");
    s.hand_over(&bob);
}

/// Blocks that are genuine, at places where they do not belong. Alice narrowed three times.
fn rearranged(book: &mut Book) {
    let three = |s: &mut Scene| {
        for note in ["one", "two", "three"] {
            s.narrow().add(&format!("note(\"{note}\")"));
        }
    };
    book.accept("signature/three-narrowings", "Alice narrowed three times.", three);
    let mut bend = |name: &str, description: &str, bend: fn(&mut schema::Biscuit)| {
        book.refuse(
            &format!("signature/{name}"),
            description,
            "P-04",
            "accepted",
            |s| {
                three(s);
                s.token(bend);
            },
        );
    };
    bend("swapped", "Two of the narrowings change places.", |t| {
        t.blocks.swap(0, 1)
    });
    bend("middle-stripped", "The second narrowing is taken out.", |t| {
        t.blocks.remove(1);
    });
    bend(
        "end-stripped",
        "The last narrowing is taken off a sealed token.",
        |t| {
            t.blocks.pop();
        },
    );
    bend("repeated", "The last narrowing stands there twice.", |t| {
        let last = t.blocks[2].clone();
        t.blocks.push(last);
    });
    book.refuse(
        "signature/end-stripped-unsealed",
        "The last narrowing is taken off an unsealed token.",
        "P-04",
        "accepted",
        |s| {
            three(s);
            s.sealed = false;
            s.token(|t| {
                t.blocks.pop();
            });
        },
    );
    book.refuse(
        "signature/block-of-another-token",
        "A hand-over by Alice to Bob is taken from one token of hers and put into another one, all else re-signed.",
        "P-04",
        "accepted",
        |s| {
            let bob = Rc::clone(&s.keys.bob);
            let elsewhere = elsewhere(s, &bob);
            s.hand_over(&bob);
            s.pieces(move |pieces| {
                pieces[1].payload = elsewhere.block.clone();
                pieces[1].signer = Signer::Ready(elsewhere.external_signature.clone().unwrap());
            });
        },
    );
}

/// A block in which Alice hands on another capability of hers to `child`.
fn elsewhere(s: &mut Scene, child: &kit::Key) -> schema::SignedBlock {
    use prost::Message as _;
    let mut payload = kit::payload(&Block::later(&holder(child)).source());
    payload.version = Some(5);
    let first = kit::Piece {
        payload: kit::payload(&s.grant.source()).encode_to_vec(),
        next: s.key(Algorithm::EdDsa),
        signer: Signer::Nobody,
        version: None,
    };
    let second = kit::Piece {
        payload: payload.encode_to_vec(),
        next: s.key(Algorithm::EdDsa),
        signer: Signer::Key(Rc::clone(&s.keys.alice)),
        version: Some(1),
    };
    let mut token = kit::assemble(Some(1), &s.root, &[first, second], true);
    token.blocks.remove(0)
}

fn next_keys(book: &mut Book) {
    book.refuse(
        "next-key/p256",
        "The last next key is a P-256 key.",
        "P-14",
        "accepted",
        |s| {
            s.hand_to_bob();
            s.next = vec![(1, Rc::clone(&s.keys.pat))];
        },
    );
    book.refuse(
        "next-key/p256-in-the-middle",
        "The next key of block 1 is a P-256 key, which signs block 2.",
        "P-14",
        "accepted",
        |s| {
            s.hand_to_bob();
            s.narrow();
            s.next = vec![(1, Rc::clone(&s.keys.pat))];
        },
    );
    book.refuse(
        "next-key/p256-unsealed",
        "The only next key is a P-256 key and its secret is there.",
        "P-14",
        "accepted",
        |s| {
            s.sealed = false;
            s.next = vec![(0, Rc::clone(&s.keys.pat))];
            s.pieces(|pieces| pieces[0].version = Some(1));
        },
    );
    book.refuse(
        "next-key/short",
        "The next key has 31 bytes.",
        "P-14",
        "P-04",
        |s| {
            s.token(|t| {
                t.authority.next_key.key.pop();
            });
        },
    );
}
