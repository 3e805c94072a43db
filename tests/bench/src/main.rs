//! What a `tools/call` costs the proxy, beside a proxy on hyper that looks at nothing.
//!
//! ```text
//! cargo build --release -p taper
//! cargo run --release -p taper-bench -- target/release/taper [REQUESTS] [ROUNDS]
//! cargo run --release -p taper-bench -- target/release/taper bridge [REQUESTS] [ROUNDS]
//! ```
//!
//! All programs run on this machine. They take turns, in rounds, so that what disturbs the machine
//! disturbs all of them. CPU time is the proxy's own, of all its threads; the ratio is that of medians to
//! the plain proxy's. Every request has a proof of its own, signed beforehand, and the plain proxy gets
//! the same bytes.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod load;
mod process;
mod roles;
mod sidecar;
mod world;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::process::Process;
use crate::world::{Memory, Recording, World, bare_calls};

const CONNECTIONS: usize = 16;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server"] => roles::server().await,
        ["plain", upstream] => roles::plain(upstream).await,
        [program, "bridge", rest @ ..] => {
            let number = |n: usize, or: usize| rest.get(n).map_or(Ok(or), |text| text.parse());
            let program = std::path::absolute(program)?;
            sidecar::bench(&program, number(0, 2_000)?, number(1, 3)?).await
        }
        [program, rest @ ..] => {
            let number = |n: usize, or: usize| rest.get(n).map_or(Ok(or), |text| text.parse());
            let program = std::path::absolute(program)?;
            bench(&program, number(0, 5_000)?, number(1, 5)?).await
        }
        [] => bail!("usage: taper-bench PROGRAM [bridge] [REQUESTS] [ROUNDS], where PROGRAM is taper's"),
    }
}

/// What takes its turn.
#[derive(Clone, Copy)]
enum Side {
    Direct,
    Plain,
    Taper(Memory, Recording, usize),
}

impl Side {
    fn name(self) -> String {
        match self {
            Self::Direct => "no proxy (the server's own CPU)".to_owned(),
            Self::Plain => "plain proxy on hyper, the same bytes".to_owned(),
            Self::Taper(memory, recording, hand_overs) => {
                let journal = match recording {
                    Recording::Before => "journal first",
                    Recording::Async => "journal after",
                };
                let chain = match memory {
                    Memory::On => "known",
                    Memory::Off => "new",
                };
                format!("taper, {hand_overs} hand-overs, {chain} chain, {journal}")
            }
        }
    }
}

const SIDES: [Side; 10] = [
    Side::Direct,
    Side::Plain,
    Side::Taper(Memory::Off, Recording::Async, 0),
    Side::Taper(Memory::Off, Recording::Async, 3),
    Side::Taper(Memory::Off, Recording::Async, 5),
    Side::Taper(Memory::On, Recording::Async, 0),
    Side::Taper(Memory::On, Recording::Async, 3),
    Side::Taper(Memory::On, Recording::Async, 5),
    Side::Taper(Memory::On, Recording::Before, 0),
    Side::Taper(Memory::On, Recording::Before, 5),
];

#[derive(Clone, Copy, Default)]
struct Figures {
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Microseconds of CPU for one request.
    cpu: f64,
}

async fn bench(program: &Path, requests: usize, rounds: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let plain = Process::role(&["plain", &server.url])?;
    let start = |name: &str, memory| World::start(program, &dir.path().join(name), &server.url, memory);
    let (forgetful, mindful) = (start("new", Memory::Off)?, start("known", Memory::On)?);
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); SIDES.len()];
    for round in 0..=rounds {
        for (side, all) in SIDES.iter().zip(&mut figures) {
            let (process, calls) = match *side {
                Side::Direct => (&server, bare_calls(server.address(), requests)),
                // Headers and body are those of a call that taper checks.
                Side::Plain => (&plain, mindful.calls(Recording::Async, 0, requests)?),
                Side::Taper(memory, recording, hand_overs) => {
                    let world = if memory == Memory::On {
                        &mindful
                    } else {
                        &forgetful
                    };
                    (&world.proxy, world.calls(recording, hand_overs, requests)?)
                }
            };
            let before = process.cpu()?;
            let run = load::run(process.address(), calls, CONNECTIONS)
                .await
                .with_context(|| side.name())?;
            let used = process.cpu()?.saturating_sub(before);
            // The first round warms up.
            if round > 0 {
                all.push(Figures {
                    rate: run.rate(),
                    p50: run.at(0.5),
                    p99: run.at(0.99),
                    cpu: used.as_secs_f64() * 1e6 / requests as f64,
                });
            }
        }
    }
    println!(
        "tools/call, {CONNECTIONS} connections, {requests} requests a turn, medians of {rounds} rounds\n"
    );
    println!(
        "{:<46} {:>8} {:>8} {:>8} {:>10} {:>9}",
        "", "req/s", "p50 ms", "p99 ms", "CPU-µs/req", "x plain"
    );
    let medians: Vec<Figures> = figures.iter().map(|all| median(all)).collect();
    let plain = medians.get(1).map_or(f64::NAN, |figures| figures.cpu);
    for (side, one) in SIDES.iter().zip(&medians) {
        println!(
            "{:<46} {:>8.0} {:>8.2} {:>8.2} {:>10.0} {:>9.1}",
            side.name(),
            one.rate,
            one.p50.as_secs_f64() * 1e3,
            one.p99.as_secs_f64() * 1e3,
            one.cpu,
            one.cpu / plain
        );
    }
    Ok(())
}

/// The median of each figure by itself.
fn median(all: &[Figures]) -> Figures {
    fn of<T: PartialOrd + Copy + Default>(all: &[Figures], figure: impl Fn(&Figures) -> T) -> T {
        let mut values: Vec<T> = all.iter().map(figure).collect();
        values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
    Figures {
        rate: of(all, |one| one.rate),
        p50: of(all, |one| one.p50),
        p99: of(all, |one| one.p99),
        cpu: of(all, |one| one.cpu),
    }
}
