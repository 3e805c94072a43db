//! An issuer and a proxy that demand a nonce in every proof.

use std::path::Path;

use taper_tests::daemon::{self, free_port};
use taper_tests::{Up, get, taper_ok};

use super::{BOTH, is_log};
use crate::language::succeeds;

/// The value of `KEY = "VALUE"` or of the innermost such pair in a configuration that `up` wrote.
fn setting(file: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once(&format!("{key} = \"")).expect(key);
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_nonce_is_fetched_where_one_is_demanded() {
    // Its identity provider and its git server are used, behind daemons of our own.
    let up = Up::start();
    let dir = up.dir();
    let provider = setting(&dir.join("up/issuer/issuer.toml"), "[[trusted_issuers]]\nissuer");
    let upstream = setting(&dir.join("up/proxy/proxy.toml"), "http");
    let (issuer_port, admin_port, proxy_port) = (free_port(), free_port(), free_port());
    let issuer_url = format!("http://127.0.0.1:{issuer_port}");
    let proxy_url = format!("http://127.0.0.1:{proxy_port}");
    let mcp_url = format!("{proxy_url}/git/mcp");
    let up_issuer = up.issuer();
    taper_ok(dir, &["keygen", "--out", "root.jwk"]);
    let issuer = format!(
        r#"
issuer = "{issuer_url}"
listen = "127.0.0.1:{issuer_port}"
admin_listen = "127.0.0.1:{admin_port}"
state = "issuer-state"
policies = ["up/issuer/grant.dl"]
admin_token = {{ file = "up/admin-token" }}
development = true
nonce = "demand"
root_keys = [{{ id = 7, file = "root.jwk" }}]
trusted_issuers = [{{ issuer = "{provider}", audiences = ["{up_issuer}"], insecure_loopback = true }}]
clients = [
  {{ id = "dev" }},
  {{ id = "proxy", secret = {{ file = "up/feed-secret" }}, feed = true }},
]
servers = [{{ id = "git", resource = "{mcp_url}" }}]
"#
    );
    let _issuer = daemon::start(dir, "issuer", &issuer, &issuer_url);
    let proxy = format!(
        r#"
listen = "127.0.0.1:{proxy_port}"
public_url = "{proxy_url}"
state = "proxy-state"
policies = ["up/proxy/boundary.dl"]
nonce = "demand"
outbound = {{ allow_loopback_http = true }}

[[issuers]]
issuer = "{issuer_url}"
jwks_uri = "{issuer_url}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "up/feed-secret" }} }}

[servers.git]
upstream = {{ http = "{upstream}" }}
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["max_count"] }}
"#
    );
    let _proxy = daemon::start(dir, "proxy", &proxy, &proxy_url);
    assert_eq!(get(&issuer_url, "/.well-known/jwks.json").status, 200);

    let token = taper_ok(
        dir,
        &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
    );
    std::fs::write(dir.join("access-token"), token).unwrap();
    for agent in BOTH {
        let name = agent.name();
        agent.keygen(dir, name);
        agent.ok(dir, &["roots", "--issuer", &issuer_url, "--out", "roots.json"]);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let asked = ["--client-id", "dev", "--subject-token", "access-token"];
        let words = ["--key", &key, "--scope", "git:*", "--out", &cap];
        agent.ok(
            dir,
            &[&["obtain", "--issuer", &issuer_url][..], &asked, &words].concat(),
        );
        // No tool is on the read-only list here: the body is bound, too.
        let words = ["git_log", "repo_path=acme/web"];
        let output = agent.call(dir, &mcp_url, &cap, name, &words);
        is_log(&succeeds(&output), &up, "acme/web", 99);

        // A proof that the agent prints has no nonce, and it is what the nonce was for.
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;
        std::fs::write(dir.join("body"), body).unwrap();
        let how = ["prove", "--key", &key, "--url", &mcp_url];
        let bound = ["--token", &cap, "--body", "body"];
        let send = |proof: &str| {
            let token = std::fs::read_to_string(dir.join(&cap)).unwrap();
            taper_tests::call::Call::mcp(&mcp_url, token.trim(), "", std::str::from_utf8(body).unwrap())
                .proofs(&[proof.trim()])
                .send()
        };
        let asked = send(&agent.ok(dir, &[&how[..], &bound].concat()));
        assert_eq!(asked.status, 401, "{asked:?}");
        assert!(asked.head.contains("error=\"use_dpop_nonce\""), "{asked:?}");
        let nonce = asked
            .head
            .lines()
            .find_map(|line| line.strip_prefix("dpop-nonce: "))
            .expect("a nonce");
        let met = send(&agent.ok(dir, &[&how[..], &bound, &["--nonce", nonce]].concat()));
        assert_eq!(met.status, 200, "{met:?}");
        let other = ["--token", &cap, "--body", &key, "--nonce", nonce];
        let refused = send(&agent.ok(dir, &[&how[..], &other].concat()));
        assert!(
            refused.status == 401 && refused.head.contains("R-12"),
            "another body: {refused:?}"
        );
    }
}
