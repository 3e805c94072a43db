//! `taper bridge` for a client that starts it: stdout carries messages of the protocol and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use taper_agent::bridge::stdio;
use taper_service::shutdown::Shutdown;

use super::Bridge;
use crate::context::run_on;
use crate::failure::Failure;

/// Carries messages until the client closes stdin, or the program is told to stop.
pub(super) fn run(bridge: &Bridge) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start the runtime: {e}")))?;
    let shutdown = Shutdown::new();
    let end = run_on(&runtime, async {
        shutdown.on_signals().map_err(Failure::failed)?;
        let channel = bridge.conversation().await?;
        let input = file(io::stdin()).map_err(Failure::failed)?;
        let output = file(io::stdout()).map_err(Failure::failed)?;
        stdio::run(channel, input, output, &shutdown)
            .await
            .map_err(|e| Failure::failed(format!("the client does not read any more: {e}")))
    });
    // A read of stdin that has begun cannot be called back, and must not hold up the end.
    runtime.shutdown_background();
    end
}

/// The stream as a file, to be read and written off the runtime's threads.
fn file(stream: impl AsFd) -> io::Result<tokio::fs::File> {
    let owned = stream.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(File::from(owned)))
}
