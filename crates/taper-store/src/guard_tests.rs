use std::sync::Mutex;

use rand_core::OsRng;
use taper_dpop::{Algorithm, PrivateKey, ProofClaims};

use super::*;

const NOW: i64 = 1_800_000_000;
const URL: &str = "https://proxy.example/git/mcp";
const END: i64 = NOW + MAX_AGE + MAX_FUTURE;
const NONE: Doubt = Doubt {
    complete_since: None,
    forgotten_until: i64::MIN,
    setbacks: 0,
};

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

fn new_key() -> NonceKey {
    NonceKey::generate(&mut OsRng)
}

/// What is known when the claims are checked, and when the proof is taken, at which time.
struct Case {
    demanded: bool,
    nonce: Nonce,
    then: Doubt,
    at: i64,
    before: Doubt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nonce {
    None,
    /// Made while `before` held.
    Ours,
    /// Ours, and too old.
    Old,
    Foreign,
}

#[derive(Debug, PartialEq, Eq)]
enum Came {
    Refused,
    InDoubt,
    Untaken(&'static str),
    Taken,
}

fn check(case: &Case, expected: &Came) {
    let seen = Arc::new(Forgetful(Mutex::new(case.before)));
    let guard = ReplayGuard::new(Arc::clone(&seen) as Arc<dyn SeenProofs>, new_key(), new_key)
        .demanding(case.demanded);
    let nonce = match case.nonce {
        Nonce::None => None,
        Nonce::Ours => Some(guard.nonce(NOW)),
        Nonce::Old => Some(guard.nonce(NOW - 301)),
        Nonce::Foreign => Some(new_key().mint(NOW)),
    };
    let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
    let claims = ProofClaims::new("POST", URL, NOW, &mut OsRng).nonce(nonce.as_deref());
    let header = claims.sign(&key).unwrap();
    let expectation = Expectation {
        method: "POST",
        url: URL,
        token: None,
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let came = match guard.check(Proof::parse(&header).unwrap(), &expectation) {
        Err(Error::Nonce) => Came::Refused,
        Err(error) => panic!("{error}"),
        Ok(fitting) if fitting.in_doubt => Came::InDoubt,
        Ok(fitting) => {
            let proof = fitting.proof.verify().unwrap();
            *seen.0.lock().unwrap() = case.then;
            match guard.take(&proof, "a", case.at) {
                Ok(()) => Came::Taken,
                Err(Untaken::TooOld) => Came::Untaken("too old"),
                Err(Untaken::InDoubt) => Came::Untaken("in doubt"),
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(
        came, *expected,
        "{:?}, {}, {:?}, {:?}, at {}",
        case.nonce, case.demanded, case.before, case.then, case.at
    );
}

const fn forgotten(until: i64, setbacks: u64) -> Doubt {
    Doubt {
        complete_since: None,
        forgotten_until: until,
        setbacks,
    }
}

const fn complete(since: i64) -> Doubt {
    Doubt {
        complete_since: Some(since),
        ..NONE
    }
}

#[test]
fn a_nonce_is_looked_at_where_it_is_demanded_or_a_proof_is_in_doubt() {
    let first = |demanded: bool, nonce: Nonce, before: Doubt, expected: Came| {
        let (then, at) = (before, NOW);
        let case = Case {
            demanded,
            nonce,
            then,
            at,
            before,
        };
        check(&case, &expected);
    };
    for nonce in [Nonce::None, Nonce::Ours, Nonce::Old, Nonce::Foreign] {
        // One that nobody asked for is ignored, whatever it is, and whatever else is in doubt.
        for before in [NONE, complete(NOW - MAX_FUTURE - 1), forgotten(END - 1, 1)] {
            first(false, nonce, before, Came::Taken);
        }
        let shows = nonce == Nonce::Ours;
        for before in [complete(NOW - MAX_FUTURE), complete(NOW), forgotten(END, 1)] {
            first(
                false,
                nonce,
                before,
                if shows { Came::Taken } else { Came::InDoubt },
            );
        }
        for before in [NONE, complete(NOW), forgotten(END, 1)] {
            first(
                true,
                nonce,
                before,
                if shows { Came::Taken } else { Came::Refused },
            );
        }
    }
}

#[test]
fn what_changed_since_the_claims_were_checked_counts() {
    let later = |demanded: bool, nonce: Nonce, then: Doubt, at: i64, expected: Came| {
        let case = Case {
            demanded,
            nonce,
            then,
            at,
            before: NONE,
        };
        check(&case, &expected);
    };
    for demanded in [false, true] {
        let nonce = if demanded { Nonce::Ours } else { Nonce::None };
        later(demanded, nonce, NONE, END, Came::Taken);
        later(demanded, nonce, NONE, END + 1, Came::Untaken("too old"));
        later(demanded, nonce, forgotten(END - 1, 1), NOW, Came::Taken);
        later(demanded, nonce, forgotten(END, 1), NOW, Came::Untaken("in doubt"));
    }
    // Without a setback a nonce is from after that.
    later(true, Nonce::Ours, forgotten(END, 0), NOW, Came::Taken);
    later(false, Nonce::Ours, forgotten(END, 0), NOW, Came::Taken);
    later(
        false,
        Nonce::None,
        forgotten(END, 0),
        NOW,
        Came::Untaken("in doubt"),
    );
}
