//! Hold a key, obtain, narrow, delegate, sign and call.
//!
//! | module | purpose |
//! |---|---|
//! | [`holder`] | what signs for a holder: proofs and blocks, nothing else |
//! | [`keys`] | where a key is: the text form of `--key` |
//! | [`keyfile`] | the file that holds a private key |
//! | [`issuer`] | the issuer's metadata and keys, and the client that asks |
//! | [`wallet`] | a folder with a key and a capability, renewed for many processes |
//! | [`source`] | where the capability to present comes from |
//! | [`exchange`](mod@exchange) | a subject token in, a capability out (RFC 8693) |
//! | [`mcp`] | a client of one MCP server behind the proxy |
//! | [`bridge`] | the sidecar: signs for clients that cannot |
//! | [`revoke`](mod@revoke) | taking a capability back |
//! | [`inspect`] | showing a chain to people |
//!
//! Narrowing and delegating need no network and are `taper_capability`'s own.

pub mod bridge;
mod credential;
mod error;
pub mod exchange;
pub mod holder;
pub mod inspect;
pub mod issuer;
pub mod keyfile;
pub mod keys;
pub mod mcp;
#[cfg(feature = "middleware")]
pub mod middleware;
mod proven;
pub mod revoke;
#[cfg(feature = "rmcp")]
pub mod rmcp;
#[cfg(any(feature = "middleware", feature = "rmcp"))]
mod signer;
pub mod source;
pub mod wallet;

#[cfg(test)]
mod testing;

pub use credential::Credential;
pub use error::Error;
pub use exchange::{Exchanged, exchange};
pub use holder::{HolderKey, Step};
pub use issuer::{Client, Issuer};
pub use keys::KeySource;
pub use mcp::{Era, McpClient, Refusal};
pub use proven::fetcher_for;
#[cfg(any(feature = "middleware", feature = "rmcp"))]
pub use signer::Signer;
pub use source::{Fixed, Held, Source};
pub use wallet::Wallet;

/// Runs what waits for a disk off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::Request("the process is shutting down".to_owned())),
    }
}
