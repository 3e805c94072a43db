//! The clients: how each is told to list the tools, to call one, and to call it where it may not.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use taper_tests::{root, taper_bin};

use crate::world::{Era, Way, World, json, real, said};

/// What a client saw.
pub(crate) struct Seen {
    /// The revision that it says it speaks.
    pub(crate) version: Option<String>,
    pub(crate) tools: Vec<String>,
    /// The text of the call that is allowed.
    pub(crate) history: String,
    /// What it says of the call that is not.
    pub(crate) refusal: String,
}

/// A client, and the ways that it can go.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) ways: &'static [Way],
    pub(crate) run: fn(&World, Way, Era) -> Seen,
}

pub(crate) const CLIENTS: [Client; 5] = [
    Client {
        name: "typescript",
        ways: &Way::ALL,
        run: typescript,
    },
    Client {
        name: "python",
        ways: &Way::ALL,
        run: python,
    },
    Client {
        name: "rmcp",
        ways: &Way::ALL,
        run: rmcp,
    },
    // It can start a command or send a fixed header, and knows no proofs.
    Client {
        name: "inspector",
        ways: &[Way::Http, Way::Stdio],
        run: inspector,
    },
    Client {
        name: "taper call",
        ways: &[Way::Direct],
        run: taper_call,
    },
];

const ALLOWED: &str = "repo_path=acme/web";
const DENIED: &str = "repo_path=acme/payroll";

fn typescript(world: &World, way: Way, era: Era) -> Seen {
    let mut command = Command::new(real("bin/node"));
    command.arg(real("clients/typescript/client.mjs"));
    example(command, world, way, era)
}

fn python(world: &World, way: Way, era: Era) -> Seen {
    let mut command = Command::new(real("venv/bin/python"));
    command
        .arg(root().join("examples/clients/python/client.py"))
        .env("PYTHONPATH", root().join("examples/agents/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    example(command, world, way, era)
}

fn rmcp(world: &World, way: Way, era: Era) -> Seen {
    example(Command::new(rmcp_client()), world, way, era)
}

/// The example on rmcp, which cargo builds with the tests of the workspace.
pub(crate) fn rmcp_client() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/client");
    assert!(
        built.exists(),
        "{} is missing: cargo build -p taper-agent --features rmcp --example client",
        built.display()
    );
    built
}

/// The examples have one command line and one form of report.
fn example(mut command: Command, world: &World, way: Way, era: Era) -> Seen {
    command.current_dir(world.dir()).args(["--era", era.name()]);
    command.args(["git_log", ALLOWED, "git_log", DENIED]);
    match way {
        Way::Direct => command.args([
            "--url",
            &world.proxy(),
            "--token",
            "part.cap",
            "--key",
            "agent.jwk",
        ]),
        Way::Http => command.args(["--url", &world.sidecar(), "--header", &world.authorization()]),
        Way::Stdio => command.arg("--").args(world.sidecar_command()),
    };
    let report = json(&mut command);
    let calls = &report["calls"];
    assert_eq!(report.get("error"), None, "{report:#}");
    assert_eq!(calls[1].get("result"), None, "{report:#}");
    Seen {
        version: Some(text(&report["version"])),
        tools: names(report["tools"].as_array().unwrap()),
        history: text(&calls[0]["result"]["content"][0]["text"]),
        refusal: calls[1]["error"].to_string(),
    }
}

fn inspector(world: &World, way: Way, era: Era) -> Seen {
    // It takes the arguments of a program for its own, unless they are in a file of settings.
    let settings = world.dir().join("inspector.json");
    let [program, arguments @ ..] = &world.sidecar_command()[..] else {
        panic!("no program");
    };
    let server = serde_json::json!({ "command": program, "args": arguments });
    let text_of_it = serde_json::json!({ "mcpServers": { "git": server } }).to_string();
    std::fs::write(&settings, text_of_it).unwrap();
    let run = |wanted: &[&str]| {
        let mut command = Command::new(real("bin/inspector"));
        // What it remembers stays in the test's folder.
        command.current_dir(world.dir()).env("HOME", world.dir());
        if way == Way::Stdio {
            command.arg("--config").arg(&settings).args(["--server", "git"]);
        } else {
            command.args([
                &world.sidecar(),
                "--transport",
                "http",
                "--header",
                &world.authorization(),
            ]);
        }
        command.args(["--protocol-era", era.name(), "--format", "json"]);
        command.args(wanted);
        command
    };
    let call = ["--method", "tools/call", "--tool-name", "git_log", "--tool-arg"];
    let listed = json(&mut run(&["--method", "tools/list"]));
    let called = json(&mut run(&[&call[..], &[ALLOWED]].concat()));
    let (stdout, stderr) = said(&mut run(&[&call[..], &[DENIED]].concat()));
    assert!(!stdout.contains("commit"), "{stdout}");
    let tools = listed["result"]["tools"].as_array().unwrap();
    Seen {
        version: None,
        tools: tools.iter().map(|tool| text(&tool["name"])).collect(),
        history: text(&called["result"]["content"][0]["text"]),
        refusal: format!("{stdout}{stderr}"),
    }
}

fn taper_call(world: &World, _: Way, era: Era) -> Seen {
    let run = |wanted: &[&str]| {
        let mut command = Command::new(taper_bin());
        command
            .current_dir(world.dir())
            .args([
                "call",
                "--url",
                &world.proxy(),
                "--token",
                "part.cap",
                "--key",
                "agent.jwk",
            ])
            .args(["--era", era.name()])
            .args(wanted);
        command
    };
    let listed = json(&mut run(&["--list", "--format", "json"]));
    let tools = listed["tools"].as_array().unwrap();
    Seen {
        version: None,
        tools: tools.iter().map(|tool| text(&tool["name"])).collect(),
        history: said(&mut run(&["git_log", ALLOWED])).0,
        refusal: said(&mut run(&["git_log", DENIED])).1,
    }
}

fn names(tools: &[Value]) -> Vec<String> {
    tools.iter().map(text).collect()
}

#[track_caller]
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
