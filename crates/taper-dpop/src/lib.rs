//! RFC 9449 proofs of possession and the one key type that everyone shares.
