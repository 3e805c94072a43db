//! What the endpoints share: reading a form within limits, and answers that nobody stores.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use taper_oauth::{ErrorCode, Form};
use taper_service::edge::{BodyError, read_body};

use crate::error::Refusal;
use crate::rules;

/// The largest request body, in bytes: two JWTs and `authorization_details`, form-encoded.
pub(crate) const MAX_BODY: usize = 128 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Where a nonce is handed out (RFC 9449 §8).
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Reads a body that is declared as `media_type`.
pub(crate) async fn body(headers: &HeaderMap, body: Body, media_type: &str) -> Result<Bytes, Refusal> {
    let refused = |description: String| Refusal::new(rules::FORM, ErrorCode::InvalidRequest, description);
    let mut declared = headers.get_all(CONTENT_TYPE).iter();
    let fits = match (declared.next().map(HeaderValue::to_str), declared.next()) {
        (Some(Ok(value)), None) => {
            let essence = value.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case(media_type)
        }
        _ => false,
    };
    if !rules::FORM.holds(fits) {
        return Err(refused(format!("the body is not declared as {media_type}")));
    }
    if !rules::FORM.holds(!headers.contains_key(CONTENT_ENCODING)) {
        return Err(refused("a content encoding is not accepted".to_owned()).with_status(415));
    }
    read_body(body, MAX_BODY, BODY_DEADLINE)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge { .. } => refused(error.to_string()).with_status(413),
            BodyError::TimedOut => refused(error.to_string()).with_status(408),
            BodyError::Broken => refused(error.to_string()),
        })
}

/// Reads a form; also returns its exact bytes, which a proof may be bound to.
pub(crate) async fn form(headers: &HeaderMap, body: Body) -> Result<(Form, Bytes), Refusal> {
    let bytes = self::body(headers, body, "application/x-www-form-urlencoded").await?;
    let form = Form::parse(&bytes, MAX_BODY).map_err(|answer| Refusal::answered(rules::FORM, answer))?;
    Ok((form, bytes))
}

/// An answer in JSON that nobody stores.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// As [`json`], already written.
pub(crate) fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, bytes).into_response()
}

/// A refusal in the form of RFC 6749 §5.2.
pub(crate) fn refusal(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &refusal.answer.body());
    if refusal.answer.code() == ErrorCode::InvalidClient {
        // RFC 9110 §15.5.2: a 401 names a way to authenticate.
        response.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"taper\""),
        );
    }
    response
}
