use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use rand_core::OsRng;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::checkpoint::PUB_FILE;
use crate::frame::encode_record;
use crate::journal::tests::{open_with, small};
use crate::record::tests::{decision, grant};

/// A journal of ten decisions and two records of a grant, in several segments.
fn folder() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), small()).unwrap();
    for n in 0..12 {
        let record = match n {
            3 | 7 => Record {
                at_ms: n,
                kind: RecordKind::Grant(grant("g")),
            },
            _ => decision(&format!("d{n}")),
        };
        let payload = encode_record(&record).unwrap();
        journal.commit(&[payload], &mut OsRng).unwrap();
    }
    journal.close().unwrap();
    let key = fs::read_to_string(dir.path().join(PUB_FILE)).unwrap();
    (dir, key)
}

fn json(receipt: &RecordReceipt) -> Vec<u8> {
    serde_json::to_vec(receipt).unwrap()
}

#[test]
fn a_receipt_proves_its_record_to_who_has_the_key() {
    let (dir, key) = folder();
    for (which, index) in [
        (Which::Index(0), 0),
        (Which::Index(11), 11),
        (Which::Decision("d5".into()), 5),
        (Which::Grant("g".into()), 7),
    ] {
        let made = receipt(dir.path(), &which).unwrap();
        let proven = verify_receipt(&json(&made), &key).unwrap();
        assert_eq!((proven.index, proven.tree_size), (index, 12));
        assert_eq!(proven.origin, "taper.invalid/journal/test");
        let stored = read_records(dir.path())
            .unwrap()
            .nth(index as usize)
            .unwrap()
            .unwrap();
        assert_eq!((made.payload, proven.record), (stored.payload, stored.record));
    }
    for which in [
        Which::Index(12),
        Which::Decision("d3".into()),
        Which::Grant("other".into()),
    ] {
        let none = receipt(dir.path(), &which);
        assert!(matches!(none, Err(StoreError::NoSuchRecord(_))), "{which:?}");
    }
}

#[test]
fn a_receipt_stays_good_when_the_journal_grows() {
    let (dir, key) = folder();
    let old = json(&receipt(dir.path(), &Which::Index(4)).unwrap());
    let (mut journal, _) = open_with(dir.path(), small()).unwrap();
    journal
        .commit(&[encode_record(&decision("new")).unwrap()], &mut OsRng)
        .unwrap();
    journal.close().unwrap();
    assert_eq!(verify_receipt(&old, &key).unwrap().tree_size, 12);
    let new = json(&receipt(dir.path(), &Which::Index(4)).unwrap());
    assert_eq!(verify_receipt(&new, &key).unwrap().tree_size, 13);
}

#[test]
fn whatever_is_changed_in_a_receipt_it_proves_nothing() {
    let (dir, key) = folder();
    let (_other_dir, other_key) = folder();
    let good = receipt(dir.path(), &Which::Index(4)).unwrap();
    let other = receipt(dir.path(), &Which::Index(5)).unwrap();
    let refused = |what: &str, bytes: &[u8], key: &str| {
        let error = verify_receipt(bytes, key).expect_err(what);
        assert!(matches!(error, StoreError::BadReceipt(_)), "{what}: {error}");
    };
    let changed = |what: &str, change: &dyn Fn(&mut RecordReceipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        refused(what, &json(&receipt), &key);
    };
    changed("payload", &|r| r.payload = other.payload.clone());
    changed("white space", &|r| r.payload.push(' '));
    changed("salt", &|r| r.salt = other.salt.clone());
    changed("salt in capitals", &|r| r.salt = "A".repeat(32));
    changed("short salt", &|r| r.salt.truncate(31));
    changed("index", &|r| r.index += 1);
    changed("index beyond the tree", &|r| r.index = u64::MAX);
    changed("origin", &|r| r.origin.push('x'));
    changed("proof", &|r| r.proof.swap(0, 1));
    changed("shorter proof", &|r| drop(r.proof.pop()));
    changed("longer proof", &|r| r.proof.push(r.proof[0].clone()));
    changed("endless proof", &|r| r.proof = vec![r.proof[0].clone(); 1000]);
    changed("hash", &|r| r.proof[0] = "AAAA".into());
    changed("checkpoint", &|r| {
        r.checkpoint = r.checkpoint.replace("\n12\n", "\n13\n")
    });
    changed("large payload", &|r| r.payload = " ".repeat(MAX_PAYLOAD + 1));
    refused("another key", &json(&good), &other_key);
    refused("no key", &json(&good), "key");
    let mut more = serde_json::to_value(&good).unwrap();
    more["more"] = 1.into();
    refused("another member", more.to_string().as_bytes(), &key);
    let twice = String::from_utf8(json(&good))
        .unwrap()
        .replacen("{", "{\"index\":4,", 1);
    refused("a member twice", twice.as_bytes(), &key);
    refused("more behind it", &[&json(&good)[..], b"{}"].concat(), &key);
    refused("size", &vec![b' '; RECEIPT_LIMIT + 1], &key);
}

/// A receipt as JSON, and the key for it.
static RECEIPT: LazyLock<(Vec<u8>, String)> = LazyLock::new(|| {
    let (dir, key) = folder();
    (json(&receipt(dir.path(), &Which::Index(4)).unwrap()), key)
});

proptest! {
    #[test]
    fn no_flipped_bit_of_a_receipt_says_anything_else(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (mut bytes, key) = RECEIPT.clone();
        let good = verify_receipt(&bytes, &key).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A flipped letter of an escape or of a signature's key hint may say the same.
        if let Ok(proven) = verify_receipt(&bytes, &key) {
            prop_assert_eq!(proven, good);
        }
    }
}

#[test]
fn the_text_form_says_the_same() {
    let (dir, _) = folder();
    let made = receipt(dir.path(), &Which::Index(5)).unwrap();
    let text = made.to_tlog_proof();
    let (head, note) = text.split_once("\n\n").unwrap();
    assert_eq!(note, made.checkpoint);
    let lines: Vec<&str> = head.split('\n').collect();
    assert_eq!(lines[0], "c2sp.org/tlog-proof@v1");
    let extra = STANDARD.decode(lines[1].strip_prefix("extra ").unwrap()).unwrap();
    assert_eq!(&extra[16..], made.payload.as_bytes());
    assert_eq!(lines[2], "index 5");
    let path: Vec<Hash> = lines[3..].iter().map(|line| hash(line).unwrap()).collect();
    let checkpoint = tlog_tiles::checkpoint::Checkpoint::from_bytes(
        signed_note::Note::from_bytes(note.as_bytes()).unwrap().text(),
    )
    .unwrap();
    let leaf = record_hash(&Sha256::digest(&extra));
    check_record(&path, checkpoint.size(), *checkpoint.hash(), 5, leaf).unwrap();
}
