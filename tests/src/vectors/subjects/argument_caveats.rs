//! The caveats on arguments but those that are functions (R-22, R-25).

use super::caveats::{error, passed, refused};
use crate::book::Book;
use crate::scene::Scene;

pub(crate) fn vectors(book: &mut Book) {
    arguments(book);
    ranges(book);
}

fn arguments(book: &mut Book) {
    const FIVE: &str = "check if args($args), $args.get(\"n\") === 5";
    let with = |json: &'static str| move |s: &mut Scene| s.arguments(json);
    passed(book, "equals", "The number.", FIVE, with(r#"{"n":5}"#));
    refused(book, "equals-other", "Another number.", FIVE, with(r#"{"n":6}"#));
    error(
        book,
        "equals-missing",
        "There is no such argument.",
        FIVE,
        with(r#"{"m":5}"#),
    );
    error(
        book,
        "equals-text",
        "The number as a text.",
        FIVE,
        with(r#"{"n":"5"}"#),
    );
    error(
        book,
        "equals-fraction",
        "`5.0` is not 5.",
        FIVE,
        with(r#"{"n":5.0}"#),
    );
    error(
        book,
        "equals-exponent",
        "`5e0` is not 5.",
        FIVE,
        with(r#"{"n":5e0}"#),
    );
    error(book, "equals-null", "`null`.", FIVE, with(r#"{"n":null}"#));
    error(
        book,
        "equals-array",
        "An array of the number.",
        FIVE,
        with(r#"{"n":[5]}"#),
    );
    error(
        book,
        "equals-in-capitals",
        "The name in capitals.",
        FIVE,
        with(r#"{"N":5}"#),
    );
    book.refuse(
        "caveat/equals-no-arguments",
        "A call without arguments has an empty map of them.",
        "R-25",
        "accepted",
        |s| {
            s.check(FIVE);
            s.access.arguments = None;
        },
    );
    const LARGEST: &str = "check if args($args), $args.get(\"n\") === 9007199254740991";
    passed(
        book,
        "largest",
        "The largest integer, 2^53 − 1.",
        LARGEST,
        with(r#"{"n":9007199254740991}"#),
    );
    const TOO_LARGE: &str = "check if args($args), $args.get(\"n\") === 9007199254740992";
    error(
        book,
        "too-large",
        "2^53 is no integer here, not even where a check names it.",
        TOO_LARGE,
        with(r#"{"n":9007199254740992}"#),
    );
    const ZERO: &str = "check if args($args), $args.get(\"n\") === 0";
    passed(book, "zero", "Zero.", ZERO, with(r#"{"n":0}"#));
    error(book, "minus-zero", "`-0` is not 0.", ZERO, with(r#"{"n":-0}"#));
    const TRUE: &str = "check if args($args), $args.get(\"flag\") === true";
    passed(book, "boolean", "The boolean.", TRUE, with(r#"{"flag":true}"#));
    refused(
        book,
        "boolean-other",
        "The other boolean.",
        TRUE,
        with(r#"{"flag":false}"#),
    );
    error(
        book,
        "boolean-as-text",
        "The boolean as a text.",
        TRUE,
        with(r#"{"flag":"true"}"#),
    );
    const DEEP: &str = "check if args($args), $args.get(\"options\").get(\"limit\") === 5";
    passed(
        book,
        "pointer",
        "An argument within an object.",
        DEEP,
        with(r#"{"options":{"limit":5}}"#),
    );
    error(
        book,
        "pointer-cut",
        "The object is a number.",
        DEEP,
        with(r#"{"options":5}"#),
    );
    error(
        book,
        "pointer-as-a-name",
        "A member that is called like the pointer.",
        DEEP,
        with(r#"{"/options/limit":5}"#),
    );
    passed(
        book,
        "escaped-member",
        "A member's name is compared after unescaping.",
        FIVE,
        with(r#"{"\u006e":5}"#),
    );
    const ONE: &str = "check if args($args), {5, 10}.contains($args.get(\"n\"))";
    passed(book, "one-of", "One of the numbers.", ONE, with(r#"{"n":10}"#));
    refused(
        book,
        "one-of-other",
        "None of the numbers.",
        ONE,
        with(r#"{"n":7}"#),
    );
    refused(
        book,
        "one-of-text",
        "A text is none of the numbers.",
        ONE,
        with(r#"{"n":"5"}"#),
    );
    error(
        book,
        "one-of-missing",
        "There is no such argument.",
        ONE,
        with("{}"),
    );
    const PREFIX: &str = "check if args($args), $args.get(\"branch\").starts_with(\"feature-\")";
    passed(
        book,
        "prefix",
        "The text starts so.",
        PREFIX,
        with(r#"{"branch":"feature-1"}"#),
    );
    refused(
        book,
        "prefix-other",
        "The text has it elsewhere.",
        PREFIX,
        with(r#"{"branch":"x-feature-"}"#),
    );
    error(
        book,
        "prefix-missing",
        "There is no such argument.",
        PREFIX,
        with("{}"),
    );
    error(
        book,
        "prefix-number",
        "The argument is a number.",
        PREFIX,
        with(r#"{"branch":1}"#),
    );
}

fn ranges(book: &mut Book) {
    const RANGE: &str = "check if args($args), $args.get(\"n\") >= 1, $args.get(\"n\") <= 10";
    let with = |json: &'static str| move |s: &mut Scene| s.arguments(json);
    passed(book, "range-low", "The lower bound.", RANGE, with(r#"{"n":1}"#));
    passed(book, "range-high", "The upper bound.", RANGE, with(r#"{"n":10}"#));
    refused(book, "range-below", "One below.", RANGE, with(r#"{"n":0}"#));
    refused(book, "range-above", "One above.", RANGE, with(r#"{"n":11}"#));
    refused(
        book,
        "range-negative",
        "A negative number.",
        RANGE,
        with(r#"{"n":-5}"#),
    );
    error(
        book,
        "range-missing",
        "There is no such argument.",
        RANGE,
        with("{}"),
    );
    error(
        book,
        "range-text",
        "The number as a text.",
        RANGE,
        with(r#"{"n":"5"}"#),
    );
    error(book, "range-fraction", "A fraction.", RANGE, with(r#"{"n":5.5}"#));
    error(
        book,
        "range-huge",
        "2^64, which wraps in some parsers.",
        RANGE,
        with(r#"{"n":18446744073709551617}"#),
    );
    const AT_MOST: &str = "check if args($args), $args.get(\"n\") <= 10";
    passed(
        book,
        "at-most",
        "Only an upper bound.",
        AT_MOST,
        with(r#"{"n":-9007199254740991}"#),
    );
    error(
        book,
        "at-most-huge",
        "A number below all integers.",
        AT_MOST,
        with(r#"{"n":-9007199254740992}"#),
    );
}
