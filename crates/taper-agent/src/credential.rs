//! A capability together with the key that it is bound to: what a request is signed with.

use std::fmt;

use taper_capability::{Token, UnverifiedToken};
use taper_dpop::Thumbprint;
use taper_oauth::Secret;

use crate::{Error, HolderKey};

/// A capability and its last holder's key, ready to present. What is presented is a sealed copy:
/// the secret with which blocks are appended stays with the holder (RULES 7).
pub struct Credential {
    sealed: Secret,
    key: HolderKey,
    expires_at: i64,
}

impl Credential {
    /// Pairs a capability with its key.
    ///
    /// # Errors
    /// [`Error::Capability`] when the token is malformed, [`Error::Request`] when its last holder is
    /// another key: no proof of this one would be accepted.
    pub fn new(token: &Token, key: impl Into<HolderKey>) -> Result<Self, Error> {
        let key = key.into();
        let sealed = token.sealed()?;
        let chain = UnverifiedToken::decode(sealed.as_str())?;
        let (holder, own) = (chain.last_holder().thumbprint(), key.thumbprint());
        if holder != own {
            return Err(Error::Request(format!(
                "the capability is held by the key {holder}, not by {own}"
            )));
        }
        Ok(Self {
            expires_at: chain.expires_at(),
            sealed: Secret::new(sealed.as_str()),
            key,
        })
    }

    /// Pairs an access token of any server with the key that it is bound to (RFC 9449 section 6), until it
    /// ends, in seconds since the Unix epoch. It is presented as it is.
    pub fn bound(access_token: Secret, expires_at: Option<i64>, key: impl Into<HolderKey>) -> Self {
        Self {
            sealed: access_token,
            key: key.into(),
            expires_at: expires_at.unwrap_or(i64::MAX),
        }
    }

    /// When the capability ends, in seconds since the Unix epoch, as it says itself.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// The thumbprint of the holder's key.
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    pub(crate) fn token(&self) -> &str {
        self.sealed.expose()
    }

    pub(crate) fn key(&self) -> &HolderKey {
        &self.key
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential(… {})", self.thumbprint())
    }
}
