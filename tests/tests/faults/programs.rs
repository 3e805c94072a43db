//! Programs as servers that misbehave. Each caller has a program of its own; when a caller got its answer, the
//! trouble is over for programs that are started from then on, and another caller's call passes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::table::{Gets, Row};
use crate::wire::Got;
use crate::world::{Caller, World, until};

/// What runs: `trouble` is a line of the shell that has the message in `$line`, its id in `$id`, and ends as
/// it likes; `answer` is the honest one.
const PROGRAM: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id"; }
well() { [ -e "$1" ]; }
flag=$1
if ! well "$flag"; then eval "$2"; fi
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  if well "$flag"; then answer; else eval "$3"; fi
done
"#;

/// Instead of what a program does at its start: there is none.
const NOT_THERE: &str = "-";
/// A program that does not read: its message is larger than what waits in a pipe.
const STOPS_READING: &str = "stops reading";
const LARGE: usize = 300_000;

/// A row, what its program does at its start, and what it does with each message.
pub(crate) struct Play {
    pub(crate) row: Row,
    at_start: &'static str,
    at_message: &'static str,
}

pub(crate) fn plays() -> Vec<Play> {
    let play = |name, at_start, at_message, gets| Play {
        row: Row { name, gets },
        at_start,
        at_message,
    };
    let failed = Gets::Refused(502, "M-30");
    vec![
        play("is not there", NOT_THERE, "", failed),
        play("ends at its start", "exit 3", "", failed),
        play("dies of a message", "", "kill -9 $$", failed),
        play("takes a message and says nothing", "", ":", failed),
        play(STOPS_READING, "exec sleep 98761", "", failed),
        play(
            "writes what is no message",
            "",
            "echo nonsense; echo '{'; answer",
            Gets::Whole,
        ),
        play(
            "writes a line without end",
            "exec tr '\\0' x </dev/zero",
            "",
            failed,
        ),
        play("floods with lines that are no messages", "exec yes", "", failed),
        play(
            "floods its standard error",
            "",
            "i=0; while [ $i -lt 2000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; i=$((i+1)); done; answer",
            Gets::Whole,
        ),
        play("answers another id", "", "id=4711; answer", failed),
        play(
            "leaves children behind",
            "sleep 98762 & sleep 98763 &",
            "answer",
            Gets::Whole,
        ),
        play(
            "ignores SIGTERM and the end of its input",
            "trap '' TERM; sleep 98764 & ",
            "answer; exec sleep 98765",
            Gets::Whole,
        ),
    ]
}

/// The server of the `at`-th row, for the proxy's configuration.
pub(crate) fn configured(dir: &Path, at: usize, play: &Play) -> String {
    let flag = flag(dir, at);
    let at_start = play.at_start.replace("9876", &number());
    let at_message = play.at_message.replace("9876", &number());
    let flag = flag.to_str().unwrap();
    let command = match play.at_start {
        NOT_THERE => vec![flag],
        _ => vec!["/bin/sh", "-c", PROGRAM, "program", flag, &at_start, &at_message],
    };
    format!(
        "[servers.p{at}]\nread_only = [\"echo\"]\ncatalogue.facts = \"off\"\n\
         upstream = {{ stdio = {}, era = \"modern\", idle = \"5s\", max_children = 32 }}\n\
         limits = {{ answer_timeout = \"3s\", max_list = 1048576 }}\n",
        serde_json::to_string(&command).unwrap(),
    )
}

/// By what programs of this run are known: other runs have others.
fn number() -> String {
    format!("9{}", std::process::id())
}

fn flag(dir: &Path, at: usize) -> PathBuf {
    dir.join(format!("program-{at}-is-well"))
}

fn asks(caller: &Caller, id: u32, padding: usize) -> Got {
    let version = "2026-07-28";
    let meta = format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}"#);
    let padding = "x".repeat(padding);
    let params = format!(r#"{{"name":"echo","arguments":{{"text":"{padding}"}},{meta}}}"#);
    let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
    let call = caller
        .says(&message)
        .instead("mcp-protocol-version", version)
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo");
    caller.asks(&call)
}

/// Ends the trouble.
fn heal(dir: &Path, at: usize, play: &Play) {
    let flag = flag(dir, at);
    if play.at_start != NOT_THERE {
        return fs::write(flag, "").unwrap();
    }
    // Whole before it is there.
    let next = flag.with_extension("next");
    fs::write(&next, format!("#!/bin/sh\nset -- \"$0\" '' ''\n{PROGRAM}")).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(next, flag).unwrap();
}

/// Plays one row; what went otherwise.
pub(crate) fn run(world: &World, at: usize, play: &Play) -> Vec<String> {
    let server = format!("p{at}");
    let mut wrong = Vec::new();
    let (first, second) = (world.caller(&server), world.caller(&server));
    let padding = if play.row.name == STOPS_READING { LARGE } else { 0 };
    wrong.extend(play.row.gets.wrong(&asks(&first, 1, padding)));
    wrong.extend(play.row.gets.uncounted(world, &server, 1));
    heal(world.dir(), at, play);
    for id in 1..=3 {
        let got = asks(&second, id, 0);
        if !(got.status == 200 && got.whole && got.body.contains("content")) {
            wrong.push(format!("afterwards: {got:?}"));
        }
    }
    wrong
        .into_iter()
        .map(|what| format!("{}: {what}", play.row.name))
        .collect()
}

/// Programs of the rows that still run, by the proxy's process or by what they slept for.
pub(crate) fn left(world: &World) -> Vec<String> {
    let parent = world.proxy.id().to_string();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let of = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let (stat, command) = (of("stat"), of("cmdline").replace('\0', " "));
        let is_child = stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&parent));
        if is_child || command.starts_with(&format!("sleep {}", number())) {
            left.push(command);
        }
    }
    left
}

/// Whether no program is left, as soon as all had time to be idle.
pub(crate) fn all_gone(world: &World) -> Option<String> {
    (!until(|| left(world).is_empty())).then(|| format!("still running: {:?}", left(world)))
}
