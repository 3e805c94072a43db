//! Each caveat but those on arguments: what it lets through, and what never satisfies it.

use crate::book::Book;
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    names(book);
    resources(book);
    times(book);
    calls(book);
    chains(book);
}

/// A call under one check, which refuses it.
pub(super) fn refused(
    book: &mut Book,
    name: &str,
    description: &str,
    check: &str,
    bend: impl FnOnce(&mut Scene),
) {
    book.refuse(&format!("caveat/{name}"), description, "R-22", "accepted", |s| {
        s.check(check);
        bend(s);
    });
}

/// A call under one check, which ends with an error.
pub(super) fn error(
    book: &mut Book,
    name: &str,
    description: &str,
    check: &str,
    bend: impl FnOnce(&mut Scene),
) {
    book.refuse(&format!("caveat/{name}"), description, "R-25", "accepted", |s| {
        s.check(check);
        bend(s);
    });
}

/// A call under one check, which passes.
pub(super) fn passed(
    book: &mut Book,
    name: &str,
    description: &str,
    check: &str,
    bend: impl FnOnce(&mut Scene),
) {
    book.accept(&format!("caveat/{name}"), description, |s| {
        s.check(check);
        bend(s);
    });
}

fn names(book: &mut Book) {
    const TOOLS: &str = "check if server(\"git\"), tool($tool), {\"git_log\", \"git_show\"}.contains($tool)";
    passed(book, "tool", "The tool is one of two.", TOOLS, |_| {});
    refused(book, "tool-other", "The tool is another one.", TOOLS, |s| {
        s.access.tool = Some("git_push");
    });
    refused(
        book,
        "tool-longer",
        "The tool's name begins with an allowed one.",
        TOOLS,
        |s| {
            s.access.tool = Some("git_log_all");
        },
    );
    refused(
        book,
        "tool-in-capitals",
        "The tool's name is in capitals.",
        TOOLS,
        |s| {
            s.access.tool = Some("GIT_LOG");
        },
    );
    refused(
        book,
        "tool-of-another-server",
        "The tool of that name of another server.",
        TOOLS,
        |s| {
            s.grant.add("right_any_tool(\"web\")");
            s.access.server = "web";
        },
    );
    const SERVER: &str = "check if server($server), {\"git\"}.contains($server)";
    passed(book, "server", "The server.", SERVER, |_| {});
    refused(book, "server-other", "Another server.", SERVER, |s| {
        s.grant.add("right_any_tool(\"git-2\")");
        s.access.server = "git-2";
    });
    const METHOD: &str = "check if method($method), {\"tools/call\"}.contains($method)";
    passed(book, "method", "The method.", METHOD, |_| {});
    refused(
        book,
        "method-of-plumbing",
        "Plumbing has a method too, another one.",
        METHOD,
        |s| {
            s.ask("plumbing", "initialize");
        },
    );
    const AUDIENCE: &str =
        "check if audience($audience), {\"https://proxy.example/git/mcp\"}.contains($audience)";
    passed(book, "audience", "The audience.", AUDIENCE, |_| {});
    refused(
        book,
        "audience-other",
        "Another audience of the grant.",
        AUDIENCE,
        |s| {
            s.grant.add("for_audience(\"https://two.example/git/mcp\")");
            s.access.audience = "https://two.example/git/mcp";
        },
    );
    const ADDRESS: &str = "check if client_ip($client_ip), {\"10.1.2.3\"}.contains($client_ip)";
    passed(book, "address", "The address of the client.", ADDRESS, |s| {
        s.access.client_ip = Some("10.1.2.3");
    });
    refused(
        book,
        "address-unknown",
        "The address of the client is not known.",
        ADDRESS,
        |_| {},
    );
}

fn resources(book: &mut Book) {
    const ONE: &str = "check all resource(\"repo\", $value), {\"acme/web\", \"acme/api\"}.contains($value)";
    let of = |values: &'static [(&'static str, &'static str)]| {
        move |s: &mut Scene| s.access.resources = values.to_vec()
    };
    passed(
        book,
        "resource",
        "The resource is one of two.",
        ONE,
        of(&[("repo", "acme/web")]),
    );
    passed(
        book,
        "resource-all-match",
        "Both resources are among the two.",
        ONE,
        of(&[("repo", "acme/web"), ("repo", "acme/api")]),
    );
    refused(
        book,
        "resource-one-does-not-match",
        "Of two resources one is not among the two.",
        ONE,
        of(&[("repo", "acme/web"), ("repo", "acme/payroll")]),
    );
    refused(book, "resource-none", "The call names no resource.", ONE, of(&[]));
    refused(
        book,
        "resource-of-another-kind",
        "The value is right and the kind is another one.",
        ONE,
        of(&[("branch", "acme/web")]),
    );
    passed(
        book,
        "resource-beside-another-kind",
        "A resource of another kind does not matter.",
        ONE,
        of(&[("repo", "acme/web"), ("branch", "main")]),
    );
    const BELOW: &str = "check all resource(\"repo\", $value), $value.starts_with(\"acme/\")";
    passed(
        book,
        "below",
        "The resource is below the prefix.",
        BELOW,
        of(&[("repo", "acme/web")]),
    );
    refused(
        book,
        "below-look-alike",
        "`acme-evil` is not below `acme/`.",
        BELOW,
        of(&[("repo", "acme-evil/web")]),
    );
    refused(
        book,
        "below-bare",
        "`acme` is not below `acme/`.",
        BELOW,
        of(&[("repo", "acme")]),
    );
    refused(
        book,
        "below-in-capitals",
        "Case counts.",
        BELOW,
        of(&[("repo", "Acme/web")]),
    );
    refused(book, "below-none", "The call names no resource.", BELOW, of(&[]));
    refused(
        book,
        "below-not-all",
        "Of two resources one is elsewhere.",
        BELOW,
        of(&[("repo", "acme/web"), ("repo", "evil/acme/")]),
    );
}

fn times(book: &mut Book) {
    const FROM: &str = "check if time($time), $time >= 2027-01-15T08:00:00Z";
    passed(book, "not-before", "At that very second.", FROM, |_| {});
    refused(book, "not-before-yet", "One second before.", FROM, |s| {
        s.time -= 1
    });
    refused(
        book,
        "not-before-of-plumbing",
        "Plumbing has a time too.",
        FROM,
        |s| {
            s.ask("plumbing", "ping");
            s.time -= 1;
        },
    );
    const HOUR: &str = "check if hour($hour), weekday($day), $hour >= 8, $hour < 9, $day === 5";
    passed(book, "hour-and-weekday", "At eight on a Friday.", HOUR, |_| {});
    refused(book, "hour-before", "One second before eight.", HOUR, |s| {
        s.time -= 1
    });
    const BOUND: &str = "check if body_bound(true)";
    passed(
        book,
        "body-bound",
        "The proof carries the digest of the body.",
        BOUND,
        |_| {},
    );
    refused(
        book,
        "body-not-bound",
        "The proof carries no digest.",
        BOUND,
        |s| {
            s.claims(|claims| {
                claims.remove("content_digest");
            });
        },
    );
}

fn calls(book: &mut Book) {
    const FIVE: &str = "check all calls(\"c1\", $calls), $calls <= 5";
    let of = |values: &'static [(&'static str, i64)]| move |s: &mut Scene| s.access.calls = values.to_vec();
    passed(
        book,
        "calls-fifth",
        "The fifth call of five.",
        FIVE,
        of(&[("c1", 5)]),
    );
    refused(
        book,
        "calls-sixth",
        "The sixth call of five.",
        FIVE,
        of(&[("c1", 6)]),
    );
    refused(book, "calls-not-counted", "No counter is kept.", FIVE, of(&[]));
    refused(
        book,
        "calls-other-counter",
        "Only another caveat is counted.",
        FIVE,
        of(&[("c2", 1)]),
    );
    refused(
        book,
        "calls-fuller-counter",
        "Two caveats share a name; the fuller counter decides.",
        FIVE,
        of(&[("c1", 1), ("c1", 6)]),
    );
}

fn chains(book: &mut Book) {
    const ONLY_LOG: &str = "check if tool(\"git_log\")";
    const ONLY_SHOW: &str = "check if tool(\"git_show\")";
    book.accept("caveat/of-all-blocks", "A check in each of three blocks.", |s| {
        s.grant.add("check if server(\"git\")");
        s.check(ONLY_LOG);
        s.hand_to_bob().add("check if method(\"tools/call\")");
    });
    let mut no = |name: &str, description: &str, bend: fn(&mut Scene)| {
        book.refuse(&format!("caveat/{name}"), description, "R-22", "accepted", bend);
    };
    no("of-block-0", "A check of block 0 refuses.", |s| {
        s.grant.add(ONLY_SHOW);
    });
    no(
        "of-the-parent",
        "A check of block 1 refuses what block 2 would allow.",
        |s| {
            s.check(ONLY_SHOW);
            s.hand_to_bob().add(ONLY_LOG);
        },
    );
    no(
        "of-the-child",
        "A check of block 2 refuses what block 1 allows.",
        |s| {
            s.check(ONLY_LOG);
            s.hand_to_bob().add(ONLY_SHOW);
        },
    );
    no("rejecting", "A `reject if` that fits.", |s| {
        s.check("reject if tool(\"git_log\")")
    });
    no(
        "all-of-none",
        "`check all` over a word of which there is no fact.",
        |s| {
            s.check("check all prompt($p)");
        },
    );
    no(
        "on-a-claim",
        "A check on a claim that block 0 does not make.",
        |s| {
            s.check("check if claim(\"groups\", \"admin\")");
        },
    );
    book.refuse(
        "caveat/error-beside-a-refusal",
        "One check refuses and one ends with an error: the error decides.",
        "R-25",
        "accepted",
        |s| {
            s.check(ONLY_SHOW);
            s.check("check if args($a), $a.get(\"n\") < 1");
        },
    );
    book.refuse(
        "caveat/error-beside-a-deny",
        "A check ends with an error, and a policy denies.",
        "R-25",
        "accepted",
        |s| {
            s.check("check if args($a), $a.get(\"n\") < 1");
            s.policy = vec!["allow if true; deny if true;"];
        },
    );
    book.refuse(
        "caveat/unbound-variable",
        "An expression about a variable without a value.",
        "R-25",
        "accepted",
        |s| s.check("check if tool($t), $u === \"git_log\""),
    );
    book.refuse(
        "caveat/not-a-boolean",
        "An expression whose value is no boolean.",
        "R-25",
        "accepted",
        |s| s.check("check if tool($t), $t.length()"),
    );
}
