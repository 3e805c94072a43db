//! What a new restriction would do to what a chain still allows, before anything is signed.

use super::Effective;
use crate::Caveat;
use serde::Serialize;

/// What a new restriction does. Only what is certain is claimed: whatever is not known to change
/// nothing or to allow nothing is [`Review::Narrows`].
///
/// It is judged over what a right names: calls of tools, reads of resources, prompts and
/// completions. A reason is one line, with everything that a token says escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "effect", content = "reason")]
pub enum Review {
    /// It may refuse something that was allowed.
    Narrows,
    /// Whatever was allowed still is, and why.
    ChangesNothing(String),
    /// Nothing is allowed after it, and why.
    AllowsNothing(String),
}

impl Effective {
    /// What `caveat` would do in the next link. A caveat that cannot be compiled narrows, for
    /// nobody can sign it.
    #[must_use]
    pub fn review(&self, caveat: &Caveat) -> Review {
        if caveat.to_check().is_err() {
            return Review::Narrows;
        }
        let mut after = self.clone();
        after.only(caveat);
        let implied = match caveat {
            Caveat::MaxCalls { counter, calls } => self.counts_fewer(counter, *calls),
            _ => after == *self,
        };
        self.compare(&after, implied, || match caveat {
            Caveat::Tool { .. } => "every tool that may be called is on the list".to_owned(),
            Caveat::Server { .. } => "every right is on these servers".to_owned(),
            Caveat::Method { .. } => "no other method is allowed".to_owned(),
            Caveat::Audience { .. } => "it counts for no other audience".to_owned(),
            Caveat::Resource { .. } => "every value that is allowed matches".to_owned(),
            Caveat::Argument { .. } => "every value that is allowed matches".to_owned(),
            Caveat::ClientAddress { .. } => "calls from elsewhere are refused already".to_owned(),
            Caveat::NotBefore(_) => "it does not begin earlier".to_owned(),
            Caveat::Hours { .. } => "every hour that is allowed is within".to_owned(),
            Caveat::MaxCalls { .. } => "no more calls are allowed already".to_owned(),
        })
    }

    /// What an end at `unix` (seconds since the Unix epoch) would do in the next link.
    #[must_use]
    pub fn review_until(&self, unix: i64) -> Review {
        let mut after = self.clone();
        after.until(unix);
        self.compare(&after, unix >= self.expires_at, || {
            "it ends no later than that already".to_owned()
        })
    }

    /// What `max_depth` would do in a link that leaves the chain at its present depth; for a
    /// hand-over ask [`Effective::handed_on`].
    #[must_use]
    pub fn review_max_depth(&self, max_depth: u32) -> Review {
        let mut after = self.clone();
        after.set_depth(self.depth, self.max_depth.min(max_depth));
        self.compare(&after, max_depth >= self.max_depth, || {
            format!("it may be handed on {} times at most already", self.max_depth)
        })
    }

    fn compare(&self, after: &Self, implied: bool, why: impl FnOnce() -> String) -> Review {
        match (&self.nothing, &after.nothing) {
            (Some(reason), _) => Review::ChangesNothing(format!("nothing is allowed already: {reason}")),
            (None, Some(reason)) => Review::AllowsNothing(reason.clone()),
            (None, None) if implied => Review::ChangesNothing(why()),
            (None, None) => Review::Narrows,
        }
    }

    /// Whether what a new limit of `calls` under `counter` would count is bounded by as few calls
    /// already. A new counter counts what every counter before it counts; but under a name that is
    /// taken the new limit also holds for what was counted before.
    fn counts_fewer(&self, counter: &str, calls: i64) -> bool {
        let fewer = |limit: &super::EffectiveCalls| limit.calls <= calls;
        let mut same = self
            .max_calls
            .iter()
            .filter(|limit| limit.counter == counter)
            .peekable();
        if same.peek().is_some() {
            same.any(fewer)
        } else {
            self.max_calls.iter().any(fewer)
        }
    }
}
