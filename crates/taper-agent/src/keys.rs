//! Where a holder's key is, in the one text form that every command and setting takes.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, HolderKey, blocking, keyfile};

/// The environment variable that may hold a private JWK.
pub(crate) const KEY_VARIABLE: &str = "TAPER_KEY";

/// Where a holder's key is. The text names a key and never is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// A file with a private JWK, mode 0600.
    File(PathBuf),
}

impl KeySource {
    /// Gets the use of the key.
    ///
    /// # Errors
    /// [`Error::Secret`] or [`Error::KeyFile`] when the file cannot be used.
    pub async fn open(&self) -> Result<HolderKey, Error> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                Ok(blocking(move || keyfile::load(&path)).await?.into())
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
        }
    }
}

impl FromStr for KeySource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
        }
    }
}
