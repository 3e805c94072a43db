//! How a daemon keeps its journal: the table `[journal]` of its configuration file.

use std::num::NonZeroU32;

use serde::Deserialize;

use crate::embedded::Settings;
use crate::seen::SeenLimits;

const MIB: u64 = 1024 * 1024;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The table `[journal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Mebibytes of a file after which another one is begun. Records are dropped by whole files.
    /// Default 64.
    pub segment_mib: NonZeroU32,
    /// Days after which records are dropped. What is still in force then is carried over first, and a
    /// signed checkpoint over what was dropped stays. Default: they are kept for ever.
    pub keep_days: Option<NonZeroU32>,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_mib: NonZeroU32::MIN.saturating_add(63),
            keep_days: None,
        }
    }
}

impl JournalConfig {
    /// The settings with which the store is opened.
    pub fn settings(&self, seen: SeenLimits) -> Settings {
        Settings {
            seen,
            segment_bytes: u64::from(self.segment_mib.get()) * MIB,
        }
    }

    /// Records from before this time are to be dropped, in milliseconds since the Unix epoch like
    /// `now_ms`; `None` when none are.
    pub fn drop_before(&self, now_ms: i64) -> Option<i64> {
        let days = i64::from(self.keep_days?.get());
        Some(now_ms.saturating_sub(days.saturating_mul(DAY_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_limits() {
        let read = |text: &str| serde_json::from_str::<JournalConfig>(text).map_err(|e| e.to_string());
        let default = read("{}").unwrap();
        assert_eq!(default, JournalConfig::default());
        assert_eq!(default.settings(SeenLimits::default()).segment_bytes, 64 * MIB);
        assert_eq!(default.drop_before(0), None);
        let short = read(r#"{"segment_mib":1,"keep_days":2}"#).unwrap();
        assert_eq!(short.settings(SeenLimits::default()).segment_bytes, MIB);
        assert_eq!(short.drop_before(2 * DAY_MS + 5), Some(5));
        for bad in [
            r#"{"segment_mib":0}"#,
            r#"{"keep_days":0}"#,
            r#"{"keep":1}"#,
            r#"{"keep_days":-1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
