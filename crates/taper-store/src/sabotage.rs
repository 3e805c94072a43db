//! **THIS FILE LOSES AUDIT RECORDS ON PURPOSE.** It exists only with the cargo feature `sabotage`,
//! which is off by default and in no release, and acts only when `TAPER_SABOTAGE=journal` is set. It
//! lets the durability tests prove that they would notice a store that lies.

use crate::record::RecordKind;

/// Counts decisions and picks every third one to be acknowledged and dropped.
#[derive(Debug)]
pub(crate) struct Sabotage {
    active: bool,
    decisions: u64,
}

impl Sabotage {
    /// Reads the environment.
    pub(crate) fn from_env() -> Self {
        Self {
            active: std::env::var_os("TAPER_SABOTAGE").is_some_and(|v| v == "journal"),
            decisions: 0,
        }
    }

    /// Whether this record is to be lost.
    pub(crate) fn drops(&mut self, kind: &RecordKind) -> bool {
        if !self.active || !matches!(kind, RecordKind::Decision(_)) {
            return false;
        }
        self.decisions += 1;
        self.decisions.is_multiple_of(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::decision;

    #[test]
    fn every_third_decision_is_lost_and_nothing_else() {
        let mut sabotage = Sabotage {
            active: true,
            decisions: 0,
        };
        let kinds = [decision("a").kind, RecordKind::Started { role: "r".into() }];
        let lost: Vec<_> = (0..12).map(|n| sabotage.drops(&kinds[n % 2])).collect();
        let expected: Vec<_> = (0..12).map(|n| n == 4 || n == 10).collect();
        assert_eq!(lost, expected);
        assert!(!(0..9).any(|_| {
            Sabotage {
                active: false,
                decisions: 2,
            }
            .drops(&kinds[0])
        }));
    }
}
