//! What an issuer revoked, as a proxy holds it in memory.
//!
//! One view follows one issuer's feed (RULES 29). Readers take a shared lock for a handful of hash
//! look-ups; a page is checked before the exclusive lock is taken, so they never wait for long. The
//! highest sequence number is kept in a small file: a feed that is behind it after a restart has
//! lost revocations, and is refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;
use crate::record::{RevocationKey, parse_hex32, parse_thumbprint};
use crate::traits::RevocationPage;

/// Everything of one presentation that can be revoked.
#[derive(Debug, Clone, Copy)]
pub struct RevocationKeys<'a> {
    /// The issuer of the capability.
    pub issuer: &'a str,
    /// The grant id.
    pub grant: &'a str,
    /// The branch ids of the chain (RULES 6).
    pub branches: &'a [[u8; 32]],
    /// The thumbprint of every holder of the chain (RULES 28).
    pub holders: &'a [[u8; 32]],
    /// The client id.
    pub client: &'a str,
    /// The subject and, where there is one, the actor, each as (iss, sub).
    pub subjects: &'a [(&'a str, &'a str)],
}

/// The set of revocations of one issuer.
pub struct RevocationView {
    issuer: String,
    sets: RwLock<Sets>,
}

#[derive(Default)]
struct Sets {
    grants: HashSet<String>,
    branches: HashSet<[u8; 32]>,
    holders: HashSet<[u8; 32]>,
    clients: HashSet<String>,
    subjects: HashMap<String, HashSet<String>>,
    head: u64,
    floor: u64,
    fresh_as_of: Option<i64>,
}

enum Parsed {
    Grant(String),
    Branch([u8; 32]),
    Holder([u8; 32]),
    Client(String),
    Subject(String, String),
}

impl RevocationView {
    /// An empty view of the feed of `issuer`. `floor` is the highest sequence number that was ever
    /// seen ([`load_head`]), 0 if none was.
    pub fn new(issuer: impl Into<String>, floor: u64) -> Self {
        Self {
            issuer: issuer.into(),
            sets: RwLock::new(Sets {
                floor,
                ..Sets::default()
            }),
        }
    }

    /// Adds a page. `as_of` is the issuer-signed time of the answer, in seconds since the Unix
    /// epoch; it counts for [`RevocationView::fresh_as_of`] when the page reaches the feed's head.
    /// Entries that are known are skipped.
    ///
    /// # Errors
    /// [`StoreError::Regression`] when the feed's head is below what was seen (RULES 29);
    /// [`StoreError::BadPage`] or [`StoreError::MalformedKey`] for a page of another issuer, out of
    /// order or beyond its head. Nothing of such a page is taken.
    pub fn apply(&self, page: &RevocationPage, as_of: i64) -> Result<(), StoreError> {
        let mut parsed = Vec::with_capacity(page.entries.len());
        let mut last = 0;
        for entry in &page.entries {
            if entry.issuer != self.issuer {
                return Err(StoreError::BadPage("an entry is of another issuer"));
            }
            if entry.seq <= last || entry.seq > page.head {
                return Err(StoreError::BadPage("its numbers are out of order"));
            }
            last = entry.seq;
            parsed.push((entry.seq, parse(&entry.what)?));
        }
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let known = sets.head.max(sets.floor);
        if page.head < known {
            return Err(StoreError::Regression {
                known,
                offered: page.head,
            });
        }
        // No entries: everything up to the head is known, or was pruned.
        let reached = if page.entries.is_empty() { page.head } else { last };
        for (seq, key) in parsed {
            if seq > sets.head {
                sets.insert(key);
            }
        }
        sets.head = sets.head.max(reached);
        if sets.head == page.head {
            sets.fresh_as_of = sets.fresh_as_of.max(Some(as_of));
        }
        Ok(())
    }

    /// The kind of the first key that is revoked: `grant`, `branch`, `holder`, `client` or
    /// `subject`. Keys of another issuer than this view's are answered `issuer`: it cannot know.
    pub fn is_revoked(&self, keys: &RevocationKeys<'_>) -> Option<&'static str> {
        if keys.issuer != self.issuer {
            return Some("issuer");
        }
        let sets = self.read();
        let is_gone =
            |(iss, sub): &(&str, &str)| sets.subjects.get(*iss).is_some_and(|subs| subs.contains(*sub));
        if sets.grants.contains(keys.grant) {
            Some("grant")
        } else if keys.branches.iter().any(|branch| sets.branches.contains(branch)) {
            Some("branch")
        } else if keys.holders.iter().any(|holder| sets.holders.contains(holder)) {
            Some("holder")
        } else if sets.clients.contains(keys.client) {
            Some("client")
        } else if keys.subjects.iter().any(is_gone) {
            Some("subject")
        } else {
            None
        }
    }

    /// The issuer whose feed this is.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The highest sequence number that was taken; the next page comes after it.
    pub fn head(&self) -> u64 {
        self.read().head
    }

    /// The issuer-signed time at which the view was complete; `None` until it is for the first time.
    /// A proxy denies when that is too long ago (DESIGN G5).
    pub fn fresh_as_of(&self) -> Option<i64> {
        self.read().fresh_as_of
    }

    fn read(&self) -> RwLockReadGuard<'_, Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RevocationView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevocationView")
            .field("issuer", &self.issuer)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

impl Sets {
    fn insert(&mut self, key: Parsed) {
        match key {
            Parsed::Grant(id) => drop(self.grants.insert(id)),
            Parsed::Branch(id) => drop(self.branches.insert(id)),
            Parsed::Holder(jkt) => drop(self.holders.insert(jkt)),
            Parsed::Client(id) => drop(self.clients.insert(id)),
            Parsed::Subject(iss, sub) => drop(self.subjects.entry(iss).or_default().insert(sub)),
        }
    }
}

fn parse(key: &RevocationKey) -> Result<Parsed, StoreError> {
    key.check()?;
    Ok(match key {
        RevocationKey::Grant(id) => Parsed::Grant(id.clone()),
        RevocationKey::Branch(hex) => Parsed::Branch(parse_hex32(hex)?),
        RevocationKey::Holder(jkt) => Parsed::Holder(parse_thumbprint(jkt)?),
        RevocationKey::Client(id) => Parsed::Client(id.clone()),
        RevocationKey::Subject { iss, sub } => Parsed::Subject(iss.clone(), sub.clone()),
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFile {
    issuer: String,
    head: u64,
}

/// Remembers the highest sequence number of an issuer's feed, durably. Blocks on the disk.
///
/// # Errors
/// When the file cannot be replaced.
pub fn persist_head(path: &Path, issuer: &str, head: u64) -> Result<(), StoreError> {
    let file = HeadFile {
        issuer: issuer.to_owned(),
        head,
    };
    let json = serde_json::to_vec(&file).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    disk::replace(path, &json)
}

/// What [`persist_head`] remembered; `None` if there is no file.
///
/// # Errors
/// When the file cannot be read or is another issuer's: then what was seen is unknown, and the
/// caller does not start.
pub fn load_head(path: &Path, issuer: &str) -> Result<Option<u64>, StoreError> {
    let Some(bytes) = disk::read_small(path, 4096)? else {
        return Ok(None);
    };
    let file: HeadFile =
        serde_json::from_slice(&bytes).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    if file.issuer != issuer {
        let reason = format!("`{}` is for the issuer `{}`", path.display(), file.issuer);
        return Err(StoreError::MalformedRecord(reason));
    }
    Ok(Some(file.head))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::record::Revocation;

    fn page(head: u64, entries: &[(u64, RevocationKey)]) -> RevocationPage {
        let entry = |(seq, what): &(u64, RevocationKey)| Revocation {
            seq: *seq,
            at: 0,
            issuer: "i".into(),
            what: what.clone(),
        };
        RevocationPage {
            entries: entries.iter().map(entry).collect(),
            head,
        }
    }

    fn grant(id: &str) -> RevocationKey {
        RevocationKey::Grant(id.into())
    }

    const KEYS: RevocationKeys<'_> = RevocationKeys {
        issuer: "i",
        grant: "g",
        branches: &[[1; 32], [2; 32]],
        holders: &[[3; 32], [4; 32]],
        client: "c",
        subjects: &[("idp", "alice"), ("idp", "agent-7")],
    };

    #[test]
    fn each_kind_is_found() {
        let check = |what: RevocationKey, found: Option<&'static str>| {
            let view = RevocationView::new("i", 0);
            view.apply(&page(1, &[(1, what.clone())]), 5).unwrap();
            assert_eq!(view.is_revoked(&KEYS), found, "{what:?}");
        };
        let subject = |iss: &str, sub: &str| RevocationKey::Subject {
            iss: iss.into(),
            sub: sub.into(),
        };
        check(grant("g"), Some("grant"));
        check(grant("c"), None);
        check(RevocationKey::Branch("02".repeat(32)), Some("branch"));
        check(RevocationKey::Branch("03".repeat(32)), None);
        check(
            RevocationKey::Holder(URL_SAFE_NO_PAD.encode([4; 32])),
            Some("holder"),
        );
        check(RevocationKey::Holder(URL_SAFE_NO_PAD.encode([1; 32])), None);
        check(RevocationKey::Client("c".into()), Some("client"));
        check(RevocationKey::Client("g".into()), None);
        check(subject("idp", "alice"), Some("subject"));
        check(subject("idp", "agent-7"), Some("subject"));
        check(subject("other", "alice"), None);
        check(subject("idp", "bob"), None);
    }

    #[test]
    fn another_issuers_keys_are_not_known_to_be_good() {
        let view = RevocationView::new("i", 0);
        assert_eq!(
            view.is_revoked(&RevocationKeys { issuer: "j", ..KEYS }),
            Some("issuer")
        );
    }

    #[test]
    fn head_and_freshness_follow_the_feed() {
        let view = RevocationView::new("i", 0);
        assert_eq!((view.head(), view.fresh_as_of()), (0, None));
        view.apply(&page(3, &[(1, grant("a"))]), 10).unwrap();
        assert_eq!((view.head(), view.fresh_as_of()), (1, None), "not complete yet");
        view.apply(&page(3, &[(3, grant("g"))]), 11).unwrap();
        assert_eq!(
            (view.head(), view.fresh_as_of()),
            (3, Some(11)),
            "a gap is what pruning leaves"
        );
        assert_eq!(view.is_revoked(&KEYS), Some("grant"));
        view.apply(&page(3, &[]), 20).unwrap();
        view.apply(&page(3, &[]), 19).unwrap();
        assert_eq!(
            (view.head(), view.fresh_as_of()),
            (3, Some(20)),
            "an older answer takes nothing back"
        );
        view.apply(&page(5, &[]), 21).unwrap();
        assert_eq!(
            (view.head(), view.fresh_as_of()),
            (5, Some(21)),
            "all pruned up to the head"
        );
    }

    #[test]
    fn bad_pages_change_nothing() {
        let view = RevocationView::new("i", 0);
        view.apply(&page(2, &[(2, grant("x"))]), 1).unwrap();
        let check = |page: RevocationPage, expect: &str| {
            let said = view.apply(&page, 9).unwrap_err().to_string();
            assert!(said.contains(expect), "{said}");
            assert_eq!(
                (view.head(), view.fresh_as_of(), view.is_revoked(&KEYS)),
                (2, Some(1), None)
            );
        };
        check(page(1, &[]), "went back to 1, but 2");
        check(page(9, &[(4, grant("g")), (3, grant("h"))]), "out of order");
        check(page(3, &[(4, grant("g"))]), "out of order");
        check(
            page(3, &[(3, RevocationKey::Holder("short".into()))]),
            "thumbprint",
        );
        let mut foreign = page(3, &[(3, grant("g"))]);
        foreign.entries[0].issuer = "j".into();
        check(foreign, "another issuer");
    }

    #[test]
    fn a_restart_notices_a_feed_that_went_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head.json");
        assert_eq!(load_head(&path, "i").unwrap(), None);
        persist_head(&path, "i", 7).unwrap();
        assert!(load_head(&path, "j").is_err());
        let view = RevocationView::new("i", load_head(&path, "i").unwrap().unwrap());
        assert!(matches!(
            view.apply(&page(6, &[]), 1),
            Err(StoreError::Regression { known: 7, offered: 6 })
        ));
        view.apply(&page(7, &[(7, grant("g"))]), 1).unwrap();
        assert_eq!(view.is_revoked(&KEYS), Some("grant"));
        std::fs::write(&path, "{").unwrap();
        assert!(load_head(&path, "i").is_err());
    }
}
