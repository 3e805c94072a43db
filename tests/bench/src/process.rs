//! Programs that run beside this one, and the CPU time that they use.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// A program, killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it answers: `http://ADDRESS/PATH`.
    pub(crate) url: String,
}

impl Process {
    /// Starts this program in another role and waits until it says where it is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn role(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().to_owned();
        Ok(Self { child, url })
    }

    /// Takes over a program that answers at `url`.
    pub(crate) fn new(child: Child, url: String) -> Self {
        Self { child, url }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        let rest = self.url.split("://").nth(1).unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// CPU time so far, user and system, of all its threads, in steps of a clock tick (proc_pid_stat(5)).
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }
}

/// The same of this program.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    cpu_of("self")
}

fn cpu_of(process: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; two of the fields after it are the times.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || -> anyhow::Result<u64> { Ok(times.next().context("too short")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that is resident, in bytes (proc_pid_status(5)).
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no memory")?.parse::<u64>()? * 1024)
    }

    /// Files and connections that it has open.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn files(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
