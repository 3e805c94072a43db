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
//! | `headers`, `message`, `methods` | what arrives, read strictly |
//! | `issuers`, `feed`, `followed` | root keys and revocations |
//! | `gate`, `decide` | the judgement, in the order of RULES 9; calls that are counted |
//! | `permitted`, `upstream` | the only way out |
//! | `tokens` | what an upstream wants from the proxy, from its own authorization server |
//! | `limits` | what callers may use up: rates, places, decisions without an end |
//! | `catalogue` | what a server says of its tools |
//! | `pins`, [`pin`] | what an operator approved of it |
//! | `before_login` | what is told without a token |
//! | `forward` | a permitted request on its way, and its answer on its way back |
//! | `sse`, `events`, `lists`, `stream` | what comes back: read event by event, filtered, and cut when the permit ends |
//! | `session`, `outstanding`, `unanswered`, `tasks` | who owns a session and a task, and what a server and its clients asked |
//! | `account`, `measured`, `traced` | what came of a request: one line of the log, numbers, spans |
//! | `refusal`, `error`, [`rules`] | refusals by number (`spec/proxy.md`), and in protocol words |
//! | `service`, `ready`, `proxy` | the HTTP service; the configuration, checked; the daemon |

mod account;
mod before_login;
mod body;
mod catalogue;
mod chains;
pub mod config;
mod decide;
mod error;
mod events;
mod feed;
mod followed;
mod forward;
mod gate;
mod handover;
mod headers;
mod issuers;
mod limits;
mod lists;
mod measured;
mod message;
mod methods;
mod outstanding;
mod permitted;
pub mod pin;
mod pins;
mod profile;
mod proxy;
mod ready;
mod refusal;
pub mod rules;
mod service;
mod session;
mod sse;
mod stream;
mod tasks;
mod template;
#[cfg(test)]
mod tests;
mod tokens;
mod traced;
mod unanswered;
mod upstream;

pub use config::Config;
pub use issuers::RootKeysError;
pub use permitted::Permitted;
pub use profile::ProfileError;
pub use proxy::{BoundProxy, Proxy};
pub use ready::OpenError;
pub use template::TemplateError;
