//! `taper audit`: the journals of a folder, without the daemons.

mod line;
mod ocsf;
mod proofs;
mod repair;
mod select;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use taper_capability::escaped;
use taper_store::{StoredRecord, VerifyReport, find_journals, read_records, verify_against, verify_dir};

use self::line::line;
use self::select::Selection;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check every record and every checkpoint.
    Verify(Checked),
    /// Show records, one line each.
    Show(Records),
    /// Write records as JSON lines: the exact payload, and beside it the attributes of an OCSF event.
    Export(Records),
    /// Write the proof that a record is in the journal, for somebody who has nothing else.
    Receipt(proofs::Receipt),
    /// Check a receipt with the journal's verifier key alone.
    VerifyReceipt(proofs::VerifyReceipt),
    /// Write a journal as the static files of a C2SP tlog-tiles log, for standard tools and witnesses.
    Tiles(proofs::Tiles),
    /// Save what can be saved of a damaged journal, and begin a new one. Look first with `--dry-run`.
    Repair(repair::Args),
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// The folder; journals are looked for in it and below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Checked {
    #[command(flatten)]
    folder: Folder,
    /// A signed checkpoint that was kept elsewhere: its journal must still begin so. Repeatable.
    #[arg(long, value_name = "FILE")]
    against: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Records {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    selection: Selection,
}

/// Checks, shows or exports.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    match args.command {
        Command::Verify(checked) => verify(&checked, context),
        Command::Receipt(args) => proofs::receipt(&args, context),
        Command::VerifyReceipt(args) => proofs::verify_receipt(&args, context),
        Command::Repair(args) => repair::run(&args, context),
        Command::Tiles(args) => proofs::tiles(&args, context),
        Command::Show(records) => each(&records, context, true, |context, dir, record| {
            let json = json!({"journal": dir, "index": record.index, "record": record.record});
            context.result(line(record), &json)
        }),
        Command::Export(records) => each(&records, context, false, |context, dir, record| {
            context.raw(export(dir, record).as_bytes())
        }),
    }
}

/// Journals to look at: none is a failure, or a wrong path would pass as an intact log.
fn journals(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let found = find_journals(dir).map_err(Failure::failed)?;
    if found.is_empty() {
        let message = format!("there is no journal in `{}`", dir.display());
        return Err(
            Failure::failed(message).next("give the state folder of an issuer or a proxy with `--dir`")
        );
    }
    Ok(found)
}

fn verify(checked: &Checked, context: &mut Context) -> Result<(), Failure> {
    let journals = journals(&checked.folder.dir)?;
    let mut kept = Vec::new();
    for path in &checked.against {
        kept.push((path, context.read(path)?, false));
    }
    let (mut damaged, mut torn) = (0, 0);
    let mut lines = Vec::new();
    let mut reports = Vec::new();
    for journal in &journals {
        match verify_dir(journal) {
            Ok(mut report) => {
                for (_, note, used) in &mut kept {
                    if is_of(note, &report) {
                        *used = true;
                        report = worse(report, verify_against(journal, note).map_err(Failure::failed)?);
                    }
                }
                let is_good = report.is_ok() && report.torn_slot.is_none();
                damaged += usize::from(!report.is_ok());
                torn += usize::from(report.is_ok() && !is_good);
                lines.push(verdict(&report));
                let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
                if let Value::Object(members) = &mut json {
                    members.insert("ok".to_owned(), is_good.into());
                }
                reports.push(json);
            }
            Err(error) => {
                damaged += 1;
                lines.push(format!("unreadable {}: {error}", journal.display()));
                reports.push(json!({"dir": journal, "ok": false, "error": error.to_string()}));
            }
        }
    }
    context.result(
        lines.join("\n"),
        &json!({"ok": damaged + torn == 0, "journals": reports}),
    )?;
    if let Some((path, ..)) = kept.iter().find(|(.., used)| !used) {
        let message = format!(
            "`{path}` is no checkpoint of a journal below `{}`",
            checked.folder.dir.display()
        );
        return Err(Failure::failed(message).next("the first line of a checkpoint names its journal"));
    }
    if damaged == 0 && torn == 0 {
        return Ok(());
    }
    if damaged == 0 {
        let message = format!(
            "{torn} of {} journals have a torn checkpoint slot",
            journals.len()
        );
        return Err(Failure::failed(message).next(
            "a power cut within a write leaves that, and so does a changed bit: start the store, which heals \
             it, and verify again",
        ));
    }
    let message = format!("{damaged} of {} journals are damaged", journals.len());
    Err(Failure::failed(message)
        .next("keep a copy of the folder as it is; then see `taper audit repair --dir DIR --dry-run`"))
}

/// Whether a signed checkpoint claims to be of this journal.
fn is_of(note: &[u8], report: &VerifyReport) -> bool {
    note.split(|byte| *byte == b'\n').next() == Some(report.origin.as_bytes())
}

/// Of two reports of one journal the one that found something.
fn worse(one: VerifyReport, other: VerifyReport) -> VerifyReport {
    if one.is_ok() { other } else { one }
}

fn verdict(report: &VerifyReport) -> String {
    let dir = report.dir.display();
    if let (true, Some(problem)) = (report.is_ok(), &report.torn_slot) {
        let problem = escaped(problem);
        return format!("TORN {dir}: one checkpoint slot is torn; opening heals it ({problem})");
    }
    if report.is_ok() {
        let (records, root) = (report.records, report.root.as_deref().unwrap_or_default());
        return format!(
            "intact {dir}: {records} records, {} signed, root {root}",
            report.tree_size
        );
    }
    let bad = report
        .first_bad
        .as_ref()
        .map(|bad| format!("record {} at byte {}: {}", bad.index, bad.offset, bad.reason));
    let problems = bad
        .into_iter()
        .chain(report.checkpoint_problems.iter().cloned())
        .chain(report.torn_slot.clone());
    let problems = problems
        .map(|problem| escaped(&problem))
        .collect::<Vec<_>>()
        .join("; ");
    format!("DAMAGED {dir}: {problems}")
}

fn each(
    records: &Records,
    context: &mut Context,
    headings: bool,
    mut show: impl FnMut(&mut Context, &Path, &StoredRecord) -> Result<(), Failure>,
) -> Result<(), Failure> {
    records.selection.check()?;
    let journals = journals(&records.folder.dir)?;
    let headings = headings && journals.len() > 1;
    for journal in &journals {
        if headings {
            context.tell(&format!("{}:", journal.display()));
        }
        for record in read_records(journal).map_err(Failure::failed)? {
            let record = record.map_err(|e| {
                Failure::failed(e).next(format!("`taper audit verify --dir {}`", journal.display()))
            })?;
            if records.selection.takes(&record.record) {
                show(context, journal, &record)?;
            }
        }
    }
    Ok(())
}

/// One line. The payload is embedded as it lies in the journal, and stands last: parsed and written
/// again, it would not be the text that the tree commits to.
fn export(dir: &Path, record: &StoredRecord) -> String {
    let journal = dir.to_string_lossy();
    let mut event = ocsf::event(record, &journal);
    let salt: String = record.salt.iter().map(|byte| format!("{byte:02x}")).collect();
    event.insert("journal".to_owned(), journal.into());
    event.insert("index".to_owned(), record.index.into());
    event.insert("salt".to_owned(), salt.into());
    let event = Value::Object(event).to_string();
    let event = event.strip_suffix('}').unwrap_or(&event);
    format!("{event},\"payload\":{}}}\n", record.payload)
}

#[cfg(test)]
mod tests;
