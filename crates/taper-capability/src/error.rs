//! Why a token could not be made or was refused.

use crate::rules;
use taper_dpop::RuleId;

/// Why a token could not be made or was refused. `block` counts from 0, the authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not base64url of at most the allowed size.
    #[error("the token is not base64url of at most {max} bytes without padding")]
    Text {
        /// The limit in bytes.
        max: usize,
    },
    /// Not a Biscuit in its one spelling.
    #[error("the token is not a well-formed Biscuit: {0}")]
    Protobuf(&'static str),
    /// More of something than a token may have.
    #[error("the token has too many {0}")]
    Counts(&'static str),
    /// No root key id, or an unknown one.
    #[error("the token names no root key that is trusted here")]
    Root,
    /// A signature does not verify.
    #[error("a signature of the token does not verify")]
    Signatures,
    /// A fact of block 0 is missing, or stands there twice.
    #[error("block 0: fact `{fact}` {problem}")]
    AuthorityCount {
        /// The fact's name.
        fact: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A fact of block 0 is unknown or of the wrong type.
    #[error("block 0: fact `{fact}` {problem}")]
    AuthorityFact {
        /// The fact's name, escaped.
        fact: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another version of the profile.
    #[error("block 0: the profile version is not 1")]
    Version,
    /// A block has what the profile forbids.
    #[error("block {block}: {what} are not allowed")]
    Forbidden {
        /// The block.
        block: usize,
        /// What it has.
        what: &'static str,
    },
    /// A block version that no standard library writes for these contents, or contents that are none.
    #[error("block {block}: it is not Datalog of an accepted version")]
    BlockVersion {
        /// The block.
        block: usize,
    },
    /// The token names another issuer than the key that signed it.
    #[error("the token's issuer is not the issuer of the root key that signed it")]
    Issuer,
    /// No expiry check, or several.
    #[error("block {block}: it has {count} expiry checks, exactly one is wanted")]
    Expiry {
        /// The block.
        block: usize,
        /// How many it has.
        count: usize,
    },
    /// A server id, tool or prompt name outside its alphabet.
    #[error("`{0}` is not a valid server, tool or prompt name")]
    Name(String),
    /// A holder key that is not usable.
    #[error("block {block}: its holder key is not usable")]
    HolderKey {
        /// The block.
        block: usize,
    },
    /// The root key may not grant this server.
    #[error("the root key is not trusted for server `{0}`")]
    RootServer(String),
    /// A next key that is not Ed25519.
    #[error("block {block}: its next key is not Ed25519")]
    NextKey {
        /// The block.
        block: usize,
    },
    /// The capability, or one of its links, has expired.
    #[error("link {block} expired at {at} (Unix time)")]
    Expired {
        /// The link whose expiry is the earliest.
        block: usize,
        /// When it expired, in seconds since the Unix epoch.
        at: i64,
    },
    /// A check outside the admitted grammar.
    #[error("block {block}: check {check} is not admitted: {reason}")]
    Admission {
        /// The block.
        block: usize,
        /// The check's position among the block's checks.
        check: usize,
        /// The rule of the grammar, P-16 to P-20.
        rule: RuleId,
        /// What the grammar does not have.
        reason: &'static str,
    },
    /// A plain block, or an old form of a third-party block.
    #[error("block {block}: it is not a third-party block of the current form")]
    NotThirdParty {
        /// The block.
        block: usize,
    },
    /// A block signed by somebody else than the holder before it.
    #[error("block {block}: it is not signed by the holder before it")]
    Signer {
        /// The block.
        block: usize,
    },
    /// A later block with no holder or several.
    #[error("block {block}: it names {count} holders, exactly one is wanted")]
    OneHolder {
        /// The block.
        block: usize,
        /// How many it names.
        count: usize,
    },
    /// A later block with a fact twice.
    #[error("block {block}: fact `{fact}` stands there twice")]
    LaterCount {
        /// The block.
        block: usize,
        /// The fact's name.
        fact: &'static str,
    },
    /// A later block with a fact that it may not have.
    #[error("block {block}: fact `{fact}` {problem}")]
    LaterFact {
        /// The block.
        block: usize,
        /// The fact's name, escaped.
        fact: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More hand-overs than allowed.
    #[error("{depth} hand-overs, at most {max} are allowed")]
    Depth {
        /// The hand-overs of the chain.
        depth: u32,
        /// The smallest `max_depth`.
        max: u32,
    },
    /// The proof is not by the last holder.
    #[error("the proof is not made with the last holder's key")]
    ProofKey,
    /// A caveat that says nothing or cannot be expressed.
    #[error("caveat: {0}")]
    Caveat(String),
    /// A builder was asked for what the profile does not have.
    #[error("{0}")]
    Builder(&'static str),
    /// The token is sealed, nobody can add to it.
    #[error("the token is sealed: narrow or delegate the unsealed one that its holder keeps")]
    Sealed,
}

impl Error {
    /// The rule that was broken.
    #[must_use]
    pub fn rule(&self) -> RuleId {
        match self {
            Self::Text { .. } => rules::TEXT,
            Self::Protobuf(_) | Self::Sealed => rules::PROTOBUF,
            Self::Counts(_) => rules::COUNTS,
            Self::AuthorityCount { .. } => rules::AUTHORITY_COUNTS,
            Self::Root => rules::ROOT,
            Self::Signatures => rules::SIGNATURES,
            Self::AuthorityFact { .. } | Self::Builder(_) => rules::AUTHORITY_FACTS,
            Self::Version => rules::VERSION,
            Self::Forbidden { .. } => rules::NO_RULES,
            Self::BlockVersion { .. } => rules::BLOCK_VERSION,
            Self::Issuer => rules::ISSUER,
            Self::Expiry { .. } => rules::EXPIRY,
            Self::Name(_) => rules::NAMES,
            Self::HolderKey { .. } => rules::HOLDER_KEY,
            Self::RootServer(_) => rules::ROOT_SERVERS,
            Self::NextKey { .. } => rules::NEXT_KEY,
            Self::Expired { .. } => rules::NOT_EXPIRED,
            Self::Admission { rule, .. } => *rule,
            Self::Caveat(_) => rules::SHAPE,
            Self::NotThirdParty { .. } => rules::THIRD_PARTY,
            Self::Signer { .. } => rules::SIGNER,
            Self::OneHolder { .. } => rules::ONE_HOLDER,
            Self::LaterFact { .. } => rules::LATER_FACTS,
            Self::LaterCount { .. } => rules::LATER_COUNTS,
            Self::Depth { .. } => rules::DEPTH,
            Self::ProofKey => taper_dpop::rule::r::HOLDER,
        }
    }

    /// The link (block) concerned, where the error is about one.
    #[must_use]
    pub fn link(&self) -> Option<usize> {
        match self {
            Self::Forbidden { block, .. }
            | Self::BlockVersion { block }
            | Self::Expiry { block, .. }
            | Self::HolderKey { block }
            | Self::NextKey { block }
            | Self::Expired { block, .. }
            | Self::Admission { block, .. }
            | Self::NotThirdParty { block }
            | Self::Signer { block }
            | Self::OneHolder { block, .. }
            | Self::LaterCount { block, .. }
            | Self::LaterFact { block, .. } => Some(*block),
            _ => None,
        }
    }
}
