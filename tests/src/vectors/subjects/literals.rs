//! Literals and joins in checks (P-18, P-19).

use biscuit_auth::format::schema;
use biscuit_auth::format::schema::op::Content;

use super::admission::call;
use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    literals(book);
    variable_in_an_array(book);
    set_of_one_value(book);
    dates(book);
    joins(book);
}

fn literals(book: &mut Book) {
    let most = "x".repeat(1024);
    book.accept("literal/longest", "A string of 1,024 bytes.", |s| {
        call(s);
        s.check(&format!("reject if tool(\"{most}\")"));
    });
    book.accept("literal/most-elements", "A set of 64 strings.", |s| {
        call(s);
        let set: Vec<String> = (0..63).map(|i| format!("\"t{i}\"")).collect();
        s.check(&format!(
            "check if tool($t), {{\"git_log\", {}}}.contains($t)",
            set.join(", ")
        ));
    });
    book.accept("literal/most-expressions", "Eight expressions.", |s| {
        call(s);
        s.check(&format!("check if tool($t), {}", ["true"; 8].join(", ")));
    });
    let mut bad = |name: &str, description: &str, without: &str, check: &str| {
        book.refuse(&format!("literal/{name}"), description, "P-18", without, |s| {
            call(s);
            s.check(check);
        });
    };
    bad(
        "long-string",
        "A string of 1,025 bytes in a predicate.",
        "accepted",
        &format!("reject if tool(\"{most}x\")"),
    );
    bad(
        "long-string-in-an-expression",
        "A string of 1,025 bytes in an expression.",
        "accepted",
        &format!("check if tool($t), $t !== \"{most}x\""),
    );
    bad(
        "long-string-in-a-set",
        "A string of 1,025 bytes in a set.",
        "accepted",
        &format!("check if tool($t), {{\"git_log\", \"{most}x\"}}.contains($t)"),
    );
    bad(
        "long-bytes",
        "1,025 bytes.",
        "accepted",
        &format!("check if args($a), $a.get(\"f\") !== hex:{}", "00".repeat(1025)),
    );
    let many: Vec<String> = (0..65).map(|i| i.to_string()).collect();
    bad(
        "large-set",
        "A set of 65 numbers.",
        "accepted",
        &format!(
            "check if args($a), {{{}}}.contains($a.get(\"n\"))",
            many.join(", ")
        ),
    );
    bad(
        "large-array",
        "An array of 65 numbers.",
        "accepted",
        &format!("check if args($a), [{}].contains($a.get(\"n\"))", many.join(", ")),
    );
    bad(
        "null",
        "`null`.",
        "accepted",
        "check if args($a), $a.get(\"x\") === null",
    );
    bad(
        "null-in-a-predicate",
        "`null` in a predicate.",
        "accepted",
        "reject if tool(null)",
    );
    bad(
        "null-in-an-array",
        "`null` in an array.",
        "accepted",
        "check if args($a), [null].contains($a.get(\"x\"))",
    );
    bad(
        "map",
        "A map.",
        "accepted",
        "check if args($a), {\"x\": 1}.get(\"x\") === 1",
    );
    bad(
        "array-in-an-array",
        "An array within an array.",
        "accepted",
        "check if args($a), [[1]].get(0) === [1]",
    );
    bad(
        "set-in-an-array",
        "A set within an array.",
        "accepted",
        "check if args($a), [{1}].get(0) === {1}",
    );
    bad(
        "nine-expressions",
        "Nine expressions.",
        "accepted",
        &format!("check if tool($t), {}", ["true"; 9].join(", ")),
    );
    bad(
        "33-operations",
        "An expression of 33 operations.",
        "accepted",
        &format!("check if tool($t), {}true{}", "(".repeat(32), ")".repeat(32)),
    );
}

/// A set that lists one value many times is a set of one value.
fn set_of_one_value(book: &mut Book) {
    book.accept(
        "literal/one-value-65-times",
        "A set that lists one value 65 times.",
        |s| {
            call(s);
            s.check("check if args($a), {5}.contains($a.get(\"n\"))");
            s.payload(1, |block| {
                let Some(Content::Value(schema::Term {
                    content: Some(schema::term::Content::Set(set)),
                })) = &mut block.checks[1].queries[0].expressions[0].ops[0].content
                else {
                    panic!("a set stands first")
                };
                set.set = vec![set.set[0].clone(); 65];
            });
        },
    );
}

fn variable_in_an_array(book: &mut Book) {
    book.refuse(
        "literal/variable-in-an-array",
        "A variable within an array.",
        "P-18",
        "accepted",
        |s| {
            call(s);
            s.check("check if tool($t), [1].length() === 1");
            s.payload(1, |block| {
                let query = &mut block.checks[1].queries[0];
                let variable = query.body[0].terms[0].clone();
                let Some(Content::Value(schema::Term {
                    content: Some(schema::term::Content::Array(array)),
                })) = &mut query.expressions[0].ops[0].content
                else {
                    panic!("an array stands first")
                };
                array.array = vec![variable];
            });
        },
    );
}

fn dates(book: &mut Book) {
    book.refuse(
        "literal/date-after-9999",
        "A date that RFC 3339 cannot write, and that would be shown as another one.",
        "P-18",
        "accepted",
        |s| {
            call(s);
            s.check("check if time($t), $t < 2027-01-15T09:00:00Z, true");
            s.payload(1, |block| {
                let ops = &mut block.checks[1].queries[0].expressions[0].ops;
                ops[1].content = Some(Content::Value(schema::Term {
                    content: Some(schema::term::Content::Date(253_402_300_800)),
                }));
            });
        },
    );
}

fn joins(book: &mut Book) {
    let mut join = |name: &str, description: &str, check: &str| {
        book.refuse(&format!("join/{name}"), description, "P-19", "accepted", |s| {
            call(s);
            s.check(check);
        });
    };
    join(
        "two-resources",
        "Resources with resources.",
        "check if resource(\"repo\", $a), resource(\"repo\", $b), $a === $b",
    );
    join(
        "resource-and-claim",
        "Resources with claims.",
        "check if resource(\"repo\", $r), claim(\"groups\", $g), $r !== $g",
    );
    join(
        "resource-and-args",
        "Resources with the arguments.",
        "check if resource(\"repo\", $r), args($a), $r.ends_with($a.get(\"name\"))",
    );
    join(
        "without-expressions",
        "Resources with claims, and no expression.",
        "reject if resource(\"repo\", $r), claim(\"repo\", $r)",
    );
    join(
        "args-without-expressions",
        "Resources with the arguments, and no expression.",
        "check if resource(\"repo\", $r), args($a)",
    );
    join(
        "rights",
        "Wildcards with audiences.",
        "check if right_any_tool($s), for_audience($a), $a.contains($s)",
    );
}
