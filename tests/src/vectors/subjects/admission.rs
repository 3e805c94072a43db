//! The shape and the operators of checks (P-16, P-17), and what is welcome.

use biscuit_auth::format::schema;
use biscuit_auth::format::schema::op::Content;

use crate::book::Book;
use crate::scene::Scene;
pub(crate) fn vectors(book: &mut Book) {
    welcome(book);
    shapes(book);
    operators(book);
    stacks(book);
}

/// A call about which every check of these vectors has something to say. The block that holds the check has
/// the version that suffices for everything.
pub(super) fn call(s: &mut Scene) {
    s.payload(1, |block| block.version = Some(6));
    s.arguments(r#"{"n":5,"name":"web","list":["a","b"],"path":"/srv/data/x","f":1.5}"#);
    s.access.resources = vec![("repo", "acme/web")];
    s.access.client_ip = Some("10.1.2.3");
}

fn welcome(book: &mut Book) {
    let mut good = |name: &str, description: &str, check: &str| {
        book.accept(&format!("grammar/{name}"), description, |s| {
            call(s);
            s.check(check);
        });
    };
    good(
        "one-word",
        "A check that is one word.",
        "check if tool(\"git_log\")",
    );
    good(
        "two-words",
        "A check of two words.",
        "check if server(\"git\"), tool(\"git_log\")",
    );
    good(
        "word-of-block-0",
        "A check on a fact of block 0.",
        "check if claim(\"groups\", \"eng\"), client(\"dev\")",
    );
    good(
        "comparisons",
        "All comparisons.",
        "check if args($a), $a.get(\"n\") < 6, $a.get(\"n\") <= 5, $a.get(\"n\") > 4, $a.get(\"n\") >= 5, \
         $a.get(\"n\") === 5, $a.get(\"n\") !== 6, $a.get(\"n\") == 5",
    );
    good(
        "strings",
        "The operators of strings.",
        "check if args($a), $a.get(\"name\").starts_with(\"w\"), $a.get(\"name\").ends_with(\"b\"), \
         $a.get(\"name\").contains(\"e\"), $a.get(\"name\").length() === 3",
    );
    good(
        "negation",
        "Negation and parentheses.",
        "check if args($a), !($a.get(\"n\") === 6)",
    );
    good(
        "array-element",
        "An element of an array by its place.",
        "check if args($a), $a.get(\"list\").get(1) === \"b\"",
    );
    good(
        "array-literal",
        "An array as a literal.",
        "check if args($a), $a.get(\"list\") === [\"a\", \"b\"]",
    );
    good(
        "bytes-literal",
        "Bytes as a literal: the text of a number that is no integer.",
        "check if args($a), $a.get(\"f\") === hex:312e35",
    );
    good(
        "many-beside-one",
        "Two words, one of which may have many facts.",
        "check all resource(\"repo\", $r), tool($t), $r !== $t",
    );
    good(
        "tool-and-args",
        "The arguments beside a word that has one fact.",
        "check if tool($t), args($a), $a.get(\"name\") !== $t",
    );
    good(
        "reject",
        "A word that must not be.",
        "reject if tool(\"git_push\")",
    );
    book.accept("grammar/strict-and", "The strict form of `&&`.", |s| {
        call(s);
        s.check("check if tool($t), true === true");
        s.payload(1, |block| operator(block, 13));
    });
}

/// Puts another operator in the place of the last one of the last check.
fn operator(block: &mut schema::Block, kind: i32) {
    let ops = &mut block.checks.last_mut().unwrap().queries[0].expressions[0].ops;
    match &mut ops.last_mut().unwrap().content {
        Some(Content::Binary(binary)) => binary.kind = kind,
        other => panic!("{other:?} is no operator"),
    }
}

fn shapes(book: &mut Book) {
    let mut shape = |name: &str, description: &str, without: &str, check: &str| {
        book.refuse(&format!("shape/{name}"), description, "P-16", without, |s| {
            call(s);
            s.check(check);
        });
    };
    shape(
        "or",
        "Two queries, of which one would do.",
        "accepted",
        "check if tool(\"git_push\") or tool(\"git_log\")",
    );
    shape(
        "or-true",
        "A second query that always passes.",
        "accepted",
        "check if tool(\"git_push\") or true",
    );
    shape("no-word", "A check of no word.", "accepted", "check if true");
    shape(
        "three-words",
        "A check of three words.",
        "accepted",
        "check if server(\"git\"), tool(\"git_log\"), method(\"tools/call\")",
    );
    shape(
        "unknown-word",
        "A word that there is not.",
        "R-22",
        "check if admin(\"alice\")",
    );
    shape(
        "unknown-word-rejected",
        "A word that there is not, in a check that passes without it.",
        "accepted",
        "reject if banned(\"alice\")",
    );
    shape(
        "holder-as-a-word",
        "`holder` is a fact of blocks and no word.",
        "R-22",
        "check if holder(\"ed25519\", $key)",
    );
    shape(
        "max-depth-as-a-word",
        "`max_depth` is a fact of blocks and no word.",
        "R-22",
        "check if max_depth(3)",
    );
    shape(
        "too-many-terms",
        "A word with more terms than it has.",
        "R-22",
        "check if tool(\"git_log\", \"git\")",
    );
    shape(
        "too-few-terms",
        "A word with fewer terms than it has, in a check that passes so.",
        "accepted",
        "reject if resource(\"acme/payroll\")",
    );
    shape(
        "trusting-previous",
        "A check that trusts the blocks before it.",
        "accepted",
        "check if tool(\"git_log\") trusting authority, previous",
    );
    shape(
        "depth",
        "A check on the depth, which a hand-over changes.",
        "accepted",
        "check if depth(0)",
    );
    shape(
        "hop",
        "A check on the links, of which a hand-over adds one.",
        "accepted",
        "check if hop(0, $holder)",
    );
    shape(
        "calls-another-way",
        "A check on counters that is no max-calls caveat.",
        "accepted",
        "reject if calls(\"c1\", 6)",
    );
    shape(
        "calls-of-any-name",
        "A check on counters whatever their name.",
        "R-22",
        "check all calls($name, $calls), $calls <= 5",
    );
    book.refuse(
        "shape/head-with-terms",
        "The head of the query has a term.",
        "P-16",
        "accepted",
        |s| {
            s.check("check if tool(\"git_log\")");
            s.payload(1, |block| {
                let query = &mut block.checks[1].queries[0];
                query.head.terms = query.body[0].terms.clone();
            });
        },
    );
    book.refuse("shape/no-query", "A check of no query.", "P-16", "R-22", |s| {
        s.check("check if tool(\"git_log\")");
        s.payload(1, |block| block.checks[1].queries.clear());
    });
}

fn operators(book: &mut Book) {
    let mut op = |name: &str, description: &str, check: &str| {
        book.refuse(
            &format!("operator/{name}"),
            description,
            "P-17",
            "accepted",
            |s| {
                call(s);
                s.check(check);
            },
        );
    };
    op(
        "any",
        "A closure over an array.",
        "check if args($a), [1, 2].any($x -> $x === 1)",
    );
    op(
        "all",
        "A closure over a set.",
        "check if args($a), {1, 2}.all($x -> $x < 3)",
    );
    op(
        "get-without-args",
        "`.get` of a literal, where no argument is.",
        "check if tool($t), [\"git_log\"].get(0) === $t",
    );
    op(
        "lazy-or",
        "`||`, which has a closure.",
        "check if args($a), $a.get(\"n\") === 5 || false",
    );
    op(
        "lazy-and",
        "`&&` in its lazy form.",
        "check if args($a), $a.get(\"n\") === 5 && true",
    );
    op(
        "try-or",
        "`.try_or`, which hides errors.",
        "check if args($a), ($a.get(\"x\") < 1).try_or(true)",
    );
    op(
        "matches",
        "A regular expression.",
        "check if tool($t), $t.matches(\"git.*\")",
    );
    op(
        "not-equal",
        "The lenient `!=`.",
        "check if args($a), $a.get(\"x\") != 1",
    );
    op(
        "type",
        "`.type()`.",
        "check if tool($t), $t.type() === \"string\"",
    );
    op(
        "plus",
        "An addition.",
        "check if args($a), $a.get(\"n\") + 1 === 6",
    );
    op(
        "minus",
        "A subtraction.",
        "check if args($a), $a.get(\"n\") - 1 === 4",
    );
    op(
        "times",
        "A multiplication.",
        "check if args($a), $a.get(\"n\") * 2 === 10",
    );
    op(
        "divided",
        "A division.",
        "check if args($a), $a.get(\"n\") / 2 === 2",
    );
    op(
        "bitwise-and",
        "`&` of numbers.",
        "check if args($a), $a.get(\"n\") & 4 === 4",
    );
    op(
        "bitwise-or",
        "`|` of numbers.",
        "check if args($a), $a.get(\"n\") | 2 === 7",
    );
    op(
        "bitwise-xor",
        "`^` of numbers.",
        "check if args($a), $a.get(\"n\") ^ 1 === 4",
    );
    op(
        "union",
        "A union of sets.",
        "check if tool($t), {\"git_log\"}.union({\"x\"}).contains($t)",
    );
    op(
        "intersection",
        "An intersection of sets.",
        "check if tool($t), {\"git_log\", \"y\"}.intersection({\"git_log\", \"x\"}).contains($t)",
    );
    op(
        "string-concatenation",
        "`+` of strings.",
        "check if tool($t), $t + \"x\" === \"git_logx\"",
    );
    book.refuse(
        "operator/strict-or",
        "The strict form of `||`.",
        "P-17",
        "accepted",
        |s| {
            call(s);
            s.check("check if tool($t), true === true");
            s.payload(1, |block| operator(block, 14));
        },
    );
    book.refuse(
        "operator/closure-alone",
        "A closure without an operator, in an expression that is never reached.",
        "P-17",
        "accepted",
        |s| {
            call(s);
            s.check("reject if tool(\"git_push\"), [1].any($x -> $x === 1)");
        },
    );
}

/// Expressions that no parser makes: their operations do not leave one value.
fn stacks(book: &mut Book) {
    let mut ops = |name: &str, description: &str, bend: fn(&mut Vec<schema::Op>)| {
        book.refuse(&format!("operator/{name}"), description, "P-17", "R-25", |s| {
            call(s);
            s.check("check if tool($t), true === true");
            s.payload(1, move |block| {
                bend(&mut block.checks[1].queries[0].expressions[0].ops);
            });
        });
    };
    ops("two-values-left", "An expression of two values.", |ops| {
        ops.pop();
    });
    ops("no-value-left", "An expression of nothing.", Vec::clear);
    ops(
        "without-values",
        "An operator that has nothing to work on.",
        |ops| {
            ops.drain(..2);
        },
    );
    ops(
        "with-one-value",
        "An operator of two values that has one.",
        |ops| {
            ops.drain(..1);
        },
    );
    ops(
        "negation-of-nothing",
        "A negation that has nothing to work on.",
        |ops| {
            let negation = schema::OpUnary {
                kind: 0,
                ffi_name: None,
            };
            ops.insert(
                0,
                schema::Op {
                    content: Some(Content::Unary(negation)),
                },
            );
        },
    );
}
