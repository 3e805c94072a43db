use std::sync::Arc;

use super::*;
use crate::counters::{Counter, CounterKey};
use crate::kept::TokenHash;
use crate::record::tests::{decision, grant};
use crate::record::{Record, RecordKind};
use crate::revocation::{Revocation, RevocationKey};
use crate::state::Applied;

const END: i64 = 1_700_000_000;

fn state(records: &[RecordKind]) -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap().0;
    let mut change = Change::of(&state);
    for (index, kind) in (0..).zip(records) {
        let kind = kind.clone();
        change.include(index, &Record { at_ms: 0, kind }).unwrap();
    }
    let applied = Applied {
        size: records.len() as u64,
        root: tlog_tiles::tlog::EMPTY_HASH,
    };
    state.apply(change, applied).unwrap();
    (dir, state)
}

fn granted(expires_at: i64, ends_at: Option<i64>) -> RecordKind {
    RecordKind::Grant(GrantRecord {
        expires_at,
        ends_at,
        ..grant("g")
    })
}

fn revoked(seq: u64, what: RevocationKey, until: Option<i64>) -> RecordKind {
    RecordKind::Revoked(RevocationRecord {
        revocation: Revocation {
            seq,
            at: 0,
            issuer: "i".into(),
            what,
            until,
        },
        by: "admin".into(),
        under: None,
        history: [seq as u8; 32],
    })
}

fn counting(n: u8, until: Option<i64>) -> RecordKind {
    let mut kind = decision("d").kind;
    if let RecordKind::Decision(decision) = &mut kind {
        let key = CounterKey {
            branch: [n; 32],
            index: 0,
        };
        decision.counted = vec![Counter { key, until }];
    }
    kind
}

fn calls(state: &State, n: u8) -> u64 {
    let key = CounterKey {
        branch: [n; 32],
        index: 0,
    };
    state.calls(&key.fingerprint("https://issuer.example")).unwrap()
}

fn family(tokens: u64, expires_at: i64) -> Vec<RecordKind> {
    let token = |n: u64| {
        let mut token = [7; 32];
        token[..8].copy_from_slice(&n.to_be_bytes());
        token
    };
    let record = |n: u64| RefreshRecord {
        issuer: "i".into(),
        grant_id: "g".into(),
        family: token(0),
        token: token(n),
        rotations: n,
        expires_at,
        ended: None,
    };
    (0..tokens).map(|n| RecordKind::Refresh(record(n))).collect()
}

/// Sweeps to the end. The number of steps, and what went.
fn sweep(state: &State, now: i64) -> (usize, Swept) {
    let (mut steps, mut all) = (0, Swept::default());
    loop {
        let (some, more) = step(state, now).unwrap();
        all.add(some);
        steps += 1;
        if !more {
            return (steps, all);
        }
    }
}

fn none() -> Swept {
    Swept::default()
}

#[test]
fn nothing_goes_before_its_end_and_the_margin() {
    let check = |records: &[RecordKind], end: i64, expected: Swept| {
        let (_dir, state) = state(records);
        assert_eq!(sweep(&state, end + MARGIN - 1), (1, none()), "{records:?}");
        assert_eq!(sweep(&state, end + MARGIN), (1, expected), "{records:?}");
        assert_eq!(sweep(&state, i64::MAX), (1, none()), "once");
    };
    let grants = Swept { grants: 1, ..none() };
    check(&[granted(END, None)], END, grants);
    check(&[granted(END, Some(END + 500))], END + 500, grants);
    check(&[granted(END, None), granted(END + 60, None)], END + 60, grants);
    let key = RevocationKey::Grant("g".into());
    let revocations = Swept {
        revocations: 1,
        ..none()
    };
    check(&[revoked(1, key, Some(END))], END, revocations);
    let counters = Swept {
        counters: 1,
        ..none()
    };
    check(&[counting(1, Some(END))], END, counters);
    check(
        &[counting(1, Some(END)), counting(1, Some(END + 9))],
        END + 9,
        counters,
    );
    let families = Swept {
        refresh_families: 1,
        ..none()
    };
    check(&family(3, END), END, families);
}

#[test]
fn what_has_no_end_stays() {
    let holder = RevocationKey::Holder("h".into());
    let (_dir, state) = state(&[
        revoked(1, holder.clone(), None),
        revoked(2, RevocationKey::Grant("g".into()), Some(END)),
        counting(1, None),
        counting(2, Some(END)),
        counting(2, None),
        counting(3, Some(END)),
    ]);
    let swept = Swept {
        revocations: 1,
        counters: 1,
        ..none()
    };
    assert_eq!(sweep(&state, i64::MAX), (1, swept));
    assert_eq!(state.revoked("i", &holder).unwrap(), Some(1));
    assert_eq!(
        state.revoked("i", &RevocationKey::Grant("g".into())).unwrap(),
        None
    );
    assert_eq!((calls(&state, 1), calls(&state, 2), calls(&state, 3)), (1, 2, 0));
    assert_eq!(state.head().unwrap(), 2, "no number is given again");
    assert_eq!(state.history(2).unwrap(), Some([2; 32]));
    let left = state.revocations_after(0, 9).unwrap();
    assert_eq!(left.iter().map(|r| r.revocation.seq).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_count_of_its_revocations_ends_with_a_grant() {
    let mut kind = revoked(1, RevocationKey::Holder("h".into()), None);
    let issuer = grant("g").issuer;
    if let RecordKind::Revoked(record) = &mut kind {
        record.under = Some("g".into());
        record.revocation.issuer.clone_from(&issuer);
    }
    let (_dir, state) = state(&[granted(END, None), kind]);
    sweep(&state, END + MARGIN - 1);
    assert_eq!(state.revocations_under(&issuer, "g").unwrap(), 1);
    sweep(&state, END + MARGIN);
    assert_eq!(state.revocations_under(&issuer, "g").unwrap(), 0);
    assert_eq!(state.revocations_after(0, 9).unwrap().len(), 1);
}

#[test]
fn a_long_family_goes_in_steps_and_whole() {
    let tokens = 2 * STEP as u64 + 1;
    let (_dir, state) = state(&family(tokens, END));
    let (steps, swept) = sweep(&state, END + MARGIN);
    assert_eq!((steps, swept.refresh_families), (3, 1));
    assert_eq!(state.range(vec![b'a']..vec![b'm']).unwrap().count(), 0);
    assert_eq!(state.range(vec![b'n']..vec![b'z']).unwrap().count(), 0);
}

#[tokio::test]
async fn a_family_is_carried_with_every_token() {
    use crate::kept::Carried;
    use crate::traits::{Grants as _, RefreshFamilies as _, Rotation};
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(|| END * 1000);
    let rng = rand_core::OsRng;
    let (store, _) = crate::EmbeddedStore::open(dir.path(), "test", now, rng).unwrap();
    let grant = GrantRecord {
        ends_at: Some(END + 100),
        ..grant("g")
    };
    let issuer = grant.issuer.clone();
    store.insert_grant(grant).await.unwrap();
    let token = |n: u8| TokenHash([n; 32]);
    store
        .begin_family(&issuer, "g", token(0), END + 100)
        .await
        .unwrap();
    for n in 0..3 {
        let rotated = store.rotate(token(n), token(n + 1)).await.unwrap();
        assert!(matches!(rotated, Rotation::Rotated(_)));
    }
    let records: Vec<Record> = crate::read_records(dir.path())
        .unwrap()
        .map(|stored| stored.unwrap().record)
        .collect();
    // The grant and the family, once each; nothing was ever revoked.
    assert_eq!(store.carry(&records).await.unwrap(), 2);
    let carried = crate::read_records(dir.path()).unwrap().last().unwrap().unwrap();
    let RecordKind::Carried {
        state: Carried::Refresh { family, tokens },
    } = carried.record.kind
    else {
        panic!("{carried:?}");
    };
    assert_eq!((family.rotations, family.token), (3, [3; 32]));
    assert_eq!(tokens, (0..4).map(token).collect::<Vec<_>>());
}
