//! The feed of revocations on the wire, as an issuer writes it and a proxy reads it
//! (`spec/revocation.md`).
//!
//! Here is only its form. Who signs a page, and over which bytes, is the business of its two ends.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::revocation::{NO_HISTORY, Revocation, RevocationKey};

/// `typ` of the detached JWS over a page.
pub const FEED_TYP: &str = "taper-revocations+jws";
/// The header that carries it, in lower case.
pub const FEED_SIGNATURE: &str = "taper-signature";
/// The most entries of one page.
pub const FEED_ENTRIES: usize = 2000;
/// The most bytes of one page's entries, unless a single one has more.
pub const FEED_BYTES: usize = 1024 * 1024;
/// The largest page that a reader takes, in bytes.
pub const FEED_PAGE_BYTES: usize = 2 * FEED_BYTES;

/// One page of an issuer's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedPage {
    /// Whose feed it is.
    pub issuer: String,
    /// The number after which it begins, as the reader asked.
    pub after: u64,
    /// In the order of their numbers, which may have gaps.
    #[serde(deserialize_with = "strict_entries")]
    pub entries: Vec<Revocation>,
    /// The highest number given so far; 0 if none was.
    pub head: u64,
    /// The number up to which the page leaves nothing out; the next one begins after it.
    pub upto: u64,
    /// The history up to there.
    pub history: History,
    /// The history up to the number that the reader named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<FeedKnown>,
    /// When it was made, in seconds since the Unix epoch, by the issuer's clock.
    pub time: i64,
}

/// What an issuer says of a number that its reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedKnown {
    /// The number.
    pub seq: u64,
    /// The history up to it; `None` if it was never given.
    pub history: Option<History>,
}

/// How far a reader followed a feed, and what it was told up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPosition {
    /// The highest number; 0 before the first.
    pub seq: u64,
    /// The history up to it.
    pub history: History,
}

/// One hash for everything that was revoked up to a number ([`Revocation::history`]); base64url in
/// JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History(pub [u8; 32]);

impl Default for History {
    fn default() -> Self {
        Self(NO_HISTORY)
    }
}

impl FeedPosition {
    /// Before the first revocation.
    pub const START: Self = Self {
        seq: 0,
        history: History(NO_HISTORY),
    };
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let hash = bytes.and_then(|bytes| bytes.try_into().ok());
        hash.map(Self)
            .ok_or_else(|| D::Error::custom("a history is 32 bytes in base64url"))
    }
}

/// An entry as the journal reads it may grow members; on the wire an unknown one could restrict what
/// the entry says, so it is refused.
fn strict_entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Revocation>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        seq: u64,
        at: i64,
        issuer: String,
        what: RevocationKey,
        #[serde(default)]
        until: Option<i64>,
    }
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    let plain = |entry: Entry| Revocation {
        seq: entry.seq,
        at: entry.at,
        issuer: entry.issuer,
        what: entry.what,
        until: entry.until,
    };
    Ok(entries.into_iter().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_history_is_the_one_that_the_page_of_the_spec_has() {
        let keys = [
            r#"{"grant":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
            r#"{"subject":{"iss":"https://idp.example","sub":"alice"}}"#,
        ];
        let page = include_str!("../../../spec/revocation.md");
        let mut history = History::default();
        for (seq, key) in (1..).zip(keys) {
            let entry = Revocation {
                seq,
                at: 0,
                issuer: "https://issuer.example".into(),
                what: serde_json::from_str(key).unwrap(),
                until: None,
            };
            history = entry.history(history);
            let told = format!("history({seq}) = {}\n", URL_SAFE_NO_PAD.encode(history.0));
            assert!(page.contains(key) && page.contains(&told), "{told}");
        }
    }

    #[test]
    fn pages_are_read_to_the_letter() {
        let history = URL_SAFE_NO_PAD.encode([7; 32]);
        let good = json!({
            "issuer": "https://i", "after": 3,
            "entries": [{"seq": 4, "at": 9, "issuer": "https://i", "what": {"grant": "g"}, "until": 99}],
            "head": 5, "upto": 4, "history": history,
            "known": {"seq": 3, "history": null}, "time": 10,
        });
        let page: FeedPage = serde_json::from_value(good.clone()).unwrap();
        assert_eq!(page.history, History([7; 32]));
        assert_eq!(page.known.unwrap().history, None);
        assert_eq!(serde_json::to_value(&page).unwrap(), good);
        let check = |pointer: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let parent = changed.pointer_mut(parent).unwrap();
            parent.as_object_mut().unwrap().insert(name.into(), value);
            assert!(serde_json::from_value::<FeedPage>(changed).is_err(), "{pointer}");
        };
        check("/more", json!(1));
        check("/known/more", json!(1));
        check("/entries/0/more", json!(1));
        check("/entries/0/what/branch", json!("x"));
        check(
            "/entries/0/what",
            json!({"subject": {"iss": "a", "sub": "b", "more": 1}}),
        );
        check("/entries/0/what", json!({"planet": "x"}));
        check("/history", json!(format!("{history}=")));
        check("/history", json!("AA"));
        check("/head", json!(-1));
        check("/head", json!(1.0));
    }
}
