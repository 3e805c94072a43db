//! Handing on and narrowing, offline: a third-party block signed with the holder's key.

use crate::issue::{expiry, fresh_pair, holder_terms, internal, key_pair};
use crate::{Caveat, Error, Token, UnverifiedToken};
use biscuit_auth::builder::{BlockBuilder, Fact, Term};
use rand_core::CryptoRngCore;
use taper_dpop::{PrivateKey, PublicKey};

/// A hand-over to the next holder. Without a holder and an expiry there is nothing to sign:
///
/// ```compile_fail
/// # use taper_capability::*; use taper_dpop::*;
/// # fn f(child: PublicKey, token: &Token, key: &PrivateKey, rng: &mut rand_core::OsRng) -> Result<Token, Error> {
/// Delegation::to(child).sign(token, key, rng)
/// # }
/// ```
/// while this compiles:
/// ```
/// # use taper_capability::*; use taper_dpop::*;
/// # fn f(child: PublicKey, token: &Token, key: &PrivateKey, rng: &mut rand_core::OsRng) -> Result<Token, Error> {
/// Delegation::to(child).until(1_800_000_000).sign(token, key, rng)
/// # }
/// ```
#[derive(Debug)]
pub struct Delegation {
    holder: PublicKey,
}

/// A hand-over with holder and expiry, which can be signed.
#[derive(Debug)]
pub struct Dated {
    holder: PublicKey,
    terms: Terms,
}

/// A narrowing by the holder for itself. Without [`Narrowing::until`] the parent's expiry stays.
#[derive(Debug, Default)]
pub struct Narrowing {
    terms: Terms,
}

#[derive(Debug, Default)]
struct Terms {
    until: Option<i64>,
    caveats: Vec<Caveat>,
    max_depth: Option<u32>,
    note: Option<String>,
}

impl Delegation {
    /// A hand-over to `holder`, of whom only the public key is needed.
    #[must_use]
    pub fn to(holder: PublicKey) -> Self {
        Self { holder }
    }

    /// Until when, in seconds since the Unix epoch. Later than the parent's expiry is cut to that.
    #[must_use]
    pub fn until(self, unix: i64) -> Dated {
        Dated {
            holder: self.holder,
            terms: Terms {
                until: Some(unix),
                ..Terms::default()
            },
        }
    }
}

impl Dated {
    /// Adds a caveat.
    #[must_use]
    pub fn only(mut self, caveat: Caveat) -> Self {
        self.terms.caveats.push(caveat);
        self
    }

    /// Limits how deep the chain may become, counted from the grant.
    #[must_use]
    pub fn max_depth(mut self, depth: u32) -> Self {
        self.terms.max_depth = Some(depth);
        self
    }

    /// Leaves a note for whoever reads the chain.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.terms.note = Some(note.to_owned());
        self
    }

    /// Signs with the current holder's key.
    ///
    /// # Errors
    /// [`Error::Signer`] when `key` is not the last holder's, [`Error::Depth`] when the chain may
    /// not be handed on, [`Error::Builder`] when `holder` is the holder itself, [`Error::Sealed`],
    /// [`Error::Caveat`], or what decoding the token finds.
    pub fn sign(self, token: &Token, key: &PrivateKey, rng: &mut impl CryptoRngCore) -> Result<Token, Error> {
        let parent = UnverifiedToken::decode(token.as_str())?;
        if *parent.last_holder() == self.holder {
            return Err(Error::Builder(
                "the holder cannot hand on to itself: narrow instead",
            ));
        }
        let depth = parent.depth().saturating_add(1);
        let max = parent.max_depth().min(self.terms.max_depth.unwrap_or(u32::MAX));
        if depth > max {
            return Err(Error::Depth { depth, max });
        }
        append(token, &parent, &self.holder, self.terms, key, rng)
    }
}

impl Narrowing {
    /// A narrowing that says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Until when, in seconds since the Unix epoch. Later than the parent's expiry is cut to that.
    #[must_use]
    pub fn until(mut self, unix: i64) -> Self {
        self.terms.until = Some(unix);
        self
    }

    /// Adds a caveat.
    #[must_use]
    pub fn only(mut self, caveat: Caveat) -> Self {
        self.terms.caveats.push(caveat);
        self
    }

    /// Limits how deep the chain may become, counted from the grant.
    #[must_use]
    pub fn max_depth(mut self, depth: u32) -> Self {
        self.terms.max_depth = Some(depth);
        self
    }

    /// Leaves a note for whoever reads the chain.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.terms.note = Some(note.to_owned());
        self
    }

    /// Signs with the holder's key.
    ///
    /// # Errors
    /// [`Error::Signer`] when `key` is not the last holder's, [`Error::Sealed`], [`Error::Caveat`],
    /// or what decoding the token finds.
    pub fn sign(self, token: &Token, key: &PrivateKey, rng: &mut impl CryptoRngCore) -> Result<Token, Error> {
        let parent = UnverifiedToken::decode(token.as_str())?;
        if let Some(max) = self.terms.max_depth
            && parent.depth() > max
        {
            return Err(Error::Depth {
                depth: parent.depth(),
                max,
            });
        }
        let holder = parent.last_holder().clone();
        append(token, &parent, &holder, self.terms, key, rng)
    }
}

fn append(
    token: &Token,
    parent: &UnverifiedToken,
    holder: &PublicKey,
    terms: Terms,
    key: &PrivateKey,
    rng: &mut impl CryptoRngCore,
) -> Result<Token, Error> {
    if key.public() != *parent.last_holder() {
        return Err(Error::Signer {
            block: parent.links().len(),
        });
    }
    let until = terms
        .until
        .map_or(parent.expires_at(), |until| until.min(parent.expires_at()));
    let fact = |name: &str, terms: Vec<Term>| Fact::new(name.to_owned(), terms);
    let mut block = BlockBuilder::new()
        .fact(fact("holder", holder_terms(holder)))
        .and_then(|block| block.check(expiry(until).map_err(|_| biscuit_auth::error::Token::InternalError)?))
        .map_err(internal)?;
    if let Some(depth) = terms.max_depth {
        block = block
            .fact(fact("max_depth", vec![Term::Integer(i64::from(depth))]))
            .map_err(internal)?;
    }
    if let Some(note) = terms.note {
        if note.len() > 1024 {
            return Err(Error::Builder("a note has at most 1,024 bytes"));
        }
        block = block
            .fact(fact("note", vec![Term::Str(note)]))
            .map_err(internal)?;
    }
    for caveat in &terms.caveats {
        block = block.check(caveat.to_check()?).map_err(internal)?;
    }
    let biscuit = token.biscuit()?;
    let request = biscuit.third_party_request().map_err(|_| Error::Sealed)?;
    let signed = request
        .create_block(&key_pair(key)?.private(), block)
        .and_then(|block| block.serialize())
        .map_err(internal)?;
    let appended = biscuit
        .append_third_party_with_keypair(&signed, fresh_pair(rng))
        .map_err(internal)?;
    let child = Token::from_biscuit(&appended)?;
    // What a builder makes, a verifier must be able to read.
    UnverifiedToken::decode(child.as_str())?;
    Ok(child)
}
