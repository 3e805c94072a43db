//! What comes out differently through the proxy. The table shrinks to nothing: what is in it and is no
//! difference any more fails the test, as does what is not in it.

use crate::suite::Report;

/// Checks with another verdict, for one reason.
pub(crate) struct Difference {
    /// Why.
    pub(crate) why: &'static str,
    /// `scenario / id / name / how-manieth: bare -> through`, `absent` where the check was not made.
    pub(crate) checks: &'static [&'static str],
}

/// The checks that differ, and what the suite says of them through the proxy.
pub(crate) fn between(bare: &Report, through: &Report) -> Vec<(String, String)> {
    let mut checks: Vec<_> = bare.0.keys().chain(through.0.keys()).collect();
    checks.sort();
    checks.dedup();
    let mut found = Vec::new();
    for check in checks {
        let status = |report: &Report| {
            let verdict = report.0.get(check);
            verdict.map_or("absent".to_owned(), |verdict| verdict.status.clone())
        };
        let (bare, there) = (status(bare), status(through));
        if bare != there {
            let why = through.0.get(check).map(|verdict| verdict.why.clone());
            found.push((format!("{check}: {bare} -> {there}"), why.unwrap_or_default()));
        }
    }
    found
}

/// 2025-11-25, from a server over HTTP: nothing.
pub(crate) const LEGACY: &[Difference] = &[];

/// 2026-07-28, from a server over HTTP.
pub(crate) const MODERN: &[Difference] = &[TASKS];

/// 2025-11-25, from a program: no failures, other forms.
pub(crate) const LEGACY_PROGRAM: &[Difference] = &[
    Difference {
        why: "an answer that comes first is JSON, where rmcp always begins a stream",
        checks: &[
            "server-sse-multiple-streams / server-sse-streams-functional / ServerSSEStreamsFunctional / 0: SUCCESS -> INFO",
        ],
    },
    Difference {
        why: "answers of a program are not kept for a client that comes back: no event ids",
        checks: &[
            "server-sse-polling / incoming-sse-event / IncomingSseEvent / 0: INFO -> absent",
            "server-sse-polling / incoming-sse-event / IncomingSseEvent / 1: INFO -> absent",
            "server-sse-polling / incoming-sse-event / IncomingSseEvent / 2: INFO -> absent",
            "server-sse-polling / server-sse-content-type / ServerSSEContentType / 0: absent -> INFO",
            "server-sse-polling / server-sse-disconnect-resume / ServerDisconnectResume / 0: INFO -> absent",
            "server-sse-polling / server-sse-priming-event / ServerSendsPrimingEvent / 0: SUCCESS -> absent",
            "server-sse-polling / server-sse-retry-field / ServerSendsRetryField / 0: SUCCESS -> absent",
            "server-sse-polling / stream-closed / StreamClosed / 0: INFO -> absent",
        ],
    },
];

/// 2026-07-28, from a program.
pub(crate) const MODERN_PROGRAM: &[Difference] = &[
    TASKS,
    Difference {
        why: "headers that repeat arguments do not reach a program, and none is started to ask which there are",
        checks: &[
            "http-custom-header-server-validation / sep-2243-server-reject-invalid-param-chars / ServerRejectsInvalidBase64Chars / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-reject-invalid-param-chars / ServerRejectsInvalidBase64Padding / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-reject-param-mismatch / ServerRejectsInvalidBase64CharsErrorCode / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-reject-param-mismatch / ServerRejectsInvalidBase64PaddingErrorCode / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-reject-param-mismatch / ServerRejectsMissingCustomHeaderErrorCode / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-validate-param-match / ServerRejectsMissingCustomHeader / 0: SUCCESS -> FAILURE",
        ],
    },
    Difference {
        why: "errors of a program have status 200: it cannot say one, and the proxy does not make one from the code yet",
        checks: &[
            "server-stateless / sep-2575-http-server-meta-invalid-400 / HttpServerMetaInvalid400 / 2: SUCCESS -> FAILURE",
            "server-stateless / sep-2575-http-server-unsupported-version-400 / HttpServerUnsupportedVersion400 / 0: SUCCESS -> FAILURE",
            "server-stateless / sep-2575-missing-capability-http-400 / MissingCapabilityHttp400 / 0: SUCCESS -> FAILURE",
        ],
    },
    Difference {
        why: "an answer that comes first is JSON, where rmcp always begins a stream",
        checks: &[
            "server-sse-multiple-streams / server-sse-streams-functional / ServerSSEStreamsFunctional / 0: SUCCESS -> INFO",
        ],
    },
];

/// `tasks/…` of a client that did not declare the extension, about a task that nobody made.
const TASKS: Difference = Difference {
    why: "a task that the caller has not is unknown (M-34), whatever the caller's extensions: the server is not asked",
    checks: &[
        "tasks-capability-negotiation / sep-2663-tasks-methods-non-declaring / TasksMethodsGatedWithoutExtension / 0: SUCCESS -> FAILURE",
    ],
};
