//! What a `tools/call` costs the proxy, beside a proxy on hyper that looks at nothing.
//!
//! ```text
//! cargo build --release -p taper
//! cargo run --release -p taper-bench -- target/release/taper [REQUESTS] [ROUNDS]
//! cargo run --release -p taper-bench -- target/release/taper compare OTHER [REQUESTS] [ROUNDS]
//! cargo run --release -p taper-bench -- target/release/taper only SIDE [REQUESTS] [ROUNDS]
//! cargo run --release -p taper-bench -- target/release/taper streams [STREAMS]
//! cargo run --release -p taper-bench -- target/release/taper soak [MINUTES] [PER-SECOND]
//! cargo run --release -p taper-bench -- target/release/taper bridge [REQUESTS] [ROUNDS]
//! ```
//!
//! All programs run on this machine. They take turns, in rounds, so that what disturbs the machine
//! disturbs all of them. CPU time is that of a process, of all its threads. Every request has a proof of
//! its own, signed beforehand, and the plain proxy gets the same bytes.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod load;
mod process;
mod roles;
mod sidecar;
mod soak;
mod streams;
mod table;
mod world;

use std::str::FromStr;

use anyhow::{Context as _, bail};

const USAGE: &str = "usage: taper-bench PROGRAM [REQUESTS] [ROUNDS], where PROGRAM is taper's
       taper-bench PROGRAM compare OTHER [REQUESTS] [ROUNDS]
       taper-bench PROGRAM only DEPTH-(known|new|logged)-(before|async) [REQUESTS] [ROUNDS]
       taper-bench PROGRAM streams [STREAMS]
       taper-bench PROGRAM soak [MINUTES] [PER-SECOND]
       taper-bench PROGRAM bridge [REQUESTS] [ROUNDS]";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server"] => roles::server().await,
        ["plain", upstream] => roles::plain(upstream).await,
        [program, command @ ..] => {
            let program = std::path::absolute(program)?;
            match command {
                ["bridge", rest @ ..] => {
                    sidecar::bench(&program, number(rest, 0, 2_000)?, number(rest, 1, 3)?).await
                }
                ["streams", rest @ ..] => streams::bench(&program, number(rest, 0, 1_000)?).await,
                ["soak", rest @ ..] => {
                    soak::bench(&program, number(rest, 0, 10)?, number(rest, 1, 300)?).await
                }
                ["compare", other, rest @ ..] => {
                    let programs = [program, std::path::absolute(other)?];
                    table::compare(&programs, number(rest, 0, 5_000)?, number(rest, 1, 5)?).await
                }
                ["only", side, rest @ ..] => {
                    let side = table::Side::parse(side).context(USAGE)?;
                    table::only(&program, side, number(rest, 0, 5_000)?, number(rest, 1, 5)?).await
                }
                rest => table::all(&program, number(rest, 0, 5_000)?, number(rest, 1, 5)?).await,
            }
        }
        [] => bail!(USAGE),
    }
}

/// An argument that is a number and may be left out.
fn number<T: FromStr>(arguments: &[&str], n: usize, or: T) -> anyhow::Result<T> {
    match arguments.get(n).map(|text| text.parse()) {
        None => Ok(or),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => bail!(USAGE),
    }
}
