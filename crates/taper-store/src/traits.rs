//! What programs ask of a store, whichever it is.

use async_trait::async_trait;

use crate::counters::{CounterKey, Reservation};
use crate::error::StoreError;
use crate::record::{GrantRecord, Record};
use crate::revocation::{NewRevocation, Revocation, RevocationKey, RevocationRecord};

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
    /// [`StoreError::GrantConflict`] if the id belongs to another; otherwise the grant was not
    /// acknowledged and must not be handed out.
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

/// The audit log.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Appends a record. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NotPlain`] for grants, revocations and decisions that count calls, which have
    /// their own methods; otherwise the record was not acknowledged and what it describes must not
    /// happen (DESIGN G5).
    async fn append(&self, record: Record) -> Result<Receipt, StoreError>;

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
    /// Reserves one call under each of `keys`, or under none of them. The reservation tells how many
    /// calls there are with this one, and is given back when it is dropped. A value is never too low;
    /// it is too high by the calls that are under way and will be given back.
    ///
    /// It is synchronous: a short lock, and for a counter without calls under way a look-up in the
    /// state, which may read the disk. Not for a runtime thread.
    ///
    /// # Errors
    /// When the store has failed or the state cannot be read; nothing is reserved, the caller denies.
    fn reserve(&self, issuer: &str, keys: &[CounterKey]) -> Result<Reservation, StoreError>;
}

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
    /// names whose quota it counts against. Times are seconds since the Unix epoch.
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

    /// When set, proofs from before may have been forgotten: a caller refuses one whose `iat` is at
    /// or before this time, with a nonce challenge. Seconds since the Unix epoch.
    fn complete_since(&self) -> Option<i64>;
}
