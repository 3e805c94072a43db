//! Rounds of children that are killed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use taper_store::{SeenProofs as _, verify_dir};

use crate::children::{Running, Work};
use crate::writes::{Kind, Written, counted_by};
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
    /// How often old segments were dropped.
    pub(crate) retired: u32,
    /// Segments that are there at the end.
    pub(crate) segments: usize,
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

/// How children are killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) rounds: u32,
    pub(crate) work: Work,
    /// One of so many is killed while it opens the store.
    pub(crate) opening_in: u32,
    /// What the store gets wrong, if it is built with that.
    pub(crate) sabotage: Option<&'static str>,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            rounds: 1,
            work: Work::Everything,
            opening_in: 8,
            sabotage: None,
        }
    }
}

impl Rounds {
    /// Kills one child after another in `dir` and looks, after each, for everything that was ever
    /// acknowledged: in the journal, unless it is dropped there, and in the state. In every fourth
    /// round the state is made anew from the journal.
    pub(crate) fn run(self, dir: &Path) -> Tally {
        let mut tally = Tally::default();
        let mut acknowledged: HashMap<String, u64> = HashMap::new();
        let mut counted = HashSet::new();
        let mut complete_at_first = None;
        for round in 0..self.rounds {
            let said = Running::start(dir, self.work, self.sabotage).kill_somewhere(self.opening_in);
            tally.rounds += 1;
            tally.retired += said.retired;
            tally.while_opening += u32::from(!said.opened);
            let told: Vec<String> = said.acknowledged.iter().map(|(id, _)| id.clone()).collect();
            acknowledged.extend(said.acknowledged);
            // Opening drops what the child said it would, so this comes first.
            if said.opened {
                counted.extend(Written::read(dir).counted().iter().cloned());
            }
            if round % 4 == 3 && dir.join("state").exists() {
                fs::remove_dir_all(dir.join("state")).unwrap();
            }

            let store = open(dir);
            // Killed before it made its log of proofs, a store cannot know that it never saw one.
            // After that, and within one boot, no proof can be missing.
            let complete = store.complete_since();
            assert!(complete.is_none() || round > 0 || !said.opened);
            assert_eq!(
                complete,
                *complete_at_first.get_or_insert(complete),
                "round {round}"
            );
            let report = verify_dir(dir).unwrap();
            assert!(report.is_ok(), "round {round}: {report:?}");

            // The state of all ids costs too much in each of many rounds; the last one looks at all.
            let is_last = round + 1 == self.rounds;
            let looked_at = if is_last {
                acknowledged.keys().cloned().collect()
            } else {
                told
            };
            let mut lost = self.not_in_journal(dir, &acknowledged, &mut tally);
            let is_call = |id: &&String| Kind::of(id) == Some(Kind::Counted);
            counted.extend(acknowledged.keys().filter(is_call).cloned());
            if self.sabotage.is_none() {
                assert_eq!(counted_by(&store), counted.len() as u64, "round {round}");
            }
            runtime().block_on(async {
                for id in looked_at {
                    let kind = Kind::of(&id).unwrap();
                    let there = kind.is_in_state(&store, &id).await;
                    if !there || is_last && !kind.is_final(&store, &id).await {
                        lost.insert(id);
                    }
                }
                // Closing it, or leaving it as a crash would, must be all the same to the next child.
                if round % 2 == 0 {
                    store.close().await.unwrap();
                }
            });
            // What is missing stays missing: it is counted once.
            for id in lost {
                acknowledged.remove(&id);
                tally.acknowledged += 1;
                tally.lost.push((round, id));
            }
        }
        tally.acknowledged += acknowledged.len();
        tally
    }

    /// What was acknowledged and is not in the journal, although it is not older than what was dropped.
    fn not_in_journal(
        self,
        dir: &Path,
        acknowledged: &HashMap<String, u64>,
        tally: &mut Tally,
    ) -> HashSet<String> {
        let written = Written::read(dir);
        let retires = matches!(self.work, Work::Retiring);
        let is_there = |kind, id: &str, number| {
            kind == Kind::Proof || written.has(id, number) || retires && written.may_lack(kind, number)
        };
        if !retires {
            let never_told = written.ids().filter(|id| !acknowledged.contains_key(*id)).count();
            tally.kills_before_telling += u32::from(never_told > tally.untold);
            tally.untold = never_told;
        }
        let is_lost = |(id, number): &(&String, &u64)| !is_there(Kind::of(id).unwrap(), id, **number);
        acknowledged
            .iter()
            .filter(is_lost)
            .map(|(id, _)| id.clone())
            .collect()
    }
}

/// Runs the same rounds in several stores, so that none grows without end.
fn in_stores(stores: u32, killed: Rounds) -> Tally {
    let mut all = Tally::default();
    for _ in 0..stores {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("store");
        let tally = killed.run(&dir);
        assert!(tally.lost.is_empty(), "{:?}", tally.lost);
        all.rounds += tally.rounds;
        all.acknowledged += tally.acknowledged;
        all.while_opening += tally.while_opening;
        all.untold += tally.untold;
        all.kills_before_telling += tally.kills_before_telling;
        all.retired += tally.retired;
        all.segments += segments(&dir);
    }
    all
}

#[test]
fn every_acknowledged_id_survives_kill_9() {
    let killed = Rounds {
        rounds: 25,
        ..Rounds::default()
    };
    let tally = in_stores(rounds(1, 12), killed);
    tell(&format!("killed children: {tally}; {} segments", tally.segments));
    assert!(tally.acknowledged > tally.rounds as usize, "{tally}");
    assert!(tally.segments > 10, "segments were rolled over");
}

#[test]
fn what_lives_survives_kill_9_while_old_segments_go() {
    let killed = Rounds {
        rounds: 12,
        work: Work::Retiring,
        ..Rounds::default()
    };
    let tally = in_stores(rounds(1, 17), killed);
    tell(&format!(
        "killed children that drop old segments: {tally}; segments were dropped {} times",
        tally.retired
    ));
    assert!(tally.retired > 0, "{tally}");
}

#[test]
fn a_store_that_was_killed_while_it_was_made_is_made_again() {
    let killed = Rounds {
        opening_in: 1,
        ..Rounds::default()
    };
    let tally = in_stores(rounds(6, 200), killed);
    tell(&format!("new stores: {tally}"));
}
