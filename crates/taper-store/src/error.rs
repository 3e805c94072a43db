//! The one error type of the store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rules;

/// Why the store could not do what it was asked. Every variant means "not done": a caller fails
/// closed (DESIGN G5).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A second process tried to open the folder.
    #[error("`{}` is in use by another process; stop that one first, or choose another folder ({})", path.display(), rules::ONE_WRITER)]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The journal lost or changed something that was acknowledged. It is never repaired unasked.
    #[error(
        "the journal in `{0}` is damaged in `{segment}` at record {index} (byte {offset}): {reason}; \
         see what can be saved with `taper audit repair --dir {0} --dry-run`",
        path.display()
    )]
    Damaged {
        /// The journal's folder.
        path: PathBuf,
        /// The file name of the segment.
        segment: String,
        /// The first bad record, counted from 0.
        index: u64,
        /// Where it starts in the segment, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal's keys or checkpoints are missing or do not fit together.
    #[error("the journal in `{}` cannot be trusted: {reason}", path.display())]
    Untrusted {
        /// The journal's folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A journal that has nothing to repair.
    #[error("the journal in `{}` is as it was signed; there is nothing to repair", path.display())]
    Intact {
        /// The journal's folder.
        path: PathBuf,
    },
    /// A private key file can be read by others.
    #[error("`{}` has mode {mode:04o}; run `chmod 600 {}` ({})", path.display(), path.display(), rules::KEYS)]
    KeyMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A journal name that cannot stand in a checkpoint's origin line.
    #[error("journal name `{0}` is not 1 to 64 of a-z, 0-9 and `-`")]
    Name(String),
    /// A record that is larger than the journal takes.
    #[error(
        "a record of {size} bytes is larger than the limit of {limit} bytes ({})",
        rules::RECORD
    )]
    RecordTooLarge {
        /// The encoded size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A record could not be written as JSON or read back from it.
    #[error("malformed record: {0} ({rule})", rule = rules::RECORD)]
    MalformedRecord(String),
    /// A record that is not in the journal, or not covered by a checkpoint.
    #[error("no such record: {0}")]
    NoSuchRecord(String),
    /// A receipt that is not what it claims.
    #[error("the receipt proves nothing: {0} ({rule})", rule = rules::RECEIPT)]
    BadReceipt(String),
    /// A folder to be filled that has something in it.
    #[error("`{}` is not empty; name a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A revocation key that is not in its one spelling.
    #[error("malformed revocation key: {0}")]
    MalformedKey(&'static str),
    /// The grant caused as many revocations as it may.
    #[error("the grant `{grant_id}` has caused {limit} revocations, as many as this request may add to")]
    TooManyRevocations {
        /// The id.
        grant_id: String,
        /// The limit of the request.
        limit: u64,
    },
    /// The grant id is taken by a grant for another holder, client or subject.
    #[error("another grant already has the id `{grant_id}`")]
    GrantConflict {
        /// The id.
        grant_id: String,
    },
    /// There is no grant of this id that lasts so long.
    #[error("the grant `{grant_id}` is unknown or ends before {wanted}")]
    BeyondEnd {
        /// The id.
        grant_id: String,
        /// The end that was asked for, in seconds since the Unix epoch.
        wanted: i64,
    },
    /// A refresh token that is not new.
    #[error("a refresh family has this token already; draw another one")]
    TokenKnown,
    /// What changes the state has methods of its own, which check it.
    #[error("this kind of record is not appended as a plain record")]
    NotPlain,
    /// A reservation counts with the decision that allowed its call, in the store that made it.
    #[error("only the decision that allowed a reserved call counts it")]
    NotCounted,
    /// Too many records wait to be written.
    #[error("too many records wait to be written")]
    QueueFull,
    /// An earlier write failed; nothing is accepted until the store is opened again.
    #[error("the journal stopped after a failure: {0} ({rule})", rule = rules::FAILED)]
    Poisoned(Arc<str>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The derived state could not be read or written.
    #[error("the state database failed: {0}")]
    State(String),
    /// The table of seen proofs is full, or cannot record any more.
    #[error("no room to remember another proof: {0}")]
    SeenFull(&'static str),
    /// The last seen proof could not be written to its file.
    #[error("the last proof could not be recorded: {0}")]
    Unrecorded(Arc<str>),
    /// A revocation feed went backwards (RULES 29).
    #[error("the revocation feed went back to {offered}, but {known} was already seen")]
    Regression {
        /// The highest sequence number seen so far.
        known: u64,
        /// What the feed offers now.
        offered: u64,
    },
    /// A revocation feed tells something else than it told before (RULES 29).
    #[error("the revocation feed tells another history of its first {seq} revocations than it told before")]
    Forked {
        /// The number up to which it was known.
        seq: u64,
    },
    /// How far a feed was followed cannot be known.
    #[error(
        "`{}` does not say how far the feed was followed: {reason}; restore it, or delete it to trust the feed as it is now",
        path.display()
    )]
    Position {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A revocation page that breaks the feed's contract.
    #[error("bad revocation page: {0}")]
    BadPage(&'static str),
}

impl StoreError {
    /// An adapter for `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the process or the machine has as many files open as it may, which passes.
    pub(crate) fn is_short_of_files(&self) -> bool {
        /// `ENFILE` and `EMFILE`, the same everywhere.
        const TOO_MANY: [i32; 2] = [23, 24];
        matches!(self, Self::Io { source, .. } if source.raw_os_error().is_some_and(|code| TOO_MANY.contains(&code)))
    }

    /// The journal in `dir` is not one to build on.
    pub(crate) fn untrusted(dir: &Path, reason: impl Into<String>) -> Self {
        Self::Untrusted {
            path: dir.to_path_buf(),
            reason: reason.into(),
        }
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::State(error.to_string())
    }
}
