//! Every command as a person or a script meets it: results, exit codes, and what goes to which stream.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use taper_tests::call::Call;
use taper_tests::{Up, raw, taper, taper_bin, taper_ok, taper_reading};
use tempfile::TempDir;

const LOG: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

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

#[test]
fn keygen() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    for (alg, kty) in [("ed25519", "OKP"), ("p256", "EC")] {
        let file = format!("{alg}.jwk");
        let made = taper(dir, &["keygen", "--alg", alg, "--out", &file]);
        let public: Value = serde_json::from_str(&succeeds(&made)).unwrap();
        assert_eq!((&public["kty"], public.get("d")), (&kty.into(), None));
        assert!(stderr(&made).contains("thumbprint"), "{made:?}");
        let private = std::fs::read_to_string(dir.join(&file)).unwrap();
        let private: Value = serde_json::from_str(&private).unwrap();
        assert_eq!(private["x"], public["x"]);
        assert!(private["d"].is_string());
        let mode = std::fs::metadata(dir.join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = taper(dir, &["keygen", "--out", &file]);
        ends(&again, 1, &[&file, "next: "]);
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(dir.join(&file)).unwrap()).unwrap();
        assert_eq!(kept, private, "the key was overwritten");
    }
    let made = json(&taper(dir, &["keygen", "--out", "json.jwk", "--format", "json"]));
    assert!(
        made["jwk"]["x"].is_string() && made["thumbprint"].is_string() && made["file"].is_string(),
        "{made}"
    );
    let lost = json_failure(
        &taper(
            dir,
            &["keygen", "--out", "no/such/folder.jwk", "--format", "json"],
        ),
        1,
    );
    assert_eq!(lost["kind"], "failure");
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
fn a_key_that_others_may_read_is_refused() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let key = up.dir().join("alice.jwk");
    let narrow = [
        "narrow",
        "alice.cap",
        "--key",
        "alice.jwk",
        "--tool",
        "git:git_log",
    ];
    succeeds(&taper(up.dir(), &narrow));
    for mode in [0o640, 0o604, 0o666] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        ends(&taper(up.dir(), &narrow), 1, &["alice.jwk", "chmod 600"]);
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    succeeds(&taper(up.dir(), &narrow));
}

#[test]
fn commands_compose_through_pipes() {
    let up = Up::start();
    let dir = up.dir();
    let issuer = up.issuer();
    for name in ["alice", "bob", "carol"] {
        up.keygen(name);
    }
    let token = taper(
        dir,
        &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
    );
    let exchange = [
        "exchange",
        "--issuer",
        &issuer,
        "--client-id",
        "dev",
        "--subject-token",
        "-",
        "--key",
        "alice.jwk",
        "--scope",
        "git:*",
    ];
    let top = taper_reading(dir, &exchange, &token.stdout);
    succeeds(&top);
    let narrowed = taper_reading(
        dir,
        &["narrow", "--key", "alice.jwk", "--repo", "acme/*", "--for", "30m"],
        &top.stdout,
    );
    succeeds(&narrowed);
    let to_bob = [
        "delegate",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
        "--tool",
        "git:git_log",
        "--repo",
        "acme/web",
        "--for",
        "10m",
        "--note",
        "for\u{1b}[2Jbob",
    ];
    let bob = taper_reading(dir, &to_bob, &narrowed.stdout);
    succeeds(&bob);
    let carols = std::fs::read_to_string(dir.join("carol.pub.jwk")).unwrap();
    let to_carol = [
        "delegate",
        "-",
        "--key",
        "bob.jwk",
        "--to",
        &carols,
        "--until",
        "2126-01-01T00:00:00Z",
        "--max-depth",
        "2",
    ];
    let carol = taper_reading(dir, &to_carol, &bob.stdout);
    succeeds(&carol);

    let shown = succeeds(&taper_reading(dir, &["inspect"], &carol.stdout));
    assert!(shown.starts_with("UNVERIFIED"), "{shown}");
    assert_eq!(shown.matches("hand-over").count(), 2, "{shown}");
    assert!(
        shown.contains("narrowing") && shown.contains("acme/web") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let verified = succeeds(&taper_reading(
        dir,
        &["verify", "--issuer", &issuer],
        &carol.stdout,
    ));
    assert!(verified.starts_with("verified"), "{verified}");
    let call = [
        "call",
        "--url",
        &up.mcp(),
        "--token",
        "-",
        "--key",
        "carol.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    let called = succeeds(&taper_reading(dir, &call, &carol.stdout));
    assert!(called.contains("Author: "), "{called}");

    // The wrong thing in a pipe is named, and nothing comes out at the other end.
    ends(
        &taper_reading(dir, &["inspect"], b"no token"),
        1,
        &["holds no capability"],
    );
    ends(
        &taper_reading(dir, &["narrow", "--key", "alice.jwk"], b""),
        1,
        &["holds no capability"],
    );
    ends(&taper_reading(dir, &["inspect"], &[0xff, 0xfe]), 1, &["UTF-8"]);
    ends(
        &taper_reading(dir, &["inspect"], &vec![b'A'; 2 * 1024 * 1024]),
        1,
        &["larger"],
    );
    ends(
        &taper_reading(
            dir,
            &["delegate", "-", "--to", "-", "--key", "alice.jwk", "--for", "1m"],
            &top.stdout,
        ),
        64,
        &["stdin"],
    );
    // Somebody else's key cannot hand on, and a third hand-over is one too many.
    let by_stranger = [
        "delegate",
        "-",
        "--key",
        "alice.jwk",
        "--to",
        &carols,
        "--for",
        "1m",
    ];
    ends(&taper_reading(dir, &by_stranger, &carol.stdout), 1, &[]);
    let once_more = [
        "delegate",
        "-",
        "--key",
        "carol.jwk",
        "--to",
        "bob.pub.jwk",
        "--for",
        "1m",
    ];
    ends(&taper_reading(dir, &once_more, &carol.stdout), 1, &[]);
}

#[test]
fn verify_denies_what_the_issuer_did_not_sign() {
    let (up, other) = (Up::start(), Up::start());
    up.capability("alice", "git:git_log");
    succeeds(&taper(
        up.dir(),
        &["verify", "alice.cap", "--issuer", &up.issuer()],
    ));
    let keys = format!("{}/.well-known/jwks.json", up.issuer());
    succeeds(&taper(
        up.dir(),
        &["verify", "alice.cap", "--issuer", &up.issuer(), "--jwks", &keys],
    ));
    ends(
        &taper(up.dir(), &["verify", "alice.cap", "--issuer", &other.issuer()]),
        2,
        &["rule P-"],
    );
    let keys = format!("{}/.well-known/jwks.json", other.issuer());
    ends(
        &taper(
            up.dir(),
            &["verify", "alice.cap", "--issuer", &up.issuer(), "--jwks", &keys],
        ),
        2,
        &["rule P-"],
    );
    let cap = std::fs::read_to_string(up.dir().join("alice.cap")).unwrap();
    let (head, tail) = cap.split_at(200);
    let changed = format!(
        "{head}{}{}",
        if tail.starts_with('A') { 'B' } else { 'A' },
        &tail[1..]
    );
    let output = taper_reading(
        up.dir(),
        &["verify", "--issuer", &up.issuer()],
        changed.as_bytes(),
    );
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn call_and_revoke() {
    let up = Up::start();
    up.capability("alice", "git:git_log");
    let (mcp, issuer) = (up.mcp(), up.issuer());
    let call = |words: &[&str]| {
        let first = [
            "call",
            "--url",
            &mcp,
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
        ];
        taper(up.dir(), &[&first[..], words].concat())
    };
    for era in ["modern", "legacy"] {
        assert!(
            succeeds(&call(&[
                "--era",
                era,
                "git_log",
                "repo_path=acme/web",
                "max_count=1"
            ]))
            .contains("Author: ")
        );
        assert_eq!(succeeds(&call(&["--era", era, "--list"])).lines().count(), 1);
    }
    let object = r#"{"repo_path":"acme/web"}"#;
    assert!(json(&call(&["git_log", "--args", object, "--format", "json"]))["content"].is_array());

    // Denied: the grant could be wider, or a caveat says no.
    let show = ["git_show", "repo_path=acme/web", "revision=HEAD"];
    ends(&call(&show), 2, &["next: "]);
    let failure = json_failure(&call(&[&show[..], &["--format", "json"]].concat()), 2);
    assert_eq!(
        (&failure["kind"], &failure["status"]),
        (&"denied".into(), &403.into()),
        "{failure}"
    );
    taper_ok(
        up.dir(),
        &[
            "narrow",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--repo",
            "acme/web",
            "--out",
            "web.cap",
        ],
    );
    let payroll = [
        "call",
        "--url",
        &mcp,
        "--token",
        "web.cap",
        "--key",
        "alice.jwk",
        "--format",
        "json",
        "git_log",
        "repo_path=acme/payroll",
    ];
    let failure = json_failure(&taper(up.dir(), &payroll), 2);
    assert_eq!(failure["code"], 4403);
    assert!(
        failure["data"]["caveat"].is_object() && failure["data"]["rule"] == "R-22",
        "{failure}"
    );
    ends(
        &taper(
            up.dir(),
            &payroll[..7]
                .iter()
                .chain(&payroll[9..])
                .copied()
                .collect::<Vec<_>>(),
        ),
        2,
        &["caveat: "],
    );

    // Neither denied nor done.
    ends(&call(&["git_log", "repo_path"]), 64, &["name=value"]);
    ends(&call(&["git_log", "--args", "[]"]), 64, &["--args"]);
    let nobody = [
        "call",
        "--url",
        "http://127.0.0.1:9/git/mcp",
        "--token",
        "alice.cap",
        "--key",
        "alice.jwk",
        "git_log",
    ];
    ends(&taper(up.dir(), &nobody), 1, &[]);
    up.keygen("bob");
    let thief = [
        "call",
        "--url",
        &mcp,
        "--token",
        "alice.cap",
        "--key",
        "bob.jwk",
        "git_log",
    ];
    ends(&taper(up.dir(), &thief), 1, &["next: "]);
    let failed = call(&["git_log", "repo_path=acme/none"]);
    assert_eq!(
        failed.status.code(),
        Some(1),
        "the tool reports an error: {failed:?}"
    );

    // Taken back by its holder.
    let revoke = [
        "revoke",
        "--issuer",
        &issuer,
        "--client-id",
        "dev",
        "--token",
        "alice.cap",
        "--key",
    ];
    ends(
        &taper(up.dir(), &[&revoke[..], &["bob.jwk"]].concat()),
        1,
        &["is held by the key"],
    );
    assert_eq!(
        json(&taper(
            up.dir(),
            &[&revoke[..], &["alice.jwk", "--format", "json"]].concat()
        ))["revoked"],
        true
    );
    let refused = (0..200)
        .map(|_| call(&["git_log", "repo_path=acme/web"]))
        .find(|output| !output.status.success());
    ends(&refused.expect("it is never refused"), 2, &["M-12"]);

    // And by an admin.
    up.capability("carol", "git:git_log");
    let admin = up.process.text("/admin");
    let token_file = up.process.text("/admin_token_file");
    let cap = succeeds(&taper(up.dir(), &["inspect", "carol.cap", "--format", "json"]));
    let cap: Value = serde_json::from_str(&cap).unwrap();
    let by_admin = ["revoke", "--admin-url", &admin, "--admin-token-file", &token_file];
    ends(
        &taper(
            up.dir(),
            &[&by_admin[..], &["--grant", "AAAAAAAAAAAAAAAAAAAAAA"]].concat(),
        ),
        2,
        &["no such grant"],
    );
    succeeds(&taper(
        up.dir(),
        &[&by_admin[..], &["--grant", cap["grant"].as_str().unwrap()]].concat(),
    ));
    succeeds(&taper(
        up.dir(),
        &[
            &by_admin[..],
            &["--holder", cap["links"][0]["holder"].as_str().unwrap()],
        ]
        .concat(),
    ));
    let words = [
        "call",
        "--url",
        &mcp,
        "--token",
        "carol.cap",
        "--key",
        "carol.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    let refused = (0..200)
        .map(|_| taper(up.dir(), &words))
        .find(|output| !output.status.success());
    ends(&refused.expect("it is never refused"), 2, &["M-12"]);
}

/// The journal files below a folder.
fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(journal_files(&path));
        } else if path.components().any(|part| part.as_os_str() == "journal")
            || path.to_string_lossy().contains("journal")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn audit() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let call = [
        "call",
        "--url",
        &up.mcp(),
        "--token",
        "alice.cap",
        "--key",
        "alice.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    taper_ok(up.dir(), &call);
    let Up { process, folder } = up;
    assert!(process.stop());
    let dir = folder.path();
    let verified = taper_ok(dir, &["audit", "verify", "--dir", "up"]);
    assert_eq!(verified.matches("intact ").count(), 2, "{verified}");
    let report = json(&taper(
        dir,
        &["audit", "verify", "--dir", "up", "--format", "json"],
    ));
    assert_eq!(
        (&report["ok"], report["journals"].as_array().unwrap().len()),
        (&true.into(), 2)
    );

    let shown = taper_ok(dir, &["audit", "show", "--dir", "up"]);
    for told in [
        "issuer started",
        "proxy started",
        "grant ",
        " to alice ",
        "allowed git tools/call git_log repo=acme/web",
    ] {
        assert!(shown.contains(told), "{told} is not in {shown}");
    }
    for command in ["show", "export"] {
        let lines = succeeds(&taper(
            dir,
            &["audit", command, "--dir", "up", "--format", "json"],
        ));
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: u64 = report["journals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|journal| journal["records"].as_u64().unwrap())
            .sum();
        assert_eq!(lines.len() as u64, told, "{command}");
    }
    for text in [
        &shown,
        &succeeds(&taper(dir, &["audit", "export", "--dir", "up"])),
    ] {
        let token = std::fs::read_to_string(dir.join("alice.cap")).unwrap();
        assert!(
            !text.contains(&token[token.len() - 60..].trim()),
            "the journal holds the token"
        );
    }

    // Every journal file, one bit changed in a copy: found, in whatever file it is.
    let files = journal_files(&dir.join("up"));
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let intact = std::fs::read(&file).unwrap();
        if intact.is_empty() {
            continue;
        }
        let copy = dir.join("copy");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(dir.join("up"))
            .arg(&copy)
            .status()
            .unwrap();
        assert!(copied.success());
        let target = copy.join(file.strip_prefix(dir.join("up")).unwrap());
        let mut damaged = intact.clone();
        // Zeros may be the padding of a file that is overwritten in place.
        let bytes: Vec<_> = (0..damaged.len()).filter(|&at| damaged[at] != 0).collect();
        damaged[bytes[bytes.len() / 2]] ^= 1;
        std::fs::write(&target, damaged).unwrap();
        let output = taper(dir, &["audit", "verify", "--dir", "copy"]);
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", file.display());
        assert!(!stderr(&output).contains("panicked"), "{output:?}");
        let found = format!("{}{}", stdout(&output), stderr(&output));
        assert!(
            found.contains("DAMAGED") || found.contains("unreadable"),
            "{}: {found}",
            file.display()
        );
        let report = taper(dir, &["audit", "verify", "--dir", "copy", "--format", "json"]);
        assert_eq!(
            serde_json::from_str::<Value>(&stdout(&report)).unwrap()["ok"],
            false
        );
        std::fs::write(&target, &intact).unwrap();
        taper_ok(dir, &["audit", "verify", "--dir", "copy"]);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    std::fs::create_dir(dir.join("empty")).unwrap();
    ends(
        &taper(dir, &["audit", "verify", "--dir", "empty"]),
        1,
        &["no journal"],
    );
    ends(
        &taper(dir, &["audit", "show", "--dir", "nowhere"]),
        1,
        &["nowhere"],
    );
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
        &["audit", "verify"],
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
