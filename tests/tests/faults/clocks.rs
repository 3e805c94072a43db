//! A machine whose clock is set, there and back, while the proxy runs. The program reads a real clock: libfaketime moves
//! it, by a file that says how far; what counts time only (`CLOCK_MONOTONIC`) is left alone, as the kernel does.

use std::fs;
use std::path::{Path, PathBuf};

use taper_tests::call::now;
use taper_tests::{taper_ok, tell};
use tempfile::TempDir;

use crate::issuers::Feed;
use crate::quick::Quick;
use crate::wire::{Got, Wire};
use crate::world::{Caller, Setup, World, keep_open, root_key, until};

/// Where Debian's package `faketime` puts it.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
/// The issuer that has a feed.
const FOLLOWED: &str = "https://followed.example";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// So many calls sweep every part of the table of seen proofs.
const CALLS: usize = 120;

/// A clock that is `0` seconds off.
struct Clock(PathBuf);

impl Clock {
    /// Sets it; a reader sees the file before or after.
    fn set(&self, seconds: i64) {
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{seconds:+}s\n")).unwrap();
        fs::rename(&next, &self.0).unwrap();
    }
}

/// Asks with a proof of the proxy's time, and once more with a nonce where one is wanted: as every client of DPoP.
fn asks(wire: &mut Wire, caller: &Caller, seconds: i64) -> (Got, Option<Vec<u8>>) {
    let call = |nonce: Option<&str>| keep_open(&caller.call_at(seconds, nonce).bytes());
    let got = wire.exchange(&call(None));
    let nonce = got
        .head
        .lines()
        .find_map(|line| line.strip_prefix("dpop-nonce: "));
    match nonce {
        Some(nonce) if got.head.contains("use_dpop_nonce") => {
            let with_nonce = call(Some(nonce));
            (wire.exchange(&with_nonce), Some(with_nonce))
        }
        _ => (got, None),
    }
}

/// Sets the clock ahead by an hour, back by one, ahead by a day, and right again each time.
pub(crate) fn run() {
    let library = LIBRARIES.map(Path::new).into_iter().find(|path| path.exists());
    let library = library.expect("install the package `faketime`");
    let folder = TempDir::new().unwrap();
    let clock = Clock(folder.path().join("clock"));
    clock.set(0);
    let (upstream, root) = (Quick::start(), root_key());
    let feed = Feed::start(FOLLOWED, &root);
    let server = format!(
        "[servers.calm]\nupstream = {{ http = \"{}\" }}\nread_only = [\"echo\"]\ncatalogue.facts = \"off\"\naudit = \"async\"\n",
        upstream.url
    );
    let world = World::start(
        &server,
        &Setup {
            edge: "header_read_timeout = \"1m\"",
            issuers: &feed.configured("2m"),
            root: Some(root),
            env: &[
                ("LD_PRELOAD", library),
                ("FAKETIME_TIMESTAMP_FILE", &clock.0),
                ("FAKETIME_NO_CACHE", Path::new("1")),
                ("DONT_FAKE_MONOTONIC", Path::new("1")),
                ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
            ],
            ..Setup::default()
        },
    );
    let caller = world.caller_at("calm", now() - 2 * DAY, 10 * DAY);
    let followed = world.caller_of(FOLLOWED, "calm", now() - 2 * DAY, 10 * DAY);
    let short = world.caller_for("calm", HOUR / 2);
    let mut wire = Wire::open(&world.at);
    // Requests that were used, each captured.
    let mut used: Vec<Vec<u8>> = Vec::new();
    let (mut nonces, mut young) = (0, 0);
    let mut goes_on = |wire: &mut Wire, used: &mut Vec<Vec<u8>>, seconds: i64| {
        let mut last = None;
        for _ in 0..CALLS {
            let (got, asked) = asks(wire, &caller, seconds);
            assert_eq!(got.status, 200, "at {seconds:+} s: {got:?}");
            // The last that had one is tried again too: its nonce may be as fresh as its time.
            if let Some(with_nonce) = asked {
                nonces += 1;
                last = Some(with_nonce);
            }
        }
        used.extend(last.take());
        let call = keep_open(&caller.call_at(seconds, None).bytes());
        if wire.exchange(&call).status == 200 {
            used.push(call);
        }
        for call in used.iter() {
            let got = wire.exchange(call);
            assert_eq!(got.status, 401, "a used proof at {seconds:+} s: {got:?}");
            young += usize::from(got.head.contains("R-13") || got.head.contains("use_dpop_nonce"));
        }
    };
    let is_stale = |seconds: i64, stale: bool| {
        let wanted = if stale { 503 } else { 200 };
        let asked = || asks(&mut Wire::open(&world.at), &followed, seconds).0;
        assert!(
            until(|| asked().status == wanted),
            "at {seconds:+} s: {:?}",
            asked()
        );
    };
    goes_on(&mut wire, &mut used, 0);
    is_stale(0, false);
    assert_eq!(asks(&mut wire, &short, 0).0.status, 200);
    for seconds in [HOUR, -HOUR, DAY] {
        clock.set(seconds);
        goes_on(&mut wire, &mut used, seconds);
        // What the issuer says is an hour old, or of a time to come.
        if seconds > 0 {
            is_stale(seconds, true);
            let got = asks(&mut wire, &short, seconds).0;
            assert_eq!(got.status, 401, "an expired capability at {seconds:+} s: {got:?}");
        }
        clock.set(0);
        goes_on(&mut wire, &mut used, 0);
        is_stale(0, false);
        assert_eq!(asks(&mut wire, &short, 0).0.status, 200);
    }
    assert!(
        used.len() > 4 && nonces > 0,
        "{} used, {nonces} with a nonce",
        used.len()
    );
    assert!(
        young > 6,
        "{young} of the used ones were not refused for their age alone"
    );
    tell(&format!(
        "faults: the clock was set 6 times; {} proofs tried again, {nonces} nonces",
        used.len()
    ));
    let (folder, log) = world.ends();
    assert!(!log.contains("panicked"), "{log}");
    let verified = taper_ok(folder.path(), &["audit", "verify", "--dir", "state"]);
    assert!(verified.starts_with("intact "), "{verified}");
}
