//! The arguments of a call as JSON (R-27).

use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    arguments(book);
}

fn arguments(book: &mut Book) {
    let mut good = |name: &str, description: &str, json: &str| {
        book.accept(&format!("arguments/{name}"), description, |s| s.arguments(json));
    };
    good("none", "No arguments in an object.", "{}");
    good(
        "white-space",
        "White space of JSON around everything.",
        " {\t\"a\" :\r\n[ 1 , 2 ] } ",
    );
    good(
        "escapes",
        "Every escape, and a pair of surrogates.",
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}"#,
    );
    good(
        "numbers",
        "Every spelling of a number.",
        r#"{"a":[0,-1,1.5,1e2,1E+2,-0.0,18446744073709551616]}"#,
    );
    good(
        "same-name-at-two-levels",
        "One name at two levels.",
        r#"{"a":{"a":1}}"#,
    );
    good("deepest", "16 levels.", &nested(16));
    good(
        "longest-array",
        "An array of 256 elements.",
        &format!("{{\"a\":[{}]}}", list(256)),
    );
    let mut bad = |name: &str, description: &str, without: &str, json: &str| {
        book.refuse(&format!("arguments/{name}"), description, "R-27", without, |s| {
            s.arguments(json)
        });
    };
    bad("name-twice", "One name twice.", "accepted", r#"{"a":1,"a":2}"#);
    bad(
        "name-twice-escaped",
        "One name twice, once escaped.",
        "accepted",
        r#"{"a":1,"\u0061":2}"#,
    );
    bad(
        "name-twice-within",
        "One name twice, within an object.",
        "accepted",
        r#"{"b":[{"a":1,"a":1}]}"#,
    );
    bad(
        "lone-high-surrogate",
        "Half of a pair of surrogates.",
        "R-27",
        r#"{"a":"\ud800"}"#,
    );
    bad(
        "lone-low-surrogate",
        "The other half alone.",
        "R-27",
        r#"{"a":"\udc00x"}"#,
    );
    bad(
        "surrogates-turned",
        "A pair of surrogates the wrong way round.",
        "R-27",
        r#"{"a":"\ude00\ud83d"}"#,
    );
    bad(
        "surrogate-in-a-name",
        "Half of a pair in a name.",
        "R-27",
        r#"{"\ud800":1}"#,
    );
    bad("nul", "An escaped NUL.", "R-27", r#"{"a":"x\u0000y"}"#);
    bad(
        "nul-in-a-name",
        "An escaped NUL in a name.",
        "R-27",
        r#"{"x\u0000":1}"#,
    );
    bad("byte-order-mark", "A byte order mark.", "R-27", "\u{feff}{}");
    bad(
        "raw-control",
        "A tab that is not escaped.",
        "R-27",
        "{\"a\":\"\t\"}",
    );
    bad("too-deep", "17 levels.", "R-27", &nested(17));
    bad(
        "too-long-array",
        "An array of 257 elements.",
        "R-27",
        &format!("{{\"a\":[{}]}}", list(257)),
    );
    let many: Vec<String> = (0..9).map(|i| format!("\"a{i}\":[{}]", list(240))).collect();
    bad(
        "too-many-values",
        "More than 2,048 values.",
        "R-27",
        &format!("{{{}}}", many.join(",")),
    );
    bad(
        "trailing-comma",
        "A comma after the last member.",
        "R-27",
        r#"{"a":1,}"#,
    );
    bad("comment", "A comment.", "R-27", r#"{"a":1/**/}"#);
    bad("single-quotes", "Single quotes.", "R-27", "{'a':1}");
    bad("nan", "No number of JSON.", "R-27", r#"{"a":NaN}"#);
    bad(
        "leading-zero",
        "A number with a leading zero.",
        "R-27",
        r#"{"a":01}"#,
    );
    bad("plus", "A number with a plus.", "R-27", r#"{"a":+1}"#);
    bad("two-values", "Two objects.", "R-27", "{}{}");
    bad("cut", "An object that does not end.", "R-27", r#"{"a":1"#);
    bad("empty", "Nothing.", "R-27", "");
}

fn nested(levels: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

fn list(elements: usize) -> String {
    vec!["1"; elements].join(",")
}
