//! Runs what `README.md` says, and checks the configurations and policies in `examples/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use taper_tests::daemon::write_private;
use taper_tests::pages::{FIRST_PORT, blocks, copy_examples, free_ports, on_ports};
use taper_tests::{named_by_run, root, taper, taper_bin, taper_ok};
use tempfile::TempDir;

#[test]
fn every_command_of_the_readme_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    let other: Vec<&str> = blocks
        .iter()
        .filter(|(language, _)| language != "sh")
        .map(|(l, _)| l.as_str())
        .collect();
    assert_eq!(
        other, ["text"; 3],
        "the picture, tests/run and the build are the only blocks that are not run"
    );

    let folder = TempDir::new().unwrap();
    let port = free_ports();
    copy_examples(folder.path(), port);
    // What runs in the background ends with the session, however that ends.
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (_, block) in blocks.iter().filter(|(language, _)| language == "sh") {
        script.push_str(&on_ports(block, port).replace("cargo run --release -- ", "taper "));
    }
    std::fs::write(folder.path().join("session.sh"), &script).unwrap();

    let programs = [
        taper_bin().canonicalize().unwrap().parent().unwrap().to_owned(),
        named_by_run("TAPER_REAL").join("bin"),
    ];
    let before = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&before))).unwrap();
    // Into files: a pipe would stay open as long as anything in the background has it.
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let status = Command::new("timeout")
        .args(["300", "bash", "-euxo", "pipefail", "session.sh"])
        .current_dir(folder.path())
        .env("PATH", path)
        .stdout(std::fs::File::create(&stdout).unwrap())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .status()
        .unwrap();
    let (stdout, stderr) = (
        std::fs::read_to_string(stdout).unwrap(),
        std::fs::read_to_string(stderr).unwrap(),
    );
    let transcript = format!("{stdout}\n--- stderr\n{stderr}");
    assert!(status.success(), "{status}\n{transcript}");

    // What is denied is denied by the rule that the text speaks of, and nothing else is.
    let denied = stdout
        .lines()
        .filter(|line| line.starts_with("exit "))
        .collect::<Vec<_>>();
    assert_eq!(denied, ["exit 2"; 5], "{transcript}");
    let rules: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .filter_map(|line| line.split_once("rule ").map(|(_, rest)| rest.get(..4).unwrap()))
        .collect();
    assert_eq!(rules, ["R-22", "R-22", "R-22", "R-23", "R-23"], "{transcript}");
    // A call that is under way when its capability is revoked may be cut off without an answer.
    let says_so = |line: &&str| line.contains("revoked") || line.contains("connection closed");
    let revoked = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .filter(says_so);
    assert_eq!(revoked.count(), 3, "{transcript}");
    let intact = stdout.lines().filter(|line| line.starts_with("intact ")).count();
    assert_eq!(
        intact,
        2 + 4,
        "two journals of `up`, and then those of both daemons too\n{transcript}"
    );
}

/// The examples with the keys and secrets that they name.
fn prepared() -> TempDir {
    let folder = TempDir::new().unwrap();
    copy_examples(folder.path(), FIRST_PORT);
    let configs = folder.path().join("examples/configs");
    taper_ok(&configs, &["keygen", "--out", "root-1.jwk"]);
    for secret in ["admin-token", "feed-secret"] {
        write_private(&configs.join(secret), "0123456789abcdef0123456789abcdef\n");
    }
    folder
}

fn check_config(configs: &Path, daemon: &str) -> Output {
    taper(
        configs,
        &[daemon, "--config", &format!("{daemon}.toml"), "--check-config"],
    )
}

/// The keys of a configuration file, each with its line, counted from 1.
fn keys(text: &str) -> Vec<(usize, &str)> {
    let keys = text.lines().enumerate().filter_map(|(n, line)| {
        let (key, _) = line.split_once(" = ")?;
        (!line.starts_with(['#', '['])).then_some((n + 1, key))
    });
    keys.collect()
}

#[test]
fn the_example_configurations_are_valid() {
    let folder = prepared();
    let configs = folder.path().join("examples/configs");
    for daemon in ["issuer", "proxy"] {
        let output = check_config(&configs, daemon);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let left: BTreeSet<_> = std::fs::read_dir(&configs)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("state")),
        "a check makes no state: {left:?}"
    );
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_what_was_meant() {
    let folder = prepared();
    let configs = folder.path().join("examples/configs");
    for daemon in ["issuer", "proxy"] {
        let file = configs.join(format!("{daemon}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let keys = keys(&text);
        assert!(keys.len() > 30, "{keys:?}");
        for (line, key) in keys {
            let misspelt = lines[line - 1].replacen(' ', "x ", 1);
            let mut wrong = lines.clone();
            wrong[line - 1] = &misspelt;
            std::fs::write(&file, wrong.join("\n")).unwrap();
            let output = check_config(&configs, daemon);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let expected = format!("{daemon}.toml:{line}:1: unknown key `{key}x`, did you mean `{key}`?");
            assert_eq!(output.status.code(), Some(3), "{misspelt}: {stderr}");
            assert!(stderr.contains(&expected), "{misspelt}: {stderr}");
        }
        std::fs::write(&file, text).unwrap();
    }
}

/// The program itself says which keys a table has: each must stand in the example, set or behind `#`.
#[test]
fn the_example_configurations_have_every_key() {
    let folder = prepared();
    let configs = folder.path().join("examples/configs");
    for daemon in ["issuer", "proxy"] {
        let file = configs.join(format!("{daemon}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // The top of the file, and each table's header.
        let headers = lines.iter().enumerate().filter(|(_, line)| line.starts_with('['));
        let tables: Vec<usize> = std::iter::once(0).chain(headers.map(|(n, _)| n + 1)).collect();
        let mut known = 0;
        for table in tables {
            let mut wrong = lines.clone();
            wrong.insert(table, "zzzzzzzzzzzz = 1");
            std::fs::write(&file, wrong.join("\n")).unwrap();
            let stderr = check_config(&configs, daemon).stderr;
            let stderr = String::from_utf8_lossy(&stderr);
            let expected = stderr.split_once("expected ");
            let (_, expected) = expected.unwrap_or_else(|| panic!("{daemon}.toml:{table}: {stderr}"));
            for key in expected.split('`').skip(1).step_by(2) {
                known += 1;
                let set = lines.iter().any(|line| {
                    let line = line.strip_prefix("# ").unwrap_or(line);
                    let header = line.trim_start_matches('[').trim_end_matches(']');
                    line.starts_with(&format!("{key} = "))
                        || line.starts_with('[') && header.split('.').any(|part| part == key)
                });
                assert!(set, "{daemon}.toml has no `{key}`");
            }
        }
        assert!(known > 30, "{daemon} has {known} keys");
        std::fs::write(&file, text).unwrap();
    }
}

#[test]
fn every_example_policy_is_used_by_an_example_configuration() {
    let text = ["issuer", "proxy"]
        .map(|name| std::fs::read_to_string(root().join(format!("examples/configs/{name}.toml"))).unwrap());
    for entry in std::fs::read_dir(root().join("examples/policies")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            text.concat().contains(&format!("\"../policies/{name}\"")),
            "no configuration loads {name}"
        );
    }
}

/// What the page names in code or as a link is there.
#[test]
fn every_path_of_the_readme_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let words = readme.split(|c: char| c.is_whitespace() || "`()[],;:".contains(c));
    let folders = ["crates/", "examples/", "spec/", "tests/"];
    let paths: BTreeSet<&str> = words
        .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
        .collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(root().join(path.trim_end_matches('.')).exists(), "{path}");
    }
}
