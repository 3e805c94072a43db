//! Bodies of requests to the proxy.

use serde_json::json;
use taper_tests::call::Call;
use taper_tests::{Answer, raw};

use super::proxies::{MESSAGE, Proxies};

#[test]
fn bodies() {
    let proxies = Proxies::start();
    // The digest in the proof is that of the spoilt body: nothing but the body itself is wrong.
    let body = |name: &str, body: &[u8], status, says: &str| {
        proxies.check(name, |call| call.body(body), status, says);
    };
    let edit = |name: &str, from: &str, to: &str, status, says: &str| {
        proxies.check(name, |call| call.edit(from, to), status, says);
    };
    let repo = r#""repo_path":"acme/web""#;

    body("no body", b"", 400, "-32700");
    body("white space", b" \n", 400, "-32700");
    body("a word", b"tools/call", 400, "-32700");
    body("half a message", &MESSAGE.as_bytes()[..60], 400, "-32700");
    body(
        "a byte order mark",
        format!("\u{feff}{MESSAGE}").as_bytes(),
        400,
        "-32700",
    );
    body(
        "UTF-16",
        &MESSAGE.bytes().flat_map(|b| [b, 0]).collect::<Vec<_>>(),
        400,
        "-32700",
    );
    body(
        "invalid UTF-8",
        &[MESSAGE.replace("acme/web\"", "acme/").as_bytes(), b"\xff\"}}}"].concat(),
        400,
        "-32700",
    );
    body(
        "two messages",
        format!("{MESSAGE}\n{MESSAGE}").as_bytes(),
        400,
        "-32700",
    );
    body(
        "a letter behind it",
        format!("{MESSAGE}x").as_bytes(),
        400,
        "-32700",
    );
    body(
        "a NUL behind it",
        format!("{MESSAGE}\0").as_bytes(),
        400,
        "-32700",
    );
    edit("a comment", "{", "{/* */", 400, "-32700");
    edit("a comma too much", "}}", ",}}", 400, "-32700");
    edit(
        "NaN",
        repo,
        r#""repo_path":"acme/web","max_count":NaN"#,
        400,
        "-32700",
    );
    edit(
        "a number with a leading zero",
        repo,
        r#""repo_path":"acme/web","max_count":01"#,
        400,
        "-32700",
    );
    edit(
        "the method twice",
        "{",
        r#"{"method":"tools/list","#,
        400,
        "-32700",
    );
    edit(
        "an argument twice",
        repo,
        r#""repo_path":"acme/web","repo_path":"acme/payroll""#,
        400,
        "-32700",
    );
    edit(
        "an argument twice, escaped",
        repo,
        r#""repo_path":"acme/web","repo\u005fpath":"acme/payroll""#,
        400,
        "-32700",
    );
    edit("params twice", "{", r#"{"params":{},"#, 400, "-32700");
    edit("a lone surrogate", "acme/web", r"acme/web\ud800", 400, "-32700");
    edit("a NUL in a text", "acme/web", r"acme/web\u0000", 400, "-32700");
    edit(
        "a control character in a text",
        "acme/web",
        "acme/web\u{1}",
        400,
        "-32700",
    );
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [100, 100_000] {
        edit(
            &format!("depth {depth}"),
            repo,
            &format!("{repo},\"max_count\":{}", nested(depth)),
            400,
            "-32700",
        );
    }
    edit(
        "five thousand values",
        repo,
        &format!("{repo},\"max_count\":[{}1]", "1,".repeat(5_000)),
        400,
        "-32700",
    );

    body("a batch", format!("[{MESSAGE}]").as_bytes(), 400, "-32600");
    body("an empty batch", b"[]", 400, "-32600");
    body("a text", b"\"tools/call\"", 400, "-32600");
    body("null", b"null", 400, "-32600");
    body("an empty object", b"{}", 400, "-32600");
    edit("another protocol", "2.0", "1.0", 400, "-32600");
    edit("no protocol", r#""jsonrpc":"2.0","#, "", 400, "-32600");
    edit(
        "a method in capitals too",
        "{",
        r#"{"Method":"tools/list","#,
        400,
        "-32600",
    );
    edit("params in capitals too", "{", r#"{"PARAMS":{},"#, 400, "-32600");
    edit(
        "an argument in capitals too",
        repo,
        r#""repo_path":"acme/web","Repo_Path":"acme/payroll""#,
        400,
        "-32600",
    );
    edit(
        "a name in capitals too",
        r#""name""#,
        r#""Name":"git_show","name""#,
        400,
        "-32600",
    );
    edit("a method that is a number", r#""tools/call""#, "7", 400, "-32600");
    edit("a method that is null", r#""tools/call""#, "null", 400, "-32600");
    for id in ["null", "1.5", "[]", "{}", "true"] {
        edit(
            &format!("id {id}"),
            r#""id":1"#,
            &format!("\"id\":{id}"),
            400,
            "-32600",
        );
    }
    edit(
        "params that are an array",
        r#""params":{"#,
        r#""params":[],"x":{"#,
        400,
        "-32600",
    );
    edit(
        "arguments that are an array",
        r#"{"repo_path":"acme/web"}"#,
        r#"["acme/web"]"#,
        400,
        "-32600",
    );
    edit("a request and an answer", "{", r#"{"result":{},"#, 400, "-32600");
    body(
        "an answer",
        br#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        400,
        "-32600",
    );
    body(
        "an error",
        br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
        400,
        "-32600",
    );
    edit("no tool", r#""name":"git_log","#, "", 400, "-32600");
    edit("a tool that is a number", r#""git_log""#, "7", 400, "-32600");

    edit("an unknown method", "tools/call", "tools/destroy", 403, "M-19");
    edit(
        "a method with a NUL's name",
        "tools/call",
        "tools/call\u{200b}",
        403,
        "M-19",
    );
    edit("no repository", repo, "", 403, "M-21");
    edit("a repository that is a number", r#""acme/web""#, "7", 403, "M-21");
    edit(
        "a repository that is a list",
        r#""acme/web""#,
        r#"["acme/web"]"#,
        403,
        "M-21",
    );
    edit("an empty repository", "acme/web", "", 403, "M-2");
    for path in [
        "acme/../acme/web",
        "acme/./web",
        "acme//web",
        "acme/web/",
        "/acme/web",
        "~/web",
        r"acme\\web",
        "acme%2fweb",
    ] {
        edit(path, "acme/web", path, 403, "M-22");
    }
    edit(
        "another argument",
        repo,
        r#""repo_path":"acme/web","path":"../payroll""#,
        403,
        "M-23",
    );

    let unbound = |call: Call| {
        let mut claims = call.claims();
        claims.content_digest = None;
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    };
    let other = proxies.honest().body(
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "git_push"}})
            .to_string(),
    );
    let read_only = unbound(proxies.honest());
    proxies.pair(
        "a tool that writes, unbound",
        &read_only.bytes(),
        &unbound(other.clone()).bytes(),
        401,
        "M-14",
    );
    proxies.pair(
        "the same",
        &other.bytes(),
        &unbound(other.clone()).bytes(),
        401,
        "M-14",
    );
    proxies.end();
}

#[test]
fn the_twin_is_answered() {
    let proxies = Proxies::start();
    let answer: Answer = raw(&proxies.second_url, &proxies.honest().bytes());
    assert!(answer.body.contains("done"), "{answer:?}");
    let answer = raw(&proxies.up.mcp(), &proxies.honest().bytes());
    assert!(answer.body.contains("Author: "), "{answer:?}");
    proxies.end();
}
