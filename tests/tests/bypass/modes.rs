//! Proxies in another mode than the usual: one that demands nonces, one that was killed, one that has
//! little patience.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use taper_tests::authority;
use taper_tests::call::Call;

use crate::row::{Findings, Row, row};
use crate::world::{Base, Era, Setup, World};

/// The honest call, with a nonce of this proxy.
fn fresh(world: &World<'_>, era: Era) -> Call {
    world.with_nonce(world.honest(era))
}

fn nonce(name: &'static str, change: fn(&World<'_>, String) -> Option<String>) -> Row {
    row("T-10", name, move |world, _, call| {
        let nonce = change(world, world.nonce());
        let claims = Call {
            proofs: None,
            ..call.clone()
        }
        .claims()
        .nonce(nonce.as_deref());
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    })
    .twin(fresh)
    .unauthorized("R-10")
}

/// For a proxy that demands nonces.
pub(crate) fn nonces() -> Vec<Row> {
    vec![
        nonce("no nonce", |_, _| None),
        nonce("an empty nonce", |_, _| Some(String::new())),
        nonce("a nonce of nobody", |_, _| Some("A".repeat(32))),
        nonce("a nonce with a letter changed", |_, nonce| {
            let other = if nonce.ends_with('A') { "B" } else { "A" };
            Some(format!("{}{other}", &nonce[..nonce.len() - 1]))
        }),
        nonce("a nonce of a later time", |_, nonce| {
            let other = if &nonce[9..10] == "A" { "B" } else { "A" };
            Some(format!("{}{other}{}", &nonce[..9], &nonce[10..]))
        }),
        nonce("a padded nonce", |_, nonce| Some(format!("{nonce}="))),
        nonce("half a nonce", |_, nonce| Some(nonce[..16].to_owned())),
        nonce("two nonces", |_, nonce| Some(format!("{nonce} {nonce}"))),
        nonce("a nonce of another proxy", |_, _| {
            let key = taper_dpop::NonceKey::generate(&mut rand_core::OsRng);
            Some(key.mint(taper_tests::call::now()))
        }),
        row("T-07", "the same proof again, with its nonce", |_, _, call| call)
            .twin(fresh)
            .again()
            .unauthorized("R-13"),
        row(
            "T-08",
            "another body under a good nonce and proof",
            |world, era, _| fresh(world, era).edit("acme/web", "acme/wec"),
        )
        .twin(fresh)
        .unauthorized("R-12"),
    ]
}

/// A proof that was used does not come back with a process that knows nothing of it.
pub(crate) fn killed(base: &Base) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut world = World::start(base, "killed", Setup::default());
    // A session is not known any more afterwards; the modern era has none.
    let call = world.honest(Era::Modern);
    let proof = call.proof();
    let call = call.proofs(&[&proof]);
    let mut check = |world: &World<'_>, when: &str, call: &Call, status: u16| {
        let answer = world.send(&call.bytes());
        if answer.status != status {
            wrong.push(format!("{when}: expected {status}, got {answer:?}"));
        }
    };
    check(&world, "the first time", &call, 200);
    check(&world, "again", &call, 401);
    world.restart();
    let logged = world.proxy.logged();
    let before = world.upstream.count();
    check(&world, "after a crash", &call, 401);
    let rule = world.rule_since(logged);
    let unseen = world.upstream.count() == before;
    let old = world.honest(Era::Legacy);
    check(&world, "a session of before the crash", &old, 404);
    check(
        &world,
        "a fresh proof after the crash",
        &world.honest(Era::Modern),
        200,
    );
    if !["R-13", "M-28"].map(|rule| Some(rule.to_owned())).contains(&rule) || !unseen {
        wrong.push(format!("after a crash: {rule:?}, unseen: {unseen}"));
    }
    wrong
}

/// What is sent, byte by byte or not to its end, ends with the connection and reaches nobody.
pub(crate) fn slow(base: &Base) -> Vec<String> {
    let setup = Setup {
        edge: "header_read_timeout = \"1s\"",
        limits: "limits = { body_timeout = \"1s\" }",
        ..Setup::default()
    };
    let world = World::start(base, "slow", setup);
    let before = world.upstream.count();
    // Each with a proof of its own: no second body is read under one.
    let fresh = || world.honest(Era::Modern).bytes();
    let whole = fresh().len();
    let head = whole - world.honest(Era::Modern).body.len();
    let cases: [(&str, usize, u16); 7] = [
        ("nothing", 0, 0),
        ("a letter", 1, 0),
        ("half a line", 10, 0),
        ("half a head", head / 2, 0),
        ("all of a head but its last byte", head - 1, 0),
        ("a head", head, 408),
        ("all but the last byte", whole - 1, 408),
    ];
    let at = &world.at;
    let answers: Vec<(&str, u16, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|(name, sent, status)| {
                let bytes = fresh();
                let answer = scope.spawn(move || silence_after(at, &bytes[..*sent]));
                (*name, *status, answer)
            })
            .collect();
        running
            .into_iter()
            .map(|(name, status, answer)| (name, status, answer.join().unwrap()))
            .collect()
    });
    let mut wrong = Vec::new();
    for (name, status, answer) in answers {
        // A head that does not end may be answered with 408 before the cut, or not at all.
        let answered = answer.starts_with("HTTP/1.1 408 ");
        let told = answered || (status == 0 && answer.is_empty());
        if !told {
            wrong.push(format!("{name}: expected {status}, got {answer:?}"));
        }
    }
    if world.upstream.count() != before {
        wrong.push("the upstream saw one of them".into());
    }
    let after = world.send(&fresh());
    if after.status != 200 {
        wrong.push(format!("the twin: {after:?}"));
    }
    wrong
}

/// What comes until the other side closes.
fn silence_after(url: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(authority(url)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => "still open".into(),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

pub(crate) fn demanding(base: &Base) -> Findings {
    let setup = Setup {
        top: "nonce = \"demand\"",
        ..Setup::default()
    };
    let world = World::start(base, "demanding", setup);
    let mut findings = Findings::default();
    for row in nonces() {
        findings.run(&world, "nonces", &row);
    }
    findings
}
