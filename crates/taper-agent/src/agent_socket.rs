//! A process that holds keys, and its socket, so that others sign without reading a key.
//!
//! One line of JSON asks, one line answers ([`wire`]). There are proofs and blocks, never bytes to sign; the
//! time and the id of a proof are the agent's own; hand-overs are signed only by keys that were added for
//! it (RULES 31). The socket is 0600 in a folder that is 0700, and both ends look at the other's user id.
//! See `spec/keys.md`.

mod client;
mod ring;
mod server;
pub mod wire;

use std::time::Duration;

pub use self::client::AgentSocket;
pub use self::ring::{Added, KeyRing};
pub use self::server::{Listening, listen};

/// The environment variable with the path of the socket.
pub const SOCKET_VARIABLE: &str = "TAPER_AGENT_SOCK";
/// How long one answer may take, and how long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many connections are served at once; more wait.
const MAX_CONNECTIONS: usize = 64;

/// Keeps other processes of the user from reading the memory of this one, and its core from the disk.
///
/// # Errors
/// What the operating system says.
pub fn hide_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Whether the process at the other end is this user's.
fn is_own(stream: &tokio::net::UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests;
