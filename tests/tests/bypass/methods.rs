//! Methods, tools, prompts and answers that nobody granted, or that are not there.

use crate::row::{Row, calls, row, says};
use crate::world::{Era, World, said};
use taper_tests::call::Call;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = methods();
    rows.extend(tools());
    rows.extend(prompts());
    rows.extend(answers());
    rows
}

fn methods() -> Vec<Row> {
    let t = "T-27";
    let mut rows: Vec<Row> = [
        "tools/destroy",
        "Tools/Call",
        "TOOLS/CALL",
        "tools/Call",
        "tools/call/",
        "/tools/call",
        "tools//call",
        "tools.call",
        "tools\\\\call",
        "tools/call?",
        "tools/call;x",
        "tool/call",
        "rpc.discover",
        "notifications/anything",
        "acme/other",
        "acme/echo/",
        "Acme/echo",
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "tools/../tools/call",
        "",
    ]
    .into_iter()
    .map(|method| {
        row(
            t,
            format!("method {method:?}"),
            says(method, crate::world::HONEST),
        )
        .denied("M-19")
    })
    .map(|row| row.only(Era::Legacy, "the next rows have headers that fit"))
    .collect();
    for method in [
        "tools/destroy",
        "Tools/Call",
        "tools/call/",
        "acme/other",
        "roots/list",
    ] {
        rows.push(
            row(
                t,
                format!("method {method:?}, with its header"),
                says(method, crate::world::HONEST),
            )
            .is(404, -32601, "M-19")
            .only(Era::Modern, "the rows before it are its like"),
        );
    }
    // What a header cannot hold stands in the body only, and so is legacy.
    for method in [
        "tools/call ",
        " tools/call",
        "tools/call\u{200b}",
        "tools/ca\u{217c}l",
        "t\u{43e}ols/call",
        "tools/call\\t",
        "tools\u{2215}call",
    ] {
        rows.push(
            row(
                t,
                format!("method {method:?}"),
                says(method, crate::world::HONEST),
            )
            .denied("M-19")
            .only(Era::Legacy, "no header can say it"),
        );
    }
    rows
}

/// 403 without a body: the grant itself has no such right.
fn no_right(row: Row) -> Row {
    row.is(403, None, "R-21")
}

fn tools() -> Vec<Row> {
    let t = "T-44";
    let mut rows = Vec::new();
    for tool in [
        "git_reset",
        "git_logs",
        "git_lo",
        "Git_log",
        "GIT_LOG",
        "git-log",
        "gitlog",
        "git_log_",
        "_git_log",
        "git.git_log",
        "git/git_log",
        "git:git_log",
        "notes:note_write",
        "note_write",
        "git_log/../git_reset",
        "*",
        "git_*",
        "review",
        "tools/call",
        "git_log;git_reset",
        "git_log,git_reset",
        "git_log\\u002e",
    ] {
        rows.push(no_right(row(t, format!("tool {tool:?}"), calls(tool, "{}"))));
    }
    // Names that look like one that is granted.
    for (name, tool) in [
        ("a Cyrillic letter", "git_l\u{43e}g"),
        ("a Greek letter", "git_l\u{3bf}g"),
        ("a full-width letter", "git_lo\u{ff47}"),
        ("a combining mark", "git_log\u{301}"),
        ("a zero-width space", "git_log\u{200b}"),
        ("a zero-width joiner", "git\u{200d}_log"),
        ("a soft hyphen", "git_\u{ad}log"),
        ("a turned reading direction", "\u{202e}gol_tig"),
        ("a byte order mark", "\u{feff}git_log"),
        ("a dotless letter", "g\u{131}t_log"),
        ("a full-width low line", "git\u{ff3f}log"),
        ("a space behind it", "git_log "),
        ("a space before it", " git_log"),
        ("a tab behind it", "git_log\\t"),
        ("a line feed behind it", "git_log\\n"),
    ] {
        rows.push(no_right(row(
            t,
            format!("the tool with {name}"),
            calls(tool, "{}"),
        )));
    }
    rows.push(
        row(
            "T-44",
            "what a policy denies",
            calls("git_show", r#"{"repo_path":"acme/payroll"}"#),
        )
        .twin(|world, era| {
            said(
                world.honest(era),
                era,
                "tools/call",
                r#""name":"git_show","arguments":{"repo_path":"acme/web"}"#,
            )
        })
        .denied("R-23"),
    );
    rows.push(
        row(
            "T-64",
            "a server for which the capability is not",
            |world, era, _| world.ask(&world.alice, era, "other", "tools/call", crate::world::HONEST),
        )
        .unauthorized("R-20"),
    );
    rows.push(no_right(
        row("T-44", "another server's tool at this one", |world, era, _| {
            world.ask(&world.alice, era, "notes", "tools/call", crate::world::HONEST)
        })
        .twin(|world, era| {
            world.ask(
                &world.alice,
                era,
                "notes",
                "tools/call",
                r#""name":"note_write","arguments":{}"#,
            )
        }),
    ));
    rows
}

fn prompts() -> Vec<Row> {
    let t = "T-44";
    let twin =
        |world: &World<'_>, era: Era| said(world.honest(era), era, "prompts/get", r#""name":"review""#);
    let mut rows: Vec<Row> = [
        "Review",
        "review2",
        "revie",
        "review ",
        "git_log",
        "re\u{432}iew",
        "../review",
    ]
    .into_iter()
    .map(|name| {
        no_right(
            row(
                t,
                format!("prompt {name:?}"),
                says("prompts/get", format!("\"name\":\"{name}\"")),
            )
            .twin(twin),
        )
    })
    .collect();
    let completion = |name: &'static str, reference: &'static str| {
        row(
            t,
            format!("completion of {name}"),
            says(
                "completion/complete",
                format!("\"ref\":{reference},\"argument\":{{\"name\":\"a\",\"value\":\"b\"}}"),
            ),
        )
        .twin(|world, era| {
            let inner = r#""ref":{"type":"ref/prompt","name":"review"},"argument":{"name":"a","value":"b"}"#;
            said(world.honest(era), era, "completion/complete", inner)
        })
    };
    rows.push(no_right(completion(
        "another prompt",
        r#"{"type":"ref/prompt","name":"other"}"#,
    )));
    rows.push(no_right(completion(
        "another resource",
        r#"{"type":"ref/resource","uri":"repo://acme/payroll/x"}"#,
    )));
    rows.push(
        completion("what is neither", r#"{"type":"ref/tool","name":"review"}"#).is(400, -32600, "M-16"),
    );
    rows.push(completion("nothing", r#"{"type":"ref/prompt"}"#).is(400, -32600, "M-16"));
    rows.push(completion("a text", r#""review""#).is(400, -32600, "M-16"));
    rows.push(
        completion(
            "what is said in capitals",
            r#"{"type":"ref/prompt","NAME":"review"}"#,
        )
        .is(400, -32600, "M-17"),
    );
    rows
}

/// Answers to requests that nobody made.
fn answers() -> Vec<Row> {
    let t = "T-41";
    let answer = |name: &'static str, text: &'static str| {
        row(t, name, move |_, _, call: Call| call.body(text))
            .is(400, -32600, "M-20")
            .only(Era::Legacy, "the modern era has no requests of a server")
    };
    vec![
        answer(
            "a result that nobody asked for",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ),
        answer(
            "an error that nobody asked for",
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
        ),
        answer(
            "a result with a text for an id",
            r#"{"jsonrpc":"2.0","id":"1","result":{}}"#,
        ),
        answer("a result without an id", r#"{"jsonrpc":"2.0","result":{}}"#).is(400, -32600, "M-16"),
    ]
}
