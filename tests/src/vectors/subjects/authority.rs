//! The facts of block 0 (P-05, P-06, P-11, P-22).

use std::rc::Rc;

use biscuit_auth::format::schema;

use crate::block::holder;
use crate::book::Book;
pub(crate) fn vectors(book: &mut Book) {
    good(book);
    facts(book);
    variables(book);
    counts(book);
    names(book);
}

fn good(book: &mut Book) {
    book.accept("authority/everything", "Block 0 with every fact there is.", |s| {
        s.grant
            .add("actor(\"https://idp.example\", \"agent-7\")")
            .add("for_audience(\"https://proxy.example/web/mcp\")")
            .add("right(\"git\", \"git_log\")")
            .add("right_any_tool(\"web\")")
            .add("right_resource(\"git\", \"file:///srv/\")")
            .add("right_prompt(\"git\", \"review\")")
            .add("claim(\"email\", \"alice@example.com\")");
    });
    book.accept(
        "authority/checks-in-block-0",
        "The issuer adds caveats of its own.",
        |s| {
            s.grant
                .add("check if server($server), {\"git\"}.contains($server)");
        },
    );
    book.accept(
        "authority/new-signature-form",
        "Block 0 needs version 6 and is signed in the new form.",
        |s| {
            s.grant.add("reject if tool(\"git_push\")");
        },
    );
    book.accept(
        "authority/largest-depth",
        "The largest `max_depth` is 2^32 − 1.",
        |s| {
            s.grant.swap("max_depth", "max_depth(4294967295)");
        },
    );
    book.accept(
        "authority/p256-holder",
        "The first holder has a P-256 key.",
        |s| {
            s.grant.swap("holder", &holder(&s.keys.pat));
            s.presenter = Rc::clone(&s.keys.pat);
        },
    );
    book.accept(
        "authority/odd-strings",
        "Subjects and claims are any text, control characters included.",
        |s| {
            s.grant
                .swap(
                    "subject",
                    "subject(\"\", \"al\nice; right_any_tool(\\\"web\\\")\")",
                )
                .add("claim(\"\", \"\")");
        },
    );
}

fn facts(book: &mut Book) {
    let mut add = |name: &str, description: &str, fact: &str| {
        book.refuse(
            &format!("authority/{name}"),
            description,
            "P-05",
            "accepted",
            |s| {
                s.grant.add(fact);
            },
        );
    };
    add("unknown-fact", "A fact of no known name.", "admin(\"alice\")");
    add(
        "fact-of-the-request",
        "A fact of the request.",
        "tool(\"git_log\")",
    );
    add(
        "fact-of-later-blocks",
        "A note, which only later blocks have.",
        "note(\"hi\")",
    );
    add(
        "any-server",
        "A wildcard for servers, which there is not.",
        "right_any_server(true)",
    );
    add(
        "right-of-three",
        "A right with three terms.",
        "right(\"git\", \"git_log\", \"*\")",
    );
    add("right-of-one", "A right with one term.", "right(\"git\")");
    add("right-of-bytes", "A right for bytes.", "right(\"git\", hex:00)");
    add(
        "claim-of-set",
        "A claim that is a set.",
        "claim(\"groups\", {\"eng\"})",
    );
    add(
        "claim-of-integer",
        "A claim that is a number.",
        "claim(\"level\", 5)",
    );
    add(
        "actor-of-one",
        "An actor without an issuer.",
        "actor(\"agent-7\")",
    );
    add("capitals", "A fact in capitals.", "Right(\"git\", \"git_log\")");
    let mut swap = |name: &str, description: &str, start: &str, fact: &str| {
        book.refuse(&format!("authority/{name}"), description, "P-05", "P-22", |s| {
            s.grant.swap(start, fact);
        });
    };
    swap(
        "issuer-of-bytes",
        "The issuer is bytes.",
        "issuer",
        "issuer(hex:00)",
    );
    swap(
        "subject-of-one",
        "The subject has no issuer.",
        "subject",
        "subject(\"alice\")",
    );
    swap(
        "client-of-integer",
        "The client is a number.",
        "client",
        "client(1)",
    );
    swap(
        "short-grant-id",
        "The grant's id has 8 bytes.",
        "grant",
        "grant(\"AAAAAAAAAAA\")",
    );
    swap(
        "long-grant-id",
        "The grant's id has 17 bytes.",
        "grant",
        "grant(\"AAAAAAAAAAAAAAAAAAAAAAA\")",
    );
    swap(
        "grant-id-with-stray-bits",
        "The grant's id has 22 characters, of which the last carries bits of no byte.",
        "grant",
        "grant(\"AAAAAAAAAAAAAAAAAAAAAB\")",
    );
    swap(
        "issued-at-of-integer",
        "The time of issue is a number.",
        "issued_at",
        "issued_at(1800000000)",
    );
    swap(
        "depth-of-text",
        "`max_depth` is a text.",
        "max_depth",
        "max_depth(\"3\")",
    );
    swap(
        "holder-of-text",
        "The holder's key is a text.",
        "holder",
        "holder(\"ed25519\", \"key\")",
    );
    for (name, description, fact) in [
        ("negative-depth", "`max_depth` is negative.", "max_depth(-1)"),
        ("depth-too-large", "`max_depth` is 2^32.", "max_depth(4294967296)"),
    ] {
        book.refuse(&format!("authority/{name}"), description, "P-05", "P-05", |s| {
            s.grant.swap("max_depth", fact);
        });
    }
    for (name, description, fact) in [
        ("version-2", "The profile's version is 2.", "taper(2)"),
        ("version-0", "The profile's version is 0.", "taper(0)"),
    ] {
        book.refuse(
            &format!("authority/{name}"),
            description,
            "P-06",
            "accepted",
            |s| {
                s.grant.swap("taper", fact);
            },
        );
    }
    book.refuse(
        "authority/version-of-text",
        "The profile's version is the text `1`.",
        "P-05",
        "P-22",
        |s| {
            s.grant.swap("taper", "taper(\"1\")");
        },
    );
}

fn variables(book: &mut Book) {
    book.refuse(
        "authority/variable-in-a-fact",
        "A right for whatever tool: its second term is a variable.",
        "P-05",
        "accepted",
        |s| {
            s.grant.add("right(\"git\", \"git_log\")");
            s.payload(0, |block| {
                let right = &mut block.facts.last_mut().unwrap().predicate;
                right.terms[1].content = Some(schema::term::Content::Variable(5));
            });
        },
    );
}

fn counts(book: &mut Book) {
    for fact in [
        "taper",
        "issuer",
        "grant",
        "subject",
        "client",
        "holder",
        "for_audience",
        "issued_at",
        "max_depth",
    ] {
        let name = fact.replace('_', "-");
        let description = format!("There is no `{fact}`.");
        book.refuse(
            &format!("authority/no-{name}"),
            &description,
            "P-22",
            "P-22",
            |s| {
                s.grant.drop(&format!("{fact}("));
            },
        );
    }
    // The second one says the same where the verdict would hang on which of the two counts.
    for (fact, second) in [
        ("taper", None),
        ("issuer", None),
        ("grant", None),
        ("holder", None),
        ("subject", Some("subject(\"https://idp.example\", \"bob\")")),
        ("client", Some("client(\"other\")")),
        ("issued_at", Some("issued_at(2027-01-15T07:00:00Z)")),
        ("max_depth", Some("max_depth(9)")),
    ] {
        let name = fact.replace('_', "-");
        let description = format!("There are two `{fact}`.");
        book.refuse(
            &format!("authority/two-{name}"),
            &description,
            "P-22",
            "accepted",
            |s| {
                let same = s.grant.statement(&format!("{fact}("));
                s.grant.add(second.unwrap_or(&same));
            },
        );
    }
    book.refuse(
        "authority/two-actor",
        "There are two `actor`.",
        "P-22",
        "accepted",
        |s| {
            s.grant
                .add("actor(\"https://idp.example\", \"a\")")
                .add("actor(\"https://idp.example\", \"b\")");
        },
    );
}

fn names(book: &mut Book) {
    book.accept("names/longest", "The longest names that there may be.", |s| {
        let (server, tool) = ("s".repeat(64), "T".repeat(128));
        s.grant
            .add(&format!("right(\"{server}\", \"{tool}\")"))
            .add("right(\"a-0\", \"a/B.c_d-0\")")
            .add(&format!("right_resource(\"git\", \"{}\")", "u".repeat(1024)));
    });
    let mut name = |name: &str, description: &str, right: &str| {
        book.refuse(&format!("names/{name}"), description, "P-11", "accepted", |s| {
            s.grant.add(right);
        });
    };
    name("star-tool", "`*` as the name of a tool.", "right(\"git\", \"*\")");
    name("star-server", "`*` as a server.", "right_any_tool(\"*\")");
    name(
        "prefix-tool",
        "`git_*` as the name of a tool.",
        "right(\"git\", \"git_*\")",
    );
    name(
        "capital-server",
        "A server id in capitals.",
        "right_any_tool(\"Git\")",
    );
    name(
        "underscore-server",
        "A server id with an underscore.",
        "right_any_tool(\"a_b\")",
    );
    name("empty-server", "An empty server id.", "right_any_tool(\"\")");
    name("empty-tool", "An empty name of a tool.", "right(\"git\", \"\")");
    name(
        "colon-tool",
        "A name of a tool with a colon.",
        "right(\"git\", \"a:b\")",
    );
    name(
        "space-tool",
        "A name of a tool with a space at its end.",
        "right(\"git\", \"git_log \")",
    );
    name(
        "letter-of-another-script",
        "A Cyrillic letter in a name.",
        "right(\"git\", \"gіt_log\")",
    );
    name(
        "star-prompt",
        "`*` as the name of a prompt.",
        "right_prompt(\"git\", \"*\")",
    );
    name(
        "empty-resource",
        "An empty prefix of a resource.",
        "right_resource(\"git\", \"\")",
    );
    name(
        "long-server",
        "A server id of 65 characters.",
        &format!("right_any_tool(\"{}\")", "s".repeat(65)),
    );
    name(
        "long-tool",
        "A name of a tool of 129 characters.",
        &format!("right(\"git\", \"{}\")", "t".repeat(129)),
    );
    name(
        "long-resource",
        "A prefix of a resource of 1,025 bytes.",
        &format!("right_resource(\"git\", \"{}\")", "u".repeat(1025)),
    );
}
