//! One `taper up`, one capability for a part of it, and the sidecar.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taper_tests::{Running, Up, named_by_run, taper_bin, taper_ok};

/// How a client comes to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// With the capability, and proofs of its own.
    Direct,
    /// Through the sidecar over HTTP, with the secret that the sidecar gave it.
    Http,
    /// Through a sidecar that it starts itself, over standard input and output.
    Stdio,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Http, Self::Stdio];
}

/// A generation of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

impl Era {
    pub(crate) const BOTH: [Self; 2] = [Self::Legacy, Self::Modern];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }

    pub(crate) fn revision(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// What the capability is narrowed to, for whoever presents it.
const PART: [&str; 4] = ["--tool", "git:git_log", "--repo", "acme/web"];

/// The sidecar's arguments, for [`PART`] of the server at `url`.
fn sidecar_for(url: &str) -> Vec<&str> {
    let whole = [
        "bridge",
        "--url",
        url,
        "--token",
        "agent.cap",
        "--key",
        "agent.jwk",
    ];
    [&whole[..], &PART].concat()
}

/// Everything that clients talk to.
pub(crate) struct World {
    up: Up,
    bridge: Running,
    /// What was committed to the repository that may be read.
    pub(crate) subjects: Vec<String>,
}

impl World {
    /// Starts it. `agent.cap`, held by `agent.jwk`, is for the whole server; `part.cap` for [`PART`] of it.
    pub(crate) fn start() -> Self {
        let up = Up::start();
        let dir = up.dir();
        up.capability("agent", "git:*");
        let narrow = ["narrow", "agent.cap", "--key", "agent.jwk", "--out", "part.cap"];
        taper_ok(dir, &[&narrow[..], &PART].concat());
        let mut bridge = Command::new(taper_bin());
        bridge.current_dir(dir).args(sidecar_for(&up.mcp()));
        bridge.args(["--listen", "127.0.0.1:0", "--client", "test", "--format", "json"]);
        let bridge = Running::start(&mut bridge);
        let log = Command::new("git")
            .arg("-C")
            .arg(dir.join("up/repositories/acme/web"))
            .args(["log", "--format=%s"])
            .output()
            .unwrap();
        let subjects: Vec<_> = String::from_utf8(log.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        assert!(subjects.len() > 1, "{subjects:?}");
        Self { up, bridge, subjects }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.up.dir()
    }

    /// The server's URL at the proxy.
    pub(crate) fn proxy(&self) -> String {
        self.up.mcp()
    }

    /// The server's URL at the sidecar.
    pub(crate) fn sidecar(&self) -> String {
        self.bridge.text("/url")
    }

    /// The command that starts a sidecar of the client's own.
    pub(crate) fn sidecar_command(&self) -> Vec<String> {
        let program = taper_bin().canonicalize().unwrap().display().to_string();
        let proxy = self.proxy();
        let arguments = sidecar_for(&proxy).into_iter().map(str::to_owned);
        std::iter::once(program).chain(arguments).collect()
    }

    /// The header that the sidecar wants of its client.
    pub(crate) fn authorization(&self) -> String {
        let file = self.dir().join(self.bridge.text("/clients/0/secret_file"));
        let secret = std::fs::read_to_string(file).unwrap();
        format!("Authorization: Bearer {}", secret.trim())
    }
}

/// A third-party part.
pub(crate) fn real(part: &str) -> PathBuf {
    named_by_run("TAPER_REAL").join(part)
}

/// What a command printed on stdout and stderr, whatever its exit code.
pub(crate) fn said(command: &mut Command) -> (String, String) {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The JSON that a command printed on stdout.
#[track_caller]
pub(crate) fn json(command: &mut Command) -> Value {
    let (stdout, stderr) = said(command);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"))
}
