//! Keep grants, revocations, seen proofs and the audit journal.
//!
//! What must survive is one append-only **journal** (RULES 30): framed, salted, checksummed records
//! under an RFC 6962 tree whose heads are C2SP signed checkpoints. It *is* the audit log. An answer
//! is given only after the record and the checkpoint that covers it are on the disk, and one pair of
//! `fdatasync` calls serves every writer that waits (group commit). sled holds queryable state that
//! is derived from the journal and can be thrown away at any time. Seen proofs (RULES 22) live in
//! memory beside a log that survives `kill -9` and knows when it cannot be complete.
//!
//! Calls under a max-calls caveat (RULES 16) are counted by the journal and reserved in memory.
//!
//! Programs use the traits [`Grants`], [`Revocations`], [`Clients`], [`RefreshFamilies`], [`Audit`],
//! [`SeenProofs`] and [`CallCounters`]; [`EmbeddedStore`] implements all of them for one node. [`ReplayGuard`] takes proofs out of use over [`SeenProofs`]. [`RevocationView`] is the
//! proxy's set of what its issuer revoked. [`verify_dir`], [`read_records`] and [`find_journals`] work on the files
//! alone, without the store and while a writer runs.
//!
//! The crate reads no clock and no ambient randomness; both are arguments.

mod change;
mod checkpoint;
mod counters;
mod disk;
mod draft;
mod embedded;
mod error;
mod feed;
mod frame;
mod guard;
mod journal;
mod keeping;
mod kept;
mod later;
mod layout;
mod moves;
mod names;
mod position;
mod proof;
mod receipt;
mod record;
mod repair;
mod retain;
mod revocation;
mod rules;
#[cfg(feature = "sabotage")]
mod sabotage;
mod salvage;
mod seen;
mod seen_log;
mod segment;
mod state;
mod sweep;
mod sweep_clock;
mod tiles;
mod traits;
mod tree;
mod verify;
mod view;
mod walk;
mod writer;

pub use counters::{Counter, CounterKey, Reservation};
pub use embedded::{EmbeddedStore, NowMillis, OpenReport, Settings};
pub use error::StoreError;
pub use feed::{
    FEED_BYTES, FEED_ENTRIES, FEED_PAGE_BYTES, FEED_SIGNATURE, FEED_TYP, FeedKnown, FeedPage, FeedPosition,
    History,
};
pub use guard::{Fitting, ReplayGuard, Untaken};
pub use keeping::JournalConfig;
pub use kept::{
    Carried, ClientRecord, RefreshEnd, RefreshRecord, RepairedRecord, RetiredRecord, RootKeyRecord,
    RootKeysRecord, TokenHash,
};
pub use moves::{Moved, export, import, rebuild};
pub use position::{load_position, persist_position, position_file};
pub use receipt::{ProvenRecord, RecordReceipt, Which, receipt, verify_receipt};
pub use record::{DecisionRecord, GrantRecord, LinkRecord, Outcome, Record, RecordKind};
pub use repair::{RepairReport, repair};
pub use retain::Retired;
pub use revocation::{Bound, NO_HISTORY, NewRevocation, Revocation, RevocationKey, RevocationRecord};
pub use seen::{LONGEST_LIFE, SeenLimits, SeenStore};
pub use segment::journal_size;
pub use sweep::Swept;
pub use sweep_clock::SweepClock;
pub use tiles::export_tiles;
pub use traits::{
    Audit, CallCounters, Clients, Doubt, GrantPage, Grants, OpenFor, Receipt, RefreshFamilies,
    RevocationPage, Revocations, Rotation, Seen, SeenProofs, SubjectAt,
};
pub use verify::{
    BadRecord, Records, StoredRecord, VerifyReport, find_journals, read_records, verify_against, verify_dir,
};
pub use view::{RevocationKeys, RevocationView};
