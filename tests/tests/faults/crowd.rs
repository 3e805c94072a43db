//! A crowd of callers that misbehave, and many streams on which nothing happens, beside one honest caller: what
//! that one sees, whether every refusal is counted exactly once, and what stays behind.
//!
//! All of the crowd runs on one thread, and those of it that repeat themselves do so at a pace, [`PAUSE`]. That thread, and
//! that of the server that floods them, let everybody else on this machine go first: what is measured is the proxy, not
//! how fast this test can write, and a crowd brings processors of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use taper_tests::tell;

use crate::clients::{Client, KINDS, Line, Place, Tally, Watched};
use crate::lasting::Lasting;
use crate::quick::Quick;
use crate::world::{Caller, Held, Honest, Saw, Setup, World, steps_back, until};
use crate::{MAY_GROW, calm, ends, kept_within};

/// Between two rounds of a client that does not wait for the proxy: at most 20 in a second.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// Between two calls of the honest caller.
const HONEST_PAUSE: Duration = Duration::from_millis(5);
/// Streams of one holder: `max_streams_per_holder` is 32.
const STREAMS_OF_ONE: usize = 25;
/// Descriptors of this process that are not streams: each stream has two, at either side of the proxy.
const OTHER_FILES: usize = 800;

/// How large it is.
pub(crate) struct Form {
    clients: usize,
    streams: usize,
    /// Calls of the honest caller, alone and then in the crowd.
    calls: usize,
    /// How often the slowest call of a hundred may usually be slower than it was alone; `None` where only a bound
    /// holds that no machine comes near to.
    ratio: Option<f64>,
    /// By how many KiB the proxy's memory may be larger afterwards: the allocator keeps some for the next connections.
    may_grow: usize,
    /// After this the test ends, and says what it waited for.
    patience: Duration,
}

impl Form {
    /// Whether its figures count.
    pub(crate) fn measures(&self) -> bool {
        self.ratio.is_some()
    }

    /// The one of this run.
    pub(crate) fn chosen() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let mut form = if std::env::var_os("TAPER_LONG").is_some() {
            Self {
                clients: 200,
                streams: 1_000,
                calls: 3_000,
                ratio: Some(3.0),
                may_grow: 2 * MAY_GROW,
                patience: minutes(8),
            }
        } else {
            Self {
                clients: 4 * KINDS.len(),
                streams: 100,
                calls: 200,
                ratio: None,
                may_grow: MAY_GROW,
                patience: minutes(4),
            }
        };
        let most = open_files().saturating_sub(OTHER_FILES) / 2;
        assert!(
            form.streams <= most || !form.measures(),
            "{} streams need `ulimit -n {}`",
            form.streams,
            2 * form.streams + OTHER_FILES
        );
        form.streams = form.streams.min(most);
        form
    }
}

/// How many files this process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    line.split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX)
}

/// However slow the machine is, no honest call takes longer at its 99th percentile.
const NO_MACHINE: Duration = Duration::from_secs(10);

const EDGE: &str = "header_read_timeout = \"5s\"\nwrite_timeout = \"2s\"\nmax_connections = 4096";

fn servers(calm_one: &Quick, side: &Quick, lasting: &Lasting) -> String {
    let server = |id: &str, url: &str| {
        format!(
            "[servers.{id}]\nupstream = {{ http = \"{url}\" }}\nread_only = [\"echo\"]\ncatalogue.facts = \"off\"\n\
             limits = {{ max_body = 65536, body_timeout = \"2s\", caller_idle = \"1s\", max_streams = 2000, \
             max_running_per_grant = 1000, max_running = 1000 }}\n"
        )
    };
    calm(calm_one)
        + &server("side", &side.url)
        + &server("half", &side.url)
        + &server("lasting", &lasting.url)
}

/// Runs it. What went wrong.
pub(crate) fn run(form: &Form) -> Vec<String> {
    let (calm_one, side, lasting) = (Quick::start(), Quick::without_rest(), Lasting::start());
    let setup = Setup {
        edge: EDGE,
        ..Setup::default()
    };
    let world = World::start(&servers(&calm_one, &side, &lasting), &setup);
    let watched = Watched::start(form.patience, world.proxy.id());
    let caller = world.caller("calm");
    assert_eq!(caller.asks(&caller.call()).status, 200);
    let before = (world.holds(), Counts::of(&world));
    let honest = |caller: &Caller| Honest { caller }.paced(form.calls, HONEST_PAUSE);
    watched.phase("the honest caller alone");
    let quiet = honest(&caller);
    watched.phase("streams that open");
    let crowd = Crowd::start(form, &world, &lasting, &watched);
    watched.phase("the honest caller in the crowd");
    let began = (Instant::now(), cpu(&world));
    let crowded = honest(&caller);
    let busy = (cpu(&world) - began.1).as_secs_f64() / began.0.elapsed().as_secs_f64();
    let most = world.holds();
    watched.phase("clients that end");
    let (tally, streams) = crowd.ends();
    watched.phase("the proxy that comes to rest");
    let mut wrong = tally.wrong.clone();
    if tally.half_closed == tally.half_answered {
        wrong.push("whoever closes its side is always answered".to_owned());
    }
    if tally.garbage == 0 {
        wrong.push("garbage is never answered with 400".to_owned());
    }
    if tally.unanswered * 10 > tally.refused.values().sum() {
        wrong.push(format!("{} requests were not answered", tally.unanswered));
    }
    wrong.extend(lost(&quiet, &crowded));
    wrong.extend(streams.wrong(form.streams));
    let honest_calls = quiet.took.len() + crowded.took.len();
    wrong.extend(miscounted(&world, &before.1, &tally, honest_calls + form.streams));
    wrong.extend(kept_within(&world, before.0, form.may_grow).map(|kept| format!("something stays: {kept}")));
    let after = world.holds();
    assert_eq!(caller.asks(&caller.call()).status, 200);
    told(form, &tally, (&quiet, &crowded), [before.0, most, after], busy);
    ends(world);
    let ratio = ratio(&quiet, &crowded);
    if form.ratio.is_some_and(|most| ratio > most) || crowded.percentile(99) > NO_MACHINE {
        wrong.push(format!(
            "the honest caller's p99 of a second is usually {ratio:.2} times that of a quiet proxy"
        ));
    }
    wrong
}

fn ratio(quiet: &Saw, crowded: &Saw) -> f64 {
    crowded.usual().as_secs_f64() / quiet.usual().as_secs_f64()
}

fn lost(quiet: &Saw, crowded: &Saw) -> Vec<String> {
    let failed = quiet.failed.iter().chain(&crowded.failed);
    failed
        .map(|what| format!("an honest call failed: {what}"))
        .collect()
}

/// The processor time of the proxy.
fn cpu(world: &World) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", world.proxy.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn told(form: &Form, tally: &Tally, (quiet, crowded): (&Saw, &Saw), held: [Held; 3], busy: f64) {
    let ms = |took: Duration| format!("{:.2}", took.as_secs_f64() * 1000.0);
    let of = |saw: &Saw| {
        let all = [saw.percentile(50), saw.percentile(99), saw.usual()];
        all.map(ms).join(" / ")
    };
    let refused: u64 = tally.refused.values().sum();
    let [before, most, after] = held;
    tell(&format!(
        "faults: a crowd of {} and {} streams; {refused} refused {:?}, {} too late; honest p50 / p99 / usual p99 of a second, ms: quiet {}, \
         crowded {}, ratio of the last {:.2}; the proxy used {busy:.2} of a processor; MiB {}, {}, {}",
        form.clients,
        form.streams,
        tally.refused,
        tally.unanswered,
        of(quiet),
        of(crowded),
        ratio(quiet, crowded),
        before.memory / 1024,
        most.memory / 1024,
        after.memory / 1024,
    ));
}

/// What `/metrics` counts.
struct Counts(BTreeMap<String, f64>);

impl Counts {
    fn of(world: &World) -> Self {
        Self(world.series())
    }

    /// By how much the series of a family with `label` have grown since `before`, by the value of `by`.
    fn grown(&self, before: &Self, family: &str, label: &str, by: &str) -> BTreeMap<String, u64> {
        let mut grown = BTreeMap::new();
        for (series, value) in &self.0 {
            let Some(labels) = series.strip_prefix(family).filter(|rest| rest.starts_with('{')) else {
                continue;
            };
            let more = value - before.0.get(series).copied().unwrap_or_default();
            let by = labels
                .split([',', '{', '}'])
                .find_map(|one| one.strip_prefix(by)?.strip_prefix('='));
            if more > 0.0 && labels.contains(label) {
                *grown.entry(by.unwrap().trim_matches('"').to_owned()).or_default() += more as u64;
            }
        }
        grown
    }
}

/// What is not counted as the clients saw it, once all of it has ended.
fn miscounted(world: &World, before: &Counts, tally: &Tally, answered: usize) -> Vec<String> {
    let requests = "taper_proxy_requests_total";
    let look = || {
        let now = Counts::of(world);
        let mut wrong = Vec::new();
        let refused = now.grown(before, "taper_proxy_refusals_total", "", "rule");
        if refused != tally.refused {
            wrong.push(format!(
                "callers were refused {:?}, counted are {refused:?}",
                tally.refused
            ));
        }
        let mut came = now.grown(before, requests, "", "outcome");
        let half = now.grown(before, requests, "server=\"half\"", "outcome");
        // Who does not read does not know how many pages there were.
        let pages = now.grown(before, requests, "kind=\"health\"", "outcome");
        for (outcome, count) in half.iter().chain(&pages) {
            *came.get_mut(outcome).unwrap() -= count;
        }
        came.retain(|_, count| *count > 0);
        // Whose caller has closed its side is given up, where that is seen before the request is begun.
        if half.values().sum::<u64>() > tally.half_closed
            || half
                .keys()
                .any(|outcome| !["answered", "aborted"].contains(&&**outcome))
            || half.get("answered").copied().unwrap_or_default() < tally.half_answered
        {
            let (sent, got) = (tally.half_closed, tally.half_answered);
            wrong.push(format!(
                "{sent} half-closed, {got} of them answered: counted {half:?}"
            ));
        }
        let answered = answered as u64 + tally.answered;
        let refused: u64 = tally.refused.values().sum();
        if came != BTreeMap::from([("answered".to_owned(), answered), ("refused".to_owned(), refused)]) {
            wrong.push(format!(
                "{answered} answered and {refused} refused: counted {came:?}"
            ));
        }
        let cut = now.grown(before, "taper_proxy_cuts_total", "", "rule");
        if cut != BTreeMap::from([("M-40".to_owned(), tally.cut)]) {
            wrong.push(format!("{} did not read: counted {cut:?}", tally.cut));
        }
        for gauge in ["open_requests", "running", "streams", "replies", "bodies"] {
            let name = format!("taper_proxy_{gauge}");
            let taken = now
                .0
                .iter()
                .filter(|(series, _)| series.split('{').next() == Some(&name));
            let taken: f64 = taken.map(|(_, value)| value).sum();
            if taken != 0.0 {
                wrong.push(format!("{name} is {taken}"));
            }
        }
        wrong
    };
    until(|| look().is_empty());
    look()
}

/// What became of the streams on which nothing happens.
#[derive(Default)]
struct Streams {
    opened: usize,
    lasted: usize,
}

impl Streams {
    fn wrong(&self, wanted: usize) -> Option<String> {
        let Self { opened, lasted } = self;
        (*opened != wanted || *lasted != wanted)
            .then(|| format!("of {wanted} streams {opened} opened and {lasted} lasted"))
    }
}

/// The crowd, on a thread of its own.
struct Crowd {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Tally, Streams)>,
}

impl Crowd {
    /// Opens the streams, then lets the clients begin.
    fn start(form: &Form, world: &World, lasting: &Lasting, watched: &Watched) -> Self {
        let callers = form.streams.div_ceil(STREAMS_OF_ONE);
        let listeners: Vec<Caller> = (0..callers).map(|_| world.caller("lasting")).collect();
        let place = Place {
            lasting: lasting.clone(),
            watched: watched.clone(),
            over: Arc::default(),
        };
        let over = Arc::clone(&place.over);
        let clients: Vec<Client> = (0..form.clients)
            .map(|n| Client::new(n, KINDS[n % KINDS.len()], world, &place))
            .collect();
        let streams = form.streams;
        let (open, opened) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            steps_back();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut lines = Vec::new();
                for n in 0..streams {
                    lines.extend(place.listens(&listeners[n / STREAMS_OF_ONE], n).await);
                }
                open.send(()).unwrap();
                let tallies = join_all(clients.into_iter().map(Client::misbehaves)).await;
                let opened = lines.len();
                let lasted = lines.iter_mut().map(Line::lasts).filter(|lasts| *lasts).count();
                (Tally::of(tallies), Streams { opened, lasted })
            })
        });
        // The thread ends by its own time-outs if they do not open.
        let _ = opened.recv();
        Self { over, thread }
    }

    /// Lets every client end its round.
    fn ends(self) -> (Tally, Streams) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
