//! The programs of `examples/agents/README.md`: one team of agents in Rust, Python and TypeScript, each
//! against the same running `taper up`, and each with the same report.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
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

fn programs() -> [(&'static str, Command); 3] {
    [
        ("Rust", team_in_rust()),
        ("Python", Agent::Python.script("team.py")),
        ("TypeScript", Agent::Js.script("team.ts")),
    ]
}

fn token_of_alice(up: &Up) {
    let words = ["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"];
    std::fs::write(up.dir().join("alice.token"), taper_ok(up.dir(), &words)).unwrap();
}

fn told<'a>(program: &'a mut Command, up: &Up, url: &str) -> &'a mut Command {
    program
        .current_dir(up.dir())
        .env("TAPER_ISSUER", up.issuer())
        .env("TAPER_URL", url)
        .env("TAPER_SUBJECT_TOKEN_FILE", "alice.token")
}

/// A server that answers the first call with each capability by `own`, the others by `others`: a status and
/// what stands beside the id. It is left to its thread.
fn pretending(own: &'static str, others: (u16, &'static str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/git/mcp", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut known = BTreeSet::new();
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                lines
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .unwrap()
                    .1
                    .to_owned()
            };
            let mut body = vec![0; field("content-length").parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let id = serde_json::from_slice::<serde_json::Value>(&body).unwrap()["id"].clone();
            let first = known.insert(field("authorization"));
            let (status, answer) = if first { (200, own) } else { others };
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{answer}}}");
            let kind = "content-type: application/json\r\nconnection: close";
            let head = format!("HTTP/1.1 {status} X\r\n{kind}\r\n\r\n");
            reader.get_mut().write_all((head + &text).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn only_a_denial_counts_and_only_work_that_was_done() {
    let up = Up::start();
    token_of_alice(&up);
    let worked = r#""result":{"content":[{"type":"text","text":"com\u001b[2Jmit"}]}"#;
    let failed = r#""result":{"isError":true,"content":[{"type":"text","text":"com\u001b[2Jmit"}]}"#;
    let denial = r#""error":{"code":4403,"message":"no","data":{"rule":"R-22"}}"#;
    let foreign = r#""error":{"code":-32000,"message":"no\u001b[2J"}"#;
    for (own, others, code, said) in [
        (
            worked,
            (403, denial),
            0,
            "6 attempts at another's work, 6 refused",
        ),
        (
            worked,
            (200, worked),
            1,
            "6 attempts at another's work, 0 refused",
        ),
        (worked, (503, foreign), 1, "this is no denial"),
        (worked, (403, foreign), 1, "this is no denial"),
        (worked, (200, denial), 1, "this is no denial"),
        (failed, (403, denial), 1, "cannot do its work"),
    ] {
        for (language, mut program) in programs() {
            let output = told(&mut program, &up, &pretending(own, others))
                .output()
                .unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(code), "{language}: {text}");
            assert!(
                text.contains(said) && !text.contains('\u{1b}'),
                "{language}: {text:?}"
            );
        }
    }
}

#[test]
fn every_agent_does_its_own_work_and_nobody_elses() {
    let up = Up::start();
    token_of_alice(&up);

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

    for (language, mut program) in programs() {
        let output = told(&mut program, &up, &up.mcp()).output().unwrap();
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
