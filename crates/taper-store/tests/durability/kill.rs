//! Rounds of children that are killed.

use std::collections::HashMap;
use std::path::Path;

use taper_store::{SeenProofs as _, verify_dir};

use crate::children::{Running, Work};
use crate::writes::{Kind, Written};
use crate::{open, rounds, runtime, segments, tell};

/// What some rounds came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u32,
    pub(crate) acknowledged: usize,
    /// What was acknowledged and is not there, with the round after which it was missing.
    pub(crate) lost: Vec<(u32, String)>,
    /// Kills before the store was open.
    pub(crate) while_opening: u32,
    /// Records that are there and were never acknowledged: the kill hit between the two.
    pub(crate) untold: usize,
    /// Kills that left such a record.
    pub(crate) kills_before_telling: u32,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} rounds, {} acknowledged, {} lost; written but not acknowledged: {} records in {} \
             rounds; killed while opening: {}",
            self.rounds,
            self.acknowledged,
            self.lost.len(),
            self.untold,
            self.kills_before_telling,
            self.while_opening
        )
    }
}

/// Kills one child after another in `dir`, one of `opening_in` while it opens the store, and looks,
/// after each, for everything that was ever acknowledged.
pub(crate) fn kill_children(dir: &Path, rounds: u32, opening_in: u32, sabotage: Option<&str>) -> Tally {
    let mut tally = Tally::default();
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    let (mut untold, mut complete_at_first) = (0, None);
    for round in 0..rounds {
        let said = Running::start(dir, Work::Everything, sabotage).kill_somewhere(opening_in);
        tally.rounds += 1;
        tally.while_opening += u32::from(!said.opened);
        let told: Vec<String> = said.acknowledged.iter().map(|(id, _)| id.clone()).collect();
        acknowledged.extend(said.acknowledged);

        let store = open(dir);
        // Killed before it made its log of proofs, a store cannot know that it never saw one. After
        // that, and within one boot, no proof can be missing.
        let complete = store.complete_since();
        assert!(complete.is_none() || round > 0 || !said.opened);
        assert_eq!(
            complete,
            *complete_at_first.get_or_insert(complete),
            "round {round}"
        );
        let report = verify_dir(dir).unwrap();
        assert!(report.is_ok(), "round {round}: {report:?}");
        let written = Written::read(dir);
        assert!(written.counts_agree(&store), "round {round}");
        let before = tally.lost.len();
        for (id, number) in &acknowledged {
            if Kind::of(id) != Some(Kind::Proof) && !written.has(id, *number) {
                tally.lost.push((round, id.clone()));
            }
        }
        // The state of all ids costs too much in each of many rounds; the last one looks at all.
        let looked_at: Vec<&String> = if round + 1 == rounds {
            acknowledged.keys().collect()
        } else {
            told.iter().collect()
        };
        runtime().block_on(async {
            for id in looked_at {
                if !Kind::of(id).unwrap().is_in_state(&store, id).await {
                    tally.lost.push((round, id.clone()));
                }
            }
            // Closing it, or leaving it as a crash would, must be all the same to the next child.
            if round % 2 == 0 {
                store.close().await.unwrap();
            }
        });
        let never_told = written.ids().filter(|id| !acknowledged.contains_key(*id)).count();
        tally.kills_before_telling += u32::from(never_told > untold);
        untold = never_told;
        if tally.lost.len() > before {
            // What is missing stays missing: each is counted once.
            for (_, id) in &tally.lost[before..] {
                acknowledged.remove(id);
                tally.acknowledged += 1;
            }
        }
    }
    tally.acknowledged += acknowledged.len();
    tally.untold = untold;
    tally
}

#[test]
fn every_acknowledged_id_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let tally = kill_children(dir.path(), rounds(25, 400), 8, None);
    tell(&format!(
        "killed children: {tally}; {} segments",
        segments(dir.path())
    ));
    assert!(tally.lost.is_empty(), "{:?}", tally.lost);
    assert!(tally.acknowledged > tally.rounds as usize, "{tally}");
    assert!(segments(dir.path()) > 10, "segments were rolled over");
}

#[test]
fn a_store_that_was_killed_while_it_was_made_is_made_again() {
    let mut tally = Tally::default();
    for _ in 0..rounds(10, 200) {
        let folder = tempfile::tempdir().unwrap();
        let one = kill_children(&folder.path().join("store"), 1, 1, None);
        assert!(one.lost.is_empty(), "{:?}", one.lost);
        tally.rounds += 1;
        tally.acknowledged += one.acknowledged;
        tally.while_opening += one.while_opening;
        tally.untold += one.untold;
        tally.kills_before_telling += one.kills_before_telling;
    }
    tell(&format!("new stores: {tally}"));
}
