//! `taper dev-token`.

use std::path::PathBuf;

use serde_json::json;
use taper_service::clock::rfc3339;

use super::restrictions::duration;
use crate::context::Context;
use crate::dev::{self, Subject};
use crate::failure::Failure;

/// The arguments of `taper dev-token`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of `taper up`.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Whose token it is.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// A group of the subject; may repeat.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// How long it is valid.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    ttl: u64,
}

/// Prints an access token of the development identity provider.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let now = context.now();
    let subject = Subject {
        name: &args.subject,
        groups: &args.group,
        ttl: args.ttl,
    };
    let token = dev::mint(&args.dir, &subject, now).map_err(|e| {
        Failure::failed(e).next(format!(
            "`taper up --dir {}` makes the folder",
            args.dir.display()
        ))
    })?;
    let expires_at = now.saturating_add_unsigned(args.ttl);
    context.talk(format_args!(
        "development access token for {}, until {}",
        taper_capability::escaped(&args.subject),
        rfc3339(expires_at)
    ));
    let json = json!({"access_token": token, "expires_at": expires_at});
    context.result(&token, &json)
}
