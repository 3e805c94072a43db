//! Scopes: `server:tool` and `server:*`. There is no wildcard over servers (RULES 1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::WireError;

/// How many scopes one request may name.
pub const MAX_SCOPES: usize = 128;
const MAX_SERVER: usize = 64;
const MAX_TOOL: usize = 128;

/// One scope. Made only from valid names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    server: String,
    tool: ScopeTool,
}

/// What a scope names on its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeTool {
    /// `*`: every tool of the server.
    Any,
    /// One tool.
    Tool(String),
}

impl Scope {
    /// A scope over one server.
    ///
    /// # Errors
    /// [`WireError::Scope`] when a name is not valid, see [`is_server`] and [`is_tool`].
    pub fn new(server: &str, tool: ScopeTool) -> Result<Self, WireError> {
        let scope = Self {
            server: server.to_owned(),
            tool,
        };
        let valid = match &scope.tool {
            ScopeTool::Any => true,
            ScopeTool::Tool(name) => is_tool(name),
        };
        if valid && is_server(server) {
            Ok(scope)
        } else {
            Err(WireError::Scope(shown(&scope.to_string())))
        }
    }

    /// The server's id.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// One tool, or any.
    pub fn tool(&self) -> &ScopeTool {
        &self.tool
    }

    /// Whether the scope covers this tool of this server.
    pub fn covers(&self, server: &str, tool: &str) -> bool {
        self.server == server
            && match &self.tool {
                ScopeTool::Any => true,
                ScopeTool::Tool(name) => name == tool,
            }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tool {
            ScopeTool::Any => write!(f, "{}:*", self.server),
            ScopeTool::Tool(name) => write!(f, "{}:{name}", self.server),
        }
    }
}

impl FromStr for Scope {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let (server, tool) = text
            .split_once(':')
            .ok_or_else(|| WireError::Scope(shown(text)))?;
        let tool = if tool == "*" {
            ScopeTool::Any
        } else {
            ScopeTool::Tool(tool.to_owned())
        };
        Self::new(server, tool)
    }
}

impl TryFrom<String> for Scope {
    type Error = WireError;

    fn try_from(text: String) -> Result<Self, WireError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// Reads the `scope` parameter: scopes with single spaces between them (RFC 6749 §3.3). A repeated scope
/// counts once, the order stays.
///
/// # Errors
/// [`WireError::Scope`], [`WireError::TooManyScopes`].
pub fn parse_list(text: &str) -> Result<Vec<Scope>, WireError> {
    let mut scopes: Vec<Scope> = Vec::new();
    for (index, token) in text.split(' ').enumerate() {
        if index == MAX_SCOPES {
            return Err(WireError::TooManyScopes);
        }
        let scope = token.parse()?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

/// Writes the `scope` parameter.
pub fn format_list(scopes: &[Scope]) -> String {
    scopes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether this is a server id: `[a-z0-9-]{1,64}`.
pub fn is_server(text: &str) -> bool {
    (1..=MAX_SERVER).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Whether this is a tool name: `[A-Za-z0-9_./-]{1,128}`.
pub fn is_tool(text: &str) -> bool {
    (1..=MAX_TOOL).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte))
}

/// A bounded piece of input for an error message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, ScopeTool)>) {
        let got = text.parse::<Scope>().ok();
        assert_eq!(
            got.as_ref().map(|scope| (scope.server(), scope.tool().clone())),
            expected,
            "{text}"
        );
    }

    #[test]
    fn a_scope_is_a_server_and_a_tool() {
        let tool = |name: &str| ScopeTool::Tool(name.to_owned());
        check("git:git_log", Some(("git", tool("git_log"))));
        check("git:*", Some(("git", ScopeTool::Any)));
        check("a-1:ns/T.x-y", Some(("a-1", tool("ns/T.x-y"))));
        for refused in [
            "git", "git:", ":git_log", "*:*", "*:x", "Git:x", "git_a:x", "git:a:b", "git:**", "git:a*",
            "git:ä", "git:a b", "",
        ] {
            check(refused, None);
        }
        check(
            &format!("{}:x", "a".repeat(64)),
            Some((&"a".repeat(64), tool("x"))),
        );
        check(&format!("{}:x", "a".repeat(65)), None);
        check(
            &format!("a:{}", "x".repeat(128)),
            Some(("a", tool(&"x".repeat(128)))),
        );
        check(&format!("a:{}", "x".repeat(129)), None);
    }

    #[test]
    fn a_list_has_single_spaces_and_a_limit() {
        let list = |text: &str| parse_list(text).map(|scopes| format_list(&scopes)).ok();
        assert_eq!(list("git:a git:* git:a").as_deref(), Some("git:a git:*"));
        for refused in [
            "",
            " git:a",
            "git:a ",
            "git:a  git:b",
            "git:a\tgit:b",
            "git:a bad",
        ] {
            assert_eq!(list(refused), None, "{refused:?}");
        }
        let many = |n: usize| (0..n).map(|i| format!("git:t{i}")).collect::<Vec<_>>().join(" ");
        assert!(parse_list(&many(MAX_SCOPES)).is_ok());
        assert_eq!(parse_list(&many(MAX_SCOPES + 1)), Err(WireError::TooManyScopes));
    }

    #[test]
    fn covering_is_by_server_and_tool() {
        let scope: Scope = "git:git_log".parse().unwrap();
        assert!(scope.covers("git", "git_log"));
        assert!(!scope.covers("git", "git_show"));
        assert!(!scope.covers("hub", "git_log"));
        assert!("git:*".parse::<Scope>().unwrap().covers("git", "git_show"));
    }

    proptest! {
        #[test]
        fn a_scope_reads_back(server in "[a-z0-9-]{1,64}", tool in "[A-Za-z0-9_./-]{1,128}|\\*") {
            let text = format!("{server}:{tool}");
            let scope: Scope = text.parse().unwrap();
            prop_assert_eq!(scope.to_string(), text);
        }

        #[test]
        fn what_is_accepted_is_what_is_written(text in any::<String>()) {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string(), text);
            }
        }
    }
}
