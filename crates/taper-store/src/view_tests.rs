//! The view of one feed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::feed::{FeedKnown, History};
use crate::revocation::{Revocation, RevocationKey};

/// A feed that was never pruned, of which pages can be asked.
struct Feed {
    entries: Vec<Revocation>,
}

impl Feed {
    fn of(keys: &[RevocationKey]) -> Self {
        let entry = |(seq, what): (u64, &RevocationKey)| Revocation {
            seq,
            at: 0,
            issuer: "i".into(),
            what: what.clone(),
            until: None,
        };
        Self {
            entries: (1..).zip(keys).map(entry).collect(),
        }
    }

    fn history(&self, seq: u64) -> Option<History> {
        let told = self.entries.get(..seq as usize)?;
        Some(
            told.iter()
                .fold(History::default(), |before, entry| entry.history(before)),
        )
    }

    fn position(&self, seq: u64) -> FeedPosition {
        let history = self.history(seq).unwrap();
        FeedPosition { seq, history }
    }

    /// The answer to the view's next question, of at most `limit` entries.
    fn page(&self, view: &RevocationView, limit: usize) -> FeedPage {
        let (after, known) = (view.reached().seq, view.known().seq);
        let entries: Vec<Revocation> = self
            .entries
            .iter()
            .skip(after as usize)
            .take(limit)
            .cloned()
            .collect();
        let head = self.entries.len() as u64;
        let upto = entries.last().map_or(head, |entry| entry.seq);
        FeedPage {
            issuer: "i".into(),
            after,
            entries,
            head,
            upto,
            history: self.history(upto).unwrap(),
            known: Some(FeedKnown {
                seq: known,
                history: self.history(known),
            }),
            time: 0,
        }
    }

    /// Gives the view everything.
    fn feed(&self, view: &RevocationView, as_of: i64) {
        let page = self.page(view, usize::MAX);
        view.continues(&page).unwrap();
        view.apply(&page, Some(as_of)).unwrap();
    }
}

fn empty() -> RevocationView {
    RevocationView::new("i", FeedPosition::START)
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
        let view = empty();
        Feed::of(std::slice::from_ref(&what)).feed(&view, 5);
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
    let view = empty();
    assert_eq!(
        view.is_revoked(&RevocationKeys { issuer: "j", ..KEYS }),
        Some("issuer")
    );
}

#[test]
fn position_and_freshness_follow_the_feed() {
    let view = empty();
    assert_eq!((view.reached(), view.fresh_as_of()), (FeedPosition::START, None));
    let feed = Feed::of(&[grant("a"), grant("b"), grant("g")]);
    let first = feed.page(&view, 1);
    view.continues(&first).unwrap();
    view.apply(&first, Some(10)).unwrap();
    assert_eq!(
        (view.reached(), view.fresh_as_of()),
        (feed.position(1), None),
        "not complete yet"
    );
    // What lies between was pruned.
    let mut second = feed.page(&view, 2);
    second.entries.remove(0);
    view.continues(&second).unwrap();
    view.apply(&second, None).unwrap();
    assert_eq!(
        (view.reached(), view.fresh_as_of()),
        (feed.position(3), None),
        "its time is not believed"
    );
    assert_eq!(view.is_revoked(&KEYS), Some("grant"));
    feed.feed(&view, 20);
    feed.feed(&view, 19);
    assert_eq!(view.fresh_as_of(), Some(20), "an older answer takes nothing back");
}

#[test]
fn bad_pages_change_nothing() {
    let view = empty();
    Feed::of(&[grant("x"), grant("y")]).feed(&view, 1);
    let feed = Feed::of(&[grant("x"), grant("y"), grant("g"), grant("h")]);
    let check = |change: fn(&mut FeedPage), expect: &str| {
        let mut page = feed.page(&view, 2);
        change(&mut page);
        for refused in [view.check(&page), view.apply(&page, Some(9))] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(expect), "{said}");
        }
        assert_eq!(
            (view.reached(), view.fresh_as_of(), view.is_revoked(&KEYS)),
            (feed.position(2), Some(1), None)
        );
    };
    check(|page| page.issuer = "j".into(), "another issuer");
    check(|page| page.entries[0].issuer = "j".into(), "another issuer");
    check(|page| page.after = 1, "begin where");
    check(|page| page.known = None, "told before");
    check(|page| page.known.as_mut().unwrap().seq = 1, "told before");
    check(|page| page.entries[0].seq = 2, "out of order");
    check(|page| page.entries[1].seq = 3, "out of order");
    check(|page| page.upto = 3, "end where");
    check(|page| page.upto = 5, "end where");
    check(
        |page| {
            page.entries.clear();
            page.upto = 2;
        },
        "brings nothing",
    );
    check(
        |page| page.entries[1].what = RevocationKey::Holder("short".into()),
        "thumbprint",
    );
    assert_eq!(
        view.check(&feed.page(&view, 2)).ok(),
        Some(()),
        "what was changed is at fault"
    );
}

#[test]
fn a_feed_that_goes_back_or_tells_otherwise_is_noticed() {
    let feed = Feed::of(&[grant("a"), grant("b"), grant("c")]);
    let lost = Feed::of(&[grant("a"), grant("b")]);
    let other = Feed::of(&[grant("a"), grant("x"), grant("c"), grant("d")]);
    let running = empty();
    feed.feed(&running, 1);
    // After a restart the view is empty, and knows only how far it had been.
    let restarted = RevocationView::new("i", feed.position(3));
    for view in [running, restarted] {
        let refused = view.continues(&lost.page(&view, 1)).unwrap_err();
        assert!(
            matches!(refused, StoreError::Regression { known: 3, offered: 2 }),
            "{refused}"
        );
        let refused = view.continues(&other.page(&view, 1)).unwrap_err();
        assert!(matches!(refused, StoreError::Forked { seq: 3 }), "{refused}");
        view.continues(&feed.page(&view, 1)).unwrap();
        assert_eq!(view.known(), feed.position(3));
    }
}

#[test]
fn a_page_has_the_history_of_its_entries() {
    let (view, feed) = (empty(), Feed::of(&[grant("a"), grant("b")]));
    let mut page = feed.page(&view, 2);
    page.entries[0].what = grant("x");
    let refused = view.continues(&page).unwrap_err();
    assert!(matches!(refused, StoreError::BadPage(_)), "{refused}");
    feed.feed(&view, 1);
    let mut page = feed.page(&view, 2);
    page.history = History([1; 32]);
    let refused = view.continues(&page).unwrap_err();
    assert!(
        matches!(refused, StoreError::Forked { seq: 2 }),
        "no news, and another history: {refused}"
    );
}

#[test]
fn a_restarted_view_is_complete_only_with_all_that_was_enforced() {
    let feed = Feed::of(&[grant("a"), grant("b"), grant("g")]);
    let view = RevocationView::new("i", feed.position(2));
    for (reached, fresh) in [(1, None), (2, None), (3, Some(7))] {
        let page = feed.page(&view, 1);
        view.continues(&page).unwrap();
        view.apply(&page, Some(7)).unwrap();
        assert_eq!((view.reached().seq, view.fresh_as_of()), (reached, fresh));
    }
    assert_eq!(view.known(), feed.position(3));
}

#[test]
fn entries_leave_after_their_end_and_its_margin() {
    let view = empty();
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
    let view = empty();
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
    let view = empty();
    let taken = std::sync::atomic::AtomicU64::new(0);
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

/// What may be in a view: a key, its end, and the key of a presentation that it stops.
fn any_entry() -> impl Strategy<Value = (RevocationKey, Option<i64>)> {
    let thumbprint = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
    let key = (0..6_u8, 0..4_u8, 0..4_u8).prop_map(move |(kind, one, two)| match kind {
        0 => RevocationKey::Grant(format!("g{one}")),
        1 => RevocationKey::Branch(format!("0{one}").repeat(32)),
        2 => RevocationKey::Holder(thumbprint(one)),
        3 => RevocationKey::Client(format!("c{one}")),
        4 => RevocationKey::Subject {
            iss: "idp".into(),
            sub: format!("s{one}"),
        },
        _ => RevocationKey::Delegation {
            grant: format!("g{two}"),
            from: thumbprint(one),
            to: thumbprint(one + 4),
        },
    });
    (key, proptest::option::of(0..100_000_i64))
}

proptest! {
    /// A view says of every key what a list of its entries says; it may forget late, never early.
    #[test]
    fn a_view_is_the_list_of_its_entries(
        entries in proptest::collection::vec(any_entry(), 0..40),
        sweeps in proptest::collection::vec(0..200_000_i64, 0..4),
    ) {
        let view = empty();
        for (key, until) in &entries {
            let (kind, name) = view.namer.of_key(key).unwrap();
            view.insert(kind, name, *until);
        }
        let now = sweeps.iter().copied().max();
        for now in sweeps {
            for _ in 0..RevocationView::SWEEP {
                view.sweep(now);
            }
        }
        let ends = |key: &RevocationKey| {
            let same = entries.iter().filter(|(other, _)| other == key);
            same.map(|(key, until)| match key.kind() {
                "holder" | "client" | "subject" => i64::MAX,
                _ => until.unwrap_or(i64::MAX),
            }).max()
        };
        for (key, _) in &entries {
            let (_, name) = view.namer.of_key(key).unwrap();
            let end = ends(key).unwrap().saturating_add(MARGIN);
            // Ends are kept in minutes.
            if now.is_none_or(|now| now <= end) {
                prop_assert!(view.contains(name), "{:?} is gone early", key);
            } else if now.is_some_and(|now| now >= end.saturating_add(60)) {
                prop_assert!(!view.contains(name), "{:?} stays", key);
            }
        }
        for one in 10..14_u8 {
            let unknown = format!("g{one}");
            prop_assert!(!view.contains(view.namer.grant(&unknown)));
            prop_assert!(!view.contains(view.namer.holder(&[one; 32])));
        }
    }
}
