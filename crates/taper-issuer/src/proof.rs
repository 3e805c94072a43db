//! The proof of possession that `/token` and `/revoke` demand (RFC 9449): fits, signed, fresh, once.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use rand_core::CryptoRngCore;
use taper_dpop::rule::r;
use taper_dpop::{
    Error, Expectation, MAX_AGE, MAX_FUTURE, NonceKey, NonceKeys, NonceRule, Proof, TokenHash, VerifiedProof,
    base64url_encode,
};
use taper_oauth::ErrorCode;
use taper_service::rng;
use taper_store::{Doubt, LONGEST_LIFE, Seen, SeenProofs};

use crate::config::NonceMode;
use crate::error::Refusal;
use crate::rules;

// So long a proof counts at most, and so long the store keeps it.
const _: () = assert!(MAX_AGE + 2 * MAX_FUTURE <= LONGEST_LIFE);

/// Checks proofs for the endpoints of this node.
pub(crate) struct ProofGate<S> {
    seen: Arc<S>,
    nonces: NonceKeys,
    mode: NonceMode,
}

/// A verified proof and the header it came in, to be bound to a token that is known only later.
pub(crate) struct Proven<'a> {
    header: &'a str,
    url: &'a str,
    pub(crate) proof: VerifiedProof,
}

impl<S: SeenProofs> ProofGate<S> {
    pub(crate) fn new(seen: Arc<S>, mode: NonceMode, rng: &mut impl CryptoRngCore) -> Self {
        Self {
            seen,
            nonces: NonceKeys::new(NonceKey::generate(rng)),
            mode,
        }
    }

    /// The nonce that an answer hands out, if it does.
    pub(crate) fn nonce(&self, refusal: Option<&Refusal>, now: i64) -> Option<HeaderValue> {
        let asked = refusal.is_some_and(|refusal| refusal.answer.code() == ErrorCode::UseDpopNonce);
        (asked || self.mode == NonceMode::Demand)
            .then(|| {
                let key = self.nonce_key(&self.seen.doubt(now));
                HeaderValue::from_str(&key.mint(now)).ok()
            })
            .flatten()
    }

    /// The key of nonces that show that a proof is not a forgotten one.
    fn nonce_key(&self, doubt: &Doubt) -> Arc<NonceKey> {
        self.nonces.of(doubt.setbacks, || {
            tracing::warn!(rule = %rules::NONCE, "the clock was set back, proofs that may be forgotten need a new nonce");
            NonceKey::generate(&mut rng::os())
        })
    }

    /// Verifies the one proof of a POST to `url`; `token` is what it must be bound to.
    pub(crate) fn verify<'a>(
        &self,
        headers: &'a HeaderMap,
        url: &'a str,
        token: Option<TokenHash>,
        now: i64,
    ) -> Result<Proven<'a>, Refusal> {
        let header = only_header(headers)?;
        let expect = |nonce| Expectation {
            method: "POST",
            url,
            token,
            nonce,
            now,
        };
        let doubt = self.seen.doubt(now);
        let nonces = self.nonce_key(&doubt);
        let demanded = expect(NonceRule::Demanded(&nonces));
        let checked = Proof::parse(header).and_then(|proof| proof.check(&demanded));
        let checked = match checked {
            // A nonce of the current key says that the proof was made after its start, or after the clock was set
            // back, whatever `iat` says.
            Err(Error::Nonce) if self.mode == NonceMode::Off => {
                let checked = Proof::parse(header)
                    .and_then(|proof| proof.check(&expect(NonceRule::Unused)))
                    .map_err(refused)?;
                let forgotten = doubt.covers(checked.iat(), checked.replayable_until(), MAX_FUTURE);
                if !rules::NONCE.holds(!forgotten) {
                    return Err(refused(Error::Nonce));
                }
                checked
            }
            checked => checked.map_err(refused)?,
        };
        Ok(Proven {
            header,
            url,
            proof: checked.verify().map_err(refused)?,
        })
    }

    /// Takes the proof out of use, if it still counts: since it was verified, it may have become too old, or
    /// been forgotten. `account` bears the quota of live proofs.
    pub(crate) fn spend(&self, proof: &VerifiedProof, account: &str, now: i64) -> Result<(), Refusal> {
        // An entry that has ended would not stop a replay.
        if !r::IAT.holds(now <= proof.replayable_until()) {
            return Err(refused(Error::Iat("too old")));
        }
        let jkt = *proof.thumbprint().as_bytes();
        let jti = base64url_encode(proof.jti_hash());
        let busy =
            |description: &str| Refusal::new(rules::REPLAY, ErrorCode::TemporarilyUnavailable, description);
        match self
            .seen
            .insert_once(account, jkt, &jti, proof.replayable_until(), now)
        {
            Ok(Seen::Fresh) => self.check_not_forgotten(proof, now),
            Ok(Seen::Replay) if rules::REPLAY.holds(false) => Ok(()),
            Ok(Seen::Replay) => Err(Refusal::new(
                rules::REPLAY,
                ErrorCode::InvalidDpopProof,
                "the proof was used before",
            )),
            Ok(Seen::Quota) => Err(busy("too many requests").with_status(429)),
            Err(error) => Err(busy("the server cannot remember the proof now").with_detail(error)),
        }
    }

    /// What was forgotten since the proof was verified is found out only when it is taken.
    fn check_not_forgotten(&self, proof: &VerifiedProof, now: i64) -> Result<(), Refusal> {
        let doubt = self.seen.doubt(now);
        let in_doubt = doubt.covers(proof.iat(), proof.replayable_until(), MAX_FUTURE)
            && !proof.has_nonce(&self.nonce_key(&doubt), now);
        if rules::NONCE.holds(!in_doubt) {
            Ok(())
        } else {
            Err(refused(Error::Nonce))
        }
    }
}

impl Proven<'_> {
    /// Demands that the proof is bound to `token`. Its signature and nonce were checked before.
    pub(crate) fn demand_token(&self, token: &str, now: i64) -> Result<(), Refusal> {
        let expected = Expectation {
            method: "POST",
            url: self.url,
            token: Some(TokenHash::of(token)),
            nonce: NonceRule::Unused,
            now,
        };
        let bound = Proof::parse(self.header).and_then(|proof| proof.check(&expected));
        match bound {
            Ok(_) => Ok(()),
            Err(_) if rules::BOUND_TOKEN.holds(false) => Ok(()),
            Err(error) => Err(Refusal::new(
                rules::BOUND_TOKEN,
                ErrorCode::InvalidDpopProof,
                "the token is bound to a key: its proof needs the token's `ath`",
            )
            .with_detail(error)),
        }
    }
}

fn only_header(headers: &HeaderMap) -> Result<&str, Refusal> {
    let missing = || {
        Refusal::new(
            rules::PROOF,
            ErrorCode::InvalidDpopProof,
            "exactly one `DPoP` header is wanted",
        )
    };
    let mut values = headers.get_all("dpop").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| missing()),
        _ => Err(missing()),
    }
}

fn refused(error: Error) -> Refusal {
    match error {
        Error::Nonce => Refusal::new(
            rules::NONCE,
            ErrorCode::UseDpopNonce,
            "repeat with the nonce of this answer",
        ),
        error => Refusal::new(error.rule(), ErrorCode::InvalidDpopProof, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use taper_dpop::{Algorithm, PrivateKey, ProofClaims};
    use taper_store::StoreError;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const URL: &str = "https://issuer.example/token";
    const END: i64 = NOW + MAX_AGE + MAX_FUTURE;

    /// Remembers nothing; what is in doubt is set by hand.
    struct Forgetful(Mutex<Doubt>);

    impl SeenProofs for Forgetful {
        fn insert_once(&self, _: &str, _: [u8; 32], _: &str, _: i64, _: i64) -> Result<Seen, StoreError> {
            Ok(Seen::Fresh)
        }

        fn is_seen(&self, _: [u8; 32], _: &str, _: i64) -> bool {
            false
        }

        fn complete_since(&self) -> Option<i64> {
            None
        }

        fn doubt(&self, _: i64) -> Doubt {
            *self.0.lock().unwrap()
        }
    }

    fn doubt(forgotten_until: i64, setbacks: u64) -> Doubt {
        Doubt {
            complete_since: None,
            forgotten_until,
            setbacks,
        }
    }

    fn gate(mode: NonceMode) -> ProofGate<Forgetful> {
        let seen = Forgetful(Mutex::new(doubt(i64::MIN, 0)));
        ProofGate::new(Arc::new(seen), mode, &mut rng::os())
    }

    fn verified(gate: &ProofGate<Forgetful>, nonce: Option<&str>) -> VerifiedProof {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let claims = ProofClaims::new("POST", URL, NOW, &mut rng::os()).nonce(nonce);
        let mut headers = HeaderMap::new();
        headers.insert("dpop", claims.sign(&key).unwrap().parse().unwrap());
        let proven = gate.verify(&headers, URL, None, NOW);
        proven.map(|proven| proven.proof).ok().unwrap()
    }

    fn rule(spent: Result<(), Refusal>) -> Option<String> {
        spent.err().map(|refusal| refusal.rule.to_string())
    }

    #[test]
    fn a_proof_that_became_too_old_since_it_was_verified_is_not_spent() {
        let gate = gate(NonceMode::Off);
        let proof = verified(&gate, None);
        assert_eq!(rule(gate.spend(&proof, "a", END)), None);
        assert_eq!(rule(gate.spend(&proof, "a", END + 1)).as_deref(), Some("R-07"));
    }

    #[test]
    fn a_proof_that_was_forgotten_since_it_was_verified_is_not_spent() {
        let spent = |mode: NonceMode, until: i64, setbacks: u64| {
            let gate = gate(mode);
            let nonce = gate.nonces.of(0, || NonceKey::generate(&mut rng::os())).mint(NOW);
            let nonce = (mode == NonceMode::Demand).then_some(nonce.as_str());
            let proof = verified(&gate, nonce);
            *gate.seen.0.lock().unwrap() = doubt(until, setbacks);
            rule(gate.spend(&proof, "a", NOW))
        };
        assert_eq!(spent(NonceMode::Off, END - 1, 1), None);
        assert_eq!(spent(NonceMode::Off, END, 1).as_deref(), Some("X-04"));
        assert_eq!(
            spent(NonceMode::Demand, END, 0),
            None,
            "its nonce is from after that"
        );
        assert_eq!(spent(NonceMode::Demand, END, 1).as_deref(), Some("X-04"));
    }
}
