//! Other spellings of the one path, and ways to name another method or host than the one that is checked.

use taper_tests::authority;

use crate::row::{Row, Sent, at, instead, row, sent, with};

/// Where [`taper_tests::call::Call::fields`] puts it.
const AUTHORITY: usize = 2;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(targets());
    rows.extend(forms());
    rows.extend(verbs());
    rows.extend(hosts());
    rows.extend(upgrades());
    rows
}

fn targets() -> Vec<Row> {
    let paths = [
        "/",
        "/git",
        "/git/",
        "/mcp",
        "/git/mcp/",
        "//git/mcp",
        "/git//mcp",
        "/git/mcp//",
        "/./git/mcp",
        "/git/./mcp",
        "/git/mcp/.",
        "/x/../git/mcp",
        "/git/x/../mcp",
        "/git/mcp/..",
        "/%67it/mcp",
        "/git/%6dcp",
        "/git%2fmcp",
        "/git%2Fmcp",
        "/%2e/git/mcp",
        "/git/%2e/mcp",
        "/x/%2e%2e/git/mcp",
        "/git/mcp%00",
        "/git/mcp%20",
        "/git/mcp%0a",
        "/git/mcp%3f",
        "/GIT/mcp",
        "/git/MCP",
        "/Git/Mcp",
        "/git;v=1/mcp",
        "/git/mcp;v=1",
        "/git/mcp;",
        "/;x/git/mcp",
        "/git\\mcp",
        "/\\git/mcp",
        "/git/mcp.json",
        "/git/mcp/tools/call",
        "/git/sse",
        "/git/messages",
        "/other/mcp/",
        "/nobody/mcp",
        "/gi%74/mcp",
        "/git%00/mcp",
        "/g%C4%B1t/mcp",
        "/git:80/mcp",
        "/git,notes/mcp",
        "/*/mcp",
        "/metrics",
        "/admin/v1/revocations",
    ];
    let mut rows: Vec<Row> = paths
        .into_iter()
        .map(|path| row("T-27", path, at(path)).is(404, None, "M-01"))
        .collect();
    for query in [
        "/git/mcp?",
        "/git/mcp?x=1",
        "/git/mcp?access_token=x",
        "/git/mcp??",
        "/git/mcp?/../notes/mcp",
        "/git/mcp?_method=DELETE",
        "/git/mcp?sessionId=session-0-of-a-test",
    ] {
        rows.push(row("T-11", query, at(query)).is(400, -32600, "M-03"));
    }
    rows.push(
        row("T-11", "the capability in the query", |_, _, call| {
            let token = call.token.clone().unwrap();
            call.line("POST", &format!("/git/mcp?access_token={token}"))
        })
        .is(400, -32600, "M-03"),
    );
    rows
}

fn forms() -> Vec<Row> {
    let t = "T-27";
    let h1 = "HTTP/2 has no such form";
    vec![
        row(
            t,
            "another host in the target",
            at("http://other.example/git/mcp"),
        )
        .is(421, -32600, "M-06")
        .h1(h1),
        row(t, "user information in the target", |_, _, call| {
            let target = format!("http://x@{}/git/mcp", authority(&call.url));
            call.line("POST", &target)
        })
        .is(421, -32600, "M-06")
        .h1(h1),
        row(t, "another path in a whole target", |_, _, call| {
            let target = format!("http://{}/git//mcp", authority(&call.url));
            call.line("POST", &target)
        })
        .is(404, None, "M-01")
        .h1(h1),
        row(t, "a whole target and another host header", |_, _, call| {
            let target = call.url.clone();
            call.line("POST", &target).header("host", "other.example")
        })
        .is(421, -32600, "M-06")
        .h1(h1),
        row(t, "a target that is an authority", |_, _, call| {
            let target = authority(&call.url).to_owned();
            call.line("POST", &target)
        })
        .is(404, None, "M-01")
        .h1(h1),
        row(t, "a target that is a star", at("*"))
            .is(404, None, "M-01")
            .h1(h1),
        row(t, "a target that is empty", at("")).is(400, None, "").h1(h1),
        row(t, "a target without a slash", at("git/mcp"))
            .is(400, None, "")
            .h1(h1),
        row(t, "a target with a space", at("/git/mcp x"))
            .is(400, None, "")
            .h1(h1),
        row(t, "a target with a tab", at("/git/\tmcp"))
            .is(400, None, "")
            .h1(h1),
        row(t, "a target with a NUL", at("/git/mcp\0"))
            .is(400, None, "")
            .h1(h1),
    ]
}

fn verbs() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in [
        "PUT", "PATCH", "OPTIONS", "TRACE", "HEAD", "PROPFIND", "QUERY", "post", "Post", "POSTS",
    ] {
        rows.push(row("T-11", method, move |_, _, call| call.line(method, "/git/mcp")).is(405, None, "M-02"));
    }
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        for value in ["DELETE", "GET", "POST", ""] {
            rows.push(row("T-11", format!("{name}: {value}"), with(name, value)).is(400, -32600, "M-02"));
        }
    }
    rows
}

fn hosts() -> Vec<Row> {
    let t = "T-65";
    let mut rows = vec![
        row(t, "a foreign origin", with("origin", "http://evil.example")).is(403, -32600, "M-05"),
        row(t, "the null origin", with("origin", "null")).is(403, -32600, "M-05"),
        row(t, "an empty origin", with("origin", "")).is(403, -32600, "M-05"),
        row(t, "two origins", |_, _, call| {
            let own = call.url.replace("/git/mcp", "");
            call.header("origin", &own).header("origin", &own)
        })
        .is(403, -32600, "M-05"),
        row(t, "two origins in one", |_, _, call| {
            let own = call.url.replace("/git/mcp", "");
            call.header("origin", format!("{own} http://evil.example"))
        })
        .is(403, -32600, "M-05"),
        row(t, "the own origin by another scheme", |_, _, call| {
            let own = call.url.replace("/git/mcp", "").replace("http:", "https:");
            call.header("origin", own)
        })
        .is(403, -32600, "M-05"),
        row(t, "the own origin at another port", |_, _, call| {
            let own = call.url.replace("/git/mcp", "");
            call.header("origin", format!("{own}0"))
        })
        .is(403, -32600, "M-05"),
        row(t, "the own origin with a path", |_, _, call| {
            let own = call.url.replace("/git/mcp", "");
            call.header("origin", format!("{own}/"))
        })
        .is(403, -32600, "M-05"),
        row(t, "the own origin and more of a name", |_, _, call| {
            let own = call.url.replace("/git/mcp", "");
            call.header("origin", format!("{own}.evil.example"))
        })
        .is(403, -32600, "M-05"),
        row(t, "an origin that is no text", with("origin", b"http://\xff")).is(403, -32600, "M-05"),
        row(t, "another host", instead("host", "other.example")).is(421, -32600, "M-06"),
        row(t, "no port", instead("host", "127.0.0.1")).is(421, -32600, "M-06"),
        row(t, "another port", |_, _, call| {
            let host = authority(&call.url).to_owned();
            call.header("host", format!("{host}0"))
        })
        .is(421, -32600, "M-06"),
        row(t, "another name of this machine", |_, _, call| {
            let host = authority(&call.url).replace("127.0.0.1", "localhost");
            call.header("host", host)
        })
        .is(421, -32600, "M-06"),
        row(t, "another spelling of this address", |_, _, call| {
            let host = authority(&call.url).replace("127.0.0.1", "127.1");
            call.header("host", host)
        })
        .is(421, -32600, "M-06"),
        row(t, "a dot behind the name", |_, _, call| {
            let host = authority(&call.url).replace("127.0.0.1", "127.0.0.1.");
            call.header("host", host)
        })
        .is(421, -32600, "M-06"),
        row(t, "user information in the host", |_, _, call| {
            let host = format!("x@{}", authority(&call.url));
            call.header("host", host)
        })
        .is(421, -32600, "M-06"),
        row(t, "two hosts", |_, _, call| {
            let host = authority(&call.url).to_owned();
            call.header("host", &host).header("host", &host)
        })
        .is(421, -32600, "M-06")
        .h1("HTTP/2 has one authority"),
        row(t, "two different hosts", |_, _, call| {
            let host = authority(&call.url).to_owned();
            call.header("host", &host).header("host", "other.example")
        })
        .is(421, -32600, "M-06")
        .h1("HTTP/2 has one authority"),
        row(t, "an empty host", instead("host", ""))
            .is(421, -32600, "M-06")
            .h1("an empty authority is no request of HTTP/2"),
        row(t, "two hosts in one", |_, _, call| {
            let host = authority(&call.url).to_owned();
            call.header("host", format!("{host}, {host}"))
        })
        .is(421, -32600, "M-06")
        .h1("an authority with a comma and a space is no request of HTTP/2"),
    ];
    rows.push(
        sent(t, "no host", |_, _, call| {
            let text = String::from_utf8(call.bytes()).unwrap();
            let line = text.lines().find(|line| line.starts_with("host:")).unwrap();
            Sent::Bytes(text.replacen(&format!("{line}\r\n"), "", 1).into_bytes())
        })
        .is(421, -32600, "M-06")
        .h1("the next row is its like in HTTP/2"),
    );
    // `own` is what the twin says.
    let authority_is = |name: &str, authority: Option<&'static str>, host: Option<&'static str>| {
        sent(t, name, move |_, _, call| {
            let mut fields = call.fields();
            match authority {
                Some("own") => {}
                Some(other) => fields[AUTHORITY].1 = other.into(),
                None => drop(fields.remove(AUTHORITY)),
            }
            fields.extend(host.map(|host| ("host".to_owned(), host.into())));
            Sent::Fields(fields, call.body)
        })
        .is(421, -32600, "M-06")
        .h2("only HTTP/2 has an authority")
    };
    let other = Some("other.example");
    rows.extend([
        authority_is("the authority and another host", Some("own"), other),
        authority_is("no authority and no host", None, None),
        authority_is("another authority", other, None),
        authority_is("no authority and another host", None, other),
    ]);
    rows
}

fn upgrades() -> Vec<Row> {
    let t = "T-12";
    let h1 = "HTTP/2 has no upgrade";
    vec![
        row(t, "a websocket", |_, _, call| {
            call.header("upgrade", "websocket")
                .header("connection", "upgrade")
        })
        .is(400, -32600, "M-07")
        .h1(h1),
        row(t, "a websocket in capitals", |_, _, call| {
            call.header("upgrade", "WebSocket")
                .header("connection", "Upgrade")
        })
        .is(400, -32600, "M-07")
        .h1(h1),
        row(t, "a websocket among others", |_, _, call| {
            call.header("upgrade", "h2c, websocket")
                .header("connection", "upgrade")
        })
        .is(400, -32600, "M-07")
        .h1(h1),
        row(
            t,
            "a websocket's key",
            with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        )
        .is(400, -32600, "M-07"),
        row(t, "CONNECT", |_, _, call| {
            call.line("CONNECT", "other.example:443")
        })
        .is(404, None, "M-01")
        .h1("the next row is its like in HTTP/2"),
        sent(t, "CONNECT of HTTP/2 for a websocket", |_, _, call| {
            let mut fields = call.fields();
            fields[0].1 = b"CONNECT".to_vec();
            fields.insert(1, (":protocol".into(), b"websocket".to_vec()));
            Sent::Fields(fields, call.body)
        })
        .is(0, None, "")
        .h2("HTTP/1.1 has no such form"),
    ]
}
