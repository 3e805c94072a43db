//! What an open stream costs in memory, and in CPU time while nothing comes.

use std::path::Path;
use std::time::Duration;

use crate::load;
use crate::process::Process;
use crate::roles::FIRST_EVENT;
use crate::world::{Setup, World, open_stream};

/// Twice the time after which a stream is decided again.
const IDLE: Duration = Duration::from_secs(20);

/// Opens `count` streams through each proxy and prints a line for each.
///
/// # Errors
/// When a program does not start, or a stream does not open.
pub(crate) async fn bench(program: &Path, count: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Process::role(&["server"])?;
    let plain = Process::role(&["plain", &server.url])?;
    let world = World::start(program, &dir.path().join("proxy"), &server.url, Setup::KNOWN)?;
    println!("{count} open streams, {} s without an event\n", IDLE.as_secs());
    println!(
        "{:<40} {:>10} {:>10} {:>14} {:>16}",
        "", "MiB before", "MiB then", "KiB per stream", "CPU-ms a second"
    );
    let bare = vec![open_stream(plain.address(), "/mcp", ""); count];
    measure("plain proxy on hyper", &plain, bare).await?;
    measure("taper", &world.proxy, world.streams(count)?).await
}

async fn measure(name: &str, process: &Process, requests: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let count = requests.len();
    let mut requests = requests;
    // The first ones warm up.
    let rest = requests.split_off(count.min(10));
    drop(load::open(process.address(), requests, FIRST_EVENT).await?);
    let before = process.memory()?;
    let open = load::open(process.address(), rest, FIRST_EVENT).await?;
    let after = process.memory()?;
    let cpu = process.cpu()?;
    tokio::time::sleep(IDLE).await;
    let cpu = process.cpu()?.saturating_sub(cpu);
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    println!(
        "{name:<40} {:>10.1} {:>10.1} {:>14.1} {:>16.2}",
        mib(before),
        mib(after),
        mib(after.saturating_sub(before)) * 1024.0 / open.len() as f64,
        cpu.as_secs_f64() * 1e3 / IDLE.as_secs_f64()
    );
    Ok(())
}
