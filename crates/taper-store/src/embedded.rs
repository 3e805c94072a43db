//! The store of one node: journal, derived state and seen proofs in one folder.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use rand_core::CryptoRngCore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::Lookup as _;
use crate::checkpoint;
use crate::counters::{Counter, Ledger, Reservation};
use crate::disk::{self, FolderLock};
use crate::draft::Draft;
use crate::error::StoreError;
use crate::frame::encode_record;
use crate::journal::{Journal, LOCK_FILE, Options, SEGMENT_BYTES};
use crate::kept::{ClientRecord, Name, RefreshRecord, RootKeysRecord, TokenHash};
use crate::later::{self, LaterSender};
use crate::record::{GrantRecord, Outcome, Record, RecordKind};
use crate::repair;
use crate::retain;
use crate::revocation::{Bound, NewRevocation, RevocationKey, RevocationRecord};
use crate::seen::{SeenLimits, SeenStore};
use crate::state::{Restored, State};
use crate::sweep::Swept;
use crate::traits::{
    Audit, CallCounters, Clients, Doubt, GrantPage, Grants, OpenFor, Receipt, RefreshFamilies,
    RevocationPage, Revocations, Rotation, Seen, SeenProofs, SubjectAt,
};
use crate::writer::{self, Command, QUEUE, Writer};

/// Names that one commit carries.
const CARRIED: usize = 256;

/// Gives the time in milliseconds since the Unix epoch.
pub type NowMillis = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What opening found, for the caller to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The store is new.
    pub created: bool,
    /// Records in the journal.
    pub records: u64,
    /// Bytes of a torn, never acknowledged tail that were dropped.
    pub dropped_bytes: u64,
    /// Records that were replayed into the state.
    pub replayed: u64,
    /// Why the state was thrown away first, if it was.
    pub state_unreadable: Option<String>,
    /// As [`SeenProofs::complete_since`].
    pub seen_complete_since: Option<i64>,
}

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds on seen proofs.
    pub seen: SeenLimits,
    /// Bytes of a journal file after which another one is begun.
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seen: SeenLimits::default(),
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// Implements every trait of the store on local files. Share it as an `Arc`.
pub struct EmbeddedStore {
    dir: PathBuf,
    retiring: tokio::sync::Mutex<()>,
    commands: mpsc::Sender<Command>,
    later: LaterSender,
    commits: Arc<AtomicU64>,
    head: watch::Receiver<u64>,
    failed: Arc<OnceLock<Arc<str>>>,
    /// The first failure of the state's database, which does not recover by itself.
    state_failed: OnceLock<String>,
    state: State,
    seen: SeenStore,
    ledger: Arc<Ledger>,
    now_ms: NowMillis,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, making it if need be, with the default [`Settings`]. `name`
    /// stands in the origin line of checkpoints: 1 to 64 of a–z, 0–9 and `-`.
    ///
    /// It reads the whole journal and syncs files: call it before the runtime serves, or under
    /// `spawn_blocking`.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has the folder; [`StoreError::Damaged`] or
    /// [`StoreError::Untrusted`] if the journal is not as it was signed. It is then left untouched.
    pub fn open(
        dir: &Path,
        name: &str,
        now_ms: NowMillis,
        rng: impl CryptoRngCore + Send + 'static,
    ) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(dir, name, Settings::default(), now_ms, rng)
    }

    /// As [`EmbeddedStore::open`], with other settings.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with(
        dir: &Path,
        name: &str,
        settings: Settings,
        now_ms: NowMillis,
        rng: impl CryptoRngCore + Send + 'static,
    ) -> Result<(Self, OpenReport), StoreError> {
        checkpoint::origin(name, 1)?;
        let mut rng: Box<dyn CryptoRngCore + Send> = Box::new(rng);
        disk::create_folder(dir)?;
        let lock = FolderLock::take(dir, LOCK_FILE)?;
        repair::check_finished(dir)?;
        let found = State::find(dir)?;
        let options = Options {
            known: found.applied(),
            segment_bytes: settings.segment_bytes,
            ..Options::default()
        };
        let (journal, opened) = Journal::open(dir, name, lock, options, &mut *rng)?;
        let end = journal.mark();
        let Restored {
            state,
            replayed,
            lost,
        } = found.restore(dir, opened.mark, end)?;
        retain::drop_below(dir, opened.retired)?;
        let seen = SeenStore::open_in(dir, settings.seen, opened.created, now_ms().div_euclid(1000))?;

        let report = OpenReport {
            created: opened.created,
            records: end.size,
            dropped_bytes: opened.dropped_bytes,
            replayed,
            state_unreadable: lost,
            seen_complete_since: seen.complete_since(),
        };
        let store = Self::start(journal, state, seen, now_ms, rng)?;
        Ok((store, report))
    }

    /// With a clock that nobody sets, which tells how long it has been since now. Without one, a wall clock that was
    /// behind when the store was opened hides which proofs may be forgotten.
    #[must_use]
    pub fn with_steady_clock(mut self, open_for: OpenFor) -> Self {
        self.seen = self.seen.with_steady_clock(open_for);
        self
    }

    fn start(
        journal: Journal,
        state: State,
        seen: SeenStore,
        now_ms: NowMillis,
        rng: Box<dyn CryptoRngCore + Send>,
    ) -> Result<Self, StoreError> {
        let dir = journal.dir().to_path_buf();
        let (head, head_receiver) = watch::channel(state.head()?);
        let failed = Arc::new(OnceLock::new());
        let (later, later_receiver) = later::channel();
        let commits = Arc::new(AtomicU64::new(0));
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let timer = timer.map_err(|e| StoreError::State(format!("cannot start the writer's timer: {e}")))?;
        let writer = Writer {
            journal,
            state: state.clone(),
            rng,
            head,
            failed: Arc::clone(&failed),
            later: later_receiver,
            commits: Arc::clone(&commits),
            untold: 0,
            timer,
            #[cfg(feature = "sabotage")]
            sabotage: crate::sabotage::Sabotage::from_env(),
        };
        let (commands, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("taper-journal".into())
            .spawn(move || writer.run(receiver))
            .map_err(|e| StoreError::State(format!("cannot start the writer thread: {e}")))?;
        Ok(Self {
            dir,
            retiring: tokio::sync::Mutex::default(),
            commands,
            later,
            commits,
            head: head_receiver,
            failed,
            state_failed: OnceLock::new(),
            state,
            seen,
            ledger: Arc::default(),
            now_ms,
        })
    }

    /// Whether the store still accepts records and seen proofs; for readiness checks. It says what came of the last
    /// writes and waits for none: it may be asked on a thread of the runtime.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after a write failed, [`StoreError::Closed`] after the writer ended,
    /// [`StoreError::State`] after the state could not be read, [`StoreError::Unrecorded`] while proofs cannot be
    /// recorded: until one is, or [`Self::forget_ended_proofs`] finds that one could be.
    pub fn check(&self) -> Result<(), StoreError> {
        self.check_journal()?;
        if let Some(reason) = self.state_failed.get() {
            return Err(StoreError::State(reason.clone()));
        }
        self.seen.check()
    }

    /// Remembers that the state failed: its database may fail between two writes of the journal, on a full
    /// disk for one, and is not ready from then on.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::State(reason)) = &result {
            self.state_failed.get_or_init(|| reason.clone());
        }
        result
    }

    fn check_journal(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(reason) => Err(StoreError::Poisoned(Arc::clone(reason))),
            None if self.commands.is_closed() => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    /// Finishes what was asked before, publishes the last checkpoint and gives up the journal. Later
    /// writes fail. A store that is merely dropped loses nothing that was acknowledged.
    ///
    /// # Errors
    /// When the checkpoint could not be published, or the store had failed or was closed before.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Command::Close { reply }).await
    }

    /// Forgets what ended a day or more before `now`, in seconds since the Unix epoch: grants,
    /// revocations, refresh families, counters. In small steps, between which others are served; to be
    /// called now and then.
    ///
    /// # Errors
    /// When the state cannot be read or written, or the store has failed or was closed.
    pub async fn sweep(&self, now: i64) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let (some, more) = self.ask(|reply| Command::Sweep { now, reply }).await?;
            swept.add(some);
            if !more {
                return Ok(swept);
            }
        }
    }

    /// Forgets the proofs that have ended at `now`, in seconds since the Unix epoch, off the runtime's threads: so that
    /// the next proof finds little left to forget, and what is counted is what counts. If the last proof could not be
    /// recorded, it also tries their file again, so that [`Self::check`] is in order again without another proof.
    pub async fn forget_ended_proofs(self: &Arc<Self>, now: i64) {
        let this = Arc::clone(self);
        let forget = move || {
            this.seen.sweep_all(now);
            this.seen.retry();
        };
        // It fails when the runtime ends.
        let _ = tokio::task::spawn_blocking(forget).await;
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// How many commits there were since the store was opened; each serves everyone who waited.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many commands wait for the writer.
    pub fn queued(&self) -> usize {
        self.commands
            .max_capacity()
            .saturating_sub(self.commands.capacity())
    }

    /// How many proofs are remembered, those that have ended and were not forgotten yet among them.
    pub fn seen_proofs(&self) -> usize {
        self.seen.len()
    }

    /// How many proofs it may have; beyond that none is taken.
    pub fn seen_proofs_limit(&self) -> usize {
        self.seen.limit()
    }

    /// How many records of [`Audit::append_later`] are not on the disk yet.
    pub fn later_waiting(&self) -> usize {
        self.later.waiting()
    }

    /// Whether there is much room for [`Audit::append_later`]. When there is little, the disk is behind, and who waits
    /// for it instead is not refused.
    pub fn takes_later(&self) -> bool {
        self.later.has_room()
    }

    /// Appends again, as it stands now, what these records speak about and the state still has: before
    /// the records themselves are dropped. Returns how many records that took. Durable when it returns.
    ///
    /// # Errors
    /// When the state cannot be read or the records not written.
    pub async fn carry(&self, records: &[Record]) -> Result<u64, StoreError> {
        let mut seen = HashSet::new();
        let names = records.iter().flat_map(Name::of);
        self.carry_names(names.filter(|name| seen.insert(name.clone())).collect())
            .await
    }

    /// As [`EmbeddedStore::carry`], by name. The end of the feed goes along even without names: the
    /// record that had it may be one of those that go.
    pub(crate) async fn carry_names(&self, mut names: Vec<Name>) -> Result<u64, StoreError> {
        let mut carried = 0;
        loop {
            let rest = names.split_off(names.len().min(CARRIED));
            let at_ms = (self.now_ms)();
            carried += self.work(move |draft| draft.carry(at_ms, &names)).await?;
            if rest.is_empty() {
                return Ok(carried);
            }
            names = rest;
        }
    }

    /// Appends a record of the store about itself.
    pub(crate) async fn note(&self, kind: RecordKind) -> Result<Receipt, StoreError> {
        let at_ms = (self.now_ms)();
        self.write(Record { at_ms, kind }, None).await
    }

    /// The store's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Held while old records are dropped.
    pub(crate) fn retiring(&self) -> &tokio::sync::Mutex<()> {
        &self.retiring
    }

    /// Decides on the writer thread, and returns what was decided once it is on the disk.
    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(|reply| {
            Command::Work(Box::new(move |draft| match job(draft) {
                Ok(value) => Some(writer::answer(reply, value)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                    None
                }
            }))
        })
        .await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        self.noted(answer.await.map_err(|_| StoreError::Closed)?)
    }

    async fn write(&self, record: Record, calls: Option<Reservation>) -> Result<Receipt, StoreError> {
        let payload = encode_record(&record)?;
        let record = Box::new(record);
        self.ask(|reply| Command::Append {
            record,
            payload,
            calls,
            reply,
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let state = self.state.clone();
        let answer = tokio::task::spawn_blocking(move || question(&state)).await;
        self.noted(answer.map_err(|e| StoreError::State(e.to_string()))?)
    }
}

#[async_trait]
impl Grants for EmbeddedStore {
    async fn insert_grant(&self, grant: GrantRecord) -> Result<Receipt, StoreError> {
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.insert_grant(at_ms, grant)).await
    }

    async fn grant(&self, issuer: &str, grant_id: &str) -> Result<Option<GrantRecord>, StoreError> {
        let (issuer, grant_id) = (issuer.to_owned(), grant_id.to_owned());
        self.read(move |state| state.grant(&issuer, &grant_id)).await
    }

    async fn grants_of(
        &self,
        whose: SubjectAt<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<GrantPage, StoreError> {
        let (issuer, client) = (whose.issuer.to_owned(), whose.client.to_owned());
        let (subject_iss, subject) = (whose.subject_iss.to_owned(), whose.subject.to_owned());
        let after = after.map(str::to_owned);
        self.read(move |state| {
            let whose = SubjectAt {
                issuer: &issuer,
                client: &client,
                subject_iss: &subject_iss,
                subject: &subject,
            };
            state.grants_of(&whose, after.as_deref(), limit)
        })
        .await
    }

    async fn is_first_holder(&self, issuer: &str, jkt: &str) -> Result<bool, StoreError> {
        let (issuer, jkt) = (issuer.to_owned(), jkt.to_owned());
        self.read(move |state| state.is_first_holder(&issuer, &jkt)).await
    }
}

#[async_trait]
impl Revocations for EmbeddedStore {
    async fn revoke(&self, revocation: NewRevocation) -> Result<u64, StoreError> {
        revocation.what.check()?;
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.revoke(at_ms, revocation, None))
            .await
    }

    async fn revoke_within(&self, revocation: NewRevocation, bound: Bound) -> Result<u64, StoreError> {
        revocation.what.check()?;
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.revoke(at_ms, revocation, Some(bound)))
            .await
    }

    async fn revocations_after(&self, seq: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        self.read(move |state| {
            // The head first: what is committed in between must not hide behind a higher head.
            let head = state.head()?;
            let records = state.revocations_after(seq, limit)?;
            let is_cut = records.len() >= limit;
            let mut entries: Vec<_> = records.into_iter().map(|record| record.revocation).collect();
            entries.retain(|entry| entry.seq <= head);
            let upto = match entries.last() {
                Some(last) if is_cut => last.seq,
                _ => head,
            };
            let history = state.history(upto)?;
            let history = history.ok_or_else(|| StoreError::State("the feed has no history".into()))?;
            Ok(RevocationPage {
                entries,
                head,
                upto,
                history,
            })
        })
        .await
    }

    async fn revocation_records_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<RevocationRecord>, StoreError> {
        self.read(move |state| state.revocations_after(seq, limit)).await
    }

    async fn history_at(&self, seq: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.read(move |state| state.history(seq)).await
    }

    async fn wait_past(&self, seq: u64) -> Result<u64, StoreError> {
        let mut head = self.head.clone();
        let reached = head
            .wait_for(|head| *head > seq)
            .await
            .map_err(|_| StoreError::Closed)?;
        Ok(*reached)
    }

    async fn is_revoked(
        &self,
        issuer: &str,
        keys: &[RevocationKey],
    ) -> Result<Option<RevocationKey>, StoreError> {
        let (issuer, keys) = (issuer.to_owned(), keys.to_vec());
        self.read(move |state| {
            for key in keys {
                if state.revoked(&issuer, &key)?.is_some() {
                    return Ok(Some(key));
                }
            }
            Ok(None)
        })
        .await
    }
}

#[async_trait]
impl Clients for EmbeddedStore {
    async fn put_client(&self, client: ClientRecord) -> Result<Option<Receipt>, StoreError> {
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.put_client(at_ms, client)).await
    }

    async fn client(&self, issuer: &str, client: &str) -> Result<Option<ClientRecord>, StoreError> {
        let (issuer, client) = (issuer.to_owned(), client.to_owned());
        self.read(move |state| state.client(&issuer, &client)).await
    }

    async fn clients(&self, issuer: &str) -> Result<Vec<ClientRecord>, StoreError> {
        let issuer = issuer.to_owned();
        self.read(move |state| state.clients(&issuer)).await
    }

    async fn put_root_keys(&self, keys: RootKeysRecord) -> Result<Option<Receipt>, StoreError> {
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.put_root_keys(at_ms, keys)).await
    }

    async fn root_keys(&self, issuer: &str) -> Result<Option<RootKeysRecord>, StoreError> {
        let issuer = issuer.to_owned();
        self.read(move |state| state.root_keys(&issuer)).await
    }
}

#[async_trait]
impl RefreshFamilies for EmbeddedStore {
    async fn begin_family(
        &self,
        issuer: &str,
        grant_id: &str,
        token: TokenHash,
        expires_at: i64,
    ) -> Result<Receipt, StoreError> {
        let at_ms = (self.now_ms)();
        let family = RefreshRecord {
            issuer: issuer.to_owned(),
            grant_id: grant_id.to_owned(),
            family: token.0,
            token: token.0,
            rotations: 0,
            expires_at,
            ended: None,
        };
        self.work(move |draft| draft.begin_family(at_ms, family)).await
    }

    async fn rotate(&self, presented: TokenHash, next: TokenHash) -> Result<Rotation, StoreError> {
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.rotate(at_ms, &presented.0, &next.0))
            .await
    }

    async fn end_family(&self, token: TokenHash) -> Result<bool, StoreError> {
        let at_ms = (self.now_ms)();
        self.work(move |draft| draft.end_family(at_ms, &token.0)).await
    }
}

#[async_trait]
impl Audit for EmbeddedStore {
    async fn append(&self, record: Record) -> Result<Receipt, StoreError> {
        check_plain(&record)?;
        self.write(record, None).await
    }

    fn append_later(&self, record: Record) -> Result<(), StoreError> {
        check_plain(&record)?;
        self.check_journal()?;
        let payload = encode_record(&record)?;
        // A full queue of commands keeps the writer busy, and it looks whenever it has written.
        self.later
            .send(record, payload, || drop(self.commands.try_send(Command::Wake)))
    }

    async fn append_counted(&self, mut record: Record, calls: Reservation) -> Result<Receipt, StoreError> {
        match &mut record.kind {
            RecordKind::Decision(decision)
                if decision.outcome == Outcome::Allow
                    && decision.issuer == calls.issuer()
                    && calls.is_of(&self.ledger) =>
            {
                decision.counted = calls.counters().to_vec();
            }
            _ => return Err(StoreError::NotCounted),
        }
        self.write(record, Some(calls)).await
    }
}

impl CallCounters for EmbeddedStore {
    fn reserve(&self, issuer: &str, counters: &[Counter]) -> Result<Reservation, StoreError> {
        self.check_journal()?;
        self.noted(
            self.ledger
                .reserve(issuer, counters, |name| self.state.calls(name)),
        )
    }
}

impl SeenProofs for EmbeddedStore {
    fn insert_once(
        &self,
        issuer_grant: &str,
        jkt: [u8; 32],
        jti: &str,
        keep_until: i64,
        now: i64,
    ) -> Result<Seen, StoreError> {
        self.seen.insert_once(issuer_grant, jkt, jti, keep_until, now)
    }

    fn is_seen(&self, jkt: [u8; 32], jti: &str, now: i64) -> bool {
        self.seen.is_seen(jkt, jti, now)
    }

    fn complete_since(&self) -> Option<i64> {
        self.seen.complete_since()
    }

    fn doubt(&self, now: i64) -> Doubt {
        self.seen.doubt(now)
    }
}

/// Refuses records that other methods check: those that change the state, or come from the journal itself.
fn check_plain(record: &Record) -> Result<(), StoreError> {
    let plain = match &record.kind {
        RecordKind::Decision(decision) => decision.counted.is_empty(),
        RecordKind::Policy { .. } | RecordKind::Started { .. } => true,
        RecordKind::Grant(_)
        | RecordKind::Revoked(_)
        | RecordKind::Client(_)
        | RecordKind::RootKeys(_)
        | RecordKind::Refresh(_)
        | RecordKind::Carried { .. }
        | RecordKind::Retired(_)
        | RecordKind::Repaired(_) => false,
    };
    if plain { Ok(()) } else { Err(StoreError::NotPlain) }
}

/// Says nothing of the content: sled would print all of it.
impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("failed", &self.failed.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod closing;
#[cfg(test)]
#[path = "known_tests.rs"]
mod known;
#[cfg(test)]
#[path = "embedded_tests.rs"]
pub(crate) mod tests;
