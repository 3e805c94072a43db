//! The form of the token endpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = taper_oauth::TokenRequest::parse(bytes, 64 * 1024);
});
