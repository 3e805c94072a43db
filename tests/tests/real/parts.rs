//! A real identity provider and a real MCP server, and issuer and proxy as daemons between them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use taper_dpop::base64url_encode;
use taper_tests::call::Call;
use taper_tests::daemon::{self, free_port, write_private};
use taper_tests::{Running, named_by_run, taper, taper_ok};
use tempfile::TempDir;

pub(crate) fn real(part: &str) -> PathBuf {
    named_by_run("TAPER_REAL").join(part)
}

/// Provider, issuer and proxy, and where they are.
pub(crate) struct Parts {
    pub(crate) folder: TempDir,
    pub(crate) provider: Running,
    pub(crate) issuer: Running,
    pub(crate) proxy: Running,
    pub(crate) issuer_url: String,
    pub(crate) mcp_url: String,
}

impl Parts {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path();
        let (issuer_port, admin_port, proxy_port) = (free_port(), free_port(), free_port());
        let issuer_url = format!("http://127.0.0.1:{issuer_port}");
        let proxy_url = format!("http://127.0.0.1:{proxy_port}");
        let mcp_url = format!("{proxy_url}/git/mcp");
        let provider = Running::start(
            Command::new(real("bin/node"))
                .arg(real("idp.mjs"))
                .args(["--audience", &issuer_url, "--log"])
                .arg(dir.join("provider.log")),
        );
        repositories(dir);
        taper_ok(dir, &["keygen", "--out", "root.jwk"]);
        for secret in ["admin-token", "feed-secret", "agents-secret"] {
            // The test's own, on loopback.
            write_private(
                &dir.join(secret),
                &format!("{secret}-0123456789abcdef0123456789abcdef"),
            );
        }
        std::fs::write(
            dir.join("grant.dl"),
            "grant_any_tool(\"git\") <- claim(\"groups\", \"eng\"), requested_any_tool(\"git\");\n\
             grant_ttl(600) <- client($c);\ngrant_depth(2) <- client($c);\n",
        )
        .unwrap();
        std::fs::write(dir.join("boundary.dl"), "allow if true;\n").unwrap();
        let provider_url = provider.text("/issuer");
        let issuer = format!(
            r#"
issuer = "{issuer_url}"
listen = "127.0.0.1:{issuer_port}"
admin_listen = "127.0.0.1:{admin_port}"
state = "issuer-state"
policies = ["grant.dl"]
admin_token = {{ file = "admin-token" }}
development = true
root_keys = [{{ id = 7, file = "root.jwk" }}]
trusted_issuers = [{{ issuer = "{provider_url}", insecure_loopback = true }}]
clients = [
  {{ id = "agents", secret = {{ file = "agents-secret" }} }},
  {{ id = "proxy", secret = {{ file = "feed-secret" }}, feed = true }},
]
servers = [{{ id = "git", resource = "{mcp_url}" }}]
"#
        );
        let issuer = daemon::start(dir, "issuer", &issuer, &issuer_url);
        let server = real("bin/mcp-server-git").display().to_string();
        let proxy = format!(
            r#"
listen = "127.0.0.1:{proxy_port}"
public_url = "{proxy_url}"
state = "proxy-state"
policies = ["boundary.dl"]
outbound = {{ allow_loopback_http = true }}

[[issuers]]
issuer = "{issuer_url}"
jwks_uri = "{issuer_url}/.well-known/jwks.json"
feed = {{ client_id = "proxy", client_secret = {{ file = "feed-secret" }} }}

[servers.git]
upstream = {{ stdio = ["{server}"] }}
read_only = ["git_log", "git_status", "git_branch"]
# The client's proofs are plain RFC 9449; what the proxy does not know to be read-only stays bound.
body_binding = "required"
tools.git_log = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["max_count"] }}
tools.git_status = {{ resources = {{ repo = "{{repo_path}}" }} }}
tools.git_branch = {{ resources = {{ repo = "{{repo_path}}" }}, arguments = ["branch_type"] }}
kinds.repo = {{ form = "absolute_path" }}
"#
        );
        let proxy = daemon::start(dir, "proxy", &proxy, &proxy_url);
        Self {
            provider,
            issuer,
            proxy,
            issuer_url,
            mcp_url,
            folder,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.dir()
            .canonicalize()
            .unwrap()
            .join("repositories/acme")
            .join(name)
    }

    /// Asks the provider for an access token, as the person `subject` would get it in a browser.
    pub(crate) fn access_token(&self, subject: &str, groups: &str) {
        let id = format!(
            "{}:{}",
            self.provider.text("/client_id"),
            self.provider.text("/client_secret")
        );
        let mut basic = base64url_encode(id.as_bytes())
            .replace('-', "+")
            .replace('_', "/");
        basic.extend(std::iter::repeat_n('=', (4 - basic.len() % 4) % 4));
        let (grant, endpoint) = (
            self.provider.text("/subject_grant"),
            self.provider.text("/token_endpoint"),
        );
        let answer = Call::new("POST", &endpoint)
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type={grant}&subject={subject}&groups={groups}"))
            .send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        write_private(
            &self.dir().join(format!("{subject}.token")),
            answer["access_token"].as_str().unwrap(),
        );
    }

    pub(crate) fn exchange(&self, subject: &str) -> std::process::Output {
        let (token, cap) = (format!("{subject}.token"), format!("{subject}.cap"));
        let common = [
            "exchange",
            "--issuer",
            &self.issuer_url,
            "--client-id",
            "agents",
            "--key",
            "alice.jwk",
        ];
        let asked = [
            "--client-secret-file",
            "agents-secret",
            "--scope",
            "git:*",
            "--subject-token",
            &token,
            "--out",
            &cap,
        ];
        taper(self.dir(), &[&common[..], &asked[..]].concat())
    }

    /// The tools and repositories that the journal says were called, with their outcomes.
    pub(crate) fn decisions(&self) -> BTreeSet<(String, String)> {
        let export = taper_ok(self.dir(), &["audit", "export", "--dir", "proxy-state"]);
        let records = export
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        records
            .map(|record| record["payload"].clone())
            .map(|payload| payload.get("decision").cloned().unwrap_or(payload))
            .filter(|decision| decision["method"] == "tools/call")
            .map(|decision| (text(&decision["outcome"]), text(&decision["tool"])))
            .collect()
    }
}

/// `repositories/acme/{web,payroll}`, by the example server, which ends when its input does.
fn repositories(dir: &Path) {
    let status = Command::new(named_by_run("TAPER_GIT_SERVER"))
        .args(["--sample", "--stdio", "--root"])
        .arg(dir.join("repositories"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}
