//! How long a revocation takes: from the issuer's answer to the first call that the proxy refuses, and
//! to the end of an answer that was being streamed. Issuer and proxy are daemons of their own, on this
//! machine.
//!
//! ```text
//! TAPER_BIN=target/release/taper cargo bench -p taper-tests --bench revocation [-- REVOCATIONS]
//! ```
//!
//! Two callers call on without a pause, so a time is too long by up to one call (printed as well). Every
//! second revocation is an administrator's, the others are their holder's; the capability of every fifth
//! has an open stream. Nothing is thrown away: a refused call that was never seen ends the bench.
//!
//! Then how long a proxy takes to start when much is revoked: it holds no entries at first, and refuses
//! everything until it has them all.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

#[path = "../tests/crash/world.rs"]
#[allow(dead_code)]
mod world;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand_core::OsRng;
use taper_store::{EmbeddedStore, NewRevocation, RevocationKey, Revocations as _};
use taper_tests::authority;
use world::{Capability, Daemon, World, is_revoked};

const CALLERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let revocations = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(500);
    let states = tempfile::tempdir().unwrap();
    let world = World::new(states.path());
    let _issuer = world.start(Daemon::Issuer);
    let _proxy = world.start(Daemon::Proxy);
    let (mut refused, mut cut, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..revocations {
        let capability = world.capability();
        let stream = (n % 5 == 0).then(|| open(&world, &capability));
        let measured = revoke(&world, &capability, n % 2 == 0, stream);
        refused.push(measured.refused);
        cut.extend(measured.cut);
        calls.extend(measured.calls);
    }
    println!("{revocations} revocations, {CALLERS} callers");
    println!("  one call that passes            {}", spread(&mut calls));
    println!("  answer to first refused call    {}", spread(&mut refused));
    println!("  answer to end of a stream       {}", spread(&mut cut));
    start_with(200_000);
}

/// Starts a proxy whose issuer revoked this much.
fn start_with(revocations: u64) {
    let states = tempfile::tempdir().unwrap();
    let world = World::new(states.path());
    fill(
        &world.state(Daemon::Issuer),
        world.url(Daemon::Issuer),
        revocations,
    );
    let _issuer = world.start(Daemon::Issuer);
    let started = Instant::now();
    let _proxy = world.start(Daemon::Proxy);
    let took = started.elapsed();
    let each = took.as_secs_f64() * 1e6 / revocations as f64;
    println!(
        "a proxy is ready {:.1} s after its start with {revocations} revocations, {each:.1} us each",
        took.as_secs_f64()
    );
}

/// Writes revocations of grants into the state of an issuer that does not run.
fn fill(state: &Path, issuer: &str, revocations: u64) {
    let now_ms = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let (store, _) = EmbeddedStore::open(state, "issuer", Arc::new(now_ms), OsRng).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let revocation = |n: u64| NewRevocation {
        at: now_ms() / 1000,
        issuer: issuer.to_owned(),
        what: RevocationKey::Grant(format!("grant-{n:016}")),
        until: Some(now_ms() / 1000 + 86_400),
        by: "bench".to_owned(),
    };
    runtime.block_on(async {
        for first in (0..revocations).step_by(1000) {
            let batch = (first..first + 1000).map(|n| store.revoke(revocation(n)));
            for answer in futures_util::future::join_all(batch).await {
                answer.unwrap();
            }
        }
        store.close().await.unwrap();
    });
}

struct Measured {
    refused: Duration,
    cut: Option<Duration>,
    calls: Vec<Duration>,
}

fn revoke(world: &World, capability: &Capability, by_admin: bool, stream: Option<TcpStream>) -> Measured {
    let calling = Barrier::new(CALLERS + 1);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| scope.spawn(|| call_until_refused(world, capability, &calling)))
            .collect();
        let stream = stream.map(|stream| scope.spawn(|| end_of(stream)));
        calling.wait();
        if by_admin {
            assert!(world.revoke_as_admin(capability).is_some());
        } else {
            assert!(world.revoke_as_client(capability));
        }
        let answered = Instant::now();
        let (mut first, mut calls) = (None::<Instant>, Vec::new());
        for caller in callers {
            let (refused, passed) = caller.join().unwrap();
            first = Some(first.map_or(refused, |first| first.min(refused)));
            calls.extend(passed);
        }
        // What was refused before the answer arrived took no time.
        let since = |then: Instant| then.saturating_duration_since(answered);
        Measured {
            refused: since(first.unwrap()),
            cut: stream.map(|stream| since(stream.join().unwrap())),
            calls,
        }
    })
}

/// When the first refusal came, and how long each call before it took. The first one passes.
fn call_until_refused(world: &World, capability: &Capability, calling: &Barrier) -> (Instant, Vec<Duration>) {
    let (started, mut passed) = (Instant::now(), Vec::new());
    loop {
        let asked = Instant::now();
        let answer = world.call(capability).expect("the proxy answers");
        let now = Instant::now();
        if is_revoked(&answer) {
            return (now, passed);
        }
        // A call that the revocation met on its way is cut off: it is neither.
        if answer.status == 200 && answer.body.contains("done") {
            passed.push(now - asked);
            if passed.len() == 1 {
                calling.wait();
            }
        }
        assert!(now - started < PATIENCE, "nothing is refused: {answer:?}");
    }
}

/// A call whose answer is a stream that stays open; its beginning has arrived.
fn open(world: &World, capability: &Capability) -> TcpStream {
    let call = world.call_of(capability).header(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let mut stream = TcpStream::connect(authority(&call.url)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&call.bytes()).unwrap();
    let (mut received, mut buffer) = (String::new(), [0; 4096]);
    while !received.contains("data:") {
        let n = stream.read(&mut buffer).unwrap();
        received.push_str(&String::from_utf8_lossy(buffer.get(..n).unwrap()));
        assert!(n > 0, "it is no stream: {received}");
    }
    stream
}

fn end_of(mut stream: TcpStream) -> Instant {
    let mut rest = Vec::new();
    // An answer that is cut ends without its last chunk, or with a reset.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the stream goes on");
    }
    Instant::now()
}

fn spread(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at = |part: usize| {
        samples
            .get(samples.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    let max = samples.last().copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (p50, p99) = (ms(at(50)), ms(at(99)));
    format!(
        "p50 {p50:.1} p99 {p99:.1} max {:.1} ms of {}",
        ms(max),
        samples.len()
    )
}
