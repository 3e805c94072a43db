//! What an operator approved of a server (RULES 25; `spec/proxy.md`, "Pinned tools").
//!
//! A reviewed file holds every approved tool as the server described it, with its digest. While the
//! server's own latest list says the same, the tool can be called; when it says anything else, not. The
//! file may also hold what callers without a token are shown ([`Preface`]). It is read again when it
//! changes, like the certificate of the listener.

pub(crate) mod diff;
mod file;
mod live;
mod preface;
mod shown;
mod text;

use std::collections::BTreeMap;

use taper_capability::json::Value;

pub(crate) use self::file::{PinsError, replace};
pub(crate) use self::live::Pinned;
pub(crate) use self::preface::Preface;
pub(crate) use self::shown::Shown;
pub(crate) use self::text::shown_str;

/// The approved tools of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    tools: BTreeMap<String, Pin>,
    /// With whose eyes the server was looked at: the names of what was sent to it as credentials.
    pub(crate) asked_with: Vec<String>,
    /// What is shown before login, if the file has it.
    pub(crate) preface: Option<Preface>,
}

/// One approved tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// SHA-256 of the RFC 8785 form of `definition`, in hexadecimal digits.
    digest: String,
    definition: Value,
}

impl Pins {
    /// Whether a tool with this name and digest is an approved one. One without a digest never is.
    pub(crate) fn approves(&self, tool: &str, digest: Option<&str>) -> bool {
        let pin = self.tools.get(tool);
        pin.is_some_and(|pin| digest == Some(pin.digest.as_str()))
    }

    /// Whether a tool of this name was approved, whatever it was like.
    pub(crate) fn names(&self, tool: &str) -> bool {
        self.tools.contains_key(tool)
    }

    /// The definitions, in the order of their names.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Value> {
        self.tools.values().map(|pin| &pin.definition)
    }

    /// How many tools there are.
    pub(crate) fn len(&self) -> usize {
        self.tools.len()
    }

    /// Approves a definition as it stands, in place of one of the same name.
    ///
    /// # Errors
    /// [`PinsError`] for one that has no name or no digest.
    pub(crate) fn approve(&mut self, definition: &Value) -> Result<(), PinsError> {
        let pin = Pin::of(definition)?;
        let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
        self.tools.insert(name.to_owned(), pin);
        Ok(())
    }

    /// Approves a tool no more.
    pub(crate) fn withdraw(&mut self, tool: &str) {
        self.tools.remove(tool);
    }
}

impl Pin {
    fn of(definition: &Value) -> Result<Self, PinsError> {
        let name = definition.get("name").and_then(Value::as_str);
        let name = name.ok_or(PinsError::Nameless)?;
        let digest = crate::catalogue::facts(definition).digest;
        Ok(Self {
            digest: digest.ok_or_else(|| PinsError::NoDigest(text::shown_str(name)))?,
            definition: definition.clone(),
        })
    }
}
