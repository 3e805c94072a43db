//! `taper revoke`.

use std::path::PathBuf;

use serde_json::json;
use taper_agent::revoke::{Target, revoke, revoke_as_admin};
use taper_agent::{Client, Issuer};
use taper_service::secret;

use super::exchange::client_secret;
use super::read_key;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper revoke`: a holder's (`--issuer`, `--token`, `--key`, `--client-id`) or an
/// administrator's (`--admin-url`, `--admin-token-file` and what is revoked).
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["token", "grant", "branch", "holder", "client"]))]
pub(crate) struct Args {
    /// A file with the capability to take back, or `-`.
    #[arg(long, value_name = "FILE", requires_all = ["issuer", "key", "client_id"])]
    token: Option<String>,
    /// The issuer's URL.
    #[arg(long, value_name = "URL", conflicts_with = "admin_url")]
    issuer: Option<String>,
    /// The holder's private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The client's id.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A private file with the client's secret; without it the client is a public one.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Everything of this grant.
    #[arg(long, value_name = "ID", requires_all = ["admin_url", "admin_token_file"])]
    grant: Option<String>,
    /// Everything from this branch of a chain on, 64 hex digits.
    #[arg(long, value_name = "HEX", requires_all = ["admin_url", "admin_token_file"])]
    branch: Option<String>,
    /// Everything that this key holds or held, by its thumbprint.
    #[arg(long, value_name = "THUMBPRINT", requires_all = ["admin_url", "admin_token_file"])]
    holder: Option<String>,
    /// Everything granted to this client.
    #[arg(long, value_name = "ID", requires_all = ["admin_url", "admin_token_file"])]
    client: Option<String>,
    /// The issuer's admin listener.
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// A private file with the admin token.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Takes a capability, or more, back.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if let (Some(path), Some(issuer), Some(key), Some(id)) =
        (&args.token, &args.issuer, &args.key, &args.client_id)
    {
        let key = read_key(key)?;
        let client = Client {
            id: id.clone(),
            secret: client_secret(args.client_secret_file.as_deref())?,
        };
        let token = context.read_token(path)?;
        let clock = context.clock();
        context.block_on(async {
            let issuer = Issuer::discover(issuer).await?;
            revoke(&issuer, &client, &token, key, clock.as_ref()).await
        })??;
    } else if let (Some(target), Some(url), Some(file)) =
        (target(&args), &args.admin_url, &args.admin_token_file)
    {
        let token = secret::read_secret_file(file).map_err(Failure::failed)?;
        context.block_on(revoke_as_admin(url, &token, &target))??;
    } else {
        // Clap's rules leave no other combination.
        return Err(Failure::usage("say what is revoked, and by whom"));
    }
    context.result("revoked", &json!({"revoked": true}))
}

fn target(args: &Args) -> Option<Target> {
    let grant = args.grant.clone().map(Target::Grant);
    grant
        .or_else(|| args.branch.clone().map(Target::Branch))
        .or_else(|| args.holder.clone().map(Target::Holder))
        .or_else(|| args.client.clone().map(Target::Client))
}
