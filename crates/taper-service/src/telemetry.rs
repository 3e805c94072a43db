//! Logs: `tracing` events on stderr, as text for people or as one JSON object a line. A thread of its own
//! writes them; a program calls [`flush`] before it ends.

mod lines;

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

use self::lines::Lines;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people; coloured when stderr is a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How a line is written.
    pub format: Format,
    /// Directives such as `info` or `warn,taper_proxy=debug`.
    pub filter: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info".to_owned(),
        }
    }
}

pub use self::lines::{dropped, flush};

/// A log filter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{filter}` is not a log filter: {message}")]
pub struct TelemetryError {
    filter: String,
    message: String,
}

/// Starts logging for the whole process. A second call leaves the first one's settings in place, so
/// that several daemons can run in one process.
///
/// # Errors
/// [`TelemetryError`] when the filter cannot be read.
pub fn init(telemetry: &Telemetry) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&telemetry.filter)
        .map_err(|e| TelemetryError {
            filter: telemetry.filter.clone(),
            message: e.to_string(),
        })?;
    // Without a thread of its own a line is written where it is made.
    let queue = Lines::stderr().ok();
    let writer = move || -> Box<dyn std::io::Write> {
        match &queue {
            Some(queue) => Box::new(queue.clone()),
            None => Box::new(std::io::stderr()),
        }
    };
    let lines = match telemetry.format {
        Format::Text => fmt::layer()
            .with_writer(writer)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .boxed(),
    };
    let registry = Registry::default()
        .with(lines)
        .with(filter)
        .with(FilterFn::new(may_be_logged));
    // An error here means that a subscriber is set already, which is what "idempotent" asks for.
    let _ = registry.try_init();
    Ok(())
}

/// The trace level of HTTP and TLS libraries may show header values, which carry credentials.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || metadata.target().starts_with("taper")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_twice_is_fine_and_a_bad_filter_is_not() {
        let json = Telemetry {
            format: Format::Json,
            filter: "warn,taper_service=debug".to_owned(),
        };
        assert_eq!(init(&Telemetry::default()), Ok(()));
        assert_eq!(init(&json), Ok(()));
        let bad = Telemetry {
            filter: "taper=loud".to_owned(),
            ..Telemetry::default()
        };
        let message = init(&bad).unwrap_err().to_string();
        assert!(
            message.starts_with("`taper=loud` is not a log filter: "),
            "{message}"
        );
    }
}
