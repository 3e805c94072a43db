//! Messages of a client that speaks lines, and the headers that the protocol wants beside them over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::super::trouble::Trouble;
use super::params::Params;

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The revisions of the legacy era; every other is of the modern one.
const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// What a line is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A request with its id.
    Request(Value),
    /// A notification, or the client's answer to the server.
    Note,
}

/// One line of a client.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Empty for an answer.
    pub(super) method: String,
    /// The revision that a modern message names.
    pub(super) modern: Option<String>,
    /// The request that `notifications/cancelled` names.
    pub(super) cancels: Option<Value>,
    /// The question of the server that an answer is to.
    pub(super) answers: Option<Value>,
    name: Option<String>,
    /// Of `tools/call`: what headers may repeat.
    arguments: Option<Value>,
    /// As it came.
    pub(super) body: Bytes,
}

impl Message {
    /// Reads one line. What is not understood here in detail is the proxy's to refuse.
    ///
    /// # Errors
    /// [`Trouble::NotJson`], [`Trouble::Malformed`], with the id if it has one.
    pub(super) fn read(body: Bytes) -> Result<Self, (Value, Trouble)> {
        let value: Value = serde_json::from_slice(&body).map_err(|_| (Value::Null, Trouble::NotJson))?;
        let Value::Object(mut members) = value else {
            let what = if value.is_array() {
                "batches are not taken"
            } else {
                "it is no object"
            };
            return Err((Value::Null, Trouble::Malformed(what)));
        };
        let id = members.remove("id");
        let method = match members.remove("method") {
            Some(Value::String(method)) => Some(method),
            Some(_) => return Err((id.unwrap_or_default(), Trouble::Malformed("`method` is no text"))),
            None => None,
        };
        let answers = id.clone().filter(|_| method.is_none());
        let kind = match (&method, id) {
            (Some(_), Some(id)) if id.is_string() || id.is_number() => Kind::Request(id),
            (Some(_), Some(_)) => {
                return Err((
                    Value::Null,
                    Trouble::Malformed("`id` is neither a text nor a number"),
                ));
            }
            (Some(_), None) | (None, Some(_)) => Kind::Note,
            (None, None) => {
                return Err((
                    Value::Null,
                    Trouble::Malformed("it has neither `method` nor `id`"),
                ));
            }
        };
        let mut params = members.remove("params").unwrap_or_default();
        let method = method.unwrap_or_default();
        let text = |name: &str| params.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = match method.as_str() {
            "tools/call" | "prompts/get" => text("name"),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => text("uri"),
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => text("taskId"),
            _ => None,
        };
        let revision = params
            .get("_meta")
            .and_then(|meta| meta.get(META_VERSION)?.as_str());
        let modern = revision
            .filter(|revision| !LEGACY.contains(revision))
            .map(str::to_owned);
        let mut take = |method_is: &str, name: &str| {
            let member = params.get_mut(name).filter(|_| method == method_is);
            member.map(Value::take)
        };
        Ok(Self {
            answers,
            cancels: take("notifications/cancelled", "requestId"),
            arguments: take("tools/call", "arguments"),
            kind,
            method,
            modern,
            name,
            body,
        })
    }

    /// The request's id.
    pub(super) fn id(&self) -> Option<&Value> {
        match &self.kind {
            Kind::Request(id) => Some(id),
            Kind::Note => None,
        }
    }

    /// The headers of a modern message, equal to its body: `revision` where it names none itself.
    pub(super) fn modern_headers(&self, revision: &str, params: &Params) -> HeaderMap {
        let mut headers = post_headers();
        let revision = self.modern.as_deref().unwrap_or(revision);
        let mut put = |name: HeaderName, text: &str| {
            headers.insert(name, encoded(text));
        };
        put(VERSION, revision);
        if !self.method.is_empty() {
            put(METHOD, &self.method);
        }
        if let Some(name) = &self.name {
            put(NAME, name);
            for (header, value) in params.of(name, self.arguments.as_ref()) {
                put(header, &value);
            }
        }
        headers
    }

    /// The headers of a legacy message.
    pub(super) fn legacy_headers(session: Option<&HeaderValue>, revision: Option<&str>) -> HeaderMap {
        let mut headers = post_headers();
        add_session(&mut headers, session, revision);
        headers
    }
}

/// The headers of a stream that goes on within a session.
pub(super) fn stream_headers(
    session: Option<&HeaderValue>,
    revision: Option<&str>,
    last_event: Option<&str>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    add_session(&mut headers, session, revision);
    if let Some(Ok(id)) = last_event.map(HeaderValue::from_str) {
        headers.insert(LAST_EVENT, id);
    }
    headers
}

fn add_session(headers: &mut HeaderMap, session: Option<&HeaderValue>, revision: Option<&str>) {
    if let Some(session) = session {
        headers.insert(SESSION, session.clone());
    }
    if let Some(Ok(revision)) = revision.map(HeaderValue::from_str) {
        headers.insert(VERSION, revision);
    }
}

fn post_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        ),
    ])
}

/// A header that says the text: as it is where a header can, else in base64 between marks.
fn encoded(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && text.trim() == text
        && !text.starts_with("=?base64?")
        && !text.is_empty();
    let coded = || format!("=?base64?{}?=", STANDARD.encode(text));
    let value = if plain { text.to_owned() } else { coded() };
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Message, (Value, Trouble)> {
        Message::read(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn lines() {
        let kind = |text: &str| read(text).map(|message| message.kind);
        assert_eq!(kind(r#"{"id":1,"method":"ping"}"#), Ok(Kind::Request(json!(1))));
        assert_eq!(
            kind(r#"{"id":"a","method":"ping"}"#),
            Ok(Kind::Request(json!("a")))
        );
        assert_eq!(kind(r#"{"method":"notifications/initialized"}"#), Ok(Kind::Note));
        assert_eq!(kind(r#"{"id":1,"result":{}}"#), Ok(Kind::Note));
        assert_eq!(kind("{"), Err((Value::Null, Trouble::NotJson)));
        for text in [
            "[]",
            "1",
            "{}",
            r#"{"id":1,"method":2}"#,
            r#"{"id":null,"method":"x"}"#,
        ] {
            assert!(matches!(kind(text), Err((_, Trouble::Malformed(_)))), "{text}");
        }
        let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#;
        assert_eq!(read(cancel).unwrap().cancels, Some(json!(7)));
    }

    #[test]
    fn modern_headers_equal_the_body() {
        let check = |params: Value, method: &str, name: Option<&str>| {
            let mut body = json!({"id": 1, "method": method, "params": params});
            body["params"]["_meta"] = json!({META_VERSION: "2026-07-28"});
            let message = read(&body.to_string()).unwrap();
            assert_eq!(message.modern.as_deref(), Some("2026-07-28"));
            let headers = message.modern_headers("other", &Params::default());
            assert_eq!(headers[METHOD], method);
            assert_eq!(headers[VERSION], "2026-07-28");
            assert_eq!(headers.get(NAME).map(|v| v.to_str().unwrap()), name, "{body}");
        };
        check(json!({"name": "git_log"}), "tools/call", Some("git_log"));
        check(json!({"uri": "git://a"}), "resources/read", Some("git://a"));
        check(json!({"taskId": "t"}), "tasks/get", Some("t"));
        check(json!({"name": "x"}), "tools/list", None);
        check(json!({"name": "é"}), "tools/call", Some("=?base64?w6k=?="));
        check(json!({"name": " a"}), "tools/call", Some("=?base64?IGE=?="));
        check(
            json!({"name": "=?base64?x"}),
            "prompts/get",
            Some("=?base64?PT9iYXNlNjQ/eA==?="),
        );
        let legacy = json!({"id": 1, "method": "x", "params": {"_meta": {META_VERSION: "2025-11-25"}}});
        assert_eq!(read(&legacy.to_string()).unwrap().modern, None);
    }
}
