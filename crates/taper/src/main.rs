//! The taper binary.
fn main() {}
