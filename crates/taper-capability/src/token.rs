//! The token as text.

use crate::{Error, rules};
use biscuit_auth::UnverifiedBiscuit;
use std::fmt;
use taper_dpop::{TokenHash, base64url_decode, base64url_encode};
use zeroize::Zeroizing;

/// The longest token that is looked at, in bytes of its text. A chain of five hand-overs with two
/// caveats each has about 3,100; the whole request head is limited to 16 KiB.
pub const MAX_TOKEN_BYTES: usize = 12 * 1024;

/// A capability as text: base64url without padding. Unless sealed it carries the secret with which
/// its holder can add blocks; it never prints and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token's text; what it says is neither decoded nor verified.
    ///
    /// # Errors
    /// [`Error::Text`] (P-01).
    pub fn parse(text: &str) -> Result<Self, Error> {
        decode_text(text)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, as it stands in an `Authorization` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash that a proof's `ath` carries.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }

    /// A sealed copy, to which nobody can add a block: what is presented. A sealed token is
    /// returned as it is.
    ///
    /// # Errors
    /// [`Error::Protobuf`] when it is not a Biscuit.
    pub fn sealed(&self) -> Result<Self, Error> {
        let biscuit = self.biscuit()?;
        match biscuit.seal() {
            Ok(sealed) => Self::from_biscuit(&sealed),
            Err(biscuit_auth::error::Token::AlreadySealed) => Ok(self.clone()),
            Err(_) => Err(Error::Protobuf("it cannot be sealed")),
        }
    }

    pub(crate) fn biscuit(&self) -> Result<UnverifiedBiscuit, Error> {
        UnverifiedBiscuit::from(decode_text(&self.0)?.as_slice())
            .map_err(|_| Error::Protobuf("it does not decode"))
    }

    pub(crate) fn from_biscuit(biscuit: &UnverifiedBiscuit) -> Result<Self, Error> {
        let bytes = Zeroizing::new(
            biscuit
                .to_vec()
                .map_err(|_| Error::Protobuf("it does not encode"))?,
        );
        let text = Zeroizing::new(base64url_encode(&bytes));
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Error::Text { max: MAX_TOKEN_BYTES });
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(… {} bytes)", self.0.len())
    }
}

/// The bytes of a token's text (P-01).
pub(crate) fn decode_text(text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let refused = Error::Text { max: MAX_TOKEN_BYTES };
    if !rules::TEXT.holds(!text.is_empty() && text.len() <= MAX_TOKEN_BYTES) {
        return Err(refused);
    }
    base64url_decode(text).map(Zeroizing::new).map_err(|_| refused)
}
