//! The kinds of write that a store acknowledges, each under an id of the test's, and how to find it
//! again in the journal and in the state.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use taper_store::{
    Audit as _, CallCounters as _, ClientRecord, Clients as _, CounterKey, DecisionRecord, EmbeddedStore,
    GrantRecord, Grants as _, NewRevocation, Outcome, Record, RecordKind, RefreshFamilies as _,
    RevocationKey, Revocations as _, Rotation, Seen, SeenProofs as _, StoreError, TokenHash, read_records,
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
    /// A client's configuration.
    Client,
    /// A grant, its refresh family, and the first rotation; that is acknowledged.
    Rotated,
    /// A grant, its refresh family, and the end of it; that is acknowledged.
    Ended,
    /// A seen proof. It lies in no journal.
    Proof,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Record,
        Self::Grant,
        Self::Renewal,
        Self::Revoked,
        Self::Counted,
        Self::Client,
        Self::Rotated,
        Self::Ended,
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
            Self::Client => "client",
            Self::Rotated => "rotated",
            Self::Ended => "ended",
            Self::Proof => "proof",
        }
    }

    /// How many records a write of this kind makes; the last one is acknowledged.
    pub(crate) fn records(self) -> usize {
        match self {
            Self::Record | Self::Grant | Self::Revoked | Self::Counted | Self::Client => 1,
            Self::Renewal => 2,
            Self::Rotated | Self::Ended => 3,
            Self::Proof => 0,
        }
    }

    /// Whether it is acknowledged with the number of its record in the journal.
    fn is_numbered_in_journal(self) -> bool {
        match self {
            Self::Record | Self::Grant | Self::Renewal | Self::Counted | Self::Client => true,
            Self::Revoked | Self::Rotated | Self::Ended | Self::Proof => false,
        }
    }

    /// The kind of an id.
    pub(crate) fn of(id: &str) -> Option<Self> {
        let name = id.split('-').next()?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Writes something of this kind under `id`. The number that the store acknowledges: of a
    /// revocation the place in the feed, of a refresh family how often it was rotated, of other records
    /// the place in the journal.
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
            Self::Client => {
                let receipt = store.put_client(client(id)).await?;
                Ok(receipt.expect("it is new").index)
            }
            Self::Rotated => {
                begin_family(store, id).await?;
                match store.rotate(token(id, 0), token(id, 1)).await? {
                    Rotation::Rotated(family) => Ok(family.rotations),
                    other => panic!("`{id}` is new, and it is {other:?}"),
                }
            }
            Self::Ended => {
                begin_family(store, id).await?;
                assert!(store.end_family(token(id, 0)).await?);
                Ok(0)
            }
            Self::Proof => match store.insert_once("g", [0; 32], id, NOW + 60, NOW)? {
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
            Self::Client => store.client(ISSUER, id).await.unwrap() == Some(client(id)),
            Self::Rotated => {
                // Only a rotation makes the second token known.
                let again = store.begin_family(ISSUER, id, token(id, 1), FIRST_END).await;
                matches!(again, Err(StoreError::TokenKnown))
            }
            Self::Ended => {
                let rotation = store.rotate(token(id, 0), token(id, 1)).await.unwrap();
                rotation == Rotation::Ended
            }
            Self::Proof => store.insert_once("g", [0; 32], id, NOW + 60, NOW).unwrap() == Seen::Replay,
        }
    }

    /// What can be asked only once: a rotated token that comes again is noticed.
    pub(crate) async fn is_final(self, store: &EmbeddedStore, id: &str) -> bool {
        match self {
            Self::Rotated => {
                let rotation = store.rotate(token(id, 0), token(id, 2)).await.unwrap();
                matches!(rotation, Rotation::Reused(_))
            }
            _ => true,
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
        ends_at: Some(RENEWED_END),
        renewal: expires_at == RENEWED_END,
        max_depth: 3,
        policy_digest: "p".into(),
    }
}

fn client(id: &str) -> ClientRecord {
    ClientRecord {
        issuer: ISSUER.into(),
        client: id.into(),
        method: "none".into(),
        digest: "d".into(),
        removed: false,
    }
}

async fn begin_family(store: &EmbeddedStore, id: &str) -> Result<(), StoreError> {
    store.insert_grant(grant(id, FIRST_END)).await?;
    store
        .begin_family(ISSUER, id, token(id, 0), FIRST_END)
        .await
        .map(drop)
}

/// The token of a family after so many rotations.
fn token(id: &str, rotations: u8) -> TokenHash {
    let digest = Sha256::digest(format!("{id} {rotations}"));
    TokenHash(digest.into())
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
    /// The number of the first record that is left.
    first: Option<u64>,
    /// Records in it.
    pub(crate) records: u64,
    /// Decisions that count under [`COUNTER`].
    counted: HashSet<String>,
}

impl Written {
    /// Reads the journal of `dir`.
    pub(crate) fn read(dir: &Path) -> Self {
        let (mut written, mut last) = (Self::default(), 0);
        for stored in read_records(dir).unwrap() {
            let stored = stored.unwrap();
            written.first.get_or_insert(stored.index);
            written.records += 1;
            let (id, number) = match stored.record.kind {
                RecordKind::Decision(decision) => {
                    if decision.counted.contains(&COUNTER.into()) {
                        written.counted.insert(decision.decision_id.clone());
                    }
                    (decision.decision_id, stored.index)
                }
                RecordKind::Grant(grant) => match Kind::of(&grant.grant_id) {
                    Some(Kind::Renewal) if grant.expires_at == FIRST_END => continue,
                    Some(Kind::Rotated | Kind::Ended) => continue,
                    _ => (grant.grant_id, stored.index),
                },
                RecordKind::Client(client) => (client.client, stored.index),
                RecordKind::Refresh(family) => match Kind::of(&family.grant_id) {
                    Some(Kind::Rotated) if family.rotations == 0 => continue,
                    Some(Kind::Ended) if family.ended.is_none() => continue,
                    _ => (family.grant_id, family.rotations),
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

    /// Whether the record that was acknowledged under this number may be gone: it is older than all that
    /// are left, or the number is none of a record.
    pub(crate) fn may_lack(&self, kind: Kind, number: u64) -> bool {
        !kind.is_numbered_in_journal() || self.first.is_some_and(|first| number < first)
    }

    /// The ids of the calls that the journal counts.
    pub(crate) fn counted(&self) -> &HashSet<String> {
        &self.counted
    }
}

/// Calls that the store counts.
pub(crate) fn counted_by(store: &EmbeddedStore) -> u64 {
    store.reserve(ISSUER, &[COUNTER.into()]).unwrap().values()[0] - 1
}
