//! Decisions that run into an evaluation limit, counted per grant and last holder (RULES 11): each costs
//! as much as evaluation may cost, and who makes many of them is told to wait before the next.

use std::time::Duration;

use super::table::{Caller, Key, Table};

/// The time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Grants, and holders, with a count of their own.
const MAX_COUNTS: usize = 4_096;

#[derive(Debug)]
pub(super) struct Undecided {
    max_per_holder: u32,
    max_per_grant: u32,
    holders: Table<Count>,
    grants: Table<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Duration,
    count: u32,
}

impl Count {
    fn left(&self, now: Duration) -> Option<Duration> {
        let left = self.since.saturating_add(WINDOW).checked_sub(now)?;
        (!left.is_zero()).then_some(left)
    }
}

impl Undecided {
    pub(super) fn new(max_per_holder: u32, max_per_grant: u32) -> Self {
        Self {
            max_per_holder,
            max_per_grant,
            holders: Table::new(MAX_COUNTS),
            grants: Table::new(MAX_COUNTS),
        }
    }

    /// Whether the caller may have another decision.
    ///
    /// # Errors
    /// Whose number is reached, and how long until it starts anew.
    pub(super) fn check(&self, caller: &Caller, now: Duration) -> Result<(), (&'static str, Duration)> {
        let reached = |table: &Table<Count>, key: &Key, max: u32| {
            table.change(key, |count| {
                let count = count.filter(|count| count.count >= max);
                (count.and_then(|count| count.left(now)), None)
            })
        };
        if let Some(left) = reached(&self.holders, &caller.holder, self.max_per_holder) {
            return Err(("holder", left));
        }
        match reached(&self.grants, &caller.grant, self.max_per_grant) {
            Some(left) => Err(("grant", left)),
            None => Ok(()),
        }
    }

    /// Counts one. How many the grant has now.
    pub(super) fn add(&self, caller: &Caller, now: Duration) -> u32 {
        let add = |table: &Table<Count>, key: &Key| {
            table.retain(|count| count.left(now).is_some());
            table.change(key, |count| {
                let mut next = count.copied().unwrap_or(Count { since: now, count: 0 });
                next.count = next.count.saturating_add(1);
                (next.count, Some(next))
            })
        };
        add(&self.holders, &caller.holder);
        add(&self.grants, &caller.grant)
    }

    /// How many grants and holders are counted.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.grants.len(), self.holders.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(grant: usize, holder: usize) -> Caller {
        Caller {
            holder: Key::of(&[&holder.to_be_bytes()]),
            grant: Key::of(&[&grant.to_be_bytes()]),
            subject: Key::of(&[]),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_holder_waits_for_the_rest_of_its_minute() {
        let undecided = Undecided::new(2, 10);
        assert_eq!(undecided.add(&caller(1, 1), at(0)), 1);
        assert!(undecided.check(&caller(1, 1), at(1)).is_ok());
        undecided.add(&caller(1, 1), at(20));
        assert_eq!(undecided.check(&caller(1, 1), at(50)), Err(("holder", at(10))));
        assert!(undecided.check(&caller(1, 2), at(50)).is_ok(), "another holder");
        assert!(undecided.check(&caller(1, 1), at(60)).is_ok());
        assert_eq!(undecided.add(&caller(1, 1), at(60)), 1, "a new minute");
    }

    #[test]
    fn new_keys_do_not_help_a_grant_and_do_not_grow_the_tables() {
        let undecided = Undecided::new(2, 3);
        for holder in 0..3 {
            undecided.add(&caller(1, holder), at(0));
        }
        assert_eq!(undecided.check(&caller(1, 9), at(1)), Err(("grant", at(59))));
        assert!(undecided.check(&caller(2, 9), at(1)).is_ok(), "another grant");
        for n in 0..MAX_COUNTS + 100 {
            undecided.add(&caller(n, n), at(1));
        }
        assert_eq!(undecided.len(), (MAX_COUNTS, MAX_COUNTS));
        undecided.add(&caller(1, 1), at(61));
        assert_eq!(undecided.len(), (1, 1), "old ones are forgotten");
    }
}
