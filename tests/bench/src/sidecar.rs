//! What `taper bridge` adds to a call: one client, one call at a time, that signs itself, or leaves it to the
//! sidecar over HTTP or lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::load;
use crate::process::Process;
use crate::world::{CALL, Recording, Setup, World, bare_call};

/// Measures the three in turns, and prints a line for each.
///
/// # Errors
/// When a program does not start, or a call is not answered as it should be.
pub(crate) async fn bench(program: &Path, requests: usize, rounds: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let world = World::start(program, &dir.path().join("proxy"), &server.url, Setup::KNOWN)?;
    // As many links as the sidecar's: it hands the capability over once.
    let direct = world.caller(Recording::Async, 1)?;
    let held = world.caller(Recording::Async, 0)?;
    std::fs::write(dir.path().join("token"), held.token())?;
    write_private(&dir.path().join("key.jwk"), &held.key())?;
    let over_http = listening(program, dir.path(), held.url())?;
    let mut over_lines = Lines::start(program, dir.path(), held.url())?;
    let mut figures: [Vec<load::Run>; 3] = Default::default();
    for round in 0..=rounds {
        let path = over_http
            .url
            .split_once(over_http.address())
            .map_or("", |(_, path)| path);
        let call = bare_call(over_http.address(), path);
        let runs = [
            load::one_by_one(world.proxy.address(), requests, || direct.call()).await?,
            load::one_by_one(over_http.address(), requests, || Ok(call.clone())).await?,
            over_lines.run(requests)?,
        ];
        // The first round warms up.
        if round > 0 {
            for (all, run) in figures.iter_mut().zip(runs) {
                all.push(run);
            }
        }
    }
    println!("tools/call, one at a time, {requests} a turn, medians of {rounds} rounds\n");
    println!("{:<46} {:>8} {:>8} {:>10}", "", "p50 ms", "p99 ms", "added p50");
    let names = ["the client signs", "taper bridge, HTTP", "taper bridge, lines"];
    let median = |runs: &[load::Run], part: f64| {
        let mut values: Vec<Duration> = runs.iter().map(|run| run.at(part)).collect();
        values.sort_unstable();
        values
            .get(values.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
            * 1e3
    };
    let base = figures.first().map_or(f64::NAN, |runs| median(runs, 0.5));
    for (name, runs) in names.iter().zip(&figures) {
        let (p50, p99) = (median(runs, 0.5), median(runs, 0.99));
        println!("{name:<46} {p50:>8.2} {p99:>8.2} {:>10.2}", p50 - base);
    }
    Ok(())
}

fn command(program: &Path, dir: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .args(["bridge", "--url", url, "--token", "token", "--key", "key.jwk"]);
    command.stdout(Stdio::piped());
    command
}

/// The sidecar as a listener that asks for no secret.
fn listening(program: &Path, dir: &Path, url: &str) -> anyhow::Result<Process> {
    let mut child = command(program, dir, url)
        .args(["--listen", "127.0.0.1:0", "--no-secret", "--format", "json"])
        .stdin(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
    let ready: serde_json::Value = serde_json::from_str(&line).context("the bridge did not start")?;
    let url = ready
        .get("url")
        .and_then(serde_json::Value::as_str)
        .context("no url")?;
    Ok(Process::new(child, url.to_owned()))
}

/// The sidecar as a client starts it.
struct Lines {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Lines {
    fn start(program: &Path, dir: &Path, url: &str) -> anyhow::Result<Self> {
        let mut child = command(program, dir, url).stdin(Stdio::piped()).spawn()?;
        let to = child.stdin.take().context("no pipe")?;
        let from = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, to, from })
    }

    fn run(&mut self, requests: usize) -> anyhow::Result<load::Run> {
        let begun = Instant::now();
        let (line, mut answer) = (format!("{CALL}\n"), String::new());
        let mut latencies = Vec::with_capacity(requests);
        for _ in 0..requests {
            let begun = Instant::now();
            self.to.write_all(line.as_bytes())?;
            answer.clear();
            self.from.read_line(&mut answer)?;
            latencies.push(begun.elapsed());
            ensure!(answer.contains("\"result\""), "not the server's answer: {answer}");
        }
        latencies.sort_unstable();
        Ok(load::Run {
            took: begun.elapsed(),
            latencies,
        })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
