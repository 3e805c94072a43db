//! The token as text and as protobuf (P-01, P-02).

use crate::book::Book;
use crate::kit::field;
use crate::scene::Scene;

/// The alphabet of base64url.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) fn vectors(book: &mut Book) {
    text(book);
    container(book);
    payloads(book);
}

fn text(book: &mut Book) {
    book.accept(
        "text/good",
        "A grant, sealed, presented by its first holder.",
        |_| {},
    );
    book.accept(
        "text/good-unsealed",
        "A token with its next secret is accepted too.",
        |s| s.sealed = false,
    );
    book.accept(
        "text/longest",
        "A text of 12,288 bytes is the longest that is accepted.",
        |s| long(s, 12_288, 8551),
    );
    book.refuse(
        "text/too-long",
        "A text of 12,290 bytes, of which nothing but the length is wrong.",
        "P-01",
        "accepted",
        |s| long(s, 12_290, 8552),
    );
    book.refuse("text/empty", "No token at all.", "P-01", "P-02", |s| {
        s.text(String::clear);
    });
    let mut spelling = |name: &str, description: &str, bend: fn(&mut String)| {
        book.refuse(&format!("text/{name}"), description, "P-01", "P-01", |s| {
            s.grant.add("claim(\"team\", \"a\")");
            s.text(move |text| {
                let before = text.clone();
                bend(text);
                assert_ne!(*text, before, "the vector shows nothing");
            });
        });
    };
    spelling("padding", "Base64 padding stands at the end.", |text| {
        assert_ne!(text.len() % 4, 0, "padding needs an uneven length");
        while text.len() % 4 != 0 {
            text.push('=');
        }
    });
    spelling(
        "stray-bits",
        "The last character carries bits that belong to no byte.",
        |text| {
            assert_ne!(text.len() % 4, 0, "stray bits need an uneven length");
            let last = text.pop().unwrap();
            let value = ALPHABET.iter().position(|c| char::from(*c) == last).unwrap();
            text.push(char::from(ALPHABET[value + 1]));
        },
    );
    spelling(
        "standard-alphabet",
        "`+` and `/` stand for `-` and `_`.",
        |text| *text = text.replace('-', "+").replace('_', "/"),
    );
    spelling("newline", "A newline stands at the end.", |text| text.push('\n'));
    spelling("leading-space", "A space stands before it.", |text| {
        text.insert(0, ' ')
    });
    spelling("inner-space", "A space stands within.", |text| {
        text.insert(40, ' ')
    });
    spelling(
        "not-base64",
        "A character of no alphabet stands within.",
        |text| {
            text.replace_range(40..41, "~");
        },
    );
    spelling(
        "half-a-byte",
        "One character more than whole bytes have.",
        |text| {
            while text.len() % 4 != 1 {
                text.push('A');
            }
        },
    );
}

/// A text of exactly `length` bytes, by a claim of `filler` bytes.
fn long(s: &mut Scene, length: usize, filler: usize) {
    s.grant
        .add(&format!("claim(\"filler\", \"{}\")", "x".repeat(filler)));
    s.text(move |text| assert_eq!(text.len(), length, "the filler is not of the right length"));
}

fn container(book: &mut Book) {
    let mut bytes = |name: &str, description: &str, without: &str, bend: fn(&mut Vec<u8>)| {
        book.refuse(&format!("protobuf/{name}"), description, "P-02", without, |s| {
            s.bytes(bend)
        });
    };
    bytes(
        "unknown-field",
        "The container has a field that no schema knows.",
        "accepted",
        |bytes| bytes.extend(field(15, b"hidden")),
    );
    bytes(
        "long-varint",
        "The root key id 1 is written in two bytes.",
        "accepted",
        |bytes| {
            assert_eq!(bytes[..2], [0x08, 0x01]);
            bytes.splice(1..2, [0x81, 0x00]);
        },
    );
    bytes(
        "field-twice",
        "Two root key ids, of which the last one is right.",
        "accepted",
        |bytes| {
            bytes.splice(0..0, [0x08, 0x02]);
        },
    );
    bytes(
        "reordered-fields",
        "The root key id stands at the end.",
        "accepted",
        |bytes| bytes.rotate_left(2),
    );
    bytes(
        "two-proofs",
        "A next secret stands beside the final signature.",
        "accepted",
        |bytes| {
            let secret = field(4, &field(1, &[7; 32]));
            bytes.splice(2..2, secret);
        },
    );
    bytes("truncated", "The last byte is missing.", "P-02", |bytes| {
        bytes.pop();
    });
    bytes(
        "trailing-zero",
        "A zero byte, which is no field, stands at the end.",
        "P-02",
        |bytes| bytes.push(0),
    );
    bytes(
        "wrong-wire-type",
        "The root key id has the wire type of 32 fixed bits.",
        "P-02",
        |bytes| {
            bytes.splice(0..2, [0x0d, 1, 0, 0, 0]);
        },
    );
    bytes("not-protobuf", "The bytes are text.", "P-02", |bytes| {
        *bytes = b"no Biscuit at all".to_vec();
    });
}

/// All signatures are over the payloads as they stand.
fn payloads(book: &mut Book) {
    let mut payload = |name: &str, description: &str, block: usize, without: &str, bend: fn(&mut Vec<u8>)| {
        book.refuse(&format!("protobuf/{name}"), description, "P-02", without, |s| {
            let bob = s.keys.bob.clone();
            s.hand_over(&bob);
            s.raw_payload(block, bend);
        });
    };
    payload(
        "unknown-field-in-block-0",
        "The signed payload of block 0 has an unknown field.",
        0,
        "accepted",
        |bytes| bytes.extend(field(15, b"hidden")),
    );
    payload(
        "unknown-field-in-later-block",
        "The signed payload of block 1 has an unknown field.",
        1,
        "accepted",
        |bytes| bytes.extend(field(15, b"hidden")),
    );
    payload(
        "version-twice",
        "The payload of block 1 states two versions, of which the last one is right.",
        1,
        "accepted",
        |bytes| bytes.extend([0x18, 0x05]),
    );
    payload(
        "long-version",
        "The payload of block 1 spells its version in two bytes.",
        1,
        "accepted",
        |bytes| {
            let at = bytes.windows(2).position(|two| two == [0x18, 0x05]).unwrap();
            bytes.splice(at + 1..at + 2, [0x85, 0x00]);
        },
    );
    payload(
        "reordered-block",
        "The payload of block 1 has its symbols at the end.",
        1,
        "accepted",
        |bytes| {
            let mut symbols = 0;
            while bytes[symbols] == 0x0a {
                symbols += 2 + usize::from(bytes[symbols + 1]);
            }
            bytes.rotate_left(symbols);
        },
    );
    payload(
        "not-utf-8",
        "A symbol of block 1 is no UTF-8.",
        1,
        "P-02",
        |bytes| {
            let at = bytes.windows(7).position(|seven| seven == b"ed25519").unwrap();
            bytes[at] = 0xff;
        },
    );
    payload(
        "truncated-block",
        "The payload of block 1 lacks its last byte, and is signed so.",
        1,
        "P-02",
        |bytes| {
            bytes.pop();
        },
    );
}
