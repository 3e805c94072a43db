use super::*;
use crate::revocation::{Revocation, RevocationKey};

/// A grant for tests.
pub(crate) fn grant(id: &str) -> GrantRecord {
    GrantRecord {
        issuer: "https://issuer.example".into(),
        grant_id: id.into(),
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "dev".into(),
        actor: None,
        holder_jkt: "h".repeat(43),
        audiences: vec!["https://proxy.example/git/mcp".into()],
        rights: vec!["git:git_log".into()],
        issued_at: 1_700_000_000,
        expires_at: 1_700_003_600,
        ends_at: None,
        renewal: false,
        max_depth: 3,
        policy_digest: "p".into(),
    }
}

/// A decision for tests.
/// A decision that may count calls.
pub(crate) fn allowed(id: &str) -> Record {
    let mut record = decision(id);
    if let RecordKind::Decision(decision) = &mut record.kind {
        decision.outcome = Outcome::Allow;
    }
    record
}

pub(crate) fn decision(id: &str) -> Record {
    Record {
        at_ms: 1_700_000_000_123,
        kind: RecordKind::Decision(DecisionRecord {
            decision_id: id.into(),
            outcome: Outcome::Deny,
            rule: Some("P-01".into()),
            reason: None,
            issuer: "https://issuer.example".into(),
            grant_id: "g".into(),
            holder_jkt: "h".into(),
            depth: 1,
            links: vec![LinkRecord {
                holder_jkt: "h".into(),
                depth: 0,
            }],
            subject_iss: "https://idp.example".into(),
            subject: "alice".into(),
            client: "dev".into(),
            server: "git".into(),
            method: "tools/call".into(),
            tool: Some("git_log".into()),
            resources: vec![("repo".into(), "acme/web".into())],
            body_sha256: None,
            token_sha256: "t".into(),
            policy_digest: "p".into(),
            client_ip: Some("127.0.0.1".parse().unwrap()),
            counted: Vec::new(),
        }),
    }
}

#[test]
fn every_kind_round_trips_as_tagged_json() {
    let revocation = |what| {
        RecordKind::Revoked(RevocationRecord {
            revocation: Revocation {
                seq: 1,
                at: 2,
                issuer: "i".into(),
                what,
                until: Some(3),
            },
            by: "admin".into(),
            under: None,
            history: [4; 32],
        })
    };
    let subject = RevocationKey::Subject {
        iss: "i".into(),
        sub: "s".into(),
    };
    for (kind, tag) in [
        (RecordKind::Grant(grant("g")), "grant"),
        (revocation(RevocationKey::Grant("g".into())), "revoked"),
        (revocation(subject), "revoked"),
        (decision("d").kind, "decision"),
        (
            RecordKind::Policy {
                digest: "d".into(),
                files: vec!["a.biscuit".into()],
            },
            "policy",
        ),
        (RecordKind::Started { role: "proxy".into() }, "started"),
    ] {
        let record = Record { at_ms: 5, kind };
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["kind"], tag);
        assert_eq!(json["at_ms"], 5);
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }
}

#[test]
fn keys_have_one_spelling() {
    let check = |key: RevocationKey, good: bool| assert_eq!(key.check().is_ok(), good, "{key:?}");
    check(RevocationKey::Grant("g".into()), true);
    check(RevocationKey::Grant(String::new()), false);
    check(RevocationKey::Branch("0f".repeat(32)), true);
    check(RevocationKey::Branch("0F".repeat(32)), false);
    check(RevocationKey::Branch("0f".repeat(31)), false);
    check(RevocationKey::Holder("A".repeat(43)), true);
    check(RevocationKey::Holder(format!("{}B", "A".repeat(42))), false);
    check(RevocationKey::Holder(format!("{}=", "A".repeat(43))), false);
    check(RevocationKey::Client("c".into()), true);
    check(
        RevocationKey::Subject {
            iss: "i".into(),
            sub: String::new(),
        },
        false,
    );
}

#[test]
fn fingerprints_do_not_run_together() {
    let a = RevocationKey::Subject {
        iss: "ab".into(),
        sub: "c".into(),
    };
    let b = RevocationKey::Subject {
        iss: "a".into(),
        sub: "bc".into(),
    };
    assert_ne!(a.fingerprint("i"), b.fingerprint("i"));
    let grant = RevocationKey::Grant("x".into());
    assert_ne!(
        grant.fingerprint("i"),
        RevocationKey::Client("x".into()).fingerprint("i")
    );
    assert_ne!(grant.fingerprint("i"), grant.fingerprint("j"));
}
