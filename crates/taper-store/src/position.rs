//! How far a proxy followed an issuer's feed, kept in a small file across restarts.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;
use crate::feed::{FeedPosition, History};

/// The largest file, in bytes: an issuer's URL and a hash.
const MAX_FILE: u64 = 16 * 1024;
const PREFIX: &str = "feed-";
const SUFFIX: &str = ".json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionFile {
    issuer: String,
    head: u64,
    history: History,
}

/// Remembers a position in an issuer's feed, durably: after a crash the file has the old or the new
/// one. Blocks on the disk.
///
/// # Errors
/// When the file cannot be replaced.
pub fn persist_position(path: &Path, issuer: &str, position: FeedPosition) -> Result<(), StoreError> {
    let file = PositionFile {
        issuer: issuer.to_owned(),
        head: position.seq,
        history: position.history,
    };
    let json = serde_json::to_vec(&file).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    disk::replace(path, &json)
}

/// What [`persist_position`] remembered; the start if there is no file.
///
/// # Errors
/// When the file cannot be read or is another issuer's: then what was enforced is unknown, and the
/// caller does not start.
pub fn load_position(path: &Path, issuer: &str) -> Result<FeedPosition, StoreError> {
    let Some(bytes) = disk::read_small(path, MAX_FILE)? else {
        return Ok(FeedPosition::START);
    };
    let unusable = |reason: String| StoreError::Position {
        path: path.to_path_buf(),
        reason,
    };
    let file: PositionFile = serde_json::from_slice(&bytes).map_err(|e| unusable(e.to_string()))?;
    if file.issuer != issuer {
        return Err(unusable(format!("it is for the issuer `{}`", file.issuer)));
    }
    Ok(FeedPosition {
        seq: file.head,
        history: file.history,
    })
}

/// The file in the state folder `dir` that has the position in the feed of an issuer, of whom `tag` is the
/// name as a file name can have it.
pub fn position_file(dir: &Path, tag: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{tag}{SUFFIX}"))
}

/// Copies the positions in `dir` to `out`, each as it was before or after a page of its feed.
pub(crate) fn copy_positions(dir: &Path, out: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let is_one = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if !name.to_str().is_some_and(is_one) {
            continue;
        }
        if let Some(bytes) = disk::read_small(&dir.join(&name), MAX_FILE)? {
            disk::replace(&out.join(&name), &bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_one_issuers_and_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed.json");
        assert_eq!(load_position(&path, "i").unwrap(), FeedPosition::START);
        let position = FeedPosition {
            seq: 7,
            history: History([9; 32]),
        };
        persist_position(&path, "i", FeedPosition::START).unwrap();
        persist_position(&path, "i", position).unwrap();
        assert_eq!(load_position(&path, "i").unwrap(), position);
        let said = load_position(&path, "j").unwrap_err().to_string();
        assert!(said.contains("`i`") && said.contains("feed.json"), "{said}");
        for bad in ["{", r#"{"issuer":"i","head":7}"#] {
            std::fs::write(&path, bad).unwrap();
            let said = load_position(&path, "i").unwrap_err().to_string();
            assert!(said.contains("delete it"), "{said}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(persist_position(&path, "i", position).is_err());
    }
}
