//! A disk that runs full: a small file system of its own, in a mount namespace of its own.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use rand_core::{OsRng, RngCore as _};
use taper_store::verify_dir;

use crate::children::{Running, Work};
use crate::writes::{Kind, Written, counted_by};
use crate::{attempt, can, open, rounds, runtime, tell};

/// The folder on the small disk, for the half of the test that runs there.
const DISK: &str = "TAPER_STORE_TEST_DISK";
/// Bytes of the small disk.
const SIZE: u64 = 24 * 1024 * 1024;

#[test]
fn what_was_acknowledged_survives_a_full_disk() {
    // Without root, a user namespace gives the right to mount within it.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let unshare = if is_root { "-m" } else { "-rm" };
    if !can(
        "mount",
        &["unshare", unshare, "mount", "-t", "tmpfs", "small", "/mnt"],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!(r#"mount -t tmpfs -o size={SIZE} small "${DISK}" && exec "$0" "$@""#);
    let inside = Command::new("unshare")
        .args([unshare, "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::on_the_small_disk", "--nocapture"])
        .env(DISK, folder.path())
        .status();
    assert!(inside.unwrap().success());
}

/// The half that runs on the small disk; without the environment variable it does nothing.
#[test]
fn on_the_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else {
        return;
    };
    let disk = Path::new(&disk);
    let (dir, ballast) = (disk.join("store"), disk.join("ballast"));
    let mut acknowledged = HashMap::new();
    let mut refused_to_open = 0;
    let rounds = rounds(4, 30);
    for round in 0..rounds {
        let mut child = Running::start(&dir, Work::UntilItFails, None);
        let (mut failed, mut notices) = (None, false);
        while let Some(line) = child.line() {
            if let Some(error) = line.strip_prefix("failed ") {
                failed = Some(error.to_owned());
            } else if let Some((id, number)) = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' ')) {
                assert!(
                    failed.is_none() || Kind::of(id) == Some(Kind::Proof),
                    "`{id}` was acknowledged after {failed:?}"
                );
                acknowledged.insert(id.to_owned(), number.parse().unwrap());
            }
            if line == "open" {
                // Room for a while, so that the end comes at another place each time.
                fill(disk, &ballast, u64::from(OsRng.next_u32() % (512 * 1024)));
            }
            if let Some(check) = line.strip_prefix("check ") {
                notices = check.contains("No space left");
            }
        }
        assert!(child.wait(), "round {round}");
        assert!(
            failed.is_some() && notices,
            "{failed:?}, and the store does not say why"
        );

        // While there is no room a store may refuse to open; it loses nothing by that.
        refused_to_open += u32::from(attempt(&dir, 4096).is_err());

        fs::remove_file(&ballast).unwrap();
        let store = open(&dir);
        let report = verify_dir(&dir).unwrap();
        assert!(report.is_ok(), "round {round}: {report:?}");
        let written = Written::read(&dir);
        assert_eq!(counted_by(&store), written.counted().len() as u64);
        runtime().block_on(async {
            for (id, number) in &acknowledged {
                let kind = Kind::of(id).unwrap();
                let there = kind == Kind::Proof || written.has(id, *number);
                assert!(there, "round {round}: `{id}` was acknowledged and is lost");
                assert!(kind.is_in_state(&store, id).await, "round {round}: `{id}`");
            }
            for kind in Kind::ALL {
                let id = format!("{}-again-{round}", kind.name());
                acknowledged.insert(id.clone(), kind.write(&store, &id).await.unwrap());
            }
            store.close().await.unwrap();
        });
    }
    tell(&format!(
        "full disk: {rounds} rounds, {} acknowledged, 0 lost; refused to open while full: {refused_to_open}",
        acknowledged.len()
    ));
}

/// Leaves about `room` bytes on the disk, to which somebody is writing.
fn fill(disk: &Path, ballast: &Path, room: u64) {
    let blocks = |file| fs::metadata(file).map_or(0, |file| file.blocks());
    let used: u64 = files(disk).iter().map(|file| blocks(file) * 512).sum();
    let mut ballast = fs::File::create(ballast).unwrap();
    for _ in 0..(SIZE - used).saturating_sub(room) / 4096 {
        if ballast.write_all(&[1; 4096]).is_err() {
            break;
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
