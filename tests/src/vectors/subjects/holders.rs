//! The key of the first holder (P-12).

use std::rc::Rc;

use crate::block::holder_of;
use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    keys(book);
}

fn keys(book: &mut Book) {
    let mut key = |name: &str, description: &str, algorithm: &'static str, bytes: Vec<u8>| {
        book.refuse(&format!("holder/{name}"), description, "P-12", "P-22", |s| {
            s.grant.swap("holder", &holder_of(algorithm, &bytes));
        });
    };
    let point = |first: u8, last: u8| {
        let mut bytes = vec![0; 32];
        bytes[0] = first;
        bytes[31] |= last;
        bytes
    };
    let above = |first: u8| {
        let mut bytes = vec![0xff; 32];
        (bytes[0], bytes[31]) = (first, 0x7f);
        bytes
    };
    key(
        "identity",
        "The neutral point of Ed25519.",
        "ed25519",
        point(1, 0),
    );
    key("order-two", "The point of order 2.", "ed25519", above(0xec));
    key("order-four", "A point of order 4.", "ed25519", point(0, 0));
    key(
        "order-eight",
        "A point of order 8.",
        "ed25519",
        hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    );
    key(
        "second-spelling",
        "A point of Ed25519 with a coordinate that is not reduced.",
        "ed25519",
        above(0xed + 3),
    );
    key("not-a-point", "No point of Ed25519.", "ed25519", point(2, 0));
    key("short-ed25519", "31 bytes.", "ed25519", vec![7; 31]);
    key(
        "long-ed25519",
        "33 bytes as an Ed25519 key.",
        "ed25519",
        vec![7; 33],
    );
    key(
        "not-on-p256",
        "No point of P-256.",
        "secp256r1",
        [[2].as_slice(), &[0; 31], &[7]].concat(),
    );
    key(
        "p256-infinity",
        "The point at infinity of P-256.",
        "secp256r1",
        vec![0],
    );
    for (name, description, algorithm) in [
        ("other-curve", "A kind of key that there is not.", "secp256k1"),
        ("capitals", "The kind in capitals.", "Ed25519"),
        ("jose-name", "The kind by its JOSE name.", "EdDSA"),
    ] {
        book.refuse(&format!("holder/{name}"), description, "P-12", "P-22", |s| {
            let bytes = s.keys.alice.public().to_bytes();
            s.grant.swap("holder", &holder_of(algorithm, &bytes));
        });
    }
    book.refuse(
        "holder/p256-uncompressed",
        "A P-256 key in its uncompressed spelling of 65 bytes.",
        "P-12",
        "P-22",
        |s| {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&s.keys.pat.public().to_bytes()).unwrap();
            let bytes = key.to_encoded_point(false).as_bytes().to_vec();
            s.grant.swap("holder", &holder_of("secp256r1", &bytes));
            s.presenter = Rc::clone(&s.keys.pat);
        },
    );
    book.refuse(
        "holder/p256-as-ed25519",
        "A P-256 key that is called an Ed25519 one.",
        "P-12",
        "P-22",
        |s| {
            let bytes = s.keys.pat.public().to_bytes();
            s.grant.swap("holder", &holder_of("ed25519", &bytes));
        },
    );
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("it is hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}
