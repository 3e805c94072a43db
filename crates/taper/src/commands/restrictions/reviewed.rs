//! What the restrictions of a command would do to what a capability still allows.

use serde_json::{Value, json};
use taper_agent::Step;
use taper_capability::{Caveat, Effective, Review, escaped};
use taper_service::clock::rfc3339;

use super::Restrictions;
use crate::context::Context;
use crate::failure::Failure;

/// Restrictions that were held against the capability which they restrict, one after the other.
#[derive(Debug)]
pub(crate) struct Reviewed {
    /// The caveats, as they were said.
    caveats: Vec<Caveat>,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Warning {
    /// What was said, as a phrase.
    said: String,
    caveat: Option<Caveat>,
    review: Review,
}

impl Reviewed {
    /// Holds caveats, end and depth against `before`, what the next block is added to; of a
    /// hand-over, what was handed on ([`Effective::handed_on`]).
    pub(crate) fn new(
        mut before: Effective,
        caveats: Vec<Caveat>,
        until: Option<i64>,
        max_depth: Option<u32>,
    ) -> Self {
        let mut warnings = Vec::new();
        let mut ended = false;
        let mut note = |said: String, caveat: Option<&Caveat>, review: Review| {
            // Where nothing is allowed any more, all that follows changes nothing.
            if !ended && review != Review::Narrows {
                ended = matches!(review, Review::AllowsNothing(_));
                warnings.push(Warning {
                    said,
                    caveat: caveat.cloned(),
                    review,
                });
            }
        };
        for caveat in &caveats {
            note(caveat.to_string(), Some(caveat), before.review(caveat));
            before.only(caveat);
        }
        // The very end of the parent is what a hand-over without an earlier one has to say.
        if let Some(until) = until.filter(|until| *until != before.expires_at) {
            note(
                format!("until {}", rfc3339(until)),
                None,
                before.review_until(until),
            );
        }
        if let Some(depth) = max_depth {
            let said = format!("at most {depth} hand-overs");
            note(said, None, before.review_max_depth(depth));
        }
        Self { caveats, warnings }
    }

    /// Tells the warnings; with `--strict` they are the reason not to sign.
    pub(crate) fn judge(&self, restrictions: &Restrictions, context: &mut Context) -> Result<(), Failure> {
        if restrictions.strict && !self.warnings.is_empty() {
            let all: Vec<_> = self.warnings.iter().map(Warning::to_text).collect();
            return Err(Failure::failed(format!("nothing is signed: {}", all.join("; ")))
                .next("`taper inspect --effective` shows what the capability still allows"));
        }
        for warning in &self.warnings {
            context.talk(format_args!("warning: {}", warning.to_text()));
        }
        Ok(())
    }

    /// `step` with what was said.
    pub(crate) fn add_to(&self, step: Step, restrictions: &Restrictions) -> Step {
        let mut step = self.caveats.iter().cloned().fold(step, Step::only);
        if let Some(depth) = restrictions.max_depth {
            step = step.max_depth(depth);
        }
        match &restrictions.note {
            Some(note) => step.note(note),
            None => step,
        }
    }

    /// The warnings for programs: `said`, `caveat` where it is one, `effect` and `reason`.
    pub(crate) fn to_json(&self) -> Value {
        self.warnings.iter().map(Warning::to_json).collect()
    }
}

impl Warning {
    fn to_text(&self) -> String {
        let said = &self.said;
        match &self.review {
            Review::ChangesNothing(reason) => format!("`{said}` changes nothing: {reason}"),
            Review::AllowsNothing(reason) => format!("`{said}` leaves nothing allowed: {reason}"),
            Review::Narrows => escaped(said),
        }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({"said": self.said});
        if let (Value::Object(members), Ok(Value::Object(review))) =
            (&mut json, serde_json::to_value(&self.review))
        {
            members.extend(review);
            if let Some(caveat) = &self.caveat {
                members.insert("caveat".to_owned(), json!(caveat));
            }
        }
        json
    }
}
