//! Bodies that two readers could take for different messages: batches, encodings, depth, numbers.

use crate::row::{Row, body, calls, edit, row, says};
use crate::world::Era;

const REPO: &str = r#""repo_path":"acme/web""#;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(batches());
    rows.extend(texts());
    rows.extend(sizes());
    rows.extend(numbers());
    rows.extend(envelopes());
    rows
}

fn batches() -> Vec<Row> {
    let t = "T-47";
    let join = |parts: &[&[u8]]| parts.concat();
    vec![
        row(t, "a batch of one", body(move |b| join(&[b"[", &b, b"]"]))).is(400, -32600, "M-16"),
        row(
            t,
            "a batch of two",
            body(move |b| join(&[b"[", &b, b",", &b, b"]"])),
        )
        .is(400, -32600, "M-16"),
        row(t, "an empty batch", body(|_| b"[]".to_vec())).is(400, -32600, "M-16"),
        row(
            t,
            "a batch of a permitted call and one that is not",
            body(move |b| {
                let other = String::from_utf8(b.clone())
                    .unwrap()
                    .replace("git_log", "git_reset");
                join(&[b"[", &b, b",", other.as_bytes(), b"]"])
            }),
        )
        .is(400, -32600, "M-16"),
        row(
            t,
            "a batch within a batch",
            body(move |b| join(&[b"[[", &b, b"]]"])),
        )
        .is(400, -32600, "M-16"),
        row(
            t,
            "a batch after white space",
            body(move |b| join(&[b" \r\n\t[", &b, b"]"])),
        )
        .is(400, -32600, "M-16"),
        row(t, "two messages in a line", body(move |b| join(&[&b, &b]))).is(400, -32700, "M-15"),
        row(
            t,
            "two messages in two lines",
            body(move |b| join(&[&b, b"\n", &b])),
        )
        .is(400, -32700, "M-15"),
        row(
            t,
            "two messages with a record separator",
            body(move |b| join(&[b"\x1e", &b, b"\n\x1e", &b])),
        )
        .is(400, -32700, "M-15"),
        row(
            t,
            "a message after half a message",
            body(move |b| join(&[&b[..20], &b])),
        )
        .is(400, -32700, "M-15"),
    ]
}

fn texts() -> Vec<Row> {
    let t = "T-47";
    let bad = |name: &str, change: fn(Vec<u8>) -> Vec<u8>| row(t, name, body(change)).is(400, -32700, "M-15");
    let mut rows = vec![
        bad("a byte order mark", |b| [b"\xef\xbb\xbf", &b[..]].concat()),
        bad("a byte order mark at the end", |b| {
            [&b[..], b"\xef\xbb\xbf"].concat()
        }),
        bad("UTF-16, little endian", |b| {
            b.into_iter().flat_map(|byte| [byte, 0]).collect()
        }),
        bad("UTF-16 with its mark", |b| {
            [0xff, 0xfe]
                .into_iter()
                .chain(b.into_iter().flat_map(|byte| [byte, 0]))
                .collect()
        }),
        bad("UTF-16, big endian", |b| {
            b.into_iter().flat_map(|byte| [0, byte]).collect()
        }),
        bad("UTF-7", |b| [b"+ACI-", &b[..]].concat()),
        bad("a NUL before it", |b| [b"\0", &b[..]].concat()),
        bad("a NUL behind it", |b| [&b[..], b"\0"].concat()),
        bad("a letter behind it", |b| [&b[..], b"x"].concat()),
        bad("a form feed behind it", |b| [&b[..], b"\x0c"].concat()),
        bad("a no-break space before it", |b| [b"\xc2\xa0", &b[..]].concat()),
        bad("nothing", |_| Vec::new()),
        bad("white space", |_| b" \n".to_vec()),
        bad("half of it", |b| b[..b.len() / 2].to_vec()),
        bad("all but its last byte", |b| b[..b.len() - 1].to_vec()),
        bad("a guard against scripts before it", |b| {
            [b")]}',\n", &b[..]].concat()
        }),
        bad("a form", |_| b"method=tools/call".to_vec()),
    ];
    // Bytes that are no UTF-8, where a reader that repairs would see a slash, a quote or nothing.
    for (name, bytes) in [
        ("a lone continuation byte", &b"\x80"[..]),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong slash of three bytes", b"\xe0\x80\xaf"),
        ("an overlong quote", b"\xc0\xa2"),
        ("an overlong NUL", b"\xc0\x80"),
        ("a surrogate in UTF-8", b"\xed\xa0\x80"),
        ("a code point beyond Unicode", b"\xf4\x90\x80\x80"),
        ("a byte that never occurs", b"\xff"),
        ("half a character", b"\xe2\x82"),
        ("Latin-1", b"\xe9"),
    ] {
        let change = move |b: Vec<u8>| {
            let at = b.windows(8).position(|part| part == b"acme/web").unwrap();
            [&b[..at + 8], bytes, &b[at + 8..]].concat()
        };
        rows.push(row(t, name, body(change)).is(400, -32700, "M-15"));
    }
    // Escapes.
    for (name, text) in [
        ("a lone high surrogate", r"acme/web\ud800"),
        ("a lone low surrogate", r"acme/web\udc00"),
        ("two surrogates in the wrong order", r"acme/web\udc00\ud800"),
        ("half a pair and a letter", r"acme/web\ud83dx"),
        ("an escaped NUL", r"acme/web\u0000"),
        ("a raw tab in a text", "acme/web\t"),
        ("a raw line feed in a text", "acme/web\n"),
        ("a raw control character in a text", "acme/web\u{1}"),
        ("an escape that JSON does not have", r"acme/web\x41"),
        ("an escaped single quote", r"acme\'web"),
        ("a cut escape", r"acme/web\u00"),
    ] {
        rows.push(row(t, name, edit("acme/web", text)).is(400, -32700, "M-15"));
    }
    // What lenient readers take.
    for (name, from, to) in [
        ("a comment", "{", "{/* */"),
        ("a line comment", "{", "{// x\n"),
        ("a comma too much", "\"acme/web\"", "\"acme/web\","),
        ("a single quote", "\"acme/web\"", "'acme/web'"),
        ("a key without quotes", "\"repo_path\"", "repo_path"),
        ("a capital literal", "\"acme/web\"", "TRUE"),
        ("an undefined value", "\"acme/web\"", "undefined"),
        ("a semicolon for a comma", ",\"method\"", ";\"method\""),
    ] {
        rows.push(row(t, name, edit(from, to)).is(400, -32700, "M-15"));
    }
    rows
}

fn sizes() -> Vec<Row> {
    let t = "T-49";
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let more = |value: String| format!("{REPO},\"max_count\":{value}");
    let bad = |name: String, value: String| row(t, name, edit(REPO, more(value))).is(400, -32700, "M-15");
    let mut rows: Vec<Row> = [20, 100, 20_000]
        .into_iter()
        .flat_map(|depth| {
            [
                bad(format!("{depth} arrays in each other"), nested(depth)),
                bad(format!("{depth} objects in each other"), objects(depth / 4 + 20)),
            ]
        })
        .collect();
    rows.push(bad("257 elements".into(), format!("[{}1]", "1,".repeat(256))));
    rows.push(bad(
        "3,000 values".into(),
        format!("[{}[1]]", format!("[{}1],", "1,".repeat(199)).repeat(15)),
    ));
    let members: Vec<String> = (0..3_000).map(|n| format!("\"k{n}\":1")).collect();
    rows.push(bad("3,000 members".into(), format!("{{{}}}", members.join(","))));
    rows.push(
        row(
            t,
            "depth outside the arguments",
            edit("\"params\":{", format!("\"params\":{{\"x\":{},", nested(100))),
        )
        .is(400, -32700, "M-15"),
    );
    let large = |bytes: usize| {
        body(move |mut b| {
            b.resize(bytes, b' ');
            b
        })
    };
    let window = "the client of the tests does not wait for HTTP/2 windows";
    rows.push(
        row(t, "a byte more than is taken", large(1024 * 1024 + 1))
            .twin(move |world, era| large(1024 * 1024)(world, era, world.honest(era)))
            .is(413, -32600, "M-08")
            .h1(window),
    );
    rows.push(
        row(t, "one text of a megabyte and more", |_, _, call| {
            call.edit("acme/web", &"a".repeat(1024 * 1024))
        })
        .is(413, -32600, "M-08")
        .h1(window),
    );
    rows
}

/// A number that one reader takes for a permitted one and another does not never equals it.
fn numbers() -> Vec<Row> {
    let t = "T-48";
    let mut rows = Vec::new();
    for number in [
        "01",
        "+1",
        "1.",
        ".5",
        "0x10",
        "1e",
        "--1",
        "1_000",
        "NaN",
        "Infinity",
        "-Infinity",
        "\u{661}",
    ] {
        rows.push(
            row(
                t,
                format!("{number} is no number"),
                edit(REPO, format!("{REPO},\"max_count\":{number}")),
            )
            .is(400, -32700, "M-15"),
        );
    }
    rows
}

fn envelopes() -> Vec<Row> {
    let t = "T-47";
    let bad = |name: &str, from: &'static str, to: &'static str| {
        row(t, name, edit(from, to)).is(400, -32600, "M-16")
    };
    let mut rows = vec![
        bad("another version of JSON-RPC", "\"2.0\"", "\"1.0\""),
        bad("a version that is a number", "\"2.0\"", "2.0"),
        bad("a version with a space", "\"2.0\"", "\"2.0 \""),
        bad("no version", "\"jsonrpc\":\"2.0\",", ""),
        bad("a request that is an answer too", "{", "{\"result\":{},"),
        bad("a request that is an error too", "{", "{\"error\":{},"),
        bad("a method that is a list", "\"tools/call\"", "[\"tools/call\"]"),
        bad("a method that is null", "\"tools/call\"", "null"),
        bad("no method", "\"method\":\"tools/call\",", ""),
        bad(
            "params that are an array",
            "\"params\":{",
            "\"params\":[],\"x\":{",
        ),
        bad(
            "params that are a text",
            "\"params\":{",
            "\"params\":\"{}\",\"x\":{",
        ),
        bad(
            "arguments that are an array",
            r#"{"repo_path":"acme/web"}"#,
            r#"["acme/web"]"#,
        ),
        bad(
            "arguments that are a text of JSON",
            r#"{"repo_path":"acme/web"}"#,
            r#""{\"repo_path\":\"acme/web\"}""#,
        ),
        bad("arguments that are null", r#"{"repo_path":"acme/web"}"#, "null"),
    ];
    for id in [
        "null",
        "1.5",
        "1e0",
        "-0.0",
        "-0",
        "9007199254740993",
        "[]",
        "{}",
        "true",
    ] {
        rows.push(
            row(
                t,
                format!("an id that is {id}"),
                edit("\"id\":1", format!("\"id\":{id}")),
            )
            .is(400, -32600, "M-16"),
        );
    }
    for (name, text) in [
        ("a text", "\"tools/call\""),
        ("a number", "7"),
        ("null", "null"),
        ("an empty object", "{}"),
    ] {
        let text = text.as_bytes();
        rows.push(
            row(t, format!("a body that is {name}"), body(move |_| text.to_vec())).is(400, -32600, "M-16"),
        );
    }
    // A tool's name that is no text.
    for name in ["7", "null", "[\"git_log\"]", "{}", "\"\""] {
        let inner = format!("\"name\":{name},\"arguments\":{{\"repo_path\":\"acme/web\"}}");
        rows.push(
            row(t, format!("a tool named {name}"), says("tools/call", inner))
                .is(400, -32600, "M-16")
                .only(Era::Legacy, "the header names the tool, and differs first"),
        );
    }
    rows.push(
        row(
            t,
            "no arguments where a resource is made of them",
            calls("git_log", "{}"),
        )
        .denied("M-21"),
    );
    rows
}
