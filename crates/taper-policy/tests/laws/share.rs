//! How many cases a law has seen, and of which outcome: a law over one outcome alone shows little.

// The shares are for whoever runs a law with `--nocapture`.
#![allow(clippy::print_stdout)]

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;

/// The number of cases: `PROPTEST_CASES`, or this many.
pub(crate) fn cases(default: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.map_or(default, |n| n.parse().expect("PROPTEST_CASES is a number"))
}

/// Tries a law that answers whether the case was one of the allowed; at least a fifth must be, and at
/// least a fifth must not. Prints the shares.
pub(crate) fn law<S: Strategy>(
    name: &str,
    default: u32,
    given: S,
    law: impl Fn(S::Value) -> Result<bool, TestCaseError>,
) {
    let (allowed, all) = (Cell::new(0u32), Cell::new(0u32));
    let config = Config {
        cases: cases(default),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&given, |case| {
        let was_allowed = law(case)?;
        all.set(all.get() + 1);
        allowed.set(allowed.get() + u32::from(was_allowed));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    let (allowed, all) = (allowed.get(), all.get());
    println!("{name}: {all} cases, {allowed} allowed, {} not", all - allowed);
    // A handful of cases says nothing about shares.
    if all < 200 {
        return;
    }
    assert!(
        allowed * 5 >= all,
        "{name}: {allowed} of {all} allowed, too few to mean anything"
    );
    assert!(
        (all - allowed) * 5 >= all,
        "{name}: {allowed} of {all} allowed, too many to mean anything"
    );
}
