//! The bridge for a client that starts it: one message a line on standard input and output.

mod message;
mod params;
mod session;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::session::{Bounds, CallId, Input, Output, Session};
use super::channel::{Channel, Upward};
use super::trouble::Trouble;

/// The largest answer that is not a stream, and the largest event, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Reports of the proxy that wait for the client to read.
const MAX_REPORTS: usize = 64;

/// Carries messages between a client and the proxy, until the client closes `input` and has its answers, or
/// `shutdown` is triggered. Nothing but messages is written to `output`.
///
/// # Errors
/// When `output` cannot be written: the client is gone.
pub async fn run<R, W>(channel: Arc<Channel>, input: R, mut output: W, shutdown: &Shutdown) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin,
{
    let limits = channel.limits();
    let bounds = Bounds {
        line: limits.max_body,
        answer: MAX_ANSWER,
        running: limits.max_running,
    };
    let (to_lines, mut lines) = mpsc::channel(1);
    let reading = shutdown.spawn("lines", read_lines(input, bounds.line, to_lines));
    let (reports, mut reported) = mpsc::channel(MAX_REPORTS);
    let mut session = Session::new(bounds);
    let mut running = Running {
        channel,
        reports,
        shutdown: shutdown.clone(),
        tasks: BTreeMap::new(),
        opened: 0,
    };
    // The machine's clock may be set back; what is waited for is a span of time.
    let begun = Instant::now();
    let passed = || i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let mut stopped = false;
    let end = 'session: loop {
        let due = session.deadline().map(|at| at.saturating_sub(passed()));
        let due = due.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0)));
        let input = tokio::select! {
            line = lines.recv(), if session.takes_lines() => line.unwrap_or(Input::Closed),
            Some(report) = reported.recv() => match running.take(report) {
                Some(input) => input,
                None => continue,
            },
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => Input::Tick,
            () = shutdown.cancelled(), if !stopped => {
                stopped = true;
                Input::Stop
            }
        };
        for output_of in session.step(input, passed()) {
            match output_of {
                Output::Open(call, request) => running.open(call, request),
                Output::Drop(call) => running.drop(call),
                Output::Write(line) => {
                    let written = tokio::select! {
                        written = write(&mut output, &line) => written,
                        () = told_to_end(shutdown) => Err(io::ErrorKind::TimedOut.into()),
                    };
                    if let Err(error) = written {
                        break 'session Err(error);
                    }
                }
                Output::Done => break 'session Ok(()),
            }
        }
    };
    reading.abort();
    running.end();
    end
}

async fn write(output: &mut (impl AsyncWrite + Unpin), line: &Bytes) -> io::Result<()> {
    // In one piece, so that what else writes to the same pipe cannot come between a message and its end.
    let mut whole = Vec::with_capacity(line.len() + 1);
    whole.extend_from_slice(line);
    whole.push(b'\n');
    output.write_all(&whole).await?;
    output.flush().await
}

/// A client that does not read must not hold up the end for longer than this.
async fn told_to_end(shutdown: &Shutdown) {
    const PATIENCE: Duration = Duration::from_secs(2);
    shutdown.cancelled().await;
    tokio::time::sleep(PATIENCE).await;
}

/// What an exchange reports, and of which call and opening.
struct Report {
    call: CallId,
    opened: u64,
    input: Input,
}

/// The exchanges that are under way. Each report names the opening that it is of: what a dropped exchange
/// still said is of nobody.
struct Running {
    channel: Arc<Channel>,
    reports: mpsc::Sender<Report>,
    shutdown: Shutdown,
    tasks: BTreeMap<CallId, (u64, AbortHandle)>,
    opened: u64,
}

impl Running {
    fn open(&mut self, call: CallId, request: Upward) {
        self.drop(call);
        self.opened += 1;
        let exchange = exchange(
            Arc::clone(&self.channel),
            request,
            call,
            self.opened,
            self.reports.clone(),
        );
        let task = self.shutdown.spawn("exchange", exchange);
        self.tasks.insert(call, (self.opened, task));
    }

    fn drop(&mut self, call: CallId) {
        if let Some((_, task)) = self.tasks.remove(&call) {
            task.abort();
        }
    }

    /// What a report says, if it is of an exchange that is under way. Its last one ends it.
    fn take(&mut self, report: Report) -> Option<Input> {
        let (opened, _) = self.tasks.get(&report.call)?;
        if *opened != report.opened {
            return None;
        }
        if matches!(report.input, Input::End(_) | Input::Failed(..)) {
            self.tasks.remove(&report.call);
        }
        Some(report.input)
    }

    fn end(self) {
        for (_, task) in self.tasks.into_values() {
            task.abort();
        }
    }
}

/// One request and its answer, reported as they go.
async fn exchange(
    channel: Arc<Channel>,
    request: Upward,
    call: CallId,
    opened: u64,
    reports: mpsc::Sender<Report>,
) {
    let report_of = |input| Report { call, opened, input };
    let mut answer = match channel.send(&request).await {
        Ok(answer) => answer,
        Err(trouble) => {
            // Nobody to tell: the session has ended.
            let _ = reports.send(report_of(Input::Failed(call, trouble))).await;
            return;
        }
    };
    let mut report = Input::Head(call, answer.status, answer.headers);
    loop {
        let last = matches!(report, Input::End(_) | Input::Failed(..));
        if reports.send(report_of(report)).await.is_err() || last {
            return;
        }
        report = match answer.body.chunk().await {
            Ok(Some(bytes)) => Input::Data(call, bytes),
            Ok(None) => Input::End(call),
            Err(error) => Input::Failed(call, Trouble::from(error)),
        };
    }
}

/// Reads lines of at most `max` bytes. What is longer is passed over, and told.
async fn read_lines(mut input: impl AsyncRead + Unpin, max: usize, lines: mpsc::Sender<Input>) {
    const CHUNK: usize = 64 * 1024;
    let mut buffer = vec![0; CHUNK];
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        // A broken pipe is an end like any other.
        let read = input.read(&mut buffer).await.unwrap_or(0);
        let chunk = buffer.get(..read).unwrap_or_default();
        let mut parts = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            too_long |= part.len() > max.saturating_sub(line.len());
            if !too_long {
                line.extend_from_slice(part);
            }
            let is_whole = parts.peek().is_some() || (read == 0 && (too_long || !line.is_empty()));
            if is_whole {
                let whole = std::mem::take(&mut line);
                let input = match std::mem::take(&mut too_long) {
                    true => Input::TooLong,
                    false => Input::Line(whole.into()),
                };
                if lines.send(input).await.is_err() {
                    return;
                }
            }
        }
        if read == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
