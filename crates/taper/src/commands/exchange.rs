//! `taper exchange`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use taper_agent::{Client, Issuer, KeySource, exchange};
use taper_oauth::{ExchangeRequest, McpDetail, Scope, Secret, TokenType, Wanted};
use taper_service::clock::rfc3339;
use taper_service::secret;

use super::read_key;
use crate::context::{Context, shown};
use crate::failure::Failure;

/// The arguments of `taper exchange`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The issuer's URL.
    #[arg(long, value_name = "URL", env = "TAPER_ISSUER", hide_env_values = true)]
    issuer: String,
    /// The client's id.
    #[arg(long, value_name = "ID", env = "TAPER_CLIENT_ID", hide_env_values = true)]
    client_id: String,
    /// A private file with the client's secret; without it the client is a public one.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_CLIENT_SECRET_FILE",
        hide_env_values = true
    )]
    client_secret_file: Option<PathBuf>,
    /// A file with the access token to exchange, or `-`.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_SUBJECT_TOKEN_FILE",
        hide_env_values = true
    )]
    subject_token: String,
    /// The private key that the capability is bound to: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: KeySource,
    /// What is wanted: `server:tool` or `server:*`; may repeat.
    #[arg(long, value_name = "SCOPE", required_unless_present_any = ["detail", "uri", "prompt"])]
    scope: Vec<Scope>,
    /// A resource to read, or with a `/` at its end all below it: `server:uri`; may repeat.
    #[arg(long, value_name = "SERVER:URI", value_parser = uri)]
    uri: Vec<McpDetail>,
    /// A prompt to get: `server:name`; may repeat.
    #[arg(long, value_name = "SERVER:NAME", value_parser = prompt)]
    prompt: Vec<McpDetail>,
    /// What is wanted, as an entry of `authorization_details` (RFC 9396); may repeat.
    #[arg(long, value_name = "JSON", value_parser = detail)]
    detail: Vec<McpDetail>,
    /// Where it is to be used: the URL of an MCP server (RFC 8707); may repeat.
    #[arg(long, value_name = "URL")]
    resource: Vec<String>,
    /// The file for the capability, or `-` for stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: String,
}

/// Reads a client's secret, if it has one.
pub(crate) fn client_secret(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let Some(path) = file else {
        return Ok(None);
    };
    let name = path.display().to_string();
    if shown(&name) != name {
        return Err(Failure::usage(
            "`--client-secret-file` is a secret, not the file that holds it",
        ));
    }
    let secret = secret::read_secret_file(path).map_err(Failure::failed)?;
    Ok(Some(Secret::new(secret.expose_str().map_err(Failure::failed)?)))
}

/// Exchanges an access token for a capability.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let key = read_key(&args.key, context)?;
    let client = Client {
        id: args.client_id,
        secret: client_secret(args.client_secret_file.as_deref())?,
    };
    let subject = context.read_text(&args.subject_token)?;
    let mut request = ExchangeRequest::new(Secret::new(subject.as_str()), TokenType::AccessToken);
    request.scope = args.scope;
    request.authorization_details = args.detail;
    request
        .authorization_details
        .extend(together(args.uri.iter().chain(&args.prompt))?);
    request.resources = args.resource;
    let clock = context.clock();
    let exchanged = context.block_on(async {
        let issuer = Issuer::discover(&args.issuer).await?;
        exchange(&issuer, &client, request, &key, clock.as_ref()).await
    })?;
    let exchanged = exchanged.map_err(|e| {
        Failure::from(e).next(format!("check `--issuer {}` and what was asked for", args.issuer))
    })?;
    let response = &exchanged.response;
    let until = context.now().saturating_add_unsigned(response.expires_in);
    let scope = response.scope.as_deref().unwrap_or_default();
    context.talk(format_args!(
        "capability for the key {}, until {}: {}",
        key.thumbprint(),
        rfc3339(until),
        taper_capability::escaped(&granted(scope, &response.authorization_details))
    ));
    let json = json!({
        "holder": key.thumbprint().to_string(),
        "expires_at": until,
        "scope": scope,
        "authorization_details": response.authorization_details,
    });
    context.deliver(&exchanged.token, &args.out, json)
}

/// What was granted, in a line: scopes, and what no scope can say.
fn granted(scope: &str, details: &[McpDetail]) -> String {
    let mut all: Vec<String> = scope.split(' ').map(str::to_owned).collect();
    for detail in details {
        let reads = detail.uris().iter().chain(detail.prompts());
        all.extend(reads.map(|read| format!("{}:{read}", detail.server())));
    }
    all.retain(|one| !one.is_empty());
    all.join(" ")
}

/// One entry per server.
fn together<'a>(entries: impl Iterator<Item = &'a McpDetail>) -> Result<Vec<McpDetail>, Failure> {
    let mut servers: BTreeMap<&str, Wanted> = BTreeMap::new();
    for entry in entries {
        let wanted = servers.entry(entry.server()).or_default();
        wanted.uris.extend_from_slice(entry.uris());
        wanted.prompts.extend_from_slice(entry.prompts());
    }
    let entries = servers.into_iter();
    entries
        .map(|(server, wanted)| McpDetail::new(server, wanted, BTreeMap::new(), None))
        .collect::<Result<_, _>>()
        .map_err(Failure::failed)
}

fn uri(text: &str) -> Result<McpDetail, String> {
    named(text, |name| Wanted {
        uris: vec![name],
        ..Wanted::default()
    })
}

fn prompt(text: &str) -> Result<McpDetail, String> {
    named(text, |name| Wanted {
        prompts: vec![name],
        ..Wanted::default()
    })
}

/// A server's id is what stands before the first `:`, as in a scope.
fn named(text: &str, wanted: impl FnOnce(String) -> Wanted) -> Result<McpDetail, String> {
    let (server, name) = text
        .split_once(':')
        .ok_or("there is no `:` behind the server's id")?;
    McpDetail::new(server, wanted(name.to_owned()), BTreeMap::new(), None).map_err(|e| e.to_string())
}

fn detail(text: &str) -> Result<McpDetail, String> {
    let mut details = taper_oauth::details::parse_list(&format!("[{text}]")).map_err(|e| e.to_string())?;
    match details.pop() {
        Some(detail) if details.is_empty() => Ok(detail),
        _ => Err("give one entry each time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_read_is_one_entry_per_server() {
        let entries = ["git:repo://acme/", "git:x", "files:file:///a"].map(|text| uri(text).unwrap());
        let entries = entries
            .into_iter()
            .chain([prompt("git:review").unwrap()])
            .collect::<Vec<_>>();
        let told = taper_oauth::details::format_list(&together(entries.iter()).unwrap()).unwrap();
        assert_eq!(
            told,
            r#"[{"type":"mcp","server":"files","uris":["file:///a"]},{"type":"mcp","server":"git","uris":["repo://acme/","x"],"prompts":["review"]}]"#
        );
        assert!(
            uri("git").is_err() && uri("git:").is_err() && uri("*:x").is_err() && prompt("git:a b").is_err()
        );
        let line = granted("git:git_log", &together(entries.iter()).unwrap());
        assert_eq!(
            line,
            "git:git_log files:file:///a git:repo://acme/ git:x git:review"
        );
        assert_eq!(granted("", &[]), "");
    }

    #[test]
    fn details_are_single_entries() {
        let check = |text: &str, accepted: bool| assert_eq!(detail(text).is_ok(), accepted, "{text}");
        let one = r#"{"type":"mcp","server":"git","tools":["git_log"]}"#;
        check(one, true);
        check(&format!("{one},{one}"), false);
        check("", false);
        check("{}", false);
        check("[]", false);
    }
}
