//! The time by which a daemon forgets.
//!
//! What a sweep forgot while the clock was ahead is not in force again when the clock is set right. So
//! the wall clock alone is not believed: a time counts once the process has run for a day, [`HELD`],
//! during which the wall clock was never behind it, and from then on it passes as the process runs.
//! It is written down, so that a daemon that is started every night forgets too; the time between two
//! runs is missing until one of them lasts a day. A clock that is set back counts at once. Forgetting
//! late costs room, forgetting early undoes revocations.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::embedded::EmbeddedStore;
use crate::error::StoreError;

/// How long a wall clock has to stay ahead before it is believed, in seconds of running. An operator
/// who can be reached notices within a day; a sweep leaves another day after each end.
const HELD: i64 = 86_400;
/// Where the time lies that was believed last, in the store's folder.
const FILE: &str = "sweep.json";
const MAX_FILE: u64 = 1024;

/// The time for [`EmbeddedStore::sweep`] and [`EmbeddedStore::retire`]: never later than the wall clock,
/// and later than what was believed before only as far as that is known to have passed.
#[derive(Debug, Clone, Default)]
pub struct SweepClock {
    /// What was believed last, if anything was.
    believed: Option<i64>,
    /// How long the process had run then.
    at: i64,
    /// How long it had run when it was first observed.
    since: Option<i64>,
    /// (seconds run, wall time − seconds run), both rising: the first is the smallest of the last day.
    offsets: VecDeque<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockFile {
    believed: i64,
}

impl SweepClock {
    /// A clock of a process that begins. `believed`: the time that another one believed last, in seconds
    /// since the Unix epoch.
    pub fn new(believed: Option<i64>) -> Self {
        Self {
            believed,
            ..Self::default()
        }
    }

    /// The time to forget by, in seconds since the Unix epoch like `wall`; `None` while nothing is
    /// believed. `running` is how long the process has run by a clock that is never set.
    pub fn observe(&mut self, wall: i64, running: Duration) -> Option<i64> {
        let running = i64::try_from(running.as_secs()).unwrap_or(i64::MAX).max(self.at);
        let offset = wall.saturating_sub(running);
        while self.offsets.back().is_some_and(|(_, known)| *known >= offset) {
            self.offsets.pop_back();
        }
        self.offsets.push_back((running, offset));
        let day = running.saturating_sub(HELD);
        while self.offsets.front().is_some_and(|(seen, _)| *seen < day) {
            self.offsets.pop_front();
        }
        let since = *self.since.get_or_insert(running);
        let smallest = self.offsets.front().map(|(_, offset)| *offset);
        let held = smallest
            .filter(|_| since <= day)
            .map(|offset| offset.saturating_add(running));
        let passed = self
            .believed
            .map(|before| before.saturating_add(running.saturating_sub(self.at)));
        self.at = running;
        if let Some(time) = held.max(passed) {
            self.believed = Some(time.min(wall));
        }
        self.believed
    }
}

impl EmbeddedStore {
    /// The clock to sweep by, as the last process left it. A file that cannot be read counts as none:
    /// then nothing is forgotten before this process has run for a day.
    pub async fn sweep_clock(&self) -> SweepClock {
        let path = self.dir().join(FILE);
        let read = tokio::task::spawn_blocking(move || load(&path)).await;
        SweepClock::new(read.ok().flatten())
    }

    /// The time for [`EmbeddedStore::sweep`] and [`EmbeddedStore::retire`], as [`SweepClock::observe`] finds
    /// it, written down for the next process.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub async fn sweep_time(
        &self,
        clock: &mut SweepClock,
        wall: i64,
        running: Duration,
    ) -> Result<Option<i64>, StoreError> {
        let Some(believed) = clock.observe(wall, running) else {
            return Ok(None);
        };
        let path = self.dir().join(FILE);
        let kept = tokio::task::spawn_blocking(move || keep(&path, believed)).await;
        kept.map_err(|e| StoreError::State(e.to_string()))??;
        Ok(Some(believed))
    }
}

fn load(path: &Path) -> Option<i64> {
    let bytes = disk::read_small(path, MAX_FILE).ok().flatten()?;
    let file: ClockFile = serde_json::from_slice(&bytes).ok()?;
    Some(file.believed)
}

fn keep(path: &Path, believed: i64) -> Result<(), StoreError> {
    let json = serde_json::to_vec(&ClockFile { believed })
        .map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    disk::replace(path, &json)
}

#[cfg(test)]
#[path = "sweep_clock_tests.rs"]
mod tests;
