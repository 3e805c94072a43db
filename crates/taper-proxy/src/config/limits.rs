//! What one server may be asked for: sizes, times, how much at once, how often.

use std::time::Duration;

use serde::Deserialize;
use taper_service::config::duration;

/// Sizes, times and places of one server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// How long a request body may take to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Request bodies that are being read at once; one grant has at most half of them.
    pub max_bodies: usize,
    /// The largest list or event that is held to be filtered, and a program's longest line, in bytes.
    pub max_list: usize,
    /// How long connecting to the upstream may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long the upstream may take to begin its answer.
    #[serde(with = "duration")]
    pub answer_timeout: Duration,
    /// How long an answer that is no event stream may be silent before its end.
    #[serde(with = "duration")]
    pub answer_idle: Duration,
    /// How long an event stream may be silent. Default: as long as it likes.
    #[serde(with = "optional_duration")]
    pub stream_idle: Option<Duration>,
    /// How long a caller may take for each 64 KiB of its answer, before the answer is cut.
    #[serde(with = "duration")]
    pub caller_idle: Duration,
    /// Sessions that are remembered. One grant has at most a sixteenth, but 16; the least recently used
    /// leave.
    pub max_sessions: usize,
    /// Tasks that are remembered, shared out like sessions.
    pub max_tasks: usize,
    /// Requests that run at once, from their decision to the end of their answers, streams apart.
    pub max_running: usize,
    /// Of them, those of one grant.
    pub max_running_per_grant: usize,
    /// Of them, those of one last holder.
    pub max_running_per_holder: usize,
    /// Streams that are open at once: answers to GET and to `subscriptions/listen`.
    pub max_streams: usize,
    /// Of them, those of one grant.
    pub max_streams_per_grant: usize,
    /// Of them, those of one last holder.
    pub max_streams_per_holder: usize,
    /// Decisions of one last holder that may run into an evaluation limit in a minute, before the rest of
    /// the minute is refused (RULES 11).
    pub max_undecided_per_holder: u32,
    /// The same for one grant, whoever holds it.
    pub max_undecided_per_grant: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            max_bodies: 256,
            max_list: 4 * 1024 * 1024,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(300),
            answer_idle: Duration::from_secs(60),
            stream_idle: None,
            caller_idle: Duration::from_secs(60),
            max_sessions: 10_000,
            max_tasks: 10_000,
            max_running: 1024,
            max_running_per_grant: 512,
            max_running_per_holder: 128,
            max_streams: 1024,
            max_streams_per_grant: 256,
            max_streams_per_holder: 32,
            max_undecided_per_holder: 10,
            max_undecided_per_grant: 100,
        }
    }
}

impl Limits {
    /// The keys that hold a number of things at once, with their values.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("max_bodies", self.max_bodies as u64),
            ("max_running", self.max_running as u64),
            ("max_running_per_grant", self.max_running_per_grant as u64),
            ("max_running_per_holder", self.max_running_per_holder as u64),
            ("max_streams", self.max_streams as u64),
            ("max_streams_per_grant", self.max_streams_per_grant as u64),
            ("max_streams_per_holder", self.max_streams_per_holder as u64),
            (
                "max_undecided_per_holder",
                u64::from(self.max_undecided_per_holder),
            ),
            ("max_undecided_per_grant", u64::from(self.max_undecided_per_grant)),
        ]
    }
}

/// How many requests a server takes in a time. What is not set has no rate.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Of one last holder: issuer and key.
    pub per_holder: Option<Rate>,
    /// Of one grant, whoever holds it.
    pub per_grant: Option<Rate>,
    /// Of one subject, over all its grants.
    pub per_subject: Option<Rate>,
    /// Of one address, without a token: only with `discovery = "catalogue"`. Default 20 a second, 200 at
    /// once.
    pub per_address: Option<Rate>,
}

/// Such as `{ requests = 100, per = "1s", burst = 200 }`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many requests, spread evenly over `per`.
    pub requests: u32,
    /// The time for them.
    #[serde(with = "duration")]
    pub per: Duration,
    /// How many may come at once after a pause. Default: `requests`.
    #[serde(default)]
    pub burst: Option<u32>,
}

mod optional_duration {
    use super::{Deserialize, Duration, duration};
    use serde::Deserializer;

    #[derive(Deserialize)]
    struct Written(#[serde(with = "duration")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Duration>, D::Error> {
        Written::deserialize(text).map(|written| Some(written.0))
    }
}
