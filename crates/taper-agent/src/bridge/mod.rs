//! The sidecar: it holds the key and signs for clients of MCP that cannot (`spec/bridge.md`).
//!
//! | module | purpose |
//! |---|---|
//! | [`conversation`] | one client's own key and capability, handed over from the user's |
//! | `core` | one signed request: which answer is retried, handed on or explained; no IO in it |
//! | `channel` | sends what the core says |
//! | [`http`] | a reverse proxy of one URL, on loopback or a Unix socket |
//! | [`stdio`] | one message a line, for a client that starts the bridge |
//! | [`clients`] | the secrets by which a listener tells its clients apart |
//!
//! ```text
//! client ──stdio | HTTP──▶ bridge ──DPoP, a proof for each request──▶ proxy ──▶ server
//! ```

mod channel;
pub mod clients;
pub mod conversation;
mod core;
mod headers;
pub mod http;
pub mod stdio;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use taper_service::clock::SharedClock;

pub use self::channel::Channel;
pub use self::conversation::{Conversation, Terms};
pub use self::trouble::Trouble;
use crate::{Error, proven};

/// What one client may ask of a bridge, and how long it waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest message of a client, in bytes. Default 4 MiB.
    pub max_body: usize,
    /// How long a message of a client may take to arrive. Default 30 s.
    pub body_timeout: Duration,
    /// Requests of one client that are under way at once, streams among them. Default 64.
    pub max_running: usize,
    /// How long the proxy may take to begin an answer: longer than a proxy waits for its server. Default
    /// 330 s.
    pub answer_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 4 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            max_running: 64,
            answer_timeout: Duration::from_secs(330),
        }
    }
}

/// The server that a bridge is for.
#[derive(Clone, Debug)]
pub struct Target {
    url: String,
    path: String,
    fetcher: taper_service::fetch::Fetcher,
    clock: SharedClock,
    limits: Arc<Limits>,
}

impl Target {
    /// The MCP server at `url`, behind its proxy. Plain HTTP is accepted on loopback.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Fetch`].
    pub fn new(url: &str, clock: SharedClock, limits: Limits) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let parsed = url::Url::parse(url).map_err(|_| refused("it is not an absolute URL"))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refused("it has a query or a fragment"));
        }
        Ok(Self {
            url: url.to_owned(),
            path: parsed.path().to_owned(),
            fetcher: proven::fetcher_for(url)?,
            clock,
            limits: Arc::new(limits),
        })
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its path, which a listener has too.
    pub fn path(&self) -> &str {
        &self.path
    }
}
