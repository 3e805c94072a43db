//! The rules of the exchange and of the endpoints around it: `spec/exchange.md`.

use taper_dpop::RuleId;

/// A request is one form (or one JSON object, for admins) of bounded size and of its declared type.
pub const FORM: RuleId = RuleId::new("X-01");
/// A client is configured and authenticates by its own method; secrets compare in constant time.
pub const CLIENT: RuleId = RuleId::new("X-02");
/// A request carries exactly one proof, for this endpoint's configured URL.
pub const PROOF: RuleId = RuleId::new("X-03");
/// A nonce of this node is demanded where configured, and while earlier proofs may be forgotten.
pub const NONCE: RuleId = RuleId::new("X-04");
/// A proof is used once; a subject, or a holder of a grant, has a bounded number of live ones.
pub const REPLAY: RuleId = RuleId::new("X-05");
/// A subject or actor token comes from a configured issuer and verifies under a key of its key set.
pub const TOKEN: RuleId = RuleId::new("X-06");
/// `act` and `may_act` bind: no actor is dropped, and none acts that was not named.
pub const PROVENANCE: RuleId = RuleId::new("X-07");
/// A chain of actors that a capability cannot carry is refused.
pub const ONE_ACTOR: RuleId = RuleId::new("X-08");
/// A token that is bound to a key needs a proof by that key with this token's `ath`.
pub const BOUND_TOKEN: RuleId = RuleId::new("X-09");
/// A revoked client, subject or key gets nothing.
pub const REVOKED: RuleId = RuleId::new("X-10");
/// What comes back is a capability, whatever else is asked for.
pub const TOKEN_TYPE: RuleId = RuleId::new("X-11");
/// A capability is not exchanged for another one; it is renewed as it is, and nothing else is asked for then.
pub const NO_CAPABILITY: RuleId = RuleId::new("X-12");
/// Something is asked for.
pub const ASKED: RuleId = RuleId::new("X-13");
/// Every server and target that is asked for is configured.
pub const TARGET: RuleId = RuleId::new("X-14");
/// Restrictions by resource hold for everything that is asked for in one request.
pub const RESOURCES: RuleId = RuleId::new("X-15");
/// A policy grants it, and no policy denies it.
pub const POLICY: RuleId = RuleId::new("X-16");
/// Nothing is granted that was not asked for.
pub const NOT_WIDER: RuleId = RuleId::new("X-17");
/// A capability ends with its subject token, its `until` and the configured maximum, whichever is first;
/// only a policy's `renew_until` replaces the subject token's end.
pub const EXPIRY: RuleId = RuleId::new("X-18");
/// A grant is on the disk before its capability goes out.
pub const JOURNALED: RuleId = RuleId::new("X-19");
/// A capability alone revokes with a proof by its last holder, over the capability.
pub const REVOKE_PROOF: RuleId = RuleId::new("X-20");
/// A client revokes its own grants only.
pub const REVOKE_OWN: RuleId = RuleId::new("X-21");
/// A capability alone revokes its grant only if it was not handed over.
pub const REVOKE_UNDELEGATED: RuleId = RuleId::new("X-22");
/// The feed and introspection answer only confidential clients that may use them.
pub const PRIVILEGE: RuleId = RuleId::new("X-23");
/// The admin interface answers only with the admin token.
pub const ADMIN: RuleId = RuleId::new("X-24");
/// What is meant for development is refused unless the configuration says `development = true`.
pub const DEVELOPMENT: RuleId = RuleId::new("X-25");
/// Work beyond the bounded queue is refused, to be tried again.
pub const LOAD: RuleId = RuleId::new("X-26");
/// What is granted fits into one capability.
pub const FITS: RuleId = RuleId::new("X-27");
/// A request to revoke says one thing: it has the parameters of one form and no others.
pub const REVOKE_FORM: RuleId = RuleId::new("X-28");
/// Other than for a capability alone, the proof of a revocation is bound to the body.
pub const REVOKE_BODY: RuleId = RuleId::new("X-29");
/// A key takes back what it hands on itself, in a grant of which it is a holder, or a branch that it signed.
pub const REVOKE_SIGNER: RuleId = RuleId::new("X-30");
/// A key revokes itself and no other key.
pub const REVOKE_SELF: RuleId = RuleId::new("X-31");
/// A key that revokes itself was granted something, or is a holder of a shown capability whose grant is alive.
pub const REVOKE_KNOWN: RuleId = RuleId::new("X-32");
/// Without a proof only a client that authenticated with its secret revokes.
pub const REVOKE_SECRET: RuleId = RuleId::new("X-33");
/// A client shows of which of its grants a branch is.
pub const REVOKE_SHOWN: RuleId = RuleId::new("X-34");
/// What the holders of a grant and its client revoke below it is kept up to a number.
pub const REVOKE_COUNT: RuleId = RuleId::new("X-35");
/// A URI that is asked for is canonical, as the proxy compares URIs.
pub const URI: RuleId = RuleId::new("X-36");
/// Only a capability that was neither handed on nor narrowed is renewed, for its client and by its holder.
pub const RENEW_OWN: RuleId = RuleId::new("X-37");
/// A revoked grant is not renewed.
pub const RENEW_REVOKED: RuleId = RuleId::new("X-38");
/// A renewal is of a live capability, under the policy that granted it and for what is still configured; it
/// keeps what was granted and ends with the grant.
pub const RENEW_WITHIN: RuleId = RuleId::new("X-39");
