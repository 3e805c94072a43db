//! A request body: what the strict parser accepts, a general one reads alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_capability::json::{JsonLimits, parse};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = parse(bytes, &JsonLimits::default()) {
        let again = parse(value.to_string().as_bytes(), &JsonLimits::default());
        assert_eq!(again, Ok(value));
    }
});
