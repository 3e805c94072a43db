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

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use taper_service::telemetry;

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::Kind;

/// The daemons allocate for every request, on all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let mut context = Context::of_process(cli.format);
    let done = commands::run(cli.command, &mut context);
    telemetry::flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.report(&failure);
            failure.exit_code()
        }
    }
}

/// An error about a value, without the value: it may be a secret that was put where its file's name belongs.
fn without_value(error: &clap::Error) -> Option<clap::Error> {
    let kind = error.kind();
    if !matches!(kind, ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let mut message = format!("invalid value for '{}'", argument.unwrap_or_default());
    if let Some(source) = std::error::Error::source(error) {
        message = format!("{message}: {source}");
    }
    if let Some(valid) = error
        .get(ContextKind::ValidValue)
        .filter(|_| kind == ErrorKind::InvalidValue)
    {
        message = format!("{message}; possible values: {valid}");
    }
    Some(Cli::command().error(kind, message))
}

/// Help and version are results; everything else that clap says is an error of usage.
fn explain(error: &clap::Error) -> ExitCode {
    let wrong = error.use_stderr();
    let told = without_value(error);
    if told
        .as_ref()
        .unwrap_or(error)
        .print()
        .and_then(|()| std::io::stdout().flush())
        .is_err()
    {
        return ExitCode::from(Kind::Failure.code());
    }
    if wrong {
        ExitCode::from(Kind::Usage.code())
    } else {
        ExitCode::SUCCESS
    }
}
