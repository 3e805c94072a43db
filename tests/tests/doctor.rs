//! `taper doctor` finds exactly what a test breaks, and `taper agent` signs for processes that have no
//! key: the program itself, over one `taper up`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rand_core::OsRng;
use serde_json::Value;
use taper_capability::{Delegation, Token};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::now;
use taper_tests::daemon::{free_port, write_private};
use taper_tests::{Running, Up, taper, taper_bin, taper_ok};

/// What `taper doctor` said: its exit code, and each check with its verdict and what to do next.
struct Said {
    code: Option<i32>,
    checks: Vec<(String, String, String)>,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let said: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
        let check = |check: &Value| {
            let told = format!("{} {}", text(check, "what"), text(check, "next"));
            (text(check, "check"), text(check, "verdict"), told)
        };
        Self {
            code: output.status.code(),
            checks: said["checks"].as_array().unwrap().iter().map(check).collect(),
        }
    }

    /// The checks with this verdict.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let fits = self.checks.iter().filter(|(_, is, _)| is == verdict);
        fits.map(|(check, _, _)| check.as_str()).collect()
    }

    fn told(&self, check: &str) -> &str {
        let found = self.checks.iter().find(|(name, _, _)| name == check);
        &found.expect(check).2
    }
}

fn doctor(up: &Up, words: &[&str]) -> Said {
    Said::of(&taper(
        up.dir(),
        &[&["doctor", "--format", "json"], words].concat(),
    ))
}

#[test]
fn each_thing_that_is_broken_is_found_and_nothing_else() {
    let up = Up::start();
    up.capability("a", "git:*");
    let (issuer, url) = (up.issuer(), up.mcp());
    let usual = ["--token", "a.cap", "--key", "a.jwk", "--url", &url];
    let well = doctor(
        &up,
        &[&usual[..], &["--client-id", "dev", "--issuer", &issuer]].concat(),
    );
    assert_eq!(
        (well.code, well.with("ok").len()),
        (Some(0), well.checks.len()),
        "{:?}",
        well.checks
    );

    // What a check needs that failed, is skipped or fails with it.
    let check = |words: &[&str], fails: &[&str], check: &str, part: &str| {
        let said = doctor(&up, words);
        assert_eq!(
            (said.code, said.with("fail")),
            (Some(1), fails.to_vec()),
            "{:?}",
            said.checks
        );
        assert!(said.told(check).contains(part), "{}", said.told(check));
    };
    let with = |name: &str, value: &str| -> Vec<String> {
        let mut words = usual.map(str::to_owned).to_vec();
        match words.iter().position(|word| word == name) {
            Some(at) => words[at + 1] = value.to_owned(),
            None => words.extend([name.to_owned(), value.to_owned()]),
        }
        words
    };
    let broken = |name: &str, value: &str, fails: &[&str], at: &str, part: &str| {
        let words = with(name, value);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        check(&words, fails, at, part);
    };

    up.keygen("other");
    broken(
        "--key",
        "other.jwk",
        &["holder", "call"],
        "holder",
        "taper exchange",
    );
    broken(
        "--key",
        "absent.jwk",
        &["key"],
        "key",
        "taper keygen --out absent.jwk",
    );
    broken("--key", "agent:", &["key"], "key", "TAPER_AGENT_SOCK");
    broken(
        "--token",
        "absent.cap",
        &["capability"],
        "capability",
        "taper exchange",
    );
    broken(
        "--client-id",
        "someone",
        &["client"],
        "client",
        "granted to the client dev",
    );
    std::fs::copy(up.dir().join("a.jwk"), up.dir().join("open.jwk")).unwrap();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(up.dir().join("open.jwk"), open.clone()).unwrap();
    broken("--key", "open.jwk", &["key"], "key", "chmod 600 open.jwk");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    broken(
        "--issuer",
        &nobody,
        &["capability-issuer", "issuer"],
        "issuer",
        "does not answer",
    );
    let elsewhere = format!("{nobody}/git/mcp");
    broken(
        "--url",
        &elsewhere,
        &["audience", "proxy"],
        "proxy",
        "has no metadata",
    );
    let absent = url.replace("/git/", "/absent/");
    broken("--url", &absent, &["audience", "proxy"], "audience", &url);

    // One that ends soon, and one that has ended.
    let key = std::fs::read_to_string(up.dir().join("a.jwk")).unwrap();
    let key = PrivateKey::from_jwk_str(key.trim()).unwrap();
    let text = std::fs::read_to_string(up.dir().join("a.cap")).unwrap();
    let token = Token::parse(text.trim()).unwrap();
    let child = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
    write_private(&up.dir().join("child.jwk"), &child.to_jwk_string());
    for (name, left) in [("soon", 50), ("ended", 0)] {
        let handed = Delegation::to(child.public()).until(now() + left);
        let handed = handed.sign(&token, &key, &mut OsRng).unwrap();
        write_private(&up.dir().join(format!("{name}.cap")), handed.as_str());
    }
    let of_child = ["--key", "child.jwk", "--url", &url, "--token"];
    let soon = doctor(&up, &[&of_child[..], &["soon.cap"]].concat());
    assert_eq!(
        (soon.code, soon.with("warn")),
        (Some(0), vec!["expiry"]),
        "{:?}",
        soon.checks
    );
    check(
        &[&of_child[..], &["ended.cap"]].concat(),
        &["expiry", "call"],
        "expiry",
        "ask its delegator",
    );

    // The file may be read by others; what it says is right.
    std::fs::set_permissions(up.dir().join("a.cap"), open).unwrap();
    let open = doctor(&up, &usual);
    assert_eq!(
        (open.code, open.with("warn")),
        (Some(0), vec!["file-mode"]),
        "{:?}",
        open.checks
    );
    assert!(open.told("file-mode").contains("chmod 600 a.cap"));

    // From the environment, as in a container.
    let mut command = Command::new(taper_bin());
    command
        .current_dir(up.dir())
        .args(["doctor", "--format", "json"])
        .envs([
            ("TAPER_TOKEN", "a.cap"),
            ("TAPER_URL", &url),
            ("TAPER_KEY_FILE", "env:"),
        ])
        .env("TAPER_KEY", key.to_jwk_string().as_str());
    let of_environment = Said::of(&command.output().unwrap());
    assert_eq!(
        of_environment.with("fail"),
        Vec::<&str>::new(),
        "{:?}",
        of_environment.checks
    );
    assert!(of_environment.with("ok").contains(&"call"));

    // Revoked, which only the proxy knows.
    let revoke = [
        "revoke",
        "--issuer",
        &issuer,
        "--token",
        "a.cap",
        "--key",
        "a.jwk",
        "--client-id",
        "dev",
    ];
    taper_ok(up.dir(), &revoke);
    // The proxy learns of it within milliseconds.
    let refused = (0..100).find_map(|_| {
        let said = doctor(&up, &usual);
        (said.code == Some(1)).then_some(said)
    });
    let refused = refused.expect("the proxy learns of the revocation");
    assert_eq!(refused.with("fail"), ["call"]);
    assert!(
        refused.told("call").contains("[rule M-12]"),
        "{}",
        refused.told("call")
    );
    assert!(refused.told("call").contains("taper exchange"));

    agents(&up);
}

/// Runs with the environment of an agent.
fn with_agent(dir: &Path, socket: &str, words: &[&str]) -> Output {
    Command::new(taper_bin())
        .current_dir(dir)
        .args(words)
        .env("TAPER_AGENT_SOCK", socket)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn agents(up: &Up) {
    up.capability("b", "git:*");
    up.keygen("child2");
    let dir = up.dir();
    let bin = taper_bin();
    let bin = bin.to_str().unwrap();
    let text = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };

    // For one command, which has neither the key nor its name.
    let call = [
        bin,
        "call",
        "--url",
        &up.mcp(),
        "--token",
        "b.cap",
        "git_log",
        "repo_path=acme/web",
    ];
    let called = taper(dir, &[&["agent", "--key", "b.jwk", "--"], &call[..]].concat());
    assert!(
        called.status.success() && text(&called).contains("commit"),
        "{}",
        text(&called)
    );
    let shell = ["agent", "--key", "b.jwk", "--", "sh", "-c", "exit 7"];
    assert_eq!(taper(dir, &shell).status.code(), Some(7));
    let killed = ["agent", "--key", "b.jwk", "--", "sh", "-c", "kill -TERM $$"];
    assert_eq!(taper(dir, &killed).status.code(), Some(128 + 15));
    // SIGTERM is passed on, and the command has its say.
    let trap = "trap 'echo bye; exit 7' TERM; kill -TERM $PPID; while :; do :; done";
    let told = taper(dir, &["agent", "--key", "b.jwk", "--", "sh", "-c", trap]);
    assert_eq!(
        (told.status.code(), text(&told).contains("bye")),
        (Some(7), true),
        "{}",
        text(&told)
    );
    secrets_stay(dir);
    let left = taper(
        dir,
        &[
            "agent",
            "--key",
            "b.jwk",
            "--",
            "sh",
            "-c",
            "echo $TAPER_AGENT_SOCK",
        ],
    );
    let left = text(&left).lines().next().unwrap().to_owned();
    assert!(left.contains("agent.sock"), "{left}");
    assert!(!Path::new(&left).exists() && !Path::new(&left).parent().unwrap().exists());

    // For many, until it is stopped.
    let mut command = Command::new(bin);
    command
        .current_dir(dir)
        .args(["agent", "--key", "b.jwk", "--format", "json"]);
    let agent = Running::start(&mut command);
    let socket = agent.text("/socket");
    let keys = with_agent(dir, &socket, &["agent", "list", "--format", "json"]);
    let keys: Value = serde_json::from_slice(&keys.stdout).unwrap();
    assert_eq!(keys["keys"][0]["thumbprint"], agent.text("/keys/0/thumbprint"));
    let narrow = [
        "narrow",
        "b.cap",
        "--key",
        "agent:",
        "--tool",
        "git:git_log",
        "--out",
        "narrow.cap",
    ];
    let narrowed = with_agent(dir, &socket, &narrow);
    assert!(narrowed.status.success(), "{}", text(&narrowed));
    let hand_on = [
        "delegate",
        "b.cap",
        "--key",
        "agent:",
        "--to",
        "child2.pub.jwk",
        "--for",
        "5m",
        "--out",
        "d.cap",
    ];
    let refused = with_agent(dir, &socket, &hand_on);
    assert!(
        !refused.status.success() && text(&refused).contains("--delegate"),
        "{}",
        text(&refused)
    );
    // What is there is not widened by adding it again.
    let again = with_agent(dir, &socket, &["agent", "add", "b.jwk", "--delegate"]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(!with_agent(dir, &socket, &hand_on).status.success());
    let key = agent.text("/keys/0/thumbprint");
    for words in [
        &["agent", "remove", &key][..],
        &["agent", "add", "b.jwk", "--delegate"],
    ] {
        let done = with_agent(dir, &socket, words);
        assert!(done.status.success(), "{}", text(&done));
    }
    let handed = with_agent(dir, &socket, &hand_on);
    assert!(handed.status.success(), "{}", text(&handed));
    for (cap, key) in [("narrow.cap", "b.jwk"), ("d.cap", "child2.jwk")] {
        let words = [
            "call",
            "--url",
            &up.mcp(),
            "--token",
            cap,
            "--key",
            key,
            "git_log",
            "repo_path=acme/web",
        ];
        let called = taper(dir, &words);
        assert!(called.status.success(), "{cap}: {}", text(&called));
    }
    let locked = with_agent(dir, &socket, &["agent", "lock"]);
    assert!(text(&locked).contains("forgot 1 key"), "{}", text(&locked));
    assert!(!with_agent(dir, &socket, &narrow).status.success());
    assert!(agent.stop());
    assert!(!Path::new(&socket).exists());
}

/// A secret where the name of its file belongs is not repeated, and no token takes a key's place.
fn secrets_stay(dir: &Path) {
    let key = std::fs::read_to_string(dir.join("b.jwk")).unwrap();
    let jwk: Value = serde_json::from_str(&key).unwrap();
    let secret = jwk["d"].as_str().unwrap();
    let jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
    let url = "http://127.0.0.1:1/git/mcp";
    let exchange = [
        "exchange",
        "--issuer",
        url,
        "--client-id",
        "c",
        "--scope",
        "git:*",
    ];
    let run = |words: &[&str], variable: (&str, &str)| {
        let mut command = Command::new(taper_bin());
        let output = command
            .current_dir(dir)
            .args(words)
            .env(variable.0, variable.1)
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{words:?}");
        assert!(!said.contains(secret) && !said.contains(jwt), "{words:?}: {said}");
        said
    };
    let key = key.trim();
    let as_key = ("TAPER_KEY_FILE", key);
    let none = ("TAPER_NONE", "");
    for words in [
        &["call", "--url", url, "--token", "b.cap", "--list"][..],
        &["narrow", "b.cap"],
        &["doctor"],
    ] {
        assert!(run(words, as_key).contains("this is a key"), "{words:?}");
        let typed = [words, &["--key", key]].concat();
        assert!(run(&typed, none).contains("this is a key"), "{words:?}");
    }
    run(
        &["call", "--url", url, "--key", "b.jwk", "--list"],
        ("TAPER_TOKEN", jwt),
    );
    run(&["doctor"], ("TAPER_TOKEN", jwt));
    let with_key = [&exchange[..], &["--key", "b.jwk"]].concat();
    run(&with_key, ("TAPER_SUBJECT_TOKEN_FILE", jwt));
    let subject = [&with_key[..], &["--subject-token", "access-token"]].concat();
    run(&subject, ("TAPER_CLIENT_SECRET_FILE", jwt));
    let over = [
        "narrow",
        "b.cap",
        "--key",
        "b.jwk",
        "--tool",
        "git:git_log",
        "--out",
        "b.jwk",
    ];
    assert!(run(&over, none).contains("private key"));
    assert_eq!(std::fs::read_to_string(dir.join("b.jwk")).unwrap().trim(), key);
}
