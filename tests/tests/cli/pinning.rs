//! `taper proxy pin`, and a proxy that shows what was approved before anybody logs in.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taper_tests::call::Call;
use taper_tests::daemon::free_port;
use taper_tests::{Running, Up, authority, get, raw, taper, taper_bin};

use super::{ends, json, succeeds};

fn message(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

#[test]
fn what_is_approved_is_shown_before_login_and_a_login_is_for_what_is_called() {
    let up = Up::start();
    let dir = up.dir().join("up").join("proxy");
    let at = format!("http://127.0.0.1:{}", free_port());
    let config: String = std::fs::read_to_string(dir.join("proxy.toml"))
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("admin_listen"))
        .map(|line| match line {
            _ if line.starts_with("listen =") => format!("listen = \"{}\"\n", authority(&at)),
            _ if line.starts_with("state =") => "state = \"pinned-state\"\n".to_owned(),
            "[servers.git]" => format!("{line}\npins = \"git.pins.json\"\ndiscovery = \"catalogue\"\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(dir.join("pinned.toml"), config).unwrap();
    let pin = |options: &[&str]| {
        taper(
            &dir,
            &[&["proxy", "pin", "--config", "pinned.toml"], options].concat(),
        )
    };

    // Without the file nothing starts, and it is said how to write it.
    ends(
        &taper(&dir, &["proxy", "--config", "pinned.toml", "--check-config"]),
        3,
        &["git.pins.json", "taper proxy pin --server git"],
    );
    ends(&pin(&["--check"]), 1, &["\"git_log\": it was never approved"]);
    assert!(!dir.join("git.pins.json").exists());
    assert!(succeeds(&pin(&[])).contains("2 tools are approved"));
    assert!(succeeds(&pin(&["--check"])).contains("as approved"));

    // One is taken out; it comes back by its name and no other way.
    let path = dir.join("git.pins.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let tools = file["tools"].as_array_mut().unwrap();
    tools.retain(|tool| tool["name"] != "git_show");
    std::fs::write(&path, file.to_string()).unwrap();
    for options in [&["--check"][..], &[]] {
        ends(
            &pin(options),
            1,
            &["\"git_show\": it was never approved", "--accept"],
        );
    }
    let shown = json(&pin(&["--diff", "--format", "json"]));
    assert_eq!(shown["servers"][0]["tools"][0]["tool"], "git_show");
    let digest = shown["servers"][0]["digest"].as_str().unwrap().to_owned();
    let accept = |tool: &str, digest: &str| pin(&["--server", "git", "--accept", tool, "--reviewed", digest]);
    ends(&accept("git_log", &digest), 1, &["nothing to accept"]);
    // Only what was seen is approved.
    ends(&accept("git_show", "0123"), 1, &["not what was reviewed"]);
    ends(&pin(&["--server", "git", "--all"]), 1, &["not what was reviewed"]);
    let proxy = Running::start_daemon(
        Command::new(taper_bin())
            .current_dir(&dir)
            .args(["proxy", "--config", "pinned.toml"]),
        &at,
    );

    // Before login the approved tool is listed, and a call says what to log in for.
    let ask = |method: &str, params: &str| {
        let call = Call::new("POST", &up.mcp())
            .header("content-type", "application/json")
            .body(message(method, params));
        raw(&at, &call.bytes())
    };
    let opened = ask("initialize", "{}");
    assert!(
        opened.status == 200 && opened.head.contains("mcp-session-id: "),
        "{opened:?}"
    );
    let listed = ask("tools/list", "{}");
    assert!(
        listed.body.contains("git_log") && !listed.body.contains("git_show"),
        "{listed:?}"
    );
    let log = r#"{"name":"git_log","arguments":{"repo_path":"acme/web"}}"#;
    let refused = ask("tools/call", log);
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains(r#"scope="git:git_log""#), "{refused:?}");

    // Calls pass as soon as the proxy knows that the server says what was approved.
    while get(&at, "/readyz").body.contains("not known yet") {
        std::thread::sleep(Duration::from_millis(20));
    }

    // What the issuer gives for that scope is enough; a wider one does not reach what was not approved.
    up.capability("alice", "git:git_log");
    up.capability("bob", "git:*");
    let read = |name: String| {
        let text = std::fs::read_to_string(up.dir().join(name)).unwrap();
        text.trim().to_owned()
    };
    let call = |who: &str, params: &str| {
        let (token, key) = (read(format!("{who}.cap")), read(format!("{who}.jwk")));
        let call = Call::mcp(&up.mcp(), &token, &key, &message("tools/call", params));
        raw(&at, &call.bytes())
    };
    let show = r#"{"name":"git_show","arguments":{"repo_path":"acme/web","revision":"HEAD"}}"#;
    let denied = call("bob", show);
    assert!(denied.status == 403 && denied.body.contains("M-44"), "{denied:?}");
    let allowed = call("alice", log);
    assert!(
        allowed.status == 200 && allowed.body.contains("result"),
        "{allowed:?}"
    );
    assert!(succeeds(&accept("git_show", &digest)).contains("2 tools"));
    assert!(succeeds(&pin(&["--check"])).contains("as approved"));
    assert!(proxy.stop());
}
