//! Faults, each a row of a table: what is in trouble, what the caller who runs into it gets, what is
//! counted, and that an honest caller beside it sees nothing of it; that nothing of it stays behind; and
//! that everything works again without a restart. The release binary runs, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    // How long honest calls take is measured.
    clippy::disallowed_methods
)]

mod certificates;
mod clients;
mod clocks;
mod crowd;
mod issuers;
mod lasting;
mod programs;
mod quick;
mod restarts;
mod shortage;
mod table;
mod upstreams;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use taper_tests::tell;
use tempfile::TempDir;

use self::quick::Quick;
use self::world::{Held, Honest, Saw, Setup, World, root_key, until};

/// A server without any trouble.
fn calm(upstream: &Quick) -> String {
    format!(
        "[servers.calm]\nupstream = {{ http = \"{}\" }}\nread_only = [\"echo\"]\ncatalogue.facts = \"off\"\n\
         limits = {{ max_body = 65536, body_timeout = \"2s\", max_streams = 2000 }}\n",
        upstream.url
    )
}

/// Ends the proxy: nothing in it panicked.
fn ends(world: World) {
    let (success, log) = world.proxy.stop_for_log();
    assert!(success && !log.contains("panicked"), "{log}");
}

/// What `trouble` found, and what honest callers saw meanwhile.
fn beside<T>(world: &World, trouble: impl FnOnce() -> T) -> (T, Saw) {
    let caller = world.caller("calm");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let honest = scope.spawn(|| Honest { caller: &caller }.goes_on(&over));
        // Who waits for the end must get it also when what troubles fails.
        let found = catch_unwind(AssertUnwindSafe(trouble));
        over.store(true, Ordering::Relaxed);
        let saw = honest.join().unwrap();
        match found {
            Ok(found) => (found, saw),
            Err(failed) => resume_unwind(failed),
        }
    })
}

/// Threads that wait for the next disk or name: far fewer than there were requests in trouble.
const SPARE_THREADS: usize = 12;

/// What the proxy still holds beyond what it held `before`; `None` when it is nothing.
fn kept(world: &World, before: Held) -> Option<String> {
    kept_within(world, before, MAY_GROW)
}

fn kept_within(world: &World, before: Held, may_grow: usize) -> Option<String> {
    // Threads that waited for a disk or a name end after 10 s, unless the proxy's own asking goes on to use them; the allocator
    // keeps some of what it had.
    let back = until(|| {
        let now = world.holds();
        now.files <= before.files && now.threads <= before.threads + SPARE_THREADS
    });
    let now = world.holds();
    let grown = now.memory.saturating_sub(before.memory);
    (!back || grown > may_grow).then(|| format!("before {before:?}, afterwards {now:?}"))
}

/// What the proxy holds as soon as two looks agree: what came before may still be ending.
fn rests(world: &World) -> Held {
    let last = std::cell::Cell::new(world.holds());
    until(|| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = world.holds();
        let before = last.replace(now);
        (before.files, before.threads) == (now.files, now.threads)
    });
    last.get()
}

/// Taken by whoever measures: nobody else is running then.
static ALONE: RwLock<()> = RwLock::new(());

/// Others may run, but nobody who measures.
fn together() -> RwLockReadGuard<'static, ()> {
    ALONE.read().unwrap_or_else(PoisonError::into_inner)
}

/// By how many KiB the proxy's memory may be larger after all troubles than before them.
const MAY_GROW: usize = 64 * 1024;

#[test]
fn a_server_in_trouble_is_in_nobody_elses_way() {
    let _together = together();
    let upstream = Quick::start();
    let plays = upstreams::plays();
    let mut servers = calm(&upstream);
    let mut troubled = Vec::new();
    for (at, play) in plays.iter().enumerate() {
        let (text, server) = upstreams::configured(at, play);
        servers.push_str(&text);
        troubled.push(server);
    }
    let world = World::start(&servers, &Setup::default());
    // One call of each thread's kind, so that what is made once is there.
    let caller = world.caller("calm");
    assert_eq!(caller.asks(&caller.call()).status, 200);
    let before = rests(&world);
    let (wrong, saw) = beside(&world, || {
        let world = &world;
        std::thread::scope(|scope| {
            let running: Vec<_> = plays
                .iter()
                .zip(troubled)
                .enumerate()
                .map(|(at, (play, server))| scope.spawn(move || upstreams::run(world, at, play, server)))
                .collect();
            let wrong = running.into_iter().flat_map(|row| row.join().unwrap());
            wrong.collect::<Vec<_>>()
        })
    });
    let miscounted = table::miscounted(&world, plays.iter().map(|play| &play.row), upstreams::PLACES);
    let left = kept(&world, before);
    tell(&format!(
        "faults: {} servers in trouble; beside them {} calls, p50 {:?}, p99 {:?}",
        plays.len(),
        saw.took.len(),
        saw.percentile(50),
        saw.percentile(99)
    ));
    ends(world);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(saw.failed.is_empty(), "{:?}", saw.failed);
    assert_eq!((miscounted, left), (None, None));
}

#[test]
fn a_program_in_trouble_is_in_nobody_elses_way() {
    let _together = together();
    let upstream = Quick::start();
    let folder = TempDir::new().unwrap();
    let plays = programs::plays();
    let mut servers = calm(&upstream);
    for (at, play) in plays.iter().enumerate() {
        servers.push_str(&programs::configured(folder.path(), at, play));
    }
    let world = World::start_in(folder.path(), &servers, &Setup::default());
    let caller = world.caller("calm");
    assert_eq!(caller.asks(&caller.call()).status, 200);
    let before = rests(&world);
    let (wrong, saw) = beside(&world, || {
        let world = &world;
        std::thread::scope(|scope| {
            let rows = plays.iter().enumerate();
            let running: Vec<_> = rows
                .map(|(at, play)| scope.spawn(move || programs::run(world, at, play)))
                .collect();
            let wrong = running.into_iter().flat_map(|row| row.join().unwrap());
            wrong.collect::<Vec<_>>()
        })
    });
    let running = programs::all_gone(&world);
    let miscounted = table::miscounted(&world, plays.iter().map(|play| &play.row), 1);
    let left = kept(&world, before);
    ends(world);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(saw.failed.is_empty(), "{:?}", saw.failed);
    assert_eq!((running, miscounted, left), (None, None, None));
}

#[test]
fn an_issuer_in_trouble_is_in_nobody_elses_way() {
    let _together = together();
    let upstream = Quick::start();
    let (plays, root) = (issuers::plays(), root_key());
    let (feeds, configured) = issuers::feeds(&root);
    let setup = Setup {
        issuers: &configured,
        root: Some(root),
        ..Setup::default()
    };
    let world = World::start(&calm(&upstream), &setup);
    let caller = world.caller("calm");
    assert_eq!(caller.asks(&caller.call()).status, 200);
    let before = rests(&world);
    let refused = AtomicUsize::new(0);
    let (wrong, saw) = beside(&world, || {
        let (world, refused) = (&world, &refused);
        std::thread::scope(|scope| {
            let running: Vec<_> = plays
                .iter()
                .zip(&feeds)
                .enumerate()
                .map(|(at, (play, feed))| scope.spawn(move || issuers::run(world, at, play, feed, refused)))
                .collect();
            let wrong = running.into_iter().flat_map(|row| row.join().unwrap());
            wrong.collect::<Vec<_>>()
        })
    });
    let ready = until(|| world.ready().contains("ok\n"));
    let counted = world.counted("taper_proxy_refusals_total", &["rule=\"M-13\""]);
    assert_eq!(counted, refused.into_inner() as f64, "refusals under M-13");
    // A connection to each feed is kept.
    let before = Held {
        files: before.files + plays.len(),
        ..before
    };
    let left = kept(&world, before);
    ends(world);
    assert_eq!(left, None);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(saw.failed.is_empty(), "{:?}", saw.failed);
    assert!(ready, "it is ready again");
}

#[test]
fn a_proxy_short_of_descriptors_goes_on_and_recovers() {
    let _together = together();
    shortage::of_descriptors();
}

#[test]
fn handshakes_that_stall_keep_nobody_out() {
    let _together = together();
    shortage::of_connections();
}

#[test]
fn who_shows_no_certificate_of_the_authority_is_not_served() {
    let _together = together();
    certificates::of_callers();
}

#[test]
fn a_proxy_short_of_memory_loses_nothing_that_it_answered() {
    let _together = together();
    shortage::of_memory();
}

#[test]
fn a_server_that_is_started_anew_gets_no_request_twice() {
    let _together = together();
    restarts::run();
}

#[test]
fn a_clock_that_is_set_lets_no_used_proof_pass() {
    let _together = together();
    clocks::run();
}

#[test]
fn a_crowd_is_in_nobody_elses_way() {
    let form = crowd::Form::chosen();
    let (_alone, _together) = if form.measures() {
        (Some(ALONE.write().unwrap_or_else(PoisonError::into_inner)), None)
    } else {
        (None, Some(together()))
    };
    let wrong = crowd::run(&form);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page has each table whole, in order, and nothing else in it.
#[test]
fn the_page_has_the_tables() {
    let page = std::fs::read_to_string(taper_tests::root().join("spec/faults.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let of_upstreams = upstreams::plays();
    let (of_issuers, of_programs) = (issuers::plays(), programs::plays());
    let tables = [
        (
            "upstreams",
            of_upstreams.iter().map(|play| &play.row).collect::<Vec<_>>(),
        ),
        ("issuers", of_issuers.iter().map(|play| &play.row).collect()),
        ("programs", of_programs.iter().map(|play| &play.row).collect()),
    ];
    for (name, table) in tables {
        let head = format!("| `{name}` | who runs into it gets |");
        let at = rows.iter().position(|row| *row == head).expect(&head);
        let told: Vec<&str> = rows[at + 1..]
            .iter()
            .copied()
            .take_while(|row| !row.starts_with("| `"))
            .collect();
        let table: Vec<String> = table.into_iter().map(table::Row::markdown).collect();
        assert_eq!(told, table, "{name}");
    }
}
