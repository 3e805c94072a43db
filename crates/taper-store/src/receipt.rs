//! Receipts: one record with what proves it to somebody who has nothing but the verifier key.
//!
//! A receipt holds the exact payload and its salt, the path from the record to the root (RFC 6962
//! §2.1.1) and the signed checkpoint of that root. It stays valid when the journal grows, and when
//! the record is dropped from it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tlog_tiles::tlog::{Hash, check_record, record_hash};

use crate::checkpoint::{Head, Trust};
use crate::error::StoreError;
use crate::frame::{MAX_PAYLOAD, decode_record};
use crate::journal::{contradiction, ends_early};
use crate::kept::Carried;
use crate::proof::Gathered;
use crate::record::{Record, RecordKind};
use crate::tree;
use crate::verify::{read_heads, read_records};
use crate::walk::{Found, Walk};

/// Bytes of a receipt at most: a payload of the largest size, every byte of it escaped.
const RECEIPT_LIMIT: usize = 6 * MAX_PAYLOAD + 64 * 1024;
/// Hashes of a path at most: the levels of a tree of any size.
const PATH_LIMIT: usize = 64;

/// Which record a receipt is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The record of this number.
    Index(u64),
    /// The decision with this id.
    Decision(String),
    /// The newest record of the grant with this id.
    Grant(String),
}

/// A record with its proof, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordReceipt {
    /// The origin line of the journal's checkpoints.
    pub origin: String,
    /// The record's number, from 0.
    pub index: u64,
    /// 32 lower-case hex digits; the entry is SHA-256(salt ‖ payload).
    pub salt: String,
    /// The exact JSON text of the record.
    pub payload: String,
    /// The hashes beside the way from the record to the root, from the record on; base64.
    pub proof: Vec<String>,
    /// The signed note that has the root.
    pub checkpoint: String,
}

impl RecordReceipt {
    /// The same in the text form of C2SP [`tlog-proof`](https://c2sp.org/tlog-proof) version 1, for
    /// standard tools. Its `extra` is salt ‖ payload, of which the entry is the SHA-256.
    pub fn to_tlog_proof(&self) -> String {
        let salt = salt(&self.salt).unwrap_or_default();
        let extra = [&salt, self.payload.as_bytes()].concat();
        let mut text = format!(
            "c2sp.org/tlog-proof@v1\nextra {}\nindex {}\n",
            STANDARD.encode(extra),
            self.index
        );
        for hash in &self.proof {
            text.push_str(hash);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }
}

/// What a receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRecord {
    /// The origin line of the journal that has it.
    pub origin: String,
    /// Its number there, from 0.
    pub index: u64,
    /// The size of the tree whose checkpoint covers it.
    pub tree_size: u64,
    /// The record.
    pub record: Record,
}

/// Makes the receipt for a record of the journal in `dir`, under its newest checkpoint. It needs no
/// lock and may run while the journal is written.
///
/// # Errors
/// [`StoreError::NoSuchRecord`] if it is not there or not yet covered, and as
/// [`read_records`].
pub fn receipt(dir: &Path, which: &Which) -> Result<RecordReceipt, StoreError> {
    let trust = Trust::load(dir)?;
    let heads = read_heads(dir, &trust)?;
    let Some((head, note)) = heads.newest else {
        return Err(StoreError::untrusted(dir, "there is no good checkpoint"));
    };
    let index = find(dir, which)?;
    let unproven = |e: tlog_tiles::tlog::Error| StoreError::NoSuchRecord(e.to_string());
    if index >= head.size {
        let reason = format!(
            "record {index} is not among the {} that are signed for",
            head.size
        );
        return Err(StoreError::NoSuchRecord(reason));
    }
    let mut gathered = Gathered::for_record(index, head.size).map_err(unproven)?;
    let origin = trust.origin().to_owned();
    let frame = gather(dir, trust, index, head, &mut gathered)?;
    let proof = gathered.prove(index, head.size).map_err(unproven)?;
    Ok(RecordReceipt {
        origin,
        index,
        salt: frame.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        payload: String::from_utf8(frame.1).map_err(|e| StoreError::MalformedRecord(e.to_string()))?,
        proof: proof.iter().map(ToString::to_string).collect(),
        checkpoint: note,
    })
}

/// Checks a receipt with nothing but the text of the journal's verifier key (`journal.pub`).
///
/// # Errors
/// [`StoreError::BadReceipt`] with the reason; then it proves nothing.
pub fn verify_receipt(bytes: &[u8], verifier_key: &str) -> Result<ProvenRecord, StoreError> {
    let bad = |reason: String| StoreError::BadReceipt(reason);
    if bytes.len() > RECEIPT_LIMIT {
        return Err(bad(format!("it is larger than {RECEIPT_LIMIT} bytes")));
    }
    let trust = Trust::from_key(verifier_key).ok_or_else(|| bad("this is not a verifier key".into()))?;
    let receipt: RecordReceipt = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    let head = trust
        .verify(receipt.checkpoint.as_bytes())
        .map_err(|e| bad(format!("its checkpoint: {e}")))?;
    if receipt.origin != trust.origin() {
        return Err(bad("it is of another journal than its checkpoint".into()));
    }
    if receipt.payload.len() > MAX_PAYLOAD || receipt.proof.len() > PATH_LIMIT {
        return Err(bad("its payload or its proof is beyond the limit".into()));
    }
    let salt = salt(&receipt.salt).ok_or_else(|| bad("a salt is 32 lower-case hex digits".into()))?;
    let path: Option<Vec<Hash>> = receipt.proof.iter().map(|text| hash(text)).collect();
    let path = path.ok_or_else(|| bad("a hash of its proof is not 32 bytes of base64".into()))?;
    let leaf = record_hash(&tree::entry(&salt, receipt.payload.as_bytes()));
    check_record(&path, head.size, head.root, receipt.index, leaf).map_err(|e| bad(e.to_string()))?;
    Ok(ProvenRecord {
        origin: receipt.origin,
        index: receipt.index,
        tree_size: head.size,
        record: decode_record(receipt.payload.as_bytes())?,
    })
}

fn find(dir: &Path, which: &Which) -> Result<u64, StoreError> {
    let wanted = |record: &Record| match (&record.kind, which) {
        (RecordKind::Decision(decision), Which::Decision(id)) => decision.decision_id == *id,
        (RecordKind::Grant(grant), Which::Grant(id)) => grant.grant_id == *id,
        (
            RecordKind::Carried {
                state: Carried::Grant(grant),
            },
            Which::Grant(id),
        ) => grant.grant_id == *id,
        _ => false,
    };
    if let Which::Index(index) = which {
        return Ok(*index);
    }
    let mut found = None;
    for stored in read_records(dir)? {
        let stored = stored?;
        if wanted(&stored.record) {
            found = Some(stored.index);
        }
    }
    found.ok_or_else(|| StoreError::NoSuchRecord("no record of the journal has that id".into()))
}

/// Reads the journal up to `head` and returns salt and payload of the record.
fn gather(
    dir: &Path,
    trust: Trust,
    index: u64,
    head: Head,
    gathered: &mut Gathered,
) -> Result<([u8; 16], Vec<u8>), StoreError> {
    let mut walk = Walk::start(dir, trust, head.size);
    let mut record = None;
    let mut begun = false;
    loop {
        let place = walk.place();
        if begun && place.index == head.size {
            break;
        }
        match walk.step_each(|level, number, hash| gathered.meet(level, number, hash))? {
            Found::Segment if begun => {}
            Found::Segment => {
                begun = true;
                if let Some(tree) = walk.tree() {
                    gathered.begin(tree);
                }
                if index < walk.place().index {
                    return Err(StoreError::NoSuchRecord(format!("record {index} was dropped")));
                }
            }
            Found::Frame(frame) if place.index == index => record = Some((frame.salt, frame.payload)),
            Found::Frame(_) => {}
            Found::Bad(place, reason) => return Err(place.damaged(dir, reason)),
            Found::End | Found::Torn(_) => {
                return Err(place.damaged(dir, ends_early(head.size)));
            }
        }
    }
    if let Some(tree) = walk.tree().filter(|tree| tree.root() != head.root) {
        return Err(walk.place().damaged(dir, contradiction(tree)));
    }
    record.ok_or_else(|| StoreError::NoSuchRecord(format!("record {index} is not there")))
}

fn salt(text: &str) -> Option<[u8; 16]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = Vec::new();
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    bytes.try_into().ok()
}

fn hash(text: &str) -> Option<Hash> {
    let bytes: [u8; 32] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(Hash(bytes))
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
