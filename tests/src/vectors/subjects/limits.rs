//! How much there may be of everything (P-21).

use biscuit_auth::format::schema;

use crate::book::Book;
use crate::scene::Scene;

/// The smallest check.
const ONE: &str = "check if tool(\"git_log\")";

pub(crate) fn vectors(book: &mut Book) {
    let most = |name: &str| format!("limits/{name}");
    let more = |name: &str| format!("limits/{name}-and-one");
    let mut pair = |name: &str, of: &str, bend: fn(&mut Scene, usize), limit: usize| {
        book.accept(&most(name), &format!("The most {of} that there may be."), |s| {
            bend(s, limit)
        });
        let description = format!("One more of the {of} than there may be.");
        book.refuse(&more(name), &description, "P-21", "accepted", |s| {
            bend(s, limit + 1)
        });
    };
    pair("blocks", "later blocks", narrowings, 16);
    pair("facts", "facts of a block", facts, 256);
    pair("checks", "checks of a block", checks, 32);
    pair(
        "symbols",
        "symbols of a block",
        |s, n| s.payload(0, move |b| symbols(b, n)),
        512,
    );
    pair("functions", "calls of functions in a chain", functions, 16);
    pair("patterns", "calls of `full_match` in a chain", patterns, 8);
    pair(
        "operations",
        "operations in the checks of a chain",
        operations,
        256,
    );
    pair(
        "checks-of-a-chain",
        "checks in a chain beside the expiries",
        chain_of_checks,
        64,
    );
    book.refuse(
        "limits/facts-of-a-later-block",
        "300 facts in a later block; they are notes, of which one would be too many.",
        "P-21",
        "D-06",
        |s| {
            s.hand_to_bob().fill(300, "note(\"hi\")");
        },
    );
}

fn facts(s: &mut Scene, n: usize) {
    // Block 0 has eleven facts besides.
    s.grant.fill(n - 11, "claim(\"groups\", \"eng\")");
}

fn checks(s: &mut Scene, n: usize) {
    // The expiry is one.
    s.narrow().fill(n - 1, ONE);
}

fn symbols(block: &mut schema::Block, n: usize) {
    let there = block.symbols.len();
    block.symbols.extend((there..n).map(|i| format!("s{i}")));
}

fn narrowings(s: &mut Scene, n: usize) {
    for _ in 0..n {
        s.narrow();
    }
}

/// Checks of eight expressions of 32 operations each.
fn operations(s: &mut Scene, n: usize) {
    let block = s.narrow();
    let mut left = n;
    while left > 0 {
        let mut expressions = Vec::new();
        while left > 0 && expressions.len() < 8 {
            let take = left.min(32);
            // A literal is one operation and each pair of parentheses another one.
            expressions.push(format!("{}true{}", "(".repeat(take - 1), ")".repeat(take - 1)));
            left -= take;
        }
        block.add(&format!("check if tool($t), {}", expressions.join(", ")));
    }
}

fn functions(s: &mut Scene, n: usize) {
    s.arguments(r#"{"path":"/srv/data"}"#);
    let check = "check if args($a), $a.get(\"path\").extern::path_within(\"/srv\")";
    s.narrow().fill(n, check);
}

fn patterns(s: &mut Scene, n: usize) {
    s.arguments(r#"{"name":"web"}"#);
    let check = "check if args($a), $a.get(\"name\").extern::full_match(\"web\")";
    s.narrow().fill(n, check);
}

fn chain_of_checks(s: &mut Scene, n: usize) {
    for _ in 0..2 {
        s.narrow().fill(30, ONE);
    }
    s.narrow().fill(n - 60, ONE);
}
