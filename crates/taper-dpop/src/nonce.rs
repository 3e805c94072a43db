//! Server nonces (RFC 9449 section 8): stateless, authenticated, valid for a limited time.
//!
//! A nonce is its time of making and a MAC over it. Nothing is stored; a nonce of another node
//! (another key) or of another time is worth nothing.

use crate::rule::r;
use crate::{Error, base64url_decode, base64url_encode};
use hmac::{Hmac, Mac};
use rand_core::CryptoRngCore;
use sha2::Sha256;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::Zeroizing;

/// How long a nonce is accepted, in seconds. Short enough to bound a stock of proofs signed in
/// advance, long enough that a client does not need a new one for each request.
pub const NONCE_LIFETIME: i64 = 300;

const TAG_BYTES: usize = 16;

/// The key under which one node makes and checks its nonces.
pub struct NonceKey(Zeroizing<[u8; 64]>);

impl NonceKey {
    /// A fresh key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut key = Zeroizing::new([0; 64]);
        rng.fill_bytes(&mut *key);
        Self(key)
    }

    /// A nonce made at `now`.
    #[must_use]
    pub fn mint(&self, now: i64) -> String {
        let time = now.to_be_bytes();
        let mut bytes = time.to_vec();
        bytes.extend(self.tag(&time));
        base64url_encode(&bytes)
    }

    /// Whether `nonce` was made by this key within [`NONCE_LIFETIME`] before `now`.
    ///
    /// # Errors
    /// [`Error::Nonce`], whatever is wrong with it.
    pub fn check(&self, nonce: &str, now: i64) -> Result<(), Error> {
        let bytes = base64url_decode(nonce).map_err(|_| Error::Nonce)?;
        let (time, tag) = bytes.split_at_checked(8).ok_or(Error::Nonce)?;
        let mac = self.mac(time);
        let genuine = tag.len() == TAG_BYTES && mac.verify_truncated_left(tag).is_ok();
        let made = i64::from_be_bytes(time.try_into().map_err(|_| Error::Nonce)?);
        let fresh = made <= now && now.saturating_sub(made) <= NONCE_LIFETIME;
        if r::NONCE.holds(genuine && fresh) {
            Ok(())
        } else {
            Err(Error::Nonce)
        }
    }

    fn mac(&self, time: &[u8]) -> Hmac<Sha256> {
        // A key of exactly one block: this constructor cannot fail.
        let mut mac = <Hmac<Sha256> as Mac>::new(self.0.as_slice().into());
        mac.update(b"taper nonce v1");
        mac.update(time);
        mac
    }

    fn tag(&self, time: &[u8]) -> Vec<u8> {
        let mut tag = self.mac(time).finalize().into_bytes().to_vec();
        tag.truncate(TAG_BYTES);
        tag
    }
}

/// The key of one node, replaced when nonces that were made with the one before must not count any more.
#[derive(Debug)]
pub struct NonceKeys(RwLock<(u64, Arc<NonceKey>)>);

impl NonceKeys {
    /// With its first key, which is that of generation 0.
    #[must_use]
    pub fn new(first: NonceKey) -> Self {
        Self(RwLock::new((0, Arc::new(first))))
    }

    /// The key of this generation, which `make` makes when it is new. Of a generation that is over there is none any
    /// more: it is the current key.
    pub fn of(&self, generation: u64, make: impl FnOnce() -> NonceKey) -> Arc<NonceKey> {
        {
            let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 >= generation {
                return Arc::clone(&current.1);
            }
        }
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 < generation {
            *current = (generation, Arc::new(make()));
        }
        Arc::clone(&current.1)
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    #[test]
    fn a_generation_s_nonces_end_with_it() {
        let keys = NonceKeys::new(NonceKey::generate(&mut OsRng));
        let key = |generation: u64| keys.of(generation, || NonceKey::generate(&mut OsRng));
        let first = key(0).mint(1000);
        assert!(key(0).check(&first, 1000).is_ok());
        assert!(key(1).check(&first, 1000).is_err());
        let second = key(1).mint(1000);
        assert!(key(1).check(&second, 1000).is_ok(), "it is made once");
        assert!(key(0).check(&first, 1000).is_err(), "and does not come back");
    }

    #[test]
    fn a_nonce_is_its_maker_s_and_fresh() {
        let (ours, theirs) = (NonceKey::generate(&mut OsRng), NonceKey::generate(&mut OsRng));
        let nonce = ours.mint(1000);
        let check = |key: &NonceKey, nonce: &str, now: i64, ok: bool| {
            assert_eq!(key.check(nonce, now).is_ok(), ok, "{nonce} at {now}");
        };
        check(&ours, &nonce, 1000, true);
        check(&ours, &nonce, 1000 + NONCE_LIFETIME, true);
        check(&ours, &nonce, 1001 + NONCE_LIFETIME, false);
        check(&ours, &nonce, 999, false);
        check(&theirs, &nonce, 1000, false);
        check(&ours, "", 1000, false);
        check(&ours, "AAAA", 1000, false);
        let mut bytes = base64url_decode(&nonce).unwrap();
        for i in 0..bytes.len() {
            bytes[i] ^= 1;
            check(&ours, &base64url_encode(&bytes), 1000, false);
            bytes[i] ^= 1;
        }
        check(&ours, &base64url_encode(&bytes[..bytes.len() - 1]), 1000, false);
        assert_eq!(format!("{ours:?}"), "NonceKey(…)");
    }
}
