//! The whole story over other people's programs: an OpenID provider and a TypeScript MCP client from
//! npm, an MCP server from PyPI. Issuer and proxy are two daemons with files of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod credentials;
mod parts;
mod servers;

use std::path::Path;
use std::process::Command;

use parts::{Parts, real};
use serde_json::{Value, json};
use taper_tests::{Up, taper, taper_ok};

/// The TypeScript client, presenting `NAME.cap` of the folder with `NAME.jwk`: its report.
#[track_caller]
fn ts_client(dir: &Path, url: &str, name: &str, era: &str, call: &Value) -> Value {
    let read = |file: String| std::fs::read_to_string(dir.join(file)).unwrap();
    let mut input = json!({
        "url": url,
        "token": read(format!("{name}.cap")).trim(),
        "jwk": serde_json::from_str::<Value>(&read(format!("{name}.jwk"))).unwrap(),
        "era": era,
    });
    input
        .as_object_mut()
        .unwrap()
        .extend(call.as_object().unwrap().clone());
    let file = dir.join(format!("ts-{name}.json"));
    std::fs::write(&file, input.to_string()).unwrap();
    let output = Command::new(real("bin/node"))
        .arg(real("ts-client.mjs"))
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// The same for a call that must come out; the text of its result.
#[track_caller]
fn ts_result(dir: &Path, url: &str, name: &str, era: &str, call: &Value) -> (Value, String) {
    let report = ts_client(dir, url, name, era, call);
    assert_eq!(report.get("error"), None, "{report:#}");
    let text = report["result"]["content"][0]["text"]
        .as_str()
        .expect("a text")
        .to_owned();
    assert_ne!(report["result"]["isError"], true, "{text}");
    (report, text)
}

/// What the last request of a report was answered: status, and the JSON-RPC error.
fn last_answer(report: &Value) -> (u64, Value) {
    let mut calls = report["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|request| request["method"] == "POST");
    let last = calls
        .next_back()
        .unwrap_or_else(|| panic!("nothing was sent: {report:#}"));
    let body = last["error"]
        .as_str()
        .and_then(|body| serde_json::from_str(body).ok())
        .unwrap_or(Value::Null);
    (last["status"].as_u64().unwrap(), body["error"].clone())
}

/// What `git` says itself.
fn git(repository: &Path, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The commit ids in a text, in order.
fn commit_ids(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn equals_git_log(text: &str, repository: &Path) {
    let expected = git(repository, &["log", "--format=%H"]);
    assert!(expected.len() > 1, "{expected:?}");
    assert_eq!(commit_ids(text), expected, "{text}");
    for subject in git(repository, &["log", "--format=%s"]) {
        assert!(text.contains(&subject), "{subject} is missing:\n{text}");
    }
}

#[test]
fn the_whole_story() {
    let parts = Parts::start();
    let dir = parts.dir();
    let (web, payroll) = (parts.repository("web"), parts.repository("payroll"));
    let fetched = || std::fs::read_to_string(dir.join("provider.log")).unwrap_or_default();
    for name in ["alice", "mallory"] {
        taper_ok(dir, &["keygen", "--out", &format!("{name}.jwk")]);
    }
    let public = taper_ok(dir, &["keygen", "--alg", "p256", "--out", "researcher.jwk"]);

    // Exchange.
    parts.access_token("alice", "eng");
    assert!(
        !fetched().contains("openid-configuration") && !fetched().contains("/jwks"),
        "{}",
        fetched()
    );
    let output = parts.exchange("alice");
    assert!(output.status.success(), "{output:?}\n{}", parts.issuer.log());
    for path in ["GET /.well-known/openid-configuration", "GET /jwks"] {
        assert!(
            fetched().lines().any(|line| line == path),
            "{path}: {}",
            fetched()
        );
    }
    parts.access_token("mallory", "sales");
    let output = parts.exchange("mallory");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("invalid_scope"),
        "{output:?}"
    );

    // Delegate, offline.
    let repo = format!("repo={}", web.display());
    taper_ok(
        dir,
        &[
            "delegate",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--to",
            &public,
            "--tool",
            "git:git_log",
            "--resource",
            &repo,
            "--for",
            "10m",
            "--out",
            "researcher.cap",
        ],
    );

    // The real client, the real server.
    let log = json!({ "tool": "git_log", "arguments": { "repo_path": web } });
    for era in ["legacy", "auto"] {
        let call = json!({ "list": false, "tool": "git_log", "arguments": { "repo_path": web } });
        let (report, text) = ts_result(dir, &parts.mcp_url, "researcher", era, &call);
        assert_eq!(report["era"], "legacy", "the server speaks no other: {report:#}");
        equals_git_log(&text, &web);
    }
    let path = format!("repo_path={}", web.display());
    let shared = ["call", "--url", &parts.mcp_url, "--era", "legacy"];
    let by_researcher = [
        &shared[..],
        &["--token", "researcher.cap", "--key", "researcher.jwk"],
    ]
    .concat();
    equals_git_log(
        &taper_ok(dir, &[&by_researcher[..], &["git_log", &path]].concat()),
        &web,
    );
    let listed = taper_ok(
        dir,
        &[&by_researcher[..], &["--list", "--format", "json"]].concat(),
    );
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["name"])
        .collect();
    assert_eq!(names, ["git_log"]);
    let by_alice = [&shared[..], &["--token", "alice.cap", "--key", "alice.jwk"]].concat();
    let at_payroll = format!("repo_path={}", payroll.display());
    equals_git_log(
        &taper_ok(dir, &[&by_alice[..], &["git_log", &at_payroll]].concat()),
        &payroll,
    );

    // What the delegate may not.
    for (tool, repository) in [("git_status", &web), ("git_log", &payroll)] {
        let call = json!({ "list": false, "tool": tool, "arguments": { "repo_path": repository } });
        let report = ts_client(dir, &parts.mcp_url, "researcher", "legacy", &call);
        assert_eq!(report["error"]["step"], "call", "{report:#}");
        let (status, error) = last_answer(&report);
        assert_eq!((status, &error["code"]), (403, &json!(4403)), "{tool} {report:#}");
        assert_eq!(
            (&error["data"]["rule"], &error["data"]["link"]),
            (&json!("R-22"), &json!(1)),
            "{error:#}"
        );
        let argument = format!("repo_path={}", repository.display());
        let output = taper(dir, &[&by_researcher[..], &[tool, &argument]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    // The capability alone is of no use.
    std::fs::copy(dir.join("researcher.cap"), dir.join("mallory.cap")).unwrap();
    let report = ts_client(dir, &parts.mcp_url, "mallory", "legacy", &log);
    assert_eq!(
        (&report["error"]["step"], last_answer(&report).0),
        (&json!("connect"), 401),
        "{report:#}"
    );

    // Take it back.
    let revoked = [
        "revoke",
        "--issuer",
        &parts.issuer_url,
        "--client-id",
        "agents",
        "--token",
        "alice.cap",
    ];
    taper_ok(
        dir,
        &[
            &revoked[..],
            &["--client-secret-file", "agents-secret", "--key", "alice.jwk"],
        ]
        .concat(),
    );
    let refused = (0..100).find_map(|_| {
        let report = ts_client(dir, &parts.mcp_url, "researcher", "legacy", &log);
        report.get("error").is_some().then_some(report)
    });
    let refused = refused.expect("the proxy never learned of the revocation");
    let sent = refused["requests"].as_array().unwrap();
    assert!(sent.iter().all(|request| request["status"] == 401), "{refused:#}");
    let challenge = sent[0]["challenge"].as_str().unwrap();
    assert!(
        challenge.contains("error=\"invalid_token\"") && challenge.contains("M-12"),
        "{challenge}"
    );

    // What is left.
    let told = [("allow", "git_log"), ("deny", "git_log"), ("deny", "git_status")];
    assert_eq!(
        parts.decisions(),
        told.map(|(outcome, tool)| (outcome.to_owned(), tool.to_owned()))
            .into()
    );
    let Parts {
        proxy,
        issuer,
        folder,
        ..
    } = parts;
    for (daemon, state) in [(proxy, "proxy-state"), (issuer, "issuer-state")] {
        let (success, log) = daemon.stop_for_log();
        assert!(success, "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let verified = taper_ok(folder.path(), &["audit", "verify", "--dir", state]);
        assert!(verified.starts_with("intact "), "{verified}");
    }
}

#[test]
fn the_real_client_in_both_eras() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let web = up.dir().join("up/repositories/acme/web");
    let call = json!({ "tool": "git_log", "arguments": { "repo_path": "acme/web" } });
    for (era, version) in [
        ("modern", "2026-07-28"),
        ("legacy", "2025-11-25"),
        ("auto", "2026-07-28"),
    ] {
        let (report, text) = ts_result(up.dir(), &up.mcp(), "alice", era, &call);
        assert_eq!(report["version"], version, "{report:#}");
        assert_eq!(report["tools"], json!(["git_log", "git_show"]));
        let subjects = git(&web, &["log", "--format=%s"]);
        assert!(
            subjects.len() > 1 && subjects.iter().all(|subject| text.contains(subject)),
            "{text}"
        );
    }
    taper_ok(
        up.dir(),
        &[
            "narrow",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--tool",
            "git:git_log",
            "--for",
            "5m",
            "--out",
            "narrow.cap",
        ],
    );
    std::fs::copy(up.dir().join("alice.jwk"), up.dir().join("narrow.jwk")).unwrap();
    for era in ["modern", "legacy"] {
        let report = ts_client(up.dir(), &up.mcp(), "narrow", era, &json!({}));
        assert_eq!(report["tools"], json!(["git_log"]), "{report:#}");
        let show = json!({ "list": false, "tool": "git_show", "arguments": { "repo_path": "acme/web", "revision": "HEAD" } });
        let report = ts_client(up.dir(), &up.mcp(), "narrow", era, &show);
        let (status, error) = last_answer(&report);
        assert_eq!((status, &error["code"]), (403, &json!(4403)), "{era} {report:#}");
    }
}
