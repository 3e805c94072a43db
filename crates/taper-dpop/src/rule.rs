//! Rule numbers: the name that a check has in `spec/`, in the code that enforces it and in the
//! denial that it causes.

use std::fmt;

/// The number of one normative rule of `spec/`, such as `R-05`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(&'static str);

impl RuleId {
    /// Names a rule. Only the modules that list the rules of their crate call this.
    #[must_use]
    pub const fn new(number: &'static str) -> Self {
        Self(number)
    }

    /// The number as written in `spec/`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether the rule is satisfied: `ok`, unless a sabotage build switched this very rule off.
    ///
    /// Every normative check asks through this function, so that a test can prove of each rule
    /// that something notices its absence.
    #[must_use]
    #[inline]
    pub fn holds(self, ok: bool) -> bool {
        ok || self.is_switched_off()
    }

    #[cfg(not(feature = "sabotage"))]
    #[inline]
    const fn is_switched_off(self) -> bool {
        false
    }

    #[cfg(feature = "sabotage")]
    fn is_switched_off(self) -> bool {
        sabotage::switched_off(self)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Test builds only: which rule this process (`TAPER_SABOTAGE=R-13`) or thread leaves out.
#[cfg(feature = "sabotage")]
pub mod sabotage {
    use super::RuleId;
    use std::cell::RefCell;
    use std::sync::OnceLock;

    thread_local! {
        static HERE: RefCell<Option<String>> = const { RefCell::new(None) };
    }
    static PROCESS: OnceLock<Option<String>> = OnceLock::new();

    /// The rule (or other room) that the whole process leaves out.
    pub fn of_process() -> Option<&'static str> {
        PROCESS
            .get_or_init(|| std::env::var("TAPER_SABOTAGE").ok())
            .as_deref()
    }

    pub(super) fn switched_off(rule: RuleId) -> bool {
        of_process() == Some(rule.as_str()) || HERE.with_borrow(|here| here.as_deref() == Some(rule.as_str()))
    }

    /// Runs `f` with one rule left out on this thread.
    pub fn without<T>(rule: &str, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<String>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HERE.with_borrow_mut(|here| *here = self.0.take());
            }
        }
        let _restore = Restore(HERE.replace(Some(rule.to_owned())));
        f()
    }
}

/// The rules about a proof, `spec/presentation.md`.
pub mod r {
    use super::RuleId;

    /// A proof is one compact JWS of bounded size.
    pub const FORM: RuleId = RuleId::new("R-01");
    /// `typ` is `dpop+jwt`, and there is no `crit`.
    pub const TYP: RuleId = RuleId::new("R-02");
    /// `alg` is `EdDSA` or `ES256` and fits the key.
    pub const ALG: RuleId = RuleId::new("R-03");
    /// `jwk` is a public key of a supported kind, and only that.
    pub const JWK: RuleId = RuleId::new("R-04");
    /// `htm` is the request's method.
    pub const HTM: RuleId = RuleId::new("R-05");
    /// `htu` is the request's URI as the operator configured it.
    pub const HTU: RuleId = RuleId::new("R-06");
    /// `iat` lies within the acceptance window.
    pub const IAT: RuleId = RuleId::new("R-07");
    /// `jti` is present and of bounded size.
    pub const JTI: RuleId = RuleId::new("R-08");
    /// `ath` is the hash of the exact token text.
    pub const ATH: RuleId = RuleId::new("R-09");
    /// `nonce` is one of ours and fresh, where one is demanded.
    pub const NONCE: RuleId = RuleId::new("R-10");
    /// The signature verifies under `jwk`.
    pub const SIGNATURE: RuleId = RuleId::new("R-11");
    /// `content_digest` is the digest of the received body.
    pub const CONTENT_DIGEST: RuleId = RuleId::new("R-12");
    /// A (thumbprint, `jti`) is used once.
    pub const REPLAY: RuleId = RuleId::new("R-13");
    /// The proof's key is the last holder's.
    pub const HOLDER: RuleId = RuleId::new("R-14");
    /// A request carries one credential: `Authorization: DPoP` and one `DPoP` header.
    pub const CREDENTIAL: RuleId = RuleId::new("R-15");

    /// All of them, in the order of their numbers.
    pub const ALL: &[RuleId] = &[
        FORM,
        TYP,
        ALG,
        JWK,
        HTM,
        HTU,
        IAT,
        JTI,
        ATH,
        NONCE,
        SIGNATURE,
        CONTENT_DIGEST,
        REPLAY,
        HOLDER,
        CREDENTIAL,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_rule_about_a_proof_in_order() {
        let defined = include_str!("rule.rs")
            .matches("RuleId = RuleId::new(\"R-")
            .count();
        assert_eq!(r::ALL.len(), defined);
        for (n, rule) in r::ALL.iter().enumerate() {
            assert_eq!(rule.as_str(), format!("R-{:02}", n + 1));
        }
    }
}
