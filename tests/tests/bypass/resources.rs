//! Resources that are named so that one reader takes them for permitted and another does not.

use crate::row::{Row, calls, row, saying, says};
use crate::world::Era;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = paths();
    rows.extend(parts());
    rows.extend(lists());
    rows.extend(urls());
    rows.extend(uris());
    rows.extend(subscriptions());
    rows
}

const T: &str = "T-25";

const LISTENS: &str = "the modern era subscribes by `subscriptions/listen`";

fn paths() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in [
        "acme/web/../payroll",
        "acme/../acme/web",
        "acme/./web",
        "./acme/web",
        "../acme/web",
        "acme//web",
        "/acme/web",
        "acme/web/",
        "acme/web//",
        "acme/web/.",
        "acme/web/..",
        "acme%2fweb",
        "acme%2Fweb",
        "acme/web%00",
        "acme/%2e%2e/payroll",
        "acme%252fweb",
        "acme\\\\web",
        "acme/..\\\\payroll",
        "~/web",
        "~acme/web",
        ".",
        "..",
        "/",
        "acme/web\\t",
        "acme/web\\n",
        "acme/web\\u007f",
    ] {
        let arguments = format!("{{\"repo_path\":\"{path}\"}}");
        rows.push(row(T, format!("path {path:?}"), calls("git_log", &arguments)).denied("M-22"));
    }
    rows
}

fn parts() -> Vec<Row> {
    let twin = || {
        saying(
            "tools/call",
            r#""name":"git_push","arguments":{"owner":"acme","repo":"web"}"#,
        )
    };
    let push = |name: &'static str, arguments: &str, rule| {
        row(T, name, calls("git_push", arguments))
            .twin(twin())
            .denied(rule)
    };
    vec![
        push(
            "a separator in a part",
            r#"{"owner":"acme/web","repo":"x"}"#,
            "M-21",
        ),
        push(
            "a separator in the other part",
            r#"{"owner":"acme","repo":"web/../payroll"}"#,
            "M-21",
        ),
        push("an empty part", r#"{"owner":"","repo":"web"}"#, "M-21"),
        push("the other part empty", r#"{"owner":"acme","repo":""}"#, "M-21"),
        push("a part left out", r#"{"owner":"acme"}"#, "M-21"),
        push("a part that is null", r#"{"owner":"acme","repo":null}"#, "M-21"),
        push("a part that is a number", r#"{"owner":"acme","repo":7}"#, "M-21"),
        push(
            "a part that is a list",
            r#"{"owner":"acme","repo":["web"]}"#,
            "M-21",
        ),
        push(
            "a part that is an object",
            r#"{"owner":"acme","repo":{"name":"web"}}"#,
            "M-21",
        ),
        push("a part that is true", r#"{"owner":true,"repo":"web"}"#, "M-21"),
        push("a part that goes up", r#"{"owner":"acme","repo":".."}"#, "M-22"),
        push("a part that stays", r#"{"owner":".","repo":"web"}"#, "M-22"),
        push(
            "an escaped separator in a part",
            r#"{"owner":"acme","repo":"x%2fy"}"#,
            "M-22",
        ),
        push(
            "a backslash in a part",
            r#"{"owner":"acme","repo":"x\\y"}"#,
            "M-22",
        ),
        push(
            "an argument that no profile lists",
            r#"{"owner":"acme","repo":"web","path":"../payroll"}"#,
            "M-23",
        ),
        push(
            "an argument that differs by a trailing space",
            r#"{"owner":"acme","repo":"web","repo ":"payroll"}"#,
            "M-23",
        ),
        push(
            "a pointer for an argument",
            r#"{"owner":"acme","repo":"web","/repo":"payroll"}"#,
            "M-23",
        ),
        push(
            "an argument with a dot",
            r#"{"owner":"acme","repo":"web","repo.name":"payroll"}"#,
            "M-23",
        ),
        push(
            "a prototype for an argument",
            r#"{"owner":"acme","repo":"web","__proto__":{"repo":"payroll"}}"#,
            "M-23",
        ),
    ]
}

fn lists() -> Vec<Row> {
    let read = |name: &'static str, arguments: String, rule| {
        row(T, name, calls("git_read", &arguments))
            .twin(saying(
                "tools/call",
                r#""name":"git_read","arguments":{"paths":["/srv/a","/srv/b"]}"#,
            ))
            .denied(rule)
    };
    let many: Vec<String> = (0..65).map(|n| format!("\"/srv/{n}\"")).collect();
    let moves = |name: &'static str, arguments: &str, rule| {
        row(T, name, calls("git_move", arguments))
            .twin(saying(
                "tools/call",
                r#""name":"git_move","arguments":{"source":"/srv/a","destination":"/srv/b"}"#,
            ))
            .denied(rule)
    };
    vec![
        read(
            "a text where a list is meant",
            r#"{"paths":"/srv/a"}"#.into(),
            "M-21",
        ),
        read("an empty list", r#"{"paths":[]}"#.into(), "M-21"),
        read("a list in a list", r#"{"paths":[["/srv/a"]]}"#.into(), "M-21"),
        read("a number in a list", r#"{"paths":["/srv/a",7]}"#.into(), "M-21"),
        read(
            "an object with a number for a key",
            r#"{"paths":{"0":"/srv/a"}}"#.into(),
            "M-21",
        ),
        read(
            "65 of them",
            format!("{{\"paths\":[{}]}}", many.join(",")),
            "M-21",
        ),
        read(
            "the second of them goes up",
            r#"{"paths":["/srv/a","/srv/../etc"]}"#.into(),
            "M-22",
        ),
        read(
            "the second of them relative",
            r#"{"paths":["/srv/a","srv/b"]}"#.into(),
            "M-22",
        ),
        moves("a destination left out", r#"{"source":"/srv/a"}"#, "M-21"),
        moves(
            "a destination that goes up",
            r#"{"source":"/srv/a","destination":"/srv/../etc"}"#,
            "M-22",
        ),
        moves(
            "a relative source",
            r#"{"source":"srv/a","destination":"/srv/b"}"#,
            "M-22",
        ),
    ]
}

fn urls() -> Vec<Row> {
    let mut rows = Vec::new();
    for url in [
        "https://example.com/../x",
        "https://EXAMPLE.com/x",
        "HTTPS://example.com/x",
        "https://example.com:443/x",
        "https://example.com",
        "https://example.com/%2e%2e/x",
        "https://example.com/a//b",
        "https://user@example.com/x",
        "https:\\\\\\\\example.com/x",
        "//example.com/x",
        "/x",
        "https:/example.com/x",
        " https://example.com/x",
        "https://example.com/x\\n",
        "https://ex\u{e4}mple.com/x",
        "https://0x7f.1/x",
        "https://2130706433/x",
        "https://127.1/x",
    ] {
        rows.push(
            row(
                T,
                format!("URL {url:?}"),
                calls("git_clone", &format!("{{\"url\":\"{url}\"}}")),
            )
            .twin(saying(
                "tools/call",
                r#""name":"git_clone","arguments":{"url":"https://example.com/x"}"#,
            ))
            .denied("M-22"),
        );
    }
    rows
}

fn uris() -> Vec<Row> {
    let read = |uri: &str| {
        row(
            T,
            format!("uri {uri:?}"),
            says("resources/read", format!("\"uri\":\"{uri}\"")),
        )
        .twin(saying("resources/read", r#""uri":"repo://acme/web/README.md""#))
    };
    let mut rows: Vec<Row> = [
        "repo://acme/web/../payroll/x",
        "repo://acme/web/./x",
        "repo://acme/web//x",
        "repo://acme/web/%2e%2e/payroll",
        "repo://acme/web/..%2fpayroll",
        "repo://acme/web/a%00",
        "repo://acme/web/\\\\x",
        "repo://acme/web/x\\n",
        "Repo://acme/web/x",
        "acme/web/x",
        "repo://acme/web/x y",
    ]
    .into_iter()
    .map(|uri| read(uri).denied("M-22"))
    .collect();
    for uri in [
        "repo://acme/payroll/x",
        "repo:acme/web/x",
        "repo:///acme/web/x",
        "repo://acme/webx/x",
        "repo://acme/web",
        "repo://acme/WEB/x",
        "other://acme/web/x",
        "repo://acme/",
        "file:///etc/passwd",
    ] {
        rows.push(read(uri).is(403, None, "R-21"));
    }
    rows
}

fn subscriptions() -> Vec<Row> {
    let listen = |name: &'static str, uris: String| {
        row(
            "T-44",
            format!("subscription: {name}"),
            says(
                "subscriptions/listen",
                format!("\"notifications\":{{\"resourceSubscriptions\":{uris}}}"),
            ),
        )
        .twin(saying(
            "subscriptions/listen",
            r#""notifications":{"resourceSubscriptions":["repo://acme/web/README.md"]}"#,
        ))
    };
    let many = vec!["\"repo://acme/web/x\""; 17].join(",");
    let mut rows = vec![
        listen("a foreign resource", r#"["repo://acme/payroll/x"]"#.into()).is(403, None, "R-21"),
        listen(
            "a foreign one beside its own",
            r#"["repo://acme/web/x","repo://acme/payroll/x"]"#.into(),
        )
        .is(403, None, "R-21"),
        listen("one that goes up", r#"["repo://acme/web/../payroll/x"]"#.into()).denied("M-22"),
        listen("a text for the list", r#""repo://acme/web/x""#.into()).is(400, -32600, "M-16"),
        listen("a number in the list", "[7]".into()).is(400, -32600, "M-16"),
        listen("a list in the list", r#"[["repo://acme/web/x"]]"#.into()).is(400, -32600, "M-16"),
        listen("an object for the list", r#"{"0":"repo://acme/web/x"}"#.into()).is(400, -32600, "M-16"),
        listen("17 of them", format!("[{many}]")).is(400, -32600, "M-16"),
    ];
    rows.push(
        row(
            "T-44",
            "subscription: in another case",
            says(
                "subscriptions/listen",
                r#""notifications":{"resourcesubscriptions":["repo://acme/payroll/x"]}"#,
            ),
        )
        .is(400, -32600, "M-17"),
    );
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        rows.push(
            row(
                "T-44",
                format!("{method} of a foreign resource"),
                says(method, r#""uri":"repo://acme/payroll/x""#),
            )
            .twin(saying(method, r#""uri":"repo://acme/web/x""#))
            .only(Era::Legacy, LISTENS)
            .is(403, None, "R-21"),
        );
        rows.push(
            row(
                "T-44",
                format!("{method} of one that goes up"),
                says(method, r#""uri":"repo://acme/web/../payroll""#),
            )
            .twin(saying(method, r#""uri":"repo://acme/web/x""#))
            .only(Era::Legacy, LISTENS)
            .denied("M-22"),
        );
    }
    rows
}
