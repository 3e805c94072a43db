//! The value of a `DPoP` header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = taper_dpop::Proof::parse(text);
});
