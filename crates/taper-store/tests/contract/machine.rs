//! A backend beside the model: every operation is performed on both, and their answers compared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest_state_machine::{ReferenceStateMachine as _, StateMachineTest};
use taper_store::{
    DecisionRecord, NewRevocation, Outcome, Record, RecordKind, Reservation, StoreError, TokenHash,
};
use tokio::runtime::Runtime;

use crate::Contract;
use crate::backend::{Backend, Clock, Store};
use crate::model::{self, Answer, COUNTERS, KEYS, Model, START};
use crate::operation::Operation;

/// A store under test, with the calls that are under way in it.
pub(crate) struct Subject<B> {
    backend: B,
    runtime: Runtime,
    clock: Clock,
    calls: Vec<Reservation>,
}

impl<B: Backend> StateMachineTest for Contract<B> {
    type SystemUnderTest = Subject<B>;
    type Reference = Model;

    fn init_test(_: &Model) -> Subject<B> {
        let clock: Clock = Arc::new(AtomicI64::new(START));
        Subject {
            backend: B::new(Arc::clone(&clock)),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            clock,
            calls: Vec::new(),
        }
    }

    fn apply(mut subject: Subject<B>, model: &Model, operation: Operation) -> Subject<B> {
        subject.clock.store(model.now(), Ordering::SeqCst);
        let answer = subject.perform(model, &operation);
        assert_eq!(answer, model.answer, "{operation:?}");
        let looks = matches!(
            operation,
            Operation::Sweep | Operation::Carry | Operation::Reopen | Operation::Kill | Operation::Rebuild
        );
        if looks {
            subject.compare(model);
        }
        subject
    }

    fn teardown(mut subject: Subject<B>, mut model: Model) {
        subject.compare(&model);
        model = Model::apply(model, &Operation::Rebuild);
        subject.perform(&model, &Operation::Rebuild);
        subject.compare(&model);
        // What became of each refresh token can only be seen by presenting it.
        for presented in 0..model.tokens_made() {
            let operation = Operation::Rotate {
                presented,
                known: None,
            };
            model = Model::apply(model, &operation);
            assert_eq!(subject.perform(&model, &operation), model.answer, "{operation:?}");
        }
    }
}

impl<B: Backend> Subject<B> {
    fn store(&self) -> &dyn Store {
        self.backend.store()
    }

    fn perform(&mut self, model: &Model, operation: &Operation) -> Answer {
        let now = model.now();
        match *operation {
            Operation::Grant {
                issuer,
                id,
                holder,
                lasts,
                beyond,
            } => {
                let grant = model::grant(issuer, id, holder, now, lasts, beyond);
                self.told(self.store().insert_grant(grant), |_| Answer::Done)
            }
            Operation::Revoke { issuer, key, until } => {
                let entry = model::revocation(0, issuer, model::key(key), now, until);
                let new = NewRevocation {
                    at: now,
                    issuer: entry.issuer,
                    what: entry.what,
                    until: entry.until,
                    by: "admin".into(),
                };
                self.told(self.store().revoke(new), Answer::Number)
            }
            Operation::Page { after, limit } => {
                let page = self.run(self.store().revocations_after(after, limit)).unwrap();
                Answer::Page {
                    seqs: page.entries.iter().map(|entry| entry.seq).collect(),
                    head: page.head,
                    upto: page.upto,
                    history: page.history,
                }
            }
            Operation::Client {
                issuer,
                client,
                digest,
                removed,
            } => {
                let client = model::client(issuer, client, digest, removed);
                self.told(self.store().put_client(client), |receipt| {
                    Answer::Written(receipt.is_some())
                })
            }
            Operation::RootKeys { issuer, key } => {
                let keys = model::root_keys(issuer, key);
                self.told(self.store().put_root_keys(keys), |receipt| {
                    Answer::Written(receipt.is_some())
                })
            }
            Operation::Begin {
                issuer,
                grant,
                lasts,
                known,
            } => {
                let (issuer, grant) = (model::issuer(issuer), model::grant_id(grant));
                let token = next_token(model, known);
                let begun = self.store().begin_family(&issuer, &grant, token, now + lasts);
                self.told(begun, |_| Answer::Done)
            }
            Operation::Rotate { presented, known } => {
                let next = next_token(model, known);
                self.told(
                    self.store().rotate(model::token(presented), next),
                    Answer::Rotation,
                )
            }
            Operation::End { token } => {
                self.told(self.store().end_family(model::token(token)), Answer::Written)
            }
            Operation::Reserve { counters } => {
                let counters: Vec<_> = model.bits(counters).into_iter().map(model::counter).collect();
                let call = self.store().reserve(&model::issuer(0), &counters).unwrap();
                let values = call.values().to_vec();
                self.calls.push(call);
                Answer::Values(values)
            }
            Operation::Commit { call } => {
                let call = self.calls.remove(call);
                let record = decision(&model.decision(), now);
                self.told(self.store().append_counted(record, call), |_| Answer::Done)
            }
            Operation::GiveBack { call } => {
                drop(self.calls.remove(call));
                Answer::Done
            }
            Operation::Proof { key, id, keep } => {
                let (jkt, jti) = ([key; 32], id.to_string());
                let seen = self.store().insert_once("grant", jkt, &jti, now + keep, now);
                Answer::Seen(seen.unwrap())
            }
            Operation::Audit { later } => {
                let record = decision(&model.decision(), now);
                if later {
                    self.store().append_later(record).unwrap();
                } else {
                    self.run(self.store().append(record)).unwrap();
                }
                Answer::Done
            }
            Operation::Advance { .. } => Answer::Done,
            Operation::Sweep => Answer::Swept(self.backend.sweep(&self.runtime, now)),
            Operation::Carry => {
                self.backend.carry(&self.runtime);
                Answer::Done
            }
            Operation::Reopen => {
                self.calls.clear();
                self.backend.reopen(&self.runtime);
                Answer::Done
            }
            Operation::Kill => {
                self.calls.clear();
                self.backend.kill();
                // A state that had not reached its file yet is caught up from the journal.
                self.forget_again(model);
                Answer::Done
            }
            Operation::Rebuild => {
                self.calls.clear();
                self.backend.rebuild(&self.runtime);
                self.forget_again(model);
                Answer::Done
            }
        }
    }

    /// Sweeps as at the last sweep: the journal still has what was forgotten then.
    fn forget_again(&self, model: &Model) {
        if let Some(swept_at) = model.swept_at() {
            self.backend.sweep(&self.runtime, swept_at);
        }
    }

    /// Everything that can be seen without changing anything.
    fn compare(&self, model: &Model) {
        let store = self.store();
        for issuer in 0..2 {
            let name = model::issuer(issuer);
            for id in 0..3 {
                let grant = self.run(store.grant(&name, &model::grant_id(id))).unwrap();
                assert_eq!(grant.as_ref(), model.grants.get(&(issuer, id)));
            }
            for n in 0..KEYS {
                let keys = [model::key(n), model::key((n + 3) % KEYS)];
                let revoked = self.run(store.is_revoked(&name, &keys)).unwrap();
                assert_eq!(revoked, model.is_revoked(issuer, &keys), "{keys:?}");
            }
            let clients = self.run(store.clients(&name)).unwrap();
            let of_issuer = model.clients.range((issuer, 0)..=(issuer, u8::MAX));
            assert_eq!(
                clients,
                of_issuer.map(|(_, client)| client.clone()).collect::<Vec<_>>()
            );
            for client in &clients {
                let one = self.run(store.client(&name, &client.client)).unwrap();
                assert_eq!(one.as_ref(), Some(client));
            }
            let keys = self.run(store.root_keys(&name)).unwrap();
            assert_eq!(keys.as_ref(), model.root_keys.get(&issuer));
        }
        for (seq, history) in (0..).zip(&model.histories) {
            let known = self.run(store.history_at(seq)).unwrap();
            assert_eq!(known, Some(history.0), "history at {seq}");
        }
        assert_eq!(self.run(store.history_at(model.head() + 1)).unwrap(), None);
        let page = self.run(store.revocations_after(0, usize::MAX)).unwrap();
        assert_eq!(
            (page.entries, page.head),
            (model.revocations.clone(), model.head())
        );
        for n in (0..COUNTERS).filter(|n| model.lives(*n)) {
            let call = store.reserve(&model::issuer(0), &[model::counter(n)]).unwrap();
            assert_eq!(call.values(), [model.next_call(n)], "counter {n}");
        }
        self.compare_journal(model);
    }

    /// Each decision that was acknowledged is there once, and none that nobody made.
    fn compare_journal(&self, model: &Model) {
        let mut ids = BTreeSet::new();
        for record in self.backend.records() {
            if let RecordKind::Decision(decision) = record.kind {
                assert!(ids.insert(decision.decision_id), "twice");
            }
        }
        assert!(
            ids.is_superset(&model.written),
            "{ids:?} lacks some of {:?}",
            model.written
        );
        let made = |id: &String| model.handed_in.contains(id) || model.in_doubt.contains(id);
        assert!(ids.difference(&model.written).all(made), "{ids:?}");
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn told<T>(
        &self,
        future: impl Future<Output = Result<T, StoreError>>,
        answer: impl FnOnce(T) -> Answer,
    ) -> Answer {
        match self.run(future) {
            Ok(value) => answer(value),
            Err(StoreError::GrantConflict { .. }) => Answer::Conflict,
            Err(StoreError::BeyondEnd { .. }) => Answer::BeyondEnd,
            Err(StoreError::TokenKnown) => Answer::TokenKnown,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The token that the model took, after it did.
fn next_token(model: &Model, known: Option<u64>) -> TokenHash {
    let made = model.tokens_made();
    match known {
        Some(known) if known < made => model::token(known),
        _ => model::token(made.saturating_sub(1)),
    }
}

fn decision(id: &str, now: i64) -> Record {
    let kind = RecordKind::Decision(DecisionRecord {
        decision_id: id.into(),
        outcome: Outcome::Allow,
        rule: None,
        reason: None,
        issuer: model::issuer(0),
        grant_id: model::grant_id(0),
        holder_jkt: "h".into(),
        depth: 0,
        links: Vec::new(),
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "client-0".into(),
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
        at_ms: now * 1000,
        kind,
    }
}
