//! The one match that puts refusals into protocol words (RULES 24).
//!
//! The caller learns the rule, and for a denial the link and the caveat; never policy text, a value of
//! the request or what the upstream said.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use taper_dpop::RuleId;
use taper_oauth::{Challenge, ErrorCode, OAuthError};
use taper_policy::DenialKind;

use crate::body::Body;
use crate::config::DenyStyle;
use crate::headers::DPOP_NONCE;
use crate::message::{Era, LEGACY, MODERN};
use crate::refusal::{Denied, Refusal};
use crate::rules;
use crate::tokens::Cause;

/// What an answer may mention. Scopes are configured names (RULES 24).
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerContext {
    /// Where the resource's metadata lies.
    pub(crate) metadata_url: Option<String>,
    /// What a challenge without a better idea asks for.
    pub(crate) scopes: Vec<String>,
    /// A fresh nonce, for `use_dpop_nonce`.
    pub(crate) nonce: Option<String>,
    /// How denials are told.
    pub(crate) deny_style: DenyStyle,
    /// The message's id as JSON, once it is known.
    pub(crate) message_id: Option<Value>,
    /// Whether the message is a `tools/call`.
    pub(crate) is_tool_call: bool,
    /// The id of the decision in the journal, or one that only the log has.
    pub(crate) decision_id: String,
}

/// Error codes outside JSON-RPC's range.
const DENIED: i64 = 4403;
const UNDECIDED: i64 = 4503;
/// When to come back where nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// The answer to a refused request.
pub(crate) fn respond(refusal: &Refusal, context: &AnswerContext) -> Response<Body> {
    use Refusal as R;
    let unauthorized = |code: ErrorCode, text: &str| Answer::challenge(401, code, text);
    let plain = |status: u16, code: i64, text: &str| Answer::rpc(status, code, text);
    let answer = match refusal {
        R::Path => Answer::empty(404),
        R::Method { allow } => Answer {
            allow: Some(allow),
            ..Answer::empty(405)
        },
        R::Host => plain(421, -32600, "this host is not served here"),
        R::Origin => plain(403, -32600, "the origin is not allowed"),
        R::MethodOverride | R::Query | R::ContentEncoding | R::Upgrade | R::BodyBroken | R::BodyUnwanted => {
            plain(400, -32600, &refusal.to_string())
        }
        R::BodyTooLarge => plain(413, -32600, "the body is too large"),
        R::BodyTimedOut => plain(408, -32600, "the body did not arrive in time"),
        R::MediaType => plain(415, -32600, "the content type is not application/json"),
        R::NoCredentials | R::LoginNeeded | R::Anonymous(_) => Answer {
            challenge: Some((None, String::new())),
            ..Answer::empty(401)
        },
        R::Bearer | R::Credentials => unauthorized(ErrorCode::InvalidRequest, &refusal.to_string()),
        R::Proof(taper_dpop::Error::Nonce) | R::Restart => Answer {
            nonce: true,
            ..unauthorized(ErrorCode::UseDpopNonce, "a nonce is needed")
        },
        R::Proof(error) => unauthorized(ErrorCode::InvalidDpopProof, &error.to_string()),
        R::Unbound | R::Replay => unauthorized(ErrorCode::InvalidDpopProof, &refusal.to_string()),
        R::Capability(taper_capability::Error::ProofKey) => {
            unauthorized(ErrorCode::InvalidDpopProof, "the proof is not the last holder's")
        }
        // One sentence for all: what exactly is wrong with a token that proves nothing is not told.
        R::Capability(taper_capability::Error::Expired { .. }) => {
            unauthorized(ErrorCode::InvalidToken, "the capability has expired")
        }
        R::Capability(_) | R::Issuer => {
            unauthorized(ErrorCode::InvalidToken, "the capability is not valid here")
        }
        R::Revoked(_) => unauthorized(ErrorCode::InvalidToken, "the capability is revoked"),
        R::Json(_) => plain(400, -32700, "the body is not one strict JSON text"),
        R::Message(text) => plain(400, -32600, text),
        R::FoldedKeys | R::ClientAnswer => plain(400, -32600, &refusal.to_string()),
        R::HeaderMismatch(_) => plain(400, -32020, &refusal.to_string()),
        R::Revision { requested } => Answer {
            data: Some(json!({ "supported": LEGACY, "requested": requested.as_deref().unwrap_or(MODERN) })),
            ..plain(400, -32022, "the upstream does not speak this revision")
        },
        // What servers say of a task that they do not know.
        R::Task => Answer {
            data: Some(json!({ "decision_id": context.decision_id, "rule": refusal.rule().as_str() })),
            ..plain(200, -32602, "there is no such task")
        },
        R::NoRevision => plain(400, -32602, &refusal.to_string()),
        // A client of the modern era knows by this what a server does not have.
        R::UnknownMethod(Era::Modern) => Answer {
            data: Some(cited(refusal, context)),
            ..plain(404, -32601, "there is no such method here")
        },
        R::UnknownMethod(Era::Legacy) => Answer {
            data: Some(denial_data(
                &Denied::by_profile(rules::UNKNOWN_METHOD, String::new()),
                &context.decision_id,
            )),
            style: context.deny_style,
            ..plain(403, DENIED, "the capability does not allow this")
        },
        R::Session => plain(404, -32600, "there is no such session"),
        R::Denied(denied) => match denied.kind {
            DenialKind::Expired => unauthorized(ErrorCode::InvalidToken, "the capability has expired"),
            DenialKind::Audience => unauthorized(ErrorCode::InvalidToken, "the capability is not valid here"),
            DenialKind::NoRight => Answer {
                scopes: denied.obtainable.clone(),
                ..Answer::challenge(403, ErrorCode::InsufficientScope, "the grant does not allow this")
            },
            DenialKind::Caveat | DenialKind::Policy | DenialKind::Error => Answer {
                data: Some(denial_data(denied, &context.decision_id)),
                style: context.deny_style,
                ..plain(403, DENIED, "the capability does not allow this")
            },
        },
        R::Quota => Answer {
            retry_after: Some(SOON),
            data: Some(cited(refusal, context)),
            ..plain(429, UNDECIDED, "too many requests of this grant")
        },
        R::Rate { wait, .. } | R::Costly { wait, .. } => Answer {
            retry_after: Some(*wait),
            data: Some(cited(refusal, context)),
            ..plain(429, UNDECIDED, &refusal.to_string())
        },
        R::Crowded { whose: Some(_), .. } => Answer {
            retry_after: Some(SOON),
            data: Some(cited(refusal, context)),
            ..plain(429, UNDECIDED, &refusal.to_string())
        },
        R::Crowded { whose: None, .. }
        | R::IssuerNotReady
        | R::Stale
        | R::FeedHistory
        | R::SeenFailed
        | R::Uncounted
        | R::Undescribed
        | R::Unpinned
        | R::Unlisted
        | R::Indeterminate(_)
        | R::Audit
        | R::Busy
        | R::Children
        | R::Waiting => Answer {
            retry_after: Some(SOON),
            data: Some(cited(refusal, context)),
            ..plain(503, UNDECIDED, "it could not be decided, try again")
        },
        R::SecondStream => Answer {
            data: Some(cited(refusal, context)),
            ..plain(409, -32600, "the session's stream is open already")
        },
        R::UpstreamStatus(status) => Answer {
            allow: (*status == StatusCode::METHOD_NOT_ALLOWED).then_some("POST"),
            retry_after: (*status == StatusCode::TOO_MANY_REQUESTS).then_some(SOON),
            data: Some(cited(refusal, context)),
            ..plain(
                status.as_u16(),
                -32603,
                "the server behind this proxy refused the request",
            )
        },
        R::UpstreamToken(failure) => match failure.cause {
            Cause::Foreign | Cause::RefusedSubject => Answer {
                data: Some(cited(refusal, context)),
                ..plain(
                    502,
                    -32603,
                    "the server behind this proxy takes nobody's word for this subject",
                )
            },
            _ => Answer {
                retry_after: Some(failure.wait.max(SOON)),
                data: Some(cited(refusal, context)),
                ..plain(
                    503,
                    -32603,
                    "the proxy has no credentials for the server behind it now, try again",
                )
            },
        },
        R::Upstream(_) => Answer {
            data: Some(cited(refusal, context)),
            ..plain(
                502,
                -32603,
                "the server behind this proxy did not answer as it should",
            )
        },
    };
    answer.citing(refusal.rule()).into_response(context)
}

fn cited(refusal: &Refusal, context: &AnswerContext) -> Value {
    json!({ "decision_id": context.decision_id, "rule": refusal.rule().as_str() })
}

/// Code and sentence for an answer that ends before its time (M-33).
pub(crate) fn why_cut(refusal: &Refusal) -> (i64, &'static str) {
    use Refusal as R;
    match refusal {
        R::Capability(taper_capability::Error::Expired { .. }) => (DENIED, "the capability has expired"),
        R::Revoked(_) => (DENIED, "the capability is revoked"),
        R::Denied(denied) if denied.kind == DenialKind::Expired => (DENIED, "the capability has expired"),
        R::Denied(_) => (DENIED, "the capability does not allow this any more"),
        _ => (UNDECIDED, "it could not be decided, try again"),
    }
}

/// The message that answers the request `id` when its answer ends before its time: `rule` is the one that
/// ends it, `cause` the one that is broken.
pub(crate) fn cut(refusal: &Refusal, id: &taper_capability::json::Value, decision_id: &str) -> String {
    let (code, text) = why_cut(refusal);
    let mut data = json!({
        "decision_id": decision_id, "rule": rules::STREAM.as_str(), "cause": refusal.rule().as_str(),
    });
    if let (Refusal::Denied(denied), Some(data)) = (refusal, data.as_object_mut()) {
        let Value::Object(denial) = denial_data(denied, decision_id) else {
            return String::new();
        };
        for name in ["link", "caveat", "obtainable"] {
            data.insert(name.to_owned(), denial.get(name).cloned().unwrap_or(Value::Null));
        }
    }
    // The id goes back as it came, whatever number it is.
    let error = json!({ "code": code, "message": text, "data": data });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

fn denial_data(denied: &Denied, decision_id: &str) -> Value {
    let caveat = denied
        .caveat
        .as_ref()
        .and_then(|caveat| serde_json::to_value(caveat).ok());
    json!({
        "decision_id": decision_id,
        "rule": denied.rule.as_str(),
        "link": denied.link,
        "caveat": caveat,
        "obtainable": denied.obtainable,
    })
}

#[derive(Default)]
struct Answer {
    status: StatusCode,
    challenge: Option<(Option<ErrorCode>, String)>,
    scopes: Vec<String>,
    rpc: Option<(i64, String)>,
    data: Option<Value>,
    style: DenyStyle,
    allow: Option<&'static str>,
    nonce: bool,
    retry_after: Option<Duration>,
}

impl Answer {
    fn empty(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ..Self::default()
        }
    }

    fn rpc(status: u16, code: i64, text: &str) -> Self {
        Self {
            rpc: Some((code, text.to_owned())),
            ..Self::empty(status)
        }
    }

    fn challenge(status: u16, code: ErrorCode, text: &str) -> Self {
        Self {
            challenge: Some((Some(code), text.to_owned())),
            ..Self::empty(status)
        }
    }

    /// Ends the description of a challenge with the rule's number (RULES 24). What it says anybody can
    /// find out: the checks need public keys only.
    fn citing(mut self, rule: RuleId) -> Self {
        if let Some((Some(_), text)) = &mut self.challenge {
            text.push_str(&format!(" ({rule})"));
        }
        self
    }

    fn into_response(self, context: &AnswerContext) -> Response<Body> {
        let id = context.message_id.clone().unwrap_or(Value::Null);
        let (status, document) = match (&self.rpc, self.style) {
            (None, _) => (self.status, None),
            (Some((_, text)), DenyStyle::ToolResult) if context.is_tool_call && !id.is_null() => {
                let mut result = json!({
                    "content": [{ "type": "text", "text": text }],
                    "isError": true,
                });
                if let (Some(result), Some(data)) = (result.as_object_mut(), &self.data) {
                    result.insert("_meta".to_owned(), json!({ "taper/denial": data }));
                }
                (
                    StatusCode::OK,
                    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result })),
                )
            }
            (Some((code, text)), style) => {
                let mut error = json!({ "code": code, "message": text });
                if let (Some(error), Some(data)) = (error.as_object_mut(), &self.data) {
                    error.insert("data".to_owned(), data.clone());
                }
                let status = if style == DenyStyle::Http {
                    self.status
                } else {
                    StatusCode::OK
                };
                (
                    status,
                    Some(json!({ "jsonrpc": "2.0", "id": id, "error": error })),
                )
            }
        };
        let body = match &document {
            Some(document) => Full::new(Bytes::from(document.to_string())),
            None => Full::default(),
        };
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if document.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut put = |name: header::HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        if let Some((code, text)) = &self.challenge {
            let error = code.map(|code| OAuthError::new(code, text));
            let mut challenge = Challenge::dpop(error.as_ref());
            if let Some(url) = &context.metadata_url {
                challenge = challenge.with_resource_metadata(url);
            }
            let scopes = if self.scopes.is_empty() {
                &context.scopes
            } else {
                &self.scopes
            };
            if !scopes.is_empty() {
                challenge = challenge.with_scope(&scopes.join(" "));
            }
            put(header::WWW_AUTHENTICATE, challenge.to_string());
        }
        if let Some(allow) = self.allow {
            put(header::ALLOW, allow.to_owned());
        }
        if let Some(nonce) = context.nonce.as_ref().filter(|_| self.nonce) {
            put(DPOP_NONCE, nonce.clone());
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: who comes back then is not too early.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            put(header::RETRY_AFTER, seconds.to_string());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> AnswerContext {
        AnswerContext {
            metadata_url: Some("https://p.example/m".into()),
            scopes: vec!["git:*".into()],
            nonce: Some("N".into()),
            message_id: Some(json!(7)),
            is_tool_call: true,
            decision_id: "D".into(),
            ..AnswerContext::default()
        }
    }

    async fn told(refusal: &Refusal, context: &AnswerContext) -> (u16, String, Value) {
        let response = respond(refusal, context);
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (status, challenge) = (response.status().as_u16(), header("www-authenticate"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            challenge,
            serde_json::from_slice(&body).unwrap_or(Value::Null),
        )
    }

    fn denied(kind: DenialKind) -> Refusal {
        Refusal::Denied(Box::new(Denied {
            rule: rules::TEMPLATE,
            kind,
            link: Some(2),
            caveat: None,
            obtainable: vec!["git:git_show".into()],
            reason: "the operator's secret policy".into(),
        }))
    }

    #[tokio::test]
    async fn protocol_words() {
        let check = async |refusal: Refusal, status: u16, challenge: &str, code: i64| {
            let (got, header, body) = told(&refusal, &context()).await;
            assert_eq!(got, status, "{refusal:?}");
            assert!(header.contains(challenge), "{refusal:?}: {header}");
            assert_eq!(header.is_empty(), challenge.is_empty(), "{refusal:?}: {header}");
            assert_eq!(body["error"]["code"].as_i64().unwrap_or(0), code, "{refusal:?}");
        };
        check(Refusal::Path, 404, "", 0).await;
        check(Refusal::Bearer, 401, "error=\"invalid_request\"", 0).await;
        check(Refusal::NoCredentials, 401, "DPoP algs=", 0).await;
        check(Refusal::Replay, 401, "error=\"invalid_dpop_proof\"", 0).await;
        check(Refusal::Restart, 401, "error=\"use_dpop_nonce\"", 0).await;
        check(
            Refusal::Revoked("grant"),
            401,
            "resource_metadata=\"https://p.example/m\"",
            0,
        )
        .await;
        check(Refusal::Json(String::new()), 400, "", -32700).await;
        check(Refusal::HeaderMismatch("Mcp-Name"), 400, "", -32020).await;
        check(Refusal::NoRevision, 400, "", -32602).await;
        check(Refusal::UnknownMethod(Era::Modern), 404, "", -32601).await;
        check(Refusal::UnknownMethod(Era::Legacy), 403, "", 4403).await;
        check(Refusal::BodyTooLarge, 413, "", -32600).await;
        check(Refusal::MediaType, 415, "", -32600).await;
        check(Refusal::Host, 421, "", -32600).await;
        check(Refusal::Quota, 429, "", 4503).await;
        let wait = Duration::from_millis(1_001);
        for whose in ["holder", "grant", "subject"] {
            check(Refusal::Rate { whose, wait }, 429, "", 4503).await;
            check(Refusal::Costly { whose, wait }, 429, "", 4503).await;
        }
        let crowded = |whose| Refusal::Crowded {
            what: "requests",
            whose,
        };
        check(crowded(Some("holder")), 429, "", 4503).await;
        check(crowded(None), 503, "", 4503).await;
        check(Refusal::Stale, 503, "", 4503).await;
        check(Refusal::Uncounted, 503, "", 4503).await;
        check(Refusal::Task, 200, "", -32602).await;
        check(denied(DenialKind::NoRight), 403, "scope=\"git:git_show\"", 0).await;
        check(denied(DenialKind::Expired), 401, "error=\"invalid_token\"", 0).await;
        check(denied(DenialKind::Caveat), 403, "", 4403).await;
        check(denied(DenialKind::Policy), 403, "", 4403).await;
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        let after = |refusal: Refusal| {
            let response = respond(&refusal, &context());
            let value = response.headers().get("retry-after");
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (whose, what) = ("holder", "requests");
        let rate = |ms: u64| Refusal::Rate {
            whose,
            wait: Duration::from_millis(ms),
        };
        assert_eq!(after(rate(0)).as_deref(), Some("1"));
        assert_eq!(after(rate(2_000)).as_deref(), Some("2"));
        assert_eq!(after(rate(2_001)).as_deref(), Some("3"));
        assert_eq!(
            after(Refusal::Crowded { what, whose: None }).as_deref(),
            Some("1")
        );
        assert_eq!(after(Refusal::Path), None);
    }

    #[tokio::test]
    async fn denials_are_structured_in_three_styles() {
        let refusal = denied(DenialKind::Caveat);
        let (status, _, body) = told(&refusal, &context()).await;
        assert_eq!((status, &body["id"]), (403, &json!(7)));
        let data = &body["error"]["data"];
        assert_eq!(data["decision_id"], "D");
        assert_eq!((&data["rule"], &data["link"]), (&json!("M-21"), &json!(2)));
        assert!(!body.to_string().contains("secret policy"));
        let style = |deny_style| AnswerContext {
            deny_style,
            ..context()
        };
        let (status, _, body) = told(&refusal, &style(DenyStyle::Jsonrpc)).await;
        assert_eq!((status, &body["error"]["code"]), (200, &json!(4403)));
        let (status, _, body) = told(&refusal, &style(DenyStyle::ToolResult)).await;
        assert_eq!((status, &body["result"]["isError"]), (200, &json!(true)));
        assert_eq!(body["result"]["_meta"]["taper/denial"]["rule"], "M-21");
        let (status, ..) = told(&Refusal::Stale, &style(DenyStyle::ToolResult)).await;
        assert_eq!(status, 503, "only denials are softened");
    }
}
