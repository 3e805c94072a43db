//! `taper`: authority for AI agents that narrows at every hop.
//!
//! A clap tree ([`cli`]), one file per command ([`commands`]), and a thin `main`.

mod cli;
mod commands;
mod context;
mod demo;
mod dev;
mod failure;
mod up;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::Kind;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let mut context = Context::of_process(cli.format);
    match commands::run(cli.command, &mut context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.report(&failure);
            failure.exit_code()
        }
    }
}

/// Help and version are results; everything else that clap says is an error of usage.
fn explain(error: &clap::Error) -> ExitCode {
    let wrong = error.use_stderr();
    if error.print().and_then(|()| std::io::stdout().flush()).is_err() {
        return ExitCode::from(Kind::Failure.code());
    }
    if wrong {
        ExitCode::from(Kind::Usage.code())
    } else {
        ExitCode::SUCCESS
    }
}
