//! What is asked: accesses of every kind, with arguments, resources and counters.

use crate::given::{ADDRESSES, PATHS, REFS, REPOS, TOOLS, URLS, text};
use crate::scene::{GIT, MAIL};
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt;
use taper_capability::json::{JsonLimits, parse};
use taper_capability::{Access, AccessKind};

#[derive(Clone)]
pub(crate) struct AccessCase {
    pub(crate) access: Access,
    /// Seconds from `NOW`.
    pub(crate) later: i64,
    /// How often the chain's counters were used, by turns; `None` where nobody counts.
    pub(crate) used: Option<Vec<i64>>,
}

impl fmt::Debug for AccessCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access {
            audience,
            server,
            method,
            kind,
            tool,
            arguments,
            resources,
            uri,
            prompt,
            body_bound,
            client_ip,
            tool_facts: _,
            calls: _,
        } = &self.access;
        let arguments = arguments.as_ref().map(ToString::to_string);
        write!(
            f,
            "{kind:?} {method} at {server} ({audience}) in {} s: tool {tool:?}, arguments {arguments:?}, \
             resources {resources:?}, uri {uri:?}, prompt {prompt:?}, bound {body_bound}, from {client_ip:?}, \
             used {:?}",
            self.later, self.used
        )
    }
}

fn any_arguments() -> impl Strategy<Value = String> {
    let n = prop_oneof![4 => (0i64..4).prop_map(|n| n.to_string()), 1 => select(vec!["1.0", "\"1\"", "null", "1e0", "-0", "9007199254740993"]).prop_map(str::to_owned)];
    let quoted = |of| text(of).prop_map(|s| format!("{s:?}"));
    let member = |name: &'static str, value: BoxedStrategy<String>| {
        // Arguments are sometimes missing, which no argument caveat forgives.
        prop::option::weighted(0.9, value)
            .prop_map(move |value| value.map(|value| format!("{name:?}:{value}")))
    };
    (
        member("n", n.boxed()),
        member("ref", quoted(REFS).boxed()),
        member("path", quoted(PATHS).boxed()),
        member("url", quoted(URLS).boxed()),
        member("ip", quoted(ADDRESSES).boxed()),
        member(
            "all",
            select(vec!["true", "true", "false"])
                .prop_map(str::to_owned)
                .boxed(),
        ),
        member(
            "options",
            (0i64..3).prop_map(|n| format!("{{\"limit\":{n}}}")).boxed(),
        ),
        member(
            "list",
            select(vec!["[]", "[\"main\",1]", "[[1],{}]"])
                .prop_map(str::to_owned)
                .boxed(),
        ),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| {
            let members: Vec<String> = [a, b, c, d, e, f, g, h].into_iter().flatten().collect();
            format!("{{{}}}", members.join(","))
        })
}

pub(crate) fn any_access() -> impl Strategy<Value = AccessCase> {
    let kind = prop_oneof![
        8 => Just(AccessKind::ToolCall),
        1 => Just(AccessKind::ResourceRead),
        1 => Just(AccessKind::PromptGet),
        1 => Just(AccessKind::Completion),
        1 => Just(AccessKind::Task),
        1 => Just(AccessKind::LoggingLevel),
        1 => Just(AccessKind::Plumbing),
        1 => Just(AccessKind::ListEntry),
    ];
    let server = prop_oneof![7 => Just(("git", GIT)), 1 => Just(("mail", MAIL)), 1 => Just(("git", MAIL))];
    let repo = text(REPOS).prop_map(|repo| ("repo".to_owned(), repo));
    let other = Just(("branch".to_owned(), "main".to_owned()));
    let resources = prop::collection::vec(prop_oneof![5 => repo, 1 => other], 0..4);
    let later = prop_oneof![6 => 0i64..5, 1 => 5i64..500];
    let used = prop::option::weighted(0.9, prop::collection::vec(1i64..4, 1..4));
    let ip = prop_oneof![6 => Just(Some("10.1.2.3")), 1 => Just(Some("192.0.2.1")), 1 => Just(None)];
    let names = (
        text(TOOLS),
        select(vec!["repo://acme/web", "repo://acme/web", "repo://acme/../x"]),
        any::<bool>(),
    );
    (
        kind,
        server,
        names,
        any_arguments(),
        resources,
        ip,
        any::<bool>(),
        later,
        used,
    )
        .prop_map(
            |(
                kind,
                (server, audience),
                (tool, uri, by_uri),
                arguments,
                resources,
                ip,
                bound,
                later,
                used,
            )| {
                let method = match kind {
                    AccessKind::ToolCall => "tools/call",
                    AccessKind::ResourceRead => "resources/read",
                    AccessKind::PromptGet => "prompts/get",
                    AccessKind::Completion => "completion/complete",
                    AccessKind::Task => "tasks/get",
                    AccessKind::LoggingLevel => "logging/setLevel",
                    AccessKind::Plumbing => "initialize",
                    AccessKind::ListEntry => "tools/list",
                };
                let mut access = Access::new(kind, server, audience, method);
                access.body_bound = bound;
                access.client_ip = ip.map(|ip| ip.parse().unwrap());
                match kind {
                    AccessKind::ToolCall => {
                        access.tool = Some(tool);
                        access.arguments = Some(parse(arguments.as_bytes(), &JsonLimits::default()).unwrap());
                        access.resources = resources;
                    }
                    AccessKind::ListEntry => access.tool = Some(tool),
                    AccessKind::ResourceRead => access.uri = Some(uri.into()),
                    AccessKind::Completion if by_uri => access.uri = Some(uri.into()),
                    AccessKind::PromptGet | AccessKind::Completion => access.prompt = Some("review".into()),
                    AccessKind::Task | AccessKind::LoggingLevel | AccessKind::Plumbing => {}
                }
                AccessCase { access, later, used }
            },
        )
}
