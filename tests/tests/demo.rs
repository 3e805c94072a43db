//! The demo, whole and sabotaged: with a room that does not do its work it must end with that step's
//! name. `tests/run` builds the sabotaged program (feature `sabotage`, never in a release).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::{Command, Output};
use taper_tests::{named_by_run, taper_bin};

fn demo(bin: std::path::PathBuf, sabotage: Option<&str>) -> Output {
    let mut command = Command::new(bin);
    command.arg("demo").env_remove("TAPER_SABOTAGE");
    if let Some(room) = sabotage {
        command.env("TAPER_SABOTAGE", room);
    }
    command.output().unwrap()
}

#[test]
fn the_demo_comes_out_as_told() {
    let output = demo(taper_bin(), None);
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for told in [
        "R-22",
        "R-23",
        "R-14",
        "M-10",
        "R-13",
        "R-12",
        "P-15",
        "D-02",
        "D-01",
        "M-12",
        "audit verify",
        "steps came out as told",
    ] {
        assert!(stdout.contains(told), "{told} is missing:\n{stdout}");
    }
    assert_eq!(stderr, "");
}

#[test]
fn a_release_does_not_know_sabotage() {
    assert!(demo(taper_bin(), Some("R-13")).status.success());
}

fn check(room: &str, step: &str) {
    let output = demo(named_by_run("TAPER_SABOTAGED_BIN"), Some(room));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{room}: {stdout}\n{stderr}");
    assert!(
        stderr.contains(&format!("step `{step}`")),
        "{room}: {stderr}\n{stdout}"
    );
}

#[test]
fn the_sabotaged_program_is_otherwise_whole() {
    assert!(demo(named_by_run("TAPER_SABOTAGED_BIN"), None).status.success());
}

#[test]
fn a_proxy_without_replay_check_is_noticed() {
    check("R-13", "replayed-request");
}

#[test]
fn a_verifier_that_skips_the_signer_is_noticed() {
    check("D-02", "stranger");
}

#[test]
fn a_policy_that_allows_all_is_noticed() {
    check("R-23", "policy");
}

#[test]
fn a_journal_that_drops_a_record_is_noticed() {
    check("journal", "audit");
}

#[test]
fn a_proof_that_is_not_the_holder_s_is_noticed() {
    check("R-14", "thief");
}

#[test]
fn a_body_that_is_not_bound_is_noticed() {
    check("R-12", "changed-body");
}

#[test]
fn a_chain_with_plain_blocks_is_noticed() {
    check("D-01", "plain-block");
}

#[test]
fn a_verifier_that_forgets_expiry_is_noticed() {
    check("P-15", "expired-link");
}
