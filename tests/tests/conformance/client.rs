//! The library's own client under the official suite: it logs in and calls with a token that is bound to
//! its key, with and without nonces (SEP-1932).

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use taper_tests::named_by_run;
use tempfile::TempDir;

/// What each run checks, each of them once. A client that does nothing is told of no failure, so all are
/// named.
const CHECKS: [&str; 12] = [
    "authorization-request",
    "authorization-server-metadata",
    "client-registration",
    "pkce-code-challenge-sent",
    "pkce-code-verifier-sent",
    "pkce-s256-method-used",
    "pkce-verifier-matches-challenge",
    "prm-pathbased-requested",
    "sep-1932-client-dpop-auth-scheme",
    "sep-1932-client-fresh-proof",
    "sep-1932-client-token-request-proof",
    "token-request",
];
/// What the scenario with nonces checks beside it.
const OF_NONCES: [&str; 2] = ["sep-1932-client-as-nonce", "sep-1932-client-rs-nonce"];
/// What the modern revision checks beside it.
const OF_MODERN: [&str; 1] = ["sep-837-application-type-present"];

/// The client, which cargo builds with the tests of the workspace.
fn client() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/conformance-client");
    assert!(
        built.exists(),
        "{} is missing: cargo build -p taper-agent --example conformance-client",
        built.display()
    );
    built
}

/// The status of each check of a scenario, in order, but for what is only noted.
fn run(scenario: &str, revision: &str) -> Vec<(String, String)> {
    let real = named_by_run("TAPER_REAL");
    let found = TempDir::new().unwrap();
    let output = Command::new(real.join("bin/node"))
        .arg(real.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        // The scenarios are of an extension, which has no revision of its own: `--force` says which.
        .args([
            "client",
            "--force",
            "--spec-version",
            revision,
            "--scenario",
            scenario,
        ])
        .arg("--command")
        .arg(client())
        .arg("--output-dir")
        .arg(found.path())
        .output()
        .unwrap();
    let mut folders = Vec::new();
    let mut left = vec![found.path().to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.ends_with("checks.json") {
                folders.push(path);
            }
        }
    }
    let [checks] = folders.as_slice() else {
        panic!("{output:?}")
    };
    let checks: Vec<Value> = serde_json::from_slice(&std::fs::read(checks).unwrap()).unwrap();
    let checks = checks.iter().filter(|check| check["status"] != "INFO");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<_> = checks
        .map(|check| (text(&check["id"]), text(&check["status"])))
        .collect();
    all.sort();
    assert!(output.status.success(), "{output:?}");
    all
}

#[test]
fn our_client_passes_with_and_without_nonces_in_both_eras() {
    for (revision, of_revision) in [("2025-11-25", &[][..]), ("2026-07-28", &OF_MODERN)] {
        for (scenario, of_scenario) in [("auth/dpop", &[][..]), ("auth/dpop-nonce", &OF_NONCES)] {
            let ids = CHECKS.iter().chain(of_revision).chain(of_scenario);
            let mut expected: Vec<_> = ids.map(|id| ((*id).to_owned(), "SUCCESS".to_owned())).collect();
            expected.sort();
            assert_eq!(run(scenario, revision), expected, "{scenario} of {revision}");
        }
    }
}
