//! Forgetting what can never matter again: grants, revocations, refresh families and counters whose
//! end passed [`MARGIN`] ago. Histories, clients, root keys and revocations without an end stay.
//!
//! Only the state forgets; the journal has its own retention. A state that is filled again from the
//! journal has more than one that was swept, and the same after the next sweep.
//!
//! A counter that was forgotten starts at 0 again, so it may only go when no capability can use it.
//! Its end is that of its link, which its branch id fixes ([`crate::Counter::until`]); counters of a
//! grant itself have no end here, since a renewal keeps their name.

use crate::change::{Change, Lookup as _};
use crate::error::StoreError;
use crate::kept::RefreshRecord;
use crate::layout::{self, COUNTER, Counted, FAMILY, GRANT, REVOCATION, expiring, expiry_bound, parse};
use crate::record::GrantRecord;
use crate::revocation::RevocationRecord;
use crate::state::{State, index};

/// How long after its end something is forgotten, in seconds: clocks of nodes differ, and are set back.
pub(crate) const MARGIN: i64 = 86_400;
/// Entries that one step looks at; a step holds up the writer for about a millisecond.
const STEP: usize = 256;

/// What a sweep forgot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Grants.
    pub grants: u64,
    /// Revocations; their numbers are not given again, and the history keeps them.
    pub revocations: u64,
    /// Counters of calls.
    pub counters: u64,
    /// Refresh families with all their tokens.
    pub refresh_families: u64,
}

impl Swept {
    pub(crate) fn add(&mut self, other: Self) {
        self.grants += other.grants;
        self.revocations += other.revocations;
        self.counters += other.counters;
        self.refresh_families += other.refresh_families;
    }
}

/// Looks at the oldest entries. The second value says whether there are more.
pub(crate) fn step(state: &State, now: i64) -> Result<(Swept, bool), StoreError> {
    let over = now.saturating_sub(MARGIN);
    let mut sweep = Sweep {
        state,
        change: Change::of(state),
        over,
        left: STEP,
        swept: Swept::default(),
    };
    let mut entries = state.range(expiry_bound(i64::MIN)..expiry_bound(over.saturating_add(1)))?;
    let mut more = false;
    while let Some(entry) = entries.next().transpose()? {
        if sweep.left == 0 || !sweep.end(expiring(&entry.0))? {
            more = true;
            break;
        }
        sweep.left = sweep.left.saturating_sub(1);
        sweep.change.remove(entry.0.to_vec());
    }
    state.forget(sweep.change)?;
    Ok((sweep.swept, more))
}

struct Sweep<'a> {
    state: &'a State,
    change: Change<'a>,
    /// What ended at this time or before it goes.
    over: i64,
    left: usize,
    swept: Swept,
}

impl Sweep<'_> {
    /// Forgets what lies under a key, if it has ended; it may have got a later end since. `false`: not
    /// all of it, the next step goes on.
    fn end(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let Some(value) = self.change.get(key)? else {
            return Ok(true);
        };
        match key.first() {
            Some(&GRANT) => {
                let grant = parse::<GrantRecord>(&value)?;
                if grant.end() > self.over {
                    return Ok(true);
                }
                for key in index::keys(&grant) {
                    self.change.remove(key);
                }
                self.change.remove(layout::under(key));
                self.swept.grants += 1;
            }
            Some(&REVOCATION) => {
                let revocation = parse::<RevocationRecord>(&value)?.revocation;
                if revocation.until.is_none_or(|until| until > self.over) {
                    return Ok(true);
                }
                // Revoked once more after it was forgotten, it has another number.
                if self.change.revoked(&revocation.issuer, &revocation.what)? == Some(revocation.seq) {
                    let name = revocation.what.fingerprint(&revocation.issuer);
                    self.change.remove(layout::fingerprint(&name));
                }
                self.swept.revocations += 1;
            }
            Some(&COUNTER) => {
                if Counted::from_bytes(&value)?
                    .until
                    .is_none_or(|until| until > self.over)
                {
                    return Ok(true);
                }
                self.swept.counters += 1;
            }
            Some(&FAMILY) => {
                let family = parse::<RefreshRecord>(&value)?;
                if family.expires_at > self.over {
                    return Ok(true);
                }
                if !self.end_tokens(&family.family)? {
                    return Ok(false);
                }
                self.swept.refresh_families += 1;
            }
            _ => return Ok(true),
        }
        self.change.remove(key.to_vec());
        Ok(true)
    }

    /// Forgets tokens of a family, as many as this step may. `false` if there are more.
    fn end_tokens(&mut self, family: &[u8; 32]) -> Result<bool, StoreError> {
        for token in self.state.tokens(family)? {
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            let token = token?.0;
            self.change.remove(layout::token(&token));
            self.change.remove(layout::token_of(family, &token));
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
