//! What can be revoked, and a revocation from the request to the feed (RULES 28 and 29).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::feed::History;

/// What a revocation names (RULES 28). Keys are always read together with their issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
    /// Every chain of a grant in which one holder hands on to another directly.
    Delegation {
        /// The grant id.
        grant: String,
        /// Thumbprint of the holder that handed on.
        from: String,
        /// Thumbprint of the holder that was handed to.
        to: String,
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
            Self::Delegation { .. } => "delegation",
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
            Self::Delegation { grant, from, to } => {
                not_empty(grant)?;
                parse_thumbprint(from)?;
                parse_thumbprint(to)?;
                if from == to {
                    return Err(StoreError::MalformedKey(
                        "a delegation is from one key to another",
                    ));
                }
                Ok(())
            }
        }
    }

    /// One fixed-size name for (issuer, key). Each part is preceded by its length, so that no two
    /// keys share it.
    pub(crate) fn fingerprint(&self, issuer: &str) -> [u8; 32] {
        let parts: [&str; 5] = match self {
            Self::Grant(v) | Self::Branch(v) | Self::Holder(v) | Self::Client(v) => {
                [issuer, self.kind(), v, "", ""]
            }
            Self::Subject { iss, sub } => [issuer, self.kind(), iss, sub, ""],
            Self::Delegation { grant, from, to } => [issuer, self.kind(), grant, from, to],
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
    /// When it may be forgotten, because nothing that it stops can live longer: the grant's end and the
    /// allowed skew. Seconds since the Unix epoch; `None` for what can be granted again (RULES 29).
    pub until: Option<i64>,
    /// Who asked for it, in words for the audit.
    pub by: String,
}

/// How many revocations a grant may cause, for requests of those who can make any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The grant under which it counts.
    pub grant_id: String,
    /// It is refused when as many count already.
    pub limit: u64,
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
    /// As [`NewRevocation::until`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

impl Revocation {
    /// The history of a feed after this revocation, from the one before it: one hash over everything that
    /// was revoked, so that two feeds that differ anywhere cannot pass for each other (RULES 29).
    pub fn history(&self, before: History) -> History {
        let fingerprint = self.what.fingerprint(&self.issuer);
        History(next_history(&before.0, self.seq, &fingerprint))
    }
}

/// A revocation in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRecord {
    /// What the feed says.
    #[serde(flatten)]
    pub revocation: Revocation,
    /// Who asked for it.
    pub by: String,
    /// The grant among whose [`Bound`] it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// The history up to this revocation.
    #[serde(with = "hex32")]
    pub history: [u8; 32],
}

/// The history of a feed without entries.
pub const NO_HISTORY: [u8; 32] = [0; 32];

/// One hash for everything that was revoked up to a number, so that two feeds that differ anywhere
/// before it cannot pass for each other (RULES 29): SHA-256(history before ‖ number ‖ name of the key).
pub(crate) fn next_history(before: &[u8; 32], seq: u64, fingerprint: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(seq.to_be_bytes());
    hash.update(fingerprint);
    hash.finalize().into()
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

/// 32 bytes as 64 lower-case hex digits, the only spelling that is accepted.
pub(crate) mod hex32 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::parse_hex32;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let digits = String::deserialize(deserializer)?;
        parse_hex32(&digits).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delegations_are_from_one_key_to_another() {
        let thumbprint = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
        let key = |grant: &str, from: String, to: String| RevocationKey::Delegation {
            grant: grant.into(),
            from,
            to,
        };
        assert!(key("g", thumbprint(1), thumbprint(2)).check().is_ok());
        for bad in [
            key("", thumbprint(1), thumbprint(2)),
            key("g", thumbprint(1), thumbprint(1)),
            key("g", "x".into(), thumbprint(2)),
            key("g", thumbprint(1), String::new()),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let (one, other) = (
            key("g", thumbprint(1), thumbprint(2)),
            key("g", thumbprint(2), thumbprint(1)),
        );
        assert_ne!(one.fingerprint("i"), other.fingerprint("i"));
        assert_eq!(
            serde_json::to_value(&one).unwrap(),
            serde_json::json!({"delegation": {"grant": "g", "from": thumbprint(1), "to": thumbprint(2)}})
        );
    }

    #[test]
    fn histories_that_differ_once_stay_different() {
        let step = |history: [u8; 32], seq: u64, grant: &str| {
            next_history(
                &history,
                seq,
                &RevocationKey::Grant(grant.into()).fingerprint("i"),
            )
        };
        let same = step(step(NO_HISTORY, 1, "a"), 2, "b");
        assert_eq!(same, step(step(NO_HISTORY, 1, "a"), 2, "b"));
        assert_ne!(same, step(step(NO_HISTORY, 1, "x"), 2, "b"));
        assert_ne!(same, step(step(NO_HISTORY, 1, "a"), 3, "b"));
        assert_ne!(same, step(NO_HISTORY, 2, "b"));
    }
}
