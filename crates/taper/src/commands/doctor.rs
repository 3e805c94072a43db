//! `taper doctor`.

use std::path::PathBuf;

use serde_json::json;
use taper_agent::KeySource;
use taper_agent::doctor::{Finding, Patient, Verdict, examine};

use crate::context::{Context, shown};
use crate::failure::Failure;

/// The arguments of `taper doctor`; what is not said is not looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The issuer's URL; the capability's own without it.
    #[arg(long, value_name = "URL", env = "TAPER_ISSUER", hide_env_values = true)]
    issuer: Option<String>,
    /// The client's id.
    #[arg(long, value_name = "ID", env = "TAPER_CLIENT_ID", hide_env_values = true)]
    client_id: Option<String>,
    /// The URL of an MCP server, as its proxy gives it.
    #[arg(long, value_name = "URL", env = "TAPER_URL", hide_env_values = true)]
    url: Option<String>,
    /// A file with the capability.
    #[arg(long, value_name = "FILE", env = "TAPER_TOKEN", hide_env_values = true)]
    token: Option<PathBuf>,
    /// The holder's private key: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: Option<KeySource>,
    /// A wallet, in place of `--token` and `--key`.
    #[arg(long, value_name = "DIR", env = "TAPER_WALLET", hide_env_values = true)]
    wallet: Option<PathBuf>,
}

/// Finds out what is wrong, and says what to do about it.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if let Some(token) = args.token.as_ref().map(|token| token.display().to_string())
        && shown(&token) != token
    {
        return Err(Failure::usage("`--token` is a token, not the file that holds it"));
    }
    let patient = Patient {
        issuer: args.issuer,
        client_id: args.client_id,
        url: args.url,
        token: args.token,
        key: args.key,
        wallet: args.wallet,
    };
    let findings = context.block_on(examine(&patient, context.clock()))?;
    let failed = findings.iter().filter(|f| f.verdict == Verdict::Fail).count();
    let json = json!({ "ok": failed == 0, "checks": findings });
    context.result(findings.iter().map(line).collect::<Vec<_>>().join("\n"), &json)?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::failed("one check failed")),
        _ => Err(Failure::failed(format!("{failed} checks failed"))),
    }
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "-",
    };
    let mut line = format!("{verdict:<5} {:<17} {}", finding.check, finding.what);
    if let Some(next) = &finding.next {
        line.push_str("\n      next: ");
        line.push_str(next);
    }
    line
}
