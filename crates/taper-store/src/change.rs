//! A change of the state that is being made: reading through it sees what is not written yet, so
//! that everything of one commit is decided as if it came one after the other.

use std::collections::BTreeMap;

use sled::{Batch, IVec};

use crate::counters::Counter;
use crate::error::StoreError;
use crate::kept::{Carried, ClientRecord, RefreshRecord, RootKeysRecord};
use crate::layout::{self, Counted, hash, json, number, parse};
use crate::record::{GrantRecord, Record, RecordKind};
use crate::revocation::{NO_HISTORY, RevocationKey, RevocationRecord};
use crate::state::{State, index};

/// Whatever can be asked by key.
pub(crate) trait Lookup {
    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError>;

    /// The newest record of a grant.
    fn grant(&self, issuer: &str, grant_id: &str) -> Result<Option<GrantRecord>, StoreError> {
        self.parsed(&layout::grant(issuer, grant_id))
    }

    /// The number under which a key was revoked.
    fn revoked(&self, issuer: &str, key: &RevocationKey) -> Result<Option<u64>, StoreError> {
        let value = self.get(&layout::fingerprint(&key.fingerprint(issuer)))?;
        value.map(|value| number(&value)).transpose()
    }

    /// The revocation of a number.
    fn revocation(&self, seq: u64) -> Result<Option<RevocationRecord>, StoreError> {
        self.parsed(&layout::revocation(seq))
    }

    /// How many revocations a grant caused, of those that count.
    fn revocations_under(&self, issuer: &str, grant_id: &str) -> Result<u64, StoreError> {
        let value = self.get(&layout::under(&layout::grant(issuer, grant_id)))?;
        value.map_or(Ok(0), |value| number(&value))
    }

    /// The history up to a number, if it is known.
    fn history(&self, seq: u64) -> Result<Option<[u8; 32]>, StoreError> {
        if seq == 0 {
            return Ok(Some(NO_HISTORY));
        }
        let value = self.get(&layout::history(seq))?;
        value.map(|value| hash(&value)).transpose()
    }

    /// What counts under the counter of this fingerprint.
    fn counted(&self, fingerprint: &[u8; 32]) -> Result<Option<Counted>, StoreError> {
        let value = self.get(&layout::counter(fingerprint))?;
        value.map(|value| Counted::from_bytes(&value)).transpose()
    }

    /// The newest record of a client.
    fn client(&self, issuer: &str, client: &str) -> Result<Option<ClientRecord>, StoreError> {
        self.parsed(&layout::client(issuer, client))
    }

    /// The newest record of an issuer's root keys.
    fn root_keys(&self, issuer: &str) -> Result<Option<RootKeysRecord>, StoreError> {
        self.parsed(&layout::root_keys(issuer))
    }

    /// A refresh family by its name.
    fn family(&self, family: &[u8; 32]) -> Result<Option<RefreshRecord>, StoreError> {
        self.parsed(&layout::family(family))
    }

    /// The refresh family that has or had a token.
    fn family_of(&self, token: &[u8; 32]) -> Result<Option<RefreshRecord>, StoreError> {
        match self.get(&layout::token(token))? {
            None => Ok(None),
            Some(family) => self.family(&hash(&family)?),
        }
    }

    /// The JSON value under a key.
    fn parsed<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| parse(&value)).transpose()
    }
}

/// Values that are to replace those of a state. `None` removes.
pub(crate) struct Change<'a> {
    state: &'a State,
    values: BTreeMap<Vec<u8>, Option<IVec>>,
    /// Whether it includes a record that is more than a decision by which nothing is counted.
    matters: bool,
}

impl Lookup for Change<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        match self.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.state.get(key),
        }
    }
}

impl<'a> Change<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        Self {
            state,
            values: BTreeMap::new(),
            matters: false,
        }
    }

    /// Whether the state may hear of it later: it includes nothing but decisions by which nothing is counted, which say
    /// nothing that the state keeps.
    pub(crate) fn can_wait(&self) -> bool {
        !self.matters && self.values.is_empty()
    }

    /// Includes the record of number `index` in the journal. It may be one that the state has.
    pub(crate) fn include(&mut self, index: u64, record: &Record) -> Result<(), StoreError> {
        self.matters |=
            !matches!(&record.kind, RecordKind::Decision(decision) if decision.counted.is_empty());
        match &record.kind {
            RecordKind::Grant(grant) => self.put_grant(grant),
            RecordKind::Revoked(record) => self.put_revocation(record),
            RecordKind::Decision(decision) => decision
                .counted
                .iter()
                .try_for_each(|counter| self.count(&decision.issuer, counter, index)),
            RecordKind::Client(client) => self.put_client(client),
            RecordKind::RootKeys(keys) => self.put_root_keys(keys),
            RecordKind::Refresh(family) => self.put_family(family),
            RecordKind::Carried { state } => self.carry(state),
            RecordKind::Policy { .. }
            | RecordKind::Started { .. }
            | RecordKind::Retired(_)
            | RecordKind::Repaired(_) => Ok(()),
        }
    }

    fn carry(&mut self, carried: &Carried) -> Result<(), StoreError> {
        match carried {
            Carried::Grant(grant) => self.put_grant(grant),
            Carried::Revocation(record) => self.put_revocation(record),
            Carried::Counter {
                issuer,
                counter,
                calls,
                next,
            } => {
                let counted = Counted {
                    calls: *calls,
                    next: *next,
                    until: counter.until,
                };
                self.carry_counted(&counter.key.fingerprint(issuer), counted)
            }
            Carried::Count {
                name,
                calls,
                next,
                until,
            } => {
                let counted = Counted {
                    calls: *calls,
                    next: *next,
                    until: *until,
                };
                self.carry_counted(name, counted)
            }
            Carried::Client(client) => self.put_client(client),
            Carried::RootKeys(keys) => self.put_root_keys(keys),
            Carried::Refresh { family, tokens } => {
                self.put_family(family)?;
                for token in tokens {
                    self.put_token(&family.family, &token.0);
                }
                Ok(())
            }
            Carried::Feed { seq, history } => {
                self.put(layout::history(*seq), history.as_slice());
                Ok(())
            }
        }
    }

    fn carry_counted(&mut self, name: &[u8; 32], counted: Counted) -> Result<(), StoreError> {
        let known = self.counted(name)?;
        // What is known may lack calls whose records are gone, unless it is of a later record.
        if known.is_none_or(|known| counted.next >= known.next) {
            self.put_counted(name, known, counted);
        }
        Ok(())
    }

    fn put_grant(&mut self, grant: &GrantRecord) -> Result<(), StoreError> {
        let key = layout::grant(&grant.issuer, &grant.grant_id);
        self.put_expiry(grant.end(), &key);
        for key in index::keys(grant) {
            self.put(key, grant.grant_id.as_bytes());
        }
        self.put(key, json(grant)?);
        Ok(())
    }

    fn put_revocation(&mut self, record: &RevocationRecord) -> Result<(), StoreError> {
        let revocation = &record.revocation;
        let fingerprint = revocation.what.fingerprint(&revocation.issuer);
        let key = layout::revocation(revocation.seq);
        // Included twice, from a replay or a record that carries it over, it counts once.
        if let Some(under) = &record.under
            && self.get(&key)?.is_none()
        {
            let count = self.revocations_under(&revocation.issuer, under)?;
            let name = layout::under(&layout::grant(&revocation.issuer, under));
            self.put(name, count.saturating_add(1).to_be_bytes().as_slice());
        }
        if let Some(until) = revocation.until {
            self.put_expiry(until, &key);
        }
        self.put(key, json(record)?);
        self.put(layout::history(revocation.seq), record.history.as_slice());
        let seq = revocation.seq.to_be_bytes();
        self.put(layout::fingerprint(&fingerprint), seq.as_slice());
        Ok(())
    }

    fn count(&mut self, issuer: &str, counter: &Counter, index: u64) -> Result<(), StoreError> {
        let name = counter.key.fingerprint(issuer);
        let new = Counted {
            until: counter.until,
            ..Counted::default()
        };
        let known = self.counted(&name)?;
        let mut counted = known.unwrap_or(new);
        counted.include(index);
        // Of two ends the later one counts, and none is the latest.
        counted.until = counted
            .until
            .zip(counter.until)
            .map(|(one, other)| one.max(other));
        self.put_counted(&name, known, counted);
        Ok(())
    }

    fn put_counted(&mut self, name: &[u8; 32], known: Option<Counted>, counted: Counted) {
        let key = layout::counter(name);
        if let Some(until) = counted.until
            && known.is_none_or(|known| known.until != counted.until)
        {
            self.put_expiry(until, &key);
        }
        self.put(key, counted.to_bytes());
    }

    fn put_client(&mut self, client: &ClientRecord) -> Result<(), StoreError> {
        self.put(layout::client(&client.issuer, &client.client), json(client)?);
        Ok(())
    }

    fn put_root_keys(&mut self, keys: &RootKeysRecord) -> Result<(), StoreError> {
        self.put(layout::root_keys(&keys.issuer), json(keys)?);
        Ok(())
    }

    fn put_family(&mut self, family: &RefreshRecord) -> Result<(), StoreError> {
        let key = layout::family(&family.family);
        self.put_expiry(family.expires_at, &key);
        self.put(key, json(family)?);
        self.put_token(&family.family, &family.token);
        Ok(())
    }

    fn put_token(&mut self, family: &[u8; 32], token: &[u8; 32]) {
        self.put(layout::token(token), family.as_slice());
        self.put(layout::token_of(family, token), [].as_slice());
    }

    fn put_expiry(&mut self, until: i64, of: &[u8]) {
        self.put(layout::expiry(until, of), [].as_slice());
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.values.insert(key, Some(value.into()));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.values.insert(key, None);
    }

    pub(crate) fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in self.values {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}
