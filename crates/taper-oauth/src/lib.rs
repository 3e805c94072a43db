//! OAuth on the wire as types, and the checking of JWTs.
