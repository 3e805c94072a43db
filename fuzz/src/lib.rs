//! What the targets share: a world of valid tokens, what an attacker does to them, and blocks, checks
//! and caveats made from the fuzzer's bytes.

pub mod attack;
pub mod caveats;
pub mod checks;
pub mod text;
pub mod world;
