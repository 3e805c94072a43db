//! `taper login`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use taper_agent::login::{LoggedIn, Login, Redirect};
use taper_agent::wallet::{KeptLogin, key_in};
use taper_agent::{Client, HolderKey, KeySource};
use taper_service::clock::{human_duration, rfc3339};
use taper_service::secret;
use zeroize::Zeroizing;

use super::exchange::client_secret;
use super::read_key;
use super::restrictions::duration;
use crate::context::{Context, run_on, spare_key};
use crate::failure::Failure;

/// The arguments of `taper login`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The MCP server to log in to; it says itself who gives out tokens for it.
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "server",
        conflicts_with = "server"
    )]
    url: Option<String>,
    /// The authorization server to log in at.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// With `--server`: where the token is to be used (RFC 8707).
    #[arg(long, value_name = "URL", requires = "server")]
    resource: Option<String>,
    /// The client's id; without it a client is registered (RFC 7591).
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A private file with the client's secret; without it the client is a public one.
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// The private key that the token is bound to; a wallet without it has one of its own.
    #[arg(
        long,
        value_name = "KEY",
        env = "TAPER_KEY_FILE",
        hide_env_values = true,
        required_unless_present = "wallet"
    )]
    key: Option<KeySource>,
    /// A scope to ask for, in place of what the MCP server asks for; may repeat.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// A program that opens the URL, such as `xdg-open`; it gets the URL as its argument.
    #[arg(long, value_name = "PROGRAM")]
    open: Option<PathBuf>,
    /// The port of the redirect URI `http://127.0.0.1:PORT/callback`, where the client was registered with
    /// one; any without it.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// How long to wait for the browser.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    wait: u64,
    /// The file for the token, mode 0600.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "wallet",
        conflicts_with = "wallet"
    )]
    out: Option<PathBuf>,
    /// The wallet that keeps the login, and renews it where the server gives a refresh token: for
    /// `taper bridge --wallet`.
    #[arg(long, value_name = "DIR")]
    wallet: Option<PathBuf>,
}

/// Obtains an access token that is bound to a key, with a browser.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let (named, key) = match (&args.key, &args.wallet) {
        (Some(key), _) => (Some(key.clone()), read_key(key, context)?),
        (None, Some(dir)) => context.block_on(key_in(dir))??,
        (None, None) => return Err(Failure::usage("a key is needed").next("`--key FILE`")),
    };
    let known = match args.client_id.clone() {
        None => None,
        Some(id) => Some(Client {
            id,
            secret: client_secret(args.client_secret_file.as_deref())?,
        }),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start the runtime: {e}")))?;
    let (at, client, token) = run_on(&runtime, login(&args, known, &key, context))?;
    let (expires_at, scope) = (token.expires_at, token.scope.clone());
    let refreshes = token.refresh_token.is_some();
    let file = match (&args.wallet, &args.out) {
        (Some(dir), _) => {
            let kept = KeptLogin::new(&at, client, named.as_ref(), token);
            run_on(&runtime, kept.keep(dir))?
        }
        (None, Some(out)) => {
            let line = Zeroizing::new(format!("{}\n", token.access_token.expose()));
            spare_key(out)?;
            secret::write_private_file(out, line.as_bytes()).map_err(Failure::failed)?;
            out.clone()
        }
        (None, None) => return Err(Failure::usage("name where the token goes: `--out` or `--wallet`")),
    };
    let ends = match expires_at {
        Some(until) => format!(", until {}", rfc3339(until)),
        None => String::new(),
    };
    let renewed = match (&args.wallet, refreshes) {
        (Some(_), true) => ", renewed without a browser",
        (Some(_), false) => "; the server gave no refresh token, so log in again after that",
        (None, _) => "",
    };
    context.talk(format_args!(
        "access token for the key {} in {}{ends}{renewed}",
        key.thumbprint(),
        file.display()
    ));
    let json = json!({
        "file": file,
        "holder": key.thumbprint().to_string(),
        "expires_at": expires_at,
        "scope": scope,
        "refreshes": args.wallet.is_some() && refreshes,
    });
    context.program(&json)
}

async fn login(
    args: &Args,
    known: Option<Client>,
    key: &HolderKey,
    context: &mut Context,
) -> Result<(Login, Client, LoggedIn), Failure> {
    let login = match (&args.url, &args.server) {
        (Some(url), _) => Login::to_resource(url).await.map_err(|e| {
            Failure::from(e).next(
                "name the authorization server yourself: `--server URL --resource URL`; where an issuer exchanges \
                 tokens, ask it with `taper exchange`",
            )
        })?,
        (None, Some(server)) => Login::at_server(server, args.resource.as_deref()).await?,
        (None, None) => return Err(Failure::usage("name what to log in to: `--url` or `--server`")),
    };
    let redirect = Redirect::listen_on(args.port).await?;
    let client = match known {
        Some(client) => client,
        None => login.register("taper", &redirect).await.map_err(|e| {
            Failure::from(e).next(format!(
                "register a client at {} and give its `--client-id`",
                login.issuer()
            ))
        })?,
    };
    let scopes = if args.scope.is_empty() {
        login.scopes()
    } else {
        &args.scope
    };
    let pending = login.authorize(client.clone(), &redirect, scopes, key)?;
    let url = pending.url().as_str();
    context.talk("open this in a browser:");
    context.result(url, &json!({ "url": url }))?;
    if let Some(program) = &args.open {
        open(program, url)?;
    }
    let patience = Duration::from_secs(args.wait);
    let answer = tokio::time::timeout(patience, redirect.answer(&pending)).await;
    let answer = answer.map_err(|_| {
        let waited = human_duration(args.wait);
        Failure::failed(format!("the browser did not come back within {waited}"))
            .next("try again with a longer `--wait`")
    })??;
    let token = pending.redeem(&answer, context.clock().as_ref()).await?;
    Ok((login, client, token))
}

/// Starts the program that opens the URL and lets it run.
fn open(program: &Path, url: &str) -> Result<(), Failure> {
    let started = tokio::process::Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    started
        .map(drop)
        .map_err(|e| Failure::failed(format!("cannot start `{}`: {e}", program.display())))
}
