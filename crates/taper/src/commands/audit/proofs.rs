//! What a journal proves to others: receipts of records, and tiles of the whole.

use std::path::PathBuf;

use serde_json::json;
use taper_service::clock::rfc3339;
use taper_store::{StoreError, Which, export_tiles};

use super::{Folder, journals};
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper audit receipt`.
#[derive(Debug, clap::Args)]
pub(super) struct Receipt {
    /// A decision's id, as its caller was told; a grant's id; or a record's number in the only journal.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    folder: Folder,
    /// Write it as a C2SP tlog-proof, for standard tools.
    #[arg(long)]
    tlog_proof: bool,
}

/// The arguments of `taper audit verify-receipt`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyReceipt {
    /// The receipt, or `-`.
    #[arg(value_name = "FILE")]
    receipt: String,
    /// The journal's verifier key: a copy of its `journal.pub`.
    #[arg(long, value_name = "FILE")]
    key: String,
}

/// The arguments of `taper audit tiles`.
#[derive(Debug, clap::Args)]
pub(super) struct Tiles {
    #[command(flatten)]
    folder: Folder,
    /// The folder to fill; it must be new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes a receipt to stdout.
pub(super) fn receipt(args: &Receipt, context: &mut Context) -> Result<(), Failure> {
    let journals = journals(&args.folder.dir)?;
    let number = args.id.parse().ok().map(Which::Index);
    if number.is_some() && journals.len() > 1 {
        let message = format!("`{}` has {} journals", args.folder.dir.display(), journals.len());
        return Err(Failure::usage(message).next("name the folder of one with `--dir`"));
    }
    let id = || args.id.clone();
    let ways = match number {
        Some(number) => vec![number],
        None => vec![Which::Decision(id()), Which::Grant(id())],
    };
    for journal in &journals {
        for which in &ways {
            let receipt = match taper_store::receipt(journal, which) {
                Err(StoreError::NoSuchRecord(_)) if number_of(which).is_none() => continue,
                other => other.map_err(Failure::failed)?,
            };
            if args.tlog_proof {
                return context.raw(receipt.to_tlog_proof().as_bytes());
            }
            let json = serde_json::to_value(&receipt).map_err(Failure::failed)?;
            return context.result(&json, &json);
        }
    }
    let message = format!(
        "no journal below `{}` has `{}`",
        args.folder.dir.display(),
        args.id
    );
    Err(Failure::failed(message).next("`taper audit show` lists what there is"))
}

/// Checks a receipt and shows what it proves.
pub(super) fn verify_receipt(args: &VerifyReceipt, context: &mut Context) -> Result<(), Failure> {
    let key = context.read_text(&args.key)?;
    let receipt = context.read(&args.receipt)?;
    let proven = taper_store::verify_receipt(&receipt, &key).map_err(Failure::failed)?;
    let json = json!({
        "proven": true,
        "origin": proven.origin,
        "index": proven.index,
        "tree_size": proven.tree_size,
        "record": proven.record,
    });
    let text = format!(
        "proven    record {} of {}, among {} that are signed for\nat        {}\nrecord    {}",
        proven.index,
        proven.origin,
        proven.tree_size,
        rfc3339(proven.record.at_ms.div_euclid(1000)),
        super::line::said(&proven.record.kind),
    );
    context.result(text, &json)
}

/// Writes tiles.
pub(super) fn tiles(args: &Tiles, context: &mut Context) -> Result<(), Failure> {
    let journals = journals(&args.folder.dir)?;
    let [journal] = journals.as_slice() else {
        let message = format!("`{}` has {} journals", args.folder.dir.display(), journals.len());
        return Err(Failure::usage(message).next("name the folder of one with `--dir`"));
    };
    let records = export_tiles(journal, &args.out).map_err(Failure::failed)?;
    let text = format!("{records} records as tiles in {}", args.out.display());
    context.result(text, &json!({"records": records, "out": args.out}))
}

fn number_of(which: &Which) -> Option<u64> {
    match which {
        Which::Index(number) => Some(*number),
        Which::Decision(_) | Which::Grant(_) => None,
    }
}

#[cfg(test)]
pub(super) fn receipt_args(id: &str, dir: &std::path::Path, tlog_proof: bool) -> Receipt {
    Receipt {
        id: id.to_owned(),
        folder: Folder { dir: dir.to_owned() },
        tlog_proof,
    }
}

#[cfg(test)]
pub(super) fn verify_args(receipt: &str, key: &std::path::Path) -> VerifyReceipt {
    VerifyReceipt {
        receipt: receipt.to_owned(),
        key: key.display().to_string(),
    }
}
