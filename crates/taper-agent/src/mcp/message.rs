//! JSON-RPC messages and the headers that go with them, for both eras. No transport in here.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use taper_service::fetch::Fetched;

use super::MAX_ANSWER;
use crate::Error;
use crate::sse::Decoder;

/// The revision that modern requests state.
pub const MODERN_VERSION: &str = "2026-07-28";
/// The revision that a legacy session asks for.
pub const LEGACY_VERSION: &str = "2025-11-25";

pub(super) const JSON: &str = "application/json";
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const EVENT_STREAM: &str = "text/event-stream";

/// Which of MCP's two transports is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28: stateless.
    #[default]
    Modern,
    /// 2025-03-26 to 2025-11-25: sessions.
    Legacy,
}

/// The error of a JSON-RPC answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RpcError {
    pub(super) code: i64,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Option<Value>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    result: Option<Value>,
    error: Option<RpcError>,
}

/// The bytes of a request.
pub(super) fn request(id: u64, method: &str, params: Map<String, Value>) -> Result<Vec<u8>, Error> {
    write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// The bytes of a notification.
pub(super) fn notification(method: &str) -> Result<Vec<u8>, Error> {
    write(&json!({"jsonrpc": "2.0", "method": method}))
}

/// Adds what each modern request says about itself (MCP 2026-07-28, `_meta`).
pub(super) fn add_meta(params: &mut Map<String, Value>) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientInfo": client_info(),
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params.insert("_meta".to_owned(), meta);
}

/// How this client names itself.
pub(super) fn client_info() -> Value {
    json!({"name": "taper", "version": env!("CARGO_PKG_VERSION")})
}

/// The headers of a modern request, equal to its body.
pub(super) fn modern_headers(method: &str, params: &Map<String, Value>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(VERSION, HeaderValue::from_static(MODERN_VERSION));
    headers.insert(METHOD, header(method)?);
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(headers),
    };
    if let Some(name) = params.get(member).and_then(Value::as_str) {
        headers.insert(NAME, header(name)?);
    }
    Ok(headers)
}

/// Both forms of an answer (MCP, Streamable HTTP).
pub(super) fn accept() -> HeaderMap {
    let value = HeaderValue::from_static("application/json, text/event-stream");
    HeaderMap::from_iter([(ACCEPT, value)])
}

/// A header that says what the body says, which visible ASCII and inner spaces can.
pub(super) fn header(text: &str) -> Result<HeaderValue, Error> {
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.trim() == text;
    HeaderValue::try_from(text)
        .ok()
        .filter(|_| plain && !text.is_empty())
        .ok_or_else(|| Error::Request(format!("`{}` cannot be written as a header", text.escape_debug())))
}

/// The result or the error that answers request `id`, from a JSON body or an event stream.
///
/// # Errors
/// Why there is none.
pub(super) fn answer_to(id: u64, answer: &Fetched) -> Result<Result<Value, RpcError>, String> {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Answer>(bytes).ok();
    let fitting =
        |message: &Answer| message.id == id && (message.result.is_some() || message.error.is_some());
    let message = if is(answer, JSON) {
        parse(&answer.body).filter(fitting)
    } else if is(answer, EVENT_STREAM) {
        let events = Decoder::new(MAX_ANSWER).push(&answer.body);
        let events = events.map_err(|_| "an event is too large".to_owned())?;
        let data = events.into_iter().filter_map(|event| event.data);
        data.filter_map(|data| parse(&data)).find(fitting)
    } else {
        return Err("it is neither JSON nor an event stream".to_owned());
    };
    match message.ok_or("it does not answer the request")? {
        Answer {
            error: Some(error), ..
        } => Ok(Err(error)),
        Answer {
            result: Some(result), ..
        } => Ok(Ok(result)),
        _ => Err("it is neither a result nor an error".to_owned()),
    }
}

/// The error that a refusal carries, whatever its id: a body that was not read has none.
pub(super) fn any_error(answer: &Fetched) -> Option<RpcError> {
    serde_json::from_slice::<Answer>(&answer.body).ok()?.error
}

fn is(answer: &Fetched, kind: &str) -> bool {
    answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(kind))
}

fn write(message: &Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message).map_err(|e| Error::Request(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn fetched(kind: &'static str, body: &str) -> Fetched {
        Fetched {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]),
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn the_answer_to_the_request_is_found() {
        let check = |kind: &'static str, body: &str, expected: Option<Result<i64, i64>>| {
            let got = answer_to(7, &fetched(kind, body)).ok();
            let got = got.map(|answer| match answer {
                Ok(result) => Ok(result.as_i64().unwrap()),
                Err(error) => Err(error.code),
            });
            assert_eq!(got, expected, "{kind} {body}");
        };
        let ok = r#"{"jsonrpc":"2.0","id":7,"result":1}"#;
        check("application/json", ok, Some(Ok(1)));
        check("Application/JSON; charset=utf-8", ok, Some(Ok(1)));
        check(
            "application/json",
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":4403,"message":"x"}}"#,
            Some(Err(4403)),
        );
        check("application/json", r#"{"jsonrpc":"2.0","id":8,"result":1}"#, None);
        check(
            "application/json",
            r#"{"jsonrpc":"2.0","id":"7","result":1}"#,
            None,
        );
        check("application/json", r#"{"jsonrpc":"2.0","id":7}"#, None);
        check("text/html", ok, None);
        let stream = format!(
            ": hello\n\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}}\n\nevent: message\ndata: {ok}\n\n"
        );
        check("text/event-stream", &stream, Some(Ok(1)));
        check("text/event-stream", "data: {}\n\n", None);
        check("application/json", &stream, None);
    }

    #[test]
    fn modern_headers_equal_the_body() {
        let check = |method: &str, params: Value, name: Option<&str>| {
            let Value::Object(params) = params else {
                panic!("no object")
            };
            let headers = modern_headers(method, &params).unwrap();
            assert_eq!(headers[METHOD], method);
            assert_eq!(headers[VERSION], MODERN_VERSION);
            assert_eq!(headers.get(NAME).map(|v| v.to_str().unwrap()), name);
        };
        check("tools/call", json!({"name": "git_log"}), Some("git_log"));
        check("resources/read", json!({"uri": "git://a"}), Some("git://a"));
        check("tools/list", json!({"name": "x"}), None);
        for bad in ["", "a\nb", "é", " a"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
