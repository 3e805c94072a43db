//! What a presentation costs, in bytes and in microseconds of CPU time.
//!
//! **cold**: from the texts of the two headers and the body to a decision, as the boundary works:
//! claims of the proof, decoding, the proof's signature, all signatures of the chain with the walk and
//! the admission, body, decision. **warm**: the same with the verified token cached. Each stage stands
//! alone too, and a refusal must not cost more than the call that passes.
//!
//! The clock is the thread's own, so other work on the machine counts only as far as it disturbs the
//! caches. After criterion's lines come two tables: the medians of the same samples.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod world;

use criterion::Criterion;
use rand_core::OsRng;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use taper_dpop::{Algorithm, PrivateKey, TokenHash, base64url_decode, base64url_encode};
use world::{Presented, World};

const STAGES: [&str; 6] = ["claims", "decode", "proof", "chain", "body", "decide"];
/// Inputs that are made ahead of the clock.
const AHEAD: u64 = 64;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let mut bench = Bench {
        criterion: &mut criterion,
        samples: BTreeMap::new(),
    };
    let world = World::new();
    let mut bytes = Vec::new();
    for (name, hand_overs, algorithm) in [
        ("0", 0, Algorithm::EdDsa),
        ("1", 1, Algorithm::EdDsa),
        ("3", 3, Algorithm::EdDsa),
        ("5", 5, Algorithm::EdDsa),
        ("8", 8, Algorithm::EdDsa),
        ("5 P-256", 5, Algorithm::Es256),
    ] {
        let presented = world.presented(hand_overs, algorithm);
        passes(&mut bench, name, &world, &presented);
        bytes.push((name, presented.token.len(), presented.proof.len()));
    }
    let refusals = refusals(&mut bench, &world);
    let samples = bench.samples;
    criterion.final_summary();
    // Without this argument criterion runs everything once, as a test.
    if std::env::args().any(|argument| argument == "--bench") {
        tables(&samples, &bytes, &refusals);
    }
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    /// Microseconds of every sample, by name.
    samples: BTreeMap<String, Vec<f64>>,
}

impl Bench<'_> {
    /// Measures `work`; what it consumes is made by `prepare`, ahead of the clock.
    fn measure<I, O>(&mut self, name: &str, mut prepare: impl FnMut() -> I, mut work: impl FnMut(I) -> O) {
        let samples = self.samples.entry(name.to_owned()).or_default();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut left, mut spent) = (iterations, Duration::ZERO);
                while left > 0 {
                    let inputs: Vec<I> = (0..left.min(AHEAD)).map(|_| prepare()).collect();
                    left -= inputs.len() as u64;
                    let mut outputs = Vec::with_capacity(inputs.len());
                    let from = cpu_time();
                    outputs.extend(inputs.into_iter().map(|input| black_box(work(black_box(input)))));
                    spent += cpu_time() - from;
                }
                samples.push(spent.as_secs_f64() * 1e6 / iterations as f64);
                spent
            });
        });
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.try_into().unwrap())
}

fn passes(bench: &mut Bench<'_>, name: &str, world: &World, presented: &Presented) {
    let presentation = world.authenticate(presented).unwrap();
    let message = world::read(presentation.proof());
    let token = TokenHash::of(&presented.token);
    let cache = HashMap::from([(token, Arc::clone(presentation.chain()))]);
    let mut measure = |stage: &str, work: &mut dyn FnMut()| {
        bench.measure(&format!("{name}/{stage}"), || (), |()| work());
    };
    measure("claims", &mut || drop(world::check_proof(presented).unwrap()));
    measure("decode", &mut || drop(world::decode(presented).unwrap()));
    measure("body", &mut || drop(world::read(presentation.proof())));
    measure("decide", &mut || world.decide(&presentation, &message).unwrap());
    measure("cold", &mut || world.call(presented).unwrap());
    measure("warm", &mut || world.call_cached(presented, &cache).unwrap());
    bench.measure(
        &format!("{name}/proof"),
        || world::check_proof(presented).unwrap(),
        |proof| world::verify_proof(proof).unwrap(),
    );
    bench.measure(
        &format!("{name}/chain"),
        || world::decode(presented).unwrap(),
        |token| world.verify(token).unwrap(),
    );
}

/// Refusals of a chain of five hand-overs, beside the presentation that passes: (name, bytes).
fn refusals(bench: &mut Bench<'_>, world: &World) -> Vec<(&'static str, usize)> {
    let (token, key) = world.chain(5, Algorithm::EdDsa);
    let good = world::present(token.as_str(), &key);
    let other = world.chain(5, Algorithm::EdDsa).0;
    let cases = [
        ("good", world::present(token.as_str(), &key)),
        (
            "proof for another token",
            Presented {
                token: good.token.clone(),
                proof: world::present(other.as_str(), &key).proof,
            },
        ),
        (
            "proof by another key",
            world::present(
                token.as_str(),
                &PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
            ),
        ),
        (
            "proof with a bad signature",
            Presented {
                token: good.token.clone(),
                proof: tampered(&good.proof),
            },
        ),
        (
            "first signature bad",
            world::present(&edited(&token, First), &key),
        ),
        ("last signature bad", world::present(&edited(&token, Last), &key)),
        ("16 P-256 links of no root", world.unrooted()),
    ];
    for (name, presented) in &cases {
        assert_eq!(world.authenticate(presented).is_ok(), *name == "good", "{name}");
        let work = |()| world.authenticate(presented).is_ok();
        bench.measure(&format!("refused/{name}"), || (), work);
    }
    cases
        .map(|(name, presented)| (name, presented.token.len()))
        .to_vec()
}

#[derive(Clone, Copy)]
enum Which {
    First,
    Last,
}
use Which::{First, Last};

/// The token with one bit of a signature turned: that of block 0, or the seal.
fn edited(token: &taper_capability::Token, which: Which) -> String {
    let mut bytes = base64url_decode(token.as_str()).unwrap();
    // A signature is a field of 64 bytes: its length stands before it.
    let mut found = bytes
        .windows(2)
        .enumerate()
        .filter(|(_, w)| w[1] == 64 && w[0] & 7 == 2);
    let at = match which {
        First => found.next(),
        Last => found.next_back(),
    };
    let at = at.unwrap().0 + 10;
    bytes[at] ^= 1;
    base64url_encode(&bytes)
}

/// The proof with one bit of its signature turned.
fn tampered(proof: &str) -> String {
    let (input, signature) = proof.rsplit_once('.').unwrap();
    let mut signature = base64url_decode(signature).unwrap();
    signature[10] ^= 1;
    format!("{input}.{}", base64url_encode(&signature))
}

fn tables(samples: &BTreeMap<String, Vec<f64>>, bytes: &[(&str, usize, usize)], refusals: &[(&str, usize)]) {
    let median = |name: &str| {
        let mut sorted = samples[name].clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!("\nCPU-µs, medians. `token` and `proof` are bytes of header text.\n");
    print!(
        "{:>10} {:>6} {:>6} {:>8} {:>8} |",
        "hand-overs", "token", "proof", "cold", "warm"
    );
    STAGES.iter().for_each(|stage| print!(" {stage:>7}"));
    println!();
    // A filter may have left cases out.
    for (name, token, proof) in bytes
        .iter()
        .filter(|row| median(&format!("{}/cold", row.0)).is_finite())
    {
        let [cold, warm] = ["cold", "warm"].map(|sum| median(&format!("{name}/{sum}")));
        print!("{name:>10} {token:>6} {proof:>6} {cold:>8.1} {warm:>8.1} |");
        STAGES
            .iter()
            .for_each(|stage| print!(" {:>7.1}", median(&format!("{name}/{stage}"))));
        println!();
    }
    println!("\nBefore the body, five hand-overs: what is refused against what passes.\n");
    let good = median("refused/good");
    for (name, token) in refusals {
        let spent = median(&format!("refused/{name}"));
        println!(
            "{name:>28} {token:>6} bytes {spent:>8.1} {:>6.0} %",
            spent / good * 100.0
        );
    }
}
