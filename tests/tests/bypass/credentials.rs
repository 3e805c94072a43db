//! Capabilities and proofs that are there in another place, another number or another scheme.

use taper_tests::call::Call;

use crate::row::{Row, instead, row, with, without};
use crate::world::{Era, World};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = schemes();
    rows.extend(places());
    rows
}

fn scheme(scheme: &'static str) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| {
        let token = call.token.clone().unwrap();
        call.instead("authorization", format!("{scheme}{token}"))
    }
}

fn schemes() -> Vec<Row> {
    let t = "T-01";
    vec![
        row(t, "no credentials", without("authorization")).unauthorized("R-15"),
        row(t, "a bearer token", scheme("Bearer ")).unauthorized("M-10"),
        row(t, "a bearer token in small letters", scheme("bearer ")).unauthorized("M-10"),
        row(t, "a bearer token in capitals", scheme("BEARER ")).unauthorized("M-10"),
        row(t, "a bearer token without a proof", |world, era, call| {
            scheme("Bearer ")(world, era, call).proofs(&[])
        })
        .unauthorized("M-10"),
        row(t, "basic credentials", scheme("Basic ")).unauthorized("R-15"),
        row(t, "another scheme", scheme("GNAP ")).unauthorized("R-15"),
        row(t, "no scheme", scheme("")).unauthorized("R-15"),
        row(t, "a scheme that begins so", scheme("DPoPx ")).unauthorized("R-15"),
        row(t, "a tab for a space", scheme("DPoP\t")).unauthorized("R-15"),
        row(t, "two spaces", scheme("DPoP  ")).unauthorized("R-09"),
        row(t, "a name before the token", scheme("DPoP token=")).unauthorized("R-09"),
        row(t, "the token in quotes", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.instead("authorization", format!("DPoP \"{token}\""))
        })
        .unauthorized("R-09"),
        row(t, "the scheme alone", instead("authorization", "DPoP")).unauthorized("R-15"),
        row(t, "an empty header", instead("authorization", "")).unauthorized("R-15"),
        row(t, "bytes beyond ASCII", instead("authorization", b"DPoP \xff")).unauthorized("R-15"),
        row(t, "two headers, the same", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.header("authorization", format!("DPoP {token}"))
        })
        .unauthorized("R-15"),
        row(
            t,
            "two headers, a bearer token second",
            with("authorization", "Bearer x"),
        )
        .unauthorized("R-15"),
        row(t, "two headers, a bearer token first", |_, _, mut call| {
            call.headers
                .insert(0, ("authorization".into(), b"Bearer x".to_vec()));
            call
        })
        .unauthorized("R-15"),
        row(t, "two schemes in one header", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.instead("authorization", format!("Bearer x, DPoP {token}"))
        })
        .unauthorized("M-10"),
        row(t, "two tokens in one header", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.instead("authorization", format!("DPoP {token}, DPoP {token}"))
        })
        .unauthorized("R-09"),
        row(t, "no proof", |_, _, call| call.proofs(&[])).unauthorized("R-15"),
        row(t, "two proofs", |_, _, call| {
            let (first, second) = (call.proof(), call.proof());
            call.proofs(&[&first, &second])
        })
        .unauthorized("R-15"),
        row(t, "the same proof twice", |_, _, call| {
            let proof = call.proof();
            call.proofs(&[&proof, &proof])
        })
        .unauthorized("R-15"),
        row(t, "two proofs in one header", |_, _, call| {
            let both = format!("{}, {}", call.proof(), call.proof());
            call.proofs(&[&both])
        })
        .unauthorized("R-01"),
        row(t, "an empty proof", |_, _, call| call.proofs(&[""])).unauthorized("R-01"),
    ]
}

/// The right credentials, where nobody looks for them.
fn places() -> Vec<Row> {
    let t = "T-01";
    let moved = |name: &'static str, to: fn(&str) -> (&'static str, String)| {
        row(t, name, move |_, _, call| {
            let token = call.token.clone().unwrap();
            let (header, value) = to(&token);
            call.without("authorization").header(header, value)
        })
        .unauthorized("R-15")
    };
    let mut rows = vec![
        moved("the token in a cookie", |token| {
            ("cookie", format!("access_token={token}"))
        }),
        moved("the token for a proxy", |token| {
            ("proxy-authorization", format!("DPoP {token}"))
        }),
        moved("the token in a header of its own", |token| {
            ("x-authorization", format!("DPoP {token}"))
        }),
        moved("the token as forwarded", |token| {
            ("x-forwarded-authorization", format!("DPoP {token}"))
        }),
        moved("the token as the original", |token| {
            ("x-original-authorization", format!("DPoP {token}"))
        }),
        moved("the token as a key", |token| ("x-api-key", token.to_owned())),
        moved("the token as an access token", |token| {
            ("x-access-token", token.to_owned())
        }),
        moved("the token in the websocket's protocol", |token| {
            ("sec-websocket-protocol", token.to_owned())
        }),
        row(t, "the token in a form", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.without("authorization")
                .instead("content-type", "application/x-www-form-urlencoded")
                .body(format!("access_token={token}"))
        })
        .unauthorized("R-15"),
        row(t, "the token in the message", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.without("authorization")
                .edit("{", &format!("{{\"authorization\":\"DPoP {token}\","))
        })
        .unauthorized("R-15"),
        row(t, "the token in the meta of the message", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.without("authorization").edit(
                "\"params\":{",
                &format!("\"params\":{{\"_Meta\":{{\"authorization\":\"DPoP {token}\"}},"),
            )
        })
        .unauthorized("R-15"),
    ];
    for name in ["x-dpop", "dpop-proof", "x-forwarded-dpop"] {
        rows.push(
            row(t, format!("the proof in {name}"), move |_, _, call| {
                let proof = call.proof();
                call.proofs(&[]).header(name, proof)
            })
            .unauthorized("R-15"),
        );
    }
    rows
}
