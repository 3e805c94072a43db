//! The line of a request in the log.
//!
//! It says what a check admitted, never a header or an argument. The target is `taper::request`. What is
//! refused before there is a presentation, or because its proof was used before, anybody can cause: such
//! lines are of the debug level beyond so many a second, counted, and without spans (RULES 30).

use std::time::Duration;

use taper_dpop::RuleId;
use taper_dpop::rule::r;

use super::Account;
use super::parts::{Phase, nanos};
use super::words::{Came, End, Kind, word};
use crate::rules;

/// Levels of the line, as parameters.
const DEBUG: u8 = 0;
const INFO: u8 = 1;
const WARN: u8 = 2;

impl Account {
    /// Whether anybody could have caused it, who has no key or only a captured request: then it may be one of
    /// a flood.
    fn is_anybodys(&self) -> bool {
        self.presentation.is_none() || self.rule == Some(r::REPLAY)
    }

    /// Writes the line. Whether it is one of the usual level or above.
    pub(super) fn write(&self) -> bool {
        let is_trouble =
            matches!(self.came, Some(Came::Failed | Came::Panicked)) || self.rule == Some(rules::AUDIT);
        if self.kind == Kind::Health {
            self.line::<DEBUG>();
            return false;
        }
        if self.is_anybodys() && !self.measured.may_tell() {
            self.measured.quiet_lines.add();
            self.line::<DEBUG>();
            return false;
        }
        if is_trouble {
            self.line::<WARN>();
        } else {
            self.line::<INFO>();
        }
        true
    }

    fn line<const LEVEL: u8>(&self) {
        macro_rules! line {
            ($($fields:tt)*) => {
                if LEVEL == WARN {
                    tracing::warn!(target: "taper::request", { $($fields)* }, "request");
                } else if LEVEL == INFO {
                    tracing::info!(target: "taper::request", { $($fields)* }, "request");
                } else {
                    tracing::debug!(target: "taper::request", { $($fields)* }, "request");
                }
            };
        }
        let is_on = if LEVEL == WARN {
            tracing::enabled!(target: "taper::request", tracing::Level::WARN)
        } else if LEVEL == INFO {
            tracing::enabled!(target: "taper::request", tracing::Level::INFO)
        } else {
            tracing::enabled!(target: "taper::request", tracing::Level::DEBUG)
        };
        if !is_on {
            return;
        }
        let chain = self
            .presentation
            .as_ref()
            .map(|presentation| presentation.chain());
        let holder = chain.map(|chain| chain.last_holder().thumbprint().to_string());
        let subject = chain
            .filter(|_| self.names_subject)
            .map(|chain| chain.subject().sub.as_str());
        let us = |took: Option<Duration>| took.map(|took| nanos(took) / 1000);
        let took = |phase: Option<Phase>| us(phase.map(|phase| phase.took));
        line!(
            mcp.server = self.measured.server_name(self.server),
            mcp.era = self.era.as_str(),
            mcp.kind = self.kind.as_str(),
            mcp.method = self.method.as_deref(),
            mcp.tool = self.tool.as_deref(),
            outcome = self.came.map(Came::as_str),
            decision = self.decision.map(word),
            rule = self.rule.map(RuleId::as_str),
            reason = self.reason.as_deref(),
            http.status = self.status.map(|status| status.as_u16()),
            end = self.end.map(End::as_str),
            cause = self.cut.get().map(|rule| rule.as_str()),
            request.id = self.request_id,
            trace.id = self.trace_id.as_deref(),
            grant.id = chain.map(|chain| chain.grant_id()),
            holder = holder.as_deref(),
            certificate = self.certificate.map(tracing::field::display),
            subject,
            bytes.received = self.received,
            bytes.sent = self.sent,
            us.queue = us(self.phases.queue),
            us.verify = took(self.phases.verify),
            us.decide = took(self.phases.decide),
            us.journal = took(self.phases.journal),
            us.upstream = took(self.phases.upstream),
            us.head = us(self.phases.head),
            us.whole = us(Some(self.started.elapsed())),
        );
    }
}
