//! The methods of the protocol as a table: what each is, and what it is about (RULES 12).

use taper_capability::AccessKind;

use crate::message::Era;

/// What a method is, and where its subject stands in `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) kind: AccessKind,
    pub(crate) subject: Subject,
    pub(crate) list: Option<List>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Nothing that has a name.
    Nothing,
    /// `params.name` is a tool.
    Tool,
    /// `params.uri` is a resource.
    Uri,
    /// `params.name` is a prompt.
    Prompt,
    /// `params.ref` is a prompt or a resource template.
    Reference,
    /// `params.taskId` is a task.
    Task,
    /// `params.notifications` may name resources and tasks.
    Subscriptions,
}

/// A list whose entries are shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// `result.tools`
    Tools,
    /// `result.resources`
    Resources,
    /// `result.resourceTemplates`
    Templates,
    /// `result.prompts`
    Prompts,
    /// `result.tasks`
    Tasks,
}

impl List {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Tools,
        Self::Resources,
        Self::Templates,
        Self::Prompts,
        Self::Tasks,
    ];

    /// The member of the result that holds the entries.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Prompts => "prompts",
            Self::Tasks => "tasks",
        }
    }
}

const fn class(kind: AccessKind, subject: Subject) -> Class {
    Class {
        kind,
        subject,
        list: None,
    }
}

const fn list(list: List) -> Class {
    Class {
        kind: AccessKind::Plumbing,
        subject: Subject::Nothing,
        list: Some(list),
    }
}

/// What names nothing and needs no right.
pub(crate) const PLUMBING: Class = class(AccessKind::Plumbing, Subject::Nothing);

/// Every method that a client sends. What is not here is refused unless it is configured.
const METHODS: [(&str, Class); 26] = [
    ("tools/call", class(AccessKind::ToolCall, Subject::Tool)),
    ("resources/read", class(AccessKind::ResourceRead, Subject::Uri)),
    (
        "resources/subscribe",
        class(AccessKind::ResourceRead, Subject::Uri),
    ),
    (
        "resources/unsubscribe",
        class(AccessKind::ResourceRead, Subject::Uri),
    ),
    ("prompts/get", class(AccessKind::PromptGet, Subject::Prompt)),
    (
        "completion/complete",
        class(AccessKind::Completion, Subject::Reference),
    ),
    (
        "logging/setLevel",
        class(AccessKind::LoggingLevel, Subject::Nothing),
    ),
    ("tasks/get", class(AccessKind::Task, Subject::Task)),
    ("tasks/result", class(AccessKind::Task, Subject::Task)),
    ("tasks/cancel", class(AccessKind::Task, Subject::Task)),
    ("tasks/update", class(AccessKind::Task, Subject::Task)),
    (
        "tasks/list",
        Class {
            list: Some(List::Tasks),
            ..class(AccessKind::Task, Subject::Nothing)
        },
    ),
    ("tools/list", list(List::Tools)),
    ("resources/list", list(List::Resources)),
    ("resources/templates/list", list(List::Templates)),
    ("prompts/list", list(List::Prompts)),
    ("initialize", PLUMBING),
    ("ping", PLUMBING),
    ("server/discover", PLUMBING),
    (
        "subscriptions/listen",
        class(AccessKind::Plumbing, Subject::Subscriptions),
    ),
    ("notifications/initialized", PLUMBING),
    ("notifications/cancelled", PLUMBING),
    ("notifications/progress", PLUMBING),
    ("notifications/message", PLUMBING),
    ("notifications/roots/list_changed", PLUMBING),
    ("notifications/tasks/status", PLUMBING),
];

/// Methods that the modern era has no more. What it replaced them by has its own names.
const REMOVED: [&str; 9] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
    "notifications/initialized",
    "notifications/roots/list_changed",
];

/// Whether a message of this era may say `method`, if anybody may.
pub(crate) fn exists_in(method: &str, era: Era) -> bool {
    era == Era::Legacy || !REMOVED.contains(&method)
}

/// A configured method: what it does is unknown here, so it needs some right on the server, and every
/// check of the chain runs.
const CONFIGURED: Class = class(AccessKind::LoggingLevel, Subject::Nothing);

/// The class of a method; `None` for one that is neither the protocol's nor in `extra`.
pub(crate) fn classify(method: &str, extra: &[String]) -> Option<Class> {
    METHODS
        .iter()
        .find(|(name, _)| *name == method)
        .map(|(_, class)| *class)
        .or_else(|| extra.iter().any(|name| name == method).then_some(CONFIGURED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        let check = |method: &str, kind: Option<AccessKind>| {
            let extra = ["x/own".to_owned()];
            assert_eq!(classify(method, &extra).map(|class| class.kind), kind, "{method}");
        };
        check("tools/call", Some(AccessKind::ToolCall));
        check("tools/list", Some(AccessKind::Plumbing));
        check("tasks/list", Some(AccessKind::Task));
        check("resources/subscribe", Some(AccessKind::ResourceRead));
        check("x/own", Some(AccessKind::LoggingLevel));
        check("Tools/Call", None);
        check("tools/call ", None);
        check("notifications/anything", None);
        check("", None);
    }

    #[test]
    fn the_modern_era_has_fewer() {
        let check = |method: &str, modern: bool| {
            assert!(exists_in(method, Era::Legacy), "{method}");
            assert_eq!(exists_in(method, Era::Modern), modern, "{method}");
        };
        check("tools/call", true);
        check("server/discover", true);
        check("x/own", true);
        for method in REMOVED {
            check(method, false);
        }
    }
}
