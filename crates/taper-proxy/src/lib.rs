//! The verifying reverse proxy in front of MCP servers.
//!
//! ```text
//! head → Credentials → VerifiedPresentation → (body) Message → Access → Permit
//!      → journal → Permitted<Outbound> → Upstream → answer, filtered and leased
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`config`] | the file as it is written |
//! | `profile`, `template` | one server, checked: resources from arguments, what must be bound |
//! | `headers`, `message` | what arrives, read strictly |
//! | `issuers`, `feed` | root keys and revocations |
//! | `gate` | the judgement, in the order of RULES 9 |
//! | `permitted`, `upstream` | the only way out |
//! | `lists`, `sse`, `stream` | what comes back: filtered, and cut when the permit ends |
//! | `session` | who owns a session |
//! | `error`, [`rules`] | refusals in protocol words, by number (`spec/proxy.md`) |
//! | `service`, `proxy` | the HTTP service and the daemon |

mod body;
pub mod config;
mod error;
mod feed;
mod gate;
mod headers;
mod issuers;
mod lists;
mod message;
mod permitted;
mod profile;
mod proxy;
pub mod rules;
mod service;
mod session;
mod sse;
mod stream;
mod template;
#[cfg(test)]
mod tests;
mod upstream;

pub use config::Config;
pub use issuers::RootKeysError;
pub use permitted::Permitted;
pub use profile::ProfileError;
pub use proxy::{BoundProxy, OpenError, Proxy};
pub use template::TemplateError;
