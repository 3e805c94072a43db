//! The spans of a request, where its trace is recorded.

use taper_dpop::RuleId;
use taper_service::spans::Value;

use super::Account;
use super::parts::nanos;
use super::words::{Came, End, word};
use crate::traced::{self, Part, Trace};

impl Account {
    /// Hands in its spans: of them, the first says what the line says.
    pub(super) fn record(&self, trace: &Trace) {
        let server = self.measured.server_name(self.server);
        let what = self.method.as_deref().unwrap_or(self.kind.as_str());
        let chain = self
            .presentation
            .as_ref()
            .map(|presentation| presentation.chain());
        let holder = chain.map(|chain| chain.last_holder().thumbprint().to_string());
        let texts = [
            ("http.request.method", Some(self.http_method.as_str())),
            ("mcp.server", Some(server)),
            ("mcp.era", Some(self.era.as_str())),
            ("mcp.kind", Some(self.kind.as_str())),
            ("mcp.method.name", self.method.as_deref()),
            ("gen_ai.tool.name", self.tool.as_deref()),
            ("taper.outcome", self.came.map(Came::as_str)),
            ("taper.decision", self.decision.map(word)),
            ("taper.rule", self.rule.map(RuleId::as_str)),
            ("taper.end", self.end.map(End::as_str)),
            ("taper.cause", self.cut.get().map(|rule| rule.as_str())),
            ("taper.request.id", Some(self.request_id.as_str())),
            ("taper.grant.id", chain.map(|chain| chain.grant_id())),
            ("taper.holder", holder.as_deref()),
        ];
        let mut attributes: Vec<(&'static str, Value)> = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, Value::Text(text?.to_owned()))))
            .collect();
        if let Some(status) = self.status {
            let status = i64::from(status.as_u16());
            attributes.push(("http.response.status_code", Value::Number(status)));
        }
        let failed = matches!(self.came, Some(Came::Failed | Came::Undecided | Came::Panicked));
        let parts = [
            ("verify", self.phases.verify),
            ("decide", self.phases.decide),
            ("journal", self.phases.journal),
            (traced::UPSTREAM, self.phases.upstream),
        ];
        let parts = parts.into_iter().filter_map(|(name, phase)| {
            let phase = phase?;
            let start = nanos(phase.began.saturating_duration_since(self.started));
            let end = start.saturating_add(nanos(phase.took));
            Some(Part { name, start, end })
        });
        let whole = nanos(self.started.elapsed());
        trace.end(format!("{what} {server}"), attributes, failed, whole, parts);
    }
}
