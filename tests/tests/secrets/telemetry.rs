//! What is logged, counted and traced, of credentials that are somebody else's too: those that an upstream wants,
//! and those that its authorization server gives.

use serde_json::Value;
use taper_tests::call::Call;
use taper_tests::daemon::{free_port, start, write_private};
use taper_tests::upstream::{RESULT, Received, Reply, Upstream, json};
use taper_tests::{Up, authority, get, taper_ok, taper_reading};

use crate::{MESSAGE, assert_none, private_keys};

/// What stands for credentials that are somebody else's. Found anywhere, they are a leak.
const CREDENTIAL: &str = "canary-credential-of-the-upstream-93c1";
const API_KEY: &str = "canary-api-key-for-the-upstream-5d27aa";
const SET_COOKIE: &str = "canary-cookie-of-the-upstream-0b8e41";
const COLLECTOR: &str = "canary-token-of-the-collector-77f4c2";
const CLIENT_SECRET: &str = "canary-client-secret-of-the-proxy-8ab31f";
const ISSUED: &str = "canary-token-issued-for-the-upstream-41d0aa";
const ISSUED_LATER: &str = "canary-token-issued-in-vain-c07be2d4";

/// The authorization server of upstreams. Each place answers in its way, and some repeat what they were told.
fn issue(request: &Received) -> Reply {
    let status = |line: &str, body: &str| {
        let head = format!("HTTP/1.1 {line}\r\ncontent-type: application/json\r\nconnection: close");
        Reply::Whole(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let told = format!("{CLIENT_SECRET} {}", String::from_utf8_lossy(&request.body));
    let token = |token: &str, kind: &str| {
        let urn = "urn:ietf:params:oauth:token-type:access_token";
        format!(
            r#"{{"access_token":"{token}","token_type":"{kind}","expires_in":600,"issued_token_type":"{urn}"}}"#
        )
    };
    match request.path() {
        "/good" => status("200 OK", &token(ISSUED, "Bearer")),
        // A token that is none, and a refusal that repeats the secret.
        "/odd" => status("200 OK", &token(ISSUED_LATER, ISSUED_LATER)),
        _ => {
            let told = Value::from(told);
            let body = format!(r#"{{"error":"invalid_client","error_description":{told}}}"#);
            status("401 Unauthorized", &body)
        }
    }
}

/// The identity provider of `taper up`.
fn idp(up: &Up) -> String {
    let remembered = std::fs::read_to_string(up.dir().join("up/up.json")).unwrap();
    let remembered: Value = serde_json::from_str(&remembered).unwrap();
    remembered["idp"].as_str().unwrap().to_owned()
}

/// One with credentials of its own, and three with tokens.
const SERVERS: [&str; 4] = ["git", "good", "odd", "refusing"];

fn issuer_config(up: &Up, urls: [&str; 3]) -> String {
    let [issuer, admin, proxy] = urls;
    let (provider, audience) = (idp(up), up.issuer());
    let (listen, admin) = (authority(issuer), authority(admin));
    let servers =
        SERVERS.map(|server| format!(r#"{{ id = "{server}", resource = "{proxy}/{server}/mcp" }}"#));
    let servers = servers.join(", ");
    let granted = SERVERS.map(|server| {
        format!(
            "grant_any_tool(\"{server}\") <- claim(\"groups\", \"eng\"), requested_any_tool(\"{server}\");\n"
        )
    });
    let policy = granted.concat() + "grant_ttl(600) <- client($c);\n";
    std::fs::write(up.dir().join("grant.dl"), policy).unwrap();
    format!(
        r#"
issuer = "{issuer}"
listen = "{listen}"
admin_listen = "{admin}"
state = "issuer-state"
policies = ["grant.dl"]
admin_token = {{ file = "up/admin-token" }}
development = true
root_keys = [{{ id = 1, file = "up/issuer/root-1.jwk" }}]
trusted_issuers = [{{ issuer = "{provider}", audiences = ["{audience}"], insecure_loopback = true }}]
clients = [{{ id = "dev" }}, {{ id = "proxy", secret = {{ file = "up/feed-secret" }}, feed = true }}]
servers = [{servers}]
telemetry = {{ format = "json", filter = "trace" }}
"#
    )
}

fn proxy_config(urls: [&str; 3], idp: &str, upstream: &str, collector: &str, tokens: &str) -> String {
    let [issuer, admin, proxy] = urls;
    let (listen, admin) = (authority(proxy), authority(admin));
    let [collector, tokens] = [collector, tokens].map(|url| url.trim_end_matches("/mcp"));
    let with_tokens = SERVERS[1..].iter().map(|server| {
        format!(
            r#"
[servers.{server}]
catalogue = {{ facts = "off" }}
[servers.{server}.upstream]
http = "{upstream}"
[servers.{server}.upstream.oauth]
grant = "token_exchange"
token_endpoint = "{tokens}/{server}"
client_id = "proxy"
client_secret = {{ file = "client-secret" }}
subject_issuer = "{idp}"
assertion_key = "assertion.jwk"
"#
        )
    });
    let with_tokens: String = with_tokens.collect();
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
{with_tokens}"#
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
        ("client-secret", CLIENT_SECRET),
    ] {
        write_private(&dir.join(file), secret);
    }
    taper_ok(dir, &["keygen", "--out", "assertion.jwk"]);
    let set_cookie = format!("set-cookie: session={SET_COOKIE}\r\n");
    let upstream = Upstream::answering(move |_| Reply::Whole(json(RESULT, &set_cookie)));
    let collector = Upstream::answering(|_| Reply::Whole(json("{}", "")));
    let tokens = Upstream::answering(issue);
    let [issuer, issuer_admin, proxy, proxy_admin] =
        [(); 4].map(|()| format!("http://127.0.0.1:{}", free_port()));
    let config = issuer_config(&up, [&issuer, &issuer_admin, &proxy]);
    let issuing = start(dir, "issuer", &config, &issuer);
    let config = proxy_config(
        [&issuer, &proxy_admin, &proxy],
        &idp(&up),
        &upstream.url,
        &collector.url,
        &tokens.url,
    );
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
    let scopes = SERVERS.map(|server| format!("{server}:*"));
    let scopes: Vec<&str> = scopes.iter().flat_map(|scope| ["--scope", scope]).collect();
    let rest = ["--key", "alice.jwk", "--out", "seen.cap"];
    taper_ok(dir, &[&exchange[..], &rest, &scopes].concat());
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
    for (server, status) in [("good", 200), ("odd", 503), ("odd", 503), ("refusing", 503)] {
        let at = format!("{proxy}/{server}/mcp");
        let answer = Call::mcp(&at, &token, &key, MESSAGE).send();
        assert_eq!(answer.status, status, "{server}: {answer:?}");
        let told = format!("{answer:?}");
        assert!(!told.contains("canary"), "{told}");
    }
    let bearing = upstream.last().unwrap().head;
    assert!(bearing.contains(&format!("Bearer {ISSUED}")), "{bearing}");
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

    let asked = tokens.received();
    assert_eq!(asked.len(), 3, "each place once");
    let header = asked[0]
        .headers()
        .into_iter()
        .find(|(name, _)| name == "authorization");
    let header = header.unwrap().1.trim_start_matches("Basic ").to_owned();
    let assertion = String::from_utf8_lossy(&asked[0].body).into_owned();
    let assertion = assertion.split("subject_token=").nth(1).unwrap();
    let assertion = assertion.split('&').next().unwrap().to_owned();
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
        ("the secret of the proxy's client", CLIENT_SECRET),
        ("the token for the upstream", ISSUED),
        ("the token that is none", ISSUED_LATER),
        ("the client's header", &header),
        ("what the proxy signed of the subject", &assertion),
    ] {
        secrets.push((name.to_owned(), secret.to_owned()));
    }
    let bridge_log = String::from_utf8_lossy(&bridged.stderr).into_owned();
    let texts = [
        ("the metrics", scraped.as_str()),
        ("the traces", &traced),
        ("the log of the proxy", &proxy_log),
        ("the log of the issuer", &issuer_log),
        ("the log of the bridge", &bridge_log),
    ];
    assert_none(&texts, &secrets);
}
