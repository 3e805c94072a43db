//! `taper agent`: what is said to it, also where it is wrong, what it answers, and what it says elsewhere.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use taper_tests::{Running, Up, taper_bin};

use crate::{assert_none, private_keys};

/// What the agent answers to one line; nothing where it hangs up.
fn say(socket: &str, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may have hung up before it has read everything.
    let _ = stream.write_all(format!("{line}\n").as_bytes());
    let mut answer = String::new();
    let _ = BufReader::new(stream).read_line(&mut answer);
    answer
}

#[test]
fn the_agent_tells_no_secret() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    up.keygen("bob");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    let (token, alice, bob) = (read("alice.cap"), read("alice.jwk"), read("bob.jwk"));
    let mut command = Command::new(taper_bin());
    let words = ["agent", "--key", "alice.jwk", "--delegate", "--format", "json"];
    let agent = Running::start(command.current_dir(dir).args(words));
    let (socket, key) = (agent.text("/socket"), agent.text("/keys/0/thumbprint"));

    // As programs use it.
    let mcp = up.mcp();
    let with_agent = |words: &[&str]| {
        let mut command = Command::new(taper_bin());
        let command = command.current_dir(dir).env("TAPER_AGENT_SOCK", &socket);
        let output = command.args(words).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.success(), text.concat())
    };
    let call = [
        "call",
        "--url",
        &mcp,
        "--token",
        "alice.cap",
        "--key",
        "agent:",
        "git_log",
        "repo_path=acme/web",
    ];
    let narrow = [
        "narrow",
        "alice.cap",
        "--key",
        "agent:",
        "--tool",
        "git:git_log",
        "--out",
        "narrow.cap",
    ];
    let hand_on = [
        "delegate",
        "alice.cap",
        "--key",
        "agent:",
        "--to",
        "bob.pub.jwk",
        "--for",
        "5m",
        "--out",
        "bob.cap",
    ];
    let mut told = String::new();
    for (words, succeeds) in [
        (&call[..], true),
        (&narrow, true),
        (&hand_on, true),
        (&["agent", "list"], true),
        (&["agent", "add", "bob.jwk"], true),
        // Secrets where something else belongs.
        (&["agent", "add", &bob], false),
        (&["agent", "remove", &bob], true),
        (
            &[
                "call", "--url", &mcp, "--token", &token, "--key", "agent:", "git_log",
            ],
            false,
        ),
    ] {
        let (success, text) = with_agent(words);
        assert_eq!(success, succeeds, "{words:?}: {text}");
        told += &text;
    }

    // As nobody should.
    let private: Value = serde_json::from_str(&bob).unwrap();
    let proof = say(
        &socket,
        &json!({ "op": "prove", "key": key, "htm": "POST", "htu": mcp }).to_string(),
    );
    assert!(proof.contains("\"proof\""), "{proof}");
    let mut answers = String::new();
    for line in [
        json!({ "op": "list" }).to_string(),
        json!({ "op": "add", "private": private, "name": token }).to_string(),
        json!({ "op": "add", "private": private, "name": "b", "more": bob }).to_string(),
        json!({ "op": "add", "private": bob, "name": bob }).to_string(),
        json!({ "op": bob }).to_string(),
        json!({ "op": "prove", "key": bob, "htm": token, "htu": alice }).to_string(),
        json!({ "op": "prove", "key": key, "htm": "POST", "htu": mcp, "nonce": bob }).to_string(),
        json!({ "op": "append", "key": key, "token": bob }).to_string(),
        json!({ "op": "append", "key": key, "token": token, "to": private }).to_string(),
        json!({ "op": "remove", "key": bob }).to_string(),
        format!("{bob}{token}"),
        bob.clone(),
        format!("{{\"op\":\"list\",\"op\":\"{token}\"}}"),
        format!("{{\"op\":\"{}\"}}", token.repeat(100)),
    ] {
        answers += &say(&socket, &line);
    }
    assert!(
        answers.contains("\"error\"") && answers.contains("\"keys\""),
        "{answers}"
    );
    let (success, log) = agent.stop_for_log();
    assert!(success && !log.contains("panicked"), "{log}");

    let mut secrets = Vec::new();
    private_keys(dir, &mut secrets);
    assert!(
        secrets.iter().any(|(name, _)| name.ends_with("bob.jwk")),
        "{secrets:?}"
    );
    // Who asks may be told what it said, but never a key.
    assert_none(
        &[("what the agent answers", &answers), ("what programs say", &told)],
        &secrets,
    );
    secrets.push(("the capability".to_owned(), token));
    let proof: Value = serde_json::from_str(&proof).unwrap();
    secrets.push((
        "the proof".to_owned(),
        proof["proof"].as_str().unwrap().to_owned(),
    ));
    assert_none(&[("what the agent says", &log)], &secrets);
}
