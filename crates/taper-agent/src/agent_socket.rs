//! A process that holds keys, and its socket, so that others sign without reading a key.
//!
//! One line of JSON asks, one line answers ([`wire`]). There are proofs and blocks, never bytes to sign; the
//! time and the id of a proof are the agent's own; hand-overs are signed only by keys that were added for
//! it (RULES 31). The socket is 0600 in a folder that is 0700, and both ends look at the other's user id.
//! See `spec/keys.md`.

mod client;
mod places;
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
/// How many connections are served at once: beyond it the longest idle one ends.
const MAX_CONNECTIONS: usize = 64;
/// How many of them one process may have.
const MAX_OF_ONE: usize = 16;
/// How many lines one connection may say, and how many of them may be nonsense.
const MAX_LINES: usize = 4_096;
const MAX_NONSENSE: usize = 3;

/// Keeps other processes of the user from reading the memory of this one, and its core from the disk.
///
/// # Errors
/// What the operating system says.
pub fn hide_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// A signal that an agent passes on to the command that it runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// SIGINT.
    Interrupt,
    /// SIGHUP.
    HangUp,
    /// SIGTERM.
    Terminate,
}

impl Passed {
    /// Sends it to the process `id`, a child that was not waited for.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn send_to(self, id: u32) -> std::io::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = match self {
            Self::Interrupt => Signal::INT,
            Self::HangUp => Signal::HUP,
            Self::Terminate => Signal::TERM,
        };
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.ok_or(std::io::ErrorKind::InvalidInput)?, signal)?)
    }
}

/// Whether the process at the other end is this user's.
fn is_own(stream: &tokio::net::UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests;
