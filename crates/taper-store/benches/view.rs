//! What a proxy pays for revocation: look-ups in a view of one thousand, one million and ten million
//! live entries, quiet and while pages are taken.
//!
//! ```text
//! cargo bench -p taper-store --bench view [-- ENTRIES…]
//! ```
//!
//! Memory is what the resident set grew by while the entries were taken. Latencies are of single
//! look-ups, the cost of reading the clock (printed first) included; a maximum of some milliseconds is
//! the scheduler's, where threads outnumber processors.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use taper_store::{
    FeedKnown, FeedPage, FeedPosition, History, Revocation, RevocationKey, RevocationKeys, RevocationView,
};

const ISSUER: &str = "https://issuer.example";
const PAGE: u64 = 1000;
const LOOKUPS: u64 = 1_000_000;
/// Numbers from here on are of things that nobody revoked.
const UNKNOWN: u64 = 1 << 40;

fn main() {
    let mut sizes: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 1_000_000, 10_000_000];
    }
    let mut clock: Vec<u64> = (0..100_000).map(|_| nanos(|| ())).collect();
    println!("reading the clock: {}", Spread::of(&mut clock));
    for entries in sizes {
        measure(entries);
    }
}

fn measure(entries: u64) {
    let before = resident();
    let view = RevocationView::new(ISSUER, FeedPosition::START);
    let started = Instant::now();
    take(&view, 0, entries);
    let took = started.elapsed().as_nanos() as u64 / entries;
    let bytes = resident().saturating_sub(before) as f64 / entries as f64;
    println!("\n{entries} entries: {bytes:.1} bytes each, taken in {took} ns each");

    let found = |at: u64| look_up(&view, at % entries).is_some();
    let missing = |at: u64| look_up(&view, UNKNOWN + at).is_none();
    println!("  one look-up, revoked      {} ns", each(found));
    println!("  one look-up, not revoked  {} ns", each(missing));
    println!(
        "  a presentation of depth 5 {} ns",
        each(|at| presentation(&view, at))
    );
    let mut quiet = latencies(&view, entries);
    println!("  quiet:        {}", Spread::of(&mut quiet));

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut at = entries;
            while !stop.load(Ordering::Relaxed) {
                take(&view, at, at + PAGE);
                at += PAGE;
            }
            at - entries
        });
        let mut busy = latencies(&view, entries);
        stop.store(true, Ordering::Relaxed);
        let more = writer.join().unwrap();
        println!(
            "  under update: {} ({more} entries taken meanwhile)",
            Spread::of(&mut busy)
        );
    });
    let started = Instant::now();
    let mut worst = 0;
    let mut gone = 0;
    for _ in 0..RevocationView::SWEEP {
        worst = worst.max(nanos(|| gone += view.sweep(i64::MAX / 2)));
    }
    println!(
        "  a sweep: {} ms in {} steps, the longest {} us, {gone} entries gone",
        started.elapsed().as_millis(),
        RevocationView::SWEEP,
        worst / 1000
    );
}

/// Takes the entries `from..to`, page by page.
fn take(view: &RevocationView, from: u64, to: u64) {
    let mut from = from;
    while from < to {
        let end = (from + PAGE).min(to);
        let entry = |at: u64| Revocation {
            seq: at + 1,
            at: 0,
            issuer: ISSUER.to_owned(),
            what: key(at),
            until: None,
        };
        let page = FeedPage {
            issuer: ISSUER.to_owned(),
            after: from,
            entries: (from..end).map(entry).collect(),
            head: end,
            upto: end,
            history: History::default(),
            known: Some(FeedKnown {
                seq: from,
                history: None,
            }),
            time: 0,
        };
        view.apply(&page, Some(0)).unwrap();
        from = end;
    }
}

/// A mixture: half of it branches, a quarter grants, a quarter holders.
fn key(at: u64) -> RevocationKey {
    let id = id(at);
    match at % 4 {
        0 | 1 => RevocationKey::Branch(id.iter().map(|byte| format!("{byte:02x}")).collect()),
        2 => RevocationKey::Grant(grant(at)),
        _ => RevocationKey::Holder(URL_SAFE_NO_PAD.encode(id)),
    }
}

fn grant(at: u64) -> String {
    URL_SAFE_NO_PAD.encode(id(at).first_chunk::<16>().unwrap())
}

/// Looks up one thing of a kind that the entry of this number would have. The rest of the presentation
/// is empty.
fn look_up(view: &RevocationView, at: u64) -> Option<&'static str> {
    let (id, nothing) = (
        [id(at)],
        RevocationKeys {
            issuer: ISSUER,
            grant: "",
            branches: &[],
            holders: &[],
            client: "",
            subjects: &[],
        },
    );
    match at % 4 {
        0 | 1 => view.is_revoked(&RevocationKeys {
            branches: &id,
            ..nothing
        }),
        2 => view.is_revoked(&RevocationKeys {
            grant: &grant(at),
            ..nothing
        }),
        _ => view.is_revoked(&RevocationKeys {
            holders: &id,
            ..nothing
        }),
    }
}

/// A chain of six holders of which nothing is revoked.
fn presentation(view: &RevocationView, at: u64) -> bool {
    let ids: [[u8; 32]; 6] = std::array::from_fn(|n| id(UNKNOWN + 8 * at + n as u64));
    let keys = RevocationKeys {
        issuer: ISSUER,
        grant: "AAAAAAAAAAAAAAAAAAAAAA",
        branches: &ids,
        holders: &ids,
        client: "agent",
        subjects: &[("https://idp.example", "alice")],
    };
    view.is_revoked(&keys).is_none()
}

/// A pseudo-random number's 32 bytes (splitmix64).
fn id(at: u64) -> [u8; 32] {
    let mut out = [0; 32];
    for (n, chunk) in out.chunks_exact_mut(8).enumerate() {
        let mut z = at
            .wrapping_mul(4)
            .wrapping_add(n as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out
}

/// Spreads consecutive numbers over the whole table.
fn scattered(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// The mean of many calls that must all be true, the making of what is looked up included.
fn each(ask: impl Fn(u64) -> bool) -> u64 {
    let started = Instant::now();
    for at in 0..LOOKUPS {
        assert!(black_box(ask(scattered(at))));
    }
    started.elapsed().as_nanos() as u64 / LOOKUPS
}

/// Single look-ups of what is revoked; each is found.
fn latencies(view: &RevocationView, entries: u64) -> Vec<u64> {
    (0..LOOKUPS)
        .map(|at| nanos(|| assert!(look_up(view, scattered(at) % entries).is_some())))
        .collect()
}

fn nanos(work: impl FnOnce()) -> u64 {
    let started = Instant::now();
    work();
    started.elapsed().as_nanos() as u64
}

/// Bytes of resident memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

struct Spread {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Spread {
    fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        let at = |part: usize| {
            samples
                .get(samples.len() * part / 1000)
                .copied()
                .unwrap_or_default()
        };
        Self {
            p50: at(500),
            p99: at(990),
            p999: at(999),
            max: samples.last().copied().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, p999, max } = self;
        write!(f, "p50 {p50} p99 {p99} p99.9 {p999} max {max} ns")
    }
}
