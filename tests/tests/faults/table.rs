//! One row of a table: a trouble, and what whoever runs into it gets. The page `spec/faults.md` has the
//! same rows.

use std::collections::BTreeMap;

use crate::wire::Got;
use crate::world::{World, until};

/// A trouble and its end.
pub(crate) struct Row {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// What a caller gets who runs into it.
    pub(crate) gets: Gets,
}

/// What a caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gets {
    /// This status, for a rule that is broken.
    Refused(u16, &'static str),
    /// The answer's head, and then a part of its body without an end.
    Cut,
    /// The answer.
    Whole,
    /// What it waited for: it left itself.
    Left,
}

impl Gets {
    /// As the page has it.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Refused(status, rule) => format!("{status}, {rule}"),
            Self::Cut => "200, cut".to_owned(),
            Self::Whole => "200, whole".to_owned(),
            Self::Left => "200, left".to_owned(),
        }
    }

    /// What is not as it should be.
    pub(crate) fn wrong(self, got: &Got) -> Option<String> {
        let is_so = match self {
            Self::Refused(status, rule) => got.status == status && got.whole && got.body.contains(rule),
            Self::Cut => got.status == 200 && !got.whole,
            Self::Whole => got.status == 200 && got.whole,
            Self::Left => got.status == 200,
        };
        (!is_so || got.silent).then(|| format!("expected {}, got {got:?}", self.text()))
    }

    /// Whether a failure of `server` is not counted `times`.
    pub(crate) fn uncounted(self, world: &World, server: &str, times: usize) -> Option<String> {
        let Self::Refused(..) = self else {
            return None;
        };
        let labels = [&*format!("server=\"{server}\""), "outcome=\"failed\""];
        let counted = || world.counted("taper_proxy_requests_total", &labels);
        (!until(|| counted() == times as f64)).then(|| format!("it is counted {} times", counted()))
    }
}

/// Whether each refusal of `rows` is counted under its rule, `times` for each row and no more. A look at the end.
pub(crate) fn miscounted<'a>(
    world: &World,
    rows: impl Iterator<Item = &'a Row>,
    times: usize,
) -> Option<String> {
    let mut wanted = BTreeMap::<&str, usize>::new();
    for row in rows {
        if let Gets::Refused(_, rule) = row.gets {
            *wanted.entry(rule).or_default() += times;
        }
    }
    let wrong = wanted.into_iter().filter_map(|(rule, wanted)| {
        let counted = world.counted("taper_proxy_refusals_total", &[&format!("rule=\"{rule}\"")]);
        (counted != wanted as f64).then(|| format!("{rule}: {wanted} refused, {counted} counted"))
    });
    wrong.reduce(|all, one| format!("{all}; {one}"))
}

impl Row {
    /// The row as the page has it.
    pub(crate) fn markdown(&self) -> String {
        format!("| {} | {} |", self.name, self.gets.text())
    }
}
