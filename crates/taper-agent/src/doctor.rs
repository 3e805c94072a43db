//! Finds out what is wrong between an agent, its issuer and a proxy: one finding for each thing that has to
//! be right, with the next thing to do.
//!
//! Everything is asked as an agent asks it; nothing is changed. The only call to the server behind the
//! proxy is one that every capability may make.

mod date;
mod files;
mod network;
mod renewal;

use std::path::PathBuf;

use serde::Serialize;
use taper_capability::{Token, UnverifiedToken};
use taper_service::clock::SharedClock;

use crate::wallet::SubjectToken;
use crate::{HolderKey, KeySource};

/// What is looked at; what is not known is not, and the findings say so.
#[derive(Clone, Debug, Default)]
pub struct Patient {
    /// The issuer's URL; the capability's own without it.
    pub issuer: Option<String>,
    /// The client's id.
    pub client_id: Option<String>,
    /// The URL of an MCP server, as its proxy gives it.
    pub url: Option<String>,
    /// A file with the capability.
    pub token: Option<PathBuf>,
    /// The holder's key.
    pub key: Option<KeySource>,
    /// A wallet, in place of file and key.
    pub wallet: Option<PathBuf>,
    /// The file with the client's secret.
    pub client_secret_file: Option<PathBuf>,
    /// Where the access token comes from that is exchanged for a capability.
    pub subject: Option<SubjectToken>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is right.
    Ok,
    /// It works, and will not always.
    Warn,
    /// It does not work.
    Fail,
    /// It could not be looked at.
    Skipped,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            // What others said must not command a terminal.
            what: taper_capability::escaped(&what.into()),
            next: None,
        }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, what)
    }

    fn warn(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, what)
    }

    fn fail(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, what)
    }

    fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, what)
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(taper_capability::escaped(&next.into()));
        self
    }
}

/// What the files gave, as far as they did.
#[derive(Default)]
struct Known {
    issuer: Option<String>,
    url: Option<String>,
    token: Option<Token>,
    chain: Option<UnverifiedToken>,
    key: Option<HolderKey>,
    /// The capability is a wallet's, which renews it.
    is_renewed: bool,
    /// The capability has ended.
    has_ended: bool,
}

/// Looks at everything, in the order in which an agent needs it.
pub async fn examine(patient: &Patient, clock: SharedClock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known = files::examine(patient, clock.unix(), &mut findings).await;
    renewal::examine(patient, &known, clock.unix(), &mut findings).await;
    network::examine(&known, &clock, &mut findings).await;
    findings
}

#[cfg(test)]
mod tests;
