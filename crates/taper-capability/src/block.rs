//! Decoding: from a token's bytes to the facts and checks of its blocks, with one accepted
//! spelling for everything. Nothing here is verified, and no Datalog runs.

use crate::admission;
use crate::{Error, rules};
use biscuit_auth::builder::{Check, Convert as _, Fact};
use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::format::convert::proto_block_to_token_block;
use biscuit_auth::format::schema;
use prost::Message;
use taper_dpop::{Algorithm, PublicKey};

/// The most blocks of a chain after block 0. More hand-overs than that in one chain are a mistake,
/// and each costs two signature checks.
pub(crate) const MAX_LATER_BLOCKS: usize = 16;
const MAX_FACTS: usize = 256;
const MAX_CHECKS: usize = 32;
const MAX_SYMBOLS: usize = 512;
/// The most checks of a whole chain: each runs on every call.
const MAX_CHECKS_OF_CHAIN: usize = 64;
/// The most operations of all checks of a chain, and among them calls of extern functions.
const MAX_OPERATIONS: usize = 256;
const MAX_EXTERN_CALLS: usize = 16;
/// The most patterns of a chain: each is compiled once, and held as long as the chain is.
const MAX_PATTERNS: usize = 8;

/// One decoded block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its position; 0 is the authority.
    pub(crate) index: usize,
    pub(crate) facts: Vec<Fact>,
    /// Its one expiry, in seconds since the Unix epoch.
    pub(crate) expires_at: i64,
    /// Its other checks, not yet admitted.
    pub(crate) checks: Vec<Check>,
    /// Who signed it, for a third-party block, not yet read.
    pub(crate) signer: Option<schema::PublicKey>,
    /// The signed bytes of the block.
    pub(crate) payload: Vec<u8>,
}

/// A decoded token, before its facts are read.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) root_key_id: u32,
    pub(crate) blocks: Vec<Block>,
}

/// Decodes a token's bytes (P-02, P-03, P-07, P-08, P-10, P-14, P-21, D-01).
pub(crate) fn decode(bytes: &[u8]) -> Result<Container, Error> {
    let biscuit = schema::Biscuit::decode(bytes).map_err(|_| Error::Protobuf("it does not decode"))?;
    if !rules::PROTOBUF.holds(biscuit.encode_to_vec() == bytes) {
        return Err(Error::Protobuf("unknown or misspelt fields"));
    }
    if !rules::COUNTS.holds(biscuit.blocks.len() <= MAX_LATER_BLOCKS) {
        return Err(Error::Counts("blocks"));
    }
    let root_key_id = match biscuit.root_key_id {
        Some(id) => id,
        None if rules::ROOT.holds(false) => 0,
        None => return Err(Error::Root),
    };
    let blocks = std::iter::once(&biscuit.authority)
        .chain(&biscuit.blocks)
        .enumerate()
        .map(|(index, signed)| block(index, signed))
        .collect::<Result<Vec<_>, _>>()?;
    let checks = || blocks.iter().flat_map(|block: &Block| &block.checks);
    for (count, most, what) in [
        (checks().count(), MAX_CHECKS_OF_CHAIN, "checks"),
        (
            checks().map(admission::operations).sum(),
            MAX_OPERATIONS,
            "operations",
        ),
        (
            checks().map(admission::extern_calls).sum(),
            MAX_EXTERN_CALLS,
            "calls of extern functions",
        ),
        (checks().map(admission::patterns).sum(), MAX_PATTERNS, "patterns"),
    ] {
        if !rules::COUNTS.holds(count <= most) {
            return Err(Error::Counts(what));
        }
    }
    Ok(Container { root_key_id, blocks })
}

fn block(index: usize, signed: &schema::SignedBlock) -> Result<Block, Error> {
    let ed25519 = schema::public_key::Algorithm::Ed25519 as i32;
    if !rules::NEXT_KEY.holds(signed.next_key.algorithm == ed25519 && signed.next_key.key.len() == 32) {
        return Err(Error::NextKey { block: index });
    }
    let signer = signed
        .external_signature
        .as_ref()
        .map(|external| external.public_key.clone());
    let fits = if index == 0 {
        signer.is_none()
    } else {
        signer.is_some() && signed.version == Some(1)
    };
    if !rules::THIRD_PARTY.holds(fits) {
        return Err(Error::NotThirdParty { block: index });
    }
    let proto = schema::Block::decode(signed.block.as_slice())
        .map_err(|_| Error::Protobuf("a block does not decode"))?;
    if !rules::PROTOBUF.holds(proto.encode_to_vec() == signed.block) {
        return Err(Error::Protobuf("a block has unknown or misspelt fields"));
    }
    for (there, what) in [
        (!proto.rules.is_empty(), "rules"),
        (!proto.scope.is_empty() || !proto.public_keys.is_empty(), "scopes"),
        (proto.context.is_some(), "contexts"),
    ] {
        if !rules::NO_RULES.holds(!there) {
            return Err(Error::Forbidden { block: index, what });
        }
    }
    let lowest = if index == 0 { 3 } else { 5 };
    if !rules::BLOCK_VERSION.holds(proto.version.is_some_and(|v| (lowest..=6).contains(&v))) {
        return Err(Error::BlockVersion { block: index });
    }
    for (count, most, what) in [
        (proto.facts.len(), MAX_FACTS, "facts"),
        (proto.checks.len(), MAX_CHECKS, "checks"),
        (proto.symbols.len(), MAX_SYMBOLS, "symbols"),
    ] {
        if !rules::COUNTS.holds(count <= most) {
            return Err(Error::Counts(what));
        }
    }
    for (i, check) in proto.checks.iter().enumerate() {
        admission::bounded(check).map_err(|(rule, reason)| Error::Admission {
            block: index,
            check: i,
            rule,
            reason,
        })?;
    }
    // It fails on versions that are lower than the contents need, and on what is no Datalog.
    let decoded =
        proto_block_to_token_block(&proto, None).map_err(|_| Error::BlockVersion { block: index })?;
    let symbols: &SymbolTable = &decoded.symbols;
    let malformed = |_| Error::BlockVersion { block: index };
    let facts = decoded
        .facts
        .iter()
        .map(|fact| Fact::convert_from(fact, symbols))
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    let all: Vec<Check> = decoded
        .checks
        .iter()
        .map(|c| Check::convert_from(c, symbols))
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    let (expiries, checks): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| admission::expiry(c).is_some());
    let expires_at = match expiries.iter().filter_map(admission::expiry).min() {
        Some(at) if rules::EXPIRY.holds(expiries.len() == 1) => at,
        _ => {
            return Err(Error::Expiry {
                block: index,
                count: expiries.len(),
            });
        }
    };
    Ok(Block {
        index,
        facts,
        expires_at,
        checks,
        signer,
        payload: signed.block.clone(),
    })
}

/// The external key of block `index` (P-12). It is the key of the holder before in any chain that
/// verifies, and reading a point costs: so that one is not read again.
pub(crate) fn signer(index: usize, key: &schema::PublicKey, before: &PublicKey) -> Result<PublicKey, Error> {
    let algorithm = schema::public_key::Algorithm::from_i32(key.algorithm);
    let same = match algorithm {
        Some(schema::public_key::Algorithm::Ed25519) => before.algorithm() == Algorithm::EdDsa,
        Some(schema::public_key::Algorithm::Secp256r1) => before.algorithm() == Algorithm::Es256,
        None => return Err(Error::HolderKey { block: index }),
    };
    if same && before.to_bytes() == key.key {
        return Ok(before.clone());
    }
    match algorithm {
        Some(schema::public_key::Algorithm::Ed25519) => PublicKey::ed25519(&key.key),
        _ => PublicKey::p256(&key.key),
    }
    .map_err(|_| Error::HolderKey { block: index })
}
