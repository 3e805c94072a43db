//! `authorization_details` of type `mcp` (RFC 9396).
//!
//! ```json
//! {"type":"mcp","server":"git","tools":["git_log"],"resources":{"repo":["acme/web"]},"until":"2030-01-01T00:00:00Z"}
//! {"type":"mcp","server":"git","uris":["repo://acme/web/"],"prompts":["review"]}
//! ```
//!
//! `tools`, `uris` and `prompts` say what is asked for, at least one of them: tools to call, of which `["*"]`
//! means every one; URIs of resources to read, of which one that ends with `/` means all below it; prompts to
//! get. `resources` and `until` restrict further when present.
//! What is not understood completely is refused (RFC 9396 §5): an unknown member or type, an empty or
//! repeated entry, a `*` beside names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::WireError;
use crate::{json, scope};

/// The one `type` that is understood.
pub const DETAIL_TYPE: &str = "mcp";
/// How many bytes the whole parameter may have.
pub const MAX_BYTES: usize = 32 * 1024;
/// How many entries the parameter may have.
pub const MAX_DETAILS: usize = 16;
/// How many tools an entry may name.
pub const MAX_TOOLS: usize = 128;
/// How many URIs an entry may name.
pub const MAX_URIS: usize = 64;
/// How long a URI may be, in bytes.
pub const MAX_URI: usize = 1024;
/// How many prompts an entry may name.
pub const MAX_PROMPTS: usize = 64;
/// How many resource kinds an entry may restrict.
pub const MAX_KINDS: usize = 16;
/// How many values a kind may have.
pub const MAX_VALUES: usize = 64;
/// How long a value may be, in bytes.
pub const MAX_VALUE: usize = 512;
const MAX_KIND: usize = 64;

/// One entry. Made only from valid parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct McpDetail {
    server: String,
    wanted: Wanted,
    resources: BTreeMap<String, Vec<String>>,
    until: Option<i64>,
}

/// What an entry asks for on its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The tools.
    pub tools: ToolSelection,
    /// URIs of resources; one that ends with `/` means all below it.
    pub uris: Vec<String>,
    /// Names of prompts.
    pub prompts: Vec<String>,
}

impl From<ToolSelection> for Wanted {
    fn from(tools: ToolSelection) -> Self {
        Self {
            tools,
            ..Self::default()
        }
    }
}

/// The tools that an entry asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolSelection {
    /// No `tools`.
    #[default]
    None,
    /// `["*"]`.
    Any,
    /// At least one name, none twice.
    Named(Vec<String>),
}

impl McpDetail {
    /// An entry. `resources` maps a kind to the values that are asked for, empty when all; `until` is in
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`WireError::Detail`] when a part is not valid.
    pub fn new(
        server: &str,
        wanted: impl Into<Wanted>,
        resources: BTreeMap<String, Vec<String>>,
        until: Option<i64>,
    ) -> Result<Self, WireError> {
        if !scope::is_server(server) {
            return refuse("`server` is not a server id");
        }
        let wanted = wanted.into();
        check_wanted(&wanted)?;
        check_resources(&resources)?;
        if let Some(until) = until {
            format_time(until)?;
        }
        Ok(Self {
            server: server.to_owned(),
            wanted,
            resources,
            until,
        })
    }

    /// The server's id.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The tools.
    pub fn tools(&self) -> &ToolSelection {
        &self.wanted.tools
    }

    /// The URIs of resources, or what they begin with.
    pub fn uris(&self) -> &[String] {
        &self.wanted.uris
    }

    /// The prompts.
    pub fn prompts(&self) -> &[String] {
        &self.wanted.prompts
    }

    /// The values per resource kind; no kind means no restriction.
    pub fn resources(&self) -> &BTreeMap<String, Vec<String>> {
        &self.resources
    }

    /// The wished end, in seconds since the Unix epoch.
    pub fn until(&self) -> Option<i64> {
        self.until
    }
}

/// Reads the `authorization_details` parameter: a JSON array of entries.
///
/// # Errors
/// [`WireError`]; the answer is `invalid_authorization_details`.
pub fn parse_list(text: &str) -> Result<Vec<McpDetail>, WireError> {
    let details: Vec<McpDetail> = json::read(text.as_bytes(), MAX_BYTES)?;
    if details.is_empty() || details.len() > MAX_DETAILS {
        return refuse("the number of entries is out of bounds");
    }
    Ok(details)
}

/// Writes the `authorization_details` parameter.
///
/// # Errors
/// [`WireError::Json`], never for entries made by this module.
pub fn format_list(details: &[McpDetail]) -> Result<String, WireError> {
    serde_json::to_string(details).map_err(|error| WireError::Json(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    server: String,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    tools: Option<Vec<String>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    uris: Option<Vec<String>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    prompts: Option<Vec<String>>,
    // Absent means unrestricted; `null` and `{}` could be meant either way and are refused.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    resources: Option<BTreeMap<String, Vec<String>>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    until: Option<String>,
}

fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<Wire> for McpDetail {
    type Error = WireError;

    fn try_from(wire: Wire) -> Result<Self, WireError> {
        if wire.kind != DETAIL_TYPE {
            return refuse("the type is not `mcp`");
        }
        if wire.resources.as_ref().is_some_and(BTreeMap::is_empty) {
            return refuse("`resources` is empty");
        }
        let tools = match wire.tools {
            None => ToolSelection::None,
            Some(tools) if tools == ["*"] => ToolSelection::Any,
            Some(tools) => ToolSelection::Named(tools),
        };
        if wire.uris.as_ref().is_some_and(Vec::is_empty) || wire.prompts.as_ref().is_some_and(Vec::is_empty) {
            return refuse("`uris` or `prompts` is empty");
        }
        let wanted = Wanted {
            tools,
            uris: wire.uris.unwrap_or_default(),
            prompts: wire.prompts.unwrap_or_default(),
        };
        let until = wire.until.as_deref().map(parse_time).transpose()?;
        Self::new(&wire.server, wanted, wire.resources.unwrap_or_default(), until)
    }
}

impl From<McpDetail> for Wire {
    fn from(detail: McpDetail) -> Self {
        Self {
            kind: DETAIL_TYPE.to_owned(),
            server: detail.server,
            tools: match detail.wanted.tools {
                ToolSelection::None => None,
                ToolSelection::Any => Some(vec!["*".to_owned()]),
                ToolSelection::Named(names) => Some(names),
            },
            uris: Some(detail.wanted.uris).filter(|uris| !uris.is_empty()),
            prompts: Some(detail.wanted.prompts).filter(|prompts| !prompts.is_empty()),
            resources: (!detail.resources.is_empty()).then_some(detail.resources),
            until: detail.until.and_then(|until| format_time(until).ok()),
        }
    }
}

fn check_wanted(wanted: &Wanted) -> Result<(), WireError> {
    let Wanted { tools, uris, prompts } = wanted;
    match tools {
        ToolSelection::None if uris.is_empty() && prompts.is_empty() => {
            return refuse("it names none of `tools`, `uris` and `prompts`");
        }
        ToolSelection::Named(names) => check_tools(names)?,
        ToolSelection::None | ToolSelection::Any => {}
    }
    if uris.len() > MAX_URIS || prompts.len() > MAX_PROMPTS {
        return refuse("the number of `uris` or `prompts` is out of bounds");
    }
    let is_uri = |uri: &String| (1..=MAX_URI).contains(&uri.len()) && !uri.chars().any(char::is_control);
    if !uris.iter().all(is_uri) {
        return refuse("one of `uris` is empty, too long or not printable");
    }
    // Prompts are named in the alphabet of tools.
    if !prompts.iter().all(|name| scope::is_tool(name)) {
        return refuse("`prompts` holds something that is not a prompt name");
    }
    if repeats(uris) || repeats(prompts) {
        return refuse("`uris` or `prompts` repeats an entry");
    }
    Ok(())
}

fn check_tools(names: &[String]) -> Result<(), WireError> {
    if names.is_empty() || names.len() > MAX_TOOLS {
        return refuse("the number of `tools` is out of bounds");
    }
    if !names.iter().all(|name| scope::is_tool(name)) {
        return refuse("`tools` holds something that is not a tool name");
    }
    if repeats(names) {
        return refuse("`tools` repeats a name");
    }
    Ok(())
}

fn check_resources(resources: &BTreeMap<String, Vec<String>>) -> Result<(), WireError> {
    if resources.len() > MAX_KINDS {
        return refuse("`resources` has too many kinds");
    }
    for (kind, values) in resources {
        if !is_kind(kind) {
            return refuse("`resources` holds something that is not a resource kind");
        }
        if values.is_empty() || values.len() > MAX_VALUES {
            return refuse("the number of values of a resource kind is out of bounds");
        }
        let valid =
            |value: &String| (1..=MAX_VALUE).contains(&value.len()) && !value.chars().any(char::is_control);
        if !values.iter().all(valid) {
            return refuse("a resource value is empty, too long or not printable");
        }
        if repeats(values) {
            return refuse("a resource value is repeated");
        }
    }
    Ok(())
}

fn is_kind(text: &str) -> bool {
    (1..=MAX_KIND).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn repeats(items: &[String]) -> bool {
    let mut sorted: Vec<&String> = items.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len() != items.len()
}

/// Fractions of a second are cut: an earlier end is the narrower one.
fn parse_time(text: &str) -> Result<i64, WireError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(OffsetDateTime::unix_timestamp)
        .or_else(|_| refuse("`until` is not a time of RFC 3339"))
}

fn format_time(seconds: i64) -> Result<String, WireError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or_else(|| WireError::Detail("`until` is out of range".to_owned()))
}

fn refuse<T>(reason: &str) -> Result<T, WireError> {
    Err(WireError::Detail(reason.to_owned()))
}

#[cfg(test)]
mod tests;
