//! Sessions and tasks of others.

use crate::row::{Row, row, saying};
use crate::world::{Era, World};
use taper_tests::call::Call;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = posts();
    rows.extend(streams());
    rows.extend(tasks());
    rows
}

const MODERN: &str = "the modern era has no sessions: the header counts for nothing there";

fn session(name: &'static str, which: fn(&World<'_>) -> String) -> Row {
    row("T-62", name, move |world, _, call| {
        call.instead("mcp-session-id", which(world))
    })
    .is(404, -32600, "M-24")
    .only(Era::Legacy, MODERN)
}

fn posts() -> Vec<Row> {
    vec![
        session("of its child", |w| w.bob.session.clone()),
        session("of another grant of the same subject", |w| w.dave.session.clone()),
        session("that nobody has", |_| "session-4711-of-a-test".into()),
        session("that is empty", |_| String::new()),
        session("with a letter more", |w| format!("{}x", w.alice.session)),
        session("with a letter less", |w| w.alice.session[1..].to_owned()),
        session("in capitals", |w| w.alice.session.to_uppercase()),
        session("in quotes", |w| format!("\"{}\"", w.alice.session)),
        session("with another behind it", |w| {
            format!("{}, {}", w.alice.session, w.bob.session)
        }),
        session("of 600 letters", |_| "s".repeat(600)),
        row("T-62", "the same twice", |world, _, call| {
            call.header("mcp-session-id", &world.alice.session)
        })
        .is(404, -32600, "M-24")
        .only(Era::Legacy, MODERN),
        row("T-62", "two of them, the right one first", |world, _, call| {
            call.header("mcp-session-id", &world.bob.session)
        })
        .is(404, -32600, "M-24")
        .only(Era::Legacy, MODERN),
        row("T-62", "two in the modern era", |world, _, call| {
            call.header("mcp-session-id", &world.bob.session)
                .header("mcp-session-id", &world.alice.session)
        })
        .is(404, -32600, "M-24")
        .only(Era::Modern, "the row before it is its like"),
        row("T-62", "the parent's, presented by its child", |world, era, _| {
            let honest = crate::world::HONEST;
            world
                .ask(&world.bob, era, "git", "tools/call", honest)
                .instead("mcp-session-id", &world.alice.session)
        })
        .twin(|world, era| world.ask(&world.bob, era, "git", "tools/call", crate::world::HONEST))
        .is(404, -32600, "M-24")
        .only(Era::Legacy, MODERN),
        row("T-62", "its sibling's", |world, era, _| {
            let honest = crate::world::HONEST;
            world
                .ask(&world.bob, era, "git", "tools/call", honest)
                .instead("mcp-session-id", &world.carol.session)
        })
        .twin(|world, era| world.ask(&world.bob, era, "git", "tools/call", crate::world::HONEST))
        .is(404, -32600, "M-24")
        .only(Era::Legacy, MODERN),
        row("T-62", "one at another server", |world, era, _| {
            world
                .ask(
                    &world.alice,
                    era,
                    "notes",
                    "tools/call",
                    r#""name":"note_write","arguments":{}"#,
                )
                .header("mcp-session-id", &world.alice.session)
        })
        .twin(|world, era| {
            world.ask(
                &world.alice,
                era,
                "notes",
                "tools/call",
                r#""name":"note_write","arguments":{}"#,
            )
        })
        .is(404, -32600, "M-24")
        .only(Era::Legacy, MODERN),
    ]
}

fn streams() -> Vec<Row> {
    let bare = |world: &World<'_>, method: &str| {
        let call = world.honest(Era::Legacy).line(method, "/git/mcp").body("");
        Call {
            length: false,
            ..call
        }
        .without("content-type")
    };
    let own = move |world: &World<'_>, method: &str| {
        bare(world, method).instead("mcp-session-id", world.open(&world.alice))
    };
    let mut rows = Vec::new();
    for method in ["GET", "DELETE"] {
        for (name, which) in [
            (
                "of its child",
                (|w| w.bob.session.clone()) as fn(&World<'_>) -> String,
            ),
            ("of another grant", |w| w.dave.session.clone()),
            ("that nobody has", |_| "session-4711-of-a-test".into()),
        ] {
            rows.push(
                row(
                    "T-62",
                    format!("{method} of a session {name}"),
                    move |world, _, call| call.instead("mcp-session-id", which(world)),
                )
                .twin(move |world, _| own(world, method))
                .is(404, -32600, "M-24")
                .only(Era::Legacy, MODERN),
            );
        }
        rows.push(
            row(
                "T-62",
                format!("{method} of a session with an event to go on from"),
                move |world, _, call| {
                    call.instead("mcp-session-id", &world.bob.session)
                        .header("last-event-id", "1")
                },
            )
            .twin(move |world, _| own(world, method))
            .is(404, -32600, "M-24")
            .only(Era::Legacy, MODERN),
        );
    }
    rows
}

fn tasks() -> Vec<Row> {
    ["tasks/get", "tasks/result", "tasks/cancel", "tasks/update"]
        .into_iter()
        .map(|method| {
            let row = row(
                "T-81",
                format!("{method} of nobody's task"),
                move |_, era, call| crate::world::said(call, era, method, r#""taskId":"task-4711""#),
            )
            .twin(saying("tools/list", ""))
            .is(200, -32602, "M-34");
            match method {
                "tasks/result" => row.only(Era::Legacy, "the modern era gets it with the task"),
                _ => row,
            }
        })
        .collect()
}
