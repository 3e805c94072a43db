//! Which grants a subject has at a client, and which a key is the first holder of.
//!
//! The name of an owner is a hash over
//! its kind and its parts, each preceded by its length; that of a grant is the one under which its
//! record lies, so that a page can go on after any grant id.

use sha2::{Digest as _, Sha256};

use super::State;
use crate::change::Lookup as _;
use crate::error::StoreError;
use crate::layout::{self, INDEX};
use crate::record::GrantRecord;
use crate::traits::{GrantPage, SubjectAt};

/// The keys under which a grant is found; they change with no renewal. Their value is its id.
pub(crate) fn keys(grant: &GrantRecord) -> [Vec<u8>; 2] {
    let subject = subject_name(&SubjectAt {
        issuer: &grant.issuer,
        client: &grant.client,
        subject_iss: &grant.subject_iss,
        subject: &grant.subject,
    });
    let holder = holder_name(&grant.issuer, &grant.holder_jkt);
    let grant = layout::grant(&grant.issuer, &grant.grant_id);
    [key(&subject, &grant), key(&holder, &grant)]
}

impl State {
    /// At most `limit` grants of a subject at a client, after the one with the id `after`.
    pub(crate) fn grants_of(
        &self,
        whose: &SubjectAt<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<GrantPage, StoreError> {
        let name = subject_name(whose);
        let first = after.map_or(vec![0; 33], |id| layout::grant(whose.issuer, id));
        let (mut page, mut seen) = (GrantPage::default(), 0);
        let entries = self.range(key(&name, &first)..=key(&name, &[u8::MAX; 33]))?;
        for entry in entries.take(limit.saturating_add(2)) {
            let (_, id) = entry?;
            let id = String::from_utf8(id.to_vec()).map_err(|e| StoreError::State(e.to_string()))?;
            if Some(id.as_str()) == after {
                continue;
            }
            if seen == limit {
                page.more = true;
                break;
            }
            seen += 1;
            // A grant that was forgotten in between is no grant any more.
            page.grants.extend(self.grant(whose.issuer, &id)?);
            page.last = Some(id);
        }
        Ok(page)
    }

    /// Whether a key is the first holder of any grant.
    pub(crate) fn is_first_holder(&self, issuer: &str, jkt: &str) -> Result<bool, StoreError> {
        let name = holder_name(issuer, jkt);
        let mut entries = self.range(key(&name, &[0; 33])..=key(&name, &[u8::MAX; 33]))?;
        Ok(entries.next().transpose()?.is_some())
    }
}

fn subject_name(whose: &SubjectAt<'_>) -> [u8; 32] {
    name(&[
        "subject",
        whose.issuer,
        whose.client,
        whose.subject_iss,
        whose.subject,
    ])
}

fn holder_name(issuer: &str, jkt: &str) -> [u8; 32] {
    name(&["holder", issuer, jkt])
}

fn name(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// `grant` is the key of a grant's record, of which the first byte says only what it is.
fn key(owner: &[u8; 32], grant: &[u8]) -> Vec<u8> {
    let mut key = vec![INDEX];
    key.extend_from_slice(owner);
    key.extend(grant.iter().skip(1));
    key
}
