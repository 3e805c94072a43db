//! Issuer and proxy as two daemons, started from files that a test writes.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::{Running, taper_bin, taper_ok};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
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
