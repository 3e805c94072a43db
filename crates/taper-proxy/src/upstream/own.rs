//! The other way out: what the proxy asks a server by itself, which is what the server is and what it
//! lists, and nothing else. While it serves it asks for tools only; the rest is for the file of pins.
//!
//! No permit is needed because nothing of a caller goes along: an [`OwnRequest`] is made in this module
//! only, from constants and from what the same server said before (its cursor, its session), and
//! upstreams take it apart from permitted requests. What comes back is bounded in pages, bytes, tools and
//! time, and read strictly.

mod line;
mod program;

use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use ::http::{HeaderMap, Method, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::json;
use taper_capability::json::{self, JsonLimits, Value};

use self::line::Line;
use super::Upstream;
use crate::body::Body;
use crate::headers::SESSION;
use crate::message::{LEGACY, MODERN};
use crate::methods::List;
use crate::pins::Preface;
use crate::refusal::Refusal;
use crate::sse::{Piece, Splitter};

/// How long a list may take, all pages and a handshake included.
const MAX_TIME: Duration = Duration::from_secs(30);
/// Pages of one list.
const MAX_PAGES: usize = 100;
/// Entries of one list.
const MAX_ENTRIES: usize = 4096;
/// Bytes of one list, in units of the largest page.
const MAX_SIZE_PAGES: usize = 4;
/// Bytes of a cursor.
const MAX_CURSOR: usize = 4096;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// So that a server's log tells these requests from those of callers.
const AGENT: HeaderValue = HeaderValue::from_static("taper-proxy");

/// Why it is not known what a server says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OwnError {
    #[error("{0}")]
    Upstream(String),
    #[error("it answered with the status {0}")]
    Status(StatusCode),
    #[error("it answered with an error")]
    Refused,
    #[error("its answer is none to what it was asked: {0}")]
    Malformed(&'static str),
    #[error("its list is longer than {0}")]
    TooLong(&'static str),
    #[error("it took longer than {} s", MAX_TIME.as_secs())]
    TooSlow,
    #[error("the answer broke off")]
    Broken,
}

/// One request of the proxy's own.
pub(super) struct OwnRequest {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

/// What a server said that its next request has to repeat.
#[derive(Clone, Debug)]
struct Spoken {
    revision: &'static str,
    session: Option<HeaderValue>,
}

/// What the proxy asks by itself, beside opening and ending a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// What the server is, in the modern era.
    Discover,
    /// One of its lists.
    List(List),
}

impl Question {
    const fn method(self) -> &'static str {
        match self {
            Self::Discover => "server/discover",
            Self::List(List::Prompts) => "prompts/list",
            Self::List(List::Resources) => "resources/list",
            Self::List(List::Templates) => "resources/templates/list",
            Self::List(List::Tools | List::Tasks) => "tools/list",
        }
    }
}

/// What a server says to anybody who asks.
#[derive(Debug)]
pub(crate) struct Description {
    /// Its tools.
    pub(crate) tools: Vec<Value>,
    /// What it says of itself, and its other lists.
    pub(crate) preface: Preface,
}

/// All tools that a server lists, as it describes them.
///
/// # Errors
/// [`OwnError`]: what it answered, or which bound it passed.
pub(crate) async fn list_tools(upstream: &Upstream, max_page: usize) -> Result<Vec<Value>, OwnError> {
    let mut line = Line::new(upstream, max_page)?;
    let listed = tokio::time::timeout(MAX_TIME, line.tools()).await;
    line.end().await;
    listed.map_err(|_| OwnError::TooSlow)?
}

/// What a server says of itself in both eras, as far as it has them, and its lists.
///
/// # Errors
/// As for [`list_tools`].
pub(crate) async fn describe(upstream: &Upstream, max_page: usize) -> Result<Description, OwnError> {
    let mut line = Line::new(upstream, max_page)?;
    let described = tokio::time::timeout(MAX_TIME, line.describe()).await;
    line.end().await;
    described.map_err(|_| OwnError::TooSlow)?
}

/// The revision of the legacy era that a server chose.
fn revision(result: &Value) -> Result<&'static str, OwnError> {
    let chosen = result.get("protocolVersion").and_then(Value::as_str);
    let known = LEGACY.into_iter().find(|known| chosen == Some(*known));
    known.ok_or(OwnError::Malformed("it chose a revision that is not known here"))
}

/// The pages so far.
struct Collected {
    list: List,
    entries: Vec<Value>,
    pages: usize,
    cursor: Option<String>,
}

impl Collected {
    fn of(list: List) -> Self {
        Self {
            list,
            entries: Vec::new(),
            pages: 0,
            cursor: None,
        }
    }

    /// Takes the next page; whether it was the last.
    fn take(&mut self, result: Value) -> Result<bool, OwnError> {
        let cursor = match result.get("nextCursor") {
            None | Some(Value::Null) => None,
            // Some servers write it on their last page, and clients stop there.
            Some(Value::String(cursor)) if cursor.is_empty() => None,
            Some(Value::String(cursor)) if cursor.len() <= MAX_CURSOR => Some(cursor.clone()),
            Some(_) => return Err(OwnError::Malformed("a cursor is no text, or too long")),
        };
        let Value::Object(members) = result else {
            return Err(OwnError::Malformed("the result is no object"));
        };
        let entries = members.into_iter().find(|(name, _)| name == self.list.member());
        let Some((_, Value::Array(entries))) = entries else {
            return Err(OwnError::Malformed(
                "it does not have the list that was asked for",
            ));
        };
        self.entries.extend(entries);
        self.pages += 1;
        self.cursor = cursor;
        if self.entries.len() > MAX_ENTRIES {
            return Err(OwnError::TooLong("4096 entries"));
        }
        if self.cursor.is_none() {
            return Ok(true);
        }
        if self.pages >= MAX_PAGES {
            return Err(OwnError::TooLong("100 pages"));
        }
        Ok(false)
    }
}

/// The result of the answer to request `id`; `left` is what all answers together may still have in bytes.
async fn answer(
    response: Response<Body>,
    id: usize,
    max_page: usize,
    left: &mut usize,
) -> Result<Value, OwnError> {
    let status = response.status();
    if !status.is_success() {
        return Err(OwnError::Status(status));
    }
    let (parts, mut body) = response.into_parts();
    let kind = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    let mut events = kind
        .eq_ignore_ascii_case("text/event-stream")
        .then(|| Splitter::new(max_page));
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| OwnError::Broken)?.into_data() else {
            continue;
        };
        *left = left
            .checked_sub(data.len())
            .ok_or(OwnError::TooLong("its size"))?;
        let Some(events) = &mut events else {
            whole.extend_from_slice(&data);
            if whole.len() > max_page {
                return Err(OwnError::TooLong("a page"));
            }
            continue;
        };
        for piece in events.push(data) {
            let message = match piece {
                Piece::Event(event) => event.data(),
                Piece::Between(_) => None,
                Piece::Part { .. } => return Err(OwnError::TooLong("a page")),
            };
            let Some(message) = message else { continue };
            if let Some(result) = read(message, id, max_page).await? {
                return Ok(result);
            }
        }
    }
    if events.is_some() {
        return Err(OwnError::Broken);
    }
    let result = read(whole, id, max_page).await?;
    result.ok_or(OwnError::Malformed("it answers another request"))
}

/// The result of one message, if it answers request `id`. Parsing takes long for long lists.
async fn read(message: Vec<u8>, id: usize, max_page: usize) -> Result<Option<Value>, OwnError> {
    let read = tokio::task::spawn_blocking(move || result_of(&message, id, max_page)).await;
    read.map_err(|_| OwnError::Broken)?
}

fn result_of(message: &[u8], id: usize, max_page: usize) -> Result<Option<Value>, OwnError> {
    let limits = JsonLimits {
        bytes: max_page,
        depth: 64,
        nodes: 1 << 20,
        elements: 1 << 16,
    };
    let message = json::parse(message, &limits).map_err(|_| OwnError::Malformed("it is not strict JSON"))?;
    let Value::Object(members) = message else {
        return Err(OwnError::Malformed("it is not one message"));
    };
    let asked = Value::Number(id.to_string());
    if !members
        .iter()
        .any(|(name, value)| name == "id" && *value == asked)
        || members.iter().any(|(name, _)| name == "method")
    {
        return Ok(None);
    }
    match members.into_iter().find(|(name, _)| name == "result") {
        Some((_, result)) => Ok(Some(result)),
        None => Err(OwnError::Refused),
    }
}

impl OwnRequest {
    fn post(body: &serde_json::Value, spoken: Option<&Spoken>) -> Self {
        let mut headers = HeaderMap::new();
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, both);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, AGENT);
        if let Some(spoken) = spoken {
            headers.insert(VERSION, HeaderValue::from_static(spoken.revision));
            if let Some(session) = &spoken.session {
                headers.insert(SESSION, session.clone());
            }
        }
        Self {
            method: Method::POST,
            headers,
            body: Bytes::from(body.to_string()),
        }
    }

    fn initialize() -> Self {
        Self::post(&initialize(), None)
    }

    fn initialized(spoken: &Spoken) -> Self {
        Self::post(&initialized(), Some(spoken))
    }

    fn asking(spoken: &Spoken, id: usize, question: Question, cursor: Option<&str>) -> Self {
        let message = asking(spoken.revision, id, question, cursor);
        let mut request = Self::post(&message, Some(spoken));
        if spoken.revision == MODERN {
            let method = HeaderValue::from_static(question.method());
            request.headers.insert(METHOD, method);
        }
        request
    }

    fn end(spoken: &Spoken) -> Self {
        let mut request = Self::post(&serde_json::Value::Null, Some(spoken));
        request.method = Method::DELETE;
        request.headers.remove(CONTENT_TYPE);
        request.body = Bytes::new();
        request
    }

    /// To be sent.
    pub(super) fn into_parts(self) -> (Method, HeaderMap, Bytes) {
        (self.method, self.headers, self.body)
    }
}

fn client_info() -> serde_json::Value {
    json!({ "name": "taper-proxy", "version": env!("CARGO_PKG_VERSION") })
}

fn initialize() -> serde_json::Value {
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": client_info(),
    } })
}

fn initialized() -> serde_json::Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })
}

fn asking(revision: &str, id: usize, question: Question, cursor: Option<&str>) -> serde_json::Value {
    let mut params = serde_json::Map::new();
    if revision == MODERN {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
    }
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), cursor.into());
    }
    json!({ "jsonrpc": "2.0", "id": id, "method": question.method(), "params": params })
}

impl OwnError {
    /// Whether the server did not want to answer, in whatever words; in another era it may.
    fn is_no(&self) -> bool {
        match self {
            Self::Status(status) => status.is_client_error(),
            Self::Refused => true,
            _ => false,
        }
    }
}

impl From<Refusal> for OwnError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UpstreamStatus(status) => Self::Status(status),
            other => Self::Upstream(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Value {
        json::parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    #[test]
    fn pages_are_bounded() {
        let empty = || Collected::of(List::Tools);
        let mut list = empty();
        let page = |tools: &str, cursor: &str| parse(&format!(r#"{{"tools":{tools}{cursor}}}"#));
        assert_eq!(list.take(page("[{}]", r#","nextCursor":"a""#)), Ok(false));
        assert_eq!(list.take(page("[{}]", "")), Ok(true));
        assert_eq!(list.entries.len(), 2);
        let mut one = empty();
        assert_eq!(one.take(page("[{}]", r#","nextCursor":"""#)), Ok(true));

        let mut endless = empty();
        let end = std::iter::repeat_with(|| endless.take(page("[]", r#","nextCursor":"a""#)))
            .take(1000)
            .find(Result::is_err);
        assert_eq!(end, Some(Err(OwnError::TooLong("100 pages"))));
        assert_eq!(endless.pages, 100);

        let mut many = empty();
        let full = format!("[{}{{}}]", "{},".repeat(200));
        let end = std::iter::repeat_with(|| many.take(page(&full, r#","nextCursor":"a""#)))
            .take(1000)
            .find(Result::is_err);
        assert_eq!(end, Some(Err(OwnError::TooLong("4096 entries"))));
        for text in [r#"{"tools":{}}"#, "{}", r#"{"tools":[],"nextCursor":1}"#, "[]"] {
            assert!(empty().take(parse(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_to_its_request() {
        let check = |text: &str, expected: Result<bool, OwnError>| {
            let got = result_of(text.as_bytes(), 3, 1000).map(|result| result.is_some());
            assert_eq!(got, expected, "{text}");
        };
        check(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#, Ok(true));
        check(r#"{"jsonrpc":"2.0","id":3,"error":{}}"#, Err(OwnError::Refused));
        check(r#"{"jsonrpc":"2.0","id":4,"result":{}}"#, Ok(false));
        check(r#"{"jsonrpc":"2.0","id":"3","result":{}}"#, Ok(false));
        check(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#, Ok(false));
        check(r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#, Ok(false));
        let strict = OwnError::Malformed("it is not strict JSON");
        check(r#"{"id":3,"id":3,"result":{}}"#, Err(strict.clone()));
        check(
            r#"{"id":3,"result":{"tools":[{"name":"a","name":"b"}]}}"#,
            Err(strict.clone()),
        );
        check(&" ".repeat(1001), Err(strict));
        check("[]", Err(OwnError::Malformed("it is not one message")));
    }
}
