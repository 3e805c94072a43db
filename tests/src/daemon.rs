//! Issuer and proxy as two daemons, started from files that a test writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::{Running, taper_bin, taper_ok};

/// A free port, kept for this process as long as it lives: a server can listen on it, and it is given neither to
/// somebody else who asks for any port nor to a connection going out.
pub fn free_port() -> u16 {
    kept(0).expect("a free port")
}

/// Keeps one port, any for 0; `None` if it is taken.
///
/// What keeps it is a socket that is bound to it and does not listen. Servers bind with `SO_REUSEADDR`, so they get the
/// port beside it.
pub(crate) fn kept(port: u16) -> Option<u16> {
    static KEPT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    let address = SocketAddr::try_from(getsockname(&socket).ok()?).ok()?;
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    Some(address.port())
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Starts `taper issuer` or `taper proxy`, whichever `name` is, with the file `NAME.toml` in `dir`, after
/// `--check-config` said that it is valid.
#[track_caller]
pub fn start(dir: &Path, name: &str, config: &str, url: &str) -> Running {
    let file = format!("{name}.toml");
    std::fs::write(dir.join(&file), config).unwrap();
    taper_ok(dir, &[name, "--config", &file, "--check-config"]);
    let mut command = Command::new(taper_bin());
    Running::start_daemon(command.current_dir(dir).args([name, "--config", &file]), url)
}
