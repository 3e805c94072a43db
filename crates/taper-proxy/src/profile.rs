//! A server's part of the configuration, checked and ready for use.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;
use taper_capability::json::Value;
use taper_capability::{Access, AccessKind, ArgumentPath, Caveat, Link, VerifiedChain, is_server, is_tool};

use crate::config::{self, BodyBinding, DenyStyle, Discovery, Kind, KindForm, Limits, Rates, Recording};
use crate::limits;
use crate::message::Message;
use crate::methods::{self, Subject};
use crate::refusal::Denied;
use crate::rules;
use crate::template::{MAX_BYTES, MAX_VALUES, Template, TemplateError, canonical, top_of};

/// What the proxy knows about one server.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// The public resource URI: `audience` and `htu` (RULES 19).
    pub(crate) resource: String,
    /// Where its RFC 9728 metadata lies.
    pub(crate) metadata_url: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) deny_style: DenyStyle,
    pub(crate) discovery: Discovery,
    pub(crate) limits: Limits,
    pub(crate) rates: Rates,
    pub(crate) extra_methods: Vec<String>,
    pub(crate) forward_headers: Vec<HeaderName>,
    read_only: BTreeSet<String>,
    body_binding: BodyBinding,
    audit: Recording,
    kinds: BTreeMap<String, Kind>,
    tools: BTreeMap<String, ToolProfile>,
}

#[derive(Clone, Debug)]
struct ToolProfile {
    templates: Vec<Template>,
    arguments: BTreeSet<String>,
    /// What the templates read.
    reads: Vec<ArgumentPath>,
}

/// Why a server's configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The id cannot stand in a capability.
    #[error("`{0}` is not a server id: 1 to 64 of a-z, 0-9 and `-`")]
    ServerId(String),
    /// A tool's name cannot stand in a capability.
    #[error("server `{server}`: `{tool}` is not a tool name")]
    ToolName {
        /// The server.
        server: String,
        /// The name.
        tool: String,
    },
    /// A scope is not one of this server.
    #[error("server `{server}`: `{scope}` is not a scope of it, such as `{server}:*`")]
    Scope {
        /// The server.
        server: String,
        /// The scope.
        scope: String,
    },
    /// A template is malformed.
    #[error("server `{server}`, tool `{tool}`: {error}")]
    Template {
        /// The server.
        server: String,
        /// The tool.
        tool: String,
        /// What is wrong with it.
        error: TemplateError,
    },
    /// A method is the protocol's own.
    #[error("server `{server}`: `{method}` is a method of the protocol and needs no listing")]
    Method {
        /// The server.
        server: String,
        /// The method.
        method: String,
    },
    /// A header that may not be forwarded or set.
    #[error("server `{server}`: the header `{header}` cannot be forwarded")]
    Header {
        /// The server.
        server: String,
        /// The header.
        header: String,
    },
    /// A limit or rate that means nothing.
    #[error("server `{server}`: `{key}`: {reason}")]
    Limit {
        /// The server.
        server: String,
        /// The key, below the server's.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An upstream that cannot be used.
    #[error("server `{server}`: {reason}")]
    Upstream {
        /// The server.
        server: String,
        /// What is wrong.
        reason: String,
    },
}

impl Profile {
    /// Checks the configuration of the server `id` behind `public_url`.
    pub(crate) fn new(id: &str, public_url: &str, server: &config::Server) -> Result<Self, ProfileError> {
        if !is_server(id) {
            return Err(ProfileError::ServerId(id.to_owned()));
        }
        for tool in server.read_only.iter().chain(server.tools.keys()) {
            if !is_tool(tool) {
                return Err(ProfileError::ToolName {
                    server: id.to_owned(),
                    tool: tool.clone(),
                });
            }
        }
        limits::check(&server.limits, &server.rate).map_err(|(key, reason)| ProfileError::Limit {
            server: id.to_owned(),
            key,
            reason: reason.to_owned(),
        })?;
        let mut scopes = server.scopes.clone();
        for scope in &scopes {
            let known = scope.parse::<taper_oauth::Scope>();
            if !known.is_ok_and(|scope| scope.server() == id) {
                return Err(ProfileError::Scope {
                    server: id.to_owned(),
                    scope: scope.clone(),
                });
            }
        }
        if scopes.is_empty() {
            scopes.push(format!("{id}:*"));
        }
        for method in &server.extra_methods {
            if methods::classify(method, &[]).is_some() {
                return Err(ProfileError::Method {
                    server: id.to_owned(),
                    method: method.clone(),
                });
            }
        }
        let forward_headers = match &server.upstream {
            config::Upstream::Http { forward_headers, .. } => forward_names(id, forward_headers)?,
            config::Upstream::Stdio { .. } => Vec::new(),
        };
        let mut tools = BTreeMap::new();
        for (name, tool) in &server.tools {
            tools.insert(name.clone(), tool_profile(id, name, tool)?);
        }
        Ok(Self {
            id: id.to_owned(),
            name: server.name.clone(),
            resource: format!("{public_url}/{id}/mcp"),
            metadata_url: format!("{public_url}/.well-known/oauth-protected-resource/{id}/mcp"),
            scopes,
            deny_style: server.deny_style,
            discovery: server.discovery,
            limits: server.limits,
            rates: server.rate,
            extra_methods: server.extra_methods.clone(),
            forward_headers,
            read_only: server.read_only.iter().cloned().collect(),
            body_binding: server.body_binding,
            audit: server.audit,
            kinds: server.kinds.clone(),
            tools,
        })
    }

    /// Whether the proof of this message must carry the body's digest (M-14). A server with tools that
    /// are listed as read-only takes its plumbing without one too: a client with plain DPoP could not
    /// reach those tools otherwise, and plumbing that names nothing gives no right.
    pub(crate) fn demands_binding(&self, kind: AccessKind, message: &Message) -> bool {
        let exempt = match kind {
            AccessKind::ToolCall => message
                .text("name")
                .is_some_and(|tool| self.read_only.contains(tool)),
            AccessKind::Plumbing => {
                let class = methods::classify(&message.method, &[]);
                !self.read_only.is_empty() && class.is_some_and(|class| class.subject == Subject::Nothing)
            }
            _ => false,
        };
        self.body_binding == BodyBinding::Required && !exempt
    }

    /// Whether the proof of what carries content, and is no message, must carry the body's digest (M-14).
    pub(crate) fn demands_binding_of_content(&self) -> bool {
        self.body_binding == BodyBinding::Required
    }

    /// Whether an allowed access may be forwarded before its decision is in the journal (M-27, RULES 30):
    /// where the operator says so, calls of tools that are listed as read-only, and messages that name
    /// nothing.
    pub(crate) fn may_record_later(&self, access: &Access) -> bool {
        let changes_nothing = match access.kind {
            AccessKind::ToolCall => access
                .tool
                .as_ref()
                .is_some_and(|tool| self.read_only.contains(tool)),
            AccessKind::Plumbing => {
                let class = methods::classify(&access.method, &[]);
                class.is_some_and(|class| class.subject == Subject::Nothing)
            }
            _ => false,
        };
        self.audit == Recording::Async && changes_nothing
    }

    /// The resources of a call, by the tool's templates (M-21, M-22).
    pub(crate) fn resources(
        &self,
        tool: &str,
        arguments: &Value,
    ) -> Result<Vec<(String, String)>, Box<Denied>> {
        let mut all = Vec::new();
        let templates = self.tools.get(tool).map_or(&[][..], |tool| &tool.templates);
        for (kind, template) in templates.iter().map(|template| (template.kind(), template)) {
            let rules_of_kind = self.kinds.get(kind).copied().unwrap_or_default();
            let values = template.values(arguments, rules_of_kind).map_err(|error| {
                let rule = match error {
                    TemplateError::NotCanonical { .. } => rules::CANONICAL,
                    _ => rules::TEMPLATE,
                };
                Denied::by_profile(rule, error.to_string())
            })?;
            all.extend(values);
            let bytes: usize = all.iter().map(|(_, value)| value.len()).sum();
            if all.len() > MAX_VALUES || bytes > MAX_BYTES {
                let reason =
                    format!("the call names more than {MAX_VALUES} resources, or {MAX_BYTES} bytes of them");
                return Err(Denied::by_profile(rules::TEMPLATE, reason));
            }
        }
        Ok(all)
    }

    /// Refuses arguments that are not listed, where templates or caveats speak about arguments (M-23).
    pub(crate) fn check_arguments(
        &self,
        tool: &str,
        arguments: &Value,
        chain: &VerifiedChain,
    ) -> Result<(), Box<Denied>> {
        let profile = self.tools.get(tool);
        let has_templates = profile.is_some_and(|tool| !tool.templates.is_empty());
        // A check that is none of our caveats may speak about arguments too. Only the first link that
        // does counts: a later one, the presenter's own perhaps, may not list what an earlier one left out.
        let speaks = |link: &&Link| {
            link.caveats
                .iter()
                .any(|check| check.words().any(|word| word == "args"))
        };
        let first = chain.links().iter().find(speaks);
        if !has_templates && first.is_none() {
            return Ok(());
        }
        let of_caveats: BTreeSet<String> = first
            .filter(|_| !has_templates)
            .into_iter()
            .flat_map(|link| &link.caveats)
            .filter_map(|check| match check.caveat() {
                Some(Caveat::Argument { pointer, .. }) => top_of(pointer),
                _ => None,
            })
            .collect();
        let listed = |name: &str| {
            of_caveats.contains(name) || profile.is_some_and(|tool| tool.arguments.contains(name))
        };
        let ok = arguments
            .as_object()
            .unwrap_or_default()
            .iter()
            .all(|(name, _)| listed(name));
        if rules::ARGUMENTS.holds(ok) {
            Ok(())
        } else {
            let reason = format!("a call of `{tool}` has an argument that its profile does not list");
            Err(Denied::by_profile(rules::ARGUMENTS, reason))
        }
    }

    /// What the tool's templates read in the arguments of a call.
    pub(crate) fn reads(&self, tool: &str) -> &[ArgumentPath] {
        self.tools.get(tool).map_or(&[], |tool| &tool.reads)
    }

    /// Refuses a URI with another spelling (M-22).
    pub(crate) fn check_uri(&self, uri: &str) -> Result<(), Box<Denied>> {
        match canonical(uri, KindForm::Url) {
            Err(reason) if !rules::CANONICAL.holds(false) => Err(Denied::by_profile(
                rules::CANONICAL,
                format!("the uri is not canonical: {reason}"),
            )),
            _ => Ok(()),
        }
    }

    /// Of the scopes that would help, those that are configured names; the server's own otherwise.
    pub(crate) fn obtainable(&self, scopes: Vec<String>) -> Vec<String> {
        let known = |scope: &String| {
            let tool = scope
                .strip_prefix(&self.id)
                .and_then(|rest| rest.strip_prefix(':'));
            self.scopes.contains(scope)
                || tool.is_some_and(|tool| self.tools.contains_key(tool) || self.read_only.contains(tool))
        };
        let known: Vec<String> = scopes.into_iter().filter(known).collect();
        if known.is_empty() {
            self.scopes.clone()
        } else {
            known
        }
    }
}

fn tool_profile(server: &str, name: &str, tool: &config::Tool) -> Result<ToolProfile, ProfileError> {
    let mut templates = Vec::new();
    for (kind, texts) in &tool.resources {
        for text in texts.as_slice() {
            templates.push(
                Template::parse(kind, text).map_err(|error| ProfileError::Template {
                    server: server.to_owned(),
                    tool: name.to_owned(),
                    error,
                })?,
            );
        }
    }
    let mut arguments: BTreeSet<String> = tool.arguments.iter().cloned().collect();
    arguments.extend(templates.iter().flat_map(Template::arguments));
    let reads = templates.iter().flat_map(Template::reads).collect();
    Ok(ToolProfile {
        templates,
        arguments,
        reads,
    })
}

fn forward_names(server: &str, names: &[String]) -> Result<Vec<HeaderName>, ProfileError> {
    let check = |name: &String| {
        let parsed = HeaderName::try_from(name.as_str()).ok();
        parsed
            .filter(crate::headers::may_forward)
            .ok_or_else(|| ProfileError::Header {
                server: server.to_owned(),
                header: name.clone(),
            })
    };
    names.iter().map(check).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use taper_capability::json::{self, JsonLimits};

    pub(crate) fn profile(text: &str) -> Result<Profile, ProfileError> {
        let text = format!("upstream = {{ http = 'http://127.0.0.1:1/mcp' }}\n{text}");
        let server: config::Server = taper_service::config::parse(&text, "x").unwrap();
        Profile::new("git", "https://p.example", &server)
    }

    fn parse(text: &str) -> Value {
        json::parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    #[test]
    fn names_and_urls() {
        let git = profile("").unwrap();
        assert_eq!(git.resource, "https://p.example/git/mcp");
        assert_eq!(
            git.metadata_url,
            "https://p.example/.well-known/oauth-protected-resource/git/mcp"
        );
        assert_eq!(git.scopes, ["git:*"]);
        let check = |text: &str, part: &str| {
            let message = profile(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        check("read_only = ['a b']", "`a b` is not a tool name");
        check("scopes = ['other:x']", "is not a scope");
        check("extra_methods = ['tools/call']", "method of the protocol");
        check("tools.t = { resources = { repo = '{' } }", "malformed");
        let server: config::Server = taper_service::config::parse(
            "upstream = { http = 'http://127.0.0.1:1/', forward_headers = ['Authorization'] }",
            "x",
        )
        .unwrap();
        assert!(Profile::new("git", "https://p", &server).is_err());
        assert!(Profile::new("Git", "https://p", &server).is_err());
    }

    #[test]
    fn resources_are_derived_and_checked() {
        let git = profile("tools.t = { resources = { repo = '{o}/{r}', path = ['{a}', '{b[]}'] } }\nkinds.path.form = 'absolute_path'").unwrap();
        let check = |arguments: &str, expected: Result<&[(&str, &str)], &str>| {
            let got = git.resources("t", &parse(arguments));
            match (&got, expected) {
                (Ok(values), Ok(wanted)) => {
                    let values: Vec<(&str, &str)> =
                        values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    assert_eq!(values, wanted);
                }
                (Err(denied), Err(rule)) => assert_eq!(denied.rule.as_str(), rule, "{arguments}"),
                _ => panic!("{arguments}: {got:?}"),
            }
        };
        check(
            r#"{"o":"x","r":"y","a":"/a","b":["/b"]}"#,
            Ok(&[("path", "/a"), ("path", "/b"), ("repo", "x/y")]),
        );
        check(r#"{"o":"x","r":"y","a":"/a"}"#, Err("M-21"));
        let many = |n: usize| {
            let paths: Vec<String> = (0..n).map(|i| format!("\"/{i}\"")).collect();
            let arguments = format!(r#"{{"o":"x","r":"y","a":"/a","b":[{}]}}"#, paths.join(","));
            let got = git.resources("t", &parse(&arguments));
            got.map(|all| all.len()).map_err(|denied| denied.rule.as_str())
        };
        assert_eq!(many(62), Ok(64));
        assert_eq!(many(63), Err("M-21"));
        check(r#"{"o":"x","r":"y","a":"a","b":["/b"]}"#, Err("M-22"));
        check(r#"{"o":"x/z","r":"y","a":"/a","b":["/b"]}"#, Err("M-21"));
        assert!(git.resources("other", &parse("{}")).unwrap().is_empty());
    }

    #[test]
    fn binding_is_demanded_unless_the_operator_exempts() {
        let message = |method: &str, name: &str| {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"{name}"}}}}"#);
            Message::parse(body.as_bytes(), 1000).unwrap()
        };
        let check = |text: &str, kind: AccessKind, method: &str, name: &str, expected: bool| {
            let message = message(method, name);
            let demanded = profile(text).unwrap().demands_binding(kind, &message);
            assert_eq!(demanded, expected, "{text} {method} {name}");
        };
        use AccessKind as K;
        let reads = "read_only = ['a']";
        check(reads, K::ToolCall, "tools/call", "a", false);
        check(reads, K::ToolCall, "tools/call", "b", true);
        check(reads, K::PromptGet, "prompts/get", "a", true);
        check(reads, K::Plumbing, "ping", "a", false);
        check(reads, K::LoggingLevel, "x/own", "a", true);
        check(reads, K::Plumbing, "subscriptions/listen", "a", true);
        check("", K::Plumbing, "ping", "a", true);
        check("body_binding = 'optional'", K::ToolCall, "tools/call", "b", false);
    }

    #[test]
    fn only_what_changes_nothing_may_be_recorded_later() {
        let check = |text: &str, kind: AccessKind, method: &str, tool: Option<&str>, expected: bool| {
            let mut access = Access::new(kind, "git", "https://p.example/git/mcp", method);
            access.tool = tool.map(str::to_owned);
            let later = profile(text).unwrap().may_record_later(&access);
            assert_eq!(later, expected, "{text} {method} {tool:?}");
        };
        use AccessKind as K;
        let later = "read_only = ['a']\naudit = 'async'";
        check(later, K::ToolCall, "tools/call", Some("a"), true);
        check(later, K::ToolCall, "tools/call", Some("b"), false);
        check(later, K::ToolCall, "tools/call", None, false);
        check(later, K::Plumbing, "tools/list", None, true);
        check(later, K::Plumbing, "subscriptions/listen", None, false);
        check(later, K::Plumbing, "DELETE", None, false);
        check(later, K::ResourceRead, "resources/read", None, false);
        check(later, K::PromptGet, "prompts/get", Some("a"), false);
        check(later, K::LoggingLevel, "logging/setLevel", None, false);
        for text in ["read_only = ['a']", "read_only = ['a']\naudit = 'before'"] {
            check(text, K::ToolCall, "tools/call", Some("a"), false);
            check(text, K::Plumbing, "tools/list", None, false);
        }
    }

    #[test]
    fn challenges_name_configured_scopes_only() {
        let git = profile("read_only = ['git_log']").unwrap();
        let check = |scope: &str, expected: &str| {
            assert_eq!(git.obtainable(vec![scope.to_owned()]), [expected.to_owned()]);
        };
        check("git:git_log", "git:git_log");
        check("git:made_up", "git:*");
        check("other:git_log", "git:*");
    }
}
