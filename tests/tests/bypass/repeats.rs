//! Keys that are there twice, in one spelling or in two, at every level.

use crate::row::{Row, edit, row};

const REPO: &str = r#""repo_path":"acme/web""#;

pub(crate) fn rows() -> Vec<Row> {
    let t = "T-47";
    let mut rows = Vec::new();
    // The same key twice. What is given is put before the right one, and then behind it.
    for (level, from, twice, other) in [
        ("the version", "\"jsonrpc\":\"2.0\"", "\"jsonrpc\"", "\"1.0\""),
        ("the id", "\"id\":1", "\"id\"", "2"),
        (
            "the method",
            "\"method\":\"tools/call\"",
            "\"method\"",
            "\"tools/list\"",
        ),
        ("the params", "\"params\":", "\"params\"", "{}"),
        ("the tool", "\"name\":\"git_log\"", "\"name\"", "\"git_show\""),
        ("the arguments", "\"arguments\":", "\"arguments\"", "{}"),
        ("an argument", REPO, "\"repo_path\"", "\"acme/payroll\""),
    ] {
        rows.push(
            row(
                t,
                format!("{level} twice, the other one first"),
                edit(from, format!("{twice}:{other},{from}")),
            )
            .is(400, -32700, "M-15"),
        );
    }
    for (level, from, to) in [
        (
            "the method twice, the same",
            "\"method\":\"tools/call\"",
            "\"method\":\"tools/call\",\"method\":\"tools/call\"",
        ),
        (
            "an argument twice, the other one last",
            REPO,
            r#""repo_path":"acme/web","repo_path":"acme/payroll""#,
        ),
        (
            "an argument twice, one of them escaped",
            REPO,
            r#""repo_path":"acme/web","repo\u005fpath":"acme/payroll""#,
        ),
        (
            "an argument twice, both escaped differently",
            REPO,
            r#""repo\u005fpath":"acme/web","\u0072epo_path":"acme/payroll""#,
        ),
        (
            "the method twice, one of them escaped",
            "{",
            r#"{"\u006dethod":"tools/list","#,
        ),
        (
            "the tool twice, one of them escaped",
            "\"name\"",
            r#""n\u0061me":"git_show","name""#,
        ),
        (
            "a key twice below an argument",
            REPO,
            r#""repo_path":"acme/web","max_count":{"a":1,"a":2}"#,
        ),
        (
            "a key twice below an array",
            REPO,
            r#""repo_path":"acme/web","max_count":[{"a":1,"a":2}]"#,
        ),
        (
            "a key twice outside the arguments",
            "\"params\":{",
            r#""params":{"x":{"a":1,"a":2},"#,
        ),
        (
            "a key with a slash twice, one of them escaped",
            REPO,
            r#""repo_path":"acme/web","a/b":1,"a\/b":2"#,
        ),
        ("an empty key twice", REPO, r#""repo_path":"acme/web","":1,"":2"#),
    ] {
        rows.push(row(t, level, edit(from, to)).is(400, -32700, "M-15"));
    }
    // Spellings that a reader without regard to case takes for the same.
    for (level, from, to) in [
        ("the method in capitals too", "{", r#"{"METHOD":"tools/list","#),
        ("the method capitalised too", "{", r#"{"Method":"tools/list","#),
        ("the params in capitals too", "{", r#"{"PARAMS":{},"#),
        ("the id in capitals too", "{", r#"{"ID":2,"#),
        ("the version in capitals too", "{", r#"{"JSONRPC":"1.0","#),
        ("a result in capitals", "{", r#"{"Result":{},"#),
        ("an error in capitals", "{", r#"{"ERROR":{},"#),
        ("a result with a long s", "{", "{\"re\u{17f}ult\":{},"),
        ("the method in capitals instead", "\"method\"", "\"METHOD\""),
        (
            "the tool capitalised too",
            "\"name\"",
            r#""Name":"git_show","name""#,
        ),
        ("the tool capitalised instead", "\"name\"", "\"Name\""),
        (
            "the arguments in capitals too",
            "\"arguments\"",
            r#""ARGUMENTS":{},"arguments""#,
        ),
        (
            "a uri in capitals beside the tool",
            "\"name\"",
            r#""URI":"repo://acme/payroll/x","name""#,
        ),
        (
            "a task in another case beside the tool",
            "\"name\"",
            r#""taskid":"1","name""#,
        ),
        (
            "a cursor in another case beside the tool",
            "\"name\"",
            r#""Cursor":"1","name""#,
        ),
        (
            "an argument in capitals too",
            REPO,
            r#""repo_path":"acme/web","REPO_PATH":"acme/payroll""#,
        ),
        (
            "an argument in another case first",
            REPO,
            r#""Repo_Path":"acme/payroll","repo_path":"acme/web""#,
        ),
        (
            "two arguments that differ in case, one escaped",
            REPO,
            r#""repo_path":"acme/web","repo_pat\u0048":"acme/payroll""#,
        ),
        (
            "two arguments that differ by a Kelvin sign",
            REPO,
            "\"repo_path\":\"acme/web\",\"k\":1,\"\u{212a}\":2",
        ),
        (
            "two keys outside the arguments that differ in case",
            "\"params\":{",
            r#""params":{"x":{"a":1,"A":2},"#,
        ),
    ] {
        rows.push(row(t, level, edit(from, to)).is(400, -32600, "M-17"));
    }
    rows
}
