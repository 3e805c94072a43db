//! The same work by taper and by tenuo, in one process: a credential from wire bytes to a decision.
//! `README.md` says what each side does and does not do.
//!
//! The sides take turns, in rounds, so that what disturbs the machine disturbs both; the figures are
//! medians of CPU time over the rounds, the ratio that of the pairs.

mod ours;
mod theirs;

use ours::Ours;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use theirs::Theirs;

/// The resource that is called.
const HOST: &str = "https://proxy.example/git/mcp";
/// How long everything lasts, in seconds.
const TTL: i64 = 3600;
const ROUNDS: usize = 41;
/// What one side runs in one round.
const ROUND: Duration = Duration::from_millis(10);

/// What each hand-over adds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caveats {
    /// Nothing: the chain of keys alone.
    None,
    /// Two tools, and one repository.
    Two,
}

/// One of the two.
trait Side {
    /// The bytes of the texts of the two headers: the chain, the proof.
    fn bytes(&self) -> [usize; 2];

    /// The work: whether the call may pass, from those texts.
    fn passes(&self) -> bool;
}

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    for (caveats, title) in [
        (Caveats::Two, "two caveats at every hand-over"),
        (Caveats::None, "no caveats"),
    ] {
        println!("\n{title}: CPU-µs, and bytes of header text (chain + proof)\n");
        println!("hand-overs | taper µs  tenuo µs  taper/tenuo | taper bytes  tenuo bytes  taper/tenuo");
        for hand_overs in [0, 3, 5, 8] {
            let (ours, theirs) = (
                Ours::new(hand_overs, caveats, now),
                Theirs::new(hand_overs, caveats, now),
            );
            row(hand_overs, &ours, &theirs);
        }
    }
}

fn row(hand_overs: usize, ours: &Ours, theirs: &Theirs) {
    let sides: [&dyn Side; 2] = [ours, theirs];
    // As many calls as fit into a round; this warms up, too.
    let calls = sides.map(|side| {
        let calls = (1..).take_while(|_| side.passes()).take(32).count();
        assert_eq!(calls, 32, "a call that may pass does not");
        let one = spent(side, 32) / 32.0;
        ((ROUND.as_secs_f64() * 1e6 / one) as u32).max(1)
    });
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Who is first changes with every round.
        for turn in [round % 2, (round + 1) % 2] {
            samples[turn].push(spent(sides[turn], calls[turn]) / f64::from(calls[turn]));
        }
    }
    let ratios = samples[0].iter().zip(&samples[1]).map(|(a, b)| a / b).collect();
    let [a, b] = samples.map(median);
    let [x, y] = sides.map(|side| side.bytes().iter().sum::<usize>());
    println!(
        "{hand_overs:>10} | {a:>8.1}  {b:>8.1}  {:>11.2} | {x:>11}  {y:>11}  {:>11.2}",
        median(ratios),
        x as f64 / y as f64
    );
}

/// The microseconds of CPU time of so many calls.
fn spent(side: &dyn Side, calls: u32) -> f64 {
    let from = cpu_time();
    for _ in 0..calls {
        assert!(black_box(side).passes());
    }
    (cpu_time() - from).as_secs_f64() * 1e6
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.try_into().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
