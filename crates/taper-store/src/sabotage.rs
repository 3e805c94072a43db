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
