//! Two proxies: that of `taper up`, and a second one with the same configuration before an upstream that
//! counts. A refused request never gets there.

use taper_tests::call::Call;
use taper_tests::daemon::{self, free_port};
use taper_tests::upstream::Upstream;
use taper_tests::{Running, Up, raw};

use super::{Findings, key};

pub(crate) const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// `taper up`, and the second proxy.
pub(crate) struct Proxies {
    pub(crate) up: Up,
    second: Running,
    pub(crate) second_url: String,
    upstream: Upstream,
    pub(crate) token: String,
    key: String,
    pub(crate) findings: Findings,
}

impl Proxies {
    pub(crate) fn start() -> Self {
        let up = Up::start();
        up.capability("alice", "git:*");
        let token = std::fs::read_to_string(up.dir().join("alice.cap"))
            .unwrap()
            .trim()
            .to_owned();
        let key = key(&up, "alice");
        let upstream = Upstream::start();
        let second_url = format!("http://127.0.0.1:{}", free_port());
        let config = std::fs::read_to_string(up.dir().join("up/proxy/proxy.toml")).unwrap();
        let mut lines: Vec<String> = config.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if line.starts_with("listen") {
                *line = format!("listen = \"{}\"", taper_tests::authority(&second_url));
            } else if line.starts_with("state") {
                "state = \"second-state\"".clone_into(line);
            } else if line.starts_with("upstream") {
                *line = format!("upstream = {{ http = \"{}\" }}", upstream.url);
            }
        }
        let config = lines
            .join("\n")
            .replace("\"boundary.dl\"", "\"up/proxy/boundary.dl\"")
            .replace("../feed-secret", "up/feed-secret");
        assert!(!config.contains("../"), "{config}");
        let second = daemon::start(up.dir(), "proxy", &config, &second_url);
        Self {
            up,
            second,
            second_url,
            upstream,
            token,
            key,
            findings: Findings::default(),
        }
    }

    /// A call that passes.
    pub(crate) fn honest(&self) -> Call {
        Call::mcp(&self.up.mcp(), &self.token, &self.key, MESSAGE)
    }

    /// Sends the twin to the second proxy, where it passes, and the other to both, where it does not.
    pub(crate) fn pair(&self, name: &str, twin: &[u8], bad: &[u8], status: u16, says: &str) {
        let before = self.upstream.count();
        self.findings.passed(name, &raw(&self.second_url, twin));
        let seen = self.upstream.count();
        self.findings.expect(seen == before + 1, || {
            format!("the twin of {name} did not reach the upstream")
        });
        for url in [&self.second_url, &self.up.mcp()] {
            self.findings.refused(name, &raw(url, bad), status, says);
            self.findings.healthy(name, url);
        }
        self.findings.expect(self.upstream.count() == seen, || {
            format!("{name} reached the upstream")
        });
    }

    pub(crate) fn check(&self, name: &str, spoil: impl Fn(Call) -> Call, status: u16, says: &str) {
        self.pair(
            name,
            &self.honest().bytes(),
            &spoil(self.honest()).bytes(),
            status,
            says,
        );
    }

    /// Nothing panicked, and both end as they should.
    pub(crate) fn end(self) {
        let Self {
            up, second, findings, ..
        } = self;
        findings.end(second);
        findings.end(up.process);
        findings.none();
    }
}
