//! Streamable HTTP on `/mcp`, both eras. Every answer is one JSON document; there is no stream to
//! open, so GET is 405.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::Config;
use crate::protocol::{
    HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, LEGACY_VERSIONS, METHOD_NOT_FOUND, MODERN_VERSION,
    Message, Request, Responder, RpcError, answer, parse,
};
use crate::sessions::Sessions;

/// The path that the server answers on.
pub const MCP_PATH: &str = "/mcp";

/// Longest body that is read, in bytes; an honest message has a few hundred.
const MAX_BODY: usize = 256 * 1024;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The server as routes: `/mcp` and nothing else.
pub fn router(config: Config) -> Router {
    let shared = Shared {
        sessions: Mutex::new(Sessions::new(config.session_key)),
        responder: Responder::new(config),
    };
    Router::new()
        .route(MCP_PATH, post(receive).delete(end_session))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(shared))
}

/// Serves [`router`] on `listener` until `shutdown` resolves; requests in flight are answered first.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(config))
        .with_graceful_shutdown(shutdown)
        .await
}

struct Shared {
    sessions: Mutex<Sessions>,
    responder: Responder,
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refusal: the status, the id of the request where it is known, the error.
struct Refusal(StatusCode, Value, RpcError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, id, error) = self;
        (status, Json(answer(id, Err(error)))).into_response()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = check_transport(&headers) {
        return refusal.into_response();
    }
    let request = match parse(&body) {
        Ok(Message::Request(request)) => request,
        Ok(Message::Other) => {
            return match check_session(&shared, &headers) {
                Ok(()) => StatusCode::ACCEPTED.into_response(),
                Err(refusal) => refusal.into_response(),
            };
        }
        Err(error) => {
            return Refusal(StatusCode::BAD_REQUEST, Value::Null, error).into_response();
        }
    };
    let answered = match request.claimed_version() {
        // A revision of the legacy era that turns up in `_meta` changes nothing.
        Some(version) if !LEGACY_VERSIONS.contains(&version) => {
            answer_modern(&shared, &headers, request).await
        }
        _ => answer_legacy(&shared, &headers, request).await,
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

async fn answer_modern(shared: &Shared, headers: &HeaderMap, request: Request) -> Result<Response, Refusal> {
    if let Err(error) = check_modern(headers, &request) {
        return Err(Refusal(StatusCode::BAD_REQUEST, request.id, error));
    }
    let result = shared.responder.modern(&request.method, request.params).await;
    let status = match &result {
        Err(error) if error.code == METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    Ok((status, Json(answer(request.id, result))).into_response())
}

async fn answer_legacy(shared: &Shared, headers: &HeaderMap, request: Request) -> Result<Response, Refusal> {
    if let Err(error) = check_legacy(headers) {
        return Err(Refusal(StatusCode::BAD_REQUEST, request.id, error));
    }
    let opens = request.method == "initialize";
    if !opens {
        check_session(shared, headers)?;
    }
    let result = shared.responder.legacy(&request.method, request.params).await;
    let mut response = Json(answer(request.id, result)).into_response();
    if opens {
        let id = shared.sessions().open();
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert(SESSION, id);
        }
    }
    Ok(response)
}

async fn end_session(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = check_origin(&headers) {
        return refusal.into_response();
    }
    match single(&headers, &SESSION) {
        Some(id) if shared.sessions().close(id) => StatusCode::NO_CONTENT,
        Some(_) => StatusCode::NOT_FOUND,
        None => StatusCode::BAD_REQUEST,
    }
    .into_response()
}

fn check_transport(headers: &HeaderMap) -> Result<(), Refusal> {
    check_origin(headers)?;
    let json = single(headers, &http::header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if json {
        return Ok(());
    }
    let error = RpcError::new(INVALID_REQUEST, "the content type is not application/json");
    Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, Value::Null, error))
}

/// A page in a browser may not reach a server on loopback (MCP, transports, security warning).
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(http::header::ORIGIN) {
        return Ok(());
    }
    let host = single(headers, &http::header::ORIGIN)
        .and_then(|origin| origin.parse::<http::Uri>().ok())
        .and_then(|origin| origin.host().map(str::to_owned));
    match host.as_deref() {
        Some("127.0.0.1" | "[::1]" | "localhost") => Ok(()),
        _ => {
            let error = RpcError::new(INVALID_REQUEST, "this origin is not allowed");
            Err(Refusal(StatusCode::FORBIDDEN, Value::Null, error))
        }
    }
}

/// The headers of a modern request equal its body; the order decides which error a client gets.
fn check_modern(headers: &HeaderMap, request: &Request) -> Result<(), RpcError> {
    let claimed = request.claimed_version().unwrap_or_default();
    if headers.contains_key(VERSION) {
        check_header(headers, &VERSION, claimed)?;
    }
    if claimed != MODERN_VERSION {
        return Err(RpcError::unsupported_version(claimed));
    }
    check_header(headers, &VERSION, claimed)?;
    if !request.has_capabilities() {
        return Err(missing_envelope());
    }
    check_header(headers, &METHOD, &request.method)?;
    if let Some(name) = request.header_name() {
        check_header(headers, &NAME, name)?;
    }
    Ok(())
}

/// Without the header, 2025-03-26 is assumed, which is supported (MCP 2025-11-25, transports).
fn check_legacy(headers: &HeaderMap) -> Result<(), RpcError> {
    if !headers.contains_key(VERSION) {
        return Ok(());
    }
    match single(headers, &VERSION) {
        Some(version) if LEGACY_VERSIONS.contains(&version) => Ok(()),
        Some(MODERN_VERSION) => Err(missing_envelope()),
        version => Err(RpcError::unsupported_version(version.unwrap_or_default())),
    }
}

/// A session that is named must be open; a client that names none is served.
fn check_session(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(SESSION) {
        return Ok(());
    }
    match single(headers, &SESSION) {
        Some(id) if shared.sessions().is_open(id) => Ok(()),
        _ => {
            let error = RpcError::new(INVALID_REQUEST, "there is no such session");
            Err(Refusal(StatusCode::NOT_FOUND, Value::Null, error))
        }
    }
}

fn missing_envelope() -> RpcError {
    RpcError::new(
        INVALID_PARAMS,
        "`_meta` lacks the protocol version or the client's capabilities",
    )
}

fn check_header(headers: &HeaderMap, name: &HeaderName, body: &str) -> Result<(), RpcError> {
    if single(headers, name) == Some(body) {
        return Ok(());
    }
    let message = format!("the header `{name}` does not equal the body");
    Err(RpcError::new(HEADER_MISMATCH, message))
}

/// The value of a header that is there exactly once and is text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

#[cfg(test)]
mod tests;
