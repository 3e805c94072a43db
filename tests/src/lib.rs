//! What the whole-program tests share: the program itself, a running `taper up`, and raw requests.
//!
//! The tests drive the release binary that `tests/run` built and named in `TAPER_BIN`. Without it they
//! fail and say so: a test that did not run must not read as passed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

pub mod call;
pub mod daemon;
pub mod h2;
pub mod pages;
pub mod upstream;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

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
    Command::new(taper_bin())
        .current_dir(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A `taper` command that reads `input` from stdin.
pub fn taper_reading(dir: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(taper_bin())
        .current_dir(dir)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command may end without having read everything.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    child.wait_with_output().unwrap()
}

/// A `taper` command that must succeed; its stdout.
#[track_caller]
pub fn taper_ok(dir: &Path, arguments: &[&str]) -> String {
    let output = taper(dir, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "taper {arguments:?}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A program that runs in the background, says when it is ready with one line of JSON on stdout, and is
/// killed when dropped. Its stderr is collected.
pub struct Running {
    child: Child,
    /// The line of JSON.
    pub ready: Value,
    log: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts `command` and waits for its line.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut running = Self::spawn(command);
        let mut line = String::new();
        let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        // The rest of stdout is read and dropped, so that the program never blocks on it.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        match serde_json::from_str(&line) {
            Ok(ready) => running.ready = ready,
            Err(_) => panic!("not ready: {line:?}\n{}", running.ended()),
        }
        running
    }

    /// Starts a daemon, which prints no such line, and waits until `{url}/readyz` says 200.
    #[track_caller]
    pub fn start_daemon(command: &mut Command, url: &str) -> Self {
        let mut running = Self::spawn(command);
        for _ in 0..400 {
            if let Ok(Some(status)) = running.child.try_wait() {
                panic!("{url} ended with {status}\n{}", running.ended());
            }
            if answers(url) && get(url, "/readyz").status == 200 {
                return running;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{url} is not ready\n{}", running.ended());
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let collected = Arc::clone(&log);
        let stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut log = collected.0.lock().unwrap();
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
                collected.1.notify_all();
            }
        });
        Self {
            child,
            ready: Value::Null,
            log,
            reader: Some(reader),
        }
    }

    /// Ends it at once; all that it wrote to stderr.
    fn ended(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.take().map(JoinHandle::join);
        self.log()
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// How many bytes that is.
    pub fn logged(&self) -> usize {
        self.log.0.lock().unwrap().len()
    }

    /// What `find` makes of the log after its first `from` bytes, as soon as it makes something of it;
    /// `None` if it does not within `patience`.
    pub fn find_in_log<T>(
        &self,
        from: usize,
        patience: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let log = self.log.0.lock().unwrap();
        let waited = self
            .log
            .1
            .wait_timeout_while(log, patience, |log| find(&log[from..]).is_none());
        let (log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        find(&log[from..])
    }

    /// A string of the line of JSON, by RFC 6901 pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .expect(pointer)
            .to_owned()
    }

    /// Asks it to stop (SIGTERM) and waits; whether it ended with success.
    pub fn stop(self) -> bool {
        self.stop_for_log().0
    }

    /// As [`Self::stop`], with all that it wrote to stderr.
    pub fn stop_for_log(mut self) -> (bool, String) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let success = self.child.wait().is_ok_and(|status| status.success());
        (success, self.ended())
    }

    /// Kills it as a crash does (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as a crash does (SIGKILL); all that it wrote to stderr.
    pub fn crash(mut self) -> String {
        self.ended()
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
        Self {
            process: Self::start_in(folder.path()),
            folder,
        }
    }

    /// Starts `taper up --dir FOLDER/up`.
    pub fn start_in(folder: &Path) -> Running {
        let mut command = Command::new(taper_bin());
        command
            .args(["up", "--port", "0", "--format", "json", "--log", "trace", "--dir"])
            .arg(folder.join("up"));
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
        let public = taper_ok(
            self.dir(),
            &["keygen", "--out", &format!("{name}.jwk"), "--format", "json"],
        );
        let public: Value = serde_json::from_str(&public).unwrap();
        let jwk = public.get("jwk").unwrap_or(&public);
        std::fs::write(self.dir().join(format!("{name}.pub.jwk")), jwk.to_string()).unwrap();
    }

    /// Obtains a capability `NAME.cap` for `scope`, held by the key `NAME.jwk`, which is made.
    pub fn capability(&self, name: &str, scope: &str) {
        self.obtain(name, &["--scope", scope]);
    }

    /// As [`Self::capability`], for what `wanted` says. What the command printed.
    pub fn obtain(&self, name: &str, wanted: &[&str]) -> String {
        self.keygen(name);
        let token = taper_ok(
            self.dir(),
            &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
        );
        std::fs::write(self.dir().join("access-token"), token).unwrap();
        let (issuer, key, cap) = (self.issuer(), format!("{name}.jwk"), format!("{name}.cap"));
        let exchange = [
            "exchange",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--subject-token",
            "access-token",
            "--key",
            &key,
            "--out",
            &cap,
            "--format",
            "json",
        ];
        taper_ok(self.dir(), &[&exchange, wanted].concat())
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

/// The `host:port` of a URL.
pub fn authority(url: &str) -> &str {
    url.split("://").nth(1).unwrap().split('/').next().unwrap()
}

/// Whether somebody listens at `url`.
pub fn answers(url: &str) -> bool {
    std::net::TcpStream::connect(authority(url)).is_ok()
}

/// A plain GET of `path` at the host of `url`.
pub fn get(url: &str, path: &str) -> Answer {
    let host = authority(url);
    raw(
        url,
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes(),
    )
}

/// Sends bytes to the host of `url` as they are and reads until the server closes. The bytes should
/// contain `connection: close`.
#[track_caller]
pub fn raw(url: &str, bytes: &[u8]) -> Answer {
    match try_raw(url, bytes) {
        Some(answer) => answer,
        None => panic!("nobody listens at {url}"),
    }
}

/// As [`raw`]; `None` if nobody listens there.
pub fn try_raw(url: &str, bytes: &[u8]) -> Option<Answer> {
    let mut stream = std::net::TcpStream::connect(authority(url)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server may answer and close before it has read everything.
    let _ = std::io::Write::write_all(&mut stream, bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Some(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// How many rounds of a test: many when `TAPER_LONG` is set.
pub fn rounds(short: u32, long: u32) -> u32 {
    if std::env::var_os("TAPER_LONG").is_some() {
        long
    } else {
        short
    }
}

/// Says what was measured. The test harness swallows what a passing test prints, but not this.
pub fn tell(line: &str) {
    let mut stderr = std::io::stderr().lock();
    std::io::Write::write_all(&mut stderr, format!("{line}\n").as_bytes()).unwrap();
}
