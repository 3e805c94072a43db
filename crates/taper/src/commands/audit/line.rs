//! A record as text for people.

use taper_capability::escaped;
use taper_service::clock::rfc3339;
use taper_store::{Carried, Outcome, RecordKind, RefreshEnd, RevocationKey, RootKeyRecord, StoredRecord};

/// A record as one line of text: its number, its time and what happened.
pub(super) fn line(stored: &StoredRecord) -> String {
    let at = rfc3339(stored.record.at_ms.div_euclid(1000));
    format!("{:>6} {at} {}", stored.index, said(&stored.record.kind))
}

/// What happened, in one line in which nothing can deceive.
pub(super) fn said(kind: &RecordKind) -> String {
    escaped(&text(kind))
}

/// What happened. What others chose stands in it as it is, not escaped.
pub(super) fn text(kind: &RecordKind) -> String {
    match kind {
        RecordKind::Grant(grant) => format!(
            "grant {} {}to {} ({}) by client {}: {}, until {}",
            grant.grant_id,
            if grant.renewal { "renewed " } else { "" },
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
        RecordKind::Client(client) => format!(
            "client {} {}, authenticates by {}, configuration {}",
            client.client,
            if client.removed { "removed" } else { "configured" },
            client.method,
            client.digest
        ),
        RecordKind::RootKeys(record) => {
            let key = |key: &RootKeyRecord| format!(" {} ({})", key.id, key.thumbprint);
            let keys: String = record.keys.iter().map(key).collect();
            format!("root keys in force:{keys}")
        }
        RecordKind::Refresh(family) => {
            let what = match family.ended {
                None if family.rotations == 0 => "begun".to_owned(),
                None => format!("rotated for the {}. time", family.rotations),
                Some(RefreshEnd::Reused) => "ended: a used token was presented".to_owned(),
                Some(RefreshEnd::Ended) => "ended".to_owned(),
            };
            format!("refresh family of grant {} {what}", family.grant_id)
        }
        RecordKind::Carried { state } => format!("carried over: {}", carried(state)),
        RecordKind::Retired(retired) => {
            format!(
                "records {} to {} dropped",
                retired.first,
                retired.end.saturating_sub(1)
            )
        }
        RecordKind::Repaired(repaired) => {
            let lost: u64 = repaired
                .lost
                .iter()
                .map(|(first, end)| end.saturating_sub(*first))
                .sum();
            format!(
                "journal {} of {} records was damaged and set aside, {lost} records lost",
                repaired.origin, repaired.size
            )
        }
    }
}

fn carried(state: &Carried) -> String {
    match state {
        Carried::Grant(grant) => format!("grant {}", grant.grant_id),
        Carried::Revocation(record) => format!("revocation {}", record.revocation.seq),
        Carried::Counter { calls, .. } | Carried::Count { calls, .. } => {
            format!("a counter of {calls} calls")
        }
        Carried::Client(client) => format!("client {}", client.client),
        Carried::RootKeys(_) => "root keys".to_owned(),
        Carried::Refresh { family, .. } => format!("refresh family of grant {}", family.grant_id),
        Carried::Feed { seq, .. } => format!("the feed up to number {seq}"),
    }
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
