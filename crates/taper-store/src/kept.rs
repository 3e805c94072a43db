//! What the state keeps beside grants, revocations and counters, and what is carried over when old
//! parts of the journal go.

use serde::{Deserialize, Serialize};

use crate::counters::Counter;
use crate::record::{GrantRecord, Record, RecordKind};
use crate::revocation::{RevocationRecord, hex32};

/// A client as it is configured at the issuer, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The issuer's URL.
    pub issuer: String,
    /// The client id.
    pub client: String,
    /// How it authenticates, as a `token_endpoint_auth_method` (RFC 7591 §2).
    pub method: String,
    /// Hex SHA-256 over its configuration without secrets: another value says that it changed.
    pub digest: String,
    /// It is configured no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// The root keys of an issuer that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKeysRecord {
    /// The issuer's URL.
    pub issuer: String,
    /// The keys, the one that signs first.
    pub keys: Vec<RootKeyRecord>,
}

/// One root key, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKeyRecord {
    /// Its root key id.
    pub id: u32,
    /// Its RFC 7638 thumbprint, base64url.
    pub thumbprint: String,
}

/// A refresh family: one token after the other for the same grant, each used once (RFC 9700 §4.14.2).
/// Tokens are known by their SHA-256 only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRecord {
    /// The issuer's URL.
    pub issuer: String,
    /// The grant that is renewed.
    pub grant_id: String,
    /// The family's name: the hash of its first token.
    #[serde(with = "hex32")]
    pub family: [u8; 32],
    /// The hash of the one token that is not used.
    #[serde(with = "hex32")]
    pub token: [u8; 32],
    /// How many tokens were used.
    pub rotations: u64,
    /// When the family ends, in seconds since the Unix epoch; no rotation moves it.
    pub expires_at: i64,
    /// Why it ended before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<RefreshEnd>,
}

/// Why a refresh family ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshEnd {
    /// A used token was presented again: it, or its successor, is in foreign hands.
    Reused,
    /// It was asked for.
    Ended,
}

/// Something that is alive although the record of it goes, written again as it stands (RULES 29, 30).
/// Including it is harmless beside the original, and twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// A grant.
    Grant(GrantRecord),
    /// A revocation with its number and history.
    Revocation(RevocationRecord),
    /// The calls under one counter.
    Counter {
        /// The issuer of the capability.
        issuer: String,
        /// Which counter.
        #[serde(flatten)]
        counter: Counter,
        /// Calls that count.
        calls: u64,
        /// The records below this number are among them.
        next: u64,
    },
    /// The calls under a counter of which only the name is known.
    Count {
        /// The counter's name: a hash of issuer, branch and index.
        #[serde(with = "hex32")]
        name: [u8; 32],
        /// Calls that count.
        calls: u64,
        /// The records below this number are among them.
        next: u64,
        /// When the count may be forgotten.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
    },
    /// A client.
    Client(ClientRecord),
    /// Root keys.
    RootKeys(RootKeysRecord),
    /// A refresh family, and tokens of it that were given out; a long one takes several records.
    Refresh {
        /// The family.
        family: RefreshRecord,
        /// Hashes of its tokens.
        tokens: Vec<TokenHash>,
    },
    /// The end of the feed: the highest number and the history up to it.
    Feed {
        /// The number.
        seq: u64,
        /// The history.
        #[serde(with = "hex32")]
        history: [u8; 32],
    },
}

/// The SHA-256 of a refresh token; in JSON 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(#[serde(with = "hex32")] pub [u8; 32]);

/// Records of the journal that were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRecord {
    /// The first of them.
    pub first: u64,
    /// The first one that is not among them.
    pub end: u64,
    /// The root of the tree of that size, which what is left still proves.
    #[serde(with = "hex32")]
    pub root: [u8; 32],
}

/// A damaged journal was set aside, and this one took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedRecord {
    /// The origin line of the damaged journal.
    pub origin: String,
    /// How many records it had signed for, as far as that can be known.
    pub size: u64,
    /// The root of the tree of that size, if a checkpoint could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The records that could be read, as (first, first that could not).
    pub kept: Vec<(u64, u64)>,
    /// The records that could not be read, as (first, first that could).
    pub lost: Vec<(u64, u64)>,
}

/// The name of something that the state keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Grant { issuer: String, grant_id: String },
    Revocation { seq: u64 },
    Counter { issuer: String, counter: Counter },
    Count { name: [u8; 32] },
    Client { issuer: String, client: String },
    RootKeys { issuer: String },
    Refresh { family: [u8; 32] },
}

impl Name {
    /// What a record says something about, if the state keeps it.
    pub(crate) fn of(record: &Record) -> Vec<Self> {
        match &record.kind {
            RecordKind::Grant(grant) => vec![Self::of_grant(grant)],
            RecordKind::Revoked(record) => vec![Self::of_revocation(record)],
            RecordKind::Decision(decision) => {
                let counter = |counter: &Counter| Self::Counter {
                    issuer: decision.issuer.clone(),
                    counter: *counter,
                };
                decision.counted.iter().map(counter).collect()
            }
            RecordKind::Client(client) => vec![Self::of_client(client)],
            RecordKind::RootKeys(keys) => vec![Self::of_root_keys(keys)],
            RecordKind::Refresh(family) => vec![Self::of_family(family)],
            RecordKind::Carried { state } => vec![Self::of_carried(state)],
            RecordKind::Policy { .. }
            | RecordKind::Started { .. }
            | RecordKind::Retired(_)
            | RecordKind::Repaired(_) => Vec::new(),
        }
    }

    fn of_carried(carried: &Carried) -> Self {
        match carried {
            Carried::Grant(grant) => Self::of_grant(grant),
            Carried::Revocation(record) => Self::of_revocation(record),
            Carried::Counter { issuer, counter, .. } => Self::Counter {
                issuer: issuer.clone(),
                counter: *counter,
            },
            Carried::Client(client) => Self::of_client(client),
            Carried::RootKeys(keys) => Self::of_root_keys(keys),
            Carried::Refresh { family, .. } => Self::of_family(family),
            Carried::Count { name, .. } => Self::Count { name: *name },
            Carried::Feed { seq, .. } => Self::Revocation { seq: *seq },
        }
    }

    fn of_grant(grant: &GrantRecord) -> Self {
        Self::Grant {
            issuer: grant.issuer.clone(),
            grant_id: grant.grant_id.clone(),
        }
    }

    fn of_revocation(record: &RevocationRecord) -> Self {
        Self::Revocation {
            seq: record.revocation.seq,
        }
    }

    fn of_client(client: &ClientRecord) -> Self {
        Self::Client {
            issuer: client.issuer.clone(),
            client: client.client.clone(),
        }
    }

    fn of_root_keys(keys: &RootKeysRecord) -> Self {
        Self::RootKeys {
            issuer: keys.issuer.clone(),
        }
    }

    fn of_family(family: &RefreshRecord) -> Self {
        Self::Refresh {
            family: family.family,
        }
    }
}
