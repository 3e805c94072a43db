//! Framing that two readers of one connection take differently, so that one of them sees a request that
//! the other did not.

use taper_tests::call::Call;

use crate::row::{Row, Sent, row, sent, with};
use crate::world::{Era, World};

const H1: &str = "HTTP/2 frames its bodies itself";
const H2: &str = "HTTP/1.1 has no such fields";
const T: &str = "T-12";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(lengths());
    rows.extend(chunks());
    rows.extend(lines());
    rows.extend(fields());
    rows
}

/// The request with its body in one chunk, and this framing.
fn chunked(call: Call, framing: &[(&str, &str)]) -> Call {
    let proof = call.proof();
    let body = [
        format!("{:x}\r\n", call.body.len()).as_bytes(),
        &call.body,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let call = Call {
        length: false,
        ..call
    }
    .proofs(&[&proof])
    .body(body);
    framing
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value))
}

fn in_chunks(world: &World<'_>, era: Era) -> Call {
    chunked(world.honest(era), &[("transfer-encoding", "chunked")])
}

/// The request, and behind it on the same connection a second one that is not proven.
fn followed(first: Vec<u8>, call: &Call) -> Sent {
    let second = Call {
        key: None,
        proofs: None,
        ..call.clone()
    };
    Sent::Bytes([first, second.bytes()].concat())
}

fn lengths() -> Vec<Row> {
    let own = |value: &'static str| {
        move |_: &World<'_>, _, call: Call| {
            Call {
                length: false,
                ..call
            }
            .header("content-length", value)
        }
    };
    let mut rows = vec![
        row(T, "a second, other length", with("content-length", "5"))
            .is(400, None, "")
            .h1(H1),
        row(T, "a second length of zero", with("content-length", "0"))
            .is(400, None, "")
            .h1(H1),
        row(T, "a length too short", own("20"))
            .unauthorized("R-12")
            .h1(H1),
        row(T, "a length of zero", own("0")).unauthorized("R-12").h1(H1),
        row(T, "a length of a terabyte", own("1099511627776"))
            .is(413, -32600, "M-08")
            .h1(H1),
        sent(
            T,
            "a length too short, and a request in the rest",
            |_, _, call| {
                let hidden = Call {
                    key: None,
                    ..call.clone()
                }
                .bytes();
                let proof = call.proof();
                let length = call.body.len();
                let body = [&call.body[..], &hidden].concat();
                let call = Call {
                    length: false,
                    ..call
                }
                .header("content-length", length.saturating_sub(1).to_string())
                .proofs(&[&proof])
                .body(body);
                Sent::Bytes(call.bytes())
            },
        )
        .unauthorized("R-12")
        .h1(H1),
    ];
    for value in [
        "5, 6",
        "+112",
        "-1",
        "0x70",
        "1e2",
        "112 ",
        "99999999999999999999999",
        "",
        "11 2",
        "112;x",
        "\u{661}",
    ] {
        // Space around a value is no part of it (RFC 9112 section 5).
        if value.ends_with(' ') {
            continue;
        }
        rows.push(
            row(T, format!("a length {value:?}"), own(value))
                .is(400, None, "")
                .h1(H1),
        );
    }
    rows
}

fn chunks() -> Vec<Row> {
    let framed = |name: &'static str, framing: &'static [(&'static str, &'static str)]| {
        row(T, name, move |world, era, _| chunked(world.honest(era), framing))
            .twin(in_chunks)
            .h1(H1)
    };
    let edited = |name: &'static str, from: &'static str, to: &'static str| {
        // The twin's own proof was used with the twin.
        row(T, name, move |world, era, _| {
            let call = in_chunks(world, era);
            let body = String::from_utf8(call.body.clone()).unwrap();
            let at = body.find(from).unwrap_or_else(|| panic!("{from:?} in {body:?}"));
            let body = format!("{}{to}{}", &body[..at], &body[at + from.len()..]);
            call.body(body)
        })
        .twin(in_chunks)
        .h1(H1)
    };
    vec![
        framed("gzip and chunked", &[("transfer-encoding", "gzip, chunked")]).is(0, None, ""),
        framed("chunked before gzip", &[("transfer-encoding", "chunked, gzip")]).is(400, None, ""),
        framed("chunked that is not", &[("transfer-encoding", "xchunked")]).is(400, None, ""),
        framed(
            "chunked with a parameter",
            &[("transfer-encoding", "chunked;x=1")],
        )
        .is(400, None, ""),
        framed("chunked in quotes", &[("transfer-encoding", "\"chunked\"")]).is(400, None, ""),
        framed(
            "chunked after a vertical tab",
            &[("transfer-encoding", "\u{b}chunked")],
        )
        .is(400, None, ""),
        framed("chunked, identity", &[("transfer-encoding", "chunked, identity")]).is(400, None, ""),
        framed("an empty coding", &[("transfer-encoding", "")]).is(400, None, ""),
        framed("identity", &[("transfer-encoding", "identity")]).is(400, None, ""),
        framed(
            "chunked twice",
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        )
        .is(0, None, ""),
        framed("chunked, chunked", &[("transfer-encoding", "chunked, chunked")]).is(0, None, ""),
        framed(
            "identity, and chunked in a second header",
            &[
                ("transfer-encoding", "identity"),
                ("transfer-encoding", "chunked"),
            ],
        )
        .is(0, None, ""),
        edited("a chunk size in another alphabet", "\r\n", "g\r\n").is(400, -32600, "M-08"),
        edited("a chunk size with a minus", "", "-").is(400, -32600, "M-08"),
        edited("a chunk size with a plus", "", "+").is(400, -32600, "M-08"),
        edited("a chunk size with 0x", "", "0x").is(400, -32600, "M-08"),
        edited("a chunk size beyond counting", "", "fffffffffffffffff").is(400, -32600, "M-08"),
        edited("a chunk size that ends with a bare line feed", "\r\n", "\n").is(400, -32600, "M-08"),
        edited("a chunk size that ends with a bare carriage return", "\r\n", "\r").is(400, -32600, "M-08"),
        edited("a chunk longer than its size", "\r\n0\r\n", "x\r\n0\r\n").is(400, -32600, "M-08"),
        edited("a chunk shorter than its size", "{\"json", "{json").is(400, -32600, "M-08"),
        edited("an extension with a line feed", "\r\n", ";x=\n\r\n").is(400, -32600, "M-08"),
        sent(
            T,
            "a length, chunks, and a request behind them",
            |world, era, call| {
                let both = chunked(
                    world.honest(era),
                    &[("content-length", "4"), ("transfer-encoding", "chunked")],
                );
                let unproven = both.clone().proofs(&[]);
                let _ = call;
                followed(unproven.bytes(), &world.honest(era))
            },
        )
        .twin(in_chunks)
        .unauthorized("R-15")
        .h1(H1),
        sent(
            T,
            "chunks, a length, and a request behind them",
            |world, era, _| {
                let both = chunked(
                    world.honest(era),
                    &[("transfer-encoding", "chunked"), ("content-length", "100")],
                );
                followed(both.proofs(&[]).bytes(), &world.honest(era))
            },
        )
        .twin(in_chunks)
        .unauthorized("R-15")
        .h1(H1),
    ]
}

fn lines() -> Vec<Row> {
    let raw = |name: &'static str, change: fn(String) -> String| {
        sent(T, name, move |_, _, call| {
            Sent::Bytes(change(String::from_utf8(call.bytes()).unwrap()).into_bytes())
        })
        .h1(H1)
    };
    vec![
        raw("a space before the colon of a length", |text| {
            text.replacen("content-length:", "content-length :", 1)
        })
        .is(400, None, ""),
        raw("a space before the colon of the credentials", |text| {
            text.replacen("authorization:", "authorization :", 1)
        })
        .is(400, None, ""),
        raw("a folded header", |text| {
            text.replacen("content-type: ", "content-type:\r\n ", 1)
        })
        .is(400, None, ""),
        raw("a header folded with a tab", |text| {
            text.replacen("accept: ", "accept:\r\n\t", 1)
        })
        .is(400, None, ""),
        raw("a folded first header", |text| {
            text.replacen("\r\n", "\r\n x: y\r\n", 1)
        })
        .is(400, None, ""),
        raw("a bare carriage return in a header", |text| {
            text.replacen("accept: ", "accept: x\rx-y: ", 1)
        })
        .is(400, None, ""),
        raw("a NUL in a header", |text| {
            text.replacen("accept: ", "accept: \0", 1)
        })
        .is(400, None, ""),
        raw("a header without a colon", |text| {
            text.replacen("accept: ", "accept ", 1)
        })
        .is(400, None, ""),
        raw("a header without a name", |text| {
            text.replacen("accept: ", ": ", 1)
        })
        .is(400, None, ""),
        raw("a header name beyond ASCII", |text| {
            text.replacen("accept: ", "acc\u{e9}pt: ", 1)
        })
        .is(400, None, ""),
        raw("another version of HTTP", |text| {
            text.replacen("HTTP/1.1", "HTTP/3.0", 1)
        })
        .is(400, None, ""),
        raw("a version in small letters", |text| {
            text.replacen("HTTP/1.1", "http/1.1", 1)
        })
        .is(400, None, ""),
        raw("no version", |text| text.replacen(" HTTP/1.1", "", 1)).is(400, None, ""),
        raw("two spaces in the request line", |text| {
            text.replacen("POST ", "POST  ", 1)
        })
        .is(400, None, ""),
        raw("a header of 20,000 bytes", |text| {
            text.replacen("accept: ", &format!("accept: {}", "a".repeat(20_000)), 1)
        })
        .is(431, None, ""),
        raw("three hundred headers", |text| {
            text.replacen("accept: ", &format!("{}accept: ", "x: y\r\n".repeat(300)), 1)
        })
        .is(431, None, ""),
        sent(
            T,
            "an unproven request, and a proven one behind it after a close",
            |_, _, call| {
                // `connection: close` ends the connection after the first: the second is never read.
                let first = call.clone().proofs(&[]).bytes();
                Sent::Bytes([first, call.bytes()].concat())
            },
        )
        .unauthorized("R-15")
        .h1(H1),
        sent(T, "the preface of HTTP/2 behind a request", |_, _, call| {
            let first = call.clone().proofs(&[]).bytes();
            Sent::Bytes([&first[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat())
        })
        .unauthorized("R-15")
        .h1(H1),
    ]
}

/// What HTTP/2 can carry and HTTP/1.1 would read as something else. The stream is reset.
fn fields() -> Vec<Row> {
    let add = |name: &'static str, field: &'static str, value: &'static str| {
        sent(T, name, move |_, _, call| {
            let mut fields = call.fields();
            fields.push((field.into(), value.into()));
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2(H2)
    };
    vec![
        add("a transfer coding", "transfer-encoding", "chunked"),
        add("a connection header", "connection", "x-own"),
        add("an upgrade", "upgrade", "h2c"),
        add("a keep-alive", "keep-alive", "5"),
        add("a proxy connection", "proxy-connection", "close"),
        add("a line feed in a value", "x-own", "a\nauthorization: b"),
        add("a line end in a value", "x-own", "a\r\nauthorization: b"),
        add("a NUL in a value", "x-own", "a\0"),
        add("a line feed in a name", "x-own\nauthorization", "b"),
        add("a name with a colon", "x:own", "b"),
        add("a name in capitals", "X-Own", "b"),
        add("an empty name", "", "b"),
        add("a second method", ":method", "GET"),
        add("a second path", ":path", "/other/mcp"),
        add("a pseudo-header that nobody knows", ":x", "b"),
        add("a status", ":status", "200"),
        add("another length than the body's", "content-length", "5"),
        add("te with more than trailers", "te", "chunked"),
        sent(T, "a method after the headers", |_, _, call| {
            let mut fields = call.fields();
            let method = fields.remove(0);
            fields.push(method);
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2(H2),
        sent(T, "no path", |_, _, call| {
            let mut fields = call.fields();
            fields.retain(|(name, _)| name != ":path");
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2(H2),
        sent(T, "no scheme", |_, _, call| {
            let mut fields = call.fields();
            fields.retain(|(name, _)| name != ":scheme");
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2(H2),
        sent(T, "no method", |_, _, call| {
            let mut fields = call.fields();
            fields.retain(|(name, _)| name != ":method");
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2(H2),
    ]
}
