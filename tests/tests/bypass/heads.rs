//! Headers that say something else than the body, or how it is to be read.

use base64::Engine as _;

use crate::row::{Row, instead, row, saying, with, without};
use crate::world::{Era, World};
use taper_tests::call::Call;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(repeated());
    rows.extend(names());
    rows.extend(media());
    rows
}

fn differs(row: Row) -> Row {
    row.is(400, -32020, "M-18")
}

const HEADER_ONLY: &str = "a legacy body names no revision that a header could differ from";

/// A revision of the modern era, or of none, over a body that names none: the body is at fault.
fn header_only(row: Row) -> Row {
    row.only(Era::Legacy, "a modern message has it in its body")
        .is(400, -32602, "M-18")
}

fn repeated() -> Vec<Row> {
    let t = "T-11";
    let mut rows = vec![
        differs(row(
            t,
            "another method in a header",
            instead("mcp-method", "tools/list"),
        )),
        differs(row(
            t,
            "the method in another case",
            instead("mcp-method", "Tools/Call"),
        )),
        differs(row(
            t,
            "the method with more behind it",
            instead("mcp-method", "tools/call/x"),
        )),
        differs(row(t, "an empty method header", instead("mcp-method", ""))),
        differs(row(
            t,
            "the method in base64",
            instead("mcp-method", "=?base64?dG9vbHMvY2FsbA==?="),
        )),
        differs(row(
            t,
            "a method that is no text",
            instead("mcp-method", b"tools/call\xff"),
        )),
        differs(row(t, "the method twice", |_, _, call| {
            call.instead("mcp-method", "tools/call")
                .header("mcp-method", "tools/call")
        })),
        differs(row(t, "two methods", |_, _, call| {
            call.instead("mcp-method", "tools/call")
                .header("mcp-method", "tools/list")
        })),
        differs(row(
            t,
            "two methods in one",
            instead("mcp-method", "tools/call, tools/list"),
        )),
        differs(row(t, "the revision twice", |_, era, call| {
            call.header("mcp-protocol-version", era.revision())
        })),
        differs(row(
            t,
            "two revisions",
            with("mcp-protocol-version", "2025-06-18"),
        )),
        header_only(row(
            t,
            "the modern revision in the header only",
            instead("mcp-protocol-version", "2026-07-28"),
        )),
        differs(
            row(
                t,
                "a legacy revision in the header only",
                instead("mcp-protocol-version", "2025-11-25"),
            )
            .only(Era::Modern, "a legacy message does not repeat it"),
        ),
        differs(
            row(
                t,
                "a revision of the future",
                instead("mcp-protocol-version", "2027-01-01"),
            )
            .only(Era::Modern, HEADER_ONLY),
        ),
        header_only(row(
            t,
            "a revision of the future, in the header only",
            instead("mcp-protocol-version", "2027-01-01"),
        )),
        differs(
            row(
                t,
                "a revision with a space in it",
                instead("mcp-protocol-version", "2025-11-25 x"),
            )
            .only(Era::Modern, HEADER_ONLY),
        ),
        header_only(row(
            t,
            "a revision with a space in it, in the header only",
            instead("mcp-protocol-version", "2025-11-25 x"),
        )),
        differs(
            row(t, "no revision", without("mcp-protocol-version"))
                .only(Era::Modern, "a legacy message may leave it out"),
        ),
        differs(
            row(t, "no method header", without("mcp-method"))
                .only(Era::Modern, "a legacy message may leave it out"),
        ),
        differs(
            row(t, "no name header", without("mcp-name"))
                .only(Era::Modern, "a legacy message may leave it out"),
        ),
    ];
    for (method, inner) in [
        ("resources/read", r#""uri":"repo://acme/web/README.md""#),
        ("prompts/get", r#""name":"review""#),
    ] {
        rows.push(differs(
            row(
                t,
                format!("another name in a header of {method}"),
                instead("mcp-name", "x"),
            )
            .twin(saying(method, inner)),
        ));
    }
    rows.push(differs(
        row(
            t,
            "a name in a header of a message without one",
            with("mcp-name", "git_log"),
        )
        .twin(saying("tools/list", "")),
    ));
    rows
}

fn names() -> Vec<Row> {
    let t = "T-11";
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut rows: Vec<Row> = [
        ("another name", "git_show".to_owned()),
        ("the name in another case", "Git_Log".into()),
        ("the name with more behind it", "git_log2".into()),
        ("less of the name", "git_lo".into()),
        ("an empty name", String::new()),
        ("two names in one", "git_log, git_show".into()),
        ("the name in quotes", "\"git_log\"".into()),
        ("the name with a percent escape", "git%5Flog".into()),
        ("the name with a plus", "git+log".into()),
        (
            "another name in base64",
            format!("=?base64?{}?=", base64("git_show")),
        ),
        (
            "the name in base64, with a line feed",
            format!("=?base64?{}?=", base64("git_log\n")),
        ),
        (
            "the name in base64, with a NUL",
            format!("=?base64?{}?=", base64("git_log\0")),
        ),
        (
            "the name in base64 twice",
            format!(
                "=?base64?{}?=",
                base64(&format!("=?base64?{}?=", base64("git_log")))
            ),
        ),
        ("the name in bare base64", base64("git_log")),
        ("base64 in capitals", format!("=?BASE64?{}?=", base64("git_log"))),
        ("base64 in the alphabet of URLs", "=?base64?Z2l0X2xvZw_-?=".into()),
        (
            "base64 without padding",
            format!("=?base64?{}?=", base64("git_log").trim_end_matches('=')),
        ),
        ("base64 with stray bits", "=?base64?Z2l0X2xvZx==?=".into()),
        ("base64 with a space", "=?base64?Z2l0 X2xvZw==?=".into()),
        ("base64 that is none", "=?base64?%%?=".into()),
        ("base64 of no UTF-8", "=?base64?/w==?=".into()),
        ("empty base64", "=?base64??=".into()),
        (
            "base64 that does not end",
            format!("=?base64?{}", base64("git_log")),
        ),
        ("the name as an encoded word", "=?utf-8?B?Z2l0X2xvZw==?=".into()),
        ("the name as a quoted word", "=?utf-8?Q?git_log?=".into()),
    ]
    .into_iter()
    .map(|(name, value)| differs(row(t, name, instead("mcp-name", value))))
    .collect();
    rows.push(differs(row(
        t,
        "the name as another charset",
        instead("mcp-name", b"git_log\xe9"),
    )));
    rows.push(differs(row(t, "the name twice", |_, _, call| {
        call.instead("mcp-name", "git_log").header("mcp-name", "git_log")
    })));
    rows.push(differs(row(t, "two names, the right one first", |_, _, call| {
        call.instead("mcp-name", "git_log").header("mcp-name", "git_show")
    })));
    rows
}

fn media() -> Vec<Row> {
    let t = "T-25";
    let mut rows = vec![
        row(t, "no content type", without("content-type")).is(415, -32600, "M-09"),
        row(t, "two content types", with("content-type", "application/json")).is(415, -32600, "M-09"),
        row(
            t,
            "two different content types",
            with("content-type", "text/plain"),
        )
        .is(415, -32600, "M-09"),
        row(
            t,
            "a content type that is no text",
            instead("content-type", b"application/json\xff"),
        )
        .is(415, -32600, "M-09"),
    ];
    for kind in [
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/json5",
        "application/x-ndjson",
        "application/json-seq",
        "application/vnd.api+json",
        "application/json+x",
        "application/*",
        "*/*",
        "application/json, text/plain",
        "text/plain, application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/mixed; boundary=application/json",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        "application/json; charset=us-ascii",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; charset=",
        "application/json; boundary=x",
        "application/json;",
        "application /json",
    ] {
        rows.push(
            row(t, format!("content type {kind:?}"), instead("content-type", kind)).is(415, -32600, "M-09"),
        );
    }
    for coding in [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "identity",
        "br, gzip",
        "",
        "aws-chunked",
    ] {
        rows.push(
            row(
                t,
                format!("content coding {coding:?}"),
                with("content-encoding", coding),
            )
            .is(400, -32600, "M-04"),
        );
    }
    // A GET opens a session's stream and has no body; so has a DELETE.
    for method in ["GET", "DELETE"] {
        rows.push(
            row(t, format!("{method} with a body"), move |world, era, _| {
                let message = world.honest(era).body;
                Call {
                    length: true,
                    ..bare(world, method)
                }
                .body(message)
            })
            .twin(move |world, _| bare(world, method))
            .is(400, -32600, "M-08")
            .only(Era::Legacy, "there is no session to stream or end"),
        );
    }
    rows
}

/// A request of a session's own without a body. The session is one that may end.
fn bare(world: &World<'_>, method: &str) -> Call {
    let session = world.open(&world.alice);
    let call = world.honest(Era::Legacy).line(method, "/git/mcp").body("");
    Call {
        length: false,
        ..call
    }
    .without("content-type")
    .instead("mcp-session-id", session)
}
