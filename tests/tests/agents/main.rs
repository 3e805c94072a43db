//! Agents in other languages: `examples/agents/python` on biscuit-python and `examples/agents/js` on
//! biscuit-wasm, against the release binary. Nothing of ours is linked into them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod caveats;
mod files;
mod language;
mod nonsense;
mod readme;
mod strict;
mod team;
mod wire;

use std::path::Path;
use std::process::{Command, Output};

use language::{Agent, Refusal, refused, succeeds};
use serde_json::json;
use taper_capability::UnverifiedToken;
use taper_tests::{Up, taper, taper_ok};

const BOTH: [Agent; 2] = [Agent::Python, Agent::Js];

/// What `git` says itself of a sample repository.
fn commits(up: &Up, repository: &str) -> Vec<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(up.dir().join("up/repositories").join(repository))
        .args(["log", "--format=%H"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let commits: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(commits.len() > 1, "{commits:?}");
    commits
}

/// What an agent printed is what `git` says of the repository, newest first, up to `count` commits.
#[track_caller]
fn is_log(text: &str, up: &Up, repository: &str, count: usize) {
    let mut expected = commits(up, repository);
    expected.truncate(count);
    let printed: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("commit "))
        .collect();
    assert_eq!(printed, expected, "{text}");
}

/// Calls with `NAME.cap` and `NAME.jwk`.
fn call(agent: Agent, up: &Up, name: &str, words: &[&str]) -> Output {
    agent.call(up.dir(), &up.mcp(), &format!("{name}.cap"), name, words)
}

/// The links of `NAME.cap`, as our own library reads them.
fn decoded(dir: &Path, file: &str) -> UnverifiedToken {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    UnverifiedToken::decode(text.trim()).unwrap()
}

/// Fetches the root keys, makes the key `NAME.jwk` and obtains `NAME.cap` for all of `git`.
fn obtain(agent: Agent, up: &Up, name: &str) {
    let token = taper_ok(
        up.dir(),
        &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
    );
    std::fs::write(up.dir().join("access-token"), token).unwrap();
    agent.keygen(up.dir(), name);
    agent.ok(
        up.dir(),
        &["roots", "--issuer", &up.issuer(), "--out", "roots.json"],
    );
    let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
    let asked = ["--client-id", "dev", "--subject-token", "access-token"];
    let words = ["--key", &key, "--scope", "git:*", "--out", &cap];
    let issuer = up.issuer();
    agent.ok(
        up.dir(),
        &[&["obtain", "--issuer", &issuer][..], &asked, &words].concat(),
    );
}

#[test]
fn an_agent_obtains_narrows_and_calls() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let log = ["git_log", "repo_path=acme/web"];
        is_log(&succeeds(&call(agent, &up, name, &log)), &up, "acme/web", 99);

        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let common = ["--key", &key, "--roots", "roots.json", "--for", "5m"];
        let only = ["--tool", "git:git_log", "--out", "narrow.cap"];
        agent.ok(up.dir(), &[&["narrow", &cap][..], &common, &only].concat());
        let narrowed = |words: &[&str]| agent.call(up.dir(), &up.mcp(), "narrow.cap", name, words);
        is_log(&succeeds(&narrowed(&log)), &up, "acme/web", 99);
        let show = ["git_show", "repo_path=acme/web", "revision=HEAD"];
        assert!(succeeds(&call(agent, &up, name, &show)).contains("commit"));
        let refusal = refused(&narrowed(&show));
        refusal.is_denied_by(1, &json!({"tool": {"server": "git", "tools": ["git_log"]}}));
    }
}

#[test]
fn one_chain_through_three_languages() {
    let up = Up::start();
    let dir = up.dir();
    // The grant, by the Rust client, for a key that Python made.
    obtain(Agent::Python, &up, "python");
    let issuer = up.issuer();
    let asked = ["--subject-token", "access-token", "--scope", "git:*"];
    let exchange = ["exchange", "--issuer", &issuer, "--client-id", "dev"];
    let to = ["--key", "python.jwk", "--out", "python.cap"];
    taper_ok(dir, &[&exchange[..], &asked, &to].concat());
    Agent::Js.keygen(dir, "js");
    up.keygen("rust");
    let last = taper_ok(dir, &["keygen", "--alg", "p256", "--out", "last.jwk"]);

    let by = |key: &'static str, time: &'static str| ["--key", key, "--for", time];
    let by_python = [
        &[
            "delegate",
            "python.cap",
            "--to",
            "js.pub.jwk",
            "--roots",
            "roots.json",
        ][..],
        &by("python.jwk", "30m"),
        &["--tool", "git:git_log", "--out", "js.cap"],
    ]
    .concat();
    Agent::Python.ok(dir, &by_python);
    let by_js = [
        &[
            "delegate",
            "js.cap",
            "--to",
            "rust.pub.jwk",
            "--roots",
            "roots.json",
        ][..],
        &by("js.jwk", "20m"),
        &["--resource", "repo=acme/web", "--out", "rust.cap"],
    ]
    .concat();
    Agent::Js.ok(dir, &by_js);
    let by_rust = [
        &["delegate", "rust.cap", "--to", &last][..],
        &by("rust.jwk", "10m"),
        &[
            "--arg",
            "max_count=1",
            "--arg",
            "max_count=2",
            "--out",
            "last.cap",
        ],
    ]
    .concat();
    taper_ok(dir, &by_rust);
    let chain = decoded(dir, "last.cap");
    assert_eq!((chain.depth(), chain.links().len()), (3, 4));

    // What each hop left is what passes, and what it took away is refused in its name.
    let only_log = json!({"tool": {"server": "git", "tools": ["git_log"]}});
    let only_web = json!({"resource": {"kind": "repo", "matches": {"one_of": ["acme/web"]}}});
    let only_few = json!({"argument": {"pointer": "/max_count", "matches": {"one_of": [1, 2]}}});
    let log = |repository: &str, count: &str| {
        [
            "git_log".to_owned(),
            format!("repo_path={repository}"),
            format!("max_count={count}"),
        ]
    };
    let show = |repository: &str| {
        [
            "git_show".to_owned(),
            format!("repo_path={repository}"),
            "revision=HEAD".to_owned(),
        ]
    };
    let run = |name: &str, words: &[String; 3]| {
        let words = words.each_ref().map(String::as_str);
        match name {
            "python" => call(Agent::Python, &up, name, &words),
            "js" => call(Agent::Js, &up, name, &words),
            _ => {
                let (cap, key, mcp) = (format!("{name}.cap"), format!("{name}.jwk"), up.mcp());
                let how = [
                    "--format", "json", "call", "--url", &mcp, "--token", &cap, "--key", &key,
                ];
                taper(dir, &[&how[..], &words].concat())
            }
        }
    };
    for (name, passes, forbidden) in [
        ("python", vec![show("acme/payroll"), log("acme/web", "3")], vec![]),
        (
            "js",
            vec![log("acme/payroll", "3"), log("acme/web", "3")],
            vec![(show("acme/web"), 1, &only_log)],
        ),
        (
            "rust",
            vec![log("acme/web", "3")],
            vec![
                (show("acme/web"), 1, &only_log),
                (log("acme/payroll", "3"), 2, &only_web),
            ],
        ),
        (
            "last",
            vec![log("acme/web", "2"), log("acme/web", "1")],
            vec![
                (log("acme/payroll", "2"), 2, &only_web),
                (log("acme/web", "3"), 3, &only_few),
            ],
        ),
    ] {
        for words in &passes {
            assert!(
                succeeds(&run(name, words)).contains("commit "),
                "{name} {words:?}"
            );
        }
        for (words, link, caveat) in &forbidden {
            let output = run(name, words);
            let refusal = match name {
                "js" => refused(&output),
                _ => Refusal::of_taper(&output),
            };
            refusal.is_denied_by(*link, caveat);
        }
    }
    // A token is its last holder's alone: those who handed it on cannot use it.
    for agent in BOTH {
        let output = agent.call(
            dir,
            &up.mcp(),
            "rust.cap",
            agent.name(),
            &["git_log", "repo_path=acme/web"],
        );
        refused(&output).is_unauthorized("R-14");
    }
}

#[test]
fn a_hand_over_by_a_strangers_key_is_worth_nothing() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        agent.keygen(up.dir(), "mallory");
        agent.keygen(up.dir(), "accomplice");
        let cap = format!("{name}.cap");
        for (command, receiver, last) in [
            ("delegate", &["--to", "accomplice.pub.jwk"][..], "accomplice"),
            ("narrow", &[], "mallory"),
        ] {
            let words = ["--key", "mallory.jwk", "--roots", "roots.json", "--for", "5m"];
            // A valid Biscuit, which the library makes and reads without complaint.
            agent.ok(
                up.dir(),
                &[&[command, &cap][..], &words, receiver, &["--out", "stolen.cap"]].concat(),
            );
            let words = ["git_log", "repo_path=acme/web"];
            let output = agent.call(up.dir(), &up.mcp(), "stolen.cap", last, &words);
            refused(&output).is_unauthorized("D-02");
        }
        for name in ["mallory", "accomplice"] {
            std::fs::remove_file(up.dir().join(format!("{name}.jwk"))).unwrap();
        }
    }
}
