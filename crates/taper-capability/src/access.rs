//! The question that is put to a capability: may this call pass?

use crate::json::Value;
use std::net::IpAddr;

/// What kind of access is asked for; `spec/vocabulary.md` says which predicates each supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// `tools/call`.
    ToolCall,
    /// `resources/read`, subscriptions and templates.
    ResourceRead,
    /// `prompts/get`.
    PromptGet,
    /// `completion/complete`.
    Completion,
    /// `tasks/…`.
    Task,
    /// `logging/setLevel`.
    LoggingLevel,
    /// `initialize`, `ping`, `server/discover`, lists and notifications: no right is needed.
    Plumbing,
    /// One entry of a list, asked in order to show it or not.
    ListEntry,
}

/// What a server says of one of its tools. It is the server's own claim: a reason to refuse a call, and
/// to allow one only as far as the server is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFacts {
    /// Its hints.
    pub hints: Option<ToolHints>,
    /// SHA-256 of the RFC 8785 form of its whole definition, in lower-case hexadecimal (RULES 25).
    pub digest: Option<String>,
}

/// The hints of a tool's `annotations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolHints {
    /// `readOnlyHint`: it changes nothing.
    pub read_only: bool,
    /// `destructiveHint`: it may destroy.
    pub destructive: bool,
    /// `idempotentHint`: a second call with the same arguments changes nothing more.
    pub idempotent: bool,
    /// `openWorldHint`: it reaches what nobody has a list of.
    pub open_world: bool,
}

impl Default for ToolHints {
    /// What the protocol takes where a tool says nothing.
    fn default() -> Self {
        Self {
            read_only: false,
            destructive: true,
            idempotent: false,
            open_world: true,
        }
    }
}

impl ToolHints {
    /// Each hint under the name that the protocol has for it.
    #[must_use]
    pub fn named(&self) -> [(&'static str, bool); 4] {
        [
            ("readOnlyHint", self.read_only),
            ("destructiveHint", self.destructive),
            ("idempotentHint", self.idempotent),
            ("openWorldHint", self.open_world),
        ]
    }
}

/// One access, as the boundary understood it from the one message and the server's profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The public resource URI of the server.
    pub audience: String,
    /// The server's id.
    pub server: String,
    /// The message's method.
    pub method: String,
    /// The kind of access.
    pub kind: AccessKind,
    /// The tool's name.
    pub tool: Option<String>,
    /// The call's arguments, an object.
    pub arguments: Option<Value>,
    /// The resources that the call names, as (kind, value), from the server's profile.
    pub resources: Vec<(String, String)>,
    /// The URI of a resource read.
    pub uri: Option<String>,
    /// The prompt's name.
    pub prompt: Option<String>,
    /// Whether the proof covers the body.
    pub body_bound: bool,
    /// From where the call came.
    pub client_ip: Option<IpAddr>,
    /// What the server itself says of the tool, where the boundary knows it and it was asked for.
    pub tool_facts: Option<ToolFacts>,
    /// How often the max-calls caveats of the chain were used, this call included, as (counter, n).
    pub calls: Vec<(String, i64)>,
}

impl Access {
    /// An access of `kind` to `server` at its resource URI `audience`, naming nothing yet.
    #[must_use]
    pub fn new(kind: AccessKind, server: &str, audience: &str, method: &str) -> Self {
        Self {
            audience: audience.to_owned(),
            server: server.to_owned(),
            method: method.to_owned(),
            kind,
            tool: None,
            arguments: None,
            resources: Vec::new(),
            uri: None,
            prompt: None,
            body_bound: false,
            client_ip: None,
            tool_facts: None,
            calls: Vec::new(),
        }
    }
}
