//! Issuing: block 0 and the root key that signs it.

use crate::caveat_check::{check, predicate, value, variable};
use crate::{Error, Grant, Right, Token, UnverifiedToken, names};
use biscuit_auth::builder::{Algorithm, Binary, BlockBuilder, CheckKind, Expression, Fact, Op, Term};
use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::{BiscuitBuilder, KeyPair, UnverifiedBiscuit};
use rand_core::CryptoRngCore;
use std::fmt;
use taper_dpop::{Algorithm as KeyAlgorithm, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// A root private key of an issuer. It exists in the issuer only, never prints and is wiped when
/// dropped.
pub struct RootKey {
    id: u32,
    key: PrivateKey,
}

impl RootKey {
    /// A fresh key with the id that its tokens name.
    #[must_use]
    pub fn generate(id: u32, rng: &mut impl CryptoRngCore) -> Self {
        Self {
            id,
            key: PrivateKey::generate(KeyAlgorithm::EdDsa, rng),
        }
    }

    /// A key from its 32 secret bytes.
    ///
    /// # Errors
    /// [`Error::Builder`] for another length.
    pub fn from_seed(id: u32, seed: &[u8]) -> Result<Self, Error> {
        PrivateKey::from_bytes(KeyAlgorithm::EdDsa, seed)
            .map(|key| Self { id, key })
            .map_err(|_| Error::Builder("a root key has 32 secret bytes"))
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<Vec<u8>> {
        self.key.to_bytes()
    }

    /// Its id, the `kid` in the issuer's JWKS.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Signs what is no token, for the purpose `typ`: a detached JWS with the key's id as `kid`. It can
    /// never pass for a token's signature ([`taper_dpop::DetachedJws`]).
    ///
    /// # Errors
    /// As [`taper_dpop::sign_detached`].
    pub fn sign_detached(&self, typ: &str, payload: &[u8]) -> Result<String, taper_dpop::JwsError> {
        taper_dpop::sign_detached(&self.key, &self.id.to_string(), typ, payload)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({} …)", self.id)
    }
}

/// Issues the capability of a grant, signed by a root key.
///
/// # Errors
/// [`Error::Builder`], [`Error::Name`] or [`Error::Caveat`] when the grant says what the profile
/// does not have; [`Error::Text`], [`Error::Counts`] or [`Error::Admission`] when it says more than
/// fits into a capability.
pub fn issue(grant: &Grant, root: &RootKey, rng: &mut impl CryptoRngCore) -> Result<Token, Error> {
    if !names::is_grant_id(&grant.id) {
        return Err(Error::Builder("a grant id is 128 bits in base64url"));
    }
    if grant.audiences.is_empty() || grant.rights.is_empty() {
        return Err(Error::Builder("a grant has at least one audience and one right"));
    }
    if grant.expires_at <= grant.issued_at {
        return Err(Error::Builder("a grant ends after it begins"));
    }
    grant.rights.iter().try_for_each(Right::check_names)?;
    let mut block = BlockBuilder::new();
    for fact in facts(grant)? {
        block = block.fact(fact).map_err(internal)?;
    }
    block = block.check(expiry(grant.expires_at)?).map_err(internal)?;
    for caveat in &grant.caveats {
        block = block.check(caveat.to_check()?).map_err(internal)?;
    }
    let root_pair = key_pair(&root.key)?;
    let next = fresh_pair(rng);
    let biscuit = BiscuitBuilder::new()
        .merge(block)
        .root_key_id(root.id)
        .build_with_key_pair(&root_pair, SymbolTable::default(), &next)
        .map_err(internal)?;
    let bytes = Zeroizing::new(biscuit.to_vec().map_err(internal)?);
    let token = Token::from_biscuit(&UnverifiedBiscuit::from(bytes.as_slice()).map_err(internal)?)?;
    // What a verifier would not take is not given out.
    UnverifiedToken::decode(token.as_str())?;
    Ok(token)
}

fn facts(grant: &Grant) -> Result<Vec<Fact>, Error> {
    let text = |s: &str| Term::Str(s.to_owned());
    let mut facts = Vec::new();
    let mut add = |name: &str, terms: Vec<Term>| facts.push(Fact::new(name.to_owned(), terms));
    add("taper", vec![Term::Integer(1)]);
    add("issuer", vec![text(&grant.issuer)]);
    add("grant", vec![text(&grant.id)]);
    add(
        "subject",
        vec![text(&grant.subject.iss), text(&grant.subject.sub)],
    );
    add("client", vec![text(&grant.client)]);
    if let Some(actor) = &grant.actor {
        add("actor", vec![text(&actor.iss), text(&actor.sub)]);
    }
    add("holder", holder_terms(&grant.holder));
    for audience in &grant.audiences {
        add("for_audience", vec![text(audience)]);
    }
    for right in &grant.rights {
        match right {
            Right::Tool { server, tool } => add("right", vec![text(server), text(tool)]),
            Right::AnyTool { server } => add("right_any_tool", vec![text(server)]),
            Right::Resource { server, uri_prefix } => {
                add("right_resource", vec![text(server), text(uri_prefix)])
            }
            Right::Prompt { server, name } => add("right_prompt", vec![text(server), text(name)]),
        }
    }
    for (name, value) in &grant.claims {
        add("claim", vec![text(name), text(value)]);
    }
    add("issued_at", vec![date(grant.issued_at)?]);
    add("max_depth", vec![Term::Integer(i64::from(grant.max_depth))]);
    Ok(facts)
}

pub(crate) fn holder_terms(key: &PublicKey) -> Vec<Term> {
    let alg = match key.algorithm() {
        KeyAlgorithm::EdDsa => "ed25519",
        KeyAlgorithm::Es256 => "secp256r1",
    };
    vec![Term::Str(alg.to_owned()), Term::Bytes(key.to_bytes())]
}

/// `check if time($time), $time < DATE`
pub(crate) fn expiry(at: i64) -> Result<biscuit_auth::builder::Check, Error> {
    let ops = vec![
        value(variable("time")),
        value(date(at)?),
        Op::Binary(Binary::LessThan),
    ];
    Ok(check(
        CheckKind::One,
        vec![predicate("time", vec![variable("time")])],
        vec![Expression { ops }],
    ))
}

fn date(at: i64) -> Result<Term, Error> {
    u64::try_from(at)
        .map(Term::Date)
        .map_err(|_| Error::Builder("times are after 1970"))
}

/// The Biscuit key pair of a private key of ours.
pub(crate) fn key_pair(key: &PrivateKey) -> Result<KeyPair, Error> {
    let algorithm = match key.algorithm() {
        KeyAlgorithm::EdDsa => Algorithm::Ed25519,
        KeyAlgorithm::Es256 => Algorithm::Secp256r1,
    };
    biscuit_auth::PrivateKey::from_bytes(&key.to_bytes(), algorithm)
        .map(|key| KeyPair::from(&key))
        .map_err(|_| Error::Builder("the private key is not usable"))
}

pub(crate) fn fresh_pair(mut rng: &mut impl CryptoRngCore) -> KeyPair {
    KeyPair::new_with_rng(Algorithm::Ed25519, &mut rng)
}

pub(crate) fn internal<E>(_: E) -> Error {
    Error::Builder("the token could not be built")
}
