//! The view of one feed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::revocation::{NO_HISTORY, Revocation, RevocationKey};

fn page(head: u64, entries: &[(u64, RevocationKey)]) -> RevocationPage {
    let entry = |(seq, what): &(u64, RevocationKey)| Revocation {
        seq: *seq,
        at: 0,
        issuer: "i".into(),
        what: what.clone(),
        until: None,
    };
    RevocationPage {
        entries: entries.iter().map(entry).collect(),
        head,
        upto: entries.last().map_or(head, |(seq, _)| *seq),
        history: NO_HISTORY,
    }
}

fn grant(id: &str) -> RevocationKey {
    RevocationKey::Grant(id.into())
}

const KEYS: RevocationKeys<'_> = RevocationKeys {
    issuer: "i",
    grant: "g",
    branches: &[[1; 32], [2; 32]],
    holders: &[[3; 32], [4; 32]],
    client: "c",
    subjects: &[("idp", "alice"), ("idp", "agent-7")],
};

#[test]
fn each_kind_is_found() {
    let check = |what: RevocationKey, found: Option<&'static str>| {
        let view = RevocationView::new("i", 0);
        view.apply(&page(1, &[(1, what.clone())]), 5).unwrap();
        assert_eq!(view.is_revoked(&KEYS), found, "{what:?}");
    };
    let subject = |iss: &str, sub: &str| RevocationKey::Subject {
        iss: iss.into(),
        sub: sub.into(),
    };
    check(grant("g"), Some("grant"));
    check(grant("c"), None);
    check(RevocationKey::Branch("02".repeat(32)), Some("branch"));
    check(RevocationKey::Branch("03".repeat(32)), None);
    check(
        RevocationKey::Holder(URL_SAFE_NO_PAD.encode([4; 32])),
        Some("holder"),
    );
    check(RevocationKey::Holder(URL_SAFE_NO_PAD.encode([1; 32])), None);
    check(RevocationKey::Client("c".into()), Some("client"));
    check(RevocationKey::Client("g".into()), None);
    check(subject("idp", "alice"), Some("subject"));
    check(subject("idp", "agent-7"), Some("subject"));
    check(subject("other", "alice"), None);
    check(subject("idp", "bob"), None);
    let delegation = |grant: &str, from: u8, to: u8| RevocationKey::Delegation {
        grant: grant.into(),
        from: URL_SAFE_NO_PAD.encode([from; 32]),
        to: URL_SAFE_NO_PAD.encode([to; 32]),
    };
    check(delegation("g", 3, 4), Some("delegation"));
    check(delegation("g", 4, 3), None);
    check(delegation("other", 3, 4), None);
}

#[test]
fn another_issuers_keys_are_not_known_to_be_good() {
    let view = RevocationView::new("i", 0);
    assert_eq!(
        view.is_revoked(&RevocationKeys { issuer: "j", ..KEYS }),
        Some("issuer")
    );
}

#[test]
fn head_and_freshness_follow_the_feed() {
    let view = RevocationView::new("i", 0);
    assert_eq!((view.head(), view.fresh_as_of()), (0, None));
    view.apply(&page(3, &[(1, grant("a"))]), 10).unwrap();
    assert_eq!((view.head(), view.fresh_as_of()), (1, None), "not complete yet");
    view.apply(&page(3, &[(3, grant("g"))]), 11).unwrap();
    assert_eq!(
        (view.head(), view.fresh_as_of()),
        (3, Some(11)),
        "a gap is what pruning leaves"
    );
    assert_eq!(view.is_revoked(&KEYS), Some("grant"));
    view.apply(&page(3, &[]), 20).unwrap();
    view.apply(&page(3, &[]), 19).unwrap();
    assert_eq!(
        (view.head(), view.fresh_as_of()),
        (3, Some(20)),
        "an older answer takes nothing back"
    );
    view.apply(&page(5, &[]), 21).unwrap();
    assert_eq!(
        (view.head(), view.fresh_as_of()),
        (5, Some(21)),
        "all pruned up to the head"
    );
}

#[test]
fn bad_pages_change_nothing() {
    let view = RevocationView::new("i", 0);
    view.apply(&page(2, &[(2, grant("x"))]), 1).unwrap();
    let check = |page: RevocationPage, expect: &str| {
        let said = view.apply(&page, 9).unwrap_err().to_string();
        assert!(said.contains(expect), "{said}");
        assert_eq!(
            (view.head(), view.fresh_as_of(), view.is_revoked(&KEYS)),
            (2, Some(1), None)
        );
    };
    check(page(1, &[]), "went back to 1, but 2");
    check(page(9, &[(4, grant("g")), (3, grant("h"))]), "out of order");
    check(page(3, &[(4, grant("g"))]), "out of order");
    check(
        page(3, &[(3, RevocationKey::Holder("short".into()))]),
        "thumbprint",
    );
    let mut foreign = page(3, &[(3, grant("g"))]);
    foreign.entries[0].issuer = "j".into();
    check(foreign, "another issuer");
}

#[test]
fn a_restart_notices_a_feed_that_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("head.json");
    assert_eq!(load_head(&path, "i").unwrap(), None);
    persist_head(&path, "i", 7).unwrap();
    assert!(load_head(&path, "j").is_err());
    let view = RevocationView::new("i", load_head(&path, "i").unwrap().unwrap());
    assert!(matches!(
        view.apply(&page(6, &[]), 1),
        Err(StoreError::Regression { known: 7, offered: 6 })
    ));
    view.apply(&page(7, &[(7, grant("g"))]), 1).unwrap();
    assert_eq!(view.is_revoked(&KEYS), Some("grant"));
    std::fs::write(&path, "{").unwrap();
    assert!(load_head(&path, "i").is_err());
}

#[test]
fn entries_leave_after_their_end_and_its_margin() {
    let view = RevocationView::new("i", 0);
    let names = [view.namer.grant("g"), view.namer.branch(&[1; 32])];
    view.insert(Kind::Grant, names[0], Some(1000));
    view.insert(Kind::Branch, names[1], Some(1000));
    let sweep = |now: i64| (0..RevocationView::SWEEP).map(|_| view.sweep(now)).sum::<usize>();
    assert_eq!((view.len(), sweep(1000 + MARGIN)), (2, 0));
    // The end of the grant was moved, after its minute had been noted.
    view.insert(Kind::Grant, names[0], Some(2000));
    view.insert(Kind::Grant, names[0], Some(500));
    assert_eq!(sweep(1000 + MARGIN + 60), 1);
    assert_eq!(view.is_revoked(&KEYS), Some("grant"));
    assert_eq!(sweep(2000 + MARGIN + 60), 1);
    assert_eq!((view.is_revoked(&KEYS), view.is_empty()), (None, true));
}

#[test]
fn what_is_no_grants_is_never_forgotten() {
    let view = RevocationView::new("i", 0);
    view.insert(Kind::Holder, view.namer.holder(&[3; 32]), Some(0));
    view.insert(Kind::Client, view.namer.client("c"), Some(0));
    view.insert(Kind::Subject, view.namer.subject("idp", "alice"), Some(0));
    view.insert(Kind::Grant, view.namer.grant("g"), None);
    view.insert(Kind::Branch, view.namer.branch(&[1; 32]), Some(i64::MAX));
    for _ in 0..RevocationView::SWEEP {
        assert_eq!(view.sweep(i64::from(NEVER) * 60), 0);
    }
    assert_eq!(view.len(), 5);
}

/// What is in the view is found at every moment while it grows and is swept.
#[test]
fn readers_miss_nothing_while_the_view_grows() {
    let view = RevocationView::new("i", 0);
    let taken = AtomicU64::new(0);
    let id = |n: u64| format!("g{n}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200_000 {
                view.insert(Kind::Grant, view.namer.grant(&id(n)), None);
                view.insert(Kind::Branch, view.namer.branch(&[n as u8; 32]), Some(0));
                taken.store(n, Ordering::Release);
                if n % 64 == 0 {
                    view.sweep(1_000_000);
                }
            }
        });
        let mut state = 1_u64;
        while taken.load(Ordering::Acquire) < 199_999 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let Some(n) = (state >> 33).checked_rem(taken.load(Ordering::Acquire)) else {
                continue;
            };
            let keys = RevocationKeys {
                grant: &id(n),
                branches: &[],
                ..KEYS
            };
            assert_eq!(view.is_revoked(&keys), Some("grant"), "{n}");
        }
    });
}
