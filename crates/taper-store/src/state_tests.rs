use super::*;
use crate::counters::{Counter, CounterKey};
use crate::record::RecordKind;
use crate::record::tests::{decision, grant};
use crate::revocation::{Revocation, RevocationKey};

impl State {
    /// Puts what is no record in a record's place.
    pub(crate) fn spoil(&self, key: Vec<u8>) {
        self.tree().unwrap().insert(key, b"no record").unwrap();
    }
}

pub(super) fn revoked(seq: u64, id: &str) -> Record {
    let what = RevocationKey::Grant(id.into());
    Record {
        at_ms: 0,
        kind: RecordKind::Revoked(RevocationRecord {
            revocation: Revocation {
                seq,
                at: 0,
                issuer: "i".into(),
                what,
                until: None,
            },
            by: "admin".into(),
            under: None,
            history: [0; 32],
        }),
    }
}

#[test]
fn a_record_counts_once_however_often_it_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap().0;
    let key = |n: u8| CounterKey {
        branch: [n; 32],
        index: 0,
    };
    let apply = |records: &[Record], applied: Applied| {
        let mut change = Change::of(&state);
        let first = applied.size - records.len() as u64;
        for (index, record) in (first..).zip(records) {
            change.include(index, record).unwrap();
        }
        state.apply(change, applied).unwrap();
    };
    let using = |keys: &[u8]| {
        let mut record = decision("d");
        if let RecordKind::Decision(decision) = &mut record.kind {
            decision.counted = keys.iter().map(|n| Counter::from(key(*n))).collect();
        }
        record
    };
    let records = [using(&[1, 2]), using(&[]), using(&[1]), using(&[1, 2, 2])];
    let counts = || {
        let calls = |n: u8| {
            state
                .calls(&key(n).fingerprint("https://issuer.example"))
                .unwrap()
        };
        [calls(1), calls(2), calls(3)]
    };
    state.write(&records[..3], 0, None).unwrap();
    assert_eq!(counts(), [2, 1, 0]);
    // A replay that broke off begins again, with other chunks.
    state.write(&records[..1], 0, None).unwrap();
    state.write(&records[1..], 1, None).unwrap();
    assert_eq!(counts(), [3, 2, 0]);
    let applied = Applied {
        size: 5,
        root: EMPTY_HASH,
    };
    apply(&[using(&[2, 3])], applied);
    assert_eq!(counts(), [3, 3, 1]);
    let name = layout::counter(&key(1).fingerprint("https://issuer.example"));
    state.tree().unwrap().insert(name.as_slice(), b"short").unwrap();
    assert!(
        state
            .calls(&key(1).fingerprint("https://issuer.example"))
            .is_err()
    );
}

#[test]
fn applying_twice_is_applying_once() {
    let dir = tempfile::tempdir().unwrap();
    let (state, rebuilt) = State::open(dir.path()).unwrap();
    assert_eq!(rebuilt, None);
    let records = [
        Record {
            at_ms: 0,
            kind: RecordKind::Grant(grant("g")),
        },
        revoked(1, "a"),
        revoked(2, "b"),
    ];
    let applied = Applied {
        size: 3,
        root: EMPTY_HASH,
    };
    for _ in 0..2 {
        state.write(&records, 0, Some(applied)).unwrap();
        assert_eq!(state.applied().unwrap(), applied);
        assert_eq!(state.head().unwrap(), 2);
        assert_eq!(state.revocations_after(0, 9).unwrap().len(), 2);
        assert_eq!(state.revocations_after(1, 9).unwrap()[0].revocation.seq, 2);
        assert_eq!(state.revocations_after(0, 1).unwrap()[0].revocation.seq, 1);
        assert!(state.revocations_after(u64::MAX, 9).unwrap().is_empty());
        assert_eq!(
            state.revoked("i", &RevocationKey::Grant("b".into())).unwrap(),
            Some(2)
        );
        assert_eq!(
            state.revoked("j", &RevocationKey::Grant("b".into())).unwrap(),
            None
        );
        assert_eq!(
            state.grant("https://issuer.example", "g").unwrap(),
            Some(grant("g"))
        );
        assert_eq!(state.grant("https://issuer.exampleg", "").unwrap(), None);
    }
}
