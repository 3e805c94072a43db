//! Hold a key, obtain, narrow, delegate, sign and call.
//!
//! | module | purpose |
//! |---|---|
//! | [`holder`] | what signs for a holder: proofs and blocks, nothing else |
//! | [`keys`] | where a key is: the text form of `--key` |
//! | [`agent_socket`] | a process that holds keys, and its socket |
//! | [`keyfile`] | the file that holds a private key |
//! | [`keyring`] | feature `keyring`: a private key in the keyring of the operating system |
//! | [`issuer`] | the issuer's metadata and keys, and the client that asks |
//! | [`wallet`] | a folder with a key and a capability, renewed for many processes |
//! | [`source`] | where the capability to present comes from |
//! | [`exchange`](mod@exchange) | a subject token in, a capability out (RFC 8693) |
//! | [`mcp`] | a client of one MCP server behind the proxy |
//! | [`bridge`] | the sidecar: signs for clients that cannot |
//! | [`revoke`](mod@revoke) | taking a capability back |
//! | [`doctor`] | what is wrong between an agent, its issuer and a proxy |
//! | [`inspect`] | showing a chain to people |
//! | [`login`] | an access token to start from, with a browser (OAuth 2.1, DPoP) |
//! | `middleware` | feature `middleware`: signs the requests of `reqwest-middleware` |
//! | `rmcp` | feature `rmcp`: signs the requests of rmcp's client |
//!
//! # Hold
//!
//! An agent makes its own key and never hands it out; others get the public half. Where the key is says
//! [`KeySource`], in the words of `--key`.
//!
//! ```
//! use taper_agent::{KeySource, keyfile};
//! use taper_dpop::{Algorithm, PrivateKey};
//! use taper_service::rng;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("agent.jwk");
//! keyfile::create(&path, &PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()))?;
//! let key = KeySource::File(path).open().await?;
//! println!("hand me something: {}", serde_json::to_string(&key.public().to_jwk())?);
//! # Ok(())
//! # }
//! ```
//!
//! # Obtain
//!
//! A user's access token goes in, a capability comes out that only this key can use. A [`Wallet`] does it
//! again in time, for any number of processes.
//!
//! ```
//! # use taper_agent::HolderKey;
//! # mod testing { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing.rs")); }
//! use taper_agent::{Client, Exchanged, Issuer, exchange};
//! use taper_capability::UnverifiedToken;
//! use taper_dpop::{Algorithm, PrivateKey};
//! use taper_oauth::{ExchangeRequest, Secret, TokenType};
//! use taper_service::rng;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let clock = testing::clock();
//! # let server = testing::Server::issuer(clock.clone()).await;
//! # let (issuer, access_token) = (server.url.as_str(), "an access token");
//! let key = HolderKey::from(PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()));
//! let mut request = ExchangeRequest::new(Secret::new(access_token), TokenType::AccessToken);
//! request.scope = vec!["git:*".parse()?];
//! let client = Client { id: "dev".to_owned(), secret: None };
//! let issuer = Issuer::discover(issuer).await?;
//! let Exchanged { token, .. } = exchange(&issuer, &client, request, &key, clock.as_ref()).await?;
//! assert_eq!(UnverifiedToken::decode(token.as_str())?.last_holder(), key.public());
//! # Ok(())
//! # }
//! ```
//!
//! # Narrow and delegate
//!
//! Both add one link to the chain and need no network. A narrowing stays with its holder; a hand-over is
//! for another key, of which only the public half is needed, and always has an end.
//!
//! ```
//! # use taper_agent::HolderKey;
//! # mod testing { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing.rs")); }
//! use taper_agent::Step;
//! use taper_capability::{Caveat, ResourceMatch, UnverifiedToken};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let chain = testing::Chain::new();
//! # let (token, key, now) = (&chain.token, chain.holder(), testing::NOW);
//! # let researcher = testing::Chain::new().holder();
//! let only_log = Caveat::Tool {
//!     server: "git".to_owned(),
//!     tools: vec!["git_log".to_owned()],
//! };
//! let narrower = key.append(token, &Step::narrow().only(only_log)).await?;
//!
//! let only_web = Caveat::Resource {
//!     kind: "repo".to_owned(),
//!     matches: ResourceMatch::OneOf(vec!["acme/web".to_owned()]),
//! };
//! let ten_minutes = now + 600;
//! let step = Step::hand_over(researcher.public().clone(), ten_minutes)
//!     .only(only_web)
//!     .note("for the review");
//! let handed_on = key.append(&narrower, &step).await?;
//!
//! let chain = UnverifiedToken::decode(handed_on.as_str())?;
//! assert_eq!(chain.last_holder(), researcher.public());
//! assert_eq!((chain.links().len(), chain.depth(), chain.expires_at()), (3, 1, ten_minutes));
//! # Ok(())
//! # }
//! ```
//!
//! # Call
//!
//! A [`Credential`] is a capability with its key. Each request is signed, over the bytes that it has. When
//! the proxy refuses, the error says which rule of which link did.
//!
//! ```
//! # use taper_agent::HolderKey;
//! # mod testing { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing.rs")); }
//! use serde_json::{Map, json};
//! use taper_agent::{Credential, Era, Error, McpClient};
//!
//! # use axum::response::IntoResponse as _;
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let chain = testing::Chain::new();
//! # let (token, key, clock) = (&chain.token, chain.holder(), testing::clock());
//! # let server = testing::Server::start().await;
//! # let url = format!("{}/git/mcp", server.url);
//! # server.will_answer(axum::Json(json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "commit"}]}})));
//! # server.will_answer((http::StatusCode::FORBIDDEN, axum::Json(json!({"jsonrpc": "2.0", "id": 2,
//! #     "error": {"code": 4403, "message": "no", "data": {"rule": "R-22", "link": 1}}}))));
//! let mut server = McpClient::new(&url, Credential::new(token, key)?, Era::Modern, clock)?;
//! let arguments = |repository: &str| Map::from_iter([("repo_path".to_owned(), json!(repository))]);
//! let result = server.call("git_log", arguments("acme/web")).await?;
//! assert_eq!(result["content"][0]["text"], "commit");
//!
//! let Err(Error::Refused(refusal)) = server.call("git_log", arguments("acme/payroll")).await else {
//!     panic!("it was allowed");
//! };
//! assert_eq!((refusal.status, refusal.code), (403, Some(4403)));
//! assert_eq!(refusal.data.and_then(|data| data.rule).as_deref(), Some("R-22"));
//! # Ok(())
//! # }
//! ```
//!
//! Agents that have a client already let the features `middleware` and `rmcp` sign for it; the two modules
//! say how. `examples/team.rs` is a whole program.

#[cfg(unix)]
pub mod agent_socket;
pub mod bridge;
mod credential;
pub mod doctor;
mod error;
pub mod exchange;
mod folder;
pub mod holder;
pub mod inspect;
pub mod issuer;
pub mod keyfile;
pub mod keyring;
pub mod keys;
pub mod login;
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
mod sse;
pub mod wallet;

#[cfg(test)]
mod testing;

#[cfg(unix)]
pub use agent_socket::AgentSocket;
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
