//! Heads and framing of requests to the proxy.

use taper_tests::call::Call;
use taper_tests::raw;

use super::proxies::Proxies;
use super::{Spoil, spoil};

#[test]
fn heads() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let with = |name: &'static str, value: &'static str| spoil(move |call| call.header(name, value));
    let instead = |name: &'static str, value: &'static str| spoil(move |call| call.instead(name, value));
    let at = |target: &'static str| spoil(move |call: Call| call.line("POST", target));

    check("a query", at("/git/mcp?x=1"), 400, "-32600");
    check("an empty query", at("/git/mcp?"), 400, "-32600");
    check(
        "a credential in the query",
        at("/git/mcp?access_token=x"),
        400,
        "-32600",
    );
    for target in [
        "/",
        "/git",
        "/git/",
        "/git/mcp/",
        "//git/mcp",
        "/git//mcp",
        "/./git/mcp",
        "/x/../git/mcp",
        "/git/mcp/..",
        "/git%2fmcp",
        "/%67it/mcp",
        "/git/mcp%00",
        "/git/mcp%20",
        "/GIT/mcp",
        "/git;v=1/mcp",
        "/git\\mcp",
        "/other/mcp",
        "/git/sse",
        "/metrics",
        "/admin/v1/revocations",
        "/.well-known/oauth-protected-resource/other/mcp",
    ] {
        check(target, at(target), 404, "");
    }
    check(
        "another host in the target",
        at("http://other.example/git/mcp"),
        421,
        "-32600",
    );
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        check(
            method,
            spoil(move |call| call.line(method, "/git/mcp")),
            405,
            "allow: POST, GET, DELETE",
        );
    }
    check(
        "CONNECT",
        spoil(|call| call.line("CONNECT", "other.example:443")),
        404,
        "",
    );
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        check(name, with(name, "DELETE"), 400, "-32600");
    }
    for coding in ["gzip", "identity", "br, gzip"] {
        check(coding, with("content-encoding", coding), 400, "-32600");
    }
    check("another host", with("host", "other.example"), 421, "-32600");
    check(
        "two hosts",
        spoil(|call| {
            let host = taper_tests::authority(&call.url).to_owned();
            call.header("host", &host).header("host", &host)
        }),
        421,
        "-32600",
    );
    check(
        "another origin",
        with("origin", "http://evil.example"),
        403,
        "-32600",
    );
    check("the null origin", with("origin", "null"), 403, "-32600");
    check(
        "a websocket",
        spoil(|call| {
            call.header("upgrade", "websocket")
                .header("connection", "upgrade")
        }),
        400,
        "-32600",
    );
    check(
        "no content type",
        spoil(|call| call.without("content-type")),
        415,
        "-32600",
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json, text/plain",
    ] {
        check(kind, instead("content-type", kind), 415, "-32600");
    }
    check(
        "two content types",
        with("content-type", "application/json"),
        415,
        "-32600",
    );
    for method in ["GET", "DELETE"] {
        let get = Call {
            length: true,
            ..proxies.honest().line(method, "/git/mcp")
        };
        let twin = Call {
            length: false,
            ..get.clone()
        }
        .body("");
        proxies.pair(
            &format!("{method} with a body"),
            &twin.bytes(),
            &get.bytes(),
            400,
            "-32600",
        );
    }
    check(
        "the method in a header",
        with("mcp-method", "tools/list"),
        400,
        "-32020",
    );
    check(
        "the name in a header",
        with("mcp-name", "git_show"),
        400,
        "-32020",
    );
    check(
        "the name in base64",
        with("mcp-name", "=?base64?%%?="),
        400,
        "-32020",
    );
    check(
        "a revision in a header only",
        with("mcp-protocol-version", "2026-07-28"),
        400,
        "-32602",
    );
    check(
        "two revisions",
        spoil(|c| {
            c.header("mcp-protocol-version", "2025-11-25")
                .header("mcp-protocol-version", "2025-06-18")
        }),
        400,
        "-32020",
    );
    check(
        "a session of nobody",
        with("mcp-session-id", "0123456789abcdef"),
        404,
        "-32600",
    );
    check(
        "two sessions",
        spoil(|call| call.header("mcp-session-id", "a").header("mcp-session-id", "b")),
        404,
        "-32600",
    );
    proxies.end();
}

#[test]
fn framing() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let with = |name: &'static str, value: Vec<u8>| spoil(move |call| call.header(name, &value));
    let own_length = |value: &'static str| {
        spoil(move |call| {
            Call {
                length: false,
                ..call
            }
            .header("content-length", value)
        })
    };

    check(
        "a header of 20,000 bytes",
        with("x-large", vec![b'a'; 20_000]),
        431,
        "",
    );
    check(
        "three hundred headers",
        spoil(|call| (0..300).fold(call, |call, n| call.header(&format!("x-{n}"), "a"))),
        431,
        "",
    );
    check("a header with a NUL", with("x-nul", b"a\0b".to_vec()), 400, "");
    check("a header name with a space", with("x y", b"a".to_vec()), 400, "");
    check("a folded header", with("x-folded", b"a\r\n b".to_vec()), 400, "");
    check(
        "another length twice",
        with("content-length", b"5".to_vec()),
        400,
        "",
    );
    check("a list of lengths", own_length("5, 6"), 400, "");
    check("a negative length", own_length("-1"), 400, "");
    check("a length with a sign", own_length("+112"), 400, "");
    check("a length in hexadecimal", own_length("0x70"), 400, "");
    check(
        "a length beyond counting",
        own_length("99999999999999999999999"),
        400,
        "",
    );
    check(
        "a length of a terabyte",
        own_length("1099511627776"),
        413,
        "-32600",
    );
    check("a length too short", own_length("20"), 401, "R-12");

    let chunked = |call: Call, coding: &str, length: bool| {
        let framed = [
            format!("{:x}\r\n", call.body.len()).as_bytes(),
            &call.body,
            b"\r\n0\r\n\r\n",
        ]
        .concat();
        let proof = call.proof();
        Call { length, ..call }
            .header("transfer-encoding", coding)
            .proofs(&[&proof])
            .body(framed)
    };
    let twin = || chunked(proxies.honest(), "chunked", false).bytes();
    let pair =
        |name: &str, bad: Call, status, says: &str| proxies.pair(name, &twin(), &bad.bytes(), status, says);
    // It is cut without an answer: nobody here decodes it.
    pair(
        "gzip and chunked",
        chunked(proxies.honest(), "gzip, chunked", false),
        0,
        "",
    );
    pair(
        "chunked before gzip",
        chunked(proxies.honest(), "chunked, gzip", false),
        400,
        "",
    );
    pair(
        "chunked that is not",
        chunked(proxies.honest(), "xchunked", false),
        400,
        "",
    );
    pair(
        "a broken chunk size",
        chunked(proxies.honest(), "chunked", false).edit("6f\r\n", "zz\r\n"),
        400,
        "",
    );
    pair(
        "a chunk size beyond counting",
        chunked(proxies.honest(), "chunked", false).edit("6f\r\n", "fffffffffffffffff\r\n"),
        400,
        "",
    );
    let mut in_chunks = proxies.honest();
    in_chunks.body.resize(1024 * 1024 + 1, b' ');
    pair(
        "a large body in chunks",
        chunked(in_chunks, "chunked", false),
        413,
        "-32600",
    );

    let large = |bytes: usize| {
        let mut call = proxies.honest();
        call.body.resize(bytes, b' ');
        call.bytes()
    };
    proxies.pair(
        "a body of a byte too much",
        &large(1024 * 1024),
        &large(1024 * 1024 + 1),
        413,
        "-32600",
    );

    for (name, bytes) in [
        (
            "noise",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        ),
        ("no version", b"GET /healthz\r\n\r\n"),
        ("another version", b"GET /healthz HTTP/3.0\r\n\r\n"),
        ("a target with a space", b"GET /git/mcp x HTTP/1.1\r\n\r\n"),
        (
            "a line without a target",
            b"GET HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ),
    ] {
        proxies.pair(name, &proxies.honest().bytes(), bytes, 400, "");
    }
    proxies.end();
}

/// With both a length and chunks, whoever stands in front may take the rest for another request.
#[test]
fn a_smuggled_request_is_not_read() {
    let proxies = Proxies::start();
    let health = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = |framing: &str, body: &str| {
        let first = format!("POST /nothing HTTP/1.1\r\nhost: x\r\n{framing}\r\n{body}");
        let url = proxies.up.mcp();
        let answer = raw(&url, format!("{first}{health}").as_bytes());
        let whole = format!("{}{}", answer.head, answer.body);
        (
            whole.matches("HTTP/1.1 404").count(),
            whole.matches("HTTP/1.1 200").count(),
        )
    };
    assert_eq!(answers("content-length: 5\r\n", "0\r\n\r\n"), (1, 1));
    assert_eq!(
        answers("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        (1, 0)
    );
    assert_eq!(
        answers(
            "transfer-encoding: chunked\r\ncontent-length: 100\r\n",
            "0\r\n\r\n"
        ),
        (1, 0)
    );
    proxies.end();
}
