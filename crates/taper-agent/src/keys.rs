//! Where a holder's key is, in the one text form that every command and setting takes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use taper_dpop::{PrivateKey, Thumbprint};
use taper_service::secret;

#[cfg(unix)]
use crate::AgentSocket;
use crate::{Error, HolderKey, blocking, keyfile, keyring};

/// The environment variable that may hold a private JWK.
pub(crate) const KEY_VARIABLE: &str = "TAPER_KEY";

/// Where a holder's key is. The text names a key and never is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// A file with a private JWK, mode 0600.
    File(PathBuf),
    /// `agent:` or `agent:THUMBPRINT`: a key of the agent whose socket `TAPER_AGENT_SOCK` names.
    Agent(Option<Thumbprint>),
    /// `env:`: the private JWK in the environment variable `TAPER_KEY`, for containers.
    Environment,
    /// `keyring:NAME`: a key in the keyring of the operating system. Opening it takes the feature `keyring`.
    Keyring(String),
}

impl KeySource {
    /// Gets the use of the key.
    ///
    /// # Errors
    /// [`Error::Secret`] or [`Error::KeyFile`] when the file or the variable cannot be used,
    /// [`Error::Agent`] when the agent cannot, [`Error::Keyring`] when the keyring cannot.
    pub async fn open(&self) -> Result<HolderKey, Error> {
        match self {
            #[cfg(unix)]
            Self::Agent(key) => HolderKey::of_agent(AgentSocket::of_environment()?, *key).await,
            _ => Ok(self.private().await?.into()),
        }
    }

    /// The key itself, to be held by this process.
    pub(crate) async fn private(&self) -> Result<PrivateKey, Error> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                blocking(move || keyfile::load(&path)).await
            }
            Self::Agent(_) => Err(Error::Agent(
                "what an agent holds stays in it, and there are agents on Unix only".to_owned(),
            )),
            Self::Environment => {
                let wrong = |source| Error::KeyFile {
                    path: PathBuf::from(format!("${KEY_VARIABLE}")),
                    source,
                };
                let text = secret::read_secret_variable(KEY_VARIABLE)?;
                PrivateKey::from_jwk_str(text.expose_str()?).map_err(wrong)
            }
            Self::Keyring(name) => {
                let name = name.clone();
                blocking(move || keyring::load(&name)).await
            }
        }
    }
}

impl KeySource {
    /// The text form that means the same in every working folder.
    pub fn absolute(&self) -> String {
        match self {
            Self::File(path) => match std::path::absolute(path) {
                Ok(path) => path.display().to_string(),
                Err(_) => path.display().to_string(),
            },
            Self::Agent(_) | Self::Environment | Self::Keyring(_) => self.to_string(),
        }
    }
}

/// A text that names no key. It is not repeated: it may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySourceError {
    /// A key itself, which every process of the machine could read on the command line.
    #[error(
        "this is a key; name the file that it is in, `agent:`, `keyring:NAME`, or `env:` with the key in `TAPER_KEY`"
    )]
    IsKey,
    /// `agent:` is followed by something else than a thumbprint.
    #[error("behind `agent:` stands nothing, or the key's thumbprint of 43 characters")]
    NotThumbprint,
    /// Something stands behind `env:`.
    #[error("nothing stands behind `env:`; the key is in `TAPER_KEY`")]
    NotEnvironment,
    /// What stands behind `keyring:` names no key of a keyring.
    #[error("behind `keyring:` stands a name of 1 to 64 letters, digits, `.`, `_` and `-`")]
    NotKeyringName,
    /// There is nothing.
    #[error("the name of a key is empty")]
    Empty,
}

impl FromStr for KeySource {
    type Err = KeySourceError;

    fn from_str(text: &str) -> Result<Self, KeySourceError> {
        if text.is_empty() {
            return Err(KeySourceError::Empty);
        }
        if text.trim_start().starts_with('{') || text.contains("-----BEGIN") || text.contains(['\n', '\r']) {
            return Err(KeySourceError::IsKey);
        }
        match text.split_once(':') {
            Some(("agent", "")) => Ok(Self::Agent(None)),
            Some(("agent", key)) => match Thumbprint::parse(key) {
                Ok(key) => Ok(Self::Agent(Some(key))),
                Err(_) => Err(KeySourceError::NotThumbprint),
            },
            Some(("env", "")) => Ok(Self::Environment),
            Some(("env", _)) => Err(KeySourceError::NotEnvironment),
            Some(("keyring", name)) if keyring::is_name(name) => Ok(Self::Keyring(name.to_owned())),
            Some(("keyring", _)) => Err(KeySourceError::NotKeyringName),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Agent(None) => f.write_str("agent:"),
            Self::Agent(Some(key)) => write!(f, "agent:{key}"),
            Self::Environment => f.write_str("env:"),
            Self::Keyring(name) => write!(f, "keyring:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_a_key_and_is_none() {
        let check = |text: &str, expected: Result<KeySource, KeySourceError>| {
            let parsed: Result<KeySource, _> = text.parse();
            assert_eq!(parsed, expected, "{text}");
            if let Ok(source) = parsed {
                assert_eq!(source.to_string(), text);
            }
        };
        let file = |text: &str| Ok(KeySource::File(PathBuf::from(text)));
        let thumbprint = Thumbprint::parse(&"A".repeat(43)).unwrap();
        check("key.jwk", file("key.jwk"));
        check("./agent:", file("./agent:"));
        check("a:b", file("a:b"));
        check("agent:", Ok(KeySource::Agent(None)));
        check(
            &format!("agent:{thumbprint}"),
            Ok(KeySource::Agent(Some(thumbprint))),
        );
        check("agent:x", Err(KeySourceError::NotThumbprint));
        check("env:", Ok(KeySource::Environment));
        check("env:TAPER_KEY", Err(KeySourceError::NotEnvironment));
        check("keyring:a.B_2-c", Ok(KeySource::Keyring("a.B_2-c".to_owned())));
        for wrong in ["", "a b", "a/b", "a:b", "\u{e9}", &"a".repeat(65)] {
            check(&format!("keyring:{wrong}"), Err(KeySourceError::NotKeyringName));
        }
        check("", Err(KeySourceError::Empty));
        check(r#" {"kty":"OKP"}"#, Err(KeySourceError::IsKey));
        check("-----BEGIN PRIVATE KEY-----", Err(KeySourceError::IsKey));
        check("key\njwk", Err(KeySourceError::IsKey));
    }
}
