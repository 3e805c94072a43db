//! Resources and prompts: granted by the issuer, handed on, and read through a proxy.

use serde_json::{Value, json};
use taper_tests::call::Call;
use taper_tests::daemon::{self, free_port};
use taper_tests::upstream::Upstream;
use taper_tests::{Running, Up, authority, raw, taper, taper_ok};

use super::{ends, succeeds};

const LOG: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

fn read(uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{"uri":"{uri}"}}}}"#)
}

fn get(prompt: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{{"name":"{prompt}"}}}}"#)
}

/// A second proxy like that of `up`, in front of `upstream`.
fn proxy_before(up: &Up, upstream: &Upstream) -> (Running, String) {
    let url = format!("http://127.0.0.1:{}", free_port());
    let config = std::fs::read_to_string(up.dir().join("up/proxy/proxy.toml")).unwrap();
    let lines = config.lines().map(|line| match line.split(' ').next().unwrap() {
        "listen" => format!("listen = \"{}\"", authority(&url)),
        "state" => "state = \"second-state\"".to_owned(),
        "upstream" => format!("upstream = {{ http = \"{}\" }}", upstream.url),
        _ => line.to_owned(),
    });
    let config = lines.collect::<Vec<_>>().join("\n");
    let config = config
        .replace("\"boundary.dl\"", "\"up/proxy/boundary.dl\"")
        .replace("../feed-secret", "up/feed-secret");
    (daemon::start(up.dir(), "proxy", &config, &url), url)
}

#[test]
fn alice_and_bob_read_what_was_granted_and_nothing_else() {
    let (up, upstream) = (Up::start(), Upstream::start());
    let (proxy, url) = proxy_before(&up, &upstream);
    let web = ["--uri", "git:repo://acme/web/", "--uri", "git:repo://other/"];
    let told = up.obtain("alice", &[&web[..], &["--prompt", "git:review"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    let granted = &told["authorization_details"];
    assert_eq!(granted.as_array().unwrap().len(), 1, "{told}");
    assert_eq!(granted[0]["uris"], json!(["repo://acme/web/"]));
    assert_eq!(granted[0]["prompts"], json!(["review"]));
    assert!(granted[0].get("tools").is_none(), "{told}");
    let shown = succeeds(&taper(up.dir(), &["inspect", "alice.cap"]));
    assert!(
        shown.contains("repo://acme/web/") && shown.contains("review"),
        "{shown}"
    );

    up.keygen("bob");
    let to_bob = [
        "delegate",
        "alice.cap",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
    ];
    taper_ok(
        up.dir(),
        &[&to_bob[..], &["--for", "10m", "--out", "bob.cap"]].concat(),
    );
    let file = |name: &str| {
        let text = std::fs::read_to_string(up.dir().join(name)).unwrap();
        text.trim().to_owned()
    };
    for holder in ["alice", "bob"] {
        let (token, key) = (file(&format!("{holder}.cap")), file(&format!("{holder}.jwk")));
        let check = |message: &str, status: u16| {
            let before = upstream.count();
            let call = Call::mcp(&up.mcp(), &token, &key, message);
            let answer = raw(&url, &call.bytes());
            assert_eq!(answer.status, status, "{holder}: {message}: {}", answer.head);
            let passed = upstream.count() - before;
            assert_eq!(passed, u64::from(status == 200), "{holder}: {message}");
        };
        check(&read("repo://acme/web/README.md"), 200);
        check(&read("repo://acme/web/src/main.rs"), 200);
        check(&get("review"), 200);
        check(&read("repo://acme/payroll/README.md"), 403);
        check(&read("repo://acme/web"), 403);
        check(&read("repo://acme/website/README.md"), 403);
        check(&read("repo://acme/web/../payroll/README.md"), 403);
        check(&read("repo://other/x"), 403);
        check(&get("other"), 403);
        check(LOG, 403);
    }

    // What no policy grants is not granted, and what cannot be meant is not asked for.
    let issuer = up.issuer();
    let exchange = |wanted: &[&str]| {
        let first = [
            "exchange",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--key",
            "alice.jwk",
            "--subject-token",
            "access-token",
        ];
        taper(up.dir(), &[&first[..], wanted].concat())
    };
    succeeds(&exchange(&["--uri", "git:repo://acme/x"]));
    for (wanted, code, says) in [
        (&["--uri", "git:repo://other/"][..], 2, "invalid_scope"),
        (
            &["--uri", "git:repo://acme/../x/"],
            2,
            "invalid_authorization_details",
        ),
        (&["--prompt", "git:a b"], 64, "--prompt"),
        (&["--uri", "git"], 64, "--uri"),
        (&[], 64, "--scope"),
    ] {
        let output = exchange(wanted);
        ends(&output, code, &[says]);
    }
    assert!(proxy.stop());
    assert!(up.process.stop());
}
