//! The proof of possession that `/token` and `/revoke` demand (RFC 9449): fits, signed, fresh, once.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use taper_dpop::{Error, Expectation, NonceKey, NonceRule, Proof, TokenHash, VerifiedProof};
use taper_oauth::ErrorCode;
use taper_service::rng;
use taper_store::{ReplayGuard, SeenProofs, Untaken};

use crate::config::NonceMode;
use crate::error::Refusal;
use crate::rules;

/// Checks proofs for the endpoints of this node.
pub(crate) struct ProofGate {
    guard: ReplayGuard,
    mode: NonceMode,
}

/// A verified proof and the header it came in, to be bound to a token that is known only later.
pub(crate) struct Proven<'a> {
    header: &'a str,
    url: &'a str,
    pub(crate) proof: VerifiedProof,
}

impl ProofGate {
    pub(crate) fn new(seen: Arc<dyn SeenProofs>, mode: NonceMode) -> Self {
        let first = NonceKey::generate(&mut rng::os());
        let guard = ReplayGuard::new(seen, first, || {
            tracing::warn!(rule = %rules::NONCE, "the clock was set back, proofs that may be forgotten need a new nonce");
            NonceKey::generate(&mut rng::os())
        });
        let guard = guard.demanding(mode == NonceMode::Demand);
        Self { guard, mode }
    }

    /// The nonce that an answer hands out, if it does.
    pub(crate) fn nonce(&self, refusal: Option<&Refusal>, now: i64) -> Option<HeaderValue> {
        let asked = refusal.is_some_and(|refusal| refusal.answer.code() == ErrorCode::UseDpopNonce);
        (asked || self.mode == NonceMode::Demand)
            .then(|| HeaderValue::from_str(&self.guard.nonce(now)).ok())
            .flatten()
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
        let expected = Expectation {
            method: "POST",
            url,
            token,
            nonce: NonceRule::Unused,
            now,
        };
        let fitting = Proof::parse(header).and_then(|proof| self.guard.check(proof, &expected));
        let fitting = fitting.map_err(refused)?;
        if !rules::NONCE.holds(!fitting.in_doubt) {
            return Err(refused(Error::Nonce));
        }
        Ok(Proven {
            header,
            url,
            proof: fitting.proof.verify().map_err(refused)?,
        })
    }

    /// Takes the proof out of use, if it still counts: since it was verified, it may have become too old, or
    /// been forgotten. `account` bears the quota of live proofs.
    pub(crate) fn spend(&self, proof: &VerifiedProof, account: &str, now: i64) -> Result<(), Refusal> {
        let busy =
            |description: &str| Refusal::new(rules::REPLAY, ErrorCode::TemporarilyUnavailable, description);
        match self.guard.take(proof, account, now) {
            Ok(()) => Ok(()),
            Err(Untaken::TooOld) => Err(refused(Error::Iat("too old"))),
            Err(Untaken::Replay) if rules::REPLAY.holds(false) => Ok(()),
            Err(Untaken::Replay) => Err(Refusal::new(
                rules::REPLAY,
                ErrorCode::InvalidDpopProof,
                "the proof was used before",
            )),
            Err(Untaken::Quota) => Err(busy("too many requests").with_status(429)),
            Err(Untaken::InDoubt) if rules::NONCE.holds(false) => Ok(()),
            Err(Untaken::InDoubt) => Err(refused(Error::Nonce)),
            Err(Untaken::Failed(error)) => {
                Err(busy("the server cannot remember the proof now").with_detail(error))
            }
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

    use taper_dpop::{Algorithm, MAX_AGE, MAX_FUTURE, PrivateKey, ProofClaims};
    use taper_store::{Doubt, Seen, StoreError};

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

    fn gate(mode: NonceMode) -> (ProofGate, Arc<Forgetful>) {
        let seen = Arc::new(Forgetful(Mutex::new(doubt(i64::MIN, 0))));
        (
            ProofGate::new(Arc::clone(&seen) as Arc<dyn SeenProofs>, mode),
            seen,
        )
    }

    fn verified(gate: &ProofGate, nonce: Option<&str>) -> VerifiedProof {
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
        let (gate, _) = gate(NonceMode::Off);
        let proof = verified(&gate, None);
        assert_eq!(rule(gate.spend(&proof, "a", END)), None);
        assert_eq!(rule(gate.spend(&proof, "a", END + 1)).as_deref(), Some("R-07"));
    }

    #[test]
    fn a_proof_that_was_forgotten_since_it_was_verified_is_not_spent() {
        let spent = |mode: NonceMode, until: i64, setbacks: u64| {
            let (gate, seen) = gate(mode);
            let nonce = gate.guard.nonce(NOW);
            let nonce = (mode == NonceMode::Demand).then_some(nonce.as_str());
            let proof = verified(&gate, nonce);
            *seen.0.lock().unwrap() = doubt(until, setbacks);
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
