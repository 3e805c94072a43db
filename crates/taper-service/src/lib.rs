//! What every daemon does alike, and nothing that knows a domain word.
//!
//! | module | purpose |
//! |---|---|
//! | [`clock`] | the only reader of the wall clock; dates and durations as text |
//! | [`rng`] | the only source of randomness |
//! | [`config`] | TOML with `file:line:column`, refused unknown keys, secrets by reference |
//! | [`secret`] | values that cannot print, files that only their owner can read |
//! | [`telemetry`] | logs on stderr |
//! | [`metrics`] | counters, gauges and durations for operators |
//! | [`spans`] | traces for OpenTelemetry |
//! | [`shutdown`] | tracked tasks, signals, draining; the only way to start a task |
//! | [`disk`] | what a journal takes of its disk |
//! | [`edge`] | the HTTP listener with its limits |
//! | [`fetch`] | guarded outbound HTTP |
//! | [`files`] | how many files may be open |
//! | [`health`] | the answer to `/readyz` |
//! | [`pool`] | bounded CPU work off the runtime |
//! | [`process`] | memory, time and files of the process |
//! | [`suggest`] | "did you mean" |

pub mod clock;
pub mod config;
pub mod disk;
pub mod edge;
pub mod fetch;
pub mod files;
pub mod health;
pub mod metrics;
pub mod pool;
pub mod process;
pub mod rng;
pub mod secret;
pub mod shutdown;
pub mod spans;
pub mod suggest;
pub mod telemetry;
