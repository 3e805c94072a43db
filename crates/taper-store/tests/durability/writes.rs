//! The kinds of write that a store acknowledges, each under an id of the test's, and how to find it
//! again in the journal and in the state.

use std::collections::HashMap;
use std::path::Path;

use taper_store::{
    Audit as _, CallCounters as _, CounterKey, DecisionRecord, EmbeddedStore, GrantRecord, Grants as _,
    NewRevocation, Outcome, Record, RecordKind, RevocationKey, Revocations as _, Seen, SeenProofs as _,
    StoreError, read_records,
};

use crate::NOW;

pub(crate) const ISSUER: &str = "https://issuer.example";

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A plain record: one decision.
    Record,
    /// A new grant.
    Grant,
    /// A grant and then its renewal; the renewal is acknowledged.
    Renewal,
    /// A revocation.
    Revoked,
    /// The decision of a call that counts.
    Counted,
    /// A seen proof. It lies in no journal.
    Proof,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Record,
        Self::Grant,
        Self::Renewal,
        Self::Revoked,
        Self::Counted,
        Self::Proof,
    ];

    /// Its name, which ids start with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Grant => "grant",
            Self::Renewal => "renewal",
            Self::Revoked => "revoked",
            Self::Counted => "counted",
            Self::Proof => "proof",
        }
    }

    /// The kind of an id.
    pub(crate) fn of(id: &str) -> Option<Self> {
        let name = id.split('-').next()?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Writes something of this kind under `id`. The number that the store acknowledges: of a
    /// revocation the place in the feed, of a record the place in the journal.
    pub(crate) async fn write(self, store: &EmbeddedStore, id: &str) -> Result<u64, StoreError> {
        match self {
            Self::Record => Ok(store.append(decision(id)).await?.index),
            Self::Grant => Ok(store.insert_grant(grant(id, FIRST_END)).await?.index),
            Self::Renewal => {
                store.insert_grant(grant(id, FIRST_END)).await?;
                Ok(store.insert_grant(grant(id, RENEWED_END)).await?.index)
            }
            Self::Revoked => store.revoke(revocation(id)).await,
            Self::Counted => {
                let calls = store.reserve(ISSUER, &[COUNTER.into()])?;
                Ok(store.append_counted(decision(id), calls).await?.index)
            }
            Self::Proof => match store.insert_once("g", [0; 32], id, i64::MAX, NOW)? {
                Seen::Fresh => Ok(0),
                other => panic!("`{id}` is new, and it is {other:?}"),
            },
        }
    }

    /// Whether the state has what was written under `id`.
    pub(crate) async fn is_in_state(self, store: &EmbeddedStore, id: &str) -> bool {
        match self {
            Self::Record | Self::Counted => true,
            Self::Grant => store.grant(ISSUER, id).await.unwrap() == Some(grant(id, FIRST_END)),
            Self::Renewal => store.grant(ISSUER, id).await.unwrap() == Some(grant(id, RENEWED_END)),
            Self::Revoked => {
                let keys = [revocation(id).what];
                store.is_revoked(ISSUER, &keys).await.unwrap().is_some()
            }
            Self::Proof => store.insert_once("g", [0; 32], id, i64::MAX, NOW).unwrap() == Seen::Replay,
        }
    }
}

/// What counts the calls of [`Kind::Counted`].
const COUNTER: CounterKey = CounterKey {
    branch: [2; 32],
    index: 0,
};
const FIRST_END: i64 = NOW + 3600;
const RENEWED_END: i64 = NOW + 7200;

/// One that allows a call.
pub(crate) fn decision(id: &str) -> Record {
    let kind = RecordKind::Decision(DecisionRecord {
        decision_id: id.into(),
        outcome: Outcome::Allow,
        rule: None,
        reason: None,
        issuer: ISSUER.into(),
        grant_id: "g".into(),
        holder_jkt: "h".into(),
        depth: 0,
        links: Vec::new(),
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "agents".into(),
        server: "git".into(),
        method: "tools/call".into(),
        tool: Some("git_log".into()),
        resources: Vec::new(),
        body_sha256: None,
        token_sha256: "t".into(),
        policy_digest: "p".into(),
        client_ip: None,
        counted: Vec::new(),
    });
    Record {
        at_ms: NOW * 1000,
        kind,
    }
}

fn grant(id: &str, expires_at: i64) -> GrantRecord {
    GrantRecord {
        issuer: ISSUER.into(),
        grant_id: id.into(),
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "agents".into(),
        actor: None,
        holder_jkt: "h".into(),
        audiences: vec!["https://mcp.example/git".into()],
        rights: vec!["git:*".into()],
        issued_at: NOW,
        expires_at,
        ends_at: None,
        renewal: false,
        max_depth: 3,
        policy_digest: "p".into(),
    }
}

fn revocation(id: &str) -> NewRevocation {
    NewRevocation {
        at: NOW,
        issuer: ISSUER.into(),
        what: RevocationKey::Grant(id.into()),
        until: None,
        by: "admin".into(),
    }
}

/// What lies in a journal: of each id the numbers that its write can have been acknowledged with.
#[derive(Debug, Default)]
pub(crate) struct Written {
    numbers: HashMap<String, Vec<u64>>,
    /// Records in it.
    pub(crate) records: u64,
    /// Decisions that count under [`COUNTER`].
    counted: u64,
}

impl Written {
    /// Reads the journal of `dir`.
    pub(crate) fn read(dir: &Path) -> Self {
        let (mut written, mut last) = (Self::default(), 0);
        for stored in read_records(dir).unwrap() {
            let stored = stored.unwrap();
            written.records += 1;
            let (id, number) = match stored.record.kind {
                RecordKind::Decision(decision) => {
                    written.counted += u64::from(decision.counted.contains(&COUNTER.into()));
                    (decision.decision_id, stored.index)
                }
                RecordKind::Grant(grant) => match Kind::of(&grant.grant_id) {
                    Some(Kind::Renewal) if grant.expires_at == FIRST_END => continue,
                    _ => (grant.grant_id, stored.index),
                },
                RecordKind::Revoked(record) => {
                    let revocation = record.revocation;
                    assert!(revocation.seq > last, "the feed's numbers go on: {revocation:?}");
                    last = revocation.seq;
                    match revocation.what {
                        RevocationKey::Grant(id) => (id, revocation.seq),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            written.numbers.entry(id).or_default().push(number);
        }
        written
    }

    /// Whether `id` is there as it was acknowledged.
    pub(crate) fn has(&self, id: &str, number: u64) -> bool {
        self.numbers
            .get(id)
            .is_some_and(|numbers| numbers.contains(&number))
    }

    /// The ids in it.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.numbers.keys().map(String::as_str)
    }

    /// Whether the store counts as many calls as the journal has.
    pub(crate) fn counts_agree(&self, store: &EmbeddedStore) -> bool {
        store.reserve(ISSUER, &[COUNTER.into()]).unwrap().values() == [self.counted + 1]
    }
}
