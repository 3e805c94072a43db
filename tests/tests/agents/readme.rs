//! Runs what the two `README.md` say, and compares what comes out with what they say comes out.

use std::path::Path;
use std::process::{Command, Output};

use taper_capability::UnverifiedToken;
use taper_tests::{Running, named_by_run, root, taper_bin};
use tempfile::TempDir;

use super::BOTH;
use crate::language::{Agent, succeeds};

/// The fenced blocks: language and text.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut parts = page.split("\n```");
    parts.next();
    parts
        .step_by(2)
        .map(|block| {
            let (language, text) = block.split_once('\n').unwrap();
            (language, format!("{text}\n"))
        })
        .collect()
}

/// A text without what differs from run to run: words with digits in them, and long ones.
fn shape(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut shape = String::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        if word.len() >= 20 || word.bytes().any(|b| b.is_ascii_digit()) {
            shape.push('#');
        } else {
            shape.push_str(word);
        }
        rest = &rest[word.len()..];
        let between = &rest[..rest.find(is_word).unwrap_or(rest.len())];
        shape.push_str(between);
        rest = &rest[between.len()..];
    }
    shape
}

/// Runs one block of a shell in the folder, where `agent`, `taper`, `ISSUER` and `MCP` mean something.
fn shell(agent: Agent, dir: &Path, up: &Running, script: &str) -> Output {
    let real = named_by_run("TAPER_REAL").join("agents");
    let words = match agent {
        Agent::Python => r#""$REAL/python/bin/python" -m taper_agent"#,
        Agent::Js => {
            r#""$REAL/../bin/node" --disable-warning=ExperimentalWarning "$REAL/js/taper-agent.mjs""#
        }
    };
    let preamble = r#"set -e; exec 2>&1; taper() { "$TAPER" "$@"; };"#;
    Command::new("bash")
        .arg("-c")
        .arg(format!("{preamble} agent() {{ {words} \"$@\"; }};\n{script}"))
        .current_dir(dir)
        .env("HOME", dir)
        .env("TAPER", taper_bin())
        .env("REAL", real)
        .env("ISSUER", up.text("/issuer"))
        .env("MCP", up.text("/mcp/git"))
        .env("PYTHONPATH", root().join("examples/agents/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}

#[test]
fn the_readmes_come_true() {
    for agent in BOTH {
        let folder = TempDir::new().unwrap();
        let dir = folder.path();
        let example = root().join("examples/agents").join(agent.name());
        let page = std::fs::read_to_string(example.join("README.md")).unwrap();
        let blocks = blocks(&page);
        let (setup, story) = blocks.split_at(3);
        // What installs, what starts the servers, and what names them is done by the test.
        let up = "taper up --dir ~/taper-demo --port 0 --format json\n";
        assert_eq!(setup[1], ("sh", up.to_owned()));
        assert!(setup[2].1.starts_with("ISSUER="), "{setup:?}");
        let mut command = Command::new(taper_bin());
        command.args(["up", "--port", "0", "--format", "json", "--dir"]);
        let up = Running::start(command.arg(dir.join("taper-demo")));

        let mut compared = 0;
        for (at, (language, text)) in story.iter().enumerate() {
            match *language {
                "sh" => {
                    let output = shell(agent, dir, &up, text);
                    let said = String::from_utf8(output.stdout).unwrap();
                    let ("text", expected) = &story[at + 1] else {
                        panic!("{text} has no output")
                    };
                    let code = if expected.starts_with("refused") { 2 } else { 0 };
                    assert_eq!(output.status.code(), Some(code), "{text}\n{said}");
                    assert_eq!(shape(&said), shape(expected), "{text}\n{said}");
                    compared += 1;
                }
                "text" => {}
                "python" | "js" => {
                    let output = program(agent, dir, text);
                    let token = UnverifiedToken::decode(succeeds(&output).trim()).unwrap();
                    let (caveats, others) = token.links().last().unwrap().caveats();
                    assert_eq!((caveats.len(), others), (3, 0), "{caveats:?}");
                    compared += 1;
                }
                other => panic!("a block in {other}"),
            }
        }
        assert_eq!(compared, 6, "{agent:?}");
    }
}

/// Runs a program of the page.
fn program(agent: Agent, dir: &Path, text: &str) -> Output {
    let real = named_by_run("TAPER_REAL");
    let mut command = match agent {
        Agent::Python => {
            let mut python = Command::new(real.join("agents/python/bin/python"));
            python.arg("-c").arg(text);
            python
        }
        Agent::Js => {
            let file = dir.join("program.mjs");
            let here = format!("'{}/", real.join("agents/js").display());
            std::fs::write(&file, text.replace("'./", &here)).unwrap();
            let mut node = Command::new(real.join("bin/node"));
            node.arg("--disable-warning=ExperimentalWarning").arg(file);
            node
        }
    };
    command
        .current_dir(dir)
        .env("PYTHONPATH", root().join("examples/agents/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}
