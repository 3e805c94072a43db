//! A token's text: decoding never panics, and what decodes has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_capability::UnverifiedToken;
use taper_dpop::base64url_encode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(token) = UnverifiedToken::decode(&base64url_encode(bytes)) {
        assert!(!token.links().is_empty());
    }
});
