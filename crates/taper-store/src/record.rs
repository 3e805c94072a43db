//! What the journal records, as data (RULES 30).
//!
//! A record never holds a token, a proof or call arguments: a decision names the token by its hash
//! and the access by server, method, tool and the resources that the server's profile derived.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::counters::CounterKey;
use crate::error::StoreError;

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub kind: RecordKind,
}

/// The kinds of record; the JSON member `kind` names them in snake case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecordKind {
    /// The issuer granted or renewed a capability.
    Grant(GrantRecord),
    /// Something was revoked.
    Revoked(Revocation),
    /// The proxy decided about one verified presentation.
    Decision(DecisionRecord),
    /// A policy came into force.
    Policy {
        /// The digest that decisions refer to.
        digest: String,
        /// The names of its files.
        files: Vec<String>,
    },
    /// A daemon started.
    Started {
        /// `issuer` or `proxy`.
        role: String,
    },
}

/// What the issuer decided, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The issuer's URL.
    pub issuer: String,
    /// The grant id (RULES 1).
    pub grant_id: String,
    /// The issuer of the subject's identity.
    pub subject_iss: String,
    /// The subject.
    pub subject: String,
    /// The client that asked.
    pub client: String,
    /// The actor of the subject token, if it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// RFC 7638 thumbprint of the first holder, base64url.
    pub holder_jkt: String,
    /// The resource URIs where the capability counts.
    pub audiences: Vec<String>,
    /// The rights of block 0, printed for people.
    pub rights: Vec<String>,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
    /// How many hand-overs are allowed.
    pub max_depth: u32,
    /// The digest of the policy that granted it.
    pub policy_digest: String,
}

impl GrantRecord {
    /// Whether `other` may stand under the same id: a renewal keeps issuer, id, subject, client,
    /// actor and holder (RULES 27).
    pub(crate) fn is_renewed_by(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.grant_id == other.grant_id
            && self.subject_iss == other.subject_iss
            && self.subject == other.subject
            && self.client == other.client
            && self.actor == other.actor
            && self.holder_jkt == other.holder_jkt
    }
}

/// How a decision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A permit was made.
    Allow,
    /// The answer was no.
    Deny,
    /// A limit was hit; the caller was told to try again.
    Indeterminate,
}

/// One holder of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// RFC 7638 thumbprint, base64url.
    pub holder_jkt: String,
    /// Hand-overs before this holder.
    pub depth: u32,
}

/// One decision of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The id that the caller was told.
    pub decision_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The number of the rule that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The issuer of the capability.
    pub issuer: String,
    /// The grant.
    pub grant_id: String,
    /// Thumbprint of the last holder, who presented.
    pub holder_jkt: String,
    /// Hand-overs in the chain.
    pub depth: u32,
    /// Every holder, first to last.
    pub links: Vec<LinkRecord>,
    /// The server's id.
    pub server: String,
    /// The MCP method.
    pub method: String,
    /// The tool, for `tools/call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The resources as (kind, value).
    pub resources: Vec<(String, String)>,
    /// Hex SHA-256 of the body, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// Hex SHA-256 of the exact token text.
    pub token_sha256: String,
    /// The digest of the policy that decided.
    pub policy_digest: String,
    /// The caller's address (RULES 18).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
    /// The max-calls caveats under which the call counts (RULES 16).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<CounterKey>,
}

/// What a revocation names (RULES 28). Keys are always read together with their issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationKey {
    /// A grant id.
    Grant(String),
    /// A branch id (RULES 6): 64 lower-case hex digits.
    Branch(String),
    /// A holder's RFC 7638 thumbprint: 43 characters of base64url.
    Holder(String),
    /// A client id.
    Client(String),
    /// A subject.
    Subject {
        /// The issuer of its identity.
        iss: String,
        /// Its name there.
        sub: String,
    },
}

impl RevocationKey {
    /// The kind as one word, as in the JSON form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Grant(_) => "grant",
            Self::Branch(_) => "branch",
            Self::Holder(_) => "holder",
            Self::Client(_) => "client",
            Self::Subject { .. } => "subject",
        }
    }

    /// Refuses keys that could never match: empty names, another spelling of a hash.
    ///
    /// # Errors
    /// [`StoreError::MalformedKey`].
    pub fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Grant(id) | Self::Client(id) => not_empty(id),
            Self::Branch(hex) => parse_hex32(hex).map(|_| ()),
            Self::Holder(jkt) => parse_thumbprint(jkt).map(|_| ()),
            Self::Subject { iss, sub } => not_empty(iss).and_then(|()| not_empty(sub)),
        }
    }

    /// One fixed-size name for (issuer, key). Each part is preceded by its length, so that no two
    /// keys share it.
    pub(crate) fn fingerprint(&self, issuer: &str) -> [u8; 32] {
        let parts: [&str; 4] = match self {
            Self::Grant(v) | Self::Branch(v) | Self::Holder(v) | Self::Client(v) => {
                [issuer, self.kind(), v, ""]
            }
            Self::Subject { iss, sub } => [issuer, self.kind(), iss, sub],
        };
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// A revocation as a caller asks for it; the store gives it its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRevocation {
    /// When, in seconds since the Unix epoch.
    pub at: i64,
    /// The issuer whose capabilities it stops.
    pub issuer: String,
    /// What is revoked.
    pub what: RevocationKey,
}

/// A revocation in the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Position in the feed, counted from 1 in commit order (RULES 29).
    pub seq: u64,
    /// When, in seconds since the Unix epoch.
    pub at: i64,
    /// The issuer whose capabilities it stops.
    pub issuer: String,
    /// What is revoked.
    pub what: RevocationKey,
}

fn not_empty(name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        Err(StoreError::MalformedKey("an empty name"))
    } else {
        Ok(())
    }
}

/// 32 bytes from 64 lower-case hex digits, the only spelling that is accepted.
pub(crate) fn parse_hex32(text: &str) -> Result<[u8; 32], StoreError> {
    let malformed = || StoreError::MalformedKey("a branch id is 64 lower-case hex digits");
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(malformed());
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(malformed()),
    };
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
    }
    Ok(out)
}

/// 32 bytes from an RFC 7638 thumbprint.
pub(crate) fn parse_thumbprint(text: &str) -> Result<[u8; 32], StoreError> {
    let malformed = StoreError::MalformedKey("a thumbprint is 43 characters of base64url");
    if text.len() != 43 {
        return Err(malformed);
    }
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(malformed)
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(crate) mod tests;
