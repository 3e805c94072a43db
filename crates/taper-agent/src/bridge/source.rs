//! Where a bridge's capability comes from.

use taper_capability::Token;

use crate::{Error, HolderKey};

/// A capability and the key that holds it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The capability.
    pub token: Token,
    /// Its last holder's key.
    pub key: HolderKey,
}

/// Where a capability comes from, again and again.
#[derive(Debug)]
pub enum Source {
    /// One that was obtained before.
    Fixed(Held),
}

impl Source {
    /// The capability that holds at this time.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn current(&self, _now: i64) -> Result<Held, Error> {
        match self {
            Self::Fixed(held) => Ok(held.clone()),
        }
    }

    /// Another capability than the one that was refused.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn renew(&self, _refused: &Token, _now: i64) -> Result<Held, Error> {
        match self {
            Self::Fixed(held) => Ok(held.clone()),
        }
    }
}
