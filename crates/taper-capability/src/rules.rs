//! The rules of `spec/profile.md` (P) and `spec/delegation.md` (D), and those of
//! `spec/presentation.md` (R) that concern a decision.

use taper_dpop::RuleId;

/// A token is base64url without padding, of bounded size, in one spelling.
pub const TEXT: RuleId = RuleId::new("P-01");
/// Its protobuf has no unknown field and no second spelling.
pub const PROTOBUF: RuleId = RuleId::new("P-02");
/// `rootKeyId` is present and names a configured root key.
pub const ROOT: RuleId = RuleId::new("P-03");
/// Every Biscuit signature verifies.
pub const SIGNATURES: RuleId = RuleId::new("P-04");
/// Block 0 is the closed list of facts, each with its types and number of times.
pub const AUTHORITY_FACTS: RuleId = RuleId::new("P-05");
/// The profile version is `taper(1)`.
pub const VERSION: RuleId = RuleId::new("P-06");
/// No block has rules, scopes, a context or public keys.
pub const NO_RULES: RuleId = RuleId::new("P-07");
/// Block versions are those that the standard libraries write, and a block decodes under its own.
pub const BLOCK_VERSION: RuleId = RuleId::new("P-08");
/// `issuer(uri)` is the issuer of the root key that verified.
pub const ISSUER: RuleId = RuleId::new("P-09");
/// Each block has exactly one expiry check.
pub const EXPIRY: RuleId = RuleId::new("P-10");
/// Server ids, tool names and prompt names are of their alphabets.
pub const NAMES: RuleId = RuleId::new("P-11");
/// A holder key is of one of two kinds, in one spelling, and not weak.
pub const HOLDER_KEY: RuleId = RuleId::new("P-12");
/// A root key grants rights only for the servers it is trusted for.
pub const ROOT_SERVERS: RuleId = RuleId::new("P-13");
/// Every next key is Ed25519.
pub const NEXT_KEY: RuleId = RuleId::new("P-14");
/// The capability has not expired.
pub const NOT_EXPIRED: RuleId = RuleId::new("P-15");
/// Every other check is one query of one or two words of the vocabulary.
pub const SHAPE: RuleId = RuleId::new("P-16");
/// Its operators are of the admitted list.
pub const OPERATORS: RuleId = RuleId::new("P-17");
/// Its literals are bounded.
pub const LITERALS: RuleId = RuleId::new("P-18");
/// It has no expressions over a join that may be large.
pub const JOINS: RuleId = RuleId::new("P-19");
/// It calls known extern functions with literals that they take.
pub const EXTERNS: RuleId = RuleId::new("P-20");
/// Blocks, facts, checks, symbols, operations and extern calls are bounded in number.
pub const COUNTS: RuleId = RuleId::new("P-21");
/// Each fact of block 0 stands there as often as it should.
pub const AUTHORITY_COUNTS: RuleId = RuleId::new("P-22");

/// Every later block is a third-party block of the current signature form.
pub const THIRD_PARTY: RuleId = RuleId::new("D-01");
/// Every later block is signed by the holder before it.
pub const SIGNER: RuleId = RuleId::new("D-02");
/// Every later block names exactly one holder.
pub const ONE_HOLDER: RuleId = RuleId::new("D-03");
/// A later block has no facts but `holder`, `note` and `max_depth`.
pub const LATER_FACTS: RuleId = RuleId::new("D-04");
/// The number of hand-overs is at most the smallest `max_depth` of the chain.
pub const DEPTH: RuleId = RuleId::new("D-05");
/// A later block has at most one `note` and one `max_depth`.
pub const LATER_COUNTS: RuleId = RuleId::new("D-06");

/// The presented audience is one that block 0 names.
pub const AUDIENCE: RuleId = RuleId::new("R-20");
/// Block 0 grants the right that the access needs.
pub const RIGHT: RuleId = RuleId::new("R-21");
/// Every check of the chain passes.
pub const CHECKS: RuleId = RuleId::new("R-22");
/// No `deny` and no failing check of any policy file applies.
pub const POLICY_DENY: RuleId = RuleId::new("R-23");
/// An `allow` of a policy file applies.
pub const POLICY_ALLOW: RuleId = RuleId::new("R-24");
/// Evaluation ends without an error.
pub const EVALUATION: RuleId = RuleId::new("R-25");
/// Evaluation ends within its limits (else the outcome is indeterminate).
pub const LIMITS: RuleId = RuleId::new("R-26");
/// The request's JSON is strict, and its arguments fit their bounds.
pub const JSON: RuleId = RuleId::new("R-27");

/// All of them, by page and in the order of their numbers.
pub const ALL: &[RuleId] = &[
    TEXT,
    PROTOBUF,
    ROOT,
    SIGNATURES,
    AUTHORITY_FACTS,
    VERSION,
    NO_RULES,
    BLOCK_VERSION,
    ISSUER,
    EXPIRY,
    NAMES,
    HOLDER_KEY,
    ROOT_SERVERS,
    NEXT_KEY,
    NOT_EXPIRED,
    SHAPE,
    OPERATORS,
    LITERALS,
    JOINS,
    EXTERNS,
    COUNTS,
    AUTHORITY_COUNTS,
    THIRD_PARTY,
    SIGNER,
    ONE_HOLDER,
    LATER_FACTS,
    DEPTH,
    LATER_COUNTS,
    AUDIENCE,
    RIGHT,
    CHECKS,
    POLICY_DENY,
    POLICY_ALLOW,
    EVALUATION,
    LIMITS,
    JSON,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_rule_of_this_page() {
        let defined = include_str!("rules.rs")
            .matches(": RuleId = RuleId::new(\"")
            .count();
        assert_eq!(ALL.len(), defined);
        let mut distinct = ALL.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ALL.len());
    }
}
