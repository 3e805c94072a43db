//! What the journal records, as data (RULES 30).
//!
//! A record never holds a token, a proof or call arguments: a decision names the token by its hash
//! and the access by server, method, tool and the resources that the server's profile derived.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::counters::Counter;
use crate::kept::{Carried, ClientRecord, RefreshRecord, RepairedRecord, RetiredRecord, RootKeysRecord};
use crate::revocation::RevocationRecord;

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
    Revoked(RevocationRecord),
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
    /// A client is new, changed or gone.
    Client(ClientRecord),
    /// Other root keys came into force.
    RootKeys(RootKeysRecord),
    /// A refresh family began, went on or ended.
    Refresh(RefreshRecord),
    /// Something is alive although the record of it goes.
    Carried {
        /// As it stands.
        state: Carried,
    },
    /// Old records were dropped.
    Retired(RetiredRecord),
    /// A damaged journal was set aside.
    Repaired(RepairedRecord),
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
    /// The actor of the subject token, if it named one, as `sub (iss)`.
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
    /// The grant's absolute end, which no renewal passes (RULES 27), in seconds since the Unix epoch;
    /// absent where the expiry is all that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
    /// Whether it renewed an earlier one; the store fills it in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewal: bool,
    /// How many hand-overs are allowed.
    pub max_depth: u32,
    /// The digest of the policy that granted it.
    pub policy_digest: String,
}

impl GrantRecord {
    /// When nothing of the grant can be used or renewed any more, in seconds since the Unix epoch.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.ends_at.unwrap_or(self.expires_at).max(self.expires_at)
    }

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
    /// The issuer of the subject's identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject_iss: String,
    /// For whom the capability was issued.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// To which client it was issued.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
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
    pub counted: Vec<Counter>,
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(crate) mod tests;
