//! Every command as a person or a script meets it: results, exit codes, and what goes to which stream.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod audit;
mod calls;
mod capabilities;
mod daemons;
mod pinning;
mod reading;
mod revoke;

use std::process::{Command, Output};

use serde_json::Value;
use taper_tests::{Up, taper, taper_ok};
use tempfile::TempDir;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The command ends with this code; its stdout is empty and its stderr holds these words.
#[track_caller]
fn ends(output: &Output, code: i32, says: &[&str]) {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for word in says {
        assert!(stderr.contains(word), "{word} is not in {stderr}");
    }
    assert_eq!(stdout(output), "", "a failure has no result");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    stdout(output)
}

/// The one line of JSON that a command printed, with nothing beside it.
#[track_caller]
fn json(output: &Output) -> Value {
    let text = succeeds(output);
    assert_eq!(stderr(output), "", "programs get everything in the result");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a failed command said with `--format json`.
#[track_caller]
fn json_failure(output: &Output, code: i32) -> Value {
    ends(output, code, &[]);
    let failure: Value =
        serde_json::from_str(&stderr(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(failure["error"].is_string(), "{failure}");
    failure
}

#[test]
fn completions() {
    let folder = TempDir::new().unwrap();
    for (shell, syntax) in [("bash", Some(["bash", "-n"])), ("zsh", None), ("fish", None)] {
        let script = taper_ok(folder.path(), &["completions", shell]);
        for command in ["exchange", "delegate", "narrow", "revoke", "audit"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        if let Some([program, option]) = syntax {
            let file = folder.path().join("script");
            std::fs::write(&file, &script).unwrap();
            assert!(
                Command::new(program)
                    .arg(option)
                    .arg(&file)
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
}

#[test]
fn usage_errors_are_64() {
    let folder = TempDir::new().unwrap();
    let wrong: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["keygen"],
        &["keygen", "--out", "x", "--alg", "rsa"],
        &["keygen", "--out", "x", "--format", "xml"],
        &["exchange", "--issuer", "http://127.0.0.1:1"],
        &[
            "exchange",
            "--issuer",
            "http://127.0.0.1:1",
            "--client-id",
            "a",
            "--subject-token",
            "-",
            "--key",
            "k",
            "--scope",
            "no-colon",
        ],
        &["delegate", "x", "--key", "k", "--to", "y"],
        &[
            "delegate",
            "x",
            "--key",
            "k",
            "--to",
            "y",
            "--for",
            "1m",
            "--until",
            "2030-01-01T00:00:00Z",
        ],
        &["delegate", "x", "--key", "k", "--to", "y", "--for", "soon"],
        &["narrow", "x", "--key", "k", "--until", "tomorrow"],
        &["call", "--url", "u", "--token", "t", "--key", "k"],
        &[
            "call", "--url", "u", "--token", "t", "--key", "k", "--list", "tool",
        ],
        &["revoke"],
        &["revoke", "--grant", "x"],
        &[
            "revoke", "--issuer", "u", "--key", "k", "--token", "t", "--to", "x", "--branch", "y",
        ],
        &["revoke", "--issuer", "u", "--this-key"],
        &["revoke", "--issuer", "u", "--client-id", "c", "--everything"],
        &[
            "revoke",
            "--grant",
            "x",
            "--holder",
            "y",
            "--admin-url",
            "u",
            "--admin-token-file",
            "f",
        ],
        &["audit"],
        &["issuer"],
        &["completions", "perl"],
        &["up", "--port", "99999"],
        &["up", "--unknown"],
    ];
    for arguments in wrong {
        let output = taper(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["call", "--help"]] {
        let output = taper(folder.path(), arguments);
        assert!(
            !succeeds(&output).is_empty() && stderr(&output).is_empty(),
            "{arguments:?}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was written"
    );
}

#[test]
fn every_result_can_be_read_by_a_program() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let (issuer, mcp) = (up.issuer(), up.mcp());
    let public = std::fs::read_to_string(up.dir().join("alice.pub.jwk")).unwrap();
    let commands: &[&[&str]] = &[
        &["keygen", "--out", "new.jwk"],
        &["dev-token", "--dir", "up", "--subject", "bob"],
        &[
            "exchange",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--subject-token",
            "access-token",
            "--key",
            "alice.jwk",
            "--scope",
            "git:*",
        ],
        &["inspect", "alice.cap"],
        &["verify", "alice.cap", "--issuer", &issuer],
        &["narrow", "alice.cap", "--key", "alice.jwk"],
        &["narrow", "alice.cap", "--key", "alice.jwk", "--out", "narrow.cap"],
        &[
            "call",
            "--url",
            &mcp,
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
            "git_log",
            "repo_path=acme/web",
        ],
        &[
            "call",
            "--url",
            &mcp,
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--list",
        ],
        &[
            "revoke",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
        ],
        &["issuer", "--config", "up/issuer/issuer.toml", "--check-config"],
        &["proxy", "--config", "up/proxy/proxy.toml", "--check-config"],
    ];
    for command in commands {
        assert!(
            json(&taper(up.dir(), &[command, &["--format", "json"][..]].concat())).is_object(),
            "{command:?}"
        );
    }
    let delegate = [
        "delegate",
        "narrow.cap",
        "--key",
        "alice.jwk",
        "--to",
        &public,
        "--for",
        "1m",
        "--format",
        "json",
    ];
    let refused = taper(up.dir(), &delegate);
    assert!(
        !refused.status.success(),
        "a hand-over to oneself is a narrowing: {refused:?}"
    );
    json_failure(&refused, refused.status.code().unwrap());
}
