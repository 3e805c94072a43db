//! What programs ask of a store, whichever it is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::counters::{Counter, Reservation};
use crate::error::StoreError;
use crate::kept::{ClientRecord, RefreshRecord, RootKeysRecord, TokenHash};
use crate::record::{GrantRecord, Record};
use crate::revocation::{Bound, NewRevocation, Revocation, RevocationKey, RevocationRecord};

/// Proof that a record is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The record's number in the journal, counted from 0.
    pub index: u64,
}

/// What the issuer granted.
#[async_trait]
pub trait Grants: Send + Sync {
    /// Records a grant, or the renewal of one (same id, issuer, subject, client, actor and holder).
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::GrantConflict`] if the id belongs to another, [`StoreError::BeyondEnd`] if the
    /// renewal would pass the grant's end; otherwise the grant was not acknowledged and must not be
    /// handed out.
    async fn insert_grant(&self, grant: GrantRecord) -> Result<Receipt, StoreError>;

    /// The newest record of a grant.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn grant(&self, issuer: &str, grant_id: &str) -> Result<Option<GrantRecord>, StoreError>;

    /// At most `limit` of a subject's grants at a client, ended ones too, in an order that does not
    /// change; `after` is the [`GrantPage::last`] of the page before. A grant that is made meanwhile may
    /// be missed.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn grants_of(
        &self,
        whose: SubjectAt<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<GrantPage, StoreError>;

    /// Whether the key with this RFC 7638 thumbprint is the first holder of a grant that is known.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn is_first_holder(&self, issuer: &str, jkt: &str) -> Result<bool, StoreError>;
}

/// A subject as one client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectAt<'a> {
    /// The issuer of the grants.
    pub issuer: &'a str,
    /// The client that they were made for.
    pub client: &'a str,
    /// The issuer of the subject's identity.
    pub subject_iss: &'a str,
    /// The subject.
    pub subject: &'a str,
}

/// A part of the grants of a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantPage {
    /// The newest record of each.
    pub grants: Vec<GrantRecord>,
    /// The id after which the next page begins; `None` when this one is empty.
    pub last: Option<String>,
    /// Whether there are further ones.
    pub more: bool,
}

/// A part of the feed (RULES 29).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationPage {
    /// In order of their sequence numbers, which may have gaps.
    pub entries: Vec<Revocation>,
    /// The highest sequence number given so far; 0 if none was.
    pub head: u64,
    /// The number up to which nothing is left out; the next page comes after it.
    pub upto: u64,
    /// The history up to there: one hash over everything that was revoked.
    pub history: [u8; 32],
}

/// What was revoked.
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Records a revocation and returns its sequence number. Durable when it returns. Idempotent:
    /// a key that is already revoked keeps its first number.
    ///
    /// # Errors
    /// [`StoreError::MalformedKey`], or whatever kept it from the disk; then it is not revoked.
    async fn revoke(&self, revocation: NewRevocation) -> Result<u64, StoreError>;

    /// As [`Revocations::revoke`], if the grant of `bound` has caused fewer than its limit. Only what
    /// gets a number here counts, whatever becomes of it later; the count ends with the grant's record.
    ///
    /// # Errors
    /// [`StoreError::TooManyRevocations`] at the limit, unless the key is revoked already; otherwise as
    /// [`Revocations::revoke`].
    async fn revoke_within(&self, revocation: NewRevocation, bound: Bound) -> Result<u64, StoreError>;

    /// At most `limit` revocations with a number above `seq`.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn revocations_after(&self, seq: u64, limit: usize) -> Result<RevocationPage, StoreError>;

    /// At most `limit` revocations with a number above `seq`, with who asked for each: for
    /// administrators, not for the feed.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn revocation_records_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<RevocationRecord>, StoreError>;

    /// The history up to a number that was given; `None` for one that was not, or that is no longer
    /// known.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn history_at(&self, seq: u64) -> Result<Option<[u8; 32]>, StoreError>;

    /// Waits until the head is above `seq` and returns it. Cancel-safe; the caller sets the limit of
    /// time.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when it can never happen.
    async fn wait_past(&self, seq: u64) -> Result<u64, StoreError>;

    /// The first of `keys` that is revoked for `issuer`.
    ///
    /// # Errors
    /// When the state cannot be read; the caller denies.
    async fn is_revoked(
        &self,
        issuer: &str,
        keys: &[RevocationKey],
    ) -> Result<Option<RevocationKey>, StoreError>;
}

/// What is configured at the issuer, so that the audit log tells when it changed.
#[async_trait]
pub trait Clients: Send + Sync {
    /// Records a client, unless the newest record of it is the same; then there is no receipt. Durable
    /// when it returns.
    ///
    /// # Errors
    /// Whatever kept it from the disk.
    async fn put_client(&self, client: ClientRecord) -> Result<Option<Receipt>, StoreError>;

    /// The newest record of a client.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn client(&self, issuer: &str, client: &str) -> Result<Option<ClientRecord>, StoreError>;

    /// The newest record of each client of an issuer, the removed ones too, in the order of their ids.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn clients(&self, issuer: &str) -> Result<Vec<ClientRecord>, StoreError>;

    /// Records the root keys in force, unless the newest record of them is the same; then there is no
    /// receipt. Durable when it returns.
    ///
    /// # Errors
    /// Whatever kept it from the disk.
    async fn put_root_keys(&self, keys: RootKeysRecord) -> Result<Option<Receipt>, StoreError>;

    /// The newest record of the root keys of an issuer.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn root_keys(&self, issuer: &str) -> Result<Option<RootKeysRecord>, StoreError>;
}

/// What came of a refresh token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The next token is in force, and the presented one is used.
    Rotated(RefreshRecord),
    /// It was used before, so the family has ended now.
    Reused(RefreshRecord),
    /// No family has it.
    Unknown,
    /// Its family had ended before, or something that it rests on is revoked.
    Ended,
    /// Its family's time is over.
    Expired,
}

/// Refresh tokens, each used once (RFC 9700 §4.14.2).
#[async_trait]
pub trait RefreshFamilies: Send + Sync {
    /// Begins a family with its first token, for a grant that is recorded. Durable when it returns.
    /// `expires_at` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`StoreError::BeyondEnd`] if there is no such grant or it ends before the family,
    /// [`StoreError::TokenKnown`] if a family has the token; otherwise the family was not
    /// acknowledged and its token must not be handed out.
    async fn begin_family(
        &self,
        issuer: &str,
        grant_id: &str,
        token: TokenHash,
        expires_at: i64,
    ) -> Result<Receipt, StoreError>;

    /// Uses the presented token and puts the next one in its place. A token that was used before ends
    /// its family; nothing rotates once its grant, client, subject or holder is revoked. Durable when
    /// it returns; of two that present the same token at once, one rotates it.
    ///
    /// # Errors
    /// [`StoreError::TokenKnown`] if a family has the next token; otherwise nothing was acknowledged,
    /// and the next token must not be handed out.
    async fn rotate(&self, presented: TokenHash, next: TokenHash) -> Result<Rotation, StoreError>;

    /// Ends the family that has or had a token. Durable when it returns; `false` if there is nothing to
    /// end.
    ///
    /// # Errors
    /// Whatever kept it from the disk.
    async fn end_family(&self, token: TokenHash) -> Result<bool, StoreError>;
}

/// The audit log.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Appends a record. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NotPlain`] for decisions that count calls and for what has its own methods;
    /// otherwise the record was not acknowledged and what it describes must not
    /// happen (DESIGN G5).
    async fn append(&self, record: Record) -> Result<Receipt, StoreError>;

    /// Hands in a record without waiting for the disk, for what may happen before it is recorded. It is
    /// in the journal soon, and at the latest when the store is closed, unless the process dies before.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] when too many wait; otherwise as [`Audit::append`]. Then it was not taken,
    /// and what it describes must not happen (DESIGN G5).
    fn append_later(&self, record: Record) -> Result<(), StoreError>;

    /// Appends the decision that allowed the reserved call, with its counters
    /// ([`crate::DecisionRecord::counted`] is filled in here). When it returns, both are durable. A
    /// caller that stops waiting changes nothing: the call counts if and only if the record is in the
    /// journal.
    ///
    /// # Errors
    /// [`StoreError::NotCounted`] for any other record; otherwise the record was not acknowledged and
    /// the call must not happen.
    async fn append_counted(&self, record: Record, calls: Reservation) -> Result<Receipt, StoreError>;
}

/// Calls under max-calls caveats (RULES 16).
pub trait CallCounters: Send + Sync {
    /// Reserves one call under each of `counters`, or under none of them. The reservation tells how many
    /// calls there are with this one, and is given back when it is dropped. A value is never too low;
    /// it is too high by the calls that are under way and will be given back.
    ///
    /// It is synchronous: a short lock, and for a counter without calls under way a look-up in the
    /// state, which may read the disk. Not for a runtime thread.
    ///
    /// # Errors
    /// When the store has failed or the state cannot be read; nothing is reserved, the caller denies.
    fn reserve(&self, issuer: &str, counters: &[Counter]) -> Result<Reservation, StoreError>;
}

/// Tells how long a store has been open, by a clock that nobody sets.
pub type OpenFor = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The answer for one proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was not seen before, and is remembered now.
    Fresh,
    /// It was seen before.
    Replay,
    /// The grant has as many live proofs as it may (429).
    Quota,
}

/// Proofs that were seen (RULES 22).
pub trait SeenProofs: Send + Sync {
    /// Remembers the proof (`jkt`, `jti`) until `keep_until`, unless it is known. `issuer_grant`
    /// names whose quota it counts against. Times are seconds since the Unix epoch. What ends more than
    /// [`crate::LONGEST_LIFE`] after `now` is forgotten soon, and in doubt from then on.
    ///
    /// A proof that is fresh here may be one that was forgotten: the caller asks [`SeenProofs::doubt`] **afterwards**.
    ///
    /// It is synchronous: a few hashes, two short locks and one `write(2)` into the page cache, some
    /// microseconds together.
    ///
    /// # Errors
    /// [`StoreError::SeenFull`] or an I/O error: the proof could not be remembered, the caller denies.
    fn insert_once(
        &self,
        issuer_grant: &str,
        jkt: [u8; 32],
        jti: &str,
        keep_until: i64,
        now: i64,
    ) -> Result<Seen, StoreError>;

    /// Whether the proof (`jkt`, `jti`) is known at `now`. It remembers nothing: one that is not known may
    /// be by the time of [`SeenProofs::insert_once`], which alone decides. Two hashes and a short lock.
    fn is_seen(&self, jkt: [u8; 32], jti: &str, now: i64) -> bool;

    /// When set, proofs that were made by this time may have been forgotten. Who takes proofs asks [`SeenProofs::doubt`],
    /// since they may be dated ahead. Seconds since the Unix epoch.
    fn complete_since(&self) -> Option<i64>;

    /// Which proofs that may be presented at `now` may have been forgotten. It notices a clock that was set back.
    /// What it said counts no longer when a proof is taken: who finds it gone asks again.
    fn doubt(&self, now: i64) -> Doubt;
}

/// Proofs that may have been used and forgotten. A proof of these counts only with a nonce that shows that it was made
/// after they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// As [`SeenProofs::complete_since`], by the clock that shows now.
    pub complete_since: Option<i64>,
    /// Proofs of which nothing can be accepted after this time were forgotten when the clock was later than now or at
    /// the end of their time; `i64::MIN` for none. Seconds since the Unix epoch.
    pub forgotten_until: i64,
    /// How often the clock was set back behind what was forgotten by it. Nonces from before the last time show
    /// nothing.
    pub setbacks: u64,
}

impl Doubt {
    /// Whether a proof of the time `iat`, that nobody accepts after `replayable_until`, is one of them. Proofs may be
    /// dated `ahead` seconds ahead.
    #[must_use]
    pub fn covers(&self, iat: i64, replayable_until: i64, ahead: i64) -> bool {
        let is_older = |since: i64| iat <= since.saturating_add(ahead);
        self.complete_since.is_some_and(is_older) || replayable_until <= self.forgotten_until
    }
}
