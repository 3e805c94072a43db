//! Where the bridge's capability comes from: a file, or a wallet that is renewed.

use std::path::{Path, PathBuf};

use taper_agent::wallet::{Purpose, SubjectToken, is_logged_in};
use taper_agent::{Client, Fixed, KeySource, Source, Wallet};
use taper_oauth::Scope;
use taper_service::clock::SharedClock;

use super::super::exchange::client_secret;
use super::super::read_key;
use crate::context::{Context, shown};
use crate::failure::Failure;

/// The user's own capability.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Capability")]
pub(super) struct Capability {
    /// A file with the capability, which is read again when it changed.
    #[arg(long, value_name = "FILE", env = "TAPER_TOKEN", hide_env_values = true)]
    token: Option<PathBuf>,
    /// Its holder's private key; a wallet without it has one of its own.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: Option<KeySource>,
    /// Obtain the capability and renew it: a folder for it, which any number of bridges may share.
    #[arg(long, value_name = "DIR", env = "TAPER_WALLET", hide_env_values = true)]
    wallet: Option<PathBuf>,
    /// The issuer's URL, for a wallet.
    #[arg(long, value_name = "URL", env = "TAPER_ISSUER", hide_env_values = true)]
    issuer: Option<String>,
    /// The client's id, for a wallet.
    #[arg(long, value_name = "ID", env = "TAPER_CLIENT_ID", hide_env_values = true)]
    client_id: Option<String>,
    /// A private file with the client's secret; without it the client is a public one.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_CLIENT_SECRET_FILE",
        hide_env_values = true
    )]
    client_secret_file: Option<PathBuf>,
    /// A file with the access token to exchange, which is read again each time; the wallet's login without it.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAPER_SUBJECT_TOKEN_FILE",
        hide_env_values = true
    )]
    subject_token: Option<PathBuf>,
    /// A command that prints the access token to exchange.
    #[arg(long, value_name = "COMMAND", conflicts_with = "subject_token")]
    subject_token_command: Option<String>,
    /// What is wanted: `server:tool` or `server:*`; may repeat.
    #[arg(long, value_name = "SCOPE", requires = "wallet")]
    scope: Vec<Scope>,
}

impl Capability {
    /// Refuses a secret in place of the name of the file that holds it, before anything of it is told.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (option, value) in self.said() {
            if value.is_some_and(|value| shown(&value) != value) {
                return Err(Failure::usage(format!(
                    "`{option}` (or its variable) is a secret, not the file that holds it"
                )));
            }
        }
        Ok(())
    }

    /// Where the capability for the server at `url` comes from.
    pub(super) fn open(&self, url: &str, clock: &SharedClock, context: &Context) -> Result<Source, Failure> {
        if let Some(dir) = &self.wallet {
            let purpose = self.purpose(url)?;
            let wallet = Wallet::open(dir, self.key.clone(), purpose, clock.clone());
            return Ok(Source::Wallet(Box::new(context.block_on(wallet)??)));
        }
        let (Some(token), Some(key)) = (&self.token, &self.key) else {
            return Err(Failure::usage("a capability is needed")
                .next("give `--token FILE --key KEY`, or a `--wallet DIR` that obtains one"));
        };
        // Sooner than the first request needs it, and in words for whoever types.
        read_key(key, context)?;
        Ok(Source::Fixed(Box::new(Fixed::file(token, key.clone()))))
    }

    /// The folder that the capability is in.
    pub(super) fn folder(&self) -> PathBuf {
        let parent = |file: &PathBuf| file.parent().map(Path::to_owned);
        let folder = self
            .wallet
            .clone()
            .or_else(|| self.token.as_ref().and_then(parent));
        folder
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| PathBuf::from("."))
    }

    /// What was said, as options and their values.
    pub(super) fn said(&self) -> [(&'static str, Option<String>); 7] {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        [
            ("--token", path(&self.token)),
            ("--key", self.key.as_ref().map(ToString::to_string)),
            ("--wallet", path(&self.wallet)),
            ("--issuer", self.issuer.clone()),
            ("--client-id", self.client_id.clone()),
            ("--client-secret-file", path(&self.client_secret_file)),
            ("--subject-token", path(&self.subject_token)),
        ]
    }

    fn purpose(&self, url: &str) -> Result<Purpose, Failure> {
        let missing = |option: &str| Failure::usage(format!("`--wallet` needs `{option}`"));
        let subject = match (&self.subject_token_command, &self.subject_token) {
            (Some(command), _) => SubjectToken::Command(command.clone()),
            (None, Some(file)) => SubjectToken::File(file.clone()),
            (None, None) if self.wallet.as_deref().is_some_and(is_logged_in) => SubjectToken::Login,
            (None, None) => {
                return Err(missing("--subject-token FILE")
                    .next("or log in with a browser: `taper login --wallet DIR`"));
            }
        };
        if self.scope.is_empty() {
            return Err(missing("--scope SERVER:TOOL"));
        }
        Ok(Purpose {
            issuer: self.issuer.clone().ok_or_else(|| missing("--issuer URL"))?,
            client: Client {
                id: self.client_id.clone().ok_or_else(|| missing("--client-id ID"))?,
                secret: client_secret(self.client_secret_file.as_deref())?,
            },
            subject,
            scope: self.scope.clone(),
            details: Vec::new(),
            resources: vec![url.to_owned()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        capability: Capability,
    }

    #[test]
    fn a_secret_in_place_of_a_file_is_not_told() {
        let capability = "En0".repeat(80);
        let jwt = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
        for (option, secret) in [
            ("--token", capability.as_str()),
            ("--subject-token", jwt),
            ("--client-secret-file", jwt),
        ] {
            let typed = Typed::try_parse_from(["bridge", option, secret]).unwrap();
            let told = typed.capability.check().unwrap_err().to_string();
            assert!(told.contains(option) && !told.contains(secret), "{told}");
        }
        let typed = Typed::try_parse_from(["bridge", "--token", "agent.cap", "--wallet", "/w"]).unwrap();
        typed.capability.check().unwrap();
    }
}
