//! A capability together with the proof of its last holder.

use crate::{Error, VerifiedChain};
use std::sync::Arc;
use taper_dpop::VerifiedProof;
use taper_dpop::rule::r;

/// A verified chain and a verified proof by its last holder. There is no other way to make one:
///
/// ```compile_fail
/// use taper_capability::*;
/// fn forge(chain: std::sync::Arc<VerifiedChain>, proof: taper_dpop::VerifiedProof) -> VerifiedPresentation {
///     VerifiedPresentation { chain, proof }
/// }
/// ```
/// while this compiles:
/// ```
/// use taper_capability::*;
/// fn make(chain: std::sync::Arc<VerifiedChain>, proof: taper_dpop::VerifiedProof) -> Result<VerifiedPresentation, Error> {
///     VerifiedPresentation::new(chain, proof)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedPresentation {
    chain: Arc<VerifiedChain>,
    proof: VerifiedProof,
}

impl VerifiedPresentation {
    /// Joins the two: the proof's key must be the last holder's (R-14).
    ///
    /// # Errors
    /// [`Error::ProofKey`].
    pub fn new(chain: Arc<VerifiedChain>, proof: VerifiedProof) -> Result<Self, Error> {
        if !r::HOLDER.holds(proof.key() == chain.last_holder()) {
            return Err(Error::ProofKey);
        }
        Ok(Self { chain, proof })
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<VerifiedChain> {
        &self.chain
    }

    /// The proof.
    #[must_use]
    pub fn proof(&self) -> &VerifiedProof {
        &self.proof
    }
}
