//! The keys and values of the state's one tree.
//!
//! | key | value |
//! |---|---|
//! | `m/applied-2` | size of the journal that is included, root of its tree |
//! | `g` ‖ SHA-256(issuer, grant id) | grant |
//! | `i` ‖ name of an owner ‖ SHA-256(issuer, grant id) | grant id, see `state/index.rs` |
//! | `s` ‖ number | revocation |
//! | `b` ‖ SHA-256(issuer, grant id) | how many revocations the grant caused |
//! | `h` ‖ number | history, which is kept for ever |
//! | `k` ‖ fingerprint | number of the revocation |
//! | `c` ‖ fingerprint | calls that count, first record that is not among them, until when it matters |
//! | `n` ‖ SHA-256(issuer) ‖ client id | client |
//! | `r` ‖ SHA-256(issuer) | root keys |
//! | `f` ‖ family | refresh family |
//! | `t` ‖ token | its refresh family |
//! | `u` ‖ family ‖ token | nothing: the tokens of a family |
//! | `e` ‖ time ‖ key | nothing: what may end then, see [`crate::sweep`] |
//!
//! Numbers are big endian, so that they sort. The name of the first key changes with the layout: a
//! folder of another one claims nothing and is filled again.

use sha2::{Digest as _, Sha256};
use sled::IVec;

use crate::error::StoreError;

pub(crate) const APPLIED: &[u8] = b"m/applied-2";
pub(crate) const GRANT: u8 = b'g';
pub(crate) const INDEX: u8 = b'i';
pub(crate) const REVOCATION: u8 = b's';
pub(crate) const UNDER: u8 = b'b';
pub(crate) const HISTORY: u8 = b'h';
pub(crate) const FINGERPRINT: u8 = b'k';
pub(crate) const COUNTER: u8 = b'c';
pub(crate) const CLIENT: u8 = b'n';
pub(crate) const ROOT_KEYS: u8 = b'r';
pub(crate) const FAMILY: u8 = b'f';
pub(crate) const TOKEN: u8 = b't';
pub(crate) const TOKENS: u8 = b'u';
pub(crate) const EXPIRY: u8 = b'e';

/// Bytes of an expiry key before the key that it names.
const EXPIRY_HEAD: usize = 1 + 8;

pub(crate) fn grant(issuer: &str, grant_id: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer.as_bytes());
    hash.update(grant_id.as_bytes());
    key(GRANT, &[&hash.finalize()])
}

pub(crate) fn revocation(seq: u64) -> Vec<u8> {
    key(REVOCATION, &[&seq.to_be_bytes()])
}

/// The count of the revocations that a grant caused; `grant` is the key of its record.
pub(crate) fn under(grant: &[u8]) -> Vec<u8> {
    key(UNDER, &[grant.get(1..).unwrap_or_default()])
}

pub(crate) fn history(seq: u64) -> Vec<u8> {
    key(HISTORY, &[&seq.to_be_bytes()])
}

pub(crate) fn fingerprint(fingerprint: &[u8; 32]) -> Vec<u8> {
    key(FINGERPRINT, &[fingerprint])
}

pub(crate) fn counter(fingerprint: &[u8; 32]) -> Vec<u8> {
    key(COUNTER, &[fingerprint])
}

/// What the keys of an issuer's clients start with.
pub(crate) fn clients(issuer: &str) -> Vec<u8> {
    key(CLIENT, &[&Sha256::digest(issuer)])
}

pub(crate) fn client(issuer: &str, client: &str) -> Vec<u8> {
    key(CLIENT, &[&Sha256::digest(issuer), client.as_bytes()])
}

pub(crate) fn root_keys(issuer: &str) -> Vec<u8> {
    key(ROOT_KEYS, &[&Sha256::digest(issuer)])
}

pub(crate) fn family(family: &[u8; 32]) -> Vec<u8> {
    key(FAMILY, &[family])
}

pub(crate) fn token(token: &[u8; 32]) -> Vec<u8> {
    key(TOKEN, &[token])
}

pub(crate) fn token_of(family: &[u8; 32], token: &[u8; 32]) -> Vec<u8> {
    key(TOKENS, &[family, token])
}

/// The entry that lets a sweep find `of` when `until` is over.
pub(crate) fn expiry(until: i64, of: &[u8]) -> Vec<u8> {
    let mut key = expiry_bound(until);
    key.extend_from_slice(of);
    key
}

/// What sorts before every entry of `until` and after those of earlier times.
pub(crate) fn expiry_bound(until: i64) -> Vec<u8> {
    // The sign bit flipped, so that times before the epoch sort first.
    key(EXPIRY, &[&(until.cast_unsigned() ^ 1 << 63).to_be_bytes()])
}

/// The key that an expiry entry names.
pub(crate) fn expiring(entry: &[u8]) -> &[u8] {
    entry.get(EXPIRY_HEAD..).unwrap_or_default()
}

fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![prefix];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The last 32 bytes of a key.
pub(crate) fn last32(key: &[u8]) -> Result<[u8; 32], StoreError> {
    let bytes = key.last_chunk::<32>().copied();
    bytes.ok_or_else(|| StoreError::State("a key is shorter than a hash".into()))
}

/// The calls of one counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) calls: u64,
    /// Records below this number are among them.
    pub(crate) next: u64,
    /// When the count may be forgotten.
    pub(crate) until: Option<i64>,
}

impl Counted {
    /// Counts the call of a record, once.
    pub(crate) fn include(&mut self, index: u64) {
        if index >= self.next {
            self.calls = self.calls.saturating_add(1);
            self.next = index.saturating_add(1);
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let until = self.until.unwrap_or(i64::MAX);
        let numbers = [self.calls, self.next, until.cast_unsigned()];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(crate) fn from_bytes(value: &[u8]) -> Result<Self, StoreError> {
        let malformed = || StoreError::State("a counter is not three numbers".into());
        let (calls, rest) = value.split_first_chunk().ok_or_else(malformed)?;
        let (next, until) = rest.split_first_chunk().ok_or_else(malformed)?;
        let until = i64::from_be_bytes(until.try_into().map_err(|_| malformed())?);
        Ok(Self {
            calls: u64::from_be_bytes(*calls),
            next: u64::from_be_bytes(*next),
            until: (until != i64::MAX).then_some(until),
        })
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::State(e.to_string()))
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(value: &IVec) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::State(e.to_string()))
}

pub(crate) fn number(value: &[u8]) -> Result<u64, StoreError> {
    let bytes = value
        .try_into()
        .map_err(|_| StoreError::State("a number is not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

pub(crate) fn hash(value: &[u8]) -> Result<[u8; 32], StoreError> {
    value
        .try_into()
        .map_err(|_| StoreError::State("a hash is not 32 bytes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_sort_by_time_and_name_their_key() {
        let times = [i64::MIN, -5, -1, 0, 1, 1_700_000_000, i64::MAX];
        let keys: Vec<Vec<u8>> = times.iter().map(|time| expiry(*time, b"gkey")).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| expiring(key) == b"gkey"));
        for (time, key) in times.iter().zip(&keys) {
            assert!(expiry_bound(*time) <= *key);
            assert!(*time == i64::MAX || *key < expiry_bound(time + 1));
        }
        assert!(expiring(b"e").is_empty());
    }

    #[test]
    fn counts_have_one_form() {
        for until in [None, Some(-1), Some(1_700_000_000)] {
            let counted = Counted {
                calls: 3,
                next: 9,
                until,
            };
            assert_eq!(Counted::from_bytes(&counted.to_bytes()).unwrap(), counted);
        }
        assert!(Counted::from_bytes(&[0; 16]).is_err());
        assert!(Counted::from_bytes(&[0; 25]).is_err());
    }
}
