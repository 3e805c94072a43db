//! Agents in other languages: `examples/agents/python` on biscuit-python and `examples/agents/js` on
//! biscuit-wasm, against the release binary. Nothing of ours is linked into them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod language;
mod strict;

use std::path::Path;
use std::process::{Command, Output};

use language::{Agent, Refusal, refused, succeeds};
use serde_json::json;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch, UnverifiedToken};
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
fn every_caveat_reads_back_as_itself() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let start = ["narrow", &cap, "--key", &key, "--roots", "roots.json"];
        let words = [
            "--until",
            "2030-01-31T09:30:00Z",
            "--tool",
            "git:git_show",
            "--tool",
            "git:git_log",
            "--server",
            "git",
            "--server",
            "files",
            "--resource",
            "repo=acme/web",
            "--resource",
            "repo=\"}.contains($value) or true; ",
            "--resource",
            "path=srv/*",
            "--arg",
            "repo_path=acme/web",
            "--arg",
            "n=5",
            "--arg",
            "n=10",
            "--arg",
            "flag=true",
            "--arg",
            "/deep/a~1b=\"5\"",
            "--arg-range",
            "max_count=1..5",
            "--arg-range",
            "least=-7..",
            "--arg-range",
            "most=..9007199254740991",
            "--not-before",
            "2026-01-01T00:00:00Z",
            "--max-depth",
            "2",
            "--note",
            "a \"note\"",
            "--out",
            "all.cap",
        ];
        agent.ok(up.dir(), &[&start[..], &words].concat());
        let token = decoded(up.dir(), "all.cap");
        let link = token.links().last().unwrap();
        let (caveats, others) = link.caveats();
        assert_eq!(others, 0, "{agent:?}: {:?}", link.other_checks());
        let strings = |values: &[&str]| values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>();
        let argument = |pointer: &str, matches| Caveat::Argument {
            pointer: pointer.to_owned(),
            matches,
        };
        let expected = [
            Caveat::Tool {
                server: "git".to_owned(),
                tools: strings(&["git_log", "git_show"]),
            },
            Caveat::Server {
                servers: strings(&["files", "git"]),
            },
            Caveat::Resource {
                kind: "repo".to_owned(),
                matches: ResourceMatch::OneOf(strings(&["\"}.contains($value) or true; ", "acme/web"])),
            },
            Caveat::Resource {
                kind: "path".to_owned(),
                matches: ResourceMatch::Prefix("srv/".to_owned()),
            },
            argument(
                "/repo_path",
                ArgumentMatch::Equals(ArgumentValue::String("acme/web".to_owned())),
            ),
            argument(
                "/n",
                ArgumentMatch::OneOf(vec![ArgumentValue::Integer(5), ArgumentValue::Integer(10)]),
            ),
            argument("/flag", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument(
                "/deep/a~1b",
                ArgumentMatch::Equals(ArgumentValue::String("5".to_owned())),
            ),
            argument(
                "/max_count",
                ArgumentMatch::Range {
                    min: Some(1),
                    max: Some(5),
                },
            ),
            argument(
                "/least",
                ArgumentMatch::Range {
                    min: Some(-7),
                    max: None,
                },
            ),
            argument(
                "/most",
                ArgumentMatch::Range {
                    min: None,
                    max: Some((1 << 53) - 1),
                },
            ),
            Caveat::NotBefore(1_767_225_600),
        ];
        assert_eq!(caveats, expected, "{agent:?}");
        assert_eq!(link.note.as_deref(), Some("a \"note\""));
        assert_eq!((token.max_depth(), token.depth()), (2, 0));
        // 2030 lies behind the grant's own end.
        let parent = decoded(up.dir(), &cap);
        assert_eq!(token.expires_at(), parent.expires_at());
        assert_eq!(token.last_holder(), parent.last_holder());
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

#[test]
fn nonsense_is_refused_where_it_is_said() {
    let up = Up::start();
    let dir = up.dir();
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let roots = std::fs::read_to_string(dir.join("roots.json")).unwrap();
        write("no-roots.json", r#"{"keys":[]}"#);
        write(
            "other-roots.json",
            &roots.replace("\"kid\":\"1\"", "\"kid\":\"2\""),
        );
        let token = std::fs::read_to_string(dir.join(&cap)).unwrap();
        // One character of block 0, which a root key signed.
        let at = token.len() / 2;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        write(
            "changed.cap",
            &format!("{}{other}{}", &token[..at], &token[at + 1..]),
        );
        write("padded.cap", &format!("{}=", token.trim()));
        let open = dir.join("open.jwk");
        std::fs::copy(dir.join(&key), &open).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&open, mode).unwrap();

        let narrow = |token: &str, key: &str, roots: &str, words: &[&str]| {
            let common = ["narrow", token, "--key", key, "--roots", roots];
            agent.run(dir, &[&common[..], words].concat())
        };
        let for_5m = ["--for", "5m"];
        for (token, roots) in [
            ("changed.cap", "roots.json"),
            ("padded.cap", "roots.json"),
            (&cap, "no-roots.json"),
            (&cap, "other-roots.json"),
            (&cap, "access-token"),
        ] {
            agent.fails(&narrow(token, &key, roots, &for_5m), 1);
        }
        agent.fails(&narrow(&cap, "open.jwk", "roots.json", &for_5m), 1);
        agent.fails(&narrow(&cap, &cap, "roots.json", &for_5m), 1);
        for (words, code) in [
            (&[][..], 64),
            (&["--for", "5m", "--until", "2030-01-01T00:00:00Z"], 64),
            (&["--for", "soon"], 64),
            (&["--until", "2020-01-01T00:00:00Z"], 1),
            (&["--for", "5m", "--resource", "repo=acme*"], 1),
            (
                &[
                    "--for",
                    "5m",
                    "--resource",
                    "repo=acme/*",
                    "--resource",
                    "repo=b/c",
                ],
                1,
            ),
            (
                &["--for", "5m", "--tool", "git:git_log", "--tool", "files:read"],
                1,
            ),
            (&["--for", "5m", "--tool", "git:*"], 1),
            (&["--for", "5m", "--arg", "n=1.5"], 1),
            (&["--for", "5m", "--arg", "n=9007199254740992"], 1),
            (&["--for", "5m", "--arg", "n=1", "--arg", "n=true"], 1),
            (&["--for", "5m", "--arg-range", "n=5..1"], 1),
            (&["--for", "5m", "--arg-range", "n=.."], 1),
        ] {
            agent.fails(&narrow(&cap, &key, "roots.json", words), code);
        }
        let delegate = |to: &str| {
            let common = ["delegate", &cap, "--key", &key, "--roots", "roots.json"];
            agent.run(dir, &[&common[..], &for_5m, &["--to", to]].concat())
        };
        agent.fails(&delegate(&format!("{name}.pub.jwk")), 1);
        agent.fails(&delegate(&key), 1);
        agent.fails(&delegate("{}"), 1);
        agent.fails(&delegate(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#), 1);
        // A key is never overwritten.
        let before = std::fs::read(dir.join(&key)).unwrap();
        agent.fails(&agent.run(dir, &["keygen", "--out", &key]), 1);
        assert_eq!(std::fs::read(dir.join(&key)).unwrap(), before);
        // What nobody granted: the issuer says no.
        let token = taper_ok(dir, &["dev-token", "--dir", "up", "--subject", "bob"]);
        write("access-token", &token);
        let issuer = up.issuer();
        let words = [
            "obtain",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--subject-token",
        ];
        let rest = ["access-token", "--key", &key, "--scope", "git:*"];
        let refusal = refused(&agent.run(dir, &[&words[..], &rest].concat()));
        assert_eq!((refusal.status, refusal.said), (400, "invalid_scope".to_owned()));
    }
}
