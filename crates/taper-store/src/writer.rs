//! The writer thread: it owns the journal, and one commit serves everyone who waits.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rand_core::CryptoRngCore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::counters::Reservation;
use crate::error::StoreError;
use crate::frame::encode_record;
use crate::journal::Journal;
use crate::record::{GrantRecord, Record, RecordKind};
use crate::revocation::{NewRevocation, Revocation, RevocationRecord, next_history};
use crate::state::{Applied, State};
use crate::traits::Receipt;

/// Commands that may wait; beyond that, callers wait to hand theirs in.
pub(crate) const QUEUE: usize = 1024;
/// Records and bytes of one commit.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What callers ask of the writer.
pub(crate) enum Command {
    /// Append a record, already encoded by the caller. The calls that it counts come along, so that
    /// they end with it whether or not anybody waits for the answer.
    Append {
        record: Box<Record>,
        payload: Vec<u8>,
        calls: Option<Reservation>,
        reply: Reply<Receipt>,
    },
    /// Give a revocation its number and append it.
    Revoke {
        at_ms: i64,
        revocation: NewRevocation,
        reply: Reply<u64>,
    },
    /// Finish what was asked before, publish the checkpoint and end.
    Close { reply: Reply<()> },
}

/// The thread's belongings.
pub(crate) struct Writer {
    pub(crate) journal: Journal,
    pub(crate) state: State,
    pub(crate) rng: Box<dyn CryptoRngCore + Send>,
    /// The highest number given to a revocation.
    pub(crate) head: watch::Sender<u64>,
    /// Set once, when nothing more can be accepted.
    pub(crate) failed: Arc<OnceLock<Arc<str>>>,
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: crate::sabotage::Sabotage,
}

/// Who gets told what after the commit.
enum Answer {
    Receipt(Reply<Receipt>, u64),
    Number(Reply<u64>, u64),
}

#[derive(Default)]
struct Batch {
    payloads: Vec<Vec<u8>>,
    records: Vec<Record>,
    bytes: usize,
    revoked: HashMap<[u8; 32], u64>,
    /// The last number given in this batch, and the history up to it.
    feed: Option<(u64, [u8; 32])>,
    calls: Vec<Reservation>,
    answers: Vec<Answer>,
}

impl Writer {
    /// Serves until the store is closed or dropped.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let (mut batch, mut close, mut next) = (Batch::default(), None, Some(first));
            while let Some(command) = next.take() {
                match command {
                    Command::Append {
                        record,
                        payload,
                        calls,
                        reply,
                    } => self.append(*record, payload, calls, reply, &mut batch),
                    Command::Revoke {
                        at_ms,
                        revocation,
                        reply,
                    } => {
                        self.revoke(at_ms, revocation, reply, &mut batch);
                    }
                    Command::Close { reply } => {
                        close = Some(reply);
                        break;
                    }
                }
                if batch.answers.len() < BATCH && batch.bytes < BATCH_BYTES {
                    next = commands.try_recv().ok();
                }
            }
            self.commit(batch);
            if let Some(reply) = close {
                // Queue, journal, lock and state are let go before the caller is told so.
                drop(commands);
                let Self {
                    journal, state, head, ..
                } = self;
                let result = journal.close();
                drop((state, head));
                let _ = reply.send(result);
                return;
            }
        }
        // Dropped without close: everything acknowledged is on the disk, only `checkpoint` may lag.
        let _ = self.journal.close();
    }

    fn append(
        &mut self,
        record: Record,
        payload: Vec<u8>,
        calls: Option<Reservation>,
        reply: Reply<Receipt>,
        batch: &mut Batch,
    ) {
        #[cfg(feature = "sabotage")]
        if self.sabotage.drops(&record.kind) {
            batch.answers.push(Answer::Receipt(reply, self.next_index(batch)));
            return;
        }
        if let RecordKind::Grant(grant) = &record.kind
            && let Err(error) = self.check_grant(grant, batch)
        {
            let _ = reply.send(Err(error));
            return;
        }
        let index = self.next_index(batch);
        batch.push(record, payload);
        batch.calls.extend(calls);
        batch.answers.push(Answer::Receipt(reply, index));
    }

    fn revoke(&mut self, at_ms: i64, revocation: NewRevocation, reply: Reply<u64>, batch: &mut Batch) {
        match self.number(at_ms, revocation, batch) {
            Ok(seq) => batch.answers.push(Answer::Number(reply, seq)),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// The number of a revocation: the one that it has, or the next, with a record for it.
    fn number(&self, at_ms: i64, revocation: NewRevocation, batch: &mut Batch) -> Result<u64, StoreError> {
        let NewRevocation {
            at,
            issuer,
            what,
            until,
            by,
        } = revocation;
        let fingerprint = what.fingerprint(&issuer);
        if let Some(seq) = batch.revoked.get(&fingerprint) {
            return Ok(*seq);
        }
        if let Some(seq) = self.state.revoked(&issuer, &what)? {
            return Ok(seq);
        }
        let (last, before) = match batch.feed {
            Some(feed) => feed,
            None => self.feed_end()?,
        };
        let seq = last + 1;
        let history = next_history(&before, seq, &fingerprint);
        let record = Record {
            at_ms,
            kind: RecordKind::Revoked(RevocationRecord {
                revocation: Revocation {
                    seq,
                    at,
                    issuer,
                    what,
                    until,
                },
                by,
                history,
            }),
        };
        let payload = encode_record(&record)?;
        batch.push(record, payload);
        batch.feed = Some((seq, history));
        batch.revoked.insert(fingerprint, seq);
        Ok(seq)
    }

    /// The highest number given so far, and the history up to it.
    fn feed_end(&self) -> Result<(u64, [u8; 32]), StoreError> {
        let last = *self.head.borrow();
        match self.state.history(last)? {
            Some(history) => Ok((last, history)),
            None => Err(StoreError::State("the feed has no history".into())),
        }
    }

    fn check_grant(&self, grant: &GrantRecord, batch: &Batch) -> Result<(), StoreError> {
        let same = |record: &&Record| match &record.kind {
            RecordKind::Grant(other) => other.grant_id == grant.grant_id && other.issuer == grant.issuer,
            _ => false,
        };
        let fits = match batch.records.iter().rev().find(same).map(|record| &record.kind) {
            Some(RecordKind::Grant(pending)) => pending.is_renewed_by(grant),
            _ => self
                .state
                .grant(&grant.issuer, &grant.grant_id)?
                .is_none_or(|old| old.is_renewed_by(grant)),
        };
        if fits {
            Ok(())
        } else {
            Err(StoreError::GrantConflict {
                grant_id: grant.grant_id.clone(),
            })
        }
    }

    fn next_index(&self, batch: &Batch) -> u64 {
        self.journal.mark().size + batch.records.len() as u64
    }

    fn commit(&mut self, mut batch: Batch) {
        #[cfg(feature = "sabotage")]
        if self.sabotage.answers_early() {
            batch.answer(None);
            self.sabotage.be_late();
        }
        let result = self.write(&batch);
        if result.is_ok() {
            // The state has them now, so a counter may leave memory.
            batch.calls.drain(..).for_each(Reservation::commit);
        }
        if let Err(error) = &result {
            self.failed.get_or_init(|| error.to_string().into());
        }
        batch.answer(self.failed.get().filter(|_| result.is_err()));
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        // Even an answer that needs no record is none while the store has failed.
        if let Some(reason) = self.failed.get() {
            return Err(StoreError::Poisoned(Arc::clone(reason)));
        }
        if batch.records.is_empty() {
            return Ok(());
        }
        self.journal.commit(&batch.payloads, &mut *self.rng)?;
        let mark = self.journal.mark();
        self.state.apply(
            &batch.records,
            Applied {
                size: mark.size,
                root: mark.root,
            },
        )?;
        if let Some((last, _)) = batch.feed {
            self.head.send_replace(last);
        }
        Ok(())
    }
}

impl Batch {
    fn push(&mut self, record: Record, payload: Vec<u8>) {
        self.bytes += payload.len();
        self.records.push(record);
        self.payloads.push(payload);
    }

    /// Tells everyone who waits, once.
    fn answer(&mut self, failure: Option<&Arc<str>>) {
        for answer in self.answers.drain(..) {
            // A caller that went away does not need its answer.
            let refused = failure.map(|reason| StoreError::Poisoned(Arc::clone(reason)));
            match answer {
                Answer::Receipt(reply, index) => drop(reply.send(refused.map_or(Ok(Receipt { index }), Err))),
                Answer::Number(reply, seq) => drop(reply.send(refused.map_or(Ok(seq), Err))),
            }
        }
    }
}
