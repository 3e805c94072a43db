//! What of an upstream's answer may pass (M-30): the protocol's own kinds of body, and nothing of a page,
//! a stack trace or a challenge that was meant for somebody else.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use taper_capability::json::{self, JsonLimits};
use taper_service::edge::{BoxError, read_body};
use tokio::time::Instant;

use crate::body::{Body, empty, full};
use crate::headers::{is_events, is_json, to_caller};
use crate::refusal::Refusal;

/// The largest body of an error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;
/// Statuses that say something in the protocol, or that a client acts on. They pass without their body.
const TOLD: [StatusCode; 12] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::CONFLICT,
    StatusCode::GONE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::TOO_MANY_REQUESTS,
];

/// The part of an answer to a `method` that goes on; what has to be read for that is there by `until`.
///
/// # Errors
/// [`Refusal::Upstream`] and [`Refusal::UpstreamStatus`], which tell nothing of the answer but its status.
pub(super) async fn admit(
    method: &Method,
    answer: Response<Incoming>,
    until: Instant,
) -> Result<Response<Body>, Refusal> {
    let (parts, body) = answer.into_parts();
    let status = parts.status;
    // The caller cannot do anything about the proxy's own credentials (RULES 20).
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        tracing::error!(
            status = status.as_u16(),
            "the upstream refuses the proxy's credentials"
        );
        return Err(Refusal::Upstream("it refuses the proxy's credentials"));
    }
    if status.is_redirection() {
        return Err(Refusal::Upstream("it redirects"));
    }
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::Upstream(
            "its answer is encoded, which was not asked for",
        ));
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::Upstream(
            "its answer has a transfer coding that nobody here decodes",
        ));
    }
    let answered = |headers: HeaderMap, body: Body| {
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    };
    if status.is_client_error() || status.is_server_error() {
        let Some(error) = error_of(&parts.headers, body, until).await else {
            return Err(if TOLD.contains(&status) {
                Refusal::UpstreamStatus(status)
            } else {
                Refusal::Upstream("it failed")
            });
        };
        let mut headers = to_caller(&parts.headers, false);
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        return Ok(answered(headers, full(error)));
    }
    let mut headers = to_caller(&parts.headers, true);
    let without_body = match status {
        StatusCode::OK | StatusCode::CREATED => *method == Method::DELETE,
        StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => true,
        _ => return Err(Refusal::Upstream("its status is none of the protocol's")),
    };
    if !without_body && (is_json(&parts.headers) || is_events(&parts.headers)) {
        return Ok(answered(headers, streamed(body)));
    }
    // What stands here says nothing that the status does not.
    if without_body || is_empty(&parts.headers, body, until).await? {
        headers.remove(header::CONTENT_TYPE);
        return Ok(answered(headers, empty()));
    }
    Err(Refusal::Upstream(
        "its answer is neither JSON nor an event stream",
    ))
}

/// The body as it comes; trailers are left out later. That it broke off is an error to whoever reads it.
fn streamed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// Whether there is no body. Some servers announce one and end it at once.
async fn is_empty(headers: &HeaderMap, mut body: Incoming, until: Instant) -> Result<bool, Refusal> {
    if headers.contains_key(header::CONTENT_TYPE) {
        return Ok(body.is_end_stream());
    }
    loop {
        let frame = tokio::time::timeout_at(until, body.frame()).await;
        match frame.map_err(|_| Refusal::Upstream("it did not answer in time"))? {
            None => return Ok(true),
            Some(Err(_)) => return Err(Refusal::Upstream("its answer broke off")),
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| !data.is_empty()) => return Ok(false),
            Some(Ok(_)) => {}
        }
    }
}

/// The body of an error, if it is a JSON-RPC error and nothing else.
async fn error_of(headers: &HeaderMap, body: Incoming, until: Instant) -> Option<Bytes> {
    if headers.contains_key(header::CONTENT_TYPE) && !is_json(headers) {
        return None;
    }
    let time = until.saturating_duration_since(Instant::now());
    let body = read_body(body, MAX_ERROR, time).await.ok()?;
    is_rpc_error(&body).then_some(body)
}

/// Whether `body` is one strict JSON text with a JSON-RPC 2.0 error in it, and nothing that a client could
/// take for a result or a request.
fn is_rpc_error(body: &[u8]) -> bool {
    let limits = JsonLimits {
        bytes: MAX_ERROR,
        ..JsonLimits::default()
    };
    let Ok(message) = json::parse(body, &limits) else {
        return false;
    };
    let others = ["result", "method", "params"];
    let is_other = |name: &str| {
        let is = |word: &&str| *word == name || json::is_other_spelling(name, word);
        others.iter().any(is)
            || ["jsonrpc", "id", "error"]
                .iter()
                .any(|own| json::is_other_spelling(name, own))
    };
    let error = message.get("error").filter(|error| error.as_object().is_some());
    let code = error.and_then(|error| error.get("code"));
    let text = error.and_then(|error| error.get("message"));
    matches!(code, Some(json::Value::Number(_)))
        && text.is_some_and(|text| text.as_str().is_some())
        && message.get("jsonrpc").and_then(json::Value::as_str) == Some("2.0")
        && !message
            .as_object()
            .unwrap_or_default()
            .iter()
            .any(|(name, _)| is_other(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_json_rpc_error_passes_as_an_error() {
        let check =
            |body: &str, expected: bool| assert_eq!(is_rpc_error(body.as_bytes()), expected, "{body}");
        check(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"m"}}"#,
            true,
        );
        check(
            r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"m","data":{"x":1.5}},"id":null,"y":1}"#,
            true,
        );
        check("", false);
        check("<html>", false);
        check(r#"{"error":"not_found"}"#, false);
        check(r#"{"error":{"code":1,"message":"m"}}"#, false);
        check(
            r#"{"jsonrpc":"1.0","id":1,"error":{"code":1,"message":"m"}}"#,
            false,
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"m"}}"#,
            false,
        );
        check(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, false);
        check(r#"{"jsonrpc":"2.0","id":1,"error":null}"#, false);
        check(
            r#"[{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}]"#,
            false,
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}{}"#,
            false,
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"},"error":{}}"#,
            false,
        );
        for beside in [
            "result",
            "Result",
            "re\u{17f}ult",
            "method",
            "Params",
            "ID",
            "Error",
        ] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":1,"message":"m"}},"{beside}":{{"tools":[]}}}}"#
            );
            check(&body, false);
        }
    }
}
