//! Audiences, kinds of access and policies.

use super::rights::read;
use crate::book::Book;
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    audiences(book);
    kinds(book);
    policies(book);
}

fn audiences(book: &mut Book) {
    let mut other = |name: &str, description: &str, audience: &'static str| {
        book.refuse(
            &format!("audience/{name}"),
            description,
            "R-20",
            "accepted",
            |s| {
                s.access.audience = audience;
            },
        );
    };
    other(
        "other",
        "The token is for another server.",
        "https://proxy.example/web/mcp",
    );
    other(
        "other-host",
        "The token is for another proxy.",
        "https://other.example/git/mcp",
    );
    other("slash", "A slash at the end.", "https://proxy.example/git/mcp/");
    other(
        "in-capitals",
        "The host in capitals.",
        "https://PROXY.example/git/mcp",
    );
    other(
        "longer",
        "The audience begins with that of the token.",
        "https://proxy.example/git/mcp2",
    );
    book.accept("audience/second", "The token is for two servers.", |s| {
        s.grant.add("for_audience(\"https://proxy.example/two/mcp\")");
        s.access.audience = "https://proxy.example/two/mcp";
    });
    book.refuse(
        "audience/of-plumbing",
        "Plumbing needs the audience too.",
        "R-20",
        "accepted",
        |s| {
            s.ask("plumbing", "initialize");
            s.access.audience = "https://proxy.example/web/mcp";
        },
    );
}

/// Which checks are skipped for which kinds.
fn kinds(book: &mut Book) {
    const TOOL: &str = "check if tool($tool), {\"git_show\"}.contains($tool)";
    const ARGUMENT: &str = "check if args($args), $args.get(\"n\") === 5";
    const RESOURCE: &str = "check all resource(\"repo\", $value), {\"acme/web\"}.contains($value)";
    const PROMPT: &str = "check if prompt(\"review\")";
    let mut skipped =
        |name: &str, description: &str, kind: &'static str, method: &'static str, check: &str| {
            book.accept(&format!("kind/{name}"), description, |s| {
                s.ask(kind, method);
                if kind == "list_entry" {
                    s.access.tool = Some("git_log");
                }
                s.check(check);
            });
        };
    skipped(
        "plumbing-skips-tool",
        "Plumbing names no tool.",
        "plumbing",
        "ping",
        TOOL,
    );
    skipped(
        "plumbing-skips-arguments",
        "Plumbing has no arguments.",
        "plumbing",
        "ping",
        ARGUMENT,
    );
    skipped(
        "plumbing-skips-resources",
        "Plumbing names no resource.",
        "plumbing",
        "ping",
        RESOURCE,
    );
    skipped(
        "plumbing-skips-calls",
        "Plumbing is not counted.",
        "plumbing",
        "ping",
        "check all calls(\"c1\", $calls), $calls <= 5",
    );
    skipped(
        "entry-skips-arguments",
        "An entry has no arguments.",
        "list_entry",
        "tools/list",
        ARGUMENT,
    );
    skipped(
        "entry-skips-resources",
        "An entry names no resource.",
        "list_entry",
        "tools/list",
        RESOURCE,
    );
    skipped(
        "entry-skips-body",
        "An entry has no body.",
        "list_entry",
        "tools/list",
        "check if body_bound(false)",
    );
    skipped(
        "plumbing-skips-one-of-two",
        "A check that names one word that there is not is skipped as a whole.",
        "plumbing",
        "ping",
        "check if server(\"web\"), tool(\"git_log\")",
    );
    let mut runs = |name: &str, description: &str, bend: fn(&mut Scene)| {
        book.refuse(&format!("kind/{name}"), description, "R-22", "accepted", bend);
    };
    runs(
        "entry-has-a-tool",
        "An entry has a tool, so the check counts.",
        |s| {
            s.ask("list_entry", "tools/list");
            s.access.tool = Some("git_log");
            s.check(TOOL);
        },
    );
    runs(
        "plumbing-has-a-server",
        "Plumbing has a server, so the check counts.",
        |s| {
            s.ask("plumbing", "ping");
            s.check("check if server(\"web\")");
        },
    );
    runs(
        "call-has-no-prompt",
        "A tool call has no prompt, and its checks are not skipped.",
        |s| {
            s.check(PROMPT);
        },
    );
    runs(
        "read-has-no-tool",
        "A read names no tool, and its checks are not skipped.",
        |s| {
            read(s, "file:///srv/web/a.txt");
            s.check(TOOL);
        },
    );
    runs(
        "read-has-no-arguments",
        "A read has no arguments, and its checks are not skipped.",
        |s| {
            read(s, "file:///srv/web/a.txt");
            s.check(ARGUMENT);
        },
    );
    runs(
        "task-has-no-tool",
        "A task names no tool, and its checks are not skipped.",
        |s| {
            s.ask("task", "tasks/get");
            s.check(TOOL);
        },
    );
    runs(
        "logging-has-no-tool",
        "The logging level has no tool, and its checks are not skipped.",
        |s| {
            s.ask("logging_level", "logging/setLevel");
            s.check(TOOL);
        },
    );
    book.accept("kind/read-has-a-uri", "A read has a URI.", |s| {
        read(s, "file:///srv/web/a.txt");
        s.check("check if uri($uri), $uri.starts_with(\"file:///srv/web/\")");
    });
}

fn policies(book: &mut Book) {
    let mut allowed = |name: &str, description: &str, policy: &[&'static str]| {
        book.accept(&format!("policy/{name}"), description, |s| {
            s.policy = policy.to_vec()
        });
    };
    allowed(
        "two-files",
        "One of two files allows.",
        &["allow if false;", "allow if true;"],
    );
    allowed(
        "idle-deny",
        "A file that says nothing beside one that allows.",
        &["", "allow if true;"],
    );
    let mut refused = |name: &str, description: &str, rule: &str, policy: &[&'static str]| {
        book.refuse(&format!("policy/{name}"), description, rule, "accepted", |s| {
            s.policy = policy.to_vec();
        });
    };
    refused("none", "There is no policy file.", "R-24", &[]);
    refused("empty", "The policy file is empty.", "R-24", &[""]);
    refused(
        "never-allows",
        "The only `allow` never applies.",
        "R-24",
        &["allow if false;"],
    );
    refused(
        "deny",
        "A `deny` beside an `allow`.",
        "R-23",
        &["deny if true; allow if true;"],
    );
    refused(
        "deny-after-allow",
        "The order of lines does not matter.",
        "R-23",
        &["allow if true; deny if true;"],
    );
    refused(
        "deny-in-a-later-file",
        "The order of files does not matter.",
        "R-23",
        &["allow if true;", "deny if true;"],
    );
    refused(
        "check",
        "A check of a policy fails.",
        "R-23",
        &["check if false; allow if true;"],
    );
    refused(
        "check-in-a-later-file",
        "A check of a later file fails.",
        "R-23",
        &["allow if true;", "check if false;"],
    );
    let mut plumbing = |name: &str, description: &str, rule: &str, policy: &[&'static str]| {
        book.refuse(&format!("policy/{name}"), description, rule, "accepted", |s| {
            s.ask("plumbing", "ping");
            s.policy = policy.to_vec();
        });
    };
    plumbing("none-for-plumbing", "Plumbing needs a policy too.", "R-24", &[]);
    plumbing(
        "deny-for-plumbing",
        "A `deny` counts for plumbing too.",
        "R-23",
        &["deny if true; allow if true;"],
    );
}
