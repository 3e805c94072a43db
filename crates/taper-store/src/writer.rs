//! The writer thread: it owns the journal, and one commit serves everyone who waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand_core::CryptoRngCore;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::Change;
use crate::counters::Reservation;
use crate::draft::Draft;
use crate::error::StoreError;
use crate::journal::Journal;
use crate::later::{BESIDE, Later, LaterReceiver, TOGETHER};
use crate::record::Record;
use crate::state::{Applied, State};
use crate::sweep::{self, Swept};
use crate::traits::Receipt;

/// Commands that may wait; beyond that, callers wait to hand theirs in.
pub(crate) const QUEUE: usize = 1024;
/// Records and bytes of one commit.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// How long records that nobody waits for may wait for more of their kind: a commit costs the same for one
/// as for many.
const LINGER: Duration = Duration::from_millis(20);
/// When so many wait for one commit, others are about to: it gives them a moment, and serves them as well. With enough
/// of them it begins at once.
const COMPANY: usize = 2;
const ENOUGH: usize = 8;
/// The moment. A commit itself takes about as long, on a good disk.
const MOMENT: Duration = Duration::from_micros(500);

/// Commits of nothing but plain decisions after which the state learns how far the journal is. It keeps nothing of
/// them, and what a crash takes of that is read from the journal again; but telling it costs as much as a commit.
pub(crate) const TOLD_EVERY: u32 = 64;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
/// Tells a caller what came of the commit; with a reason when it failed.
pub(crate) type Answer = Box<dyn FnOnce(Option<&Arc<str>>) + Send>;
/// Decides on the writer thread what is to be written. No answer: the caller has one already.
pub(crate) type Job = Box<dyn FnOnce(&mut Draft<'_>) -> Option<Answer> + Send>;

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
    /// Decide and append.
    Work(Job),
    /// Forget some of what has ended before `now`, in seconds since the Unix epoch.
    Sweep { now: i64, reply: Reply<(Swept, bool)> },
    /// Look for records that nobody waits for.
    Wake,
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
    pub(crate) later: LaterReceiver,
    /// How many commits there were.
    pub(crate) commits: Arc<AtomicU64>,
    /// How many of them the state was not told of: the last ones.
    pub(crate) untold: u32,
    /// For waiting with an end.
    pub(crate) timer: Runtime,
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: crate::sabotage::Sabotage,
}

struct Batch<'a> {
    draft: Draft<'a>,
    calls: Vec<Reservation>,
    later: Vec<Later>,
    answers: Vec<Answer>,
}

/// What is done after a commit instead of another one.
enum Then {
    Sweep(i64, Reply<(Swept, bool)>),
    Close(Reply<()>),
}

impl Writer {
    /// Serves until the store is closed or dropped.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let state = self.state.clone();
        while let Ok(first) = self.next(&mut commands) {
            match self.round(&state, first, &mut commands) {
                None => {}
                Some(Then::Sweep(now, reply)) => drop(reply.send(self.sweep(now))),
                Some(Then::Close(reply)) => {
                    self.flush(&state);
                    let told = self.tell(&state);
                    let closed = told.and(state.close());
                    // Everything is let go before the caller is told so, the folder's lock last.
                    drop((commands, state));
                    let _ = reply.send(self.end().and(closed));
                    return;
                }
            }
        }
        // Dropped without close: everything acknowledged is on the disk, only `checkpoint` may lag.
        self.flush(&state);
        let _ = self.tell(&state);
        drop((commands, state));
        let _ = self.end();
    }

    /// Lets go of the state, then of the journal with the folder's lock: who gets that finds no part of
    /// the folder in use.
    fn end(self) -> Result<(), StoreError> {
        let Self { journal, state, .. } = self;
        drop(state);
        journal.close()
    }

    /// Waits for a command; with records that nobody waits for, not long.
    fn next(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<Option<Command>, TryRecvError> {
        loop {
            let received = match self.later.len() {
                0 => commands.blocking_recv().ok_or(TryRecvError::Disconnected),
                1..TOGETHER => self.linger(commands),
                _ => commands.try_recv(),
            };
            match received {
                // Nobody waits for what it speaks of. It comes at most twice for all of that, so this ends. When
                // that was taken already, the round makes the queue ready to wake again.
                Ok(Command::Wake) if self.later.len() > 0 => {}
                Ok(command) => return Ok(Some(command)),
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(TryRecvError::Disconnected),
            }
        }
    }

    fn linger(&self, commands: &mut mpsc::Receiver<Command>) -> Result<Command, TryRecvError> {
        let received = self
            .timer
            .block_on(async { tokio::time::timeout(LINGER, commands.recv()).await });
        match received {
            Ok(command) => command.ok_or(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// One commit for whoever waits, and some of what nobody waits for.
    fn round(
        &mut self,
        state: &State,
        first: Option<Command>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<Then> {
        let mut batch = self.batch(state);
        let (mut next, mut then, mut waited) = (first, None, false);
        while let Some(command) = next.take() {
            match command {
                Command::Append {
                    record,
                    payload,
                    calls,
                    reply,
                } => self.append(&record, payload, calls, reply, &mut batch),
                Command::Work(job) => batch.answers.extend(job(&mut batch.draft)),
                Command::Wake => {}
                Command::Sweep { now, reply } => {
                    then = Some(Then::Sweep(now, reply));
                    break;
                }
                Command::Close { reply } => {
                    then = Some(Then::Close(reply));
                    break;
                }
            }
            let has_room = batch.draft.bytes() < BATCH_BYTES;
            if batch.answers.len() < BATCH && has_room {
                next = commands.try_recv().ok();
            }
            if next.is_none() && !waited && has_room && (COMPANY..ENOUGH).contains(&batch.answers.len()) {
                waited = true;
                std::thread::sleep(MOMENT);
                next = commands.try_recv().ok();
            }
        }
        self.commit_with_later(batch);
        then
    }

    /// Writes what nobody waits for, all that was and will be taken.
    fn flush(&mut self, state: &State) {
        self.later.close();
        loop {
            let rest = self.later.take_rest(TOGETHER);
            if rest.is_empty() {
                return;
            }
            let batch = self.batch(state);
            self.commit_both(batch, rest);
        }
    }

    fn batch<'a>(&self, state: &'a State) -> Batch<'a> {
        Batch {
            draft: Draft::new(state, self.journal.mark().size, *self.head.borrow()),
            calls: Vec::new(),
            later: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn append(
        &mut self,
        record: &Record,
        payload: Vec<u8>,
        calls: Option<Reservation>,
        reply: Reply<Receipt>,
        batch: &mut Batch<'_>,
    ) {
        #[cfg(feature = "sabotage")]
        if self.sabotage.drops(&record.kind) {
            let index = batch.draft.next_index();
            batch.answers.push(answer(reply, Receipt { index }));
            return;
        }
        match batch.draft.append(record, payload) {
            Ok(receipt) => {
                batch.calls.extend(calls);
                batch.answers.push(answer(reply, receipt));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn commit_with_later(&mut self, batch: Batch<'_>) {
        // Who waits does not wait for many of them.
        let limit = if batch.answers.is_empty() {
            TOGETHER
        } else {
            BESIDE
        };
        let later = self.later.take(limit);
        self.commit_both(batch, later);
    }

    fn commit_both(&mut self, mut batch: Batch<'_>, later: Vec<Later>) {
        for mut later in later {
            let payload = std::mem::take(&mut later.payload);
            // A record that cannot be included breaks the commit, which is where that is told.
            let _ = batch.draft.append(&later.record, payload);
            batch.later.push(later);
        }
        self.commit(batch);
    }

    fn commit(&mut self, batch: Batch<'_>) {
        let Batch {
            draft,
            calls,
            later,
            mut answers,
        } = batch;
        #[cfg(feature = "sabotage")]
        if self.sabotage.answers_early() {
            answers.drain(..).for_each(|answer| answer(None));
            self.sabotage.be_late();
        }
        let result = self.write(draft);
        match &result {
            // The state has them now, so a counter may leave memory.
            Ok(()) => calls.into_iter().for_each(Reservation::commit),
            Err(error) => drop(self.failed.get_or_init(|| error.to_string().into())),
        }
        drop(later);
        let failure = self.failed.get().filter(|_| result.is_err());
        answers.drain(..).for_each(|answer| answer(failure));
    }

    fn write(&mut self, draft: Draft<'_>) -> Result<(), StoreError> {
        // Even an answer that needs no record is none while the store has failed.
        self.check()?;
        draft.check()?;
        if draft.payloads().is_empty() {
            return Ok(());
        }
        self.journal.commit(draft.payloads(), &mut *self.rng)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        let head = draft.head();
        self.include(draft.into_change())?;
        self.head
            .send_if_modified(|known| std::mem::replace(known, head) != head);
        Ok(())
    }

    /// Puts what was committed into the state.
    fn include(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        if change.can_wait() && self.untold.saturating_add(1) < TOLD_EVERY {
            self.untold += 1;
            return Ok(());
        }
        let mark = self.journal.mark();
        let applied = Applied {
            size: mark.size,
            root: mark.root,
        };
        self.state.apply(change, applied)?;
        self.untold = 0;
        Ok(())
    }

    /// Tells the state how far the journal is, if it does not know.
    fn tell(&mut self, state: &State) -> Result<(), StoreError> {
        if self.untold == 0 || self.check().is_err() {
            return Ok(());
        }
        self.untold = TOLD_EVERY;
        self.include(Change::of(state))
    }

    fn sweep(&self, now: i64) -> Result<(Swept, bool), StoreError> {
        self.check()?;
        sweep::step(&self.state, now)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(reason) => Err(StoreError::Poisoned(Arc::clone(reason))),
            None => Ok(()),
        }
    }
}

/// Tells a caller `value` once the commit is done. One that went away needs no answer.
pub(crate) fn answer<T: Send + 'static>(reply: Reply<T>, value: T) -> Answer {
    Box::new(move |failure| {
        let refused = failure.map(|reason| StoreError::Poisoned(Arc::clone(reason)));
        let _ = reply.send(refused.map_or(Ok(value), Err));
    })
}
