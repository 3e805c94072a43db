//! Datalog policies: load and lint them, decide what an issuer grants and what passes a boundary.
//!
//! Pure: no IO and no clock. [`boundary::decide`] is the only maker of a [`boundary::Permit`].

pub mod boundary;
mod denial;
pub mod grant;
mod limits;
mod source;

pub use denial::{Denial, DenialKind};
pub use source::{PolicyError, PolicyErrors, PolicyFile};
