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

/// 2025-11-25.
pub(crate) const LEGACY: &[Difference] = &[];

/// 2026-07-28.
pub(crate) const MODERN: &[Difference] = &[
    Difference {
        why: "`Mcp-Param-*` headers are not forwarded yet",
        checks: &[
            "http-custom-header-server-validation / sep-2243-server-decode-base64 / ServerAcceptsValidBase64 / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-validate-param-match / ServerLiteralMissingBase64Prefix / 0: SUCCESS -> FAILURE",
            "http-custom-header-server-validation / sep-2243-server-validate-param-match / ServerLiteralMissingBase64Suffix / 0: SUCCESS -> FAILURE",
        ],
    },
    Difference {
        why: "a method of no revision, or without what it is about, is refused before the server can say that it has none",
        checks: &[
            "server-stateless / sep-2575-http-server-method-not-found-404 / HttpServerMethodNotFound404 / 0: SUCCESS -> FAILURE",
            "server-stateless / sep-2575-http-server-method-not-found-404-resources-subscribe / HttpServerMethodNotFound404resourcessubscribe / 0: SUCCESS -> FAILURE",
            "server-stateless / sep-2575-http-server-method-not-found-404-resources-unsubscribe / HttpServerMethodNotFound404resourcesunsubscribe / 0: SUCCESS -> FAILURE",
        ],
    },
    Difference {
        why: "a missing `_meta` is told as a header that differs from the body",
        checks: &[
            "server-stateless / sep-2575-request-meta-invalid-missing-meta / RequestMetaInvalid / 0: SUCCESS -> FAILURE",
            "server-stateless / sep-2575-request-meta-invalid-missing-protocol-version / RequestMetaInvalid / 0: SUCCESS -> FAILURE",
        ],
    },
    Difference {
        why: "calls about tasks are denied (M-34)",
        checks: &[
            "tasks-capability-negotiation / sep-2663-tasks-methods-non-declaring / TasksMethodsGatedWithoutExtension / 0: SUCCESS -> FAILURE",
            "tasks-dispatch-and-envelope / sep-2663-durable-create-strong-consistency / TasksStrongConsistencyImmediateGet / 0: SUCCESS -> FAILURE",
            "tasks-dispatch-and-envelope / sep-2663-tasks-get-invalid-task-id-32602 / TasksGetUnknownTaskIdRejected / 0: SUCCESS -> FAILURE",
            "tasks-dispatch-and-envelope / sep-2663-tasks-result-removed-method-not-found / TasksRemovedTasksResult / 0: SUCCESS -> FAILURE",
            "tasks-dispatch-and-envelope / tasks-removed-tasks-list / TasksRemovedTasksList / 0: SUCCESS -> FAILURE",
            "tasks-dispatch-and-envelope / tasks-result-type-complete-on-non-task-responses / TasksResultTypeCompleteOnNonTaskResponses / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / sep-2663-cancel-ack-empty-result / TasksCancelEmptyAck / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / sep-2663-tasks-get-status-completed / TasksGetTerminalInlinedResult / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / sep-2663-tasks-get-status-failed / TasksProtocolErrorFailedShape / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / sep-2663-tasks-get-status-working / TasksGetDuringWorking / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / sep-2663-tool-error-uses-completed-status / TasksToolErrorCompletedIsError / 0: SUCCESS -> FAILURE",
            "tasks-lifecycle / tasks-cancel-terminal-idempotent-ack / TasksCancelTerminalIdempotentAck / 0: SUCCESS -> FAILURE",
            "tasks-mrtr-composition / sep-2663-mrtr-synchronous-before-task-creation / Sep2663MrtrSynchronousBeforeTaskCreation / 0: SUCCESS -> FAILURE",
            "tasks-mrtr-input / sep-2663-tasks-get-status-input-required / TasksMRTRInputRequestsOnTasksGet / 0: SUCCESS -> FAILURE",
            "tasks-mrtr-input / tasks-mrtr-partial-fulfillment / TasksMRTRPartialFulfillment / 0: SUCCESS -> FAILURE",
            "tasks-mrtr-input / tasks-mrtr-tasks-update-resumes / TasksMRTRTasksUpdateResumes / 0: SUCCESS -> FAILURE",
            "tasks-request-headers / sep-2663-routing-headers-accepted-on-tasks-get / Sep2663RoutingHeadersAcceptedOnTasksGet / 0: SUCCESS -> FAILURE",
            "tasks-request-state-removal / tasks-get-detailed-no-request-state / TasksGetDetailedNoRequestState / 0: SUCCESS -> FAILURE",
            "tasks-wire-fields / tasks-no-early-ttl-expiry / TasksNoEarlyTtlExpiry / 0: SUCCESS -> FAILURE",
            "tasks-wire-fields / tasks-no-related-task-meta-on-inlined-result / TasksNoRelatedTaskMetaOnInlinedResult / 0: SUCCESS -> FAILURE",
        ],
    },
];
