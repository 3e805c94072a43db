//! Our own clients under the official suite (SEP-1932). The library's logs in and calls with a token that is
//! bound to its key, with and without nonces; `taper login` logs in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taper_tests::{Up, named_by_run, taper, taper_bin, taper_ok};
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
fn run(scenario: &str, revision: &str, client: &Path) -> Vec<(String, String)> {
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
        .arg(client)
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
    let passed = all.iter().all(|(_, status)| status == "SUCCESS");
    assert_eq!(output.status.success(), passed, "{output:?}");
    all
}

#[test]
fn our_client_passes_with_and_without_nonces_in_both_eras() {
    for (revision, of_revision) in [("2025-11-25", &[][..]), ("2026-07-28", &OF_MODERN)] {
        for (scenario, of_scenario) in [("auth/dpop", &[][..]), ("auth/dpop-nonce", &OF_NONCES)] {
            let ids = CHECKS.iter().chain(of_revision).chain(of_scenario);
            let mut expected: Vec<_> = ids.map(|id| ((*id).to_owned(), "SUCCESS".to_owned())).collect();
            expected.sort();
            let found = run(scenario, revision, &client());
            assert_eq!(found, expected, "{scenario} of {revision}");
        }
    }
}

/// Writes a program of the shell.
fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn taper_login_gets_a_token_for_its_key() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    let made = ["keygen", "--alg", "p256", "--out", "key.jwk", "--format", "json"];
    let key: Value = serde_json::from_str(&taper_ok(dir, &made)).unwrap();
    script(&dir.join("browser"), "exec curl -sfL -o /dev/null \"$1\"");
    let words = "--key key.jwk --open ./browser --out token --format json";
    let (at, taper) = (dir.display(), taper_bin());
    let login = format!(
        "cd '{at}' && exec '{}' login --url \"$1\" {words} > told",
        taper.display()
    );
    script(&dir.join("login"), &login);

    // It only logs in: what the server would check of its calls fails for want of any.
    let uncalled = ["sep-1932-client-dpop-auth-scheme", "sep-1932-client-fresh-proof"];
    let status = |id: &str| {
        if uncalled.contains(&id) {
            "FAILURE"
        } else {
            "SUCCESS"
        }
    };
    let found = run("auth/dpop", "2025-11-25", &dir.join("login"));
    assert_eq!(found, CHECKS.map(|id| (id.to_owned(), status(id).to_owned())));

    let token = dir.join("token");
    let mode = std::fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(token).unwrap();
    let claims = taper_dpop::base64url_decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["cnf"]["jkt"], key["thumbprint"]);
    let told = std::fs::read_to_string(dir.join("told")).unwrap();
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        told[0]["url"]
            .as_str()
            .unwrap()
            .contains("code_challenge_method=S256")
    );
    assert_eq!(told[1]["holder"], key["thumbprint"]);
}

#[test]
fn taper_login_says_where_nobody_logs_in() {
    let up = Up::start();
    up.keygen("k");
    let words = ["login", "--url", &up.mcp(), "--key", "k.jwk", "--out", "token"];
    let output = taper(up.dir(), &words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("nobody logs in there") && said.contains("taper exchange"),
        "{said}"
    );
    assert!(!up.dir().join("token").exists());
}
