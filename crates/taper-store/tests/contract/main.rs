//! What every store promises, whichever it is: generated operations against a plain model of it.
//!
//! The model (`model.rs`) keeps everything in maps and knows no disk. A [`backend::Backend`] can be
//! closed, killed and filled again from its journal; after each of these, and after each operation, it
//! must answer as the model does. Another backend passes when it passes this suite: implement the trait
//! and name it in a `prop_state_machine!` of its own.
//!
//! `TAPER_LONG=1` makes the cases many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod backend;
mod machine;
mod model;
mod operation;

use std::marker::PhantomData;

use proptest::test_runner::Config;
use proptest_state_machine::prop_state_machine;

use backend::Embedded;

/// The suite for one backend.
pub(crate) struct Contract<B>(PhantomData<B>);

type EmbeddedContract = Contract<Embedded>;

fn config() -> Config {
    let cases = if std::env::var_os("TAPER_LONG").is_some() {
        512
    } else {
        32
    };
    Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_embedded_store_does_what_the_model_does(sequential 1..60 => EmbeddedContract);
}
