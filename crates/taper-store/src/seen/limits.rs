//! How many proofs are remembered.

use serde::{Deserialize, Deserializer};

/// How much is remembered: the table `[seen_proofs]` of a configuration file. A proof is kept for 370 s from its `iat`
/// on, so N a second need room for 370 N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeenLimits {
    /// Live proofs altogether, from 1,000 to 10,000,000; beyond that an error. Each takes about 230 bytes of memory.
    /// Default 1,000,000: 2,700 a second.
    #[serde(deserialize_with = "total")]
    pub total: usize,
    /// Live proofs of one grant, or of whoever else bears them, from 100 to 10,000,000; beyond that [`crate::Seen::Quota`].
    /// Default 50,000: 135 a second.
    #[serde(deserialize_with = "per_grant")]
    pub per_grant: usize,
}

impl Default for SeenLimits {
    fn default() -> Self {
        Self {
            total: 1_000_000,
            per_grant: 50_000,
        }
    }
}

const MOST: usize = 10_000_000;

fn total<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    between(1_000, from)
}

fn per_grant<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    between(100, from)
}

fn between<'de, D: Deserializer<'de>>(least: usize, from: D) -> Result<usize, D::Error> {
    let given = usize::deserialize(from)?;
    if (least..=MOST).contains(&given) {
        return Ok(given);
    }
    let reason = format!("{given} is not from {least} to {MOST}");
    Err(serde::de::Error::custom(reason))
}
