//! An issuer whose state was put back to a backup has lost revocations: a proxy that enforced them
//! refuses every call (M-37), while it runs and after a restart, until the issuer tells again what it
//! told before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "crash/world.rs"]
#[allow(dead_code)]
mod world;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taper_tests::{answers, get, taper_bin};
use world::{Capability, Daemon, World, is_revoked};

/// Polls, 50 ms apart: the feed's longest pause is 10 s.
const PATIENCE: u32 = 600;

#[test]
fn a_proxy_does_not_believe_an_issuer_that_was_put_back() {
    let states = tempfile::tempdir().unwrap();
    let world = World::new(states.path());
    let (issuer, proxy) = (world.start(Daemon::Issuer), world.start(Daemon::Proxy));
    let [early, late, other, untouched] = std::array::from_fn(|_| world.capability());
    assert_eq!(world.revoke_as_admin(&early), Some(1));
    assert!(issuer.stop());
    let state = world.state(Daemon::Issuer);
    let (backup, whole) = (states.path().join("backup"), states.path().join("whole"));
    copy(&state, &backup);

    let issuer = world.start(Daemon::Issuer);
    assert_eq!(world.revoke_as_admin(&late), Some(2));
    until("the revocation is enforced", || {
        is_refused(&world, &late, is_revoked)
    });
    assert!(issuer.stop());
    copy(&state, &whole);

    // The backup knows nothing of the second revocation.
    copy(&backup, &state);
    let issuer = world.start(Daemon::Issuer);
    until("everything is refused", || {
        is_refused(&world, &untouched, is_doubted)
    });
    says(&world, "it lost revocations that were enforced here");
    // A proxy that starts has no entries, but knows how far it was.
    assert!(proxy.stop());
    let proxy = start_proxy(&world);
    until("why", || {
        answers(&world.mcp()) && reason(&world).contains("it lost revocations")
    });
    assert!(is_refused(&world, &untouched, is_doubted));
    // Another revocation takes the number that was lost.
    assert_eq!(world.revoke_as_admin(&other), Some(2));
    until("why", || {
        reason(&world).contains("it tells another history than it told here before")
    });
    assert!(is_refused(&world, &untouched, is_doubted));

    assert!(issuer.stop());
    copy(&whole, &state);
    let _issuer = world.start(Daemon::Issuer);
    until("the proxy is ready again", || world.is_ready(Daemon::Proxy));
    for revoked in [&early, &late] {
        assert!(is_refused(&world, revoked, is_revoked));
    }
    assert_eq!(world.call(&untouched).unwrap().status, 200);
    drop(proxy);
}

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the proxy without waiting until it is ready.
fn start_proxy(world: &World) -> Program {
    let child = Command::new(taper_bin())
        .current_dir(world.dir())
        .args(["proxy", "--config", "proxy.toml"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Program(child.unwrap())
}

/// Replaces a folder by a copy of another.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

fn is_refused(world: &World, capability: &Capability, how: fn(&taper_tests::Answer) -> bool) -> bool {
    how(&world.call(capability).unwrap())
}

/// Whether the call could not be decided because of the feed's history.
fn is_doubted(answer: &taper_tests::Answer) -> bool {
    answer.status == 503 && answer.body.contains("M-37")
}

/// What the proxy says is missing.
fn reason(world: &World) -> String {
    get(&world.mcp(), "/readyz").body
}

#[track_caller]
fn says(world: &World, what: &str) {
    let said = reason(world);
    assert!(said.contains("not ready\n") && said.contains(what), "{said}");
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: never");
}
