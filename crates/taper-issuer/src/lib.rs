//! The authorization server: token exchange, metadata, revocation, admin API.
