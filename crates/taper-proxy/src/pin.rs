//! Approving what servers say of their tools: `taper proxy pin`.
//!
//! ```text
//! Reviewer::new(config, …) → ask() → Review per server: what differs → accept… → write
//! ```
//!
//! The server is asked by the proxy's own questions, with the credentials of the configuration and
//! nothing of a caller. What was approved before is never replaced without a word for it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use taper_capability::json::Value;
use taper_service::clock::SystemClock;
use taper_service::config::resolve;

use crate::config::{self, Config, Discovery};
use crate::pins::diff::{Change, Changes, Difference, changes, preface_changes};
use crate::pins::{Pins, PinsError, Preface, replace, shown_str};
use crate::ready::{OpenError, fetch_rules, upstream};
use crate::tokens::Environment;
use crate::upstream::{Upstream, describe, list_tools};

/// Why nothing can be approved.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] OpenError),
    /// No server of the configuration has this id.
    #[error("there is no server `{0}` in the configuration")]
    NoServer(String),
    /// The server's configuration names no file.
    #[error("server `{0}`: no `pins` in its configuration, such as `pins = \"{0}.pins.json\"`")]
    NoFile(String),
    /// No server at all has a file.
    #[error("no server of the configuration has `pins`")]
    NoFiles,
    /// The server did not say what it is.
    #[error("server `{server}` cannot be asked: {reason}")]
    Ask {
        /// The server.
        server: String,
        /// What it answered.
        reason: String,
    },
    /// What is in the file, or a tool.
    #[error("server `{server}`, `{}`: {reason}", path.display())]
    Pins {
        /// The server.
        server: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What differs is not what was reviewed.
    #[error(
        "server `{0}`: what is different now is not what was reviewed; `--diff` shows it, with the digest for `--reviewed`"
    )]
    NotReviewed(String),
    /// Nothing differs under this name.
    #[error("server `{server}`: there is nothing to accept of the tool {tool}")]
    Nothing {
        /// The server.
        server: String,
        /// The name, as it is shown.
        tool: String,
    },
}

/// The servers of a configuration that have pins, not asked yet.
pub struct Reviewer {
    servers: Vec<Asked>,
}

struct Asked {
    id: String,
    path: PathBuf,
    before: Option<Pins>,
    asked_with: Vec<String>,
    upstream: Upstream,
    whole: bool,
    max_list: usize,
}

/// What one server says now, beside what was approved.
#[derive(Debug)]
pub struct Review {
    server: String,
    path: PathBuf,
    /// Whether there was a file.
    is_new: bool,
    pins: Pins,
    listed: BTreeMap<String, Value>,
    changes: Changes,
    preface: Option<Preface>,
    preface_changes: Vec<Difference>,
    asked_with: Vec<String>,
    /// Of what differed before anything was accepted.
    digest: String,
    accepted: usize,
}

impl Reviewer {
    /// Reads the files of the servers, or of `only` one. It reads files: not for a runtime thread.
    ///
    /// # Errors
    /// A server that does not exist or has no `pins`, a mistake in its part of the configuration or in
    /// its file.
    pub fn new(config: &Config, folder: &Path, only: Option<&str>) -> Result<Self, PinError> {
        if let Some(only) = only.filter(|only| !config.servers.contains_key(*only)) {
            return Err(PinError::NoServer(only.to_owned()));
        }
        let rules = fetch_rules(&config.outbound, folder)?;
        let around = Environment {
            folder,
            public_url: config.public_url.trim_end_matches('/'),
            rules: &rules,
            clock: &SystemClock::shared(),
        };
        let mut servers = Vec::new();
        for (id, server) in &config.servers {
            if only.is_some_and(|only| only != id) {
                continue;
            }
            let Some(path) = &server.pins else {
                if only.is_some() {
                    return Err(PinError::NoFile(id.clone()));
                }
                continue;
            };
            let path = resolve(folder, path);
            let before = match Pins::open(&path, id) {
                Ok(pins) => Some(pins),
                Err(PinsError::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(refused(id, &path, &error)),
            };
            servers.push(Asked {
                id: id.clone(),
                before,
                asked_with: credentials(&server.upstream),
                upstream: upstream(id, server, &around)?,
                whole: server.discovery == Discovery::Catalogue,
                max_list: server.limits.max_list,
                path,
            });
        }
        if servers.is_empty() {
            return Err(PinError::NoFiles);
        }
        Ok(Self { servers })
    }

    /// Asks every server what it says now.
    ///
    /// # Errors
    /// [`PinError::Ask`] for the first that does not say it.
    pub async fn ask(self) -> Result<Vec<Review>, PinError> {
        let mut reviews = Vec::new();
        for server in self.servers {
            let asked = if server.whole {
                let described = describe(&server.upstream, server.max_list).await;
                described.map(|described| (described.tools, Some(described.preface)))
            } else {
                let listed = list_tools(&server.upstream, server.max_list).await;
                listed.map(|listed| (listed, None))
            };
            let (listed, preface) = asked.map_err(|error| PinError::Ask {
                server: server.id.clone(),
                reason: error.to_string(),
            })?;
            reviews.push(Review::new(server, listed, preface));
        }
        Ok(reviews)
    }
}

impl Review {
    fn new(server: Asked, listed: Vec<Value>, preface: Option<Preface>) -> Self {
        let is_new = server.before.is_none();
        let pins = server.before.unwrap_or_default();
        let changes = changes(&pins, &listed);
        // What the configuration does not show any more need not be approved any more either.
        let preface_changes = match &preface {
            Some(preface) => preface_changes(pins.preface.as_ref(), Some(preface)),
            None => Vec::new(),
        };
        let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
        let mut review = Self {
            server: server.id,
            path: server.path,
            is_new,
            pins,
            listed: listed
                .into_iter()
                .filter_map(|entry| Some((name(&entry)?, entry)))
                .collect(),
            changes,
            preface,
            preface_changes,
            asked_with: server.asked_with,
            digest: String::new(),
            accepted: 0,
        };
        let digest = Sha256::digest(review.lines().join("\n"));
        review.digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        review
    }

    /// Stands for all that is different. The server is asked anew each time and may say something else then:
    /// what is accepted is what this digest was shown with.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Holds when this is what was reviewed.
    ///
    /// # Errors
    /// [`PinError::NotReviewed`].
    pub fn reviewed(&self, digest: Option<&str>) -> Result<(), PinError> {
        if self.is_new || digest == Some(self.digest.as_str()) {
            return Ok(());
        }
        Err(PinError::NotReviewed(self.server.clone()))
    }

    /// The server's id.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was approved before: there is no file.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the server says what was approved.
    pub fn is_same(&self) -> bool {
        !self.is_new && self.changes.is_empty() && self.preface_changes.is_empty() && !self.is_asked_anew()
    }

    /// Whether the server was asked with other credentials than what was approved: it may show others to
    /// others.
    fn is_asked_anew(&self) -> bool {
        !self.is_new && self.pins.asked_with != self.asked_with
    }

    /// How many tools are approved.
    pub fn tools(&self) -> usize {
        self.pins.len()
    }

    /// The names of the tools that differ.
    pub fn differing(&self) -> impl Iterator<Item = &str> {
        self.changes.keys().map(String::as_str)
    }

    /// Approves a tool as the server describes it now, or its absence.
    ///
    /// # Errors
    /// [`PinError::Nothing`] when it does not differ; [`PinError::Pins`] when it cannot be pinned.
    pub fn accept(&mut self, tool: &str) -> Result<(), PinError> {
        match self.changes.get(tool) {
            None => Err(PinError::Nothing {
                server: self.server.clone(),
                tool: shown_str(tool),
            }),
            Some(Change::Twice) => {
                let reason = format!("the tool {} is listed more than once", shown_str(tool));
                Err(PinError::Pins {
                    server: self.server.clone(),
                    path: self.path.clone(),
                    reason,
                })
            }
            Some(_) => {
                match self.listed.get(tool) {
                    Some(definition) => {
                        let approved = self.pins.approve(definition);
                        approved.map_err(|error| refused(&self.server, &self.path, &error))?;
                    }
                    None => self.pins.withdraw(tool),
                }
                self.changes.remove(tool);
                self.accepted += 1;
                Ok(())
            }
        }
    }

    /// Approves everything but tools: what the server says of itself, its prompts and resources, and with
    /// which credentials it is asked.
    pub fn accept_rest(&mut self) {
        if self.is_asked_anew() {
            self.pins.asked_with.clone_from(&self.asked_with);
            self.accepted += 1;
        }
        if !self.preface_changes.is_empty() {
            self.pins.preface.clone_from(&self.preface);
            self.preface_changes.clear();
            self.accepted += 1;
        }
    }

    /// Approves everything as it is.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub fn accept_all(&mut self) -> Result<(), PinError> {
        let tools: Vec<String> = self.changes.keys().cloned().collect();
        for tool in tools {
            self.accept(&tool)?;
        }
        self.accept_rest();
        Ok(())
    }

    /// Writes the file if anything was accepted, in one step, and says whether it did. It reads and
    /// writes files: not for a runtime thread.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self) -> Result<bool, PinError> {
        if self.accepted == 0 && !self.is_new {
            return Ok(false);
        }
        if self.is_new {
            self.pins.asked_with.clone_from(&self.asked_with);
        }
        let text = self.pins.to_text(&self.server);
        let written = replace(&self.path, text.as_bytes());
        written.map_err(|error| PinError::Pins {
            server: self.server.clone(),
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        (self.is_new, self.accepted) = (false, 0);
        Ok(true)
    }

    /// What still differs, line by line, safe for a terminal. Nothing is left out: what is approved has
    /// to be seen.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (tool, change) in &self.changes {
            let what = change.what();
            lines.push(format!("{}: tool {}: {what}", self.server, shown_str(tool)));
            lines.extend(change.lines().into_iter().map(|line| format!("    {line}")));
        }
        if self.is_asked_anew() {
            let names = |names: &[String]| shown_str(&names.join(", "));
            let (old, new) = (names(&self.pins.asked_with), names(&self.asked_with));
            lines.push(format!(
                "{}: asked with other credentials: {old} -> {new}",
                self.server
            ));
        }
        if !self.preface_changes.is_empty() {
            lines.push(format!(
                "{}: what is shown before login is different",
                self.server
            ));
            let shown = self.preface_changes.iter();
            lines.extend(shown.map(|difference| format!("    {difference}")));
        }
        lines
    }

    /// The same for programs.
    pub fn to_json(&self) -> Json {
        let tools: Vec<Json> = self
            .changes
            .iter()
            .map(|(tool, change)| {
                let name = taper_capability::escaped(tool);
                json!({ "tool": name, "what": change.what(), "differences": change.lines() })
            })
            .collect();
        let rest: Vec<String> = self.preface_changes.iter().map(ToString::to_string).collect();
        json!({
            "server": self.server, "file": self.path, "approved": self.pins.len(),
            "same": self.is_same(), "tools": tools, "before_login": rest, "digest": self.digest,
            "asked_with": self.asked_with,
        })
    }
}

/// What the server gets as credentials, by name: it may show others to others (RULES 24).
fn credentials(upstream: &config::Upstream) -> Vec<String> {
    match upstream {
        config::Upstream::Http {
            headers, tls, oauth, ..
        } => {
            let headers = headers.keys().map(|name| format!("header {name}"));
            let certificate = tls.iter().map(|_| "certificate".to_owned());
            let token = oauth.iter().map(|oauth| format!("token of {}", oauth.client_id));
            headers.chain(certificate).chain(token).collect()
        }
        config::Upstream::Stdio { env, .. } => env.keys().map(|name| format!("variable {name}")).collect(),
    }
}

fn refused(server: &str, path: &Path, error: &PinsError) -> PinError {
    PinError::Pins {
        server: server.to_owned(),
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
