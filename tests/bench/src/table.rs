//! The table: throughput, latency and CPU time, of every way and in turns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::load;
use crate::process::{Process, own_cpu};
use crate::world::{GRANTS, Log, Memory, Recording, Setup, World, bare_calls};

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
    Taper(Setup, Recording, usize),
}

/// What costs little is measured on so many times as many requests: CPU time comes in steps.
const OF_LITTLE: usize = 5;
/// What costs much, on a part of them.
const OF_MUCH: usize = 4;

impl Side {
    /// Reads one such as `5-known-async`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let [depth, memory, recording] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        let setup = match memory {
            "known" => Setup::KNOWN,
            "new" => Setup::NEW,
            "logged" => Setup::LOGGED,
            _ => return None,
        };
        let recording = match recording {
            "before" => Recording::Before,
            "async" => Recording::Async,
            _ => return None,
        };
        Some(Self::Taper(setup, recording, depth.parse().ok()?))
    }

    fn name(self) -> String {
        match self {
            Self::Direct => "no proxy".to_owned(),
            Self::Plain => "plain proxy on hyper, the same bytes".to_owned(),
            Self::Taper(setup, recording, hand_overs) => {
                let journal = match recording {
                    Recording::Before => "journal first",
                    Recording::Async => "journal after",
                };
                let chain = match setup.memory {
                    Memory::On => "known",
                    Memory::Off => "new",
                };
                let logged = match setup.log {
                    Log::Quiet => "",
                    Log::Lines => ", logged",
                };
                format!("taper, {hand_overs} hand-overs, {chain} chain, {journal}{logged}")
            }
        }
    }

    /// How many requests a turn has, when those of most have `requests`.
    fn share(self, requests: usize) -> usize {
        match self {
            Self::Direct | Self::Plain => requests.saturating_mul(OF_LITTLE),
            Self::Taper(setup, ..) if setup.memory == Memory::Off => (requests / OF_MUCH).max(1),
            Self::Taper(..) => requests,
        }
    }
}

/// Every combination of what is remembered, when it is journaled, and how often it was handed on.
fn all_of_taper() -> impl Iterator<Item = Side> {
    let ways = [Setup::KNOWN, Setup::NEW].into_iter().flat_map(|setup| {
        [Recording::Async, Recording::Before]
            .into_iter()
            .map(move |recording| (setup, recording))
    });
    ways.flat_map(|(setup, recording)| [0, 3, 5].map(|hand_overs| Side::Taper(setup, recording, hand_overs)))
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

/// One program, running in every way that is measured.
struct Worlds {
    known: World,
    new: World,
    logged: World,
}

impl Worlds {
    fn start(program: &Path, dir: &Path, upstream: &str) -> anyhow::Result<Self> {
        let start = |name: &str, setup| World::start(program, &dir.join(name), upstream, setup);
        Ok(Self {
            known: start("known", Setup::KNOWN)?,
            new: start("new", Setup::NEW)?,
            logged: start("logged", Setup::LOGGED)?,
        })
    }

    fn of(&self, setup: Setup) -> &World {
        match (setup.memory, setup.log) {
            (Memory::On, Log::Quiet) => &self.known,
            (Memory::Off, _) => &self.new,
            (Memory::On, Log::Lines) => &self.logged,
        }
    }
}

/// Every side of one program.
///
/// # Errors
/// When a program does not start, or a call is not answered as it should be.
pub(crate) async fn all(program: &Path, requests: usize, rounds: usize) -> anyhow::Result<()> {
    let logged =
        [Recording::Async, Recording::Before].map(|recording| Side::Taper(Setup::LOGGED, recording, 5));
    let sides = [Side::Direct, Side::Plain]
        .into_iter()
        .chain(all_of_taper())
        .chain(logged);
    let rows = sides.map(|side| (side, 0)).collect();
    run(&[program.to_owned()], rows, requests, rounds).await
}

/// Two programs in turns, with known chains.
///
/// # Errors
/// As [`all`].
pub(crate) async fn compare(programs: &[PathBuf], requests: usize, rounds: usize) -> anyhow::Result<()> {
    let mut rows = vec![(Side::Plain, 0)];
    for side in all_of_taper().filter(|side| matches!(side, Side::Taper(Setup::KNOWN, ..))) {
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
        let (known, new) = (world.known.proxy.id(), world.new.proxy.id());
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
    let rounds = rounds.max(1);
    for round in 0..=rounds {
        // There and back, so that who comes first has no advantage.
        rows.reverse();
        for row in &mut rows {
            let requests = row.side.share(requests);
            let (process, calls) = match row.side {
                Side::Direct => (&server, bare_calls(server.address(), requests)),
                // Headers and body are those of a call that taper checks.
                Side::Plain => (&plain, of(0)?.known.calls(Recording::Async, 0, requests)?),
                Side::Taper(setup, recording, hand_overs) => {
                    let world = of(row.program)?.of(setup);
                    let mut calls = world.calls(recording, hand_overs, GRANTS + requests)?;
                    let rest = calls.split_off(GRANTS);
                    // What is known is known before the turn begins.
                    load::run(world.proxy.address(), calls, 1)
                        .await
                        .with_context(|| row.side.name())?;
                    (&world.proxy, rest)
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
        "\ntools/call, {CONNECTIONS} connections, medians of {rounds} rounds; requests a turn: {requests}, {} without \
         taper, {} of new chains\n",
        Side::Plain.share(requests),
        requests / OF_MUCH
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
    let of = |figure: &dyn Fn(&Figures) -> f64| {
        let mut values: Vec<f64> = all.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        f64::midpoint(at(last / 2), at(last.div_ceil(2)))
    };
    let time =
        |figure: fn(&Figures) -> Duration| Duration::from_secs_f64(of(&|one| figure(one).as_secs_f64()));
    Figures {
        rate: of(&|one| one.rate),
        p50: time(|one| one.p50),
        p99: time(|one| one.p99),
        cpu: of(&|one| one.cpu),
        server: of(&|one| one.server),
        client: of(&|one| one.client),
    }
}
