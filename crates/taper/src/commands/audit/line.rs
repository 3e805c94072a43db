//! A record as text for people.

use taper_capability::escaped;
use taper_service::clock::rfc3339;
use taper_store::{Outcome, RecordKind, RevocationKey, StoredRecord};

/// A record as one line of text: its number, its time and what happened.
pub(super) fn line(stored: &StoredRecord) -> String {
    let at = rfc3339(stored.record.at_ms.div_euclid(1000));
    let text = match &stored.record.kind {
        RecordKind::Grant(grant) => format!(
            "grant {} to {} ({}) by client {}: {}, until {}",
            grant.grant_id,
            grant.subject,
            grant.subject_iss,
            grant.client,
            grant.rights.join(" "),
            rfc3339(grant.expires_at)
        ),
        RecordKind::Revoked(record) => {
            let revocation = &record.revocation;
            let name = key(&revocation.what);
            format!(
                "revoked {} {name} for {}, number {}",
                revocation.what.kind(),
                record.by,
                revocation.seq
            )
        }
        RecordKind::Decision(decision) => {
            let outcome = match decision.outcome {
                Outcome::Allow => "allowed",
                Outcome::Deny => "denied",
                Outcome::Indeterminate => "undecided",
            };
            let resources = decision
                .resources
                .iter()
                .map(|(kind, value)| format!(" {kind}={value}"));
            format!(
                "{outcome} {} {}{}{} to {} at depth {} of grant {}{}{}",
                decision.server,
                decision.method,
                decision
                    .tool
                    .as_ref()
                    .map(|tool| format!(" {tool}"))
                    .unwrap_or_default(),
                resources.collect::<String>(),
                decision.holder_jkt,
                decision.depth,
                decision.grant_id,
                decision
                    .rule
                    .as_ref()
                    .map(|rule| format!(", rule {rule}"))
                    .unwrap_or_default(),
                match decision.counted.len() {
                    0 => String::new(),
                    1 => ", counted".to_owned(),
                    n => format!(", counted by {n} caveats"),
                }
            )
        }
        RecordKind::Policy { digest, files } => format!("policy {digest}: {}", files.join(" ")),
        RecordKind::Started { role } => format!("{role} started"),
    };
    format!("{:>6} {at} {}", stored.index, escaped(&text))
}

/// What a revocation names, without its kind.
pub(super) fn key(key: &RevocationKey) -> String {
    match key {
        RevocationKey::Grant(name)
        | RevocationKey::Branch(name)
        | RevocationKey::Holder(name)
        | RevocationKey::Client(name) => name.clone(),
        RevocationKey::Subject { iss, sub } => format!("{sub} ({iss})"),
        RevocationKey::Delegation { grant, from, to } => format!("from {from} to {to} of grant {grant}"),
    }
}
