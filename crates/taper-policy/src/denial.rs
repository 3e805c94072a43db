//! Why an access was denied, for its two audiences.

use taper_capability::Caveat;
use taper_dpop::RuleId;

/// A denial. The caller may see rule, link, caveat and scopes; `reason` is the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that denied.
    pub rule: RuleId,
    /// What kind of denial it is: it decides the protocol's answer.
    pub kind: DenialKind,
    /// The link whose caveat denied.
    pub link: Option<usize>,
    /// That caveat, if it is one of ours.
    pub caveat: Option<Caveat>,
    /// Scopes that a wider grant could have, and that would change the answer.
    pub obtainable: Vec<String>,
    /// For the operator: the failed check or the policy's place. Never sent to the caller.
    pub reason: String,
}

/// The kinds of denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialKind {
    /// The capability has expired.
    Expired,
    /// The capability is for another audience.
    Audience,
    /// The grant has no such right; a wider one could.
    NoRight,
    /// A caveat of the chain refused.
    Caveat,
    /// The security team's policy refused.
    Policy,
    /// Evaluation ended with an error.
    Error,
}
