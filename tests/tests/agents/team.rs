//! The programs of `examples/agents/README.md`: one team of agents in Rust, Python and TypeScript, each
//! against the same running `taper up`, and each with the same report.

use std::path::PathBuf;
use std::process::Command;

use taper_tests::{Up, root, taper_ok};

use super::commits;
use crate::language::{Agent, succeeds};

/// The Rust program, which cargo builds with the tests of the workspace.
fn team_in_rust() -> Command {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.ancestors().nth(2).unwrap().join("examples/team");
    assert!(
        built.exists(),
        "{} is missing: cargo build -p taper-agent --example team",
        built.display()
    );
    Command::new(built)
}

#[test]
fn every_agent_does_its_own_work_and_nobody_elses() {
    let up = Up::start();
    let dir = up.dir();
    let token = taper_ok(
        dir,
        &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
    );
    std::fs::write(dir.join("alice.token"), token).unwrap();

    let (web, payroll) = (&commits(&up, "acme/web")[0], &commits(&up, "acme/payroll")[0]);
    let team = [
        ("historian", "git_log of acme/web for 10 minutes", web),
        ("reviewer", "git_show of acme/web for 5 minutes", web),
        ("auditor", "git_log of acme/payroll for 2 minutes", payroll),
    ];
    let mut expected = String::new();
    for (agent, work, commit) in team {
        expected += &format!("{agent} has {work}: commit {commit}\n");
        for (other, ..) in team.iter().filter(|(other, ..)| *other != agent) {
            let refused = "refused, status 403, code 4403, rule R-22";
            expected += &format!("{agent} tries the work of {other}: {refused}\n");
        }
    }
    expected += "6 attempts at another's work, 6 refused\n";

    let programs = [
        ("Rust", team_in_rust()),
        ("Python", Agent::Python.script("team.py")),
        ("TypeScript", Agent::Js.script("team.ts")),
    ];
    for (language, mut program) in programs {
        let output = program
            .current_dir(dir)
            .env("TAPER_ISSUER", up.issuer())
            .env("TAPER_URL", up.mcp())
            .env("TAPER_SUBJECT_TOKEN_FILE", "alice.token")
            .output()
            .unwrap();
        assert_eq!(succeeds(&output), expected, "{language}");
    }

    // The page shows this report, and all three commands.
    let page = std::fs::read_to_string(root().join("examples/agents/README.md")).unwrap();
    let without_commits = |text: &str| {
        text.lines()
            .map(|line| line.split(": commit ").next().unwrap())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shown = page
        .split("```text\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(without_commits(shown), without_commits(&expected));
    for command in ["cargo run -p taper-agent --example team", "team.py", "team.ts"] {
        assert!(page.contains(command), "{command}");
    }
}
