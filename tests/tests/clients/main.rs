//! MCP clients of several makes, over each way that they have to one proxy, in both eras of the protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod clients;
mod pages;
mod world;

use clients::{CLIENTS, Client, Seen};
use taper_tests::tell;
use world::{Era, Way, World};

/// What ran, and how: an empty place is a client that cannot go that way.
const MATRIX: &str = "\
client      own proofs            sidecar, HTTP         sidecar, stdio
            legacy     modern     legacy     modern     legacy     modern
typescript  2025-11-25 2026-07-28 2025-11-25 2026-07-28 2025-11-25 2026-07-28
python      2025-11-25 2026-07-28 2025-11-25 2026-07-28 2025-11-25 2026-07-28
rmcp        2025-11-25 2026-07-28 2025-11-25 2026-07-28 2025-11-25 2026-07-28
inspector                         legacy     modern     legacy     modern
taper call  legacy     modern
";

#[test]
fn every_client_on_every_way_in_both_eras() {
    let world = World::start();
    let world = &world;
    let rows = std::thread::scope(|scope| {
        let rows = CLIENTS.map(|client| scope.spawn(move || row(world, client)));
        rows.map(|row| row.join().unwrap())
    });
    let head: Vec<_> = MATRIX.lines().take(2).collect();
    let matrix = format!("{}\n{}", head.join("\n"), rows.concat());
    tell(&matrix);
    assert_eq!(matrix, MATRIX);
}

/// What one client did, way by way and era by era.
fn row(world: &World, client: Client) -> String {
    let mut row = format!("{:<11}", client.name);
    for way in Way::ALL {
        for era in Era::BOTH {
            let cell = if client.ways.contains(&way) {
                cell(world, client, way, era)
            } else {
                String::new()
            };
            row.push_str(&format!(" {cell:<10}"));
        }
    }
    format!("{}\n", row.trim_end())
}

/// One client, one way, one era: it sees the one tool, gets the history of one repository, as git tells it, and
/// no other. The revision that was spoken, or the era where the client does not say.
fn cell(world: &World, client: Client, way: Way, era: Era) -> String {
    let at = format!("{}, {way:?}, {era:?}", client.name);
    let Seen {
        version,
        tools,
        history,
        refusal,
    } = (client.run)(world, way, era);
    assert_eq!(tools, ["git_log"], "{at}");
    for subject in &world.subjects {
        assert!(history.contains(subject), "{at}: no {subject:?} in {history}");
    }
    // Of what the proxy says the Inspector tells people no more than the message.
    let told = if client.name == "inspector" {
        "the capability does not allow this"
    } else {
        "R-22"
    };
    assert!(refusal.contains(told), "{at}: {refusal}");
    match version {
        Some(version) => {
            assert_eq!(version, era.revision(), "{at}");
            version
        }
        None => era.name().to_owned(),
    }
}
