//! Whether anything grows with uptime: an even load for minutes, beside streams that stay open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::load;
use crate::process::Process;
use crate::roles::FIRST_EVENT;
use crate::world::{Memory, Recording, World};

const CONNECTIONS: usize = 16;
const STREAMS: usize = 100;
/// How long a proof is remembered, in minutes: until then memory grows, because more and more are.
const REMEMBERED: usize = 6;
/// How much more memory may be in use at the end than when no more proofs are remembered.
const MORE_MEMORY: f64 = 1.05;
/// Of the p99, which is noisier: what disturbs the machine disturbs it.
const SLOWER: f64 = 1.5;

struct Minute {
    memory: u64,
    p99: Duration,
}

/// Runs for so many minutes, with a line for each, and fails if memory or latency grew.
///
/// # Errors
/// When something grew, or a call is not answered as it should be.
pub(crate) async fn bench(program: &Path, minutes: usize, per_second: usize) -> anyhow::Result<()> {
    ensure!(
        minutes >= REMEMBERED + 4,
        "a proof is remembered for {REMEMBERED} minutes, so at least {} are needed",
        REMEMBERED + 4
    );
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let world = World::start(program, &dir.path().join("proxy"), &server.url, Memory::On)?;
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
        let (memory, p99) = (proxy.memory()?, run.at(0.99));
        println!(
            "{minute:>6} {:>8} {:>8.2} {:>8.2} {:>12.0} {:>8.1} {:>6}",
            run.latencies.len(),
            run.at(0.5).as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e6 / run.latencies.len() as f64,
            memory as f64 / 1024.0 / 1024.0,
            proxy.files()?
        );
        all.push(Minute { memory, p99 });
    }
    // Each judged by the least of two minutes: what disturbs the machine for one is no growth.
    let settled = all.get(REMEMBERED..REMEMBERED + 2).unwrap_or_default();
    let first = all.get(1..3).unwrap_or_default();
    let last = all.get(minutes - 2..).unwrap_or_default();
    let memory = |of: &[Minute]| of.iter().map(|one| one.memory).min().unwrap_or_default() as f64;
    let p99 = |of: &[Minute]| {
        of.iter()
            .map(|one| one.p99)
            .min()
            .unwrap_or_default()
            .as_secs_f64()
    };
    let (grown, slower) = (memory(last) / memory(settled), p99(last) / p99(first));
    println!("\nmemory x {grown:.3} since minute {REMEMBERED}, p99 x {slower:.2} since the beginning");
    ensure!(grown <= MORE_MEMORY, "memory grew by more than x {MORE_MEMORY}");
    ensure!(slower <= SLOWER, "the p99 grew by more than x {SLOWER}");
    println!("nothing grew");
    Ok(())
}
