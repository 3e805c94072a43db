//! `taper up`: issuer, proxy, identity provider and a sample server on this machine, for development.

use std::path::PathBuf;

use serde_json::json;
use taper_service::telemetry::{self, Telemetry};

use crate::context::{Context, run_on};
use crate::failure::{Failure, Kind};
use crate::world::{CLIENT_ID, World};

/// Arguments of `taper up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of keys, state and configuration. The same folder comes back on the same URLs.
    #[arg(long, value_name = "DIR", default_value = "taper-up")]
    dir: PathBuf,
    /// The first of five ports for a new folder; 0 takes free ones.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// What is logged on stderr, such as `info` or `taper_proxy=debug`.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Runs until it is told to stop.
pub(crate) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::new(Kind::Failure, format!("{error:#}"));
    let logs = Telemetry {
        filter: args.log.clone(),
        ..Telemetry::default()
    };
    telemetry::init(&logs).map_err(|error| Failure::new(Kind::Usage, error))?;
    let clock = context.clock();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::new(Kind::Failure, error))?;
    run_on(&runtime, async {
        let world = World::start(&args.dir, args.port, None, clock)
            .await
            .map_err(failed)?;
        let token_file = world.admin_token_file();
        let ready = json!({
            "issuer": world.urls.issuer,
            "mcp": { "git": world.urls.mcp.git },
            "admin": world.urls.admin,
            "client_id": CLIENT_ID,
            "admin_token_file": token_file,
            "dir": world.dir,
        });
        // Whoever reads the line may stop the process at once.
        world.stop_on_signals().map_err(failed)?;
        context.result(text(&world), &ready)?;
        world.run().await.map_err(failed)
    })
}

fn text(world: &World) -> String {
    let dir = world.dir.display();
    let (issuer, mcp, admin) = (&world.urls.issuer, &world.urls.mcp.git, &world.urls.admin);
    let token_file = world.admin_token_file();
    let token_file = token_file.display();
    format!(
        r"taper is up, for development only, and keeps everything in {dir}
  issuer   {issuer}
  proxy    {mcp}
  admin    {admin}

Try it from another terminal:
  taper keygen --out orchestrator.jwk
  taper dev-token --dir {dir} --subject alice --group eng > access-token
  taper exchange --issuer {issuer} --client-id {CLIENT_ID} --subject-token access-token --key orchestrator.jwk --scope 'git:*' --out orchestrator.cap
  taper inspect orchestrator.cap
  taper call --url {mcp} --token orchestrator.cap --key orchestrator.jwk git_log repo_path=acme/web

Hand it on, and take it back:
  taper keygen --out researcher.jwk > researcher.pub.jwk
  taper delegate orchestrator.cap --key orchestrator.jwk --to researcher.pub.jwk --tool git:git_log --repo acme/web --for 10m > researcher.cap
  taper call --url {mcp} --token researcher.cap --key researcher.jwk git_log repo_path=acme/web
  taper revoke --issuer {issuer} --token orchestrator.cap --key orchestrator.jwk --to researcher.pub.jwk

With curl:
  curl -s {issuer}/.well-known/oauth-authorization-server
  curl -s {issuer}/.well-known/jwks.json
  curl -si -X POST {mcp} -H 'content-type: application/json' -d '{{}}'
  curl -s {admin}/metrics -H 'authorization: Bearer '$(cat {token_file})
  taper audit verify --dir {dir}

Ctrl-C stops it; the same --dir comes back on the same URLs."
    )
}
