//! Subjects for whom an upstream's authorization server gives no token, or none that counts.

use std::sync::Arc;

use taper_capability::{Grant, Party};
use taper_tests::call::Call;

use crate::guarded::{IDP, LOOK};
use crate::row::{Row, row};
use crate::world::{Era, Holder, World, new_key};

/// A call of a new grant's holder.
fn on_behalf(world: &World<'_>, era: Era, issuer: &str, subject: &str) -> Call {
    let key = new_key();
    let grant = Grant {
        subject: Party {
            iss: issuer.into(),
            sub: subject.into(),
        },
        ..world.base.grant(&key.public())
    };
    let token = world.base.issue(&grant);
    let holder = Holder {
        key: Arc::clone(&key),
        token,
        session: String::new(),
    };
    world.ask(&holder, era, "behalf", "tools/call", LOOK)
}

fn of(threat: &'static str, name: &'static str, issuer: &'static str, subject: &'static str) -> Row {
    row(threat, name, move |world, era, _| {
        on_behalf(world, era, issuer, subject)
    })
    .twin(|world, era| world.ask(&world.alice, era, "behalf", "tools/call", LOOK))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        of("T-118", "of a subject that is refused", IDP, "refused").is(502, -32603, "M-50"),
        row(
            "T-119",
            "of one that was refused a moment ago",
            |world, era, _| {
                let call = on_behalf(world, era, IDP, "put-off");
                world.send_and_see(&call);
                Call { proofs: None, ..call }
            },
        )
        .twin(|world, era| world.ask(&world.alice, era, "behalf", "tools/call", LOOK))
        .is(502, -32603, "M-53"),
    ];
    for (name, issuer) in [
        ("of another provider's alice", "https://other-idp.example"),
        (
            "of a provider whose name goes on",
            "https://idp.example.evil.example",
        ),
        ("of a provider with a path", "https://idp.example/"),
        ("of a provider in capitals", "https://IDP.example"),
        ("of the proxy's own word", "https://mint.example"),
    ] {
        rows.push(of("T-116", name, issuer, "alice").is(502, -32603, "M-51"));
    }
    for (name, subject) in [
        ("with a token that ends at once", "brief"),
        ("with an empty token", "no-token"),
        ("with a token of two lines", "two-lines"),
        ("with a token that wants a proof", "dpop"),
        ("with an ID token", "identity"),
        ("with a page", "page"),
    ] {
        rows.push(of("T-118", name, IDP, subject).is(503, -32603, "M-52"));
    }
    rows
}
