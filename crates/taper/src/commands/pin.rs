//! `taper proxy pin`.

use std::path::PathBuf;

use serde_json::json;
use taper_proxy::pin::{PinError, Review, Reviewer};
use taper_service::config;

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper proxy pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The proxy's configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only this server. Default: every one with `pins`.
    #[arg(long, value_name = "ID")]
    server: Option<String>,
    /// Write nothing; fail when something is not as it was approved.
    #[arg(long, conflicts_with_all = ["accept", "accept_rest", "all", "diff"])]
    check: bool,
    /// Write nothing; show what differs.
    #[arg(long, conflicts_with_all = ["accept", "accept_rest", "all"])]
    diff: bool,
    /// Approve this tool as the server describes it now, or that it is gone.
    #[arg(long, value_name = "TOOL", requires = "server")]
    accept: Vec<String>,
    /// Approve what is no tool: what is shown before login, and with which credentials the server is asked.
    #[arg(long, requires = "server")]
    accept_rest: bool,
    /// Approve everything as it is now.
    #[arg(long, requires = "server", conflicts_with = "accept")]
    all: bool,
    /// What was reviewed, by the digest that was shown with it: the server is asked anew, and what it says
    /// then is not approved unseen.
    #[arg(long, value_name = "DIGEST")]
    reviewed: Option<String>,
}

/// Shows what differs from what was approved, and writes what is approved now. A file that is there is
/// changed only where `--accept`, `--accept-rest` or `--all` say so.
pub(crate) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let folder = config::folder_of(&args.config);
    let file: taper_proxy::Config = config::load(&args.config).map_err(Failure::invalid)?;
    let reviewer = Reviewer::new(&file, &folder, args.server.as_deref()).map_err(ended)?;
    let mut reviews = context.block_on(reviewer.ask())?.map_err(ended)?;
    let (mut lines, mut failed) = (Vec::new(), false);
    for review in &mut reviews {
        let differed = review.lines();
        let written = !args.check && !args.diff && settle(review, args)?;
        failed = failed || !(review.is_same() || written || args.diff);
        lines.extend(differed);
        if !written && !review.is_same() && !review.is_new() {
            lines.push(format!("{}: reviewed as {}", review.server(), review.digest()));
        }
        lines.push(summary(review, written));
    }
    let text = lines.join("\n");
    if failed {
        let next =
            "review it; `--accept TOOL`, `--accept-rest` or `--all` with `--reviewed DIGEST` approve it";
        return Err(Failure::failed(text).next(next));
    }
    let servers: Vec<_> = reviews.iter().map(Review::to_json).collect();
    context.result(text, &json!({ "servers": servers }))
}

/// Approves what the arguments say, and whether that was anything.
fn settle(review: &mut Review, args: &Args) -> Result<bool, Failure> {
    if args.all || args.accept_rest || !args.accept.is_empty() {
        review.reviewed(args.reviewed.as_deref()).map_err(ended)?;
    }
    // Where there is no file, nothing can be overwritten.
    if args.all || (review.is_new() && args.accept.is_empty() && !args.accept_rest) {
        review.accept_all().map_err(ended)?;
    }
    for tool in &args.accept {
        review.accept(tool).map_err(ended)?;
    }
    if args.accept_rest {
        review.accept_rest();
    }
    review.write().map_err(ended)
}

fn summary(review: &Review, written: bool) -> String {
    let (server, file, tools) = (review.server(), review.path().display(), review.tools());
    match (written, review.is_same()) {
        (true, true) => format!("{server}: {tools} tools are approved in {file}"),
        (true, false) => format!("{server}: {tools} tools are approved in {file}, other things still differ"),
        (false, true) => format!("{server}: as approved in {file}, {tools} tools"),
        (false, false) => format!("{server}: not as approved in {file}"),
    }
}

fn ended(error: PinError) -> Failure {
    match error {
        PinError::Ask { .. } | PinError::Nothing { .. } | PinError::NotReviewed(_) => Failure::failed(error),
        other => Failure::invalid(other),
    }
}
