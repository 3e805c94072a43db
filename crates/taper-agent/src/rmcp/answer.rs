//! What an HTTP answer means to rmcp's transport. Every body and every event has a limit.

use std::borrow::Cow;

use ::rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, RequestId, ServerJsonRpcMessage};
use ::rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, SseError, StreamableHttpPostResponse,
};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, StatusCode};
use reqwest::Response;
use sse_stream::{Sse, SseStream};

use super::{ClientError, Failure, SESSION};
use crate::proven;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The largest refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// How much of an unusable answer an error repeats, in characters.
const MAX_SHOWN: usize = 256;

/// What was posted, as far as its answer depends on it.
pub(super) struct Posted {
    /// The id, if it was a request.
    id: Option<RequestId>,
    is_discovery: bool,
    in_session: bool,
}

impl Posted {
    pub(super) fn new(message: &ClientJsonRpcMessage, in_session: bool) -> Self {
        let request = match message {
            ClientJsonRpcMessage::Request(request) => Some(request),
            _ => None,
        };
        Self {
            id: request.map(|request| request.id.clone()),
            is_discovery: request
                .is_some_and(|request| matches!(request.request, ClientRequest::DiscoverRequest(_))),
            in_session,
        }
    }

    pub(super) async fn answer(
        self,
        answer: Response,
        max_event: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let status = answer.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if !status.is_success() {
            return self.refused(answer).await;
        }
        let session = header(answer.headers(), &SESSION).map(str::to_owned);
        match kind(answer.headers()) {
            Kind::Events => Ok(StreamableHttpPostResponse::Sse(
                events(answer, max_event),
                session,
            )),
            Kind::Json => {
                let body = read(answer, MAX_ANSWER).await?;
                match (serde_json::from_slice::<ServerJsonRpcMessage>(&body), &self.id) {
                    (Ok(message), _) => Ok(StreamableHttpPostResponse::Json(message, session)),
                    // Nobody waits for an answer to this.
                    (Err(_), None) => Ok(StreamableHttpPostResponse::Accepted),
                    (Err(error), Some(_)) => Err(unexpected(format!(
                        "it is no JSON-RPC message: {error}: {}",
                        shown(&body)
                    ))),
                }
            }
            Kind::Other(_) if self.id.is_none() && answer.content_length() == Some(0) => {
                Ok(StreamableHttpPostResponse::Accepted)
            }
            Kind::Other(kind) => Err(Failure::UnexpectedContentType(kind)),
        }
    }

    /// A refusal in JSON-RPC is an answer, as long as it is one to what was posted. Of the others the
    /// status counts.
    async fn refused(self, answer: Response) -> Result<StreamableHttpPostResponse, Failure> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status == StatusCode::NOT_FOUND && self.in_session {
            return Err(Failure::SessionExpired);
        }
        let body = read(answer, MAX_REFUSAL).await?;
        let error = match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(ServerJsonRpcMessage::Error(error)) if matches!(kind(&headers), Kind::Json) => Some(error),
            _ => None,
        };
        if status != StatusCode::UNAUTHORIZED
            && let (Some(error), Some(id)) = (&error, &self.id)
            && error.id.as_ref() == Some(id)
        {
            let message = ServerJsonRpcMessage::error(error.error.clone(), Some(id.clone()));
            return Ok(StreamableHttpPostResponse::Json(message, None));
        }
        challenged(status, &headers)?;
        if self.is_discovery && !self.in_session && is_of_a_legacy_server(status) {
            let error = error.map_or_else(
                || ErrorData::invalid_request(format!("HTTP {status}: {}", shown(&body)), None),
                |error| error.error,
            );
            let message = ServerJsonRpcMessage::error(error, self.id);
            return Ok(StreamableHttpPostResponse::Json(message, None));
        }
        failed(status, &headers)?;
        Err(unexpected(format!("HTTP {status}: {}", shown(&body))))
    }
}

/// The answer to a DELETE. A server may keep its sessions.
pub(super) fn deleted(answer: &Response) -> Result<(), Failure> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED {
        return Ok(());
    }
    challenged(status, answer.headers())?;
    Err(unexpected(format!("HTTP {status}")))
}

/// The answer to a GET.
pub(super) fn stream(
    answer: Response,
    max_event: usize,
) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
    let status = answer.status();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        return Err(Failure::ServerDoesNotSupportSse);
    }
    if !status.is_success() {
        challenged(status, answer.headers())?;
        failed(status, answer.headers())?;
        return Err(unexpected(format!("HTTP {status}")));
    }
    match kind(answer.headers()) {
        Kind::Events => Ok(events(answer, max_event)),
        Kind::Json => Err(Failure::UnexpectedContentType(Some(
            "application/json".to_owned(),
        ))),
        Kind::Other(kind) => Err(Failure::UnexpectedContentType(kind)),
    }
}

/// A server of the legacy era knows no discovery and says so in its own way; 401 and 403 are not about
/// the era.
fn is_of_a_legacy_server(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// The challenge of a 401 or a 403. The DPoP one counts where there are several.
fn challenged(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    let values = || {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
    };
    let is_dpop = |text: &&str| {
        text.get(..4)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop"))
    };
    let Some(text) = values().find(is_dpop).or_else(|| values().next()) else {
        return Ok(());
    };
    match status {
        StatusCode::UNAUTHORIZED => Err(Failure::AuthRequired(AuthRequiredError::new(text.to_owned()))),
        StatusCode::FORBIDDEN => {
            let scope = proven::challenge(headers).and_then(|c| c.param("scope").map(str::to_owned));
            Err(Failure::InsufficientScope(InsufficientScopeError::new(
                text.to_owned(),
                scope,
            )))
        }
        _ => Ok(()),
    }
}

/// Too much, or broken: what may pass.
fn failed(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Ok(());
    }
    let wait = header(headers, &RETRY_AFTER).map(str::to_owned);
    Err(HttpStatusError::new(status.as_u16(), wait).into())
}

enum Kind {
    Json,
    Events,
    Other(Option<String>),
}

fn kind(headers: &HeaderMap) -> Kind {
    let text = header(headers, &CONTENT_TYPE);
    let essence = text.and_then(|text| text.split(';').next()).map(str::trim);
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case("application/json") => Kind::Json,
        Some(essence) if essence.eq_ignore_ascii_case("text/event-stream") => Kind::Events,
        _ => Kind::Other(text.map(str::to_owned)),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn read(mut answer: Response, max_size: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if chunk.len() > max_size - body.len() {
            return Err(Failure::ResponseBodyTooLarge { max_size });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The events of a body, each of at most `max_event` bytes.
fn events(answer: Response, max_event: usize) -> BoxStream<'static, Result<Sse, SseError>> {
    let limited = stream::unfold(Some((answer, EventSize::new(max_event))), |state| async {
        let (mut answer, mut size) = state?;
        match answer.chunk().await {
            Ok(None) => None,
            Ok(Some(chunk)) if size.admits(&chunk) => Some((Ok(chunk), Some((answer, size)))),
            Ok(Some(_)) => Some((Err(StreamError::TooLarge(size.max)), None)),
            Err(error) => Some((Err(StreamError::Broken(error.without_url())), None)),
        }
    });
    SseStream::from_bytes_stream(limited.map(|chunk: Result<Bytes, StreamError>| chunk)).boxed()
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the stream broke off: {0}")]
    Broken(#[source] reqwest::Error),
}

/// Counts the bytes since the last empty line.
#[derive(Debug)]
struct EventSize {
    max: usize,
    event: usize,
    line: usize,
    after_cr: bool,
}

impl EventSize {
    fn new(max: usize) -> Self {
        Self {
            max,
            event: 0,
            line: 0,
            after_cr: false,
        }
    }

    fn admits(&mut self, chunk: &[u8]) -> bool {
        chunk.iter().all(|byte| {
            let second_half = std::mem::replace(&mut self.after_cr, *byte == b'\r') && *byte == b'\n';
            match byte {
                _ if second_half => {}
                b'\r' | b'\n' if self.line == 0 => self.event = 0,
                b'\r' | b'\n' => self.line = 0,
                _ => {
                    self.line += 1;
                    self.event += 1;
                }
            }
            self.event <= self.max
        })
    }
}

fn broken(error: reqwest::Error) -> Failure {
    ClientError::Http(error.without_url()).into()
}

fn unexpected(text: String) -> Failure {
    Failure::UnexpectedServerResponse(Cow::Owned(text))
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    taper_capability::escaped(&text.chars().take(MAX_SHOWN).collect::<String>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_counted_up_to_its_empty_line() {
        let check = |chunks: &[&str], expected: bool| {
            let mut size = EventSize::new(8);
            let admitted = chunks.iter().all(|chunk| size.admits(chunk.as_bytes()));
            assert_eq!(admitted, expected, "{chunks:?}");
        };
        check(&["data: ab"], true);
        check(&["data: abc"], false);
        check(&["data: ", "ab", "c"], false);
        check(&["data: ab\n\ndata: ab\n\n"], true);
        check(&["data: ab\r\n\r", "\ndata: ab\r\r"], true);
        check(&["data: a\ndata: b\n"], false);
        check(&["data:\r", "\n", "data: b"], false);
        check(&[": beat\n", ": beat\n"], false);
        check(&[": beat\n\n", ": beat\n\n"], true);
    }
}
