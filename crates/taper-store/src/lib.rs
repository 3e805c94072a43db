//! Keep grants, revocations, seen proofs and the audit journal.
