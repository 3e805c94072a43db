//! What one issuer revoked, as far as its feed was followed, and whether that can be relied on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taper_service::clock::rfc3339;
use taper_store::{FeedPage, FeedPosition, RevocationKeys, RevocationView, StoreError};

use crate::refusal::Refusal;
use crate::rules;

/// How far the time of a page may be ahead of this clock, in seconds.
const MAX_AHEAD: i64 = 60;

/// One issuer's revocations.
#[derive(Debug)]
pub(crate) struct Followed {
    view: RevocationView,
    max_staleness: i64,
    trouble: Mutex<Option<Trouble>>,
}

/// Why the last page was not taken as it should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The feed's head is lower than what was enforced.
    WentBack,
    /// The feed tells something else than it told.
    Forked,
    /// How far the feed was followed cannot be written down.
    Unkept,
    /// The page's time is ahead of this clock.
    Ahead,
    /// No known key signed the page.
    Unsigned,
    /// The page is not one, or answers something else.
    Malformed,
    /// There is no answer.
    Unreachable,
}

impl Trouble {
    /// What went wrong with a page.
    pub(crate) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Regression { .. } => Self::WentBack,
            StoreError::Forked { .. } => Self::Forked,
            StoreError::BadPage(_) | StoreError::MalformedKey(_) => Self::Malformed,
            _ => Self::Unkept,
        }
    }

    /// Whether everything is refused until a page is taken again.
    fn refuses(self) -> bool {
        matches!(self, Self::WentBack | Self::Forked | Self::Unkept)
    }

    /// For operators, on a page that anybody may read.
    fn as_str(self) -> &'static str {
        match self {
            Self::WentBack => "it lost revocations that were enforced here",
            Self::Forked => "it tells another history than it told here before",
            Self::Unkept => "its position cannot be written to the state folder",
            Self::Ahead => "its clock is ahead of this one",
            Self::Unsigned => "its pages are not signed by a root key that is known",
            Self::Malformed => "its pages cannot be used",
            Self::Unreachable => "it does not answer",
        }
    }
}

impl Followed {
    /// Nothing but a `floor`: what was enforced before a restart.
    pub(crate) fn new(issuer: &str, floor: FeedPosition, max_staleness: Duration) -> Self {
        Self {
            view: RevocationView::new(issuer, floor),
            max_staleness: i64::try_from(max_staleness.as_secs()).unwrap_or(i64::MAX),
            trouble: Mutex::default(),
        }
    }

    /// Above this age everything is refused, in seconds.
    pub(crate) fn max_staleness(&self) -> i64 {
        self.max_staleness
    }

    /// Where the next page begins.
    pub(crate) fn reached(&self) -> FeedPosition {
        self.view.reached()
    }

    /// The furthest that was ever enforced.
    pub(crate) fn known(&self) -> FeedPosition {
        self.view.known()
    }

    /// The time of which it is known what is revoked, in seconds since the Unix epoch.
    pub(crate) fn as_of(&self) -> Option<i64> {
        self.view.fresh_as_of()
    }

    /// Takes a page whose signature held. `keep` writes a position down durably; it runs before the
    /// page can refuse anything, so that whatever was enforced is also remembered: after a crash
    /// between the two the position is of a page that is asked for again. Until the view is complete
    /// for the first time everything is refused, and nothing has to be written.
    ///
    /// # Errors
    /// When it does not continue the feed (M-37), is malformed, or could not be kept. Nothing of it is
    /// taken then.
    pub(crate) fn take(
        &self,
        page: &FeedPage,
        now: i64,
        keep: impl FnOnce(FeedPosition) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // An issuer whose clock is ahead does not make its feed fresh for longer.
        let as_of = (page.time.saturating_sub(now) <= MAX_AHEAD).then(|| page.time.min(now));
        let taken = self.try_take(page, as_of, keep);
        match &taken {
            Err(error) => self.note(Trouble::of(error)),
            Ok(()) => *self.trouble_mut() = as_of.is_none().then_some(Trouble::Ahead),
        }
        taken
    }

    fn try_take(
        &self,
        page: &FeedPage,
        as_of: Option<i64>,
        keep: impl FnOnce(FeedPosition) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.view.continues(page) {
            Err(StoreError::Regression { .. } | StoreError::Forked { .. })
                if rules::FEED_HISTORY.holds(false) => {}
            other => other?,
        }
        self.view.check(page)?;
        let is_relied_on = self.view.fresh_as_of().is_some() || page.upto == page.head;
        if is_relied_on && page.upto > self.known().seq {
            keep(FeedPosition {
                seq: page.upto,
                history: page.history,
            })?;
        }
        self.view.apply(page, as_of)
    }

    /// Notes why there is no page, or none that is taken. What refuses everything stays noted until one is
    /// taken.
    pub(crate) fn note(&self, trouble: Trouble) {
        let mut noted = self.trouble_mut();
        if trouble.refuses() || !noted.is_some_and(Trouble::refuses) {
            *noted = Some(trouble);
        }
    }

    /// Forgets a part of what has ended by the time of which the feed is fresh. No other time will do: by
    /// one that is not believed, entries would go that are in force once the clocks are right.
    pub(crate) fn sweep(&self) {
        if let Some(as_of) = self.view.fresh_as_of() {
            self.view.sweep(as_of);
        }
    }

    /// Refuses what is revoked (M-12).
    pub(crate) fn refuse_revoked(&self, keys: &RevocationKeys<'_>) -> Result<(), Refusal> {
        match self.view.is_revoked(keys) {
            Some(kind) if !rules::REVOKED.holds(false) => Err(Refusal::Revoked(kind)),
            _ => Ok(()),
        }
    }

    /// Refuses everything while it is not known what is revoked (M-13, M-37).
    pub(crate) fn refuse_doubt(&self, now: i64) -> Result<(), Refusal> {
        if let Some(Trouble::WentBack | Trouble::Forked) = self.trouble() {
            return Err(Refusal::FeedHistory);
        }
        if rules::STALE.holds(self.is_fresh(now)) {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }

    /// What an operator has to know, if this issuer's capabilities are refused.
    pub(crate) fn unready(&self, now: i64) -> Option<String> {
        self.refuse_doubt(now).err()?;
        let why = match self.trouble() {
            Some(trouble) => format!(": {}", trouble.as_str()),
            None => String::new(),
        };
        Some(match self.view.fresh_as_of() {
            None => format!("its revocation feed is not complete yet{why}"),
            Some(as_of) if self.is_fresh(now) => {
                format!(
                    "its revocation feed is not believed, though it is of {}{why}",
                    rfc3339(as_of)
                )
            }
            Some(as_of) => {
                let since = rfc3339(as_of.saturating_add(self.max_staleness));
                format!("its revocation feed is stale since {since}{why}")
            }
        })
    }

    fn trouble(&self) -> Option<Trouble> {
        *self.trouble_mut()
    }

    fn trouble_mut(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Complete, a short while ago; by a clock that was set back nothing is.
    fn is_fresh(&self, now: i64) -> bool {
        let is_kept = self.trouble() != Some(Trouble::Unkept);
        let age = self.view.fresh_as_of().map(|as_of| now.saturating_sub(as_of));
        is_kept && age.is_some_and(|age| (-MAX_AHEAD..=self.max_staleness).contains(&age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_store::{FeedKnown, History, Revocation, RevocationKey};

    const ISSUER: &str = "https://i";

    fn position(byte: u8, seq: u64) -> FeedPosition {
        let history = History([byte; 32]);
        FeedPosition { seq, history }
    }

    /// A page after `after` that has no entries, all of them being pruned.
    fn page(after: FeedPosition, upto: FeedPosition, time: i64) -> FeedPage {
        FeedPage {
            issuer: ISSUER.into(),
            after: after.seq,
            entries: Vec::new(),
            head: upto.seq,
            upto: upto.seq,
            history: upto.history,
            known: Some(FeedKnown {
                seq: after.seq,
                history: Some(after.history),
            }),
            time,
        }
    }

    fn followed(floor: FeedPosition) -> Followed {
        Followed::new(ISSUER, floor, Duration::from_secs(30))
    }

    fn kept(_: FeedPosition) -> Result<(), StoreError> {
        Ok(())
    }

    #[track_caller]
    fn check(feed: &Followed, now: i64, expected: &str) {
        assert_eq!(feed.unready(now).unwrap_or_default(), expected);
    }

    #[test]
    fn a_feed_is_fresh_for_its_time_by_both_clocks() {
        let feed = followed(FeedPosition::START);
        check(&feed, 0, "its revocation feed is not complete yet");
        let start = FeedPosition::START;
        feed.take(&page(start, start, 1000), 1010, kept).unwrap();
        check(&feed, 1010, "");
        check(&feed, 1030, "");
        check(
            &feed,
            1031,
            "its revocation feed is stale since 1970-01-01T00:17:10Z",
        );
        assert!(feed.unready(1000 - MAX_AHEAD).is_none());
        assert!(
            feed.unready(999 - MAX_AHEAD).is_some(),
            "a clock that was set back"
        );
        // Older and equal times take nothing back; one ahead counts as now.
        feed.take(&page(start, start, 900), 1030, kept).unwrap();
        check(&feed, 1030, "");
        feed.take(&page(start, start, 1050), 1040, kept).unwrap();
        check(&feed, 1070, "");
        assert!(feed.unready(1071).is_some());
        feed.take(&page(start, start, 1101 + MAX_AHEAD), 1100, kept)
            .unwrap();
        check(
            &feed,
            1100,
            "its revocation feed is stale since 1970-01-01T00:17:50Z: its clock is ahead of this one",
        );
    }

    #[test]
    fn a_page_of_an_unbelievable_time_still_revokes() {
        let feed = followed(FeedPosition::START);
        let what = RevocationKey::Grant("g".into());
        let (seq, at, issuer, until) = (1, 0, ISSUER.to_owned(), None);
        let entry = Revocation {
            seq,
            at,
            issuer,
            what,
            until,
        };
        let after = FeedPosition {
            seq,
            history: entry.history(History::default()),
        };
        let mut page = page(FeedPosition::START, after, 5000);
        page.entries.push(entry);
        feed.take(&page, 0, kept).unwrap();
        let keys = RevocationKeys {
            issuer: ISSUER,
            grant: "g",
            branches: &[],
            holders: &[],
            client: "",
            subjects: &[],
        };
        assert!(matches!(
            feed.refuse_revoked(&keys),
            Err(Refusal::Revoked("grant"))
        ));
        assert!(matches!(feed.refuse_doubt(0), Err(Refusal::Stale)));
    }

    #[test]
    fn pages_that_are_not_believed_forget_nothing() {
        let feed = followed(FeedPosition::START);
        let (seq, at, issuer, until) = (1, 0, ISSUER.to_owned(), Some(3600));
        let what = RevocationKey::Grant("g".into());
        let entry = Revocation {
            seq,
            at,
            issuer,
            what,
            until,
        };
        let after = FeedPosition {
            seq,
            history: entry.history(History::default()),
        };
        let mut first = page(FeedPosition::START, after, 0);
        first.entries.push(entry);
        feed.take(&first, 0, kept).unwrap();
        let keys = RevocationKeys {
            issuer: ISSUER,
            grant: "g",
            branches: &[],
            holders: &[],
            client: "",
            subjects: &[],
        };
        // Both clocks are ahead, the issuer's by more; then both are right.
        for _ in 0..RevocationView::SWEEP {
            feed.take(&page(after, after, 7201 + MAX_AHEAD), 7200, kept)
                .unwrap();
            feed.sweep();
        }
        feed.take(&page(after, after, 60), 60, kept).unwrap();
        check(&feed, 60, "");
        assert!(feed.refuse_revoked(&keys).is_err());
        for _ in 0..RevocationView::SWEEP {
            feed.take(&page(after, after, 7200), 7200, kept).unwrap();
            feed.sweep();
        }
        assert!(feed.refuse_revoked(&keys).is_ok());
    }

    #[test]
    fn a_position_is_kept_before_anything_is_enforced() {
        let (start, one, two) = (FeedPosition::START, position(1, 1), position(2, 2));
        let feed = followed(start);
        let unkept = |_| Err(StoreError::Closed);
        let mut part = page(start, one, 10);
        part.head = 2;
        feed.take(&part, 10, unkept).unwrap();
        assert_eq!(feed.reached(), one, "nobody relies on it yet");
        assert!(feed.take(&page(one, two, 10), 10, unkept).is_err());
        assert_eq!(feed.reached(), one);
        let mut said = None;
        let keep = |position| {
            said = Some((position, feed.reached()));
            Ok(())
        };
        feed.take(&page(one, two, 10), 10, keep).unwrap();
        assert_eq!(said, Some((two, one)), "written down, then taken");
        check(&feed, 10, "");
        // From now on every page counts, also one of several.
        let mut part = page(two, position(3, 3), 11);
        part.head = 4;
        assert!(feed.take(&part, 11, unkept).is_err());
        check(
            &feed,
            11,
            "its revocation feed is stale since 1970-01-01T00:00:40Z: its position cannot be written to the state folder",
        );
        feed.take(&page(two, two, 11), 11, unkept).unwrap();
        check(&feed, 11, "");
    }

    #[test]
    fn a_feed_that_goes_back_or_tells_otherwise_refuses_everything() {
        let (seven, other) = (position(7, 7), position(8, 7));
        let feed = followed(FeedPosition::START);
        feed.take(&page(FeedPosition::START, seven, 10), 10, kept)
            .unwrap();
        let mut lost = page(seven, seven, 10);
        lost.head = 6;
        for (page, reason) in [
            (lost, "it lost revocations that were enforced here"),
            (
                page(other, other, 10),
                "it tells another history than it told here before",
            ),
        ] {
            assert!(feed.take(&page, 10, kept).is_err());
            assert!(matches!(feed.refuse_doubt(10), Err(Refusal::FeedHistory)));
            let expected = format!(
                "its revocation feed is not believed, though it is of 1970-01-01T00:00:10Z: {reason}"
            );
            check(&feed, 10, &expected);
            feed.note(Trouble::Unreachable);
            check(&feed, 10, &expected);
        }
        feed.take(&page(seven, seven, 10), 10, kept).unwrap();
        check(&feed, 10, "");
    }
}
