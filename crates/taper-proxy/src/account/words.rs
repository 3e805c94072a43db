//! The words of the line and of the metrics' labels.

use taper_capability::AccessKind;
use taper_store::Outcome;

use crate::message;
use crate::methods::{Class, Subject};

/// Names of the values of a label, in the order of the enumeration.
macro_rules! words {
    ($(#[doc = $what:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Its words, in this order.
            pub(crate) const NAMES: &'static [&'static str] = &[$($word),+];

            /// Its word.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// The era of a request's message.
    Era {
        /// No message was read.
        Unread = "none",
        /// Up to 2025-11-25.
        Legacy = "legacy",
        /// 2026-07-28 and later.
        Modern = "modern",
    }
}

words! {
    /// What a request is.
    Kind {
        /// Nothing of it was read, or it is for nobody here.
        Unread = "none",
        /// `tools/call`.
        Tool = "tool",
        /// A list of tools, resources, templates, prompts or tasks.
        List = "list",
        /// `resources/*` about one resource.
        Resource = "resource",
        /// `prompts/get`.
        Prompt = "prompt",
        /// `completion/complete`.
        Completion = "completion",
        /// `tasks/*` about one task.
        Task = "task",
        /// `logging/setLevel`.
        Logging = "logging",
        /// `subscriptions/listen`, and GET within a session.
        Stream = "stream",
        /// `initialize`, `ping`, `server/discover`, notifications.
        Plumbing = "plumbing",
        /// A method that the operator added.
        Extra = "extra",
        /// A method that nobody knows.
        Unknown = "unknown",
        /// A client's answer to a request of the server.
        Reply = "reply",
        /// DELETE of a session.
        End = "end",
        /// `/healthz` and `/readyz`.
        Health = "health",
        /// The metadata of a protected resource.
        Metadata = "metadata",
        /// What is told without a token.
        Catalogue = "catalogue",
    }
}

words! {
    /// What came of a request.
    Came {
        /// Its caller got the upstream's answer, or a page of the proxy's.
        Answered = "answered",
        /// It was decided, and the answer was no.
        Denied = "denied",
        /// It broke a rule that needs no decision.
        Refused = "refused",
        /// It could not be decided now; another time it may be.
        Undecided = "undecided",
        /// It was permitted, and the upstream did not answer as it should.
        Failed = "failed",
        /// Its caller was gone before there was an answer.
        Aborted = "aborted",
        /// The program failed.
        Panicked = "panicked",
    }
}

words! {
    /// How an answer ended.
    End {
        /// All of it was handed over.
        Complete = "complete",
        /// The proxy cut it: the permit ended, or its caller did not take it.
        Cut = "cut",
        /// It broke off on the upstream's side, or the proxy stopped.
        Broken = "broken",
        /// Its caller went away.
        Left = "left",
    }
}

impl From<message::Era> for Era {
    fn from(era: message::Era) -> Self {
        match era {
            message::Era::Legacy => Self::Legacy,
            message::Era::Modern => Self::Modern,
        }
    }
}

impl Kind {
    /// What a method of this class is.
    pub(crate) fn of(method: &str, class: Option<Class>) -> Self {
        let Some(class) = class else {
            return Self::Unknown;
        };
        match (class.list, class.kind, class.subject) {
            (Some(_), _, _) => Self::List,
            (None, AccessKind::ToolCall, _) => Self::Tool,
            (None, AccessKind::ResourceRead, _) => Self::Resource,
            (None, AccessKind::PromptGet, _) => Self::Prompt,
            (None, AccessKind::Completion, _) => Self::Completion,
            (None, AccessKind::Task, _) => Self::Task,
            (None, AccessKind::LoggingLevel, _) if method == "logging/setLevel" => Self::Logging,
            (None, AccessKind::LoggingLevel, _) => Self::Extra,
            (None, AccessKind::Plumbing, Subject::Subscriptions) => Self::Stream,
            (None, AccessKind::Plumbing | AccessKind::ListEntry, _) => Self::Plumbing,
        }
    }
}

/// The word of a decision.
pub(super) const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Deny => "deny",
        Outcome::Indeterminate => "indeterminate",
    }
}
