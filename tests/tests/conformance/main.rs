//! The official conformance suite of MCP, against a server of another make: bare, and through the
//! bridge and the proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod client;
mod differences;
mod direct;
mod parts;
mod suite;

use differences::Difference;
use parts::{Fixture, Guarded};
use suite::Report;
use taper_tests::named_by_run;

/// An era: its revision, how many checks of the suite the fixture passes, and which come out
/// differently through the proxy, from the same server over HTTP and as a program.
struct Era {
    revision: &'static str,
    name: &'static str,
    checks: usize,
    differences: &'static [Difference],
    of_program: &'static [Difference],
}

const LEGACY: Era = Era {
    revision: "2025-11-25",
    name: "legacy",
    checks: 83,
    differences: differences::LEGACY,
    of_program: differences::LEGACY_PROGRAM,
};
const MODERN: Era = Era {
    revision: "2026-07-28",
    name: "modern",
    checks: 197,
    differences: differences::MODERN,
    of_program: differences::MODERN_PROGRAM,
};

#[test]
fn the_legacy_suite() {
    bare_and_through_the_proxy(&LEGACY);
}

#[test]
fn the_modern_suite() {
    bare_and_through_the_proxy(&MODERN);
}

fn bare_and_through_the_proxy(era: &Era) {
    let fixture = Fixture::start();
    let bare = suite::run(&fixture.url(), era.revision);
    // A run of nothing would read as passed: the number counts.
    assert_eq!(
        (bare.count("SUCCESS"), bare.count("FAILURE")),
        (era.checks, 0),
        "{}: {}{}",
        era.revision,
        bare.lines("FAILURE"),
        bare.lines("WARNING")
    );
    let over_http = format!("{{ http = \"{}\" }}", fixture.url());
    let program = named_by_run("TAPER_FIXTURE").display().to_string();
    let as_program = format!(
        "{{ stdio = [\"{program}\", \"--stdio\"], era = \"{}\" }}",
        era.name
    );
    for (upstream, known) in [(over_http, era.differences), (as_program, era.of_program)] {
        let guarded = Guarded::start(&upstream);
        let through = suite::run(guarded.url(), era.revision);
        compare(known, &bare, &through, &format!("{}\n{upstream}", guarded.log()));
    }
}

/// The differences are those of the table, each of them and no other.
#[track_caller]
fn compare(known: &[Difference], bare: &Report, through: &Report, log: &str) {
    let mut expected: Vec<_> = known
        .iter()
        .flat_map(|known| known.checks.iter().map(|check| (*check, known.why)))
        .collect();
    let mut unexpected = Vec::new();
    for (check, said) in differences::between(bare, through) {
        match expected.iter().position(|(known, _)| *known == check) {
            Some(at) => drop(expected.remove(at)),
            None => unexpected.push((check, said)),
        }
    }
    let lines = |of: Vec<String>| of.join("\n");
    let known = expected.iter().map(|(check, why)| format!("{check}\n    {why}"));
    let known = lines(known.collect());
    let new = unexpected
        .iter()
        .map(|(check, said)| format!("{check}\n    {said}"));
    let new = lines(new.collect());
    assert!(
        expected.is_empty() && unexpected.is_empty(),
        "{log}\nnot in the table:\n{new}\n\nin the table, but not found so (take it out):\n{known}"
    );
}
