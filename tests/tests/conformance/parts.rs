//! The fixture server, the proxy in front of it, and the bridge that signs in front of that.

use std::path::Path;
use std::process::Command;

use rand_core::OsRng;
use serde_json::json;
use taper_capability::{Grant, Party, Right, RootKey, issue};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::now;
use taper_tests::daemon::{self, free_port, write_private};
use taper_tests::{Running, named_by_run, taper_bin};
use tempfile::TempDir;

/// The issuer of the test's own capabilities. Nobody ever calls it.
const ISSUER: &str = "https://issuer.example.com";

/// The running fixture server.
pub(crate) struct Fixture(Running);

impl Fixture {
    /// Starts it with HTTP.
    pub(crate) fn start() -> Self {
        Self(Running::start(&mut Command::new(named_by_run("TAPER_FIXTURE"))))
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.0.text("/url")
    }
}

/// A proxy, and a bridge that presents a capability for all that the fixture has.
pub(crate) struct Guarded {
    url: String,
    bridge: Running,
    proxy: Running,
    _folder: TempDir,
}

impl Guarded {
    /// A proxy in front of `upstream`, an inline table of its configuration.
    pub(crate) fn start(upstream: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let resource = format!("{url}/fixture/mcp");
        let root = RootKey::generate(7, &mut OsRng);
        jwks(dir, &root);
        std::fs::write(dir.join("boundary.dl"), "allow if true;\n").unwrap();
        let config = format!(
            r#"
listen = "127.0.0.1:{port}"
public_url = "{url}"
state = "state"
policies = ["boundary.dl"]
telemetry = {{ filter = "info,taper_proxy=debug" }}

[[issuers]]
issuer = "{ISSUER}"
jwks_file = "jwks.json"
without_feed = true

[servers.fixture]
upstream = {upstream}
"#
        );
        let proxy = daemon::start(dir, "proxy", &config, &url);
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let token = issue(&everything(&resource, &key), &root, &mut OsRng).unwrap();
        write_private(&dir.join("key.jwk"), &key.to_jwk_string());
        write_private(&dir.join("token"), token.as_str());
        let bridge = bridge(dir, &resource);
        Self {
            url: bridge.text("/url"),
            bridge,
            proxy,
            _folder: folder,
        }
    }

    /// Where the suite finds it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What proxy and bridge logged.
    pub(crate) fn log(&self) -> String {
        format!("{}\n{}", self.proxy.log(), self.bridge.log())
    }
}

/// The suite can neither sign nor send a header of its own.
fn bridge(dir: &Path, resource: &str) -> Running {
    let mut command = Command::new(taper_bin());
    command.current_dir(dir).args(["bridge", "--url", resource]);
    command.args(["--token", "token", "--key", "key.jwk"]);
    command.args(["--listen", "127.0.0.1:0", "--no-secret", "--format", "json"]);
    Running::start(&mut command)
}

fn jwks(dir: &Path, root: &RootKey) {
    let mut jwk = serde_json::to_value(root.public().to_jwk()).unwrap();
    jwk["kid"] = json!(root.id().to_string());
    std::fs::write(dir.join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
}

/// All that the fixture has: every tool, each resource and prompt by its name, and the resource that the
/// suite asks for because there is none.
fn everything(resource: &str, key: &PrivateKey) -> Grant {
    let server = || "fixture".to_owned();
    let resources = [
        "test://static-text",
        "test://static-binary",
        "test://watched-resource",
        "test://template/",
        "test://nonexistent-resource-for-conformance-testing",
    ];
    let prompts = [
        "test_simple_prompt",
        "test_prompt_with_arguments",
        "test_prompt_with_embedded_resource",
        "test_prompt_with_image",
        "test_input_required_result_prompt",
    ];
    let mut rights = vec![Right::AnyTool { server: server() }];
    rights.extend(resources.map(|uri| Right::Resource {
        server: server(),
        uri_prefix: uri.to_owned(),
    }));
    rights.extend(prompts.map(|name| Right::Prompt {
        server: server(),
        name: name.to_owned(),
    }));
    Grant {
        issuer: ISSUER.to_owned(),
        id: Grant::new_id(&mut OsRng),
        subject: Party {
            iss: ISSUER.to_owned(),
            sub: "suite".to_owned(),
        },
        client: "suite".to_owned(),
        actor: None,
        holder: key.public(),
        audiences: vec![resource.to_owned()],
        rights,
        claims: Vec::new(),
        issued_at: now(),
        expires_at: now() + 3600,
        max_depth: 1,
        caveats: Vec::new(),
    }
}
