//! The processes of one program: its start, its pipes, and its end with everything that it started.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use taper_service::secret::Secret;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::lines::{Message, read_line};
use super::program::{Input, Program};
use crate::config::{Limits, StdioStderr};

/// How long a program may take to end after its input did.
const GRACE: Duration = Duration::from_secs(1);
/// The longest line of the standard error that is logged, in bytes.
const MAX_LOGGED: usize = 1024;

/// How to start a program.
pub(super) struct Start<'a> {
    pub(super) command: &'a [String],
    pub(super) env: &'a [(String, Secret)],
    pub(super) stderr: StdioStderr,
    pub(super) limits: Limits,
    pub(super) idle: Duration,
}

/// Starts `program` and the tasks that serve its pipes.
///
/// # Errors
/// When there is no such command, or it cannot be started.
pub(super) fn start(
    start: &Start<'_>,
    program: &Arc<Program>,
    input: Input,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::BrokenPipe, "no pipe to it");
    let mut command = command(start.command, start.env)?;
    command.stderr(match start.stderr {
        StdioStderr::Drop => Stdio::null(),
        StdioStderr::Log => Stdio::piped(),
    });
    let mut process = command.spawn()?;
    let stdin = process.stdin.take().ok_or_else(missing)?;
    let stdout = process.stdout.take().ok_or_else(missing)?;
    let silent = CancellationToken::new();
    let max = start.limits.max_list;
    shutdown.spawn(
        "stdio-reader",
        read(Arc::clone(program), stdout, max, silent.clone()),
    );
    if let Some(stderr) = process.stderr.take() {
        shutdown.spawn("stdio-stderr", log(Arc::clone(program), stderr));
    }
    let (program, stopping) = (Arc::clone(program), shutdown.clone());
    let (idle, patience) = (start.idle, start.limits.answer_timeout);
    shutdown.spawn("stdio-program", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = program.stop.cancelled() => {}
            () = write(stdin, input, patience) => {}
            () = program.until_idle(idle) => {}
        }
        program.end();
        // Its input is closed now, which asks it to end.
        let _ = tokio::time::timeout(GRACE, silent.cancelled()).await;
        end(&mut process).await;
        program.gone.cancel();
    });
    Ok(())
}

/// The command in a group and an environment of its own, with pipes to and from it.
fn command(command: &[String], env: &[(String, Secret)]) -> io::Result<Command> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no command");
    let (name, arguments) = command.split_first().ok_or_else(missing)?;
    let mut command = Command::new(name);
    command.args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    #[cfg(unix)]
    command.process_group(0);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    for (name, value) in env {
        command.env(name, value.expose_str().map_err(io::Error::other)?);
    }
    Ok(command)
}

/// A program without tasks, for one talk. Dropped, it ends with everything that it started.
pub(in crate::upstream) struct Lone(Child);

impl Lone {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no such command, or it cannot be started.
    pub(super) fn start(of: &[String], env: &[(String, Secret)]) -> io::Result<Self> {
        let mut command = command(of, env)?;
        command.stderr(Stdio::null());
        command.spawn().map(Self)
    }

    /// Its input and its output, once.
    pub(in crate::upstream) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.0.stdin.take()?, self.0.stdout.take()?))
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        kill_group(&self.0);
    }
}

/// Ends the program and what it started. The program is not waited for before, so that the number of
/// its group cannot belong to others by now.
async fn end(process: &mut Child) {
    kill_group(process);
    let _ = process.kill().await;
}

fn kill_group(process: &Child) {
    #[cfg(unix)]
    {
        let id = process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Writes lines until the program does not take one within `patience`.
async fn write(mut stdin: ChildStdin, mut input: Input, patience: Duration) {
    loop {
        // A cancellation must not overtake the request that it cancels.
        let line = tokio::select! {
            biased;
            line = input.lines.recv() => line,
            line = input.replies.recv() => line,
        };
        let Some(line) = line else { return };
        let written = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        if !matches!(tokio::time::timeout(patience, written).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Reads messages until the program's output ends, or has a line that is too long.
async fn read(program: Arc<Program>, stdout: ChildStdout, max: usize, silent: CancellationToken) {
    let mut reader = BufReader::new(stdout);
    let mut skipped = 0_u64;
    loop {
        let line = tokio::select! {
            () = program.gone.cancelled() => break,
            line = read_line(&mut reader, max) => line,
        };
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(mcp.server = program.server, %error, "the output of the program cannot be read");
                break;
            }
        };
        match Message::read(line) {
            Some(message) => tokio::select! {
                () = program.gone.cancelled() => break,
                () = program.deliver(message) => {}
            },
            None => {
                skipped = skipped.saturating_add(1);
                tracing::debug!(
                    mcp.server = program.server,
                    skipped,
                    "the program wrote a line that is no message"
                );
            }
        }
    }
    program.end();
    silent.cancel();
}

/// Logs the standard error, escaped and in bounded lines.
async fn log(program: Arc<Program>, stderr: ChildStderr) {
    let mut reader = BufReader::new(stderr);
    loop {
        let text = tokio::select! {
            () = program.gone.cancelled() => return,
            text = text_line(&mut reader) => text,
        };
        let Ok(Some(text)) = text else { return };
        let text = String::from_utf8_lossy(&text);
        tracing::debug!(mcp.server = program.server, ?text, "the program says");
    }
}

/// The next line, or the next part of a long one.
async fn text_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<Vec<u8>>> {
    use tokio::io::AsyncBufReadExt as _;
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let left = MAX_LOGGED.saturating_sub(line.len());
        let end = available.iter().take(left).position(|byte| *byte == b'\n');
        let used = end.map_or(available.len().min(left), |at| at + 1);
        line.extend_from_slice(available.get(..end.unwrap_or(used)).unwrap_or_default());
        reader.consume(used);
        if end.is_some() || line.len() >= MAX_LOGGED {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_logged_comes_in_bounded_lines() {
        let text = format!("one\n\n{}\nrest", "x".repeat(MAX_LOGGED + 5));
        let mut reader = BufReader::new(text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = text_line(&mut reader).await.unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [3, 0, MAX_LOGGED, 5, 4]);
    }
}
