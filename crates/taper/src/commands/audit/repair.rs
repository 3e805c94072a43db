//! `taper audit repair`: the way out when a journal is damaged.

use std::path::PathBuf;

use serde_json::Value;
use taper_service::rng;
use taper_store::{RepairReport, repair};

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper audit repair`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The state folder whose journal is damaged. Its daemon must be stopped.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Say what would be kept and what is lost, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The journal's name, `issuer` or `proxy`; needed only if `journal.pub` cannot be read.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Repairs, or says what that would come to.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let now_ms = context.now().saturating_mul(1000);
    let report = repair(
        &args.dir,
        args.name.as_deref(),
        args.dry_run,
        now_ms,
        &mut rng::os(),
    )
    .map_err(Failure::failed)?;
    let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
    if let Value::Object(members) = &mut json {
        members.insert("dry_run".to_owned(), args.dry_run.into());
    }
    context.result(told(&report), &json)?;
    if args.dry_run {
        context.talk("Nothing was changed. Without `--dry-run` the damaged files are set aside as evidence,");
        context.talk("and a new journal with a new key begins with what is still in force.");
    }
    if !report.lost.is_empty() {
        context
            .talk("What the lost records said is gone, unless the state knew it: make revocations of that");
        context.talk("time again, and compare with what was exported.");
    }
    Ok(())
}

fn told(report: &RepairReport) -> String {
    let mut lines = vec![
        format!("journal   {}", report.origin.as_deref().unwrap_or("unknown")),
        format!("signed    {} records", report.size),
        format!("readable  {}", ranges(&report.kept)),
        format!("lost      {}", ranges(&report.lost)),
        format!(
            "state     knows what the first {} records said",
            report.state_size
        ),
        format!("carried   {} records over what is in force", report.carried),
    ];
    if let Some(origin) = &report.new_origin {
        lines.push(format!("goes on   as {origin}, with a new `journal.pub`"));
    }
    if let Some(evidence) = &report.evidence {
        lines.push(format!("evidence  {}", evidence.display()));
    }
    lines.join("\n")
}

/// Half-open ranges as the numbers of records in them.
fn ranges(ranges: &[(u64, u64)]) -> String {
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let text = |(first, end): &(u64, u64)| match end.saturating_sub(*first) {
        1 => first.to_string(),
        _ => format!("{first} to {}", end.saturating_sub(1)),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) fn args(dir: &std::path::Path, dry_run: bool) -> Args {
    Args {
        dir: dir.to_owned(),
        dry_run,
        name: None,
    }
}
