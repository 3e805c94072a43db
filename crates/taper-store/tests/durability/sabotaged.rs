//! The harness against stores that lie: it must notice.

use std::collections::HashSet;
use std::path::Path;

use crate::kill::{Rounds, Tally};
use crate::tell;
use crate::writes::Kind;

/// Kills children that have said something.
fn killed(dir: &Path, rounds: u32, sabotage: Option<&'static str>) -> Tally {
    let rounds = Rounds {
        rounds,
        opening_in: u32::MAX,
        sabotage,
        ..Rounds::default()
    };
    rounds.run(dir)
}

#[test]
fn a_store_that_answers_before_it_writes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    // Each kill loses one batch, which has some of the kinds.
    let (mut missed, mut rounds) = (HashSet::new(), 0);
    while missed.len() < Kind::ALL.len() - 1 {
        let tally = killed(dir.path(), 1, Some("early-answer"));
        missed.extend(tally.lost.iter().map(|(_, id)| Kind::of(id).unwrap()));
        rounds += 1;
        assert!(
            rounds <= 60,
            "of {rounds} early answers only {missed:?} were missed"
        );
    }
    tell(&format!(
        "early-answer: every kind was missed within {rounds} rounds"
    ));
    assert!(
        !missed.contains(&Kind::Proof),
        "it is written before it is answered"
    );
}

#[test]
fn a_store_that_drops_records_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let tally = killed(dir.path(), 6, Some("journal"));
    tell(&format!("journal: {tally}"));
    assert!(!tally.lost.is_empty(), "{tally}");
    let decisions = [Some(Kind::Record), Some(Kind::Counted)];
    assert!(
        tally.lost.iter().all(|(_, id)| decisions.contains(&Kind::of(id))),
        "{:?}",
        tally.lost
    );
}

#[test]
fn the_sabotaged_store_is_otherwise_whole() {
    let dir = tempfile::tempdir().unwrap();
    let tally = killed(dir.path(), 3, None);
    assert!(tally.lost.is_empty(), "{:?}", tally.lost);
}
