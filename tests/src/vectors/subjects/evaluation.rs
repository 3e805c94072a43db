//! What the operators and the two kinds of matching mean (R-22, R-25).

use biscuit_auth::format::schema;
use biscuit_auth::format::schema::op::Content;
use biscuit_auth::format::schema::term::Content as Term;

use crate::book::Book;
use crate::scene::Scene;

pub(crate) fn vectors(book: &mut Book) {
    equality(book);
    order(book);
    containing(book);
    parts(book);
    booleans(book);
    matching(book);
}

/// What a check says.
enum Says {
    True,
    False,
    Error,
}
use Says::{Error, False, True};

/// One check over the same call, in a block of the highest version.
fn one(book: &mut Book, name: &str, says: &Says, check: &str) {
    bent(book, name, says, check, |_| {});
}

/// The same, with the block bent before it is signed.
fn bent(book: &mut Book, name: &str, says: &Says, check: &str, bend: fn(&mut schema::Block)) {
    let scene = |s: &mut Scene| {
        s.arguments(
            r#"{"n":5,"f":1.5,"s":"web","e":"é","t":true,"z":null,"l":["a","b",null],"m":{"a":1,"b":2},"w":{"b":2,"a":1}}"#,
        );
        s.access.resources = vec![("repo", "acme/web"), ("branch", "main")];
        s.check(check);
        s.payload(1, move |block| {
            block.version = Some(6);
            bend(block);
        });
    };
    let name = format!("evaluation/{name}");
    match says {
        True => book.accept(&name, &format!("It passes: `{check}`."), scene),
        False => book.refuse(&name, &format!("It fails: `{check}`."), "R-22", "accepted", scene),
        Error => book.refuse(&name, &format!("An error: `{check}`."), "R-25", "accepted", scene),
    }
}

/// One expression over the arguments.
fn on(book: &mut Book, name: &str, says: &Says, expression: &str) {
    one(book, name, says, &format!("check if args($a), {expression}"));
}

fn equality(book: &mut Book) {
    on(book, "equal-booleans", &True, "$a.get(\"t\") === true");
    on(book, "equal-strings", &True, "$a.get(\"s\") === \"web\"");
    on(book, "equal-bytes", &True, "$a.get(\"f\") === hex:312e35");
    on(book, "equal-nulls", &True, "$a.get(\"z\") === $a.get(\"y\")");
    on(book, "equal-arrays", &True, "$a.get(\"l\") === $a.get(\"l\")");
    on(book, "unequal-arrays", &False, "$a.get(\"l\") === [\"b\", \"a\"]");
    on(
        book,
        "equal-maps-in-another-order",
        &True,
        "$a.get(\"m\") === $a.get(\"w\")",
    );
    on(book, "equal-sets", &True, "{1, 2} === {2, 1}");
    on(book, "equal-of-two-types", &Error, "$a.get(\"n\") === \"5\"");
    on(book, "unequal-of-two-types", &Error, "$a.get(\"n\") !== \"5\"");
    on(
        book,
        "unequal-to-a-missing-one",
        &Error,
        "$a.get(\"y\") !== \"5\"",
    );
    on(
        book,
        "leniently-equal-of-two-types",
        &False,
        "$a.get(\"n\") == \"5\"",
    );
    on(
        book,
        "leniently-equal-to-a-missing-one",
        &False,
        "$a.get(\"y\") == \"5\"",
    );
    on(book, "leniently-equal", &True, "$a.get(\"n\") == 5");
    on(book, "equal-decomposed", &False, "$a.get(\"e\") === \"e\u{301}\"");
    on(book, "unequal", &True, "$a.get(\"n\") !== 6");
    on(book, "map-and-array", &Error, "$a.get(\"m\") === $a.get(\"l\")");
}

fn order(book: &mut Book) {
    on(book, "less", &True, "$a.get(\"n\") < 6");
    on(book, "not-less", &False, "$a.get(\"n\") < 5");
    on(book, "less-negative", &False, "$a.get(\"n\") < -6");
    on(book, "less-strings", &Error, "$a.get(\"s\") < \"x\"");
    on(book, "less-bytes", &Error, "$a.get(\"f\") < hex:ff");
    on(book, "less-null", &Error, "$a.get(\"y\") <= 5");
    on(book, "less-booleans", &Error, "$a.get(\"t\") <= true");
    one(
        book,
        "dates",
        &True,
        "check if time($t), $t > 2027-01-15T07:59:59Z, $t <= 2027-01-15T08:00:00Z",
    );
    bent(
        book,
        "largest-date",
        &False,
        "check if time($t), $t >= 2027-01-15T08:00:00Z",
        |block| {
            let ops = &mut block.checks[1].queries[0].expressions[0].ops;
            ops[1].content = Some(Content::Value(schema::Term {
                content: Some(Term::Date(253_402_300_799)),
            }));
        },
    );
    one(book, "date-and-integer", &Error, "check if time($t), $t > 5");
}

fn containing(book: &mut Book) {
    on(book, "set-has", &True, "{4, 5}.contains($a.get(\"n\"))");
    on(book, "set-has-not", &False, "{4, 6}.contains($a.get(\"n\"))");
    on(
        book,
        "set-of-another-type",
        &False,
        "{\"5\"}.contains($a.get(\"n\"))",
    );
    on(book, "empty-set", &False, "{,}.contains($a.get(\"n\"))");
    on(book, "superset", &True, "{1, 2}.contains({2})");
    on(book, "no-superset", &False, "{2}.contains({1, 2})");
    on(book, "set-of-null", &Error, "{4, 5}.contains($a.get(\"y\"))");
    on(book, "set-of-array", &Error, "{\"a\"}.contains($a.get(\"l\"))");
    on(book, "string-has", &True, "$a.get(\"s\").contains(\"eb\")");
    on(book, "string-has-nothing", &True, "$a.get(\"s\").contains(\"\")");
    on(book, "string-has-integer", &Error, "$a.get(\"s\").contains(1)");
    on(book, "array-has", &True, "$a.get(\"l\").contains(\"b\")");
    on(book, "array-has-not", &False, "$a.get(\"l\").contains(1)");
    on(
        book,
        "array-has-null",
        &True,
        "$a.get(\"l\").contains($a.get(\"y\"))",
    );
    on(book, "map-has-a-key", &True, "$a.get(\"m\").contains(\"a\")");
    on(book, "map-has-no-value", &False, "$a.get(\"m\").contains(1)");
    on(book, "null-has", &Error, "$a.get(\"y\").contains(\"a\")");
    on(book, "integer-has", &Error, "$a.get(\"n\").contains(5)");
}

fn parts(book: &mut Book) {
    on(
        book,
        "starts-with-nothing",
        &True,
        "$a.get(\"s\").starts_with(\"\")",
    );
    on(book, "array-starts", &True, "$a.get(\"l\").starts_with([\"a\"])");
    on(book, "array-ends-not", &False, "$a.get(\"l\").ends_with([\"b\"])");
    on(
        book,
        "string-starts-with-array",
        &Error,
        "$a.get(\"s\").starts_with([\"w\"])",
    );
    on(book, "ends-with", &True, "$a.get(\"s\").ends_with(\"b\")");
    on(book, "element", &True, "$a.get(\"l\").get(0) === \"a\"");
    on(
        book,
        "element-beyond",
        &True,
        "$a.get(\"l\").get(9) === $a.get(\"y\")",
    );
    on(
        book,
        "element-far-beyond",
        &True,
        "$a.get(\"l\").get(9223372036854775807) === $a.get(\"y\")",
    );
    on(
        book,
        "element-before",
        &True,
        "$a.get(\"l\").get(-1) === $a.get(\"y\")",
    );
    on(
        book,
        "element-by-text",
        &Error,
        "$a.get(\"l\").get(\"0\") === \"a\"",
    );
    on(
        book,
        "member-by-integer",
        &True,
        "$a.get(\"m\").get(1) === $a.get(\"y\")",
    );
    on(book, "member-by-boolean", &Error, "$a.get(\"m\").get(true) === 1");
    on(book, "member-of-null", &Error, "$a.get(\"y\").get(\"x\") === 1");
    on(book, "length-in-bytes", &True, "$a.get(\"e\").length() === 2");
    on(book, "length-of-bytes", &True, "$a.get(\"f\").length() === 3");
    on(book, "length-of-set", &True, "{7, 8, 7}.length() === 2");
    on(book, "length-of-array", &True, "$a.get(\"l\").length() === 3");
    on(book, "length-of-map", &True, "$a.get(\"m\").length() === 2");
    on(book, "length-of-integer", &Error, "$a.get(\"n\").length() === 1");
    on(book, "length-of-null", &Error, "$a.get(\"y\").length() === 0");
}

fn booleans(book: &mut Book) {
    on(book, "not", &True, "!false");
    on(book, "not-a-boolean", &Error, "!$a.get(\"n\")");
    on(book, "no-boolean", &Error, "$a.get(\"n\")");
    on(book, "null-as-a-boolean", &Error, "$a.get(\"y\")");
    on(
        book,
        "false-stops-before-an-error",
        &False,
        "false, $a.get(\"s\") < 1",
    );
    on(book, "error-before-a-false", &Error, "$a.get(\"s\") < 1, false");
    one(
        book,
        "rejected-error",
        &Error,
        "reject if args($a), $a.get(\"s\") < 1",
    );
    one(
        book,
        "all-with-an-error",
        &Error,
        "check all args($a), $a.get(\"s\") < 1",
    );
    let and = |block: &mut schema::Block| {
        let ops = &mut block.checks[1].queries[0].expressions[0].ops;
        match &mut ops.last_mut().unwrap().content {
            Some(Content::Binary(binary)) => binary.kind = 13,
            other => panic!("{other:?} is no operator"),
        }
    };
    bent(
        book,
        "strict-and-of-false",
        &False,
        "check if args($a), true === false",
        and,
    );
    bent(
        book,
        "strict-and-of-integers",
        &Error,
        "check if args($a), 1 === 1",
        and,
    );
}

fn matching(book: &mut Book) {
    one(book, "literal-integer", &True, "check if weekday(5)");
    one(book, "literal-of-another-type", &False, "check if weekday(\"5\")");
    one(book, "literal-date", &True, "check if time(2027-01-15T08:00:00Z)");
    one(book, "literal-boolean", &True, "check if body_bound(true)");
    one(book, "literal-set", &False, "check if tool({\"git_log\"})");
    one(
        book,
        "one-variable-in-two-words",
        &True,
        "check if server($x), right_any_tool($x)",
    );
    one(
        book,
        "one-variable-of-two-values",
        &False,
        "check if server($x), tool($x)",
    );
    one(book, "one-variable-twice", &False, "check if resource($x, $x)");
    one(
        book,
        "some-of-two",
        &True,
        "check if resource($kind, $v), $v === \"main\"",
    );
    one(
        book,
        "all-of-two",
        &False,
        "check all resource($kind, $v), $v === \"main\"",
    );
    one(
        book,
        "all-with-the-filter-outside",
        &False,
        "check all resource($kind, $v), $kind === \"repo\"",
    );
    one(
        book,
        "all-with-the-filter-inside",
        &True,
        "check all resource(\"repo\", $v), $v === \"acme/web\"",
    );
    one(
        book,
        "rejected-some-of-two",
        &False,
        "reject if resource($kind, $v), $v === \"main\"",
    );
    one(book, "rejected-none", &True, "reject if resource(\"tag\", $v)");
    one(book, "all-of-none", &False, "check all resource(\"tag\", $v)");
    bent(
        book,
        "head-of-another-name",
        &True,
        "check if tool(\"git_log\")",
        |block| {
            let query = &mut block.checks[1].queries[0];
            query.head.name = query.body[0].name;
        },
    );
    bent(
        book,
        "variable-by-a-default-symbol",
        &True,
        "check if tool($t), $t === \"git_log\"",
        |block| {
            let query = &mut block.checks[1].queries[0];
            query.body[0].terms[0].content = Some(Term::Variable(0));
            query.expressions[0].ops[0].content = Some(Content::Value(schema::Term {
                content: Some(Term::Variable(0)),
            }));
        },
    );
}
