//! A small MCP server over real git repositories, for demonstrations and tests.
//!
//! It speaks both eras of the Model Context Protocol on one path, `/mcp`: *legacy* (2025-03-26 to
//! 2025-11-25: `initialize`, `Mcp-Session-Id`) and *modern* (2026-07-28: stateless,
//! `server/discover`, headers equal to the body). It is written by hand on `serde_json`, so that a
//! message arrives at the tools as it was sent. It has no authentication of its own: it is meant to
//! stand behind a proxy, on loopback.
//!
//! - [`router`] and [`serve`]: the HTTP transport
//! - [`serve_stdio`]: newline-delimited JSON-RPC, legacy era
//! - [`Calls`]: what reached the tools, for proving that a refused call did not
//! - [`sample_repositories`]: two small repositories to look at

mod calls;
mod git;
mod http;
mod protocol;
mod sample;
mod sessions;
mod stdio;
mod tools;

use std::path::PathBuf;

use rand_core::CryptoRngCore;

pub use calls::Calls;
pub use http::{MCP_PATH, router, serve};
pub use protocol::{LEGACY_VERSIONS, MODERN_VERSION};
pub use sample::{SampleError, sample_repositories};
pub use stdio::serve_stdio;

/// What one server needs to run. A clone shares the call counter.
#[derive(Clone)]
pub struct Config {
    /// The folder that holds the repositories, as `<owner>/<name>`.
    pub root: PathBuf,
    /// The name the server gives for itself in `serverInfo`.
    pub name: String,
    /// What reached the tools; keep a clone to look at it later.
    pub calls: Calls,
    session_key: [u8; 32],
}

impl Config {
    /// A server named `name` over the repositories under `root`. `rng` gives the key from which
    /// session ids are made, so that they neither repeat after a restart nor can be guessed.
    pub fn new(root: impl Into<PathBuf>, name: impl Into<String>, rng: &mut impl CryptoRngCore) -> Self {
        let mut session_key = [0; 32];
        rng.fill_bytes(&mut session_key);
        Self {
            root: root.into(),
            name: name.into(),
            calls: Calls::default(),
            session_key,
        }
    }
}
