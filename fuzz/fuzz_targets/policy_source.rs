//! A policy file of either kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_policy::{PolicyFile, boundary::BoundaryPolicy, grant::GrantPolicy};

fuzz_target!(|source: String| {
    let files = [PolicyFile {
        name: "fuzz.dl".into(),
        source,
    }];
    let _ = BoundaryPolicy::load(&files);
    let _ = GrantPolicy::load(&files);
});
