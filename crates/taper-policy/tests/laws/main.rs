//! Laws that hold for whatever an issuer grants, holders sign and callers ask: generated grants, chains and
//! accesses through the real pipeline.
//!
//! `PROPTEST_CASES` sets the number of cases of each law.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod asked;
mod codec;
mod given;
mod grammar;
mod monotone;
mod order;
mod said;
mod scene;
mod share;
mod steady;
mod tamper;
