//! Whether anything grows with uptime: an even load for minutes, beside streams that stay open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::load;
use crate::process::Process;
use crate::roles::FIRST_EVENT;
use crate::world::{Recording, Setup, World};

const CONNECTIONS: usize = 16;
const STREAMS: usize = 100;
/// How long a proof is remembered, in minutes: until then memory grows, because more and more are.
const REMEMBERED: usize = 7;
/// Minutes after that which show whether anything still grows.
const LEAST: usize = 3;
/// By how many MiB a minute memory may grow then, along the line that fits best.
const GROWTH: f64 = 1.0;
/// How many files more may be open at the end than in the first minute: connections to the server come and go.
const MORE_FILES: usize = 32;
/// How often the p99 may be slower, which is noisier: what disturbs the machine disturbs it.
const SLOWER: f64 = 1.5;
/// Less than this more is noise, in milliseconds.
const NOISE: f64 = 5.0;

struct Minute {
    /// In MiB.
    memory: f64,
    p99: Duration,
    files: usize,
}

/// Runs for so many minutes, with a line for each, and fails if memory or latency grew.
///
/// # Errors
/// When something grew, or a call is not answered as it should be.
pub(crate) async fn bench(program: &Path, minutes: usize, per_second: usize) -> anyhow::Result<()> {
    ensure!(
        minutes >= REMEMBERED + LEAST,
        "a proof is remembered for {REMEMBERED} minutes, so at least {} are needed",
        REMEMBERED + LEAST
    );
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let world = World::start(program, &dir.path().join("proxy"), &server.url, Setup::KNOWN)?;
    let proxy = &world.proxy;
    let open = load::open(proxy.address(), world.streams(STREAMS)?, FIRST_EVENT).await?;
    let callers = Arc::new(world.callers(Recording::Before, 5)?);
    println!(
        "tools/call, 5 hand-overs, known chain, journal first, {per_second} a second, {} streams open\n",
        open.len()
    );
    println!(
        "{:>6} {:>8} {:>8} {:>8} {:>12} {:>8} {:>6}",
        "minute", "calls", "p50 ms", "p99 ms", "CPU-µs/call", "MiB", "files"
    );
    let mut all = Vec::new();
    for minute in 1..=minutes {
        let callers = Arc::clone(&callers);
        let make = move |n: usize| callers.get(n % callers.len()).context("no caller")?.call();
        let before = proxy.cpu()?;
        let run = load::paced(
            proxy.address(),
            CONNECTIONS,
            per_second,
            Duration::from_secs(60),
            make,
        )
        .await?;
        let used = proxy.cpu()?.saturating_sub(before);
        let memory = proxy.memory()? as f64 / 1024.0 / 1024.0;
        let (p99, files) = (run.at(0.99), proxy.files()?);
        println!(
            "{minute:>6} {:>8} {:>8.2} {:>8.2} {:>12.0} {:>8.1} {:>6}",
            run.latencies.len(),
            run.at(0.5).as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e6 / run.latencies.len() as f64,
            memory,
            files
        );
        all.push(Minute { memory, p99, files });
    }
    let growth = slope(all.iter().skip(REMEMBERED).map(|minute| minute.memory));
    // Each judged by the least of two minutes: what disturbs the machine for one is no growth.
    let p99 = |of: &[Minute]| {
        of.iter()
            .map(|one| one.p99)
            .min()
            .unwrap_or_default()
            .as_secs_f64()
    };
    let (last, first) = (
        p99(all.get(minutes - 2..).unwrap_or_default()),
        p99(all.get(1..3).unwrap_or_default()),
    );
    let slower = last / first;
    let files = |minute: Option<&Minute>| minute.map_or(0, |minute| minute.files);
    let more_files = files(all.last()).saturating_sub(files(all.first()));
    println!(
        "\nmemory {growth:+.2} MiB a minute after minute {REMEMBERED}, p99 x {slower:.2} and {more_files} files more since \
         the beginning"
    );
    ensure!(
        growth <= GROWTH,
        "memory grows by more than {GROWTH} MiB a minute"
    );
    let is_noise = (last - first) * 1e3 < NOISE;
    ensure!(
        slower <= SLOWER || is_noise,
        "the p99 grew by more than x {SLOWER} and {NOISE} ms"
    );
    ensure!(more_files <= MORE_FILES, "more than {MORE_FILES} files stay open");
    println!("nothing grew");
    Ok(())
}

/// By how much values grow from one to the next, along the line that fits them best.
fn slope(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let from_middle = |n: usize| n as f64 - middle;
    let rise: f64 = values
        .iter()
        .enumerate()
        .map(|(n, value)| from_middle(n) * (value - mean))
        .sum();
    rise / (0..values.len()).map(|n| from_middle(n).powi(2)).sum::<f64>()
}
