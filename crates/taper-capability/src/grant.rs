//! What an issuer grants: the contents of block 0.

use crate::{Caveat, Error, names};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};
use std::fmt;
use taper_dpop::{PublicKey, base64url_encode};

/// Somebody known to an identity provider: RFC 7519 `iss` and `sub`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Party {
    /// Who vouches for the subject.
    pub iss: String,
    /// The subject, unique at that issuer.
    pub sub: String,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sub, self.iss)
    }
}

/// One right of block 0. A wildcard is a right of its own kind, never a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// `right(server, tool)`: to call one tool.
    Tool {
        /// The server id.
        server: String,
        /// The tool's name.
        tool: String,
    },
    /// `right_any_tool(server)`: to call every tool of a server.
    AnyTool {
        /// The server id.
        server: String,
    },
    /// `right_resource(server, uri_prefix)`: to read what lies at or below a URI.
    Resource {
        /// The server id.
        server: String,
        /// The URI, or one that ends with `/`.
        uri_prefix: String,
    },
    /// `right_prompt(server, name)`: to get one prompt.
    Prompt {
        /// The server id.
        server: String,
        /// The prompt's name.
        name: String,
    },
}

impl Right {
    /// The server that the right is about.
    #[must_use]
    pub fn server(&self) -> &str {
        match self {
            Self::Tool { server, .. }
            | Self::AnyTool { server }
            | Self::Resource { server, .. }
            | Self::Prompt { server, .. } => server,
        }
    }

    pub(crate) fn check_names(&self) -> Result<(), Error> {
        let ok = names::is_server(self.server())
            && match self {
                Self::Tool { tool, .. } => names::is_tool(tool),
                Self::Prompt { name, .. } => names::is_prompt(name),
                Self::Resource { uri_prefix, .. } => !uri_prefix.is_empty() && uri_prefix.len() <= 1024,
                Self::AnyTool { .. } => true,
            };
        if crate::rules::NAMES.holds(ok) {
            Ok(())
        } else {
            Err(Error::Name(self.to_string().escape_debug().to_string()))
        }
    }
}

impl fmt::Display for Right {
    /// A tool right as its scope (`git:git_log`, `git:*`); the others in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool { server, tool } => write!(f, "{server}:{tool}"),
            Self::AnyTool { server } => write!(f, "{server}:*"),
            Self::Resource { server, uri_prefix } => write!(f, "{server} resource {uri_prefix}"),
            Self::Prompt { server, name } => write!(f, "{server} prompt {name}"),
        }
    }
}

/// What an issuer decided to grant: block 0 of a capability.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The issuer's identifier, a URI.
    pub issuer: String,
    /// The grant's id, 128 random bits in base64url: [`Grant::new_id`].
    pub id: String,
    /// For whom.
    pub subject: Party,
    /// The OAuth client that asked.
    pub client: String,
    /// Who acts for the subject, where a token said so.
    pub actor: Option<Party>,
    /// The first holder's key.
    pub holder: PublicKey,
    /// The resource URIs of the servers where it counts.
    pub audiences: Vec<String>,
    /// What it allows.
    pub rights: Vec<Right>,
    /// Claims of the subject, for the boundary's policies.
    pub claims: Vec<(String, String)>,
    /// When it was issued, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// How often it may be handed on.
    pub max_depth: u32,
    /// Restrictions that hold from the start.
    pub caveats: Vec<Caveat>,
}

impl Grant {
    /// A fresh grant id.
    #[must_use]
    pub fn new_id(rng: &mut impl CryptoRngCore) -> String {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        base64url_encode(&id)
    }
}
