//! The official conformance suite of MCP, against a server of another make: bare, and through the proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod parts;
mod suite;

use parts::Fixture;
use suite::Report;

/// The eras, and how many checks of the suite a server passes in each.
const LEGACY: (&str, usize) = ("2025-11-25", 83);
const MODERN: (&str, usize) = ("2026-07-28", 197);

/// A run that must come out whole. A run of nothing would read as passed, so the number is asserted.
#[track_caller]
fn passes((revision, checks): (&str, usize), report: &Report) {
    let failed = report.lines("FAILURE");
    let warned = report.lines("WARNING");
    assert_eq!(
        (report.count("SUCCESS"), report.count("FAILURE")),
        (checks, 0),
        "{revision}: {failed}{warned}"
    );
}

#[test]
fn the_fixture_passes_the_legacy_suite() {
    let fixture = Fixture::start();
    passes(LEGACY, &suite::run(&fixture.url(), LEGACY.0));
}

#[test]
fn the_fixture_passes_the_modern_suite() {
    let fixture = Fixture::start();
    passes(MODERN, &suite::run(&fixture.url(), MODERN.0));
}
