//! Which records are meant.

use taper_store::{Outcome, Record, RecordKind, RevocationKey};

use super::super::restrictions::time;
use crate::failure::Failure;

/// Filters of `taper audit show|export`; a record passes when all that are given fit. A filter by
/// something that a kind of record does not have leaves that kind out.
#[derive(Debug, Default, Clone, clap::Args)]
pub(super) struct Selection {
    /// Only what concerns this grant.
    #[arg(long, value_name = "ID")]
    grant: Option<String>,
    /// Only what concerns this key, by its thumbprint: first holder, presenter or any link between.
    #[arg(long, value_name = "THUMBPRINT")]
    holder: Option<String>,
    /// Only what was done for this subject, or to it.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only decisions about this tool, as TOOL or SERVER:TOOL.
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// Only decisions that ended so, or the one of this id.
    #[arg(long, value_name = "allow|deny|indeterminate|ID")]
    decision: Option<String>,
    /// Only records of this time or later, in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Only records before this time, in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<i64>,
}

impl Selection {
    /// Refuses what could never fit.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.since, self.before) {
            (Some(since), Some(before)) if before <= since => {
                Err(Failure::usage("`--before` is not later than `--since`"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a record is meant.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let at = record.at_ms.div_euclid(1000);
        let kind = &record.kind;
        self.since.is_none_or(|since| at >= since)
            && self.before.is_none_or(|before| at < before)
            && self.grant.as_deref().is_none_or(|grant| is_of_grant(kind, grant))
            && self.holder.as_deref().is_none_or(|jkt| names_holder(kind, jkt))
            && self.subject.as_deref().is_none_or(|sub| names_subject(kind, sub))
            && self.tool.as_deref().is_none_or(|tool| is_of_tool(kind, tool))
            && self
                .decision
                .as_deref()
                .is_none_or(|wanted| is_decision(kind, wanted))
    }
}

fn is_of_grant(kind: &RecordKind, id: &str) -> bool {
    match kind {
        RecordKind::Grant(grant) => grant.grant_id == id,
        RecordKind::Decision(decision) => decision.grant_id == id,
        RecordKind::Revoked(record) => match &record.revocation.what {
            RevocationKey::Grant(grant) | RevocationKey::Delegation { grant, .. } => grant == id,
            _ => false,
        },
        _ => false,
    }
}

fn names_holder(kind: &RecordKind, jkt: &str) -> bool {
    match kind {
        RecordKind::Grant(grant) => grant.holder_jkt == jkt,
        RecordKind::Decision(decision) => {
            decision.holder_jkt == jkt || decision.links.iter().any(|link| link.holder_jkt == jkt)
        }
        RecordKind::Revoked(record) => match &record.revocation.what {
            RevocationKey::Holder(holder) => holder == jkt,
            RevocationKey::Delegation { from, to, .. } => from == jkt || to == jkt,
            _ => false,
        },
        _ => false,
    }
}

fn names_subject(kind: &RecordKind, subject: &str) -> bool {
    match kind {
        RecordKind::Grant(grant) => grant.subject == subject,
        RecordKind::Decision(decision) => decision.subject == subject,
        RecordKind::Revoked(record) => {
            matches!(&record.revocation.what, RevocationKey::Subject { sub, .. } if sub == subject)
        }
        _ => false,
    }
}

fn is_of_tool(kind: &RecordKind, wanted: &str) -> bool {
    let RecordKind::Decision(decision) = kind else {
        return false;
    };
    let Some(tool) = &decision.tool else { return false };
    match wanted.split_once(':') {
        Some((server, name)) => decision.server == server && tool == name,
        None => tool == wanted,
    }
}

fn is_decision(kind: &RecordKind, wanted: &str) -> bool {
    let RecordKind::Decision(decision) = kind else {
        return false;
    };
    match wanted {
        "allow" => decision.outcome == Outcome::Allow,
        "deny" => decision.outcome == Outcome::Deny,
        "indeterminate" => decision.outcome == Outcome::Indeterminate,
        id => decision.decision_id == id,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use taper_store::{NO_HISTORY, Revocation, RevocationRecord};

    use super::super::tests::decision;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn revoked(what: RevocationKey) -> Record {
        let revocation = Revocation {
            seq: 1,
            at: 0,
            issuer: "https://issuer.example".into(),
            what,
            until: None,
        };
        let (by, history) = ("admin".into(), NO_HISTORY);
        Record {
            at_ms: 0,
            kind: RecordKind::Revoked(RevocationRecord {
                revocation,
                by,
                under: None,
                history,
            }),
        }
    }

    #[test]
    fn each_filter_takes_what_it_names_and_nothing_else() {
        let check = |record: &Record, arguments: &str, taken: bool| {
            let line = Line::try_parse_from(format!("x {arguments}").split_whitespace()).unwrap();
            assert_eq!(line.selection.takes(record), taken, "{arguments}");
        };
        let decision = decision();
        for taken in [
            "",
            "--grant g1",
            "--holder last",
            "--holder first",
            "--subject alice",
            "--tool git_log",
            "--tool git:git_log",
            "--decision deny",
            "--decision d1",
            "--since 2026-01-31T09:30:00Z",
            "--before 2026-01-31T09:30:01Z",
            "--grant g1 --subject alice --tool git_log --decision deny",
        ] {
            check(&decision, taken, true);
        }
        for left in [
            "--grant g2",
            "--holder other",
            "--subject bob",
            "--tool git_show",
            "--tool hub:git_log",
            "--decision allow",
            "--decision indeterminate",
            "--decision d2",
            "--since 2026-01-31T09:30:01Z",
            "--before 2026-01-31T09:30:00Z",
            "--grant g1 --subject bob",
        ] {
            check(&decision, left, false);
        }
        let of_grant = revoked(RevocationKey::Grant("g1".into()));
        check(&of_grant, "--grant g1", true);
        check(&of_grant, "--tool git_log", false);
        let delegation = revoked(RevocationKey::Delegation {
            grant: "g1".into(),
            from: "a".into(),
            to: "b".into(),
        });
        for taken in ["--grant g1", "--holder a", "--holder b"] {
            check(&delegation, taken, true);
        }
        let subject = revoked(RevocationKey::Subject {
            iss: "https://idp.example".into(),
            sub: "alice".into(),
        });
        check(&subject, "--subject alice", true);
        check(&subject, "--grant alice", false);
    }

    #[test]
    fn an_empty_span_of_time_is_refused() {
        let line = "x --since 2026-01-31T09:30:00Z --before 2026-01-31T09:30:00Z";
        let line = Line::try_parse_from(line.split_whitespace()).unwrap();
        assert!(line.selection.check().is_err());
    }
}
