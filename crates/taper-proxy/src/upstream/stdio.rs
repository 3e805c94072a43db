//! An upstream that is a program: one per session, or per owner in the modern era (RULES 21).
//!
//! Messages are lines. A raw CR or LF in an accepted body can only be JSON whitespace and becomes a
//! space; nothing else changes. Answers find their request by its id and go out as JSON. Of what a
//! program sends by itself, notifications are dropped, and requests are answered at once: `ping` with
//! an empty result, all others with "method not found", since no client could be asked.

use std::collections::HashMap;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use taper_capability::json::{self, JsonLimits, Value};
use taper_service::rng;
use taper_service::secret::Secret;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::body::{Body, empty, full};
use crate::config::{Limits, StdioEra};
use crate::headers::SESSION;
use crate::message::Era;
use crate::permitted::{Call, Outbound};
use crate::refusal::Refusal;
use crate::session::Owner;

/// Messages that wait for a program that does not read.
const QUEUE: usize = 16;

/// One owner has at most this part of the programs, but one in any case.
const OWNERS_SHARE: usize = 8;

/// How to start the program, and those that run.
pub(crate) struct StdioUpstream {
    server: String,
    command: Vec<String>,
    env: Vec<(String, Secret)>,
    era: StdioEra,
    max_children: usize,
    idle: Duration,
    limits: Limits,
    children: Arc<Mutex<Children>>,
}

type Children = HashMap<Key, Arc<Child>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Session(String),
    Owner(Owner),
}

struct Child {
    owner: Owner,
    input: mpsc::Sender<Vec<u8>>,
    pending: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    stop: CancellationToken,
}

/// What a stdio upstream is configured with.
pub(crate) struct StdioSettings {
    pub(crate) server: String,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, Secret)>,
    pub(crate) era: StdioEra,
    pub(crate) max_children: usize,
    pub(crate) idle: Duration,
    pub(crate) limits: Limits,
}

impl StdioUpstream {
    /// An upstream of which no program runs yet.
    pub(crate) fn new(settings: StdioSettings) -> Self {
        Self {
            server: settings.server,
            command: settings.command,
            env: settings.env,
            era: settings.era,
            max_children: settings.max_children,
            idle: settings.idle,
            limits: settings.limits,
            children: Arc::default(),
        }
    }

    pub(super) async fn send(
        &self,
        outbound: Outbound,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        let Some(call) = &outbound.call else {
            return self.without_message(&outbound);
        };
        let owner = &outbound.owner;
        let (child, new_session) = match (self.era, outbound.era) {
            (StdioEra::Modern, Era::Modern) => {
                let key = Key::Owner(owner.clone());
                (self.child(key, owner, true, shutdown)?, None)
            }
            (StdioEra::Legacy, Era::Legacy) if call.method == "initialize" => {
                let session = rng::random_id_128(&mut rng::os());
                (
                    self.child(Key::Session(session.clone()), owner, true, shutdown)?,
                    Some(session),
                )
            }
            (StdioEra::Legacy, Era::Legacy) => {
                let session = outbound.session.clone().ok_or(Refusal::Session)?;
                (self.child(Key::Session(session), owner, false, shutdown)?, None)
            }
            (StdioEra::Legacy, Era::Modern) | (StdioEra::Modern, Era::Legacy) => {
                return Err(Refusal::Revision {
                    requested: call.revision.clone(),
                });
            }
        };
        let answer = self.exchange(&child, call, &outbound.body).await;
        let mut response = match answer {
            Ok(Some(line)) => {
                let mut response = Response::new(full(line));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            Ok(None) => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            Err(refusal) => {
                if new_session.is_some() {
                    child.stop.cancel();
                }
                return Err(refusal);
            }
        };
        if let Some(session) = new_session.and_then(|session| HeaderValue::try_from(session).ok()) {
            response.headers_mut().insert(SESSION, session);
        }
        Ok(response)
    }

    /// DELETE ends a session's program; there is no stream to GET.
    fn without_message(&self, outbound: &Outbound) -> Result<Response<Body>, Refusal> {
        if outbound.method != Method::DELETE {
            return Err(Refusal::Method {
                allow: "POST, DELETE",
            });
        }
        let session = outbound.session.clone().ok_or(Refusal::Session)?;
        let child = self.lock().remove(&Key::Session(session));
        child.ok_or(Refusal::Session)?.stop.cancel();
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    async fn exchange(&self, child: &Child, call: &Call, body: &[u8]) -> Result<Option<Bytes>, Refusal> {
        let gone = || Refusal::Upstream("the program ended");
        let mut line: Vec<u8> = body
            .iter()
            .map(|byte| {
                if matches!(byte, b'\r' | b'\n') {
                    b' '
                } else {
                    *byte
                }
            })
            .collect();
        line.push(b'\n');
        let Some(id) = &call.id else {
            let sent = tokio::time::timeout(self.limits.answer_timeout, child.input.send(line)).await;
            let sent = sent.map_err(|_| Refusal::Upstream("the program does not read"))?;
            sent.map_err(|_| gone())?;
            return Ok(None);
        };
        let waiting = Waiting::new(child, id.to_string())?;
        let exchange = async {
            child.input.send(line).await.map_err(|_| gone())?;
            waiting.answer.await.map_err(|_| gone())
        };
        match tokio::time::timeout(self.limits.answer_timeout, exchange).await {
            Err(_) => Err(Refusal::Upstream("the program did not answer in time")),
            Ok(answer) => answer.map(Some),
        }
    }

    fn child(
        &self,
        key: Key,
        owner: &Owner,
        may_start: bool,
        shutdown: &Shutdown,
    ) -> Result<Arc<Child>, Refusal> {
        let mut children = self.lock();
        children.retain(|_, child| !child.stop.is_cancelled());
        if let Some(child) = children.get(&key) {
            return Ok(Arc::clone(child));
        }
        if !may_start {
            return Err(Refusal::Session);
        }
        let owned = children.values().filter(|child| child.owner == *owner).count();
        let share = (self.max_children / OWNERS_SHARE).max(1);
        if children.len() >= self.max_children || owned >= share {
            return Err(Refusal::Children);
        }
        let child = self.start(owner, shutdown).map_err(|error| {
            tracing::error!(mcp.server = self.server, %error, "cannot start the program");
            Refusal::Upstream("the program cannot be started")
        })?;
        children.insert(key, Arc::clone(&child));
        Ok(child)
    }

    fn start(&self, owner: &Owner, shutdown: &Shutdown) -> io::Result<Arc<Child>> {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no command, or no pipe to it");
        let (program, arguments) = self.command.split_first().ok_or_else(missing)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        for (name, value) in &self.env {
            command.env(name, value.expose_str().map_err(io::Error::other)?);
        }
        let mut process = command.spawn()?;
        let stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        let (input, lines) = mpsc::channel(QUEUE);
        let child = Arc::new(Child {
            owner: owner.clone(),
            input: input.clone(),
            pending: Mutex::default(),
            stop: CancellationToken::new(),
        });
        shutdown.spawn(
            "stdio-reader",
            read(Arc::clone(&child), stdout, input, self.limits.max_list),
        );
        let (writer, stopping) = (Arc::clone(&child), shutdown.clone());
        let (idle, patience) = (self.idle, self.limits.answer_timeout);
        shutdown.spawn("stdio-writer", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = writer.stop.cancelled() => {}
                () = write(&writer, stdin, lines, idle, patience) => {}
            }
            writer.end();
            // `kill_on_drop` is for a runtime that ends; this waits until the process is gone.
            let _ = process.kill().await;
        });
        Ok(child)
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Child {
    fn pending(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Bytes>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more will be answered.
    fn end(&self) {
        self.stop.cancel();
        self.pending().clear();
    }
}

/// A request that waits for its answer; forgotten when dropped.
struct Waiting<'a> {
    answer: oneshot::Receiver<Bytes>,
    _forget: Forget<'a>,
}

struct Forget<'a> {
    child: &'a Child,
    id: String,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.child.pending().remove(&self.id);
    }
}

impl<'a> Waiting<'a> {
    fn new(child: &'a Child, id: String) -> Result<Self, Refusal> {
        let (send, answer) = oneshot::channel();
        let mut pending = child.pending();
        if child.stop.is_cancelled() {
            return Err(Refusal::Upstream("the program ended"));
        }
        if pending.contains_key(&id) {
            return Err(Refusal::Message("a request with this id is outstanding"));
        }
        pending.insert(id.clone(), send);
        drop(pending);
        Ok(Self {
            answer,
            _forget: Forget { child, id },
        })
    }
}

/// Writes lines until the program does not take one within `patience`, or nothing was asked of it for
/// `idle`.
async fn write(
    child: &Child,
    mut stdin: ChildStdin,
    mut lines: mpsc::Receiver<Vec<u8>>,
    idle: Duration,
    patience: Duration,
) {
    loop {
        match tokio::time::timeout(idle, lines.recv()).await {
            Ok(Some(line)) => {
                let written = async {
                    stdin.write_all(&line).await?;
                    stdin.flush().await
                };
                if !matches!(tokio::time::timeout(patience, written).await, Ok(Ok(()))) {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) if child.pending().is_empty() => return,
            Err(_) => {}
        }
    }
}

/// Reads lines until the program ends or sends one that is too long.
async fn read(child: Arc<Child>, stdout: ChildStdout, input: mpsc::Sender<Vec<u8>>, max: usize) {
    let mut reader = BufReader::new(stdout);
    loop {
        let line = tokio::select! {
            () = child.stop.cancelled() => break,
            line = read_line(&mut reader, max) => line,
        };
        let Ok(Some(line)) = line else { break };
        if let Some(reply) = take(&child, line, max) {
            // Never waited for: the program may be waiting for us to read.
            let _ = input.try_send(reply);
        }
    }
    child.end();
}

/// Hands an answer to its request; returns what is to be answered to a request of the program.
fn take(child: &Child, line: Vec<u8>, max: usize) -> Option<Vec<u8>> {
    let limits = JsonLimits {
        bytes: max,
        depth: 64,
        nodes: 1 << 20,
        elements: 1 << 18,
    };
    let Ok(message) = json::parse(&line, &limits) else {
        tracing::debug!("a program sent a line that is not strict JSON");
        return None;
    };
    let id = message.get("id").filter(|id| **id != Value::Null)?.to_string();
    let reply = match message.get("method").and_then(Value::as_str) {
        None => {
            if let Some(waiting) = child.pending().remove(&id) {
                let _ = waiting.send(Bytes::from(line));
            }
            return None;
        }
        Some("ping") => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
        Some(_) => {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no client can be asked"}}}}"#
            )
        }
    };
    Some(format!("{reply}\n").into_bytes())
}

async fn read_line(reader: &mut BufReader<ChildStdout>, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |at| at + 1);
        line.extend_from_slice(available.get(..end.unwrap_or(used)).unwrap_or_default());
        reader.consume(used);
        if line.len() > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

impl std::fmt::Debug for StdioUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioUpstream")
            .field("server", &self.server)
            .field("era", &self.era)
            .finish_non_exhaustive()
    }
}
