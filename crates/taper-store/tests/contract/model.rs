//! The model: what a store has been told, in maps.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use taper_store::{
    ClientRecord, Counter, CounterKey, GrantRecord, History, NO_HISTORY, RefreshEnd, RefreshRecord,
    Revocation, RevocationKey, RootKeyRecord, RootKeysRecord, Rotation, Seen, Swept, TokenHash,
};

use crate::operation::{Operation, is_possible, operations};

pub(crate) const START: i64 = 1_700_000_000;
/// How long after its end something is kept at least.
pub(crate) const MARGIN: i64 = 86_400;
/// How many keys can be revoked.
pub(crate) const KEYS: usize = 8;
/// How many counters there are.
pub(crate) const COUNTERS: u8 = 3;

/// What an operation must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Conflict,
    BeyondEnd,
    TokenKnown,
    Number(u64),
    Page {
        seqs: Vec<u64>,
        head: u64,
        upto: u64,
        history: [u8; 32],
    },
    Written(bool),
    Rotation(Rotation),
    Values(Vec<u64>),
    Seen(Seen),
    Swept(Swept),
}

/// Everything that a store knows.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    now: i64,
    swept_at: Option<i64>,
    pub(crate) grants: BTreeMap<(u8, u8), GrantRecord>,
    pub(crate) revocations: Vec<Revocation>,
    /// By number.
    pub(crate) histories: Vec<History>,
    pub(crate) clients: BTreeMap<(u8, u8), ClientRecord>,
    pub(crate) root_keys: BTreeMap<u8, RootKeysRecord>,
    families: BTreeMap<[u8; 32], RefreshRecord>,
    families_of: BTreeMap<[u8; 32], [u8; 32]>,
    tokens: u64,
    counts: BTreeMap<u8, u64>,
    calls: Vec<Vec<u8>>,
    seen: BTreeMap<(u8, u8), i64>,
    /// Decisions that must be in the journal, and some that may be.
    pub(crate) written: BTreeSet<String>,
    pub(crate) handed_in: BTreeSet<String>,
    /// What a kill found handed in: each was written, or is lost for ever.
    pub(crate) in_doubt: BTreeSet<String>,
    decisions: u64,
    /// What the last operation must have answered.
    pub(crate) answer: Answer,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self {
            now: START,
            swept_at: None,
            grants: BTreeMap::new(),
            revocations: Vec::new(),
            histories: vec![History(NO_HISTORY)],
            clients: BTreeMap::new(),
            root_keys: BTreeMap::new(),
            families: BTreeMap::new(),
            families_of: BTreeMap::new(),
            tokens: 0,
            counts: BTreeMap::new(),
            calls: Vec::new(),
            seen: BTreeMap::new(),
            written: BTreeSet::new(),
            handed_in: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
            decisions: 0,
            answer: Answer::Done,
        })
        .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Operation> {
        operations(state)
    }

    fn preconditions(state: &Self, operation: &Operation) -> bool {
        is_possible(state, operation)
    }

    fn apply(mut state: Self, operation: &Operation) -> Self {
        state.answer = state.perform(operation);
        state
    }
}

impl Model {
    pub(crate) fn now(&self) -> i64 {
        self.now
    }

    pub(crate) fn swept_at(&self) -> Option<i64> {
        self.swept_at
    }

    pub(crate) fn tokens_made(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn calls_under_way(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn head(&self) -> u64 {
        self.histories.len() as u64 - 1
    }

    pub(crate) fn bits(&self, counters: u8) -> Vec<u8> {
        (0..COUNTERS).filter(|n| counters & 1 << n != 0).collect()
    }

    /// Whether a counter's link can be used.
    pub(crate) fn lives(&self, counter: u8) -> bool {
        self::counter(counter).until.is_none_or(|until| until > self.now)
    }

    pub(crate) fn no_call_outlives_its_counter(&self) -> bool {
        let over = |n: &u8| counter(*n).until.is_some_and(|until| until + MARGIN <= self.now);
        !self.calls.iter().flatten().any(over)
    }

    /// How many calls there are under a counter with another one.
    pub(crate) fn next_call(&self, counter: u8) -> u64 {
        let pending = self.calls.iter().filter(|call| call.contains(&counter)).count() as u64;
        self.counts.get(&counter).copied().unwrap_or(0) + pending + 1
    }

    /// The first of `keys` that is revoked.
    pub(crate) fn is_revoked(&self, issuer: u8, keys: &[RevocationKey]) -> Option<RevocationKey> {
        let revoked = |key: &&RevocationKey| self.number(issuer, key).is_some();
        keys.iter().find(revoked).cloned()
    }

    fn number(&self, issuer: u8, key: &RevocationKey) -> Option<u64> {
        let is = |entry: &&Revocation| entry.issuer == self::issuer(issuer) && entry.what == *key;
        self.revocations.iter().find(is).map(|entry| entry.seq)
    }

    fn perform(&mut self, operation: &Operation) -> Answer {
        match *operation {
            Operation::Grant {
                issuer,
                id,
                holder,
                lasts,
                beyond,
            } => {
                let mut grant = grant(issuer, id, holder, self.now, lasts, beyond);
                if let Some(known) = self.grants.get(&(issuer, id)) {
                    if known.holder_jkt != grant.holder_jkt {
                        return Answer::Conflict;
                    }
                    if known.ends_at.is_some_and(|end| grant.end() > end) {
                        return Answer::BeyondEnd;
                    }
                    grant.renewal = true;
                    grant.ends_at = known.ends_at.or(grant.ends_at);
                }
                self.grants.insert((issuer, id), grant);
                Answer::Done
            }
            Operation::Revoke { issuer, key, until } => self.revoke(issuer, self::key(key), until),
            Operation::Page { after, limit } => {
                let later = self.revocations.iter().filter(|entry| entry.seq > after);
                let seqs: Vec<u64> = later.map(|entry| entry.seq).take(limit).collect();
                let upto = match seqs.last() {
                    Some(last) if seqs.len() == limit => *last,
                    _ => self.head(),
                };
                let history = self.histories[upto as usize].0;
                Answer::Page {
                    seqs,
                    head: self.head(),
                    upto,
                    history,
                }
            }
            Operation::Client {
                issuer,
                client,
                digest,
                removed,
            } => {
                let record = self::client(issuer, client, digest, removed);
                let before = self.clients.insert((issuer, client), record.clone());
                Answer::Written(before != Some(record))
            }
            Operation::RootKeys { issuer, key } => {
                let record = root_keys(issuer, key);
                let before = self.root_keys.insert(issuer, record.clone());
                Answer::Written(before != Some(record))
            }
            Operation::Begin {
                issuer,
                grant,
                lasts,
                known,
            } => self.begin(issuer, grant, lasts, known),
            Operation::Rotate { presented, known } => self.rotate(presented, known),
            Operation::End { token } => match self.family_of(token) {
                Some(family) if family.ended.is_none() => {
                    family.ended = Some(RefreshEnd::Ended);
                    Answer::Written(true)
                }
                _ => Answer::Written(false),
            },
            Operation::Reserve { counters } => {
                let call = self.bits(counters);
                let values = call.iter().map(|n| self.next_call(*n)).collect();
                self.calls.push(call);
                Answer::Values(values)
            }
            Operation::Commit { call } => {
                for counter in self.calls.remove(call) {
                    *self.counts.entry(counter).or_default() += 1;
                }
                let id = self.decide();
                self.written.insert(id);
                Answer::Done
            }
            Operation::GiveBack { call } => {
                self.calls.remove(call);
                Answer::Done
            }
            Operation::Proof { key, id, keep } => {
                let until = self.seen.get(&(key, id));
                if until.is_some_and(|until| *until >= self.now) {
                    return Answer::Seen(Seen::Replay);
                }
                self.seen.insert((key, id), self.now + keep);
                Answer::Seen(Seen::Fresh)
            }
            Operation::Audit { later } => {
                let id = self.decide();
                if later {
                    self.handed_in.insert(id);
                } else {
                    self.written.insert(id);
                }
                Answer::Done
            }
            Operation::Advance { seconds } => {
                self.now += seconds;
                Answer::Done
            }
            Operation::Sweep => Answer::Swept(self.sweep()),
            Operation::Carry => Answer::Done,
            Operation::Kill => {
                self.calls.clear();
                self.in_doubt.append(&mut self.handed_in);
                Answer::Done
            }
            Operation::Reopen | Operation::Rebuild => {
                self.calls.clear();
                let handed_in = std::mem::take(&mut self.handed_in);
                self.written.extend(handed_in);
                Answer::Done
            }
        }
    }

    /// The id of the newest decision.
    pub(crate) fn decision(&self) -> String {
        format!("d{}", self.decisions)
    }

    fn decide(&mut self) -> String {
        self.decisions += 1;
        self.decision()
    }

    fn revoke(&mut self, issuer: u8, what: RevocationKey, until: Option<i64>) -> Answer {
        if let Some(seq) = self.number(issuer, &what) {
            return Answer::Number(seq);
        }
        let entry = revocation(self.head() + 1, issuer, what, self.now, until);
        let before = *self.histories.last().unwrap();
        self.histories.push(entry.history(before));
        let seq = entry.seq;
        self.revocations.push(entry);
        Answer::Number(seq)
    }

    fn begin(&mut self, issuer: u8, grant: u8, lasts: i64, known: Option<u64>) -> Answer {
        let expires_at = self.now + lasts;
        let record = self.grants.get(&(issuer, grant));
        if record.is_none_or(|record| record.end() < expires_at) {
            return Answer::BeyondEnd;
        }
        let Some(token) = self.new_token(known) else {
            return Answer::TokenKnown;
        };
        let family = RefreshRecord {
            issuer: self::issuer(issuer),
            grant_id: grant_id(grant),
            family: token.0,
            token: token.0,
            rotations: 0,
            expires_at,
            ended: None,
        };
        self.families.insert(token.0, family);
        self.families_of.insert(token.0, token.0);
        Answer::Done
    }

    /// A token is presented. The next one is new, or `known`.
    pub(crate) fn rotate(&mut self, presented: u64, known: Option<u64>) -> Answer {
        let Some(family) = self.family_of(presented).cloned() else {
            return Answer::Rotation(Rotation::Unknown);
        };
        if family.ended.is_some() {
            return Answer::Rotation(Rotation::Ended);
        }
        if family.expires_at <= self.now {
            return Answer::Rotation(Rotation::Expired);
        }
        if family.token != token(presented).0 {
            let ended = RefreshRecord {
                ended: Some(RefreshEnd::Reused),
                ..family
            };
            self.families.insert(ended.family, ended.clone());
            return Answer::Rotation(Rotation::Reused(ended));
        }
        if self.rests_on_revoked(&family) {
            return Answer::Rotation(Rotation::Ended);
        }
        let Some(next) = self.new_token(known) else {
            return Answer::TokenKnown;
        };
        let rotated = RefreshRecord {
            token: next.0,
            rotations: family.rotations + 1,
            ..family
        };
        self.families.insert(rotated.family, rotated.clone());
        self.families_of.insert(next.0, rotated.family);
        Answer::Rotation(Rotation::Rotated(rotated))
    }

    fn rests_on_revoked(&self, family: &RefreshRecord) -> bool {
        let is = |entry: &&GrantRecord| entry.issuer == family.issuer && entry.grant_id == family.grant_id;
        let Some(grant) = self.grants.values().find(is) else {
            return true;
        };
        let keys = [
            RevocationKey::Grant(grant.grant_id.clone()),
            RevocationKey::Client(grant.client.clone()),
            RevocationKey::Holder(grant.holder_jkt.clone()),
            RevocationKey::Subject {
                iss: grant.subject_iss.clone(),
                sub: grant.subject.clone(),
            },
        ];
        let issuer = u8::from(grant.issuer == self::issuer(1));
        self.is_revoked(issuer, &keys).is_some()
    }

    fn family_of(&mut self, token: u64) -> Option<&mut RefreshRecord> {
        let family = self.families_of.get(&self::token(token).0)?;
        self.families.get_mut(family)
    }

    /// The next token that nobody has, or a known one if nobody has it any more.
    fn new_token(&mut self, known: Option<u64>) -> Option<TokenHash> {
        match known {
            Some(known) if known < self.tokens => self.family_of(known).is_none().then(|| token(known)),
            _ => {
                self.tokens += 1;
                Some(token(self.tokens - 1))
            }
        }
    }

    fn sweep(&mut self) -> Swept {
        self.swept_at = Some(self.now);
        let over = self.now - MARGIN;
        let before = (
            self.grants.len(),
            self.revocations.len(),
            self.counts.len(),
            self.families.len(),
        );
        self.grants.retain(|_, grant| grant.end() > over);
        self.revocations
            .retain(|entry| entry.until.is_none_or(|until| until > over));
        self.counts
            .retain(|n, _| counter(*n).until.is_none_or(|until| until > over));
        self.families.retain(|_, family| family.expires_at > over);
        let families = &self.families;
        self.families_of.retain(|_, family| families.contains_key(family));
        let gone = |before: usize, after: usize| (before - after) as u64;
        Swept {
            grants: gone(before.0, self.grants.len()),
            revocations: gone(before.1, self.revocations.len()),
            counters: gone(before.2, self.counts.len()),
            refresh_families: gone(before.3, self.families.len()),
        }
    }
}

pub(crate) fn issuer(n: u8) -> String {
    format!("https://issuer-{n}.example")
}

pub(crate) fn grant_id(n: u8) -> String {
    format!("grant-{n}")
}

fn holder(n: u8) -> String {
    URL_SAFE_NO_PAD.encode([n; 32])
}

pub(crate) fn token(n: u64) -> TokenHash {
    let mut hash = [0x70; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    TokenHash(hash)
}

pub(crate) fn counter(n: u8) -> Counter {
    Counter {
        key: CounterKey {
            branch: [n; 32],
            index: u32::from(n),
        },
        until: match n {
            0 => None,
            1 => Some(START + 50_000),
            _ => Some(START + 200_000),
        },
    }
}

pub(crate) fn key(n: usize) -> RevocationKey {
    match n {
        0 => RevocationKey::Grant(grant_id(0)),
        1 => RevocationKey::Grant(grant_id(1)),
        2 => RevocationKey::Branch("0a".repeat(32)),
        3 => RevocationKey::Holder(holder(0)),
        4 => RevocationKey::Holder(holder(5)),
        5 => RevocationKey::Client("client-0".into()),
        6 => RevocationKey::Subject {
            iss: "https://idp.example".into(),
            sub: "bob".into(),
        },
        _ => RevocationKey::Delegation {
            grant: grant_id(0),
            from: holder(0),
            to: holder(1),
        },
    }
}

pub(crate) fn grant(
    issuer: u8,
    id: u8,
    holder: u8,
    now: i64,
    lasts: i64,
    beyond: Option<i64>,
) -> GrantRecord {
    GrantRecord {
        issuer: self::issuer(issuer),
        grant_id: grant_id(id),
        subject_iss: "https://idp.example".into(),
        subject: if id == 2 { "bob".into() } else { "alice".into() },
        client: format!("client-{id}"),
        actor: None,
        holder_jkt: self::holder(holder + id),
        audiences: vec!["https://proxy.example/git/mcp".into()],
        rights: vec!["git:git_log".into()],
        issued_at: now,
        expires_at: now + lasts,
        ends_at: beyond.map(|beyond| now + lasts + beyond),
        renewal: false,
        max_depth: 3,
        policy_digest: "p".into(),
    }
}

pub(crate) fn revocation(
    seq: u64,
    issuer: u8,
    what: RevocationKey,
    now: i64,
    until: Option<i64>,
) -> Revocation {
    Revocation {
        seq,
        at: now,
        issuer: self::issuer(issuer),
        what,
        until: until.map(|until| now + until),
    }
}

pub(crate) fn client(issuer: u8, client: u8, digest: u8, removed: bool) -> ClientRecord {
    ClientRecord {
        issuer: self::issuer(issuer),
        client: format!("client-{client}"),
        method: "none".into(),
        digest: digest.to_string(),
        removed,
    }
}

pub(crate) fn root_keys(issuer: u8, key: u8) -> RootKeysRecord {
    RootKeysRecord {
        issuer: self::issuer(issuer),
        keys: vec![RootKeyRecord {
            id: u32::from(key),
            thumbprint: holder(key),
        }],
    }
}
