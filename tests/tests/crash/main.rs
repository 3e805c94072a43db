//! Issuer and proxy as programs that crash: killed at random points while they work, and on a disk
//! that runs full. What was acknowledged holds afterwards (DESIGN G6), and doubt denies (G5).
//!
//! `TAPER_LONG=1` makes the rounds many. Where this machine cannot mount a small disk, that test fails,
//! unless `TAPER_NOT_RUN` lists `mount`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod full_disk;
mod kills;
mod world;
