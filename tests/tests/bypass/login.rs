//! What is asked without any credentials of a server that shows something before login.

use taper_tests::call::Call;

use crate::guarded::LOOK;
use crate::row::{Row, row};
use crate::world::{Era, World, said};

/// A call without its credentials.
fn bare(call: Call) -> Call {
    call.without("authorization").proofs(&[])
}

fn at(server: &'static str) -> impl Fn(&World<'_>, Era) -> Call {
    move |world, era| world.ask(&world.alice, era, server, "tools/call", LOOK)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = asked();
    rows.extend(shaped());
    rows.extend(often());
    rows
}

fn of(name: &'static str, spoil: impl Fn(Era, Call) -> Call + 'static) -> Row {
    row("T-111", name, move |_, era, call| spoil(era, bare(call)))
        .twin(at("shown"))
        .unauthorized("M-47")
}

/// Messages that nobody is told anything for.
fn asked() -> Vec<Row> {
    let says = |name: &'static str, method: &'static str, inner: &'static str| {
        of(name, move |era, call| said(call, era, method, inner))
    };
    vec![
        of("a call of what is shown", |_, call| call),
        says(
            "a call of what is not",
            "tools/call",
            r#""name":"new","arguments":{}"#,
        ),
        says("a resource", "resources/read", r#""uri":"repo://acme/web/a""#),
        says("a prompt", "prompts/get", r#""name":"review""#),
        says(
            "a completion",
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"review"},"argument":{"name":"a","value":"b"}"#,
        ),
        says("a list from a cursor on", "tools/list", r#""cursor":"x""#),
        says("a list of tasks", "tasks/list", ""),
        says("a method that nobody knows", "acme/echo", ""),
        says(
            "a stream",
            "subscriptions/listen",
            r#""notifications":{"toolsListChanged":true}"#,
        )
        .only(Era::Modern, "it has a stream by GET"),
        of("a session", |_, call| {
            call.header("mcp-session-id", "session-0-of-a-test")
        }),
        of("a session's end", |_, call| {
            let target = call.target.clone();
            Call {
                length: false,
                ..call.line("DELETE", &target).body("")
            }
        }),
        // What is shown: nobody is asked for it.
        of("the list", |era, call| said(call, era, "tools/list", "")).is(200, None, ""),
    ]
}

/// Messages that are not in order: what is wrong with them is not told either.
fn shaped() -> Vec<Row> {
    let list = |name: &'static str, spoil: fn(Call) -> Call| {
        of(name, move |era, call| spoil(said(call, era, "tools/list", "")))
    };
    vec![
        list("a batch", |call| {
            let body = [b"[", &call.body[..], b"]"].concat();
            call.body(body)
        }),
        list("a key twice", |call| {
            call.edit("\"jsonrpc\"", "\"id\":2,\"jsonrpc\"")
        }),
        list("no message", |call| call.body("hello")),
        list("a message and more", |call| call.edit("}}", "}}{}")),
        list("a body of 17 KiB", |call| {
            call.edit(
                "\"params\"",
                &format!("\"x\":\"{}\",\"params\"", "y".repeat(17 * 1024)),
            )
        }),
        list("an id of 200 bytes", |call| {
            call.edit("\"id\":1", &format!("\"id\":\"{}\"", "y".repeat(200)))
        }),
        list("another kind of body", |call| {
            call.instead("content-type", "application/x-www-form-urlencoded")
        }),
        list("a header that says another method", |call| {
            call.instead("mcp-method", "tools/call")
        })
        .only(Era::Modern, "it repeats nothing in headers"),
        list("credentials elsewhere", |call| {
            call.header("cookie", "access_token=a")
                .edit("\"params\"", "\"Params\":{},\"params\"")
        }),
        // Credentials that count for nothing are no way back to what is shown.
        list("an empty header", |call| call.header("authorization", "")).unauthorized("R-15"),
        list("a proof alone", |call| call.header("dpop", "a")).unauthorized("R-15"),
        list("a token of nobody", |call| {
            call.header("authorization", "DPoP a").header("dpop", "a")
        })
        .unauthorized("R-01"),
    ]
}

fn often() -> Vec<Row> {
    let again = |name: &'static str, spoil: fn(Call) -> Call| {
        row("T-113", name, move |world, era, call| {
            let list = bare(said(call, era, "tools/list", ""));
            // There is one an hour.
            world.send_and_see(&list);
            spoil(list)
        })
        .twin(at("seldom"))
        .unauthorized("M-48")
    };
    vec![
        again("more than the rate", |call| call),
        again("as from another address", |call| {
            call.header("x-forwarded-for", "203.0.113.7")
                .header("forwarded", "for=203.0.113.7")
        }),
    ]
}
