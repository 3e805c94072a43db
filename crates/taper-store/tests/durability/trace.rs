//! The system calls of a child: what stands between a write and its acknowledgement.
//!
//! This is what speaks for power loss, as far as a test without a power switch can: the kernel was
//! asked to put the record on the disk, and said that it did, before anybody was told. That the
//! disk keeps its word is not tested.

use std::path::Path;
use std::process::Command;

use crate::children::{Running, Work, as_child};
use crate::writes::Kind;
use crate::{can, tell};

/// The calls that matter here.
const CALLS: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2";

/// One system call of the trace. Where it began and ended are line numbers: calls of several threads
/// overlap.
#[derive(Debug, Clone)]
struct Call {
    name: String,
    arguments: String,
    result: i64,
    began: usize,
    ended: usize,
}

impl Call {
    /// The path behind its first descriptor, as `strace -y` says it.
    fn path(&self) -> &str {
        let first = self.arguments.split(',').next().unwrap_or_default();
        let inside = first.split_once('<').map(|(_, rest)| rest);
        inside.and_then(|rest| rest.strip_suffix('>')).unwrap_or_default()
    }

    /// The strings among its arguments.
    fn strings(&self) -> Vec<&str> {
        self.arguments.split('"').skip(1).step_by(2).collect()
    }

    fn writes(&self) -> bool {
        self.name.contains("write")
    }

    /// Whether it made sure of a file or folder.
    fn syncs(&self, path: &str) -> bool {
        ["fsync", "fdatasync"].contains(&self.name.as_str()) && self.result == 0 && self.path() == path
    }
}

/// Reads the output of `strace -f`. Calls that never returned are left out.
fn parse(trace: &str) -> Vec<Call> {
    let (mut calls, mut unfinished) = (Vec::<Call>::new(), Vec::<(String, Call)>::new());
    for (at, line) in trace.lines().enumerate() {
        // The process id is padded on the right.
        let Some((process, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let mut call = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(known) = unfinished.iter().position(|(id, _)| id == process) else {
                continue;
            };
            let mut call = unfinished.remove(known).1;
            call.arguments += resumed.split_once(" resumed>").map_or("", |(_, rest)| rest);
            call
        } else if let Some((name, arguments)) = rest.split_once('(') {
            Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
                result: 0,
                began: at,
                ended: at,
            }
        } else {
            continue;
        };
        if let Some(begun) = call.arguments.strip_suffix(" <unfinished ...>") {
            call.arguments = begun.to_owned();
            unfinished.push((process.to_owned(), call));
            continue;
        }
        let Some((arguments, result)) = call.arguments.rsplit_once(" = ") else {
            continue;
        };
        let word = result.split(' ').next().unwrap_or_default();
        call.result = word.parse().unwrap_or(-1);
        call.arguments = arguments.trim_end().trim_end_matches(')').to_owned();
        call.ended = at;
        calls.push(call);
    }
    calls
}

/// What a trace proves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proven {
    /// The kinds whose acknowledgement came after the disk's.
    kinds: Vec<Kind>,
    /// Files of the journal that were put in place by rename, durably.
    renamed: Vec<String>,
}

/// Checks that whatever the trace acknowledges was on the disk before.
fn check(trace: &str, dir: &Path) -> Result<Proven, String> {
    let calls = parse(trace);
    let mut proven = Proven::default();
    for ack in &calls {
        let id = ack.strings().first().and_then(|text| text.strip_prefix("ack "));
        let Some(id) = id
            .and_then(|text| text.split(' ').next())
            .filter(|_| ack.writes())
        else {
            continue;
        };
        let kind = Kind::of(id).ok_or(format!("`{id}` is of no kind"))?;
        acknowledged_after(&calls, dir, kind, id, ack.began).map_err(|reason| format!("`{id}`: {reason}"))?;
        proven.kinds.push(kind);
    }
    for rename in calls.iter().filter(|call| call.name.starts_with("rename")) {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let [from, to] = rename.strings()[..] else {
            return Err(format!("a rename of what? {rename:?}"));
        };
        let ours = Path::new(to).parent() == Some(dir)
            && (name(to).starts_with("journal") || name(to) == "checkpoint");
        if ours && rename.result == 0 {
            renamed_durably(&calls, dir, rename, from, to).map_err(|reason| format!("`{to}`: {reason}"))?;
            proven.renamed.push(name(to));
        }
    }
    Ok(proven)
}

/// Checks that the record of `id`, and then a checkpoint, were on the disk before line `told`.
fn acknowledged_after(calls: &[Call], dir: &Path, kind: Kind, id: &str, told: usize) -> Result<(), String> {
    let inside = |call: &&Call, start: &str, end: &str| {
        let name = Path::new(call.path())
            .strip_prefix(dir)
            .ok()
            .and_then(Path::to_str);
        name.is_some_and(|name| name.starts_with(start) && name.ends_with(end))
    };
    let before = || calls.iter().filter(|call| call.ended < told);
    if kind == Kind::Proof {
        // It need not survive more than the process, so that it is written is enough (RULES 22).
        return match before().find(|call| call.writes() && call.result > 0 && inside(call, "seen", ".log")) {
            Some(_) => Ok(()),
            None => Err("nothing was written to the log of proofs".into()),
        };
    }
    let records: Vec<&Call> = before()
        .filter(|call| call.writes() && inside(call, "journal", ".log") && call.arguments.contains(id))
        .collect();
    let wanted = kind.records();
    let record = match records[..] {
        [.., last] if records.len() == wanted => last,
        _ => return Err(format!("{} records were written, not {wanted}", records.len())),
    };
    let asked = record
        .arguments
        .rsplit(", ")
        .nth(1)
        .and_then(|count| count.parse().ok());
    if record.name != "pwrite64" || asked != Some(record.result) {
        return Err(format!("the record was not written whole: {record:?}"));
    }
    let synced = before()
        .find(|call| call.began > record.ended && call.syncs(record.path()))
        .ok_or("the record was not synced")?;
    let head = before()
        .find(|call| {
            call.began > synced.ended && call.writes() && call.result > 0 && inside(call, "journal.head", "")
        })
        .ok_or("no checkpoint was written after the record was synced")?;
    before()
        .find(|call| call.began > head.ended && call.syncs(head.path()))
        .ok_or("the checkpoint was not synced")?;
    Ok(())
}

/// Checks that a file was on the disk before it was renamed, and the new name before anything was
/// acknowledged or written under it.
fn renamed_durably(calls: &[Call], dir: &Path, rename: &Call, from: &str, to: &str) -> Result<(), String> {
    let written = calls
        .iter()
        .rfind(|call| call.ended < rename.began && call.writes() && call.path() == from)
        .ok_or("nothing was written under the old name")?;
    calls
        .iter()
        .find(|call| call.began > written.ended && call.ended < rename.began && call.syncs(from))
        .ok_or("it was not synced before it was renamed")?;
    let used = |call: &&Call| {
        let told = call
            .strings()
            .first()
            .is_some_and(|text| text.starts_with("ack "));
        call.writes() && call.began > rename.ended && (told || call.path() == to)
    };
    // A child may end just after a rename.
    let Some(used) = calls.iter().find(used) else {
        return Ok(());
    };
    let folder = dir.to_str().unwrap_or_default();
    let named = |call: &&Call| call.began > rename.ended && call.ended < used.began && call.syncs(folder);
    match calls.iter().find(named) {
        Some(_) => Ok(()),
        None => Err(format!("the folder was not synced before it was used: {used:?}")),
    }
}

/// The trace of a child that writes one of each kind; `None` if nothing can be traced here.
pub(crate) fn traced(dir: &Path, sabotage: Option<&str>) -> Option<String> {
    if !can("strace", &["strace", "-f", "-o", "/dev/null", "true"]) {
        return None;
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "65536", "-e", CALLS, "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap());
    as_child(&mut command, dir, Work::OneOfEach, sabotage);
    let mut running = Running::spawn(&mut command);
    while running.line().is_some() {}
    assert!(running.wait());
    Some(std::fs::read_to_string(log.path()).unwrap())
}

#[test]
fn the_disk_has_what_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("store");
    let Some(trace) = traced(&dir, None) else {
        return;
    };
    let proven = check(&trace, &dir).unwrap();
    assert_eq!(proven.kinds, Kind::ALL);
    for name in ["journal.key", "journal.pub", "journal.head", "checkpoint"] {
        assert!(
            proven.renamed.iter().any(|renamed| renamed == name),
            "{name}: {proven:?}"
        );
    }
    let segments = proven
        .renamed
        .iter()
        .filter(|name| name.ends_with(".log"))
        .count();
    assert!(
        segments > Kind::ALL.len() - 2,
        "a segment for each record: {proven:?}"
    );
    tell(&format!(
        "system calls: {} kinds of write were synced with their checkpoint before they were \
         acknowledged; {} files were put in place durably",
        proven.kinds.len(),
        proven.renamed.len()
    ));
}

#[cfg(feature = "sabotage")]
#[test]
fn a_store_that_answers_early_shows_in_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("store");
    if let Some(trace) = traced(&dir, Some("early-answer")) {
        let reason = check(&trace, &dir).unwrap_err();
        assert!(reason.contains("0 records were written, not 1"), "{reason}");
    }
}

/// A good trace, as strace writes it, with calls of two threads that overlap.
const GOOD: &str = r#"7  openat(AT_FDCWD, "/s/journal.tmp", O_WRONLY) = 5</s/journal.tmp>
7  write(5</s/journal.tmp>, "note", 4)  = 4
7  fsync(5</s/journal.tmp>)             = 0
7  rename("/s/journal.tmp", "/s/journal.head") = 0
7  fsync(5</s>)                         = 0
71 pwrite64(6</s/journal.log>, "\0{\"id\":\"record-1\"}", 18, 16 <unfinished ...>
7  write(1<pipe:[1]>, "opening\n", 8)   = 8
71 <... pwrite64 resumed>)              = 18
71 fdatasync(6</s/journal.log> <unfinished ...>
72 write(9</s/state/db>, "x", 1)        = 1
71 <... fdatasync resumed>)             = 0
71 pwrite64(8</s/journal.head>, "note", 1024, 0) = 1024
71 fdatasync(8</s/journal.head>)        = 0
7  write(1<pipe:[1]>, "ack record-1 0\n", 15) = 15
7  +++ exited with 0 +++
"#;

#[test]
fn a_good_trace_is_proof() {
    let proven = check(GOOD, Path::new("/s")).unwrap();
    let expected = Proven {
        kinds: vec![Kind::Record],
        renamed: vec!["journal.head".into()],
    };
    assert_eq!(proven, expected);
}

#[test]
fn a_bad_trace_is_none() {
    let line = |starts: &str| GOOD.lines().find(|line| line.starts_with(starts)).unwrap();
    let bad = |what: &str, trace: String, says: &str| {
        assert_ne!(trace, GOOD, "{what}");
        let reason = check(&trace, Path::new("/s")).expect_err(what);
        assert!(reason.contains(says), "{what}: {reason}");
    };
    let without = |starts: &str| GOOD.replace(&format!("{}\n", line(starts)), "");
    let record = without("71 fdatasync(6").replace(&format!("{}\n", line("71 <... fdatasync")), "");
    bad("no sync of the record", record, "the record was not synced");
    let failed = GOOD.replace(
        "fdatasync resumed>)             = 0",
        "fdatasync resumed>) = -1 EIO (I/O)",
    );
    bad("a sync that failed", failed, "the record was not synced");
    let other = GOOD.replace("71 fdatasync(6</s/journal.log>", "71 fdatasync(6</s/state/db>");
    bad("a sync of another file", other, "the record was not synced");
    bad(
        "no sync of the checkpoint",
        without("71 fdatasync(8"),
        "checkpoint was not synced",
    );
    bad(
        "no checkpoint",
        without("71 pwrite64(8"),
        "no checkpoint was written",
    );
    let short = GOOD.replace("pwrite64 resumed>)              = 18", "pwrite64 resumed>) = 17");
    bad("a short write", short, "not written whole");
    let ack = line("7  write(1<pipe:[1]>, \"ack");
    let early = format!("{ack}\n{}", GOOD.replace(&format!("{ack}\n"), ""));
    bad("an answer before the record", early, "0 records were written");
    let early = GOOD.replace(&format!("{ack}\n"), "");
    let early = early.replace("71 <... fdatasync", &format!("{ack}\n71 <... fdatasync"));
    bad("an answer during the sync", early, "the record was not synced");
    bad(
        "no sync before a rename",
        without("7  fsync(5</s/journal.tmp>"),
        "not synced before",
    );
    bad(
        "no sync of the folder",
        without("7  fsync(5</s>)"),
        "folder was not synced",
    );
    let folder = line("7  fsync(5</s>)");
    let late = GOOD.replace(&format!("{folder}\n"), "");
    let late = late.replace("7  +++", &format!("{folder}\n7  +++"));
    bad("a name that is used too early", late, "folder was not synced");
}
