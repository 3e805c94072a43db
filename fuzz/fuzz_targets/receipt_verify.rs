//! A receipt of a record, as somebody hands it to somebody else. The seed is a good one; nothing else
//! may prove another record under its key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_store::RecordKind;

/// The key of the seed's journal; its private half was not kept.
const KEY: &str = "taper.invalid/journal/issuer+c6fe00f3+AcPWoBN6pdb3TMdH9YChq9LIL4meQ0Vnj3N5vvTPxZ2d";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(proven) = taper_store::verify_receipt(bytes, KEY) {
        assert_eq!((proven.index, proven.tree_size), (0, 5));
        assert!(matches!(proven.record.kind, RecordKind::Started { role } if role == "issuer"));
    }
});
