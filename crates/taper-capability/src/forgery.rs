//! Tokens that must be refused, for demonstrations and tests.
//!
//! Anybody with a Biscuit library can make them; nothing here is a weaker way into the real API.

use crate::issue::{expiry, fresh_pair, holder_terms, internal, key_pair};
use crate::{Error, Token};
use biscuit_auth::builder::{BlockBuilder, Fact};
use rand_core::CryptoRngCore;
use taper_dpop::{PrivateKey, PublicKey};

/// A hand-over to `child` signed by somebody who is not the holder. Every Biscuit signature of it
/// verifies; the chain of holders is broken (D-02).
///
/// # Errors
/// [`Error::Sealed`], or [`Error::Builder`] when the token is no Biscuit.
pub fn hand_over_by(
    stranger: &PrivateKey,
    child: &PublicKey,
    until: i64,
    token: &Token,
    rng: &mut impl CryptoRngCore,
) -> Result<Token, Error> {
    let holder = Fact::new("holder".to_owned(), holder_terms(child));
    let block = BlockBuilder::new()
        .fact(holder)
        .map_err(internal)?
        .check(expiry(until)?)
        .map_err(internal)?;
    let biscuit = token.biscuit()?;
    let request = biscuit.third_party_request().map_err(|_| Error::Sealed)?;
    let signed = request
        .create_block(&key_pair(stranger)?.private(), block)
        .and_then(|block| block.serialize())
        .map_err(internal)?;
    Token::from_biscuit(
        &biscuit
            .append_third_party_with_keypair(&signed, fresh_pair(rng))
            .map_err(internal)?,
    )
}

/// The token with a plain first-party block appended, which whoever saw the unsealed bytes can do
/// without any key (D-01).
///
/// # Errors
/// [`Error::Sealed`], or [`Error::Builder`] when the token is no Biscuit.
pub fn plain_block(until: i64, token: &Token, rng: &mut impl CryptoRngCore) -> Result<Token, Error> {
    let block = BlockBuilder::new().check(expiry(until)?).map_err(internal)?;
    let biscuit = token.biscuit()?;
    Token::from_biscuit(
        &biscuit
            .append_with_keypair(&fresh_pair(rng), block)
            .map_err(|_| Error::Sealed)?,
    )
}
