//! No secret is ever told: a whole story with everything logged, counted and traced, then a search.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::Value;
use taper_dpop::{base64url_decode, base64url_encode};
use taper_tests::call::Call;
use taper_tests::daemon::{free_port, start, write_private};
use taper_tests::upstream::{RESULT, Reply, Upstream, json};
use taper_tests::{Up, authority, get, taper, taper_ok, taper_reading};

const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// So many characters of a secret in a row are a leak of it.
const WINDOW: usize = 24;

/// Every run of [`WINDOW`] bytes of a log.
struct Search<'a>(HashSet<&'a [u8]>);

impl<'a> Search<'a> {
    fn of(log: &'a str) -> Self {
        Self(log.as_bytes().windows(WINDOW).collect())
    }

    /// Whether the log has a part of `secret`, in any spelling.
    fn finds(&self, secret: &str) -> bool {
        spellings(secret).iter().any(|spelling| {
            assert!(spelling.len() >= WINDOW, "too short to be searched for");
            spelling
                .as_bytes()
                .windows(WINDOW)
                .any(|part| self.0.contains(part))
        })
    }
}

/// A secret in the spellings in which a program may print it.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    let bytes = base64url_decode(secret).unwrap_or_else(|_| secret.as_bytes().to_vec());
    for bytes in [bytes, secret.as_bytes().to_vec()] {
        let mut hex = String::new();
        bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        all.push(hex.to_ascii_uppercase());
        all.push(hex);
        let debug = format!("{bytes:?}");
        all.push(debug.trim_matches(['[', ']']).to_owned());
        let encoded = base64url_encode(&bytes);
        all.push(encoded.replace('-', "+").replace('_', "/"));
        all.push(encoded);
    }
    all
}

/// The secret part of a private JWK.
fn d(jwk: &str) -> String {
    let jwk: Value = serde_json::from_str(jwk).unwrap();
    jwk["d"].as_str().expect("a private key").to_owned()
}

/// Every private JWK below a folder, by file name.
fn private_keys(dir: &std::path::Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            private_keys(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(Value::Object(jwk)) = serde_json::from_str(&text)
            && jwk.contains_key("d")
        {
            found.push((path.display().to_string(), d(&text)));
        }
    }
}

#[test]
fn the_log_has_no_secret() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    let public = taper_ok(dir, &["keygen", "--out", "bob.jwk"]);
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
            "--for",
            "5m",
            "--out",
            "bob.cap",
        ],
    );
    let (alice, bob, access_token) = (read("alice.cap"), read("bob.cap"), read("access-token"));
    let (alice_key, bob_key) = (read("alice.jwk"), read("bob.jwk"));

    // Calls that pass, by both programs and eras.
    let mcp = up.mcp();
    for era in ["modern", "legacy"] {
        taper_ok(
            dir,
            &[
                "call",
                "--url",
                &mcp,
                "--token",
                "bob.cap",
                "--key",
                "bob.jwk",
                "--era",
                era,
                "git_log",
                "repo_path=acme/web",
            ],
        );
    }
    let good = Call::mcp(&mcp, &bob, &bob_key, MESSAGE);
    let proof = good.proof();
    let good = good.proofs(&[&proof]);
    assert_eq!(good.send().status, 200);

    // And those that do not: credentials lie in whatever is wrong.
    assert_eq!(good.send().status, 401, "a replay");
    let show = MESSAGE.replace("git_log", "git_show");
    assert_eq!(Call::mcp(&mcp, &bob, &bob_key, &show).send().status, 403);
    assert_eq!(Call::mcp(&mcp, &bob, &alice_key, MESSAGE).send().status, 401);
    let as_bearer =
        Call::mcp(&mcp, &bob, &bob_key, MESSAGE).instead("authorization", format!("Bearer {bob}"));
    assert_eq!(as_bearer.send().status, 401);
    for target in [
        format!("/git/mcp?access_token={bob}"),
        format!("/{bob}/mcp"),
        format!("/git/mcp/{bob}"),
    ] {
        assert!(
            Call::mcp(&mcp, &bob, &bob_key, MESSAGE)
                .line("POST", &target)
                .send()
                .status
                >= 400
        );
    }
    let as_header = Call::mcp(&mcp, &bob, &bob_key, MESSAGE).header("mcp-session-id", &bob);
    assert_eq!(as_header.send().status, 404);
    let as_argument = MESSAGE.replace("acme/web", &access_token);
    assert!(Call::mcp(&mcp, &alice, &alice_key, &as_argument).send().status > 0);
    assert_eq!(
        Call::mcp(&mcp, &bob, &bob_key, &format!("{MESSAGE}{bob}"))
            .send()
            .status,
        400
    );
    let cut = &access_token[..access_token.len() - 6];
    assert_eq!(Call::mcp(&mcp, cut, &bob_key, MESSAGE).send().status, 401);
    for wrong in [access_token.as_str(), cut, &alice] {
        std::fs::write(dir.join("wrong"), wrong).unwrap();
        let issuer = up.issuer();
        let asked = [
            "exchange",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--key",
            "bob.jwk",
            "--subject-token",
            "wrong",
            "--scope",
            "git:*",
        ];
        assert_eq!(taper(dir, &asked).status.success(), wrong == access_token);
    }
    let admin_token = read("up/admin-token");
    let feed_secret = read("up/feed-secret");
    let admin = up.process.text("/admin");
    let wrong = Call::new("POST", &format!("{admin}/admin/v1/revocations"))
        .header("authorization", format!("Basic {admin_token}"));
    assert_eq!(wrong.send().status, 401);
    let path = Call::new("GET", &format!("{admin}/admin/v1/grants/{admin_token}"))
        .header("authorization", format!("Bearer {admin_token}"));
    assert_eq!(path.send().status, 404);
    let feed = Call::new("GET", &format!("{}/revocations?after={feed_secret}", up.issuer()))
        .header("authorization", format!("Bearer {feed_secret}"));
    assert!(feed.send().status >= 400);
    let chain: Value =
        serde_json::from_str(&taper_ok(dir, &["inspect", "bob.cap", "--format", "json"])).unwrap();
    let grant = chain["grant"].as_str().unwrap();
    taper_ok(
        dir,
        &[
            "revoke",
            "--issuer",
            &up.issuer(),
            "--client-id",
            "dev",
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
        ],
    );
    taper_ok(
        dir,
        &[
            "revoke",
            "--admin-url",
            &admin,
            "--admin-token-file",
            "up/admin-token",
            "--client",
            "nobody",
        ],
    );

    let mut keys = Vec::new();
    private_keys(dir, &mut keys);
    for file in ["alice.jwk", "bob.jwk", "root-1.jwk"] {
        assert!(
            keys.iter().any(|(path, _)| path.ends_with(file)),
            "{file} is not among {keys:?}"
        );
    }
    assert!(
        keys.len() >= 4,
        "the identity provider's key is not among {keys:?}"
    );
    let mut secrets: Vec<(String, String)> = keys;
    for (name, secret) in [
        ("the access token", &access_token),
        ("alice's capability", &alice),
        ("bob's capability", &bob),
        ("the proof", &proof),
        ("the admin token", &admin_token),
        ("the feed secret", &feed_secret),
    ] {
        secrets.push((name.to_owned(), secret.clone()));
    }
    let Up { process, folder } = up;
    let (success, log) = process.stop_for_log();
    assert!(success, "{log}");

    // The log is a log, and the search finds what there is.
    for told in [
        grant,
        "granted",
        "denied",
        "refused",
        "revoked revocation.kind=\"grant\" revocation.seq=1 revocation.by=\"holder ",
        "revocation.by=\"admin\"",
        "DEBUG",
    ] {
        assert!(log.contains(told), "{told} is not in the log:\n{log}");
    }
    let known = &grant.repeat(2);
    assert!(
        Search::of(&log.replace(grant, known)).finds(known),
        "the search does not find what is there"
    );
    for (name, secret) in &secrets {
        for spelling in spellings(secret) {
            let planted = format!("DEBUG planted{} DEBUG", &spelling[spelling.len() - WINDOW..]);
            assert!(
                Search::of(&planted).finds(secret),
                "{name} as {spelling} is not found"
            );
        }
    }
    let search = Search::of(&log);
    let found: Vec<_> = secrets
        .iter()
        .filter(|(_, secret)| search.finds(secret))
        .map(|(name, _)| name)
        .collect();
    assert!(
        found.is_empty(),
        "the log of {} holds {found:?}:\n{log}",
        folder.path().display()
    );
    assert!(!log.contains("panicked"), "{log}");
}

/// What stands for credentials that are somebody else's. Found anywhere, they are a leak.
const CREDENTIAL: &str = "canary-credential-of-the-upstream-93c1";
const API_KEY: &str = "canary-api-key-for-the-upstream-5d27aa";
const SET_COOKIE: &str = "canary-cookie-of-the-upstream-0b8e41";
const COLLECTOR: &str = "canary-token-of-the-collector-77f4c2";

fn issuer_config(up: &Up, urls: [&str; 3]) -> String {
    let [issuer, admin, proxy] = urls;
    let remembered = std::fs::read_to_string(up.dir().join("up/up.json")).unwrap();
    let remembered: Value = serde_json::from_str(&remembered).unwrap();
    let (provider, audience) = (remembered["idp"].as_str().unwrap(), up.issuer());
    let (listen, admin) = (authority(issuer), authority(admin));
    format!(
        r#"
issuer = "{issuer}"
listen = "{listen}"
admin_listen = "{admin}"
state = "issuer-state"
policies = ["up/issuer/grant.dl"]
admin_token = {{ file = "up/admin-token" }}
development = true
root_keys = [{{ id = 1, file = "up/issuer/root-1.jwk" }}]
trusted_issuers = [{{ issuer = "{provider}", audiences = ["{audience}"], insecure_loopback = true }}]
clients = [{{ id = "dev" }}, {{ id = "proxy", secret = {{ file = "up/feed-secret" }}, feed = true }}]
servers = [{{ id = "git", resource = "{proxy}/git/mcp" }}]
telemetry = {{ format = "json", filter = "trace" }}
"#
    )
}

fn proxy_config(urls: [&str; 3], upstream: &str, collector: &str) -> String {
    let [issuer, admin, proxy] = urls;
    let (listen, admin) = (authority(proxy), authority(admin));
    let collector = collector.trim_end_matches("/mcp");
    format!(
        r#"
listen = "{listen}"
admin_listen = "{admin}"
public_url = "{proxy}"
state = "proxy-state"
policies = ["up/proxy/boundary.dl"]
outbound = {{ allow_loopback_http = true }}
telemetry = {{ format = "json", filter = "trace" }}
traces = {{ endpoint = "{collector}", authorization = {{ file = "collector-token", prefix = "Bearer " }} }}

[[issuers]]
issuer = "{issuer}"
jwks_uri = "{issuer}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "up/feed-secret" }} }}

[servers.git]
read_only = ["git_log"]
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }} }}

[servers.git.upstream]
http = "{upstream}"
headers.authorization = {{ file = "upstream-credential", prefix = "Bearer " }}
headers.x-api-key = {{ file = "upstream-api-key" }}
"#
    )
}

#[test]
fn logs_metrics_and_traces_have_no_secret() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    for (file, secret) in [
        ("upstream-credential", CREDENTIAL),
        ("upstream-api-key", API_KEY),
        ("collector-token", COLLECTOR),
    ] {
        write_private(&dir.join(file), secret);
    }
    let set_cookie = format!("set-cookie: session={SET_COOKIE}\r\n");
    let upstream = Upstream::answering(move |_| Reply::Whole(json(RESULT, &set_cookie)));
    let collector = Upstream::answering(|_| Reply::Whole(json("{}", "")));
    let [issuer, issuer_admin, proxy, proxy_admin] =
        [(); 4].map(|()| format!("http://127.0.0.1:{}", free_port()));
    let config = issuer_config(&up, [&issuer, &issuer_admin, &proxy]);
    let issuing = start(dir, "issuer", &config, &issuer);
    let config = proxy_config([&issuer, &proxy_admin, &proxy], &upstream.url, &collector.url);
    let proxying = start(dir, "proxy", &config, &proxy);

    let exchange = [
        "exchange",
        "--issuer",
        &issuer,
        "--client-id",
        "dev",
        "--subject-token",
        "access-token",
    ];
    let rest = ["--key", "alice.jwk", "--scope", "git:*", "--out", "seen.cap"];
    taper_ok(dir, &[&exchange[..], &rest].concat());
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    let (token, key, access_token) = (read("seen.cap"), read("alice.jwk"), read("access-token"));
    let mcp = format!("{proxy}/git/mcp");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let good = Call::mcp(&mcp, &token, &key, MESSAGE)
        .header("traceparent", trace)
        .header("cookie", format!("session={SET_COOKIE}"));
    let proof = good.proof();
    let good = good.proofs(&[&proof]);
    let answer = good.send();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.head.contains(SET_COOKIE), "{answer:?}");
    assert_eq!(good.send().status, 401, "a replay");
    let got = upstream.last().unwrap().head;
    assert!(
        got.contains(CREDENTIAL) && got.contains(API_KEY) && !got.contains(SET_COOKIE),
        "{got}"
    );
    assert!(
        got.contains("0af7651916cd43dd8448eb211c80319c") && !got.contains("b7ad6b7169203331"),
        "{got}"
    );
    let bearer = Call::mcp(&mcp, &token, &key, MESSAGE).instead("authorization", format!("Bearer {token}"));
    assert_eq!(bearer.send().status, 401);
    // Credentials as names of things that a line or a label could show.
    for (from, to) in [
        ("git_log", &token),
        ("tools/call", &proof),
        ("acme/web", &access_token),
    ] {
        let asked = Call::mcp(&mcp, &token, &key, &MESSAGE.replace(from, to));
        assert!(asked.send().status > 0);
    }
    let odd = Call::mcp(&mcp, &token, &key, MESSAGE).header("tracestate", format!("a={token}"));
    assert!(odd.header("traceparent", &token).send().status > 0);
    let lines = format!("{MESSAGE}\n");
    let bridge = [
        "bridge",
        "--url",
        &mcp,
        "--token",
        "seen.cap",
        "--key",
        "alice.jwk",
        "--log",
        "trace",
    ];
    let bridged = taper_reading(dir, &bridge, lines.as_bytes());
    assert!(
        String::from_utf8_lossy(&bridged.stdout).contains("\"result\""),
        "{bridged:?}"
    );
    let asked = Call::form(
        &format!("{issuer}/token"),
        &format!("grant_type=x&subject_token={access_token}"),
        &key,
    );
    assert!(asked.send().status >= 400);

    let scraped = [&issuer_admin, &proxy_admin]
        .map(|url| get(url, "/metrics").body)
        .concat();
    assert!(
        scraped.contains("taper_proxy_requests_total{server=\"git\""),
        "{scraped}"
    );
    assert!(scraped.contains("taper_issuer_grants_total 1"), "{scraped}");
    let (proxy_ended, proxy_log) = proxying.stop_for_log();
    let (issuer_ended, issuer_log) = issuing.stop_for_log();
    assert!(proxy_ended && issuer_ended, "{proxy_log}\n{issuer_log}");
    let traced = collector.bodies();
    assert!(
        traced.contains("0af7651916cd43dd8448eb211c80319c")
            && traced.contains("\"parentSpanId\":\"b7ad6b7169203331\""),
        "{traced}"
    );
    assert!(
        collector.last().unwrap().head.contains(COLLECTOR),
        "the canary is in use"
    );
    assert!(proxy_log.contains("\"target\":\"taper::request\""), "{proxy_log}");

    let mut secrets = Vec::new();
    private_keys(dir, &mut secrets);
    let (admin_token, feed_secret) = (read("up/admin-token"), read("up/feed-secret"));
    for (name, secret) in [
        ("the access token", access_token.as_str()),
        ("the capability", &token),
        ("the proof", &proof),
        ("the admin token", &admin_token),
        ("the feed secret", &feed_secret),
        ("the credential of the upstream", CREDENTIAL),
        ("the API key for the upstream", API_KEY),
        ("the cookie of the upstream", SET_COOKIE),
        ("the token of the collector", COLLECTOR),
    ] {
        secrets.push((name.to_owned(), secret.to_owned()));
    }
    let bridge_log = String::from_utf8_lossy(&bridged.stderr).into_owned();
    for (where_, told) in [
        ("the metrics", &scraped),
        ("the traces", &traced),
        ("the log of the proxy", &proxy_log),
        ("the log of the issuer", &issuer_log),
        ("the log of the bridge", &bridge_log),
    ] {
        let search = Search::of(told);
        for (name, secret) in &secrets {
            assert!(!search.finds(secret), "{where_} holds {name}:\n{told}");
            let planted = format!("{told}{secret}");
            assert!(
                Search::of(&planted).finds(secret),
                "{name} would not be found in {where_}"
            );
        }
    }
}
