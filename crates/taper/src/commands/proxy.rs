//! `taper proxy`.

use clap::Subcommand;
use taper_service::config;
use taper_service::shutdown::Shutdown;
use taper_service::telemetry;

use super::daemon::{self, checked, finish};
use super::pin;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper proxy`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[group(skip)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    daemon: Option<daemon::Args>,
}

/// What can be done beside running it.
#[derive(Debug, Subcommand)]
enum Command {
    /// Approve what servers say of their tools, and show what has become different.
    Pin(pin::Args),
}

/// Runs the proxy until it is told to stop, or only checks its configuration.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let args = match (args.command, args.daemon) {
        (Some(Command::Pin(args)), _) => return pin::run(&args, context),
        (None, Some(args)) => args,
        (None, None) => return Err(Failure::usage("`--config FILE` is missing")),
    };
    let folder = config::folder_of(&args.config);
    let file: taper_proxy::Config = config::load(&args.config).map_err(Failure::invalid)?;
    if args.check_config {
        taper_proxy::Proxy::check(&file, &folder, &context.clock()).map_err(Failure::invalid)?;
        return checked(&args, context);
    }
    telemetry::init(&file.telemetry).map_err(Failure::invalid)?;
    let proxy = taper_proxy::Proxy::open(&file, &folder, context.clock()).map_err(Failure::invalid)?;
    context.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().map_err(Failure::failed)?;
        let bound = proxy.bind().await.map_err(Failure::failed)?;
        bound.serve(shutdown.clone()).await.map_err(Failure::failed)?;
        finish(&shutdown).await
    })?
}
