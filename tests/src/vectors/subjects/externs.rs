//! Calls of extern functions in checks (P-20).

use super::admission::call;
use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    functions(book);
}

fn functions(book: &mut Book) {
    let mut call_of = |name: &str, description: &str, without: &str, check: &str| {
        book.refuse(&format!("extern/{name}"), description, "P-20", without, |s| {
            call(s);
            s.check(check);
        });
    };
    call_of(
        "unknown",
        "A function that there is not.",
        "R-25",
        "check if args($a), $a.get(\"path\").extern::is_safe(\"/srv\")",
    );
    call_of(
        "unknown-never-reached",
        "A function that there is not, where it is never called.",
        "accepted",
        "reject if tool(\"git_push\"), \"x\".extern::is_safe(\"y\")",
    );
    call_of(
        "no-argument",
        "A function with nothing on its right.",
        "R-25",
        "check if args($a), $a.get(\"path\").extern::path_within()",
    );
    call_of(
        "variable-argument",
        "A function with a variable on its right.",
        "accepted",
        "check if client_ip($i), tool($t), \"git_log\".extern::full_match($t)",
    );
    call_of(
        "computed-argument",
        "A function with an argument of the call on its right.",
        "accepted",
        "check if args($a), \"web\".extern::full_match($a.get(\"name\"))",
    );
    call_of(
        "parenthesised-argument",
        "A function with a literal in parentheses on its right.",
        "accepted",
        "check if args($a), $a.get(\"name\").extern::full_match((\"web\"))",
    );
    call_of(
        "pattern-of-resources",
        "`full_match` of a word with many facts.",
        "accepted",
        "check if resource($k, $v), $v.extern::full_match(\"acme/.*\")",
    );
    let mut literal = |name: &str, description: &str, call_text: &str| {
        let check = format!("check if args($a), $a.get(\"name\").extern::{call_text}");
        call_of(name, description, "R-25", &check);
    };
    literal(
        "path-not-canonical",
        "A root with `..`.",
        "path_within(\"/srv/../etc\")",
    );
    literal(
        "path-with-slash",
        "A root that ends with a slash.",
        "path_within(\"/srv/\")",
    );
    literal("path-empty", "An empty root.", "path_within(\"\")");
    literal("path-of-integer", "A root that is a number.", "path_within(1)");
    literal("path-of-set", "A set of roots.", "path_within({\"/srv\"})");
    literal(
        "host-of-string",
        "A host that is not in a set.",
        "url_host(\"example.com\")",
    );
    literal("host-empty-set", "No host.", "url_host({,})");
    literal(
        "host-in-capitals",
        "A host in capitals.",
        "url_host({\"Example.com\"})",
    );
    literal(
        "host-with-path",
        "A host with a path.",
        "url_host({\"https://example.com/\"})",
    );
    literal(
        "host-default-port",
        "A scheme with its default port.",
        "url_host({\"https://example.com:443\"})",
    );
    literal(
        "host-other-scheme",
        "A scheme that is neither.",
        "url_host({\"ftp://example.com\"})",
    );
    literal(
        "host-two-stars",
        "A star that is not the first label.",
        "url_host({\"a.*.example.com\"})",
    );
    literal("host-of-integers", "A set of numbers.", "url_host({1})");
    literal(
        "network-of-string",
        "A network that is not in a set.",
        "in_network(\"10.0.0.0/8\")",
    );
    literal(
        "network-without-length",
        "A network without a length.",
        "in_network({\"10.0.0.0\"})",
    );
    literal(
        "network-with-host-bits",
        "A network with bits after its length.",
        "in_network({\"10.0.0.1/8\"})",
    );
    literal(
        "network-too-long",
        "A length of 33.",
        "in_network({\"10.0.0.0/33\"})",
    );
    literal(
        "network-leading-zero",
        "A length with a leading zero.",
        "in_network({\"10.0.0.0/08\"})",
    );
    literal(
        "network-mapped",
        "An IPv4-mapped network.",
        "in_network({\"::ffff:10.0.0.0/104\"})",
    );
    literal("pattern-of-set", "A set of patterns.", "full_match({\"web\"})");
    literal("pattern-empty", "An empty pattern.", "full_match(\"\")");
    literal(
        "pattern-anchored",
        "A pattern with an anchor.",
        "full_match(\"^web$\")",
    );
    literal(
        "pattern-unclosed",
        "A group that does not end.",
        "full_match(\"(web\")",
    );
    literal(
        "pattern-class-escape",
        "An escape for a class of characters.",
        "full_match(\"\\\\w+\")",
    );
    literal("pattern-lazy", "A lazy repetition.", "full_match(\"a+?\")");
    literal(
        "pattern-back-reference",
        "A back reference.",
        "full_match(\"(a)\\\\1\")",
    );
    literal(
        "pattern-large",
        "A pattern of size 261.",
        "full_match(\"(aaaaaaaaa){29}\")",
    );
    literal(
        "pattern-65-times",
        "A repetition of 65 times.",
        "full_match(\"a{65}\")",
    );
    literal(
        "pattern-descending",
        "A repetition from 3 to 2.",
        "full_match(\"a{3,2}\")",
    );
    literal(
        "pattern-nested",
        "Groups nine deep.",
        "full_match(\"(((((((((a)))))))))\")",
    );
    literal("hours-in-strings", "Hours that are no string.", "in_hours(9)");
    call_of(
        "hours-unordered-days",
        "Days of the week that do not ascend.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/17:00/Z/51\")",
    );
    call_of(
        "hours-empty-window",
        "A window that begins when it ends.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/09:00/Z/12345\")",
    );
    call_of(
        "hours-zero-offset",
        "UTC that is not written as `Z`.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/17:00/+00:00/12345\")",
    );
    call_of(
        "hours-large-offset",
        "An offset of more than 14 hours.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/17:00/+14:01/12345\")",
    );
    call_of(
        "hours-eighth-day",
        "A day of the week that there is not.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/17:00/Z/8\")",
    );
    call_of(
        "hours-time-zone",
        "A time zone, of which there are none.",
        "R-25",
        "check if time($t), $t.extern::in_hours(\"09:00/17:00/CET/12345\")",
    );
}
