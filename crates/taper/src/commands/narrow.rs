//! `taper narrow`.

use serde_json::json;
use taper_agent::{KeySource, Step};
use taper_capability::{Effective, UnverifiedToken};
use taper_service::clock::rfc3339;
use taper_service::rng;

use super::read_key;
use super::restrictions::{EXAMPLES, Expiry, Restrictions, Reviewed};
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper narrow`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file with the capability, or `-`.
    #[arg(value_name = "TOKEN-FILE", default_value = "-")]
    token: String,
    /// The holder's private key: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: KeySource,
    #[command(flatten)]
    restrictions: Restrictions,
    #[command(flatten)]
    expiry: Expiry,
    /// The file for the new capability, or `-` for stdout.
    #[arg(long, value_name = "FILE", default_value = "-", help_heading = "Options")]
    out: String,
}

/// Adds restrictions for the holder itself.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let key = read_key(&args.key, context)?;
    let token = context.read_token(&args.token)?;
    let until = args.expiry.until(context.now())?;
    let reviewed = Reviewed::new(
        Effective::of_unverified(&UnverifiedToken::decode(token.as_str())?),
        args.restrictions.caveats(&mut rng::os())?,
        until,
        args.restrictions.max_depth,
    );
    reviewed.judge(&args.restrictions, context)?;
    let mut step = reviewed.add_to(Step::narrow(), &args.restrictions);
    if let Some(until) = until {
        step = step.until(until);
    }
    let narrowed = context.block_on(key.append(&token, &step))??;
    let expires_at = UnverifiedToken::decode(narrowed.as_str())?.expires_at();
    context.talk(format_args!("narrowed, until {}", rfc3339(expires_at)));
    let json = json!({
        "holder": key.thumbprint().to_string(),
        "expires_at": expires_at,
        "warnings": reviewed.to_json(),
    });
    context.deliver(&narrowed, &args.out, json)
}
