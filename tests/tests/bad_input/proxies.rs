//! Two proxies: that of `taper up`, and a second one with the same configuration before an upstream that
//! counts. A refused request never gets there.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use taper_tests::call::Call;
use taper_tests::daemon::{self, free_port};
use taper_tests::{Running, Up, raw};

use super::{Findings, key};

pub(crate) const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// A server that answers everything with the same result, and counts.
struct Upstream {
    requests: Arc<AtomicU64>,
    url: String,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                std::thread::spawn(move || answer(stream, &count));
            }
        });
        Self { requests, url }
    }

    fn count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: std::net::TcpStream, count: &AtomicU64) {
    let mut received = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                break;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => received.extend(&buffer[..n]),
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

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
