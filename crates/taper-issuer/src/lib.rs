//! The authorization server: exchanges OAuth tokens for capabilities (RFC 8693), revokes them (RFC 7009),
//! publishes its keys, its metadata (RFC 8414) and the feed of revocations.
//!
//! ```text
//! Config → Issuer::open (keys, policies, state) → bind (ports) → serve (until the shutdown)
//! ```
//!
//! One request goes form → client → proof → subject token → replay table → pure decision → capability →
//! journal → answer; the numbered rules (X-nn) are those of `spec/exchange.md`.

mod admin;
mod clients;
pub mod config;
mod configured;
mod discovery;
mod error;
mod exchange;
mod feed;
mod http;
mod introspect;
mod issuer;
mod keys;
mod metrics;
mod proof;
mod renew;
mod revoke;
pub mod rules;
mod state;
#[cfg(test)]
mod tests;
mod token;
mod trust;

pub use config::Config;
pub use error::OpenError;
pub use issuer::{BindError, BoundIssuer, Issuer, check};
pub use keys::generate_root_key;
