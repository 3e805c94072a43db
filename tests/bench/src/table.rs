//! The table: throughput, latency and CPU time, of every way and in turns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::load;
use crate::process::{Process, own_cpu};
use crate::world::{Memory, Recording, World, bare_calls};

/// Connections that stay open.
const CONNECTIONS: usize = 16;

/// What takes its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The server, without a proxy.
    Direct,
    /// The proxy that looks at nothing.
    Plain,
    /// Ours, with so many hand-overs.
    Taper(Memory, Recording, usize),
}

impl Side {
    /// Reads one such as `5-known-async`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let [depth, memory, recording] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        let memory = match memory {
            "known" => Memory::On,
            "new" => Memory::Off,
            _ => return None,
        };
        let recording = match recording {
            "before" => Recording::Before,
            "async" => Recording::Async,
            _ => return None,
        };
        Some(Self::Taper(memory, recording, depth.parse().ok()?))
    }

    fn name(self) -> String {
        match self {
            Self::Direct => "no proxy".to_owned(),
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

/// Every combination of what is remembered, when it is journaled, and how often it was handed on.
fn all_of_taper() -> impl Iterator<Item = Side> {
    let ways = [Memory::On, Memory::Off].into_iter().flat_map(|memory| {
        [Recording::Async, Recording::Before]
            .into_iter()
            .map(move |recording| (memory, recording))
    });
    ways.flat_map(|(memory, recording)| {
        [0, 3, 5].map(|hand_overs| Side::Taper(memory, recording, hand_overs))
    })
}

/// A row of a table: a side, and which program serves it.
struct Row {
    side: Side,
    program: usize,
    figures: Vec<Figures>,
}

#[derive(Clone, Copy, Default)]
struct Figures {
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Microseconds of CPU for one request: of who answers it, of the server behind, of the client.
    cpu: f64,
    server: f64,
    client: f64,
}

/// One program, running with and without a memory of chains.
struct Worlds {
    mindful: World,
    forgetful: World,
}

impl Worlds {
    fn start(program: &Path, dir: &Path, upstream: &str) -> anyhow::Result<Self> {
        let start = |name: &str, memory| World::start(program, &dir.join(name), upstream, memory);
        Ok(Self {
            mindful: start("known", Memory::On)?,
            forgetful: start("new", Memory::Off)?,
        })
    }
}

/// Every side of one program.
///
/// # Errors
/// When a program does not start, or a call is not answered as it should be.
pub(crate) async fn all(program: &Path, requests: usize, rounds: usize) -> anyhow::Result<()> {
    let sides = [Side::Direct, Side::Plain].into_iter().chain(all_of_taper());
    let rows = sides.map(|side| (side, 0)).collect();
    run(&[program.to_owned()], rows, requests, rounds).await
}

/// Two programs in turns, with known chains.
///
/// # Errors
/// As [`all`].
pub(crate) async fn compare(programs: &[PathBuf], requests: usize, rounds: usize) -> anyhow::Result<()> {
    let mut rows = vec![(Side::Plain, 0)];
    for side in all_of_taper().filter(|side| matches!(side, Side::Taper(Memory::On, ..))) {
        rows.extend((0..programs.len()).map(|program| (side, program)));
    }
    run(programs, rows, requests, rounds).await
}

/// One side beside the plain proxy. The number of its process is said, for a profiler.
///
/// # Errors
/// As [`all`].
pub(crate) async fn only(program: &Path, side: Side, requests: usize, rounds: usize) -> anyhow::Result<()> {
    run(
        &[program.to_owned()],
        vec![(Side::Plain, 0), (side, 0)],
        requests,
        rounds,
    )
    .await
}

async fn run(
    programs: &[PathBuf],
    rows: Vec<(Side, usize)>,
    requests: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let plain = Process::role(&["plain", &server.url])?;
    let mut worlds = Vec::new();
    for (n, program) in programs.iter().enumerate() {
        let dir = dir.path().join(n.to_string());
        std::fs::create_dir(&dir)?;
        let world = Worlds::start(program, &dir, &server.url)?;
        let (known, new) = (world.mindful.proxy.id(), world.forgetful.proxy.id());
        println!("program {n}: {} (processes {known}, {new})", program.display());
        worlds.push(world);
    }
    let of = |program: usize| worlds.get(program).context("no such program");
    let mut rows: Vec<Row> = rows
        .into_iter()
        .map(|(side, program)| Row {
            side,
            program,
            figures: Vec::new(),
        })
        .collect();
    for round in 0..=rounds {
        // There and back, so that who comes first has no advantage.
        rows.reverse();
        for row in &mut rows {
            let (process, calls) = match row.side {
                Side::Direct => (&server, bare_calls(server.address(), requests)),
                // Headers and body are those of a call that taper checks.
                Side::Plain => (&plain, of(0)?.mindful.calls(Recording::Async, 0, requests)?),
                Side::Taper(memory, recording, hand_overs) => {
                    let world = match memory {
                        Memory::On => &of(row.program)?.mindful,
                        Memory::Off => &of(row.program)?.forgetful,
                    };
                    (&world.proxy, world.calls(recording, hand_overs, requests)?)
                }
            };
            let before = [process.cpu()?, server.cpu()?, own_cpu()?];
            let run = load::run(process.address(), calls, CONNECTIONS)
                .await
                .with_context(|| row.side.name())?;
            let after = [process.cpu()?, server.cpu()?, own_cpu()?];
            // The first round warms up.
            if round > 0 {
                let each = |after: Duration, before: Duration| {
                    after.saturating_sub(before).as_secs_f64() * 1e6 / requests as f64
                };
                let [cpu, server, client] = std::array::from_fn(|n| match (after.get(n), before.get(n)) {
                    (Some(after), Some(before)) => each(*after, *before),
                    _ => f64::NAN,
                });
                row.figures.push(Figures {
                    rate: run.rate(),
                    p50: run.at(0.5),
                    p99: run.at(0.99),
                    cpu,
                    server,
                    client,
                });
            }
        }
    }
    if rounds.is_multiple_of(2) {
        rows.reverse();
    }
    print(&rows, requests, rounds, programs.len() > 1);
    Ok(())
}

fn print(rows: &[Row], requests: usize, rounds: usize, several: bool) {
    println!(
        "\ntools/call, {CONNECTIONS} connections, {requests} requests a turn, medians of {rounds} rounds\n"
    );
    println!(
        "{:<50} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>7}",
        "CPU-µs for one request", "req/s", "p50 ms", "p99 ms", "proxy", "x plain", "server", "client"
    );
    let plain = rows.iter().find(|row| row.side == Side::Plain);
    let plain = plain.map_or(f64::NAN, |row| median(&row.figures).cpu);
    for row in rows {
        let one = median(&row.figures);
        let mut name = row.side.name();
        if several && row.side != Side::Plain {
            name = format!("{}: {name}", row.program);
        }
        println!(
            "{name:<50} {:>7.0} {:>7.2} {:>7.2} {:>7.0} {:>8.1} {:>7.0} {:>7.0}",
            one.rate,
            one.p50.as_secs_f64() * 1e3,
            one.p99.as_secs_f64() * 1e3,
            one.cpu,
            one.cpu / plain,
            one.server,
            one.client
        );
    }
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
        server: of(all, |one| one.server),
        client: of(all, |one| one.client),
    }
}
