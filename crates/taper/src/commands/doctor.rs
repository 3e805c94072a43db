//! `taper doctor`.

use std::path::PathBuf;

use serde_json::json;
use taper_agent::KeySource;
use taper_agent::doctor::{Finding, Patient, Verdict, examine};
use taper_agent::wallet::SubjectToken;

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
    /// A private file with the client's secret.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_CLIENT_SECRET_FILE",
        hide_env_values = true
    )]
    client_secret_file: Option<PathBuf>,
    /// A file with the access token that a renewal exchanges.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_SUBJECT_TOKEN_FILE",
        hide_env_values = true
    )]
    subject_token: Option<PathBuf>,
    /// A command that prints the access token that a renewal exchanges; it is run.
    #[arg(long, value_name = "COMMAND", conflicts_with = "subject_token")]
    subject_token_command: Option<String>,
}

/// Finds out what is wrong, and says what to do about it.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let files = [
        ("--token", &args.token),
        ("--client-secret-file", &args.client_secret_file),
        ("--subject-token", &args.subject_token),
    ];
    for (option, file) in files {
        let name = file.as_ref().map(|file| file.display().to_string());
        if name.is_some_and(|name| shown(&name) != name) {
            return Err(Failure::usage(format!(
                "`{option}` is a token, not the file that holds it"
            )));
        }
    }
    let subject = match (args.subject_token_command, args.subject_token) {
        (Some(command), _) => Some(SubjectToken::Command(command)),
        (None, file) => file.map(SubjectToken::File),
    };
    let patient = Patient {
        issuer: args.issuer,
        client_id: args.client_id,
        url: args.url,
        token: args.token,
        key: args.key,
        wallet: args.wallet,
        client_secret_file: args.client_secret_file,
        subject,
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
