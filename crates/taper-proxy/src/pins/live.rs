//! The pins of a running proxy: the file, read again when it changes, and what its server does otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use taper_capability::json::Value;

use super::diff::{Change, changes, cut};
use super::text::shown_name;
use super::{Pins, PinsError, Shown, file};

/// How much of one difference goes into the log, in bytes.
const MAX_LOGGED: usize = 2048;
/// How much of one goes into `/readyz`, in bytes.
const MAX_SHOWN: usize = 400;
/// How many tools are told of by name.
const MAX_TOLD: usize = 32;
/// How many different changes of one tool go into the log until it is as it was: a server may find new words
/// each time.
const MAX_CHANGES: u32 = 8;

/// The approved tools of one server, as they are now.
#[derive(Debug)]
pub(crate) struct Pinned {
    server: String,
    path: PathBuf,
    /// Whether callers without a token are shown what it holds.
    shows: bool,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    pins: Arc<Pins>,
    shown: Option<Arc<Shown>>,
    /// The bytes that `pins` were read from.
    read: Vec<u8>,
    /// Why the file that is there now is not in use.
    refused: Option<String>,
    /// How the latest list differs; nothing before the first.
    changes: Option<Arc<Told>>,
}

/// The tools that are not as they were approved, by name. Names and differences are cut: a server may write
/// what it likes.
type Told = BTreeMap<String, Telling>;

/// What is told of one of them.
#[derive(Debug)]
struct Telling {
    /// The beginning of how it differs.
    difference: String,
    /// SHA-256 of all of it.
    mark: [u8; 32],
    /// How many different changes of it there were.
    changes: u32,
}

impl Telling {
    /// Of a tool that was told of as `before`, if it was.
    fn of(change: &Change, before: Option<&Self>) -> Self {
        let mut all = Sha256::new_with_prefix(change.what());
        for line in change.lines() {
            all.update(line);
            all.update("\n");
        }
        let mark = all.finalize().into();
        let is_new = before.is_none_or(|before| before.mark != mark);
        Self {
            difference: change.summary(MAX_LOGGED),
            mark,
            changes: before
                .map_or(0, |before| before.changes)
                .saturating_add(is_new.into()),
        }
    }

    /// Whether the log has to tell it, after `before`.
    fn is_news(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| before.changes < self.changes) && self.changes <= MAX_CHANGES
    }
}

impl Pinned {
    /// Reads the file for the first time. With `shows` it holds what callers without a token are shown.
    ///
    /// # Errors
    /// [`PinsError`].
    pub(crate) fn open(server: &str, path: &Path, shows: bool) -> Result<Self, PinsError> {
        let read = file::read(path)?;
        let (pins, shown) = parse(&read, server, shows)?;
        Ok(Self {
            server: server.to_owned(),
            path: path.to_owned(),
            shows,
            state: RwLock::new(State {
                pins: Arc::new(pins),
                shown: shown.map(Arc::new),
                read,
                refused: None,
                changes: None,
            }),
        })
    }

    /// What is approved now.
    pub(crate) fn pins(&self) -> Arc<Pins> {
        self.with(|state| Arc::clone(&state.pins))
    }

    /// What callers without a token are shown, if anything is.
    pub(crate) fn shown(&self) -> Option<Arc<Shown>> {
        self.with(|state| state.shown.clone())
    }

    /// Reads the file again, and says whether other pins hold from now on. One with a mistake changes
    /// nothing. It reads a file: not for a runtime thread.
    pub(crate) fn reread(&self) -> bool {
        let read = file::read(&self.path);
        let unchanged = |state: &State| read.as_ref().is_ok_and(|read| *read == state.read);
        if self.with(|state| unchanged(state) && state.refused.is_none()) {
            return false;
        }
        let parsed = read.and_then(|read| Ok((parse(&read, &self.server, self.shows)?, read)));
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match parsed {
            Ok(((pins, shown), read)) => {
                tracing::info!(
                    mcp.server = self.server,
                    tools = pins.len(),
                    "new pins are in use"
                );
                let changed = *state.pins != pins;
                (state.pins, state.shown) = (Arc::new(pins), shown.map(Arc::new));
                (state.read, state.refused) = (read, None);
                changed
            }
            Err(error) => {
                let reason = error.to_string();
                if state.refused.as_ref() != Some(&reason) {
                    tracing::warn!(mcp.server = self.server, file = %self.path.display(), %error, "new pins cannot be used, those before stay");
                }
                state.refused = Some(reason);
                false
            }
        }
    }

    /// Compares a complete list with the pins, and logs which tools have become different.
    pub(crate) fn compare(&self, listed: &[Value]) {
        let before = self.with(|state| state.changes.clone()).unwrap_or_default();
        let now: Told = changes(&self.pins(), listed)
            .into_iter()
            .map(|(tool, change)| {
                let tool = shown_name(&tool);
                let telling = Telling::of(&change, before.get(&tool));
                (tool, telling)
            })
            .collect();
        let now = Arc::new(now);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.changes = Some(Arc::clone(&now));
        drop(state);
        let fresh = now
            .iter()
            .filter(|(tool, telling)| telling.is_news(before.get(*tool)));
        for (tool, telling) in fresh.take(MAX_TOLD) {
            tracing::warn!(
                mcp.server = self.server,
                mcp.tool = tool,
                difference = telling.difference,
                "a tool is not as it was approved, its calls are denied"
            );
        }
        let again = before.keys().filter(|tool| !now.contains_key(*tool));
        for tool in again.take(MAX_TOLD) {
            let server = &self.server;
            tracing::info!(
                mcp.server = server,
                mcp.tool = tool,
                "a tool is as it was approved"
            );
        }
    }

    /// Whether the latest list had this tool otherwise than it was approved.
    pub(crate) fn has_told(&self, tool: &str) -> bool {
        let tool = shown_name(tool);
        let told = |told: &Arc<Told>| told.contains_key(&tool);
        self.with(|state| state.changes.as_ref().is_some_and(told))
    }

    /// How many tools are not as they were approved, as far as it is known.
    pub(crate) fn differing(&self) -> usize {
        self.with(|state| state.changes.as_ref().map_or(0, |changes| changes.len()))
    }

    /// What an operator should know, a line each: with names and differences, or, for anybody, how many.
    pub(crate) fn notes(&self, for_operator: bool) -> Vec<String> {
        let (refused, changes) = self.with(|state| (state.refused.clone(), state.changes.clone()));
        let server = &self.server;
        let mut notes = Vec::new();
        if let Some(reason) = refused.filter(|_| for_operator) {
            notes.push(format!("pins of {server}: the file is not in use: {reason}"));
        }
        match (changes, for_operator) {
            (None, _) => notes.push(format!("pins of {server}: its tools are not known yet")),
            (Some(changes), false) if !changes.is_empty() => {
                let count = changes.len();
                notes.push(format!(
                    "pins of {server}: {count} tools are not as they were approved"
                ));
            }
            (Some(changes), true) => {
                for (tool, telling) in changes.iter().take(MAX_TOLD) {
                    let what = cut(telling.difference.clone(), MAX_SHOWN);
                    notes.push(format!("pins of {server}: `{tool}`: {what}"));
                }
                if let Some(more) = changes.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
                    notes.push(format!("pins of {server}: and {more} more"));
                }
            }
            _ => {}
        }
        notes
    }

    fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn parse(bytes: &[u8], server: &str, shows: bool) -> Result<(Pins, Option<Shown>), PinsError> {
    let pins = Pins::parse(bytes, server)?;
    let shown = shows.then(|| Shown::of(&pins).ok_or(PinsError::Missing("before_login")));
    Ok((pins, shown.transpose()?))
}

#[cfg(test)]
mod tests {
    use taper_capability::json::{JsonLimits, parse};

    use super::*;

    fn of(text: &str) -> Value {
        parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    fn written(path: &Path, tools: &[&str]) {
        let mut pins = Pins::default();
        for tool in tools {
            pins.approve(&of(tool)).unwrap();
        }
        std::fs::write(path, pins.to_text("git")).unwrap();
    }

    #[test]
    fn a_changed_file_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins.json");
        assert!(Pinned::open("git", &path, false).is_err());
        written(&path, &[r#"{"name":"a"}"#]);
        let pinned = Pinned::open("git", &path, false).unwrap();
        assert!(!pinned.reread());
        written(&path, &[r#"{"name":"a"}"#, r#"{"name":"b"}"#]);
        assert!(pinned.reread() && !pinned.reread());
        assert!(pinned.pins().names("b"));
        std::fs::write(&path, "{").unwrap();
        assert!(!pinned.reread() && pinned.pins().names("b"));
        assert!(pinned.notes(true)[0].contains("strict JSON"));
        std::fs::remove_file(&path).unwrap();
        assert!(!pinned.reread() && pinned.pins().names("b"));
        written(&path, &[r#"{"name":"a"}"#]);
        assert!(pinned.reread() && !pinned.pins().names("b"));
    }

    #[test]
    fn notes_name_tools_to_operators_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins.json");
        written(&path, &[r#"{"name":"a","description":"x"}"#]);
        let pinned = Pinned::open("git", &path, false).unwrap();
        assert_eq!(pinned.notes(false), ["pins of git: its tools are not known yet"]);
        let long = "y".repeat(10_000);
        pinned.compare(&[
            of(&format!(r#"{{"name":"a","description":"{long}"}}"#)),
            of(r#"{"name":"new"}"#),
        ]);
        assert_eq!(pinned.differing(), 2);
        assert_eq!(
            pinned.notes(false),
            ["pins of git: 2 tools are not as they were approved"]
        );
        let notes = pinned.notes(true);
        assert!(notes[0].starts_with(
            "pins of git: `a`: it is described differently: ~ \"/description\": \"x\" -> \"yyy"
        ));
        assert!(notes.iter().all(|note| note.len() < 600), "bounded");
        pinned.compare(&[of(r#"{"name":"a","description":"x"}"#)]);
        assert!(pinned.notes(true).is_empty());
    }
}
