//! What a command runs in: where it reads and writes, which form a result has, which clock holds.
//!
//! Results go to stdout, talk goes to stderr, and nothing else in this program writes to either.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, IsTerminal as _, Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::pin::Pin;

use clap::ValueEnum;
use serde_json::Value;
use taper_capability::Token;
use taper_service::clock::{SharedClock, SystemClock};
use taper_service::secret;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Steps of tasks after which a thread of the runtime looks for connections that are ready, and for tasks from elsewhere.
const EVENTS_EVERY: u32 = 11;

/// The largest input that is read, in bytes.
const MAX_INPUT: u64 = 1024 * 1024;

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// What a command runs in.
pub(crate) struct Context {
    format: Format,
    clock: SharedClock,
    stdin: Option<Box<dyn Read>>,
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    colour: bool,
}

impl Context {
    /// The process's own streams and the system's clock.
    pub(crate) fn of_process(format: Format) -> Self {
        Self {
            format,
            clock: SystemClock::shared(),
            stdin: Some(Box::new(io::stdin())),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// The clock.
    pub(crate) fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// Seconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        self.clock.unix()
    }

    /// Writes the result: `text` for people, `json` for programs, each with a line end.
    pub(crate) fn result(&mut self, text: impl fmt::Display, json: &Value) -> Result<(), Failure> {
        let written = match self.format {
            Format::Text => writeln!(self.stdout, "{text}"),
            Format::Json => writeln!(self.stdout, "{json}"),
        };
        finished(written.and_then(|()| self.stdout.flush()))
    }

    /// Writes the result for programs; to a person everything was said.
    pub(crate) fn program(&mut self, json: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => self.result("", json),
        }
    }

    /// Writes bytes of a result as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stdout.write_all(bytes);
        finished(written.and_then(|()| self.stdout.flush()))
    }

    /// Tells a person a part of a long result as it comes; a program gets the whole at the end.
    pub(crate) fn tell(&mut self, text: &str) {
        if self.format == Format::Text {
            // A reader that went away does not change the outcome, which the exit code says.
            let _ = writeln!(self.stdout, "{text}").and_then(|()| self.stdout.flush());
        }
    }

    /// Says something about the result to a person; programs get it in the result itself.
    pub(crate) fn talk(&mut self, text: impl fmt::Display) {
        if self.format == Format::Text {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(self.stderr, "{text}");
        }
    }

    /// Says why the command did not succeed.
    pub(crate) fn report(&mut self, failure: &Failure) {
        let _ = match (self.format, self.colour) {
            (Format::Json, _) => writeln!(self.stderr, "{}", failure.to_json()),
            (Format::Text, true) => writeln!(self.stderr, "\u{1b}[1;31merror\u{1b}[0m: {failure}"),
            (Format::Text, false) => writeln!(self.stderr, "error: {failure}"),
        };
    }

    /// Reads a file, or stdin for `-`; at most a mebibyte.
    pub(crate) fn read(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let named = if path == "-" { "stdin" } else { shown(path) };
        let failed = |e: io::Error| Failure::failed(format!("cannot read `{named}`: {e}"));
        let source: Box<dyn Read> = if path == "-" {
            self.stdin
                .take()
                .ok_or_else(|| Failure::usage("only one argument can be `-`, stdin is read once"))?
        } else {
            Box::new(File::open(path).map_err(failed)?)
        };
        let mut bytes = Zeroizing::new(Vec::new());
        source
            .take(MAX_INPUT + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_INPUT {
            return Err(Failure::failed(format!(
                "`{named}` is larger than {MAX_INPUT} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Reads text, less white space around it.
    pub(crate) fn read_text(&mut self, path: &str) -> Result<Zeroizing<String>, Failure> {
        let bytes = self.read(path)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::failed(format!("`{path}` is not UTF-8 text")))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    /// Reads a capability.
    pub(crate) fn read_token(&mut self, path: &str) -> Result<Token, Failure> {
        let text = self.read_text(path)?;
        Token::parse(&text).map_err(|e| {
            Failure::failed(format!("`{}` holds no capability: {e}", shown(path)))
                .next("`taper exchange` gets one")
        })
    }

    /// Delivers a capability: to a private file, or as the result on stdout.
    pub(crate) fn deliver(&mut self, token: &Token, out: &str, json: Value) -> Result<(), Failure> {
        if out == "-" {
            let mut json = json;
            if let Value::Object(members) = &mut json {
                members.insert("token".to_owned(), token.as_str().into());
            }
            return self.result(token.as_str(), &json);
        }
        spare_key(Path::new(out))?;
        let line = Zeroizing::new(format!("{}\n", token.as_str()));
        secret::write_private_file(Path::new(out), line.as_bytes()).map_err(Failure::failed)?;
        self.program(&json)
    }

    /// Runs a future to its end on a runtime of its own.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // What counts threads of the runtime counts processors (`CpuPool`).
            .worker_threads(threads)
            // A thread that passes floods on looks often at who else has come.
            .event_interval(EVENTS_EVERY)
            .global_queue_interval(EVENTS_EVERY)
            .enable_all()
            .build()
            .map_err(|e| Failure::failed(format!("cannot start the runtime: {e}")))?;
        Ok(run_on(&runtime, future))
    }
}

/// Runs a future to its end. It is boxed: the runtime would compile each command several times, once for each way of
/// waiting that it has.
pub(crate) fn run_on<'a, T>(runtime: &Runtime, future: impl Future<Output = T> + 'a) -> T {
    let future: Pin<Box<dyn Future<Output = T> + 'a>> = Box::pin(future);
    runtime.block_on(future)
}

/// Refuses to put something else in the place of a private key.
pub(crate) fn spare_key(out: &Path) -> Result<(), Failure> {
    match taper_agent::keyfile::load(out) {
        Ok(_) => Err(Failure::usage(format!("`{}` holds a private key", out.display()))
            .next("`--out` with another file")),
        Err(_) => Ok(()),
    }
}

/// A file's name as it may be shown: what looks like a token was put where its file's name belongs.
pub(crate) fn shown(path: &str) -> &str {
    let is_token = path.starts_with("eyJ") || (path.len() > 200 && !path.contains('/'));
    if is_token {
        "(a secret in place of a file's name)"
    } else {
        path
    }
}

/// A reader that has seen enough (`taper … | head`) is no failure.
fn finished(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex};

    use taper_service::clock::ManualClock;

    use super::*;

    /// The time in tests: 2026-01-31T09:30:00Z.
    pub(crate) const NOW: i64 = 1_769_851_800;

    /// What a command under test wrote.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn json(&self) -> Value {
            serde_json::from_str(&self.text()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A context with this stdin at [`NOW`], and what goes to stdout and stderr.
    pub(crate) fn context(format: Format, stdin: &str) -> (Context, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let context = Context {
            format,
            clock: ManualClock::shared(NOW),
            stdin: Some(Box::new(io::Cursor::new(stdin.to_owned().into_bytes()))),
            stdout: Box::new(out.clone()),
            stderr: Box::new(err.clone()),
            colour: false,
        };
        (context, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::context;
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn results_and_talk_go_their_own_ways() {
        let (mut text, out, err) = context(Format::Text, "");
        text.result("a", &Value::from(1)).unwrap();
        text.talk("b");
        text.report(&Failure::failed("c").next("d"));
        assert_eq!(
            (out.text(), err.text()),
            ("a\n".into(), "b\nerror: c\n  next: d\n".into())
        );
        let (mut json, out, err) = context(Format::Json, "");
        json.result("a", &Value::from(1)).unwrap();
        json.talk("b");
        json.report(&Failure::failed("c"));
        assert_eq!(out.text(), "1\n");
        assert_eq!(err.text(), "{\"error\":\"c\",\"kind\":\"failure\"}\n");
    }

    #[test]
    fn stdin_is_read_once() {
        let (mut context, _, _) = context(Format::Text, " x\n");
        assert_eq!(*context.read_text("-").unwrap(), "x");
        assert_eq!(context.read_text("-").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn input_is_bounded() {
        let (mut context, _, _) = context(Format::Text, &"x".repeat(MAX_INPUT as usize + 1));
        assert!(context.read("-").unwrap_err().to_string().contains("larger than"));
    }
}
