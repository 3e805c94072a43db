//! What goes wrong on the agent's side. No message carries a token, a proof or a key.

use std::io;
use std::path::PathBuf;

use taper_oauth::ErrorBody;
use taper_service::fetch::FetchError;
use taper_service::secret::SecretError;

use crate::mcp::Refusal;

/// Why an operation of the agent failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A private file cannot be read or written.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is something at the path already; a key is never overwritten.
    #[error("`{}` exists already and is not overwritten", path.display())]
    Exists {
        /// Which path.
        path: PathBuf,
    },
    /// A key is not usable, or a proof could not be made.
    #[error(transparent)]
    Key(#[from] taper_dpop::Error),
    /// The file does not hold a private key.
    #[error("`{}` holds no private key: {source}", path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: taper_dpop::Error,
    },
    /// A key of the operating system's keyring cannot be used.
    #[error("the key `keyring:{name}` cannot be used: {reason}")]
    Keyring {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A folder of a wallet cannot be used.
    #[error("cannot use the folder `{}`: {source}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of a wallet is not one that a wallet wrote.
    #[error("`{0}` is not what a wallet writes; remove it, and the wallet obtains a new capability", path.display())]
    Wallet {
        /// Which file.
        path: PathBuf,
    },
    /// Another process has the lock of a wallet and does not give it up.
    #[error("another process has held `{}` locked for too long", path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// An agent that holds the key is not there, or refuses.
    #[error("{0}")]
    Agent(String),
    /// There is no access token to exchange.
    #[error("the subject's access token cannot be had: {0}")]
    Subject(String),
    /// A capability is refused, and there is no other one to present.
    #[error("{0}")]
    NoOther(String),
    /// The issuer revoked the grant of a wallet. Another one in its place would undo that.
    #[error(
        "the grant {grant} was revoked at the issuer, and no other is asked for in its place; where there shall be another \
         one all the same, remove `{}`", path.display()
    )]
    Revoked {
        /// The grant's id.
        grant: String,
        /// The wallet's file that says so.
        path: PathBuf,
    },
    /// A capability is malformed, or cannot be narrowed or handed on like this.
    #[error(transparent)]
    Capability(#[from] taper_capability::Error),
    /// There was no answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A URL that cannot be called.
    #[error("`{url}` cannot be called: {reason}")]
    Url {
        /// The URL as it was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Something given to this crate cannot be written as a request.
    #[error("the request cannot be made: {0}")]
    Request(String),
    /// The issuer refused (RFC 6749 section 5.2).
    #[error("the issuer refused: {}{}", body.error, described(body))]
    Issuer {
        /// The HTTP status.
        status: u16,
        /// The code and its description, made printable.
        body: ErrorBody,
    },
    /// An answer that is not what the protocol asks for.
    #[error("the answer of `{host}` is not usable: {reason}")]
    Answer {
        /// Who answered.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The proxy or the server behind it refused.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
}

fn described(body: &ErrorBody) -> String {
    let describe = |text: &String| format!(" ({text})");
    body.error_description.as_ref().map(describe).unwrap_or_default()
}
