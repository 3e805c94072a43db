//! `taper proxy`.

use taper_service::config;
use taper_service::shutdown::Shutdown;
use taper_service::telemetry;

use super::daemon::{Args, checked, finish};
use crate::context::Context;
use crate::failure::Failure;

/// Runs the proxy until it is told to stop, or only checks its configuration.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
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
