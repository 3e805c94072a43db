//! Retention: the oldest whole segments go, what lives on is written again before.
//!
//! The order is what makes it safe to stop anywhere: what is alive is carried over, a record says which
//! records are dropped, both are on the disk, then the files go. A crash before the record leaves
//! copies that change nothing, one after it files that the next opening removes. What is left begins
//! with the peaks of the whole tree and their checkpoint, so receipts and proofs of growth go on.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use tlog_tiles::tlog::Hash;

use crate::disk;
use crate::embedded::EmbeddedStore;
use crate::error::StoreError;
use crate::frame::decode_record;
use crate::kept::{Name, RetiredRecord};
use crate::record::{Record, RecordKind};
use crate::segment;
use crate::walk::{Chain, Link};

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retired {
    /// The first record that is gone.
    pub first: u64,
    /// The first record that is left.
    pub end: u64,
    /// Files that are gone.
    pub segments: u64,
    /// Records that were written to carry over what lives on.
    pub carried: u64,
}

impl EmbeddedStore {
    /// Drops the oldest segments whose records were all made before `before_ms`, in milliseconds since
    /// the Unix epoch; never the newest one. What is alive in them is carried over first. Others are
    /// served meanwhile. `None` when there is nothing to drop.
    ///
    /// # Errors
    /// When a file cannot be read or removed, or the store has failed or was closed. What was not
    /// dropped then is dropped by the next call, or by the next opening.
    pub async fn retire(&self, before_ms: i64) -> Result<Option<Retired>, StoreError> {
        let _one_at_a_time = self.retiring().lock().await;
        let dir = self.dir().to_path_buf();
        let Some(plan) = blocking(move || plan(&dir, before_ms)).await? else {
            return Ok(None);
        };
        let carried = self.carry_names(plan.names).await?;
        let retired = RetiredRecord {
            first: plan.first,
            end: plan.end,
            root: plan.root.0,
        };
        self.note(RecordKind::Retired(retired)).await?;
        let dir = self.dir().to_path_buf();
        let segments = blocking(move || drop_below(&dir, plan.end)).await?;
        Ok(Some(Retired {
            first: plan.first,
            end: plan.end,
            segments,
            carried,
        }))
    }
}

/// Removes the segments whose records are all below `end`, oldest first. Returns how many.
pub(crate) fn drop_below(dir: &Path, end: u64) -> Result<u64, StoreError> {
    let segments = segment::list(dir)?;
    let mut dropped = 0;
    for (first, next) in segments.iter().zip(segments.iter().skip(1)) {
        if *next > end {
            break;
        }
        disk::remove_if_exists(&segment::path(dir, *first))?;
        dropped += 1;
    }
    if dropped > 0 {
        disk::sync_folder(dir)?;
    }
    Ok(dropped)
}

/// What a record says about records that were dropped, if that is what it is about.
pub(crate) fn retired(payload: &[u8]) -> Option<RetiredRecord> {
    // A record begins with its time and its kind: most need not be parsed.
    const KIND: &[u8] = br#""kind":"retired""#;
    let beginning = payload.get(..64).unwrap_or(payload);
    if !beginning.windows(KIND.len()).any(|window| window == KIND) {
        return None;
    }
    match decode_record(payload) {
        Ok(Record {
            kind: RecordKind::Retired(retired),
            ..
        }) => Some(retired),
        _ => None,
    }
}

struct Plan {
    first: u64,
    end: u64,
    /// The root of the tree of the records before `end`.
    root: Hash,
    names: Vec<Name>,
}

/// Finds the segments to drop, and what their records speak about.
fn plan(dir: &Path, before_ms: i64) -> Result<Option<Plan>, StoreError> {
    let mut chain = Chain::start(dir);
    let mut seen = HashSet::new();
    let mut plan: Option<Plan> = None;
    let mut names = Vec::new();
    let mut first = None;
    loop {
        let place = chain.place();
        match chain.step()? {
            Link::Segment(header) => {
                let begin = *first.get_or_insert(header.tree.size());
                // Everything before this segment is old enough.
                if header.tree.size() > begin {
                    let known = plan.take().map_or_else(Vec::new, |plan| plan.names);
                    plan = Some(Plan {
                        first: begin,
                        end: header.tree.size(),
                        root: header.tree.root(),
                        names: known.into_iter().chain(std::mem::take(&mut names)).collect(),
                    });
                }
            }
            Link::Frame(frame) => {
                let record = decode_record(&frame.payload);
                let record = record.map_err(|e| place.damaged(dir, e.to_string()))?;
                if record.at_ms >= before_ms {
                    return Ok(plan);
                }
                let new = Name::of(&record).into_iter();
                names.extend(new.filter(|name| seen.insert(name.clone())));
            }
            Link::End | Link::Torn(_) => return Ok(plan),
            Link::Bad(place, reason) => return Err(place.damaged(dir, reason)),
        }
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(job).await;
    done.map_err(|e| StoreError::State(e.to_string()))?
}

#[cfg(test)]
#[path = "retain_tests.rs"]
mod tests;
