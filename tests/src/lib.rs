//! What the whole-program tests share: the program itself, a running `taper up`, and raw requests.
//!
//! The tests drive the release binary that `tests/run` built and named in `TAPER_BIN`. Without it they
//! fail and say so: a test that did not run must not read as passed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

/// What an environment variable of `tests/run` names.
pub fn named_by_run(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: start the whole-program tests with `tests/run`"),
    }
}

/// The release binary.
pub fn taper_bin() -> PathBuf {
    named_by_run("TAPER_BIN")
}

/// The top folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A `taper` command in a folder.
pub fn taper(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(taper_bin()).current_dir(dir).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A `taper` command that must succeed; its stdout.
#[track_caller]
pub fn taper_ok(dir: &Path, arguments: &[&str]) -> String {
    let output = taper(dir, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "taper {arguments:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A program that runs in the background, says when it is ready with one line of JSON on stdout, and is
/// killed when dropped. Its stderr is collected.
pub struct Running {
    child: Child,
    /// The line of JSON.
    pub ready: Value,
    log: Arc<Mutex<String>>,
}

impl Running {
    /// Starts `command` and waits for its line.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let log = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&log);
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = collected.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        // The rest of stdout is read and dropped, so that the program never blocks on it.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        match serde_json::from_str(&line) {
            Ok(ready) => Self { child, ready, log },
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("not ready: {line:?}\n{}", log.lock().unwrap());
            }
        }
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A string of the line of JSON, by RFC 6901 pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        self.ready.pointer(pointer).and_then(Value::as_str).expect(pointer).to_owned()
    }

    /// Asks it to stop (SIGTERM) and waits; whether it ended with success.
    pub fn stop(mut self) -> bool {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `taper up` in a folder of its own.
pub struct Up {
    /// The process.
    pub process: Running,
    /// A folder for the test's own files; `up` lies in it.
    pub folder: TempDir,
}

impl Up {
    /// Starts it, with everything logged.
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        Self { process: Self::start_in(folder.path()), folder }
    }

    /// Starts `taper up --dir FOLDER/up`.
    pub fn start_in(folder: &Path) -> Running {
        let mut command = Command::new(taper_bin());
        command.args(["up", "--port", "0", "--format", "json", "--log", "trace", "--dir"]).arg(folder.join("up"));
        Running::start(&mut command)
    }

    /// The test's own folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> String {
        self.process.text("/issuer")
    }

    /// The git server's URL at the proxy.
    pub fn mcp(&self) -> String {
        self.process.text("/mcp/git")
    }

    /// Makes a key `NAME.jwk` and its public part `NAME.pub.jwk`.
    pub fn keygen(&self, name: &str) {
        let public = taper_ok(self.dir(), &["keygen", "--out", &format!("{name}.jwk"), "--format", "json"]);
        let public: Value = serde_json::from_str(&public).unwrap();
        let jwk = public.get("jwk").unwrap_or(&public);
        std::fs::write(self.dir().join(format!("{name}.pub.jwk")), jwk.to_string()).unwrap();
    }

    /// Obtains a capability `NAME.cap` for `scope`, held by the key `NAME.jwk`, which is made.
    pub fn capability(&self, name: &str, scope: &str) {
        self.keygen(name);
        let token = taper_ok(self.dir(), &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"]);
        std::fs::write(self.dir().join("access-token"), token).unwrap();
        let (issuer, key, cap) = (self.issuer(), format!("{name}.jwk"), format!("{name}.cap"));
        taper_ok(
            self.dir(),
            &[
                "exchange", "--issuer", &issuer, "--client-id", "dev", "--subject-token", "access-token", "--key", &key,
                "--scope", scope, "--out", &cap,
            ],
        );
    }
}

/// What a raw HTTP/1.1 exchange gave.
#[derive(Debug)]
pub struct Answer {
    /// The status; 0 when the connection ended without one.
    pub status: u16,
    /// Status line and headers as text.
    pub head: String,
    /// The body, chunked framing included.
    pub body: String,
}

/// Sends bytes to the host of `url` as they are and reads until the server closes. The bytes should
/// contain `connection: close`.
pub fn raw(url: &str, bytes: &[u8]) -> Answer {
    let address = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    // A server may answer and close before it has read everything.
    let _ = std::io::Write::write_all(&mut stream, bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
