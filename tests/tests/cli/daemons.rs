//! `taper issuer`, `taper proxy` and `taper up`.

use std::process::Command;

use taper_tests::call::Call;
use taper_tests::{Up, raw, taper, taper_bin, taper_ok};
use tempfile::TempDir;

use super::{ends, succeeds};

const LOG: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

#[test]
fn an_invalid_configuration_is_3() {
    let up = Up::start();
    let Up { process, folder } = up;
    assert!(process.stop());
    let state = |daemon: &str| folder.path().join("up").join(daemon).join("state");
    let check = |daemon: &str, from: &str, to: &str, says: &[&str]| {
        let dir = folder.path().join("up").join(daemon);
        let good = std::fs::read_to_string(dir.join(format!("{daemon}.toml"))).unwrap();
        assert!(good.contains(from), "{from} is not in {good}");
        std::fs::write(dir.join("changed.toml"), good.replacen(from, to, 1)).unwrap();
        let before = std::fs::read_dir(state(daemon)).unwrap().count();
        for options in [&["--check-config"][..], &[]] {
            let output = taper(&dir, &[&[daemon, "--config", "changed.toml"], options].concat());
            ends(&output, 3, says);
        }
        assert_eq!(std::fs::read_dir(state(daemon)).unwrap().count(), before);
        let good = taper(
            &dir,
            &[daemon, "--config", &format!("{daemon}.toml"), "--check-config"],
        );
        assert!(succeeds(&good).contains("valid"), "{good:?}");
    };
    check("issuer", "listen =", "lissten =", &["lissten", "listen"]);
    check("issuer", "issuer =", "issuer = 7 #", &[]);
    check(
        "issuer",
        "development = true",
        "development = false",
        &["development"],
    );
    check(
        "issuer",
        "policies = [\"grant.dl\"]",
        "policies = [\"none.dl\"]",
        &["none.dl"],
    );
    check("issuer", "root-1.jwk", "none.jwk", &["none.jwk"]);
    check(
        "issuer",
        "policies = [\"grant.dl\"]",
        "policies = [\"issuer.toml\"]",
        &["issuer.toml"],
    );
    check(
        "proxy",
        "public_url =",
        "publicurl =",
        &["publicurl", "public_url"],
    );
    check(
        "proxy",
        "policies = [\"boundary.dl\"]",
        "policies = [\"none.dl\"]",
        &["none.dl"],
    );
    check(
        "proxy",
        "policies = [\"boundary.dl\"]",
        "policies = [\"proxy.toml\"]",
        &["proxy.toml"],
    );
    check(
        "proxy",
        "allow_loopback_http = true",
        "allow_loopback_http = false",
        &[],
    );
    check("proxy", "[servers.git]", "[servers.GIT]", &["GIT"]);
    check("proxy", "{repo_path}", "{repo_path", &[]);
    ends(
        &taper(folder.path(), &["proxy", "--config", "nowhere.toml"]),
        3,
        &["nowhere.toml"],
    );
    ends(
        &taper(
            folder.path(),
            &["issuer", "--config", "nowhere.toml", "--check-config"],
        ),
        3,
        &["nowhere.toml"],
    );
}

#[test]
fn up_comes_back_as_it_was() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let dir = up.dir().to_owned();
    let ready = up.process.ready.clone();
    let mcp = up.mcp();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    let call = Call::mcp(&mcp, &read("alice.cap"), &read("alice.jwk"), LOG);
    let request = call.bytes();
    assert_eq!(raw(&mcp, &request).status, 200);

    // A second one in the same folder.
    let second = taper(&dir, &["up", "--dir", "up", "--format", "json"]);
    ends(&second, 1, &["another --dir"]);
    assert_eq!(raw(&mcp, &call.bytes()).status, 200, "the first goes on");

    // Once as it should end, once as it should not.
    let Up { process, folder } = up;
    assert!(process.stop());
    let process = Up::start_in(folder.path());
    assert_eq!(process.ready, ready);
    let refused = raw(&mcp, &request);
    assert_eq!(refused.status, 401, "a replay from before: {refused:?}");
    assert!(
        refused.head.contains("R-13") || refused.head.contains("use_dpop_nonce"),
        "{refused:?}"
    );
    let words = [
        "call",
        "--url",
        &mcp,
        "--token",
        "alice.cap",
        "--key",
        "alice.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    taper_ok(&dir, &words);
    let before_crash = call.bytes();
    let answer = raw(&mcp, &before_crash);
    // Right after a start a proof may have to carry a nonce.
    assert!(
        answer.status == 200 || answer.head.contains("use_dpop_nonce"),
        "{answer:?}"
    );
    let log = process.crash();
    assert!(!log.contains("panicked"), "{log}");

    let process = Up::start_in(folder.path());
    assert_eq!(process.ready, ready);
    for request in [&request, &before_crash] {
        let refused = raw(&mcp, request);
        assert_eq!(refused.status, 401, "{refused:?}");
    }
    taper_ok(&dir, &words);
    assert!(process.stop());
    taper_ok(&dir, &["audit", "verify", "--dir", "up"]);
}

#[test]
fn up_in_words_tells_what_to_type() {
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(taper_bin())
        .current_dir(folder.path())
        .args(["up", "--dir", "up"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    while !text.contains("Ctrl-C") {
        assert_ne!(
            std::io::BufRead::read_line(&mut stdout, &mut text).unwrap(),
            0,
            "{text}"
        );
    }
    for word in [
        "taper exchange",
        "taper delegate",
        "taper call",
        "taper revoke",
        "curl",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
