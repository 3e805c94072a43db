//! The capability profile: issue, narrow, delegate, verify and present.
//!
//! A capability is a Biscuit token of a narrow profile (`spec/profile.md`, rules P-nn): block 0 is
//! a closed list of facts signed by a root key of the issuer; every later block is a third-party
//! block signed by the holder before it (`spec/delegation.md`, rules D-nn). The verifier is native
//! code over the decoded blocks and checks again whatever a builder promises.
//!
//! Pure: no IO, no clock, no ambient randomness; `now` (seconds since the Unix epoch) and `rng`
//! are arguments.
//!
//! ```text
//! text → UnverifiedToken → VerifiedChain ┐
//!                          VerifiedProof ┴→ VerifiedPresentation
//! ```

mod access;
mod admission;
mod block;
mod caveat;
mod caveat_check;
mod caveat_read;
mod chain;
mod datalog;
mod delegate;
mod effective;
mod error;
pub mod forgery;
mod functions;
mod grant;
mod issue;
pub mod json;
mod names;
mod presentation;
mod print;
mod reads;
pub mod rules;
mod satisfied;
mod terms;
mod token;
mod unverified;
mod verify;
pub mod vocabulary;

pub use access::{Access, AccessKind, ToolFacts, ToolHints};
pub use admission::AdmittedCheck;
pub use caveat::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};
pub use chain::{Counter, Link, LinkKind, VerifiedChain};
pub use delegate::{Delegation, Narrowing};
pub use effective::{
    Effective, EffectiveArgument, EffectiveCalls, EffectiveHours, EffectiveResource, EffectiveServer,
    EffectiveTools, Review,
};
pub use error::Error;
pub use grant::{Grant, Party, Right};
pub use issue::{RootKey, issue};
pub use names::{is_prompt, is_server, is_tool};
pub use presentation::VerifiedPresentation;
pub use print::{escaped, quoted};
pub use reads::{ArgumentFlow, ArgumentPath, ArgumentReads};
pub use token::{MAX_TOKEN_BYTES, Token};
pub use unverified::{UnverifiedLink, UnverifiedToken};
pub use verify::{Roots, Verifier};
