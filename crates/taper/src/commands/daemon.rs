//! What `taper issuer` and `taper proxy` share.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use taper_service::shutdown::Shutdown;

use crate::context::Context;
use crate::failure::Failure;

/// How long tasks may take to end after the listeners closed.
const DRAIN: Duration = Duration::from_secs(30);

/// The arguments of a daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Check the configuration with everything that it names, and exit.
    #[arg(long)]
    pub(super) check_config: bool,
}

/// Says that a configuration is valid.
pub(super) fn checked(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let text = format!("{} is valid", args.config.display());
    context.result(text, &json!({"valid": true, "config": args.config}))
}

/// Waits for what still runs after the listeners closed.
pub(super) async fn finish(shutdown: &Shutdown) -> Result<(), Failure> {
    // A listener may also close by itself; its other tasks then end too.
    shutdown.trigger();
    let drained = shutdown.drain(DRAIN).await;
    if shutdown.failed() {
        return Err(Failure::failed("a part of the daemon failed; its log says why"));
    }
    drained.map_err(Failure::failed)
}
