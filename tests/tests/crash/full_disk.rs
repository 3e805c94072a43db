//! Issuer and proxy on a disk that runs full: a small file system of its own, in a mount namespace of
//! its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use rand_core::{OsRng, RngCore as _};
use taper_tests::{Answer, rounds, tell};

use crate::kills::refused;
use crate::world::{Capability, Daemon, World, grant, name};

/// The folder on the small disk, for the half of the test that runs there.
const DISK: &str = "TAPER_CRASH_TEST_DISK";
/// Bytes of the small disk.
const SIZE: u64 = 48 * 1024 * 1024;
/// Bytes that a file takes at least.
const PAGE: u64 = 4096;
/// How often each thing is tried again when there is no room any more.
const AGAIN: usize = 10;

#[test]
fn a_full_disk_denies_and_forgets_nothing() {
    // Without root, a user namespace gives the right to mount within it.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let unshare = if is_root { "-m" } else { "-rm" };
    let probe = Command::new("unshare")
        .args([unshare, "mount", "-t", "tmpfs", "small", "/mnt"])
        .output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        let listed = std::env::var("TAPER_NOT_RUN").unwrap_or_default();
        assert!(
            listed.split_whitespace().any(|word| word == "mount"),
            "a small disk cannot be mounted here: {probe:?}\nTAPER_NOT_RUN=mount leaves this test out"
        );
        tell("NOT RUN: mount, as TAPER_NOT_RUN says");
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

/// What was acknowledged.
#[derive(Default)]
struct Told {
    revoked: Vec<Capability>,
    calls: u64,
}

/// The half that runs on the small disk; without the environment variable it does nothing.
#[test]
fn on_the_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else {
        return;
    };
    let disk = Path::new(&disk);
    let ballast = disk.join("ballast");
    let world = World::new(&disk.join("states"));
    let mut told = Told::default();
    let rounds = rounds(2, 30);
    let mut live = None;
    for round in 0..rounds {
        let issuer = world.start(Daemon::Issuer);
        let proxy = world.start(Daemon::Proxy);
        let live = live.get_or_insert_with(|| world.capability()).clone();
        refused(&world, &told.revoked);
        let passes = world.call(&live).unwrap();
        assert_eq!(passes.status, 200, "round {round}: {passes:?}");
        told.calls += 1;

        fill(disk, &ballast, u64::from(OsRng.next_u32() % (256 * 1024)));
        if round % 2 == 0 {
            call_until_the_journal_is_full(&world, &live, &mut told, &ballast);
            revoke_until_it_is_full(&world, &mut told);
        } else {
            revoke_until_it_is_full(&world, &mut told);
            call_until_it_is_full(&world, &live, &mut told);
        }
        let seen = world.upstream.count();
        for _ in 0..AGAIN {
            undecided(&world.call(&live).unwrap());
            assert_eq!(world.try_capability().unwrap_err().status, 503);
            assert_eq!(world.revoke_as_admin(&live), None);
            assert!(!world.revoke_as_client(&live));
        }
        assert_eq!(world.upstream.count(), seen, "nothing was forwarded");
        for which in [Daemon::Issuer, Daemon::Proxy] {
            assert!(!world.is_ready(which), "{which:?} has no room and is ready");
        }
        for daemon in [issuer, proxy] {
            let log = daemon.crash();
            assert!(!log.contains("panicked"), "{log}");
        }
        fs::remove_file(&ballast).unwrap();
        world.verify(Daemon::Issuer);
        world.verify(Daemon::Proxy);
    }
    let issuer = world.start(Daemon::Issuer);
    let proxy = world.start(Daemon::Proxy);
    refused(&world, &told.revoked);
    let live = live.unwrap();
    let honest = world.call(&live).unwrap();
    assert_eq!(honest.status, 200, "the honest twin: {honest:?}");
    told.calls += 1;
    let feed = world.feed();
    for capability in &told.revoked {
        assert!(
            feed.values().any(|what| *what == name(&grant(capability))),
            "{capability:?}"
        );
    }
    assert!(issuer.stop() && proxy.stop());
    let journaled = world.allowed().get(&live.grant).copied().unwrap_or(0);
    assert!(
        journaled >= told.calls,
        "{} calls, {journaled} in the journal",
        told.calls
    );
    tell(&format!(
        "full disk under the daemons: {rounds} rounds, {} revocations and {} calls acknowledged, 0 lost",
        told.revoked.len(),
        told.calls
    ));
}

/// Calls until one is refused; why it is.
fn call_until_it_is_full(world: &World, live: &Capability, told: &mut Told) -> String {
    loop {
        let answer = world.call(live).unwrap();
        match answer.status {
            200 => told.calls += 1,
            // In doubt about the feed, the proxy cuts what it was answering (M-33).
            0 => {}
            _ => return undecided(&answer),
        }
    }
}

/// Calls until the proxy cannot journal any more. Other files can be the first that find no room; they
/// get a page of the ballast, and are whole again.
fn call_until_the_journal_is_full(world: &World, live: &Capability, told: &mut Told, ballast: &Path) {
    let ballast = fs::File::options().write(true).open(ballast).unwrap();
    for _ in 0..100 {
        if call_until_it_is_full(world, live, told) == "M-27" {
            return;
        }
        let left = ballast.metadata().unwrap().len().saturating_sub(PAGE);
        ballast.set_len(left).unwrap();
    }
    panic!("the journal is never full");
}

/// Grants and revokes until the issuer cannot journal a revocation any more. Granting can end before:
/// it needs room for its proof, too.
fn revoke_until_it_is_full(world: &World, told: &mut Told) {
    loop {
        let acknowledged = match world.try_capability() {
            Ok(capability) => {
                let acknowledged = world.revoke_as_admin(&capability).is_some();
                told.revoked.extend(acknowledged.then_some(capability));
                acknowledged
            }
            Err(answer) => {
                assert_eq!(answer.status, 503, "{answer:?}");
                world.revoke_somebody().is_some()
            }
        };
        if !acknowledged {
            return;
        }
    }
}

/// A call that was denied in doubt: its decision could not be journaled (M-27), its proof not be
/// remembered (R-13), or the feed's position not be kept (M-13). Which of them.
#[track_caller]
fn undecided(answer: &Answer) -> String {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("4503"), "{answer:?}");
    let rules = ["M-27", "R-13", "M-13"];
    let rule = rules.into_iter().find(|rule| answer.body.contains(rule));
    rule.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// Leaves about `room` bytes on the disk, to which others are writing.
fn fill(disk: &Path, ballast: &Path, room: u64) {
    let used = used(disk);
    let mut ballast = fs::File::create(ballast).unwrap();
    for _ in 0..(SIZE - used).saturating_sub(room) / PAGE {
        if ballast.write_all(&[1; PAGE as usize]).is_err() {
            break;
        }
    }
}

/// Bytes that the files below a folder take.
fn used(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => used(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        };
    }
    bytes
}
