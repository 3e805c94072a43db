//! Ways around the proxy, each a row of a table: what it tries, its honest twin, and the rule that
//! stops it. Every row is sent to the release binary over real sockets, in both eras of the protocol and
//! over both versions of HTTP where it exists there: the twin reaches the upstream exactly once, the
//! other never, and the refusal is the same everywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod arguments;
mod bodies;
mod capabilities;
mod credentials;
mod guarded;
mod heads;
mod leaks;
mod login;
mod methods;
mod modes;
mod paths;
mod pins;
mod proofs;
mod repeats;
mod resources;
mod row;
mod sabotage;
mod script;
mod sessions;
mod smuggling;
mod tokens;
mod world;

use std::collections::BTreeSet;

use taper_tests::{root, tell};

use self::row::{Findings, Row};
use self::world::{Base, Setup, World};

/// The tables, by the names under which `spec/threats.md` cites them.
fn tables() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("bodies", bodies::rows()),
        ("repeats", repeats::rows()),
        ("paths", paths::rows()),
        ("heads", heads::rows()),
        ("smuggling", smuggling::rows()),
        ("credentials", credentials::rows()),
        ("proofs", proofs::rows()),
        ("capabilities", capabilities::rows()),
        ("sessions", sessions::rows()),
        ("methods", methods::rows()),
        ("resources", resources::rows()),
        ("arguments", arguments::rows()),
        ("pins", pins::rows()),
        ("login", login::rows()),
        ("tokens", tokens::rows()),
    ]
}

/// So that no row is lost unnoticed.
const ROWS: usize = 950;
const REQUESTS: usize = 3_400;

#[test]
fn nothing_gets_around_the_proxy() {
    let base = Base::start();
    let world = World::start(&base, "usual", Setup::default());
    let mut findings = Findings::default();
    for (family, rows) in tables() {
        for row in &rows {
            findings.run(&world, family, row);
        }
    }
    let leaks = [leaks::outward(&world), leaks::inward(&world)].concat();
    let (rows, requests) = (findings.rows, findings.requests);
    tell(&format!(
        "bypass: {rows} rows, {requests} wrong requests, {} rules",
        findings.rules.len()
    ));
    let (success, log) = world.proxy.stop_for_log();
    assert!(success && !log.contains("panicked"), "{log}");
    findings.none();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    assert!(rows >= ROWS && requests >= REQUESTS);
}

#[test]
fn nor_one_in_another_mode() {
    let base = Base::start();
    let findings = modes::demanding(&base);
    let wrong = [modes::killed(&base), modes::slow(&base)].concat();
    findings.none();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(findings.rows, 11);
}

#[test]
fn a_rule_that_is_switched_off_is_noticed_by_its_rows() {
    let base = Base::start();
    let halves = sabotage::OFF.chunks(sabotage::OFF.len().div_ceil(2));
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = halves
            .map(|half| {
                scope.spawn(|| {
                    let each = half.iter().map(|(rule, row)| sabotage::without(&base, rule, row));
                    each.collect::<Vec<_>>().concat()
                })
            })
            .collect();
        let wrong = running.into_iter().flat_map(|half| half.join().unwrap());
        wrong.collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each family is where `spec/threats.md` says that a threat is shown, and nowhere else.
#[test]
fn the_page_of_threats_names_the_tables() {
    let mut shown = BTreeSet::new();
    let told = [
        ("T-07", "modes"),
        ("T-35", "leaks"),
        ("T-37", "leaks"),
        ("T-43", "leaks"),
        ("T-55", "modes"),
    ];
    shown.extend(told.map(|(threat, family)| (threat.to_owned(), family.to_owned())));
    let all = tables().into_iter().chain([("nonces", modes::nonces())]);
    for (family, rows) in all {
        shown.extend(rows.iter().map(|row| (row.threat.to_owned(), family.to_owned())));
    }
    let page = std::fs::read_to_string(root().join("spec/threats.md")).unwrap();
    let mut named = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| T-")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (threat, places) = (cells.next().unwrap(), cells.next_back().unwrap());
        let Some((_, tables)) = places.split_once("bypass `") else {
            continue;
        };
        let tables = tables.split(';').next().unwrap();
        let tables = tables.split(", ").map(|table| table.trim_matches('`'));
        named.extend(tables.map(|table| (threat.to_owned(), table.to_owned())));
    }
    assert_eq!(named, shown);
}
