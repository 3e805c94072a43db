//! Tools of a server that describes them otherwise than they were approved, or not at all.

use crate::guarded::LOOK;
use crate::row::{Row, row};
use crate::world::{Era, World, said};

/// The call of a tool at a server.
fn call(world: &World<'_>, era: Era, server: &str, tool: &str) -> taper_tests::call::Call {
    let inner = format!(r#""name":"{tool}","arguments":{{}}"#);
    world.ask(&world.alice, era, server, "tools/call", &inner)
}

pub(crate) fn rows() -> Vec<Row> {
    let of = |threat: &'static str, name: &'static str, tool: &'static str| {
        row(threat, name, move |_, era, call| {
            said(
                call,
                era,
                "tools/call",
                &format!(r#""name":"{tool}","arguments":{{}}"#),
            )
        })
        .twin(|world, era| world.ask(&world.alice, era, "pinned", "tools/call", LOOK))
        .denied("M-44")
    };
    vec![
        of("T-108", "described in other words", "paint"),
        of("T-108", "never approved", "new"),
        of("T-108", "listed no more", "gone"),
        of("T-108", "listed twice", "twice"),
        of("T-108", "approved in other letter case", "Look"),
        row("T-108", "of which nothing is known", |world, era, _| {
            call(world, era, "silent", "look")
        })
        .twin(|world, era| call(world, era, "pinned", "look"))
        .is(503, 4503, "M-45"),
        row(
            "T-108",
            "never approved, and nothing is known",
            |world, era, _| call(world, era, "silent", "new"),
        )
        .twin(|world, era| call(world, era, "pinned", "look"))
        .denied("M-44"),
    ]
}
