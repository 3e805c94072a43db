//! `taper bridge --listen`: clients come over loopback or a Unix socket.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::json;
use taper_agent::bridge::clients::Client;
use taper_agent::bridge::http::{Admission, serve, serve_unix};
use taper_service::edge::{Bound, EdgeLimits, UnixBound};
use taper_service::shutdown::Shutdown;

use super::super::daemon::finish;
use super::{Args, Bridge};
use crate::context::{Context, run_on};
use crate::failure::Failure;

const NO_SECRET: &str = "warning: with --no-secret every process of this machine, of every user, can use \
                         the capability while the bridge runs";

/// The client when none is named.
pub(super) const DEFAULT_CLIENT: &str = "default";

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("there is no path behind `unix:`".to_owned()),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "not an address such as `127.0.0.1:0` or `unix:PATH`")?;
        if !address.ip().is_loopback() {
            return Err("not an address of this machine alone; take 127.0.0.1 or [::1]".to_owned());
        }
        Ok(Self::Loopback(address))
    }
}

/// Answers clients until the program is told to stop.
pub(super) fn run(
    address: &Listen,
    args: &Args,
    bridge: &Bridge,
    context: &mut Context,
) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start the runtime: {e}")))?;
    run_on(&runtime, async {
        shutdown.on_signals().map_err(Failure::failed)?;
        match address {
            Listen::Loopback(address) => loopback(*address, args, bridge, &shutdown, context).await?,
            Listen::Unix(path) => {
                let bound = UnixBound::bind(path, EdgeLimits::default()).await;
                let bound = bound.map_err(Failure::failed)?;
                let channel = bridge.conversation().await?;
                let url = format!("http://localhost{}", bridge.target.path());
                let shown = bound.path().display();
                let ready = json!({"url": url, "socket": bound.path(), "clients": []});
                context.result(format_args!("{url} over the socket {shown}"), &ready)?;
                serve_unix(bound, channel, shutdown.clone()).await;
            }
        }
        finish(&shutdown).await
    })
}

/// What was said and would have no effect is a mistake.
pub(super) fn check(args: &Args) -> Result<(), Failure> {
    let names: BTreeSet<_> = args.client.iter().collect();
    if names.len() < args.client.len() {
        return Err(Failure::usage("each `--client` has a name of its own"));
    }
    let has_clients = args.client.iter().map(String::as_str).ne([DEFAULT_CLIENT]);
    let is_loopback = matches!(args.listen, Some(Listen::Loopback(_)));
    if !is_loopback && (has_clients || args.no_secret || args.state.is_some()) {
        return Err(Failure::usage(
            "only with `--listen` at an address are there several clients and secrets; else start a bridge \
             for each client",
        ));
    }
    Ok(())
}

async fn loopback(
    address: SocketAddr,
    args: &Args,
    bridge: &Bridge,
    shutdown: &Shutdown,
    context: &mut Context,
) -> Result<(), Failure> {
    let bound = Bound::bind(address, EdgeLimits::default()).await;
    let bound = bound.map_err(Failure::failed)?;
    let address = bound.local_addr();
    if args.no_secret {
        context.talk(NO_SECRET);
        let channel = bridge.conversation().await?;
        let url = format!("http://{address}{}", bridge.target.path());
        context.result(&url, &json!({"url": url, "socket": null, "clients": []}))?;
        serve(bound, Admission::Anyone(channel), shutdown.clone()).await;
        return Ok(());
    }
    let folder = args.state.clone().unwrap_or_else(|| args.capability.folder());
    let (mut clients, mut told, mut lines) = (Vec::new(), Vec::new(), String::new());
    for name in &args.client {
        let client = Client::open(&folder, name, &args.url)?;
        told.push(json!({"name": name, "secret_file": client.file}));
        lines.push_str(&format!(
            "\n  client {name}: its secret is in {}",
            client.file.display()
        ));
        clients.push((client, bridge.conversation().await?));
    }
    let url = format!("http://{address}{}", bridge.target.path());
    let ready = json!({"url": url, "socket": null, "clients": told});
    context.result(format_args!("{url}{lines}"), &ready)?;
    serve(bound, Admission::Secrets(clients), shutdown.clone()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_listened_to() {
        let check = |text: &str, accepted: bool| {
            assert_eq!(text.parse::<Listen>().is_ok(), accepted, "{text}");
        };
        check("127.0.0.1:0", true);
        check("127.0.0.2:80", true);
        check("[::1]:0", true);
        check("unix:/tmp/s", true);
        check("unix:", false);
        check("0.0.0.0:0", false);
        check("[::]:0", false);
        check("192.168.0.1:80", false);
        check("localhost:80", false);
        check("127.0.0.1", false);
    }
}
