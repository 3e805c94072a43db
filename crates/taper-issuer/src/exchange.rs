//! The pure middle of an exchange: what is asked, what the policy says, what comes of it.
//!
//! No IO, no clock: [`wish`] reads a request against the configured servers, [`decide`] turns a wish and a
//! verified subject into [`Terms`] or a refusal.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use taper_capability::{Caveat, Party, ResourceMatch, Right, is_server};
use taper_oauth::details::{MAX_PROMPTS, MAX_TOOLS, MAX_URIS};
use taper_oauth::{ErrorCode, ExchangeRequest, McpDetail, Scope, ScopeTool, ToolSelection, Wanted};
use taper_policy::grant::{self, GrantPolicy, GrantRefusal, GrantRequest, GrantTerms};

use crate::error::Refusal;
use crate::rules;

/// The configured servers: id → resource URI.
pub(crate) type Servers = BTreeMap<String, String>;

/// What a request asks for, in terms of configured servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) rights: Vec<Right>,
    /// The same as scopes, for policies.
    pub(crate) scopes: Vec<String>,
    /// Restrictions that hold for all of it.
    pub(crate) resources: BTreeMap<String, Vec<String>>,
    /// The earliest end that an entry asks for.
    pub(crate) until: Option<i64>,
    /// The resource URIs of the servers that it is about.
    pub(crate) targets: Vec<String>,
}

/// Who asks, all of it verified.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) subject: Party,
    pub(crate) claims: Vec<(String, String)>,
    /// When the subject token ends.
    pub(crate) subject_ends: i64,
    pub(crate) client: String,
    pub(crate) actor: Option<Party>,
}

/// The configured bounds of every grant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Seconds; for a policy that states no lifetime.
    pub(crate) default_ttl: i64,
    /// Seconds.
    pub(crate) max_ttl: i64,
    pub(crate) max_depth: u32,
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) rights: Vec<Right>,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires_at: i64,
    /// The grant's absolute end, which no renewal passes (RULES 27).
    pub(crate) ends_at: i64,
    pub(crate) max_depth: u32,
    pub(crate) caveats: Vec<Caveat>,
}

/// Reads what is asked for.
pub(crate) fn wish(request: &ExchangeRequest, servers: &Servers, now: i64) -> Result<Wish, Refusal> {
    let details = &request.authorization_details;
    let mut scopes: Vec<Scope> = request.scope.clone();
    let mut there: HashSet<Scope> = scopes.iter().cloned().collect();
    for detail in details {
        for scope in scopes_of(detail)? {
            if there.insert(scope.clone()) {
                scopes.push(scope);
            }
        }
    }
    let mut rights: Vec<Right> = scopes.iter().map(right).collect();
    let mut asked: HashSet<Right> = HashSet::new();
    for right in details.iter().flat_map(reads_of) {
        if !rules::URI.holds(is_grantable(&right)) {
            let reason = "`uris` holds what is not canonical: `.`, `..`, an empty segment, a backslash, `%`";
            return Err(malformed_details(rules::URI, reason));
        }
        if asked.insert(right.clone()) {
            rights.push(right);
        }
    }
    if !rules::ASKED.holds(!rights.is_empty()) {
        return Err(Refusal::new(
            rules::ASKED,
            ErrorCode::InvalidScope,
            "neither `scope` nor `authorization_details` asks for anything",
        ));
    }
    let named = named_targets(request, servers)?;
    let mut targets = BTreeSet::new();
    for server in rights.iter().map(Right::server).collect::<BTreeSet<_>>() {
        let resource = servers
            .get(server)
            .ok_or_else(|| target(format!("the server `{server}` is unknown here")))?;
        if !rules::TARGET.holds(named.is_empty() || named.contains(resource)) {
            return Err(target(format!(
                "the server `{server}` is not among the requested targets"
            )));
        }
        targets.insert(resource.clone());
    }
    Ok(Wish {
        rights,
        scopes: scopes.iter().map(ToString::to_string).collect(),
        resources: common_resources(request)?,
        until: common_until(details, now)?,
        targets: targets.into_iter().collect(),
    })
}

/// Decides. `now` is in seconds since the Unix epoch.
pub(crate) fn decide(
    policy: &GrantPolicy,
    asker: &Asker,
    wish: &Wish,
    servers: &Servers,
    bounds: Bounds,
    now: i64,
) -> Result<Terms, Refusal> {
    let request = GrantRequest {
        subject: asker.subject.clone(),
        claims: asker.claims.clone(),
        client: asker.client.clone(),
        actor: asker.actor.clone(),
        scopes: wish.scopes.clone(),
        requested: wish.rights.clone(),
        resources: wish.targets.clone(),
    };
    let terms = grant::decide(policy, &request, now).map_err(refused_by_policy)?;
    let within = |right: &Right| wish.rights.iter().any(|asked| covers(asked, right));
    if !rules::NOT_WIDER.holds(terms.rights.iter().all(within)) {
        return Err(Refusal::new(
            rules::NOT_WIDER,
            ErrorCode::ServerError,
            "the policy granted more than was requested",
        ));
    }
    if terms.rights.is_empty() {
        return Err(nothing_granted());
    }
    let audiences: BTreeSet<String> = terms
        .rights
        .iter()
        .filter_map(|right| servers.get(right.server()).cloned())
        .collect();
    let expires_at = expiry(&terms, asker, wish, bounds, now)?;
    let ends_at = absolute_end(&terms, asker, wish, expires_at, now);
    let mut caveats = terms.caveats;
    caveats.extend(wish.resources.iter().map(|(kind, values)| Caveat::Resource {
        kind: kind.clone(),
        matches: ResourceMatch::OneOf(values.clone()),
    }));
    Ok(Terms {
        rights: terms.rights,
        audiences: audiences.into_iter().collect(),
        expires_at,
        ends_at,
        max_depth: terms.max_depth.unwrap_or(bounds.max_depth).min(bounds.max_depth),
        caveats,
    })
}

/// The scopes that tool rights are written as; other rights have none.
pub(crate) fn granted_scopes(rights: &[Right]) -> Vec<Scope> {
    let scope = |right: &Right| match right {
        Right::Tool { server, tool } => Scope::new(server, ScopeTool::Tool(tool.clone())).ok(),
        Right::AnyTool { server } => Scope::new(server, ScopeTool::Any).ok(),
        Right::Resource { .. } | Right::Prompt { .. } => None,
    };
    rights.iter().filter_map(scope).collect()
}

/// What was granted, in the long form (RFC 9396 §7): one entry per server, or more where one is too long.
pub(crate) fn granted_details(terms: &Terms, wish: &Wish) -> Vec<McpDetail> {
    let mut servers: BTreeMap<&str, Wanted> = BTreeMap::new();
    for right in &terms.rights {
        let wanted = servers.entry(right.server()).or_default();
        match right {
            Right::AnyTool { .. } => wanted.tools = ToolSelection::Any,
            Right::Tool { tool, .. } => match &mut wanted.tools {
                ToolSelection::None => wanted.tools = ToolSelection::Named(vec![tool.clone()]),
                ToolSelection::Named(names) if !names.contains(tool) => names.push(tool.clone()),
                ToolSelection::Named(_) | ToolSelection::Any => {}
            },
            Right::Resource { uri_prefix, .. } => wanted.uris.push(uri_prefix.clone()),
            Right::Prompt { name, .. } => wanted.prompts.push(name.clone()),
        }
    }
    let entries = servers.into_iter().flat_map(|(server, wanted)| {
        let parts = in_parts(wanted).into_iter();
        parts.map(move |part| (server, part))
    });
    entries
        .filter_map(|(server, wanted)| {
            McpDetail::new(server, wanted, wish.resources.clone(), Some(terms.expires_at)).ok()
        })
        .collect()
}

/// As many entries as it takes for none to be longer than one may be.
fn in_parts(wanted: Wanted) -> Vec<Wanted> {
    let tools: Vec<ToolSelection> = match wanted.tools {
        ToolSelection::Named(names) => {
            let parts = names.chunks(MAX_TOOLS);
            parts.map(|part| ToolSelection::Named(part.to_vec())).collect()
        }
        ToolSelection::None => Vec::new(),
        ToolSelection::Any => vec![ToolSelection::Any],
    };
    let (mut tools, mut uris, mut prompts) = (
        tools.into_iter(),
        wanted.uris.chunks(MAX_URIS),
        wanted.prompts.chunks(MAX_PROMPTS),
    );
    let parts = std::iter::from_fn(|| {
        let part = (tools.next(), uris.next(), prompts.next());
        (part != (None, None, None)).then(|| Wanted {
            tools: part.0.unwrap_or_default(),
            uris: part.1.unwrap_or_default().to_vec(),
            prompts: part.2.unwrap_or_default().to_vec(),
        })
    });
    parts.collect()
}

fn expiry(terms: &GrantTerms, asker: &Asker, wish: &Wish, bounds: Bounds, now: i64) -> Result<i64, Refusal> {
    let stated = |ttl: u64| i64::try_from(ttl).unwrap_or(i64::MAX);
    let ttl = terms.ttl.map_or(bounds.default_ttl, stated).min(bounds.max_ttl);
    let own = now.saturating_add(ttl);
    let latest = latest_end(terms, asker, wish);
    let bounded = if rules::EXPIRY.holds(own <= latest) {
        own
    } else {
        latest
    };
    if bounded <= now {
        return Err(Refusal::new(
            rules::EXPIRY,
            ErrorCode::InvalidScope,
            "what would be granted ends at once",
        ));
    }
    Ok(bounded)
}

/// Until when renewals may go: no further than the first capability, unless the policy says that it may be renewed.
fn absolute_end(terms: &GrantTerms, asker: &Asker, wish: &Wish, expires_at: i64, now: i64) -> i64 {
    let renewable = match (terms.renew_until, terms.renew_for) {
        (None, None) => return expires_at,
        (_, None) => i64::MAX,
        (_, Some(seconds)) => now.saturating_add_unsigned(seconds),
    };
    latest_end(terms, asker, wish).min(renewable).max(expires_at)
}

/// The subject token's end, unless the policy states another (RULES 26), and never after what was asked for.
fn latest_end(terms: &GrantTerms, asker: &Asker, wish: &Wish) -> i64 {
    let end = terms.renew_until.unwrap_or(asker.subject_ends);
    end.min(wish.until.unwrap_or(i64::MAX))
}

fn refused_by_policy(refusal: GrantRefusal) -> Refusal {
    match refusal {
        GrantRefusal::NothingGranted => nothing_granted(),
        // The reason of a `deny` is written for the operator; callers never read policy text (RULES 24).
        GrantRefusal::Denied(reason) => Refusal::new(
            rules::POLICY,
            ErrorCode::InvalidScope,
            "the policy of this server denies it",
        )
        .with_detail(reason),
        GrantRefusal::Error(reason) => Refusal::new(
            rules::POLICY,
            ErrorCode::ServerError,
            "the policy could not be evaluated",
        )
        .with_detail(reason),
    }
}

fn nothing_granted() -> Refusal {
    Refusal::new(
        rules::POLICY,
        ErrorCode::InvalidScope,
        "the policy of this server grants nothing of it",
    )
}

/// `server:*` asks for every tool of a server, a URI that ends with `/` for all below it.
fn covers(asked: &Right, granted: &Right) -> bool {
    match (asked, granted) {
        (Right::AnyTool { server }, Right::Tool { server: of, .. }) => server == of,
        (
            Right::Resource { server, uri_prefix },
            Right::Resource {
                server: of,
                uri_prefix: granted,
            },
        ) => server == of && grant::uri_covers(uri_prefix, granted),
        (asked, granted) => asked == granted,
    }
}

/// The resources and prompts that an entry asks for.
fn reads_of(detail: &McpDetail) -> impl Iterator<Item = Right> {
    let uris = detail.uris().iter().map(|uri| Right::Resource {
        server: detail.server().to_owned(),
        uri_prefix: uri.clone(),
    });
    let prompts = detail.prompts().iter().map(|name| Right::Prompt {
        server: detail.server().to_owned(),
        name: name.clone(),
    });
    uris.chain(prompts)
}

fn is_grantable(right: &Right) -> bool {
    match right {
        Right::Resource { uri_prefix, .. } => grant::is_uri_prefix(uri_prefix),
        _ => true,
    }
}

fn right(scope: &Scope) -> Right {
    let server = scope.server().to_owned();
    match scope.tool() {
        ScopeTool::Any => Right::AnyTool { server },
        ScopeTool::Tool(tool) => Right::Tool {
            server,
            tool: tool.clone(),
        },
    }
}

fn scopes_of(detail: &McpDetail) -> Result<Vec<Scope>, Refusal> {
    let scope = |tool: ScopeTool| {
        Scope::new(detail.server(), tool).map_err(|error| malformed_details(rules::ASKED, error.to_string()))
    };
    match detail.tools() {
        ToolSelection::None => Ok(Vec::new()),
        ToolSelection::Any => Ok(vec![scope(ScopeTool::Any)?]),
        ToolSelection::Named(names) => names
            .iter()
            .map(|name| scope(ScopeTool::Tool(name.clone())))
            .collect(),
    }
}

/// The resource URIs that `resource` and `audience` name. An audience is a server's id or its resource URI.
fn named_targets(request: &ExchangeRequest, servers: &Servers) -> Result<BTreeSet<String>, Refusal> {
    let mut named = BTreeSet::new();
    for text in request.resources.iter().chain(&request.audiences) {
        let known = servers.values().any(|resource| resource == text);
        let resource = match servers.get(text) {
            _ if known => text,
            Some(resource) if request.audiences.contains(text) => resource,
            _ => return Err(target("a requested `resource` or `audience` is unknown here")),
        };
        named.insert(resource.clone());
    }
    Ok(named)
}

/// The restrictions by resource. A caveat holds for the whole capability: entries with different ones
/// would either be widened by a union or be empty by an intersection, so they are asked for one by one.
fn common_resources(request: &ExchangeRequest) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
    let mut entries = request.authorization_details.iter().map(McpDetail::resources);
    let Some(first) = entries.next() else {
        return Ok(BTreeMap::new());
    };
    let same = entries.all(|resources| resources == first) && (first.is_empty() || request.scope.is_empty());
    if !rules::RESOURCES.holds(same) {
        return Err(malformed_details(
            rules::RESOURCES,
            "what is asked for in one request has the same `resources`; ask for one capability each",
        ));
    }
    if let Some(kind) = first.keys().find(|kind| !is_server(&kind.replace('_', "-"))) {
        return Err(malformed_details(
            rules::RESOURCES,
            format!("the resource kind `{kind}` is unknown here"),
        ));
    }
    Ok(first.clone())
}

fn common_until(details: &[McpDetail], now: i64) -> Result<Option<i64>, Refusal> {
    let until = details.iter().filter_map(McpDetail::until).min();
    if until.is_some_and(|until| !rules::EXPIRY.holds(until > now)) {
        return Err(malformed_details(rules::EXPIRY, "`until` has passed"));
    }
    Ok(until)
}

fn malformed_details(rule: taper_dpop::RuleId, description: impl AsRef<str>) -> Refusal {
    Refusal::new(rule, ErrorCode::InvalidAuthorizationDetails, description)
}

fn target(description: impl AsRef<str>) -> Refusal {
    Refusal::new(rules::TARGET, ErrorCode::InvalidTarget, description)
}
