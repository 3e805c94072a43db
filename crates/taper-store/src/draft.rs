//! What becomes one commit: records that are about to be written, decided one after the other on the
//! writer thread, each seeing those before it.

use std::sync::Arc;

use crate::change::{Change, Lookup as _};
use crate::error::StoreError;
use crate::frame::encode_record;
use crate::kept::{Carried, ClientRecord, Name, RefreshEnd, RefreshRecord, RootKeysRecord, TokenHash};
use crate::layout;
use crate::record::{GrantRecord, Record, RecordKind};
use crate::revocation::{Bound, NewRevocation, Revocation, RevocationKey, RevocationRecord, next_history};
use crate::state::State;
use crate::traits::{Receipt, Rotation};

/// Tokens of a refresh family that one record carries; a record has at most 256 KiB.
pub(crate) const TOKENS: usize = 1024;

/// The records of a commit, and what they change.
pub(crate) struct Draft<'a> {
    state: &'a State,
    change: Change<'a>,
    first: u64,
    payloads: Vec<Vec<u8>>,
    bytes: usize,
    head: u64,
    broken: Option<Arc<str>>,
}

impl<'a> Draft<'a> {
    /// Begins with a journal of `size` records and a feed whose highest number is `head`.
    pub(crate) fn new(state: &'a State, size: u64, head: u64) -> Self {
        Self {
            state,
            change: Change::of(state),
            first: size,
            payloads: Vec::new(),
            bytes: 0,
            head,
            broken: None,
        }
    }

    /// The encoded records.
    pub(crate) fn payloads(&self) -> &[Vec<u8>] {
        &self.payloads
    }

    /// Bytes of the encoded records.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The highest number of a revocation, these included.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Refuses when a record could not be included, which nothing may be committed with.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.broken {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(Arc::clone(reason))),
        }
    }

    /// What the state becomes.
    pub(crate) fn into_change(self) -> Change<'a> {
        self.change
    }

    /// The number that the next record will have.
    pub(crate) fn next_index(&self) -> u64 {
        self.first + self.payloads.len() as u64
    }

    /// Adds a record that is encoded already.
    pub(crate) fn append(&mut self, record: &Record, payload: Vec<u8>) -> Result<Receipt, StoreError> {
        let index = self.next_index();
        if let Err(error) = self.change.include(index, record) {
            // Half of the record may be in the change.
            self.broken = Some(error.to_string().into());
            return Err(error);
        }
        self.bytes += payload.len();
        self.payloads.push(payload);
        Ok(Receipt { index })
    }

    fn add(&mut self, at_ms: i64, kind: RecordKind) -> Result<Receipt, StoreError> {
        let record = Record { at_ms, kind };
        let payload = encode_record(&record)?;
        self.append(&record, payload)
    }

    /// A grant, or the renewal of one.
    pub(crate) fn insert_grant(&mut self, at_ms: i64, mut grant: GrantRecord) -> Result<Receipt, StoreError> {
        let known = self.change.grant(&grant.issuer, &grant.grant_id)?;
        grant.renewal = known.is_some();
        if let Some(known) = known {
            if !known.is_renewed_by(&grant) {
                return Err(StoreError::GrantConflict {
                    grant_id: grant.grant_id,
                });
            }
            if known.ends_at.is_some_and(|end| grant.end() > end) {
                return Err(StoreError::BeyondEnd {
                    wanted: grant.end(),
                    grant_id: grant.grant_id,
                });
            }
            grant.ends_at = known.ends_at.or(grant.ends_at);
        }
        self.add(at_ms, RecordKind::Grant(grant))
    }

    /// The number of a revocation: the one that it has, or the next, with a record for it, if `bound`
    /// leaves room.
    pub(crate) fn revoke(
        &mut self,
        at_ms: i64,
        revocation: NewRevocation,
        bound: Option<Bound>,
    ) -> Result<u64, StoreError> {
        let NewRevocation {
            at,
            issuer,
            what,
            until,
            by,
        } = revocation;
        if let Some(seq) = self.change.revoked(&issuer, &what)? {
            return Ok(seq);
        }
        let under = match bound {
            None => None,
            Some(Bound { grant_id, limit }) => {
                if self.change.revocations_under(&issuer, &grant_id)? >= limit {
                    return Err(StoreError::TooManyRevocations { grant_id, limit });
                }
                Some(grant_id)
            }
        };
        let seq = self.head + 1;
        let history = next_history(&self.history()?, seq, &what.fingerprint(&issuer));
        let revocation = Revocation {
            seq,
            at,
            issuer,
            what,
            until,
        };
        self.add(
            at_ms,
            RecordKind::Revoked(RevocationRecord {
                revocation,
                by,
                under,
                history,
            }),
        )?;
        self.head = seq;
        Ok(seq)
    }

    /// A client, unless it is known as it is.
    pub(crate) fn put_client(
        &mut self,
        at_ms: i64,
        client: ClientRecord,
    ) -> Result<Option<Receipt>, StoreError> {
        if self.change.client(&client.issuer, &client.client)?.as_ref() == Some(&client) {
            return Ok(None);
        }
        self.add(at_ms, RecordKind::Client(client)).map(Some)
    }

    /// Root keys, unless they are known as they are.
    pub(crate) fn put_root_keys(
        &mut self,
        at_ms: i64,
        keys: RootKeysRecord,
    ) -> Result<Option<Receipt>, StoreError> {
        if self.change.root_keys(&keys.issuer)?.as_ref() == Some(&keys) {
            return Ok(None);
        }
        self.add(at_ms, RecordKind::RootKeys(keys)).map(Some)
    }

    /// A refresh family with its first token.
    pub(crate) fn begin_family(&mut self, at_ms: i64, family: RefreshRecord) -> Result<Receipt, StoreError> {
        let grant = self.change.grant(&family.issuer, &family.grant_id)?;
        if grant.is_none_or(|grant| grant.end() < family.expires_at) {
            return Err(StoreError::BeyondEnd {
                grant_id: family.grant_id,
                wanted: family.expires_at,
            });
        }
        self.check_new(&family.token)?;
        self.add(at_ms, RecordKind::Refresh(family))
    }

    /// Uses a refresh token.
    pub(crate) fn rotate(
        &mut self,
        at_ms: i64,
        presented: &[u8; 32],
        next: &[u8; 32],
    ) -> Result<Rotation, StoreError> {
        let Some(family) = self.change.family_of(presented)? else {
            return Ok(Rotation::Unknown);
        };
        if family.ended.is_some() {
            return Ok(Rotation::Ended);
        }
        if at_ms.div_euclid(1000) >= family.expires_at {
            return Ok(Rotation::Expired);
        }
        if family.token != *presented {
            let family = RefreshRecord {
                ended: Some(RefreshEnd::Reused),
                ..family
            };
            self.add(at_ms, RecordKind::Refresh(family.clone()))?;
            return Ok(Rotation::Reused(family));
        }
        if self.rests_on_revoked(&family)? {
            return Ok(Rotation::Ended);
        }
        self.check_new(next)?;
        let family = RefreshRecord {
            token: *next,
            rotations: family.rotations.saturating_add(1),
            ..family
        };
        self.add(at_ms, RecordKind::Refresh(family.clone()))?;
        Ok(Rotation::Rotated(family))
    }

    /// Ends the refresh family of a token.
    pub(crate) fn end_family(&mut self, at_ms: i64, token: &[u8; 32]) -> Result<bool, StoreError> {
        let family = self.change.family_of(token)?;
        let Some(family) = family.filter(|family| family.ended.is_none()) else {
            return Ok(false);
        };
        let ended = RefreshRecord {
            ended: Some(RefreshEnd::Ended),
            ..family
        };
        self.add(at_ms, RecordKind::Refresh(ended)).map(|_| true)
    }

    /// Writes again, as it stands, what the state still has of `names`, and the end of the feed. Returns
    /// how many records that took.
    pub(crate) fn carry(&mut self, at_ms: i64, names: &[Name]) -> Result<u64, StoreError> {
        let before = self.next_index();
        for name in names {
            self.carry_one(at_ms, name)?;
        }
        if self.head > 0 {
            let state = Carried::Feed {
                seq: self.head,
                history: self.history()?,
            };
            self.add(at_ms, RecordKind::Carried { state })?;
        }
        Ok(self.next_index() - before)
    }

    fn carry_one(&mut self, at_ms: i64, name: &Name) -> Result<(), StoreError> {
        let change = &self.change;
        let state = match name {
            Name::Grant { issuer, grant_id } => change.grant(issuer, grant_id)?.map(Carried::Grant),
            Name::Revocation { seq } => match change.revocation(*seq)? {
                Some(record) => Some(Carried::Revocation(record)),
                // It was forgotten, its history is not.
                None => {
                    let history = change.history(*seq)?;
                    history.map(|history| Carried::Feed { seq: *seq, history })
                }
            },
            Name::Counter { issuer, counter } => {
                let counted = change.counted(&counter.key.fingerprint(issuer))?;
                counted.map(|counted| Carried::Counter {
                    issuer: issuer.clone(),
                    counter: crate::counters::Counter {
                        until: counted.until,
                        ..*counter
                    },
                    calls: counted.calls,
                    next: counted.next,
                })
            }
            Name::Count { name } => change.counted(name)?.map(|counted| Carried::Count {
                name: *name,
                calls: counted.calls,
                next: counted.next,
                until: counted.until,
            }),
            Name::Client { issuer, client } => change.client(issuer, client)?.map(Carried::Client),
            Name::RootKeys { issuer } => change.root_keys(issuer)?.map(Carried::RootKeys),
            Name::Refresh { family } => return self.carry_family(at_ms, family),
        };
        if let Some(state) = state {
            self.add(at_ms, RecordKind::Carried { state })?;
        }
        Ok(())
    }

    fn carry_family(&mut self, at_ms: i64, name: &[u8; 32]) -> Result<(), StoreError> {
        let Some(family) = self.change.family(name)? else {
            return Ok(());
        };
        // Tokens of this very commit are in its own records.
        let mut tokens = self.state.tokens(name)?.peekable();
        loop {
            let some: Result<Vec<TokenHash>, StoreError> = tokens.by_ref().take(TOKENS).collect();
            let state = Carried::Refresh {
                family: family.clone(),
                tokens: some?,
            };
            self.add(at_ms, RecordKind::Carried { state })?;
            if tokens.peek().is_none() {
                return Ok(());
            }
        }
    }

    fn history(&self) -> Result<[u8; 32], StoreError> {
        let history = self.change.history(self.head)?;
        history.ok_or_else(|| StoreError::State("the feed has no history".into()))
    }

    fn check_new(&self, token: &[u8; 32]) -> Result<(), StoreError> {
        match self.change.family_of(token)? {
            Some(_) => Err(StoreError::TokenKnown),
            None => Ok(()),
        }
    }

    /// Whether the grant, its client, its subject, its actor or its holder is revoked, or the grant
    /// unknown.
    fn rests_on_revoked(&self, family: &RefreshRecord) -> Result<bool, StoreError> {
        let issuer = &family.issuer;
        let Some(grant) = self.change.grant(issuer, &family.grant_id)? else {
            return Ok(true);
        };
        let mut keys = vec![
            RevocationKey::Grant(grant.grant_id),
            RevocationKey::Client(grant.client),
            RevocationKey::Holder(grant.holder_jkt),
            RevocationKey::Subject {
                iss: grant.subject_iss,
                sub: grant.subject,
            },
        ];
        if let Some(actor) = &grant.actor {
            // Who it is cannot be told: then nobody knows that it is not revoked.
            let Some(actor) = actor_key(actor) else {
                return Ok(true);
            };
            keys.push(actor);
        }
        for key in keys {
            if self.change.revoked(issuer, &key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// An actor as a grant's record spells it: `sub (iss)`. An issuer is a URL and has no space.
fn actor_key(actor: &str) -> Option<RevocationKey> {
    let (sub, iss) = actor.strip_suffix(')')?.rsplit_once(" (")?;
    Some(RevocationKey::Subject {
        iss: iss.to_owned(),
        sub: sub.to_owned(),
    })
}

impl State {
    /// The tokens that a refresh family gave out.
    pub(crate) fn tokens(
        &self,
        family: &[u8; 32],
    ) -> Result<impl Iterator<Item = Result<TokenHash, StoreError>> + use<>, StoreError> {
        let first = layout::token_of(family, &[0; 32]);
        let last = layout::token_of(family, &[0xff; 32]);
        let keys = self.range(first..=last)?;
        Ok(keys.map(|entry| layout::last32(&entry?.0).map(TokenHash)))
    }
}
