//! **THIS FILE MAKES THE STORE LIE ON PURPOSE.** It exists only with the cargo feature `sabotage`,
//! which is off by default and in no release, and acts only when `TAPER_SABOTAGE` names a lie:
//!
//! - `journal`: every third decision is acknowledged and dropped.
//! - `early-answer`: a batch is acknowledged some time before it is written.
//!
//! It lets the durability tests prove that they would notice a store that lies.

use std::time::Duration;

use crate::record::RecordKind;

/// How long `early-answer` keeps what it acknowledged from the disk. A kill leaves the page cache
/// alone, so only what was not even written is lost by one.
const LATE: Duration = Duration::from_millis(30);

/// The lie that was chosen.
#[derive(Debug)]
pub(crate) struct Sabotage {
    lie: Option<Lie>,
    decisions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Journal,
    EarlyAnswer,
}

impl Sabotage {
    /// Reads the environment.
    pub(crate) fn from_env() -> Self {
        let lie = match std::env::var("TAPER_SABOTAGE").as_deref() {
            Ok("journal") => Some(Lie::Journal),
            Ok("early-answer") => Some(Lie::EarlyAnswer),
            _ => None,
        };
        Self { lie, decisions: 0 }
    }

    /// Whether this record is to be lost.
    pub(crate) fn drops(&mut self, kind: &RecordKind) -> bool {
        if self.lie != Some(Lie::Journal) || !matches!(kind, RecordKind::Decision(_)) {
            return false;
        }
        self.decisions += 1;
        self.decisions.is_multiple_of(3)
    }

    /// Whether answers go out before the write, which must then wait for [`Sabotage::be_late`].
    pub(crate) fn answers_early(&self) -> bool {
        self.lie == Some(Lie::EarlyAnswer)
    }

    /// Waits between the answers and the write.
    pub(crate) fn be_late(&self) {
        std::thread::sleep(LATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::decision;

    #[test]
    fn every_third_decision_is_lost_and_nothing_else() {
        let mut sabotage = Sabotage {
            lie: Some(Lie::Journal),
            decisions: 0,
        };
        let kinds = [decision("a").kind, RecordKind::Started { role: "r".into() }];
        let lost: Vec<_> = (0..12).map(|n| sabotage.drops(&kinds[n % 2])).collect();
        let expected: Vec<_> = (0..12).map(|n| n == 4 || n == 10).collect();
        assert_eq!(lost, expected);
        assert!(!(0..9).any(|_| {
            Sabotage {
                lie: Some(Lie::EarlyAnswer),
                decisions: 2,
            }
            .drops(&kinds[0])
        }));
    }
}
