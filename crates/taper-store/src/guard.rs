//! Which proofs count: each once, and with a nonce where it may have been used and forgotten (RULES 22).

use std::sync::Arc;

use taper_dpop::rule::r;
use taper_dpop::{
    CheckedProof, Error, Expectation, MAX_AGE, MAX_FUTURE, NonceKey, NonceKeys, NonceRule, Proof,
    VerifiedProof, base64url_encode,
};

use crate::error::StoreError;
use crate::seen::LONGEST_LIFE;
use crate::traits::{Doubt, Seen, SeenProofs};

// So long a proof counts at most, and so long it is remembered.
const _: () = assert!(MAX_AGE + 2 * MAX_FUTURE <= LONGEST_LIFE);

/// Seen proofs, with the nonces of this node. The proxy and the issuer each have one, and name the rules that are
/// broken themselves.
pub struct ReplayGuard {
    seen: Arc<dyn SeenProofs>,
    nonces: NonceKeys,
    new_key: fn() -> NonceKey,
    demanded: bool,
}

/// A proof whose claims fit.
pub struct Fitting<'a> {
    /// The proof, unverified.
    pub proof: CheckedProof<'a>,
    /// It may have been used and forgotten, and no nonce shows that it was not.
    pub in_doubt: bool,
}

/// Why a proof is not taken.
#[derive(Debug)]
pub enum Untaken {
    /// It is so old that it would not be remembered.
    TooOld,
    /// It was used before.
    Replay,
    /// Its account has as many live proofs as it may.
    Quota,
    /// It may have been used and forgotten, and no nonce shows that it was not.
    InDoubt,
    /// It could not be remembered.
    Failed(StoreError),
}

impl ReplayGuard {
    /// Nonces are made with `first`, and after each setback of the clock with a key from `new_key`. They are demanded
    /// only of proofs that may be forgotten.
    pub fn new(seen: Arc<dyn SeenProofs>, first: NonceKey, new_key: fn() -> NonceKey) -> Self {
        Self {
            seen,
            nonces: NonceKeys::new(first),
            new_key,
            demanded: false,
        }
    }

    /// Demands a nonce of every proof, or no longer.
    #[must_use]
    pub fn demanding(mut self, demanded: bool) -> Self {
        self.demanded = demanded;
        self
    }

    /// A nonce made at `now`, in seconds since the Unix epoch.
    pub fn nonce(&self, now: i64) -> String {
        self.key(&self.seen.doubt(now)).mint(now)
    }

    /// Checks the claims of a proof; what is expected of its nonce is set here.
    ///
    /// # Errors
    /// The first rule that it breaks, R-10 among them only where every proof carries a nonce.
    pub fn check<'a>(&self, proof: Proof<'a>, expected: &Expectation<'_>) -> Result<Fitting<'a>, Error> {
        let doubt = self.seen.doubt(expected.now);
        let key = self.key(&doubt);
        let nonce = if self.demanded {
            NonceRule::Demanded(&key)
        } else {
            NonceRule::Unused
        };
        let proof = proof.check(&Expectation { nonce, ..*expected })?;
        // A nonce of the current key says that the proof was made after the start, or after the clock was set back,
        // whatever `iat` says: one that was used before may be dated ahead.
        let in_doubt = !self.demanded
            && doubt.covers(proof.iat(), proof.replayable_until(), MAX_FUTURE)
            && !proof.has_nonce(&key, expected.now);
        Ok(Fitting { proof, in_doubt })
    }

    /// Whether the proof may still be taken, as far as can be told without taking it.
    ///
    /// # Errors
    /// [`Untaken::TooOld`] or [`Untaken::Replay`].
    pub fn look_up(&self, proof: &VerifiedProof, now: i64) -> Result<(), Untaken> {
        check_age(proof, now)?;
        let (jkt, jti) = name(proof);
        if self.seen.is_seen(jkt, &jti, now) {
            return Err(Untaken::Replay);
        }
        Ok(())
    }

    /// Takes the proof out of use, if it still counts: since it was verified, it may have become too old, or been
    /// forgotten. `account` bears the quota of live proofs.
    ///
    /// # Errors
    /// Why it is not taken. With [`Untaken::InDoubt`] it is remembered nevertheless.
    pub fn take(&self, proof: &VerifiedProof, account: &str, now: i64) -> Result<(), Untaken> {
        check_age(proof, now)?;
        let (jkt, jti) = name(proof);
        match self
            .seen
            .insert_once(account, jkt, &jti, proof.replayable_until(), now)
        {
            Ok(Seen::Fresh) => {}
            Ok(Seen::Replay) => return Err(Untaken::Replay),
            Ok(Seen::Quota) => return Err(Untaken::Quota),
            Err(error) => return Err(Untaken::Failed(error)),
        }
        // What was forgotten since its claims were checked is found out only now: it was known until then, or is in
        // doubt.
        let doubt = self.seen.doubt(now);
        let in_doubt = doubt.covers(proof.iat(), proof.replayable_until(), MAX_FUTURE)
            && !proof.has_nonce(&self.key(&doubt), now);
        if in_doubt { Err(Untaken::InDoubt) } else { Ok(()) }
    }

    /// The key of nonces that show that a proof is not a forgotten one.
    fn key(&self, doubt: &Doubt) -> Arc<NonceKey> {
        self.nonces.of(doubt.setbacks, self.new_key)
    }
}

/// An entry that has ended would not stop a replay. The look at the claims allowed less: time has passed since.
fn check_age(proof: &VerifiedProof, now: i64) -> Result<(), Untaken> {
    let is_young = r::IAT.holds(now <= proof.replayable_until());
    is_young.then_some(()).ok_or(Untaken::TooOld)
}

fn name(proof: &VerifiedProof) -> ([u8; 32], String) {
    let jti = base64url_encode(proof.jti_hash());
    (*proof.thumbprint().as_bytes(), jti)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
