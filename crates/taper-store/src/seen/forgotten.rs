//! What was forgotten of seen proofs, and what a clock that was set makes of it.

use super::{LONGEST_LIFE, latest_end};

/// Until when what was forgotten could be accepted. It is locked after a shard, never before.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// Of all.
    pub(super) until: i64,
    /// Of what was forgotten since the clock was last seen to be set back.
    pub(super) lately: i64,
    pub(super) setbacks: u64,
    /// Nothing in the table ends later that is not noted.
    pub(super) farthest: i64,
    pub(super) far: Far,
}

/// What ends later than this was taken while the clock was ahead, and is noted. What is taken from then on is not of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Far {
    None,
    /// It is still in the table.
    Noted(i64),
    /// Somebody removes it.
    Leaving(i64),
}

impl Forgotten {
    /// Entries are forgotten, the last of which has this end.
    pub(super) fn note(&mut self, keep_until: i64) {
        self.until = self.until.max(keep_until);
        self.lately = self.lately.max(keep_until);
    }

    /// An entry with this end is put into its shard, which is locked.
    pub(super) fn taken(&mut self, keep_until: i64) {
        self.farthest = self.farthest.max(keep_until);
        if let Far::Noted(latest) | Far::Leaving(latest) = &mut self.far {
            *latest = (*latest).max(keep_until);
        }
    }

    /// Notes what was taken while the clock was ahead of `now`, all of it at once and as soon as that is seen: nonces
    /// get a new key once, before one is handed out.
    pub(super) fn note_far(&mut self, now: i64) {
        if self.farthest > latest_end(now) {
            self.note(self.farthest);
            // What stays ends no later, by a clock that may be a little behind as well.
            self.farthest = now.saturating_add(LONGEST_LIFE);
            self.far = Far::Noted(self.farthest);
        }
    }

    /// Counts a setback of the clock, if it shows `now`.
    pub(super) fn seen_at(&mut self, now: i64) {
        if self.lately >= now {
            self.setbacks += 1;
            self.lately = i64::MIN;
        }
    }
}
