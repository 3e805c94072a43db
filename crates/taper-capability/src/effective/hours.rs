//! When in the week calls may come.

use super::Effective;
use crate::functions::Hours;
use serde::Serialize;
use std::collections::BTreeSet;

/// A window of the day, as [`crate::Caveat::Hours`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveHours {
    /// From when on, `HH:MM`.
    pub from: String,
    /// Before when, `HH:MM`.
    pub to: String,
    /// `Z` or the offset from UTC.
    pub offset: String,
    /// On which days, 1 (Monday) to 7 (Sunday).
    pub days: Vec<u8>,
}

impl Effective {
    pub(super) fn at_hours(&mut self, window: EffectiveHours) {
        let (before, new) = (week(&self.hours), week(std::slice::from_ref(&window)));
        // What all hours so far have in common lies within: nothing is added.
        if before.is_subset(&new) {
            return;
        }
        self.fails_when(before.is_disjoint(&new), || "no hour fits all caveats".to_owned());
        self.hours.push(window);
    }
}

/// The minutes of the week, in UTC, that lie in all of these windows. Windows begin and end at full
/// minutes and come again every week.
fn week(windows: &[EffectiveHours]) -> BTreeSet<u64> {
    const MINUTES: u64 = 7 * 24 * 60;
    let windows: Vec<Option<Hours>> = windows.iter().map(EffectiveHours::window).collect();
    (0..MINUTES)
        // Some weeks after 1970, for an offset reaches back.
        .filter(|minute| {
            let at = (minute + 4 * MINUTES) * 60;
            windows.iter().flatten().all(|window| window.contain(at))
        })
        .collect()
}

impl EffectiveHours {
    fn window(&self) -> Option<Hours> {
        let days: String = self
            .days
            .iter()
            .filter_map(|day| char::from_digit(u32::from(*day), 10))
            .collect();
        Hours::parse(&format!("{}/{}/{}/{days}", self.from, self.to, self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str, offset: &str, days: &[u8]) -> EffectiveHours {
        EffectiveHours {
            from: from.into(),
            to: to.into(),
            offset: offset.into(),
            days: days.to_vec(),
        }
    }

    #[test]
    fn windows_are_compared_minute_by_minute() {
        let all = [1, 2, 3, 4, 5, 6, 7];
        let minutes = |windows: &[EffectiveHours]| week(windows).len();
        assert_eq!(minutes(&[]), 7 * 24 * 60);
        assert_eq!(minutes(&[window("09:00", "17:30", "Z", &[1, 2])]), 2 * 510);
        // Over midnight, and over the end of the week.
        assert_eq!(minutes(&[window("22:00", "06:00", "Z", &[7])]), 480);
        assert_eq!(
            week(&[window("09:00", "17:00", "+02:00", &all)]),
            week(&[window("07:00", "15:00", "Z", &all)])
        );
        let east = window("00:00", "01:00", "+14:00", &[1]);
        let sunday = window("10:00", "11:00", "Z", &[7]);
        assert_eq!(week(&[east]), week(&[sunday]));
        let apart = [
            window("09:00", "12:00", "Z", &all),
            window("12:00", "13:00", "Z", &all),
        ];
        assert_eq!(minutes(&apart), 0);
    }
}
