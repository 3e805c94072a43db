//! A proxy that is short of what the operating system gives, or of connections: descriptors, memory, handshakes that stall.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use taper_tests::call::Call;
use taper_tests::daemon::write_private;
use taper_tests::upstream::RESULT;
use taper_tests::{authority, taper_ok, tell};
use tempfile::TempDir;

use crate::calm;
use crate::quick::Quick;
use crate::wire::Wire;
use crate::world::{Setup, World, keep_open, until};

/// Descriptors that the proxy may have.
const FILES: usize = 64;
/// Calls meanwhile, each of them a commit of the journal: it publishes a checkpoint after 1,024.
const CALLS: usize = 1_100;
/// Connections that are opened: more than that.
const CONNECTIONS: usize = 2 * FILES;
/// Connections that a proxy over TLS may have.
const HANDSHAKES: usize = 50;
/// Lines in the log about connections that cannot be accepted: pauses become a second long.
const FEW: usize = 100;
const CANNOT: &str = "cannot accept connections for now";
/// By how much the proxy's address space may grow, in bytes.
const ROOM: usize = 24 << 20;

/// Connections there go on, new ones wait, and are served as soon as there are descriptors again.
pub(crate) fn of_descriptors() {
    let upstream = Quick::start();
    let setup = Setup {
        before: &["prlimit", &format!("--nofile={FILES}")],
        edge: "header_read_timeout = \"1m\"",
        ..Setup::default()
    };
    let world = World::start(&calm(&upstream), &setup);
    let caller = world.caller("calm");
    let mut there = Wire::open(&world.at);
    let goes_on = |there: &mut Wire| {
        let got = there.exchange(&keep_open(&caller.call().bytes()));
        assert_eq!((got.status, got.body.as_str()), (200, RESULT), "{got:?}");
    };
    goes_on(&mut there);
    let crowd: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(authority(&world.at)).unwrap())
        .collect();
    let cannot = |log: &str| log.matches(CANNOT).count();
    assert!(until(|| cannot(&world.proxy.log()) > 2), "nothing was short");
    for _ in 0..CALLS {
        goes_on(&mut there);
    }
    drop(crowd);
    let got = caller.asks(&caller.call());
    assert_eq!(
        (got.status, got.body.as_str()),
        (200, RESULT),
        "afterwards: {got:?}"
    );
    goes_on(&mut there);
    let (folder, log) = world.ends();
    assert!(!log.contains("panicked"), "{log}");
    assert!(cannot(&log) < FEW, "it does not wait between two attempts: {log}");
    let verified = taper_ok(folder.path(), &["audit", "verify", "--dir", "state"]);
    assert!(verified.starts_with("intact "), "{verified}");
}

/// Callers send what does not fit. The program goes on, or it ends; what it answered is in its journal, and another one goes
/// on from there.
pub(crate) fn of_memory() {
    let upstream = Quick::start();
    let servers = format!(
        "{}[servers.large]\nupstream = {{ http = \"{}\" }}\ncatalogue.facts = \"off\"\nread_only = [\"echo\"]\n\
         limits = {{ max_body = 16777216, body_timeout = \"5s\" }}\n",
        calm(&upstream),
        upstream.url
    );
    // The allocator takes what it needs from the system when it needs it, not a large part at the start.
    let setup = Setup {
        env: &[("MIMALLOC_DISALLOW_ARENA_ALLOC", Path::new("1"))],
        ..Setup::default()
    };
    let mut world = World::start(&servers, &setup);
    let caller = world.caller("calm");
    let answered = |world: &World| {
        let got = Wire::try_open(&world.at).map(|mut wire| wire.asks(&caller.call()));
        got.is_some_and(|got| got.status == 200 && got.body == RESULT)
    };
    assert!(answered(&world));
    let bytes = world.address_space() + ROOM;
    let limited = Command::new("prlimit")
        .args([
            "--pid",
            &world.proxy.id().to_string(),
            &format!("--as={bytes}:{bytes}"),
        ])
        .status();
    assert!(limited.unwrap().success());
    let large = world.caller("large");
    let padding = " ".repeat(8 << 20);
    let calls: Vec<Call> = (0..16)
        .map(|_| large.says(&(crate::world::CALL.to_owned() + &padding)))
        .collect();
    let served: usize = std::thread::scope(|scope| {
        let asked: Vec<_> = calls
            .iter()
            .map(|call| {
                let wire = Wire::try_open(&world.at);
                scope.spawn(move || wire.is_some_and(|mut wire| wire.asks(call).status == 200))
            })
            .collect();
        let served = asked.into_iter().map(|one| usize::from(one.join().unwrap()));
        served.sum()
    });
    let mut acknowledged = 1;
    for _ in 0..20 {
        acknowledged += usize::from(answered(&world));
    }
    let ended = !world.is_running();
    assert!(served < calls.len(), "memory was not short");
    let first = world.restart();
    assert!(!first.contains("panicked"), "{first}");
    assert!(answered(&world), "it goes on from what there is");
    acknowledged += 1;
    let (folder, log) = world.ends();
    assert!(!log.contains("panicked"), "{log}");
    let verified = taper_ok(folder.path(), &["audit", "verify", "--dir", "state"]);
    assert!(verified.starts_with("intact "), "{verified}");
    for (tool, least) in [("calm:echo", acknowledged), ("large:echo", served)] {
        let shown = taper_ok(
            folder.path(),
            &[
                "audit",
                "show",
                "--dir",
                "state",
                "--decision",
                "allow",
                "--tool",
                tool,
            ],
        );
        let allowed = shown.lines().count();
        assert!(
            allowed >= least,
            "{tool}: {allowed} of {least} answers are in the journal"
        );
    }
    let went = if ended { "ended" } else { "went on" };
    tell(&format!(
        "faults: short of memory the proxy {went}; {served} of {} large calls were answered",
        calls.len()
    ));
}

/// As many handshakes as there may be connections begin and go no further. They end, and who comes next is served.
pub(crate) fn of_connections() {
    let (upstream, folder) = (Quick::start(), TempDir::new().unwrap());
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = folder.path().join("certificate.pem");
    fs::write(&certificate, pair.cert.pem()).unwrap();
    write_private(&folder.path().join("key.pem"), &pair.signing_key.serialize_pem());
    let setup = Setup {
        public: Some("https://localhost"),
        edge: &format!("header_read_timeout = \"2s\"\nmax_connections = {HANDSHAKES}"),
        issuers: "[tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n",
        ..Setup::default()
    };
    let world = World::start_in(folder.path(), &calm(&upstream), &setup);
    let before = world.holds();
    // A record that says that 512 bytes come, of which none does, or nothing at all.
    let stalled: Vec<Wire> = (0..HANDSHAKES)
        .map(|n| {
            let mut wire = Wire::open(&world.at);
            wire.sends(if n % 2 == 0 { b"\x16\x03\x01\x02\x00" } else { b"" });
            wire
        })
        .collect();
    let url = format!(
        "https://localhost:{}/healthz",
        world.at.rsplit_once(':').unwrap().1
    );
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "30",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cacert",
    ]);
    let served = curl.arg(&certificate).arg(&url).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&served.stdout), "200", "{served:?}");
    for mut wire in stalled {
        assert_eq!(wire.reads_head().status, 0);
    }
    let back = until(|| world.holds().files <= before.files);
    assert!(back, "before {before:?}, afterwards {:?}", world.holds());
    assert!(world.proxy.stop());
}
