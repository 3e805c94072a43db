//! What block 0 allows.

use crate::book::Book;
use crate::scene::Scene;

pub(crate) fn vectors(book: &mut Book) {
    tools(book);
    resources(book);
    prompts(book);
}

/// The grant's only rights.
fn only(s: &mut Scene, rights: &[&str]) {
    s.grant.drop("right_any_tool");
    for right in rights {
        s.grant.add(right);
    }
}

fn right(book: &mut Book, name: &str, description: &str, bend: impl FnOnce(&mut Scene)) {
    book.accept(&format!("right/{name}"), description, bend);
}

fn no_right(book: &mut Book, name: &str, description: &str, bend: impl FnOnce(&mut Scene)) {
    book.refuse(&format!("right/{name}"), description, "R-21", "accepted", bend);
}

fn tools(book: &mut Book) {
    right(book, "tool", "A right for this tool.", |s| {
        only(s, &["right(\"git\", \"git_log\")"])
    });
    no_right(book, "other-tool", "A right for another tool.", |s| {
        only(s, &["right(\"git\", \"git_show\")"]);
    });
    no_right(
        book,
        "shorter-tool",
        "A right for a tool whose name is the beginning.",
        |s| {
            only(s, &["right(\"git\", \"git\")"]);
        },
    );
    no_right(
        book,
        "tool-in-capitals",
        "A right for the name in capitals.",
        |s| {
            only(s, &["right(\"git\", \"GIT_LOG\")"]);
        },
    );
    no_right(
        book,
        "tool-of-another-server",
        "A right for a tool of that name elsewhere.",
        |s| {
            only(s, &["right(\"web\", \"git_log\")"]);
        },
    );
    no_right(
        book,
        "any-tool-of-another-server",
        "A right for every tool elsewhere.",
        |s| {
            only(s, &["right_any_tool(\"web\")"]);
        },
    );
    no_right(
        book,
        "prompt-for-a-tool",
        "A right for a prompt of the tool's name.",
        |s| {
            only(s, &["right_prompt(\"git\", \"git_log\")"]);
        },
    );
    no_right(book, "none", "No rights.", |s| only(s, &[]));
    no_right(book, "no-tool-named", "A call that names no tool.", |s| {
        s.access.tool = None
    });
}

pub(super) fn read(s: &mut Scene, uri: &'static str) {
    s.ask("resource_read", "resources/read");
    s.access.uri = Some(uri);
    only(s, &["right_resource(\"git\", \"file:///srv/web/\")"]);
}

fn resources(book: &mut Book) {
    right(book, "resource", "A resource below the prefix.", |s| {
        read(s, "file:///srv/web/a.txt")
    });
    right(book, "resource-itself", "The prefix itself.", |s| {
        read(s, "file:///srv/web/")
    });
    right(book, "resource-exact", "A right for one resource.", |s| {
        read(s, "file:///srv/a.txt");
        s.grant
            .swap("right_resource", "right_resource(\"git\", \"file:///srv/a.txt\")");
    });
    let mut no = |name: &str, description: &str, uri: &'static str| {
        no_right(book, &format!("resource-{name}"), description, |s| read(s, uri));
    };
    no(
        "look-alike",
        "A folder whose name begins so.",
        "file:///srv/web-evil/a.txt",
    );
    no("above", "The folder without its slash.", "file:///srv/web");
    no("parent", "A way out by `..`.", "file:///srv/web/../secret");
    no(
        "escaped-parent",
        "A way out by an escape.",
        "file:///srv/web/%2e%2e/secret",
    );
    no(
        "backslash",
        "A way out by a backslash.",
        "file:///srv/web/..\\secret",
    );
    no("empty-segment", "An empty segment.", "file:///srv/web//a.txt");
    no("other-scheme", "Another scheme.", "http:///srv/web/a.txt");
    no("in-capitals", "The scheme in capitals.", "FILE:///srv/web/a.txt");
    no_right(
        book,
        "resource-longer-than-exact",
        "A right for one resource is no prefix.",
        |s| {
            read(s, "file:///srv/a.txt.bak");
            s.grant
                .swap("right_resource", "right_resource(\"git\", \"file:///srv/a.txt\")");
        },
    );
    no_right(
        book,
        "resource-by-any-tool",
        "A right for every tool is none for resources.",
        |s| {
            read(s, "file:///srv/web/a.txt");
            s.grant.swap("right_resource", "right_any_tool(\"git\")");
        },
    );
    no_right(
        book,
        "resource-of-another-server",
        "A right for the resource elsewhere.",
        |s| {
            read(s, "file:///srv/web/a.txt");
            s.grant
                .swap("right_resource", "right_resource(\"web\", \"file:///srv/web/\")");
        },
    );
}

fn prompts(book: &mut Book) {
    let prompt = |s: &mut Scene, name: &'static str| {
        s.ask("prompt_get", "prompts/get");
        s.access.prompt = Some(name);
        only(s, &["right_prompt(\"git\", \"review\")"]);
    };
    right(book, "prompt", "A right for the prompt.", |s| prompt(s, "review"));
    no_right(book, "other-prompt", "A right for another prompt.", |s| {
        prompt(s, "release")
    });
    no_right(
        book,
        "prompt-by-any-tool",
        "A right for every tool is none for prompts.",
        |s| {
            prompt(s, "review");
            s.grant.swap("right_prompt", "right_any_tool(\"git\")");
        },
    );
    right(book, "completion-of-a-prompt", "A completion of a prompt.", |s| {
        prompt(s, "review");
        s.access.kind = "completion";
    });
    no_right(
        book,
        "completion-of-nothing",
        "A completion that names nothing.",
        |s| {
            prompt(s, "review");
            s.access.kind = "completion";
            s.access.prompt = None;
        },
    );
    right(book, "task", "A task needs some right of its server.", |s| {
        s.ask("task", "tasks/get");
    });
    no_right(
        book,
        "task-of-another-server",
        "A task of a server without rights.",
        |s| {
            s.ask("task", "tasks/get");
            only(s, &["right_any_tool(\"web\")"]);
        },
    );
    no_right(
        book,
        "logging-without-rights",
        "The logging level of a server without rights.",
        |s| {
            s.ask("logging_level", "logging/setLevel");
            only(s, &[]);
        },
    );
    right(book, "plumbing", "Plumbing needs no right.", |s| {
        s.ask("plumbing", "initialize");
        only(s, &[]);
    });
    right(
        book,
        "list-entry",
        "An entry of a list that may be called.",
        |s| {
            s.ask("list_entry", "tools/list");
            s.access.tool = Some("git_log");
        },
    );
    no_right(
        book,
        "list-entry-without",
        "An entry of a list that may not be called.",
        |s| {
            s.ask("list_entry", "tools/list");
            s.access.tool = Some("git_log");
            only(s, &["right(\"git\", \"git_show\")"]);
        },
    );
}
