//! The child's half of every test here, and how a parent starts, hears and kills one.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use taper_store::{EmbeddedStore, StoreError};

use crate::writes::Kind;
use crate::{NOW, counted, later, open, open_with, runtime};

/// The folder of a child's store; without this variable, [`child`] is no child.
const DIR: &str = "TAPER_STORE_TEST_CHILD";
/// What the child does there.
const WORK: &str = "TAPER_STORE_TEST_WORK";

/// What children do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// Writes of all kinds, several at a time, for ever.
    Everything,
    /// As [`Work::Everything`], and drops old segments meanwhile.
    Retiring,
    /// Calls under a counter with a limit, for ever.
    Calls,
    /// Decisions that nobody waits for, for ever, and one now and then that is waited for.
    Later,
    /// One write of each kind, one after another.
    OneOfEach,
    /// As [`Work::Everything`], until the store fails; then some more, none of which may succeed.
    UntilItFails,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::Everything,
        Self::Retiring,
        Self::Calls,
        Self::Later,
        Self::OneOfEach,
        Self::UntilItFails,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn do_it(self, store: &EmbeddedStore) {
        let tag = format!("{:016x}", OsRng.next_u64());
        match self {
            Self::Everything => runtime().block_on(async {
                for n in 0.. {
                    for outcome in everything(store, &tag, n).await {
                        outcome.unwrap();
                    }
                }
            }),
            Self::Retiring => runtime().block_on(async {
                let retire = async |n| {
                    // All that was written so far is older than this.
                    if n % 3 == 2 && store.retire((NOW + 1) * 1000).await.unwrap().is_some() {
                        say("retired");
                    }
                };
                for n in 0.. {
                    let (outcomes, ()) = tokio::join!(everything(store, &tag, n), retire(n));
                    outcomes.into_iter().for_each(Result::unwrap);
                }
            }),
            Self::Calls => counted::make_calls(store, &tag),
            Self::Later => later::hand_over(store, &tag),
            Self::OneOfEach => runtime().block_on(async {
                for kind in Kind::ALL {
                    let id = format!("{}-{tag}", kind.name());
                    let number = kind.write(store, &id).await.unwrap();
                    say(&format!("ack {id} {number}"));
                }
            }),
            Self::UntilItFails => runtime().block_on(async {
                let mut failed_after = None;
                for n in 0.. {
                    for error in everything(store, &tag, n)
                        .await
                        .into_iter()
                        .filter_map(Result::err)
                    {
                        if failed_after.is_none() {
                            say(&format!("failed {error}"));
                            failed_after = Some(n);
                        }
                    }
                    if failed_after.is_some_and(|first| n > first + 20) {
                        break;
                    }
                }
                say(&format!("check {:?}", store.check()));
            }),
        }
    }
}

/// One write of each kind at the same time, so that commits take several; the plain ones are told as
/// they are acknowledged.
async fn everything(store: &EmbeddedStore, tag: &str, n: u64) -> [Result<(), StoreError>; 9] {
    let write = async |kind: Kind| {
        let id = format!("{}-{tag}-{n}", kind.name());
        let number = kind.write(store, &id).await?;
        say(&format!("ack {id} {number}"));
        Ok(())
    };
    let [a, b, c, d, e, f, g, h, i] = Kind::ALL.map(write);
    tokio::join!(a, b, c, d, e, f, g, h, i).into()
}

/// Says one line to the parent, with one system call.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The child; without the environment variables it does nothing.
#[test]
fn child() {
    let (Some(dir), Some(work)) = (std::env::var_os(DIR), std::env::var_os(WORK)) else {
        return;
    };
    let work = Work::ALL
        .into_iter()
        .find(|known| OsStr::new(&known.name()) == work)
        .unwrap();
    // The test harness may be in the middle of a line.
    say("\nopening");
    let store = match work {
        // Each write finds the segment full that the one before it has begun.
        Work::OneOfEach => open_with(Path::new(&dir), 1),
        _ => open(Path::new(&dir)),
    };
    say("open");
    work.do_it(&store);
}

/// Makes `command`, which ends with the path of a program and its words, a child that works in `dir`.
/// `sabotage` is what its store gets wrong, if it is built with that.
pub(crate) fn as_child(command: &mut Command, dir: &Path, work: Work, sabotage: Option<&str>) {
    command
        .env_remove("TAPER_SABOTAGE")
        .envs(sabotage.map(|lie| ("TAPER_SABOTAGE", lie)))
        .args(["--exact", "children::child", "--nocapture"])
        .env(DIR, dir)
        .env(WORK, work.name());
}

/// What a killed child said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The ids that it acknowledged, each with its number.
    pub(crate) acknowledged: Vec<(String, u64)>,
    /// Whether it had opened the store.
    pub(crate) opened: bool,
    /// How often it had dropped segments.
    pub(crate) retired: u32,
    /// The ids that it handed over and waited for no more, in order.
    pub(crate) handed_over: Vec<String>,
}

/// A running child.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts one in `dir`, see [`as_child`].
    pub(crate) fn start(dir: &Path, work: Work, sabotage: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        as_child(&mut command, dir, work, sabotage);
        Self::spawn(&mut command)
    }

    /// Starts a command that leads to one.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line; `None` at the end. What is not a whole line was not said.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// Kills it at a random point: in one of `opening_in` cases while it opens the store, otherwise
    /// after it has acknowledged some. What it still said before it died counts as well.
    pub(crate) fn kill_somewhere(mut self, opening_in: u32) -> Said {
        let mut said = Said::default();
        let take =
            (!OsRng.next_u32().is_multiple_of(opening_in)).then_some(1 + OsRng.next_u32() as usize % 60);
        // Somewhere in what comes next: a commit takes some milliseconds.
        let then = Duration::from_micros(u64::from(OsRng.next_u32() % 8000));
        let mut killed = false;
        while let Some(line) = self.line() {
            if let Some((id, number)) = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' ')) {
                said.acknowledged.push((id.to_owned(), number.parse().unwrap()));
            }
            said.handed_over
                .extend(line.strip_prefix("later ").map(str::to_owned));
            said.opened |= line == "open";
            said.retired += u32::from(line == "retired");
            let now = match take {
                Some(take) => said.acknowledged.len() >= take,
                None => line == "opening",
            };
            if now && !killed {
                std::thread::sleep(then);
                self.child.kill().unwrap();
                killed = true;
            }
        }
        self.child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        said
    }

    /// Waits for its end; whether it was a success.
    pub(crate) fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}
