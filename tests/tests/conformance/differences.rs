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
pub(crate) const LEGACY: &[Difference] = &[
    Difference {
        why: "answers of the client to requests of the server are not forwarded yet (M-20)",
        checks: &[
            "elicitation-sep1034-defaults / elicitation-sep1034-boolean-default / ElicitationSEP1034BooleanDefault / 0: SUCCESS -> absent",
            "elicitation-sep1034-defaults / elicitation-sep1034-enum-default / ElicitationSEP1034EnumDefault / 0: SUCCESS -> absent",
            "elicitation-sep1034-defaults / elicitation-sep1034-integer-default / ElicitationSEP1034IntegerDefault / 0: SUCCESS -> absent",
            "elicitation-sep1034-defaults / elicitation-sep1034-number-default / ElicitationSEP1034NumberDefault / 0: SUCCESS -> absent",
            "elicitation-sep1034-defaults / elicitation-sep1034-string-default / ElicitationSEP1034StringDefault / 0: SUCCESS -> absent",
            "elicitation-sep1034-defaults / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "elicitation-sep1330-enums / elicitation-sep1330-legacy-enumnames / ElicitationSEP1330LegacyEnumNames / 0: SUCCESS -> absent",
            "elicitation-sep1330-enums / elicitation-sep1330-titled-multi / ElicitationSEP1330TitledMulti / 0: SUCCESS -> absent",
            "elicitation-sep1330-enums / elicitation-sep1330-titled-single / ElicitationSEP1330TitledSingle / 0: SUCCESS -> absent",
            "elicitation-sep1330-enums / elicitation-sep1330-untitled-multi / ElicitationSEP1330UntitledMulti / 0: SUCCESS -> absent",
            "elicitation-sep1330-enums / elicitation-sep1330-untitled-single / ElicitationSEP1330UntitledSingle / 0: SUCCESS -> absent",
            "elicitation-sep1330-enums / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "tools-call-elicitation / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "tools-call-elicitation / tools-call-elicitation / ToolsCallElicitation / 0: SUCCESS -> absent",
            "tools-call-sampling / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "tools-call-sampling / tools-call-sampling / ToolsCallSampling / 0: SUCCESS -> absent",
        ],
    },
    Difference {
        why: "an event without data, with which rmcp begins a legacy stream, cuts a list",
        checks: &[
            "json-schema-2020-12 / json-schema-2020-12-$defs / JsonSchema2020_12$Defs / 0: SUCCESS -> absent",
            "json-schema-2020-12 / json-schema-2020-12-$schema / JsonSchema2020_12$Schema / 0: SUCCESS -> absent",
            "json-schema-2020-12 / json-schema-2020-12-additionalProperties / JsonSchema2020_12AdditionalProperties / 0: SUCCESS -> absent",
            "json-schema-2020-12 / json-schema-2020-12-tool-found / JsonSchema2020_12ToolFound / 0: SUCCESS -> absent",
            "json-schema-2020-12 / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "json-schema-2020-12 / sep-2106-anchor-keyword-preserved / JsonSchema2020_12AnchorKeyword / 0: SUCCESS -> absent",
            "json-schema-2020-12 / sep-2106-composition-keywords-preserved / JsonSchema2020_12CompositionKeywords / 0: SUCCESS -> absent",
            "json-schema-2020-12 / sep-2106-conditional-keywords-preserved / JsonSchema2020_12ConditionalKeywords / 0: SUCCESS -> absent",
            "prompts-list / prompts-list / PromptsList / 0: SUCCESS -> absent",
            "prompts-list / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "resources-list / resources-list / ResourcesList / 0: SUCCESS -> absent",
            "resources-list / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "server-sse-multiple-streams / server-accepts-multiple-post-streams / ServerAcceptsMultiplePostStreams / 0: SUCCESS -> absent",
            "server-sse-multiple-streams / server-sse-multiple-streams-error / ServerSSEMultipleStreamsTest / 0: absent -> FAILURE",
            "server-sse-multiple-streams / server-sse-streams-functional / ServerSSEStreamsFunctional / 0: SUCCESS -> absent",
            "tools-list / scenario-timeout / Scenario completes within the timeout / 0: absent -> FAILURE",
            "tools-list / tools-list / ToolsList / 0: SUCCESS -> absent",
            "tools-list / tools-name-format / ToolsNameFormat / 0: SUCCESS -> absent",
        ],
    },
    Difference {
        why: "log messages on the way are lost",
        checks: &[
            "tools-call-with-logging / tools-call-with-logging / ToolsCallWithLogging / 0: SUCCESS -> FAILURE",
        ],
    },
];

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
