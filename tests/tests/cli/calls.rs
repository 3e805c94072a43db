//! `taper call` and `taper revoke`.

use serde_json::Value;
use taper_tests::{Up, taper, taper_ok};

use super::{ends, json, json_failure, succeeds};

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

/// Calls under a max-calls caveat: counted for all who hold it, through a crash, and told by the journal.
#[test]
fn counted_calls() {
    let up = Up::start();
    up.capability("alice", "git:*");
    up.keygen("bob");
    let narrow = ["narrow", "alice.cap", "--key", "alice.jwk", "--out", "three.cap"];
    let caveat = r#"{"max_calls":{"counter":"c1","calls":3}}"#;
    taper_ok(up.dir(), &[&narrow[..], &["--caveat", caveat]].concat());
    let delegate = [
        "delegate",
        "three.cap",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
        "--for",
        "10m",
        "--out",
        "one.cap",
    ];
    taper_ok(up.dir(), &[&delegate[..], &["--max-calls", "1"]].concat());
    let call = |up: &Up, cap: &str, key: &str, words: &[&str]| {
        let first = ["call", "--url", &up.mcp(), "--token", cap, "--key", key];
        taper(up.dir(), &[&first[..], words].concat())
    };
    let log = ["git_log", "repo_path=acme/web"];
    let denied_by = |output: &std::process::Output| {
        let failure = json_failure(output, 2);
        assert_eq!(failure["data"]["rule"], "R-22", "{failure}");
        failure["data"]["caveat"]["max_calls"]["calls"].clone()
    };
    let told = [&log[..], &["--format", "json"]].concat();

    succeeds(&call(&up, "one.cap", "bob.jwk", &log));
    assert_eq!(denied_by(&call(&up, "one.cap", "bob.jwk", &told)), 1);
    succeeds(&call(&up, "three.cap", "alice.jwk", &log));
    // What is only shown or asked about is not counted.
    succeeds(&call(&up, "three.cap", "alice.jwk", &["--list"]));

    let Up { process, folder } = up;
    process.crash();
    let up = Up {
        process: Up::start_in(folder.path()),
        folder,
    };
    assert_eq!(denied_by(&call(&up, "one.cap", "bob.jwk", &told)), 1);
    succeeds(&call(&up, "three.cap", "alice.jwk", &log));
    let last = call(&up, "three.cap", "alice.jwk", &log);
    ends(&last, 2, &["caveat: ", "max_calls"]);
    assert_eq!(denied_by(&call(&up, "three.cap", "alice.jwk", &told)), 3);
    succeeds(&call(&up, "alice.cap", "alice.jwk", &log));

    let Up { process, folder } = up;
    assert!(process.stop());
    taper_ok(folder.path(), &["audit", "verify", "--dir", "up"]);
    let shown = taper_ok(
        folder.path(),
        &["audit", "show", "--dir", "up", "--format", "json"],
    );
    let counted: Vec<usize> = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| line.pointer("/record/counted").cloned())
        .map(|counted| counted.as_array().unwrap().len())
        .collect();
    assert_eq!(counted, [2, 1, 1], "bob's call counts for alice, too: {shown}");
}
