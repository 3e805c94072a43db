//! What `--out` replaces, and what it leaves alone.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use taper_tests::Up;

use super::{BOTH, decoded, obtain};

#[test]
fn a_capability_replaces_a_file_and_nothing_else() {
    let up = Up::start();
    let dir = up.dir();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let narrow = |out: &str| {
            let how = ["narrow", &cap, "--key", &key, "--roots", "roots.json"];
            agent.run(dir, &[&how[..], &["--for", "5m", "--out", out]].concat())
        };

        // Whoever could read the old file cannot read the new one.
        let old = dir.join("old.cap");
        std::fs::write(&old, "before").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o666)).unwrap();
        assert!(narrow("old.cap").status.success());
        assert_eq!(old.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(decoded(dir, "old.cap").links().len(), 2);

        std::fs::write(dir.join("target"), "before").unwrap();
        symlink("target", dir.join("link")).unwrap();
        let before = std::fs::read(dir.join(&key)).unwrap();
        for out in [&key, "link", "up", "none/new.cap"] {
            agent.fails(&narrow(out), 1);
        }
        let issuer = up.issuer();
        agent.fails(&agent.run(dir, &["roots", "--issuer", &issuer, "--out", &key]), 1);
        assert_eq!(std::fs::read(dir.join(&key)).unwrap(), before);
        assert_eq!(std::fs::read(dir.join("target")).unwrap(), b"before");
        std::fs::remove_file(dir.join("link")).unwrap();

        // No temporary file stays.
        let left = std::fs::read_dir(dir).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().contains(".cap.")
        });
        assert_eq!(left.count(), 0);
    }
}
