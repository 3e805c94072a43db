//! Runs what the pages of `examples/clients` say, in their order as one session, and compares the settings that
//! they show for clients that cannot run here with those that the program prints.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taper_tests::pages::free_ports;
use taper_tests::{root, taper_bin};
use tempfile::TempDir;

use crate::clients::rmcp_client;
use crate::world::real;

const PAGES: [&str; 8] = [
    "README",
    "claude-code",
    "cursor",
    "vscode",
    "inspector",
    "typescript",
    "python",
    "rmcp",
];
/// The ports that the pages speak of: those of `taper up`, and the sidecar's.
const PORTS: [u16; 5] = [9410, 9411, 9412, 9413, 9418];
/// Where the pages have the program and the folder.
const PROGRAM: &str = "/usr/local/bin/taper";
const FOLDER: &str = "/home/alice/target/clients";

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("examples/clients/{name}.md"))).unwrap()
}

/// The fenced blocks of one language.
fn blocks(text: &str, wanted: &str) -> Vec<String> {
    let mut parts = text.split("\n```");
    parts.next();
    let blocks = parts.step_by(2).map(|block| block.split_once('\n').unwrap());
    blocks
        .filter(|(language, _)| *language == wanted)
        .map(|(_, text)| format!("{text}\n"))
        .collect()
}

fn on_ports(text: &str, first: u16) -> String {
    PORTS.iter().fold(text.to_owned(), |text, port| {
        text.replace(&port.to_string(), &(first + port - 9400).to_string())
    })
}

#[test]
fn every_command_of_the_pages_runs() {
    let folder = TempDir::new().unwrap();
    let first = free_ports();
    // What runs in the background ends with the session, however that ends.
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for name in PAGES {
        script.push_str(&format!("echo '=== {name}'\n"));
        for block in blocks(&page(name), "sh") {
            script.push_str(&on_ports(&block, first));
        }
    }
    // The pages start the clients where they are.
    let (typescript, python) = (
        real("clients/typescript/client.mjs"),
        root().join("examples/clients/python/client.py"),
    );
    let script = script
        .replace("node client.mjs", &format!("node {}", typescript.display()))
        .replace("python client.py", &format!("python {}", python.display()));
    std::fs::write(folder.path().join("session.sh"), &script).unwrap();
    let (stdout, stderr) = session(folder.path());
    let transcript = format!("{stdout}\n--- stderr\n{stderr}");

    let said = |name: &str| {
        let (_, rest) = stdout.split_once(&format!("=== {name}\n")).expect(&transcript);
        rest.split("\n=== ").next().unwrap().to_owned()
    };
    for (name, calls, refusals) in [
        ("inspector", 2, 1),
        ("typescript", 2, 1),
        ("python", 2, 1),
        ("rmcp", 2, 0),
    ] {
        let said = said(name);
        assert_eq!(
            said.matches("Fix the price of the anvil").count(),
            calls,
            "{name}\n{transcript}"
        );
        assert_eq!(said.matches("\nexit ").count(), refusals, "{name}\n{transcript}");
    }
    let denied = "the capability does not allow this";
    assert!(stderr.contains(denied), "{transcript}");
    for name in ["typescript", "python", "rmcp"] {
        assert!(
            said(name).contains(denied),
            "{name}
{transcript}"
        );
    }
    assert!(!said("inspector").contains("git_show"), "{transcript}");

    let there = folder.path().canonicalize().unwrap().join("target/clients");
    for (name, file) in [
        ("claude-code", ".mcp.json"),
        ("cursor", ".cursor/mcp.json"),
        ("vscode", ".vscode/mcp.json"),
    ] {
        let shown = blocks(&page(name), "json").concat();
        let shown = on_ports(&shown, first)
            .replace(
                PROGRAM,
                &taper_bin().canonicalize().unwrap().display().to_string(),
            )
            .replace(FOLDER, &there.display().to_string());
        let printed = std::fs::read_to_string(there.join(file)).unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&printed), value(&shown), "{name}");
    }
}

/// Runs `session.sh` in a folder; its stdout and stderr.
fn session(dir: &Path) -> (String, String) {
    // Into files: a pipe would stay open as long as anything in the background has it.
    let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
    // No functions of the shell: one that runs in the background would outlive it.
    let folder_of = |program: PathBuf| program.parent().unwrap().to_owned();
    let programs = [
        folder_of(taper_bin().canonicalize().unwrap()),
        folder_of(rmcp_client()),
        real("bin"),
        real("venv/bin"),
    ];
    let before = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&before))).unwrap();
    let status = Command::new("timeout")
        .args(["300", "bash", "-euo", "pipefail", "session.sh"])
        .current_dir(dir.canonicalize().unwrap())
        .env("HOME", dir)
        .env("PATH", path)
        .env("PYTHONPATH", root().join("examples/agents/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(std::fs::File::create(&stdout).unwrap())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .status()
        .unwrap();
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    let (stdout, stderr) = (read(&stdout), read(&stderr));
    assert!(status.success(), "{status}\n{stdout}\n--- stderr\n{stderr}");
    (stdout, stderr)
}

/// What the pages tell people to install is what the tests ran with.
#[test]
fn the_pages_name_the_versions_that_run_here() {
    let package: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("tests/real/package.json")).unwrap())
            .unwrap();
    let python = std::fs::read_to_string(root().join("tests/real/requirements.txt")).unwrap();
    for (name, module) in [
        ("typescript", "@modelcontextprotocol/client"),
        ("typescript", "jose"),
        ("inspector", "@modelcontextprotocol/inspector"),
    ] {
        let version = package["dependencies"][module].as_str().unwrap();
        assert!(
            page(name).contains(&format!("{module}@{version}")),
            "{name}: {module} {version}"
        );
    }
    for module in ["mcp", "cryptography"] {
        let line = python
            .lines()
            .find(|line| line.starts_with(&format!("{module}==")))
            .unwrap();
        let pinned = line.split(' ').next().unwrap();
        assert!(page("python").contains(pinned), "{pinned}");
    }
}
