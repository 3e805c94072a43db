//! `taper demo`: the whole story, end to end, told so that a newcomer understands each step.
//!
//! It exits 0 only if every step came out as told, else with the name of the step that did not.

mod story;
mod wire;

use std::path::PathBuf;

use serde_json::json;
use taper_service::telemetry::{self, Telemetry};

use crate::context::{Context, run_on};
use crate::failure::{Failure, Kind};
use crate::world::World;
use story::Story;

const EMBARGO: &str = include_str!("../../policies/embargo.dl");

/// Arguments of `taper demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A new or empty folder that is kept; without it one is made and removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What is logged on stderr, such as `info` or `taper_proxy=debug`.
    #[arg(long, value_name = "FILTER", default_value = "off")]
    log: String,
}

/// Tells the story.
pub(crate) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::new(Kind::Failure, format!("{error:#}"));
    let logs = Telemetry {
        filter: args.log.clone(),
        ..Telemetry::default()
    };
    telemetry::init(&logs).map_err(|error| Failure::new(Kind::Usage, error))?;
    let (dir, kept) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (temporary(), false),
    };
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(
            Kind::Usage,
            format!("{} is not empty; the demo wants a new folder", dir.display()),
        ));
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::new(Kind::Failure, error))?;
    let result: Result<Vec<&'static str>, Failure> = run_on(&runtime, async {
        let clock = context.clock();
        let world = World::start(&dir, 0, Some(EMBARGO), clock.clone())
            .await
            .map_err(failed)?;
        let mut story = Story::new(&world, clock, context);
        let told = story.tell().await;
        let steps = story.steps();
        let stopped = world.stop().await;
        told?;
        stopped.map_err(failed)?;
        Ok(steps)
    });
    if !kept && let Err(error) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(%error, "the demo's folder could not be removed");
    }
    let steps = result?;
    let kept = if kept {
        format!("\nEverything is kept in {}.", dir.display())
    } else {
        String::new()
    };
    context.result(
        format!("\nAll {} steps came out as told.{kept}\nNext: `taper up` leaves the same running and says what to type.", steps.len()),
        &json!({ "ok": true, "steps": steps }),
    )
}

fn temporary() -> PathBuf {
    let id = taper_service::rng::random_id_128(&mut taper_service::rng::os());
    std::env::temp_dir().join(format!("taper-demo-{id}"))
}
