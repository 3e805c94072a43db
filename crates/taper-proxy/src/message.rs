//! The one message of a body: read strictly, and compared with the headers that repeat it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use taper_capability::json::{self, JsonError, JsonLimits, Value};

use crate::headers;

/// The revision of the modern era.
pub(crate) const MODERN: &str = "2026-07-28";
/// The revisions of the legacy era.
pub(crate) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Keys that give a message its meaning. An upstream that ignores letter case would take another
/// spelling for the same key, which nothing here has read.
const PROTOCOL_KEYS: [&str; 17] = [
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "name",
    "arguments",
    "uri",
    "ref",
    "type",
    "notifications",
    "resourceSubscriptions",
    "taskId",
    "taskIds",
    "cursor",
    "_meta",
];

/// Which half of the protocol's history a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// 2026-07-28 and later.
    Modern,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A request or notification.
    Message(Message),
    /// The answer to a request of the server.
    Answer(ClientAnswer),
}

/// The answer to a request of the server. Nothing is read of it but whom it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientAnswer {
    /// The id of the request, as it was sent: a text or an integer.
    pub(crate) id: Value,
}

/// One request or notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// As it was sent; `None` for a notification.
    pub(crate) id: Option<Value>,
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// Why a body is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("not strict JSON: {0}")]
    Json(JsonError),
    #[error("{0}")]
    Shape(&'static str),
    #[error("two keys, or a key and one of the protocol, differ in letter case only")]
    FoldedKeys,
}

impl Received {
    /// Reads one message of at most `max` bytes.
    pub(crate) fn parse(body: &[u8], max: usize) -> Result<Self, MessageError> {
        let limits = JsonLimits {
            bytes: max,
            ..JsonLimits::default()
        };
        let message = json::parse(body, &limits).map_err(MessageError::Json)?;
        let shape = MessageError::Shape;
        if message.as_object().is_none() {
            return Err(shape("a message is one object, batches are not accepted"));
        }
        if message.has_twins() || misspelt(&message) {
            return Err(MessageError::FoldedKeys);
        }
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(shape("`jsonrpc` is not \"2.0\""));
        }
        let answers = (message.get("result").is_some(), message.get("error").is_some());
        let id = match message.get("id") {
            None => None,
            Some(id) if is_id(id) => Some(id.clone()),
            Some(_) => return Err(shape("`id` is neither a text nor an integer within 2^53")),
        };
        let method = match (message.get("method"), answers) {
            (Some(Value::String(method)), (false, false)) => method.clone(),
            (Some(Value::String(_)), _) => {
                return Err(shape("a message is a request or an answer, not both"));
            }
            (None, (true, true)) => return Err(shape("an answer is a result or an error, not both")),
            (None, (true, false) | (false, true)) => {
                let id = id.ok_or(shape("an answer has the `id` of its request"))?;
                return Ok(Self::Answer(ClientAnswer { id }));
            }
            _ => return Err(shape("`method` is not a text")),
        };
        let params = match message.get("params") {
            None => Value::Object(Vec::new()),
            Some(params @ Value::Object(_)) => params.clone(),
            Some(_) => return Err(shape("`params` is not an object")),
        };
        let arguments = params.get("arguments");
        if arguments.is_some_and(|arguments| arguments.as_object().is_none()) {
            return Err(shape("`arguments` is not an object"));
        }
        let progress = params.get("_meta").and_then(|meta| meta.get("progressToken"));
        if progress.is_some_and(|token| matches!(token, Value::Number(_)) && !is_id(token)) {
            return Err(shape(
                "`progressToken` is neither a text nor an integer within 2^53",
            ));
        }
        let named = [Some(&params), params.get("ref"), params.get("notifications")];
        // Below its top an argument is the tool's own, but for what is read of it (`decide`).
        if named.into_iter().flatten().any(misspelt)
            || arguments.is_some_and(Value::has_twins)
            || params.has_twins()
            || members(&params).any(|(name, value)| name != "arguments" && value.has_twins_within())
        {
            return Err(MessageError::FoldedKeys);
        }
        Ok(Self::Message(Message { id, method, params }))
    }
}

/// How headers and message do not fit (M-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// This header does not say what the message says.
    Header(&'static str),
    /// The message names no revision, but its header one of the modern era.
    NoRevision,
}

impl ClientAnswer {
    /// Says which era an answer is of. It has no method and no name that a header could repeat.
    ///
    /// # Errors
    /// The header that differs.
    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<Era, &'static str> {
        let revision = headers::single(headers, &VERSION).map_err(|_| "MCP-Protocol-Version")?;
        if headers.contains_key(&METHOD) {
            return Err("Mcp-Method");
        }
        if headers.contains_key(&NAME) {
            return Err("Mcp-Name");
        }
        Ok(if revision.is_some_and(is_modern) {
            Era::Modern
        } else {
            Era::Legacy
        })
    }
}

impl Message {
    /// Reads one request or notification.
    #[cfg(test)]
    pub(crate) fn parse(body: &[u8], max: usize) -> Result<Self, MessageError> {
        match Received::parse(body, max)? {
            Received::Message(message) => Ok(message),
            Received::Answer(_) => Err(MessageError::Shape("an answer")),
        }
    }

    /// A text member of `params`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }

    /// The revision that the message itself claims.
    pub(crate) fn claimed_revision(&self) -> Option<&str> {
        self.params.get("_meta")?.get(META_VERSION)?.as_str()
    }

    /// The token by which the sender wants to hear of progress.
    pub(crate) fn progress_token(&self) -> Option<&Value> {
        self.params.get("_meta")?.get("progressToken")
    }

    /// The request that it cancels.
    pub(crate) fn cancels(&self) -> Option<&Value> {
        let cancels = self.method == "notifications/cancelled" && self.id.is_none();
        self.params.get("requestId").filter(|_| cancels)
    }

    fn header_name(&self) -> Option<&str> {
        match self.method.as_str() {
            "tools/call" | "prompts/get" => self.text("name"),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => self.text("uri"),
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => self.text("taskId"),
            _ => None,
        }
    }

    /// Compares the headers that repeat parts of the message with it, and says which era it is of.
    /// A modern request has all of them; whatever is given equals the body in both eras.
    ///
    /// # Errors
    /// The header that differs; or that a modern request itself names no revision.
    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<Era, Mismatch> {
        let given = |name: &HeaderName, says: &'static str| {
            headers::single(headers, name).map_err(|_| Mismatch::Header(says))
        };
        let revision = given(&VERSION, "MCP-Protocol-Version")?;
        let method = given(&METHOD, "Mcp-Method")?;
        let name = given(&NAME, "Mcp-Name")?;

        let claimed = self.claimed_revision();
        let era = match (claimed, revision) {
            (Some(claimed), _) if is_modern(claimed) => Era::Modern,
            (_, Some(revision)) if is_modern(revision) => Era::Modern,
            _ => Era::Legacy,
        };
        let modern_request = era == Era::Modern && self.id.is_some();
        match (claimed, revision) {
            (Some(claimed), Some(revision)) if claimed == revision => {}
            (None, None) => {}
            (None, Some(_)) | (Some(_), None) if !modern_request => {}
            (None, Some(_)) => return Err(Mismatch::NoRevision),
            _ => return Err(Mismatch::Header("MCP-Protocol-Version")),
        }
        let fits = |given: Option<String>, body: Option<&str>| match (&given, body) {
            (Some(given), Some(body)) => given == body,
            (Some(_), None) => false,
            (None, Some(_)) => !modern_request,
            (None, None) => true,
        };
        if !fits(method.map(str::to_owned), Some(&self.method)) {
            return Err(Mismatch::Header("Mcp-Method"));
        }
        let name = name
            .map(decoded)
            .transpose()
            .map_err(|()| Mismatch::Header("Mcp-Name"))?;
        let body_name = self.header_name();
        // Older drafts send the name for a few methods only; one that is absent is no contradiction there.
        let optional = !matches!(
            self.method.as_str(),
            "tools/call" | "prompts/get" | "resources/read"
        );
        if !(fits(name.clone(), body_name) || optional && name.is_none()) {
            return Err(Mismatch::Header("Mcp-Name"));
        }
        Ok(era)
    }
}

/// A header value as text: as it is, or `=?base64?…?=` for what a header cannot hold. Where the two marks
/// overlap, some readers see them and some do not: that is neither.
pub(crate) fn decoded(value: &str) -> Result<String, ()> {
    if value == "=?base64?=" {
        return Err(());
    }
    let inner = value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    match inner {
        None => Ok(value.to_owned()),
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).map_err(|_| ())?;
            String::from_utf8(bytes).map_err(|_| ())
        }
    }
}

fn is_modern(revision: &str) -> bool {
    !LEGACY.contains(&revision)
}

/// The largest number that every reader of JSON tells from its neighbours.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Whether a value can be the id of a request or a progress token: a text, or an integer that everybody
/// writes as it was read. `-0` comes back as `0`, and one beyond 2^53 as its neighbour (RULES 13): two
/// spellings of one id would be two requests here and one for the server.
pub(crate) fn is_id(id: &Value) -> bool {
    match id {
        Value::String(_) => true,
        Value::Number(text) => is_integer(text),
        _ => false,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let in_range = digits.bytes().all(|b| b.is_ascii_digit())
        && digits.parse::<u64>().is_ok_and(|number| number <= MAX_INTEGER);
    in_range && text != "-0"
}

/// Whether a member name is one of the protocol's in another spelling.
fn misspelt(object: &Value) -> bool {
    members(object).any(|(name, _)| PROTOCOL_KEYS.iter().any(|key| json::is_other_spelling(name, key)))
}

fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object
        .as_object()
        .unwrap_or_default()
        .iter()
        .map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<(&str, &str), &str>) {
        let got = Message::parse(body.as_bytes(), 1000);
        let id = |m: &Message| m.id.as_ref().map_or_else(|| "null".to_owned(), Value::to_string);
        let told = got.as_ref().map(|m| (m.method.clone(), id(m)));
        match (&told, expected) {
            (Ok((method, id)), Ok(wanted)) => assert_eq!((method.as_str(), id.as_str()), wanted, "{body}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            _ => panic!("{body}: {told:?}"),
        }
    }

    #[test]
    fn one_message() {
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Ok(("ping", "1")));
        check(r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#, Ok(("x", "\"a\"")));
        check(r#"{"jsonrpc":"2.0","method":"x"}"#, Ok(("x", "null")));
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Err("batches"));
        check(r#"{"id":1,"method":"ping"}"#, Err("2.0"));
        check(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, Err("`id`"));
        check(r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, Err("`id`"));
        for (id, told) in [
            ("0", Ok(("x", "0"))),
            ("-1", Ok(("x", "-1"))),
            ("9007199254740991", Ok(("x", "9007199254740991"))),
            ("-9007199254740991", Ok(("x", "-9007199254740991"))),
            ("-0", Err("`id`")),
            ("9007199254740992", Err("`id`")),
            ("-9007199254740993", Err("`id`")),
            ("99999999999999999999999", Err("`id`")),
            ("1e0", Err("`id`")),
        ] {
            check(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#), told);
            let told = told.map(|(_, id)| ("x", id)).map_err(|_| "`progressToken`");
            let token = format!(
                r#"{{"jsonrpc":"2.0","id":{},"method":"x","params":{{"_meta":{{"progressToken":{id}}}}}}}"#,
                told.map_or("1", |(_, id)| id)
            );
            check(&token, told);
        }
        check(r#"{"jsonrpc":"2.0","id":-0,"result":{}}"#, Err("`id`"));
        check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Err("`method`"));
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#,
            Err("`params`"),
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":[]}}"#,
            Err("`arguments`"),
        );
        check(
            r#"{"jsonrpc":"2.0","result":{},"error":{}}"#,
            Err("a result or an error"),
        );
        check(r#"{"jsonrpc":"2.0","result":{}}"#, Err("the `id`"));
        check(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, Err("`id`"));
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
            Err("not both"),
        );
        check(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, Err("strict"));
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}"#,
            Err("letter case"),
        );
        check(
            r#"{"jsonrpc":"2.0","method":"x","params":{"a":1,"A":2}}"#,
            Err("letter case"),
        );
        check(
            r#"{"jsonrpc":"2.0","method":"x","params":{"arguments":{"k":1,"K":2}}}"#,
            Err("letter case"),
        );
        check("\u{feff}{}", Err("strict"));
        check("", Err("strict"));
        check(&" ".repeat(1001), Err("strict"));
    }

    #[test]
    fn answers_have_an_id_and_no_method() {
        let parse = |body: &str| Received::parse(body.as_bytes(), 1000);
        let answer = |id: Value| Ok(Received::Answer(ClientAnswer { id }));
        let (number, text) = (Value::Number("1".into()), Value::String("1".into()));
        assert_eq!(
            parse(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
            answer(number.clone())
        );
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":"1","error":{}}"#), answer(text));
        assert!(parse(r#"{"jsonrpc":"2.0","id":1,"Result":{}}"#).is_err());
        let check = |given: &[(&'static str, &'static str)], expected: Result<Era, &str>| {
            let headers = given.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            let answer = ClientAnswer { id: number.clone() };
            assert_eq!(answer.check_headers(&headers.collect()), expected, "{given:?}");
        };
        check(&[], Ok(Era::Legacy));
        check(&[("mcp-protocol-version", "2025-11-25")], Ok(Era::Legacy));
        check(&[("mcp-protocol-version", MODERN)], Ok(Era::Modern));
        check(&[("mcp-protocol-version", "2030-01-01")], Ok(Era::Modern));
        check(&[("mcp-method", "ping")], Err("Mcp-Method"));
        check(&[("mcp-name", "x")], Err("Mcp-Name"));
    }

    #[test]
    fn keys_have_one_spelling() {
        let refused = |body: &str| check(body, Err("letter case"));
        let params = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}"#);
        for key in ["Params", "RESULT", "Error", "\u{17f}", "Re\u{17f}ult", "Uri"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","{key}":{{}}}}"#);
            let expected = if key == "\u{17f}" {
                Ok(("x", "1"))
            } else {
                Err("letter case")
            };
            check(&body, expected);
        }
        refused(r#"{"jsonrpc":"2.0","ID":1,"method":"x"}"#);
        for key in [
            "Name",
            "Arguments",
            "URI",
            "Ref",
            "Notifications",
            "TaskId",
            "taskid",
            "Cursor",
            "_Meta",
        ] {
            refused(&params(&format!(r#"{{"{key}":{{}}}}"#)));
        }
        refused(&params(r#"{"ref":{"type":"ref/prompt","Name":"a"}}"#));
        refused(&params(r#"{"ref":{"Type":"ref/prompt"}}"#));
        refused(&params(r#"{"notifications":{"resourcesubscriptions":[]}}"#));
        refused(&params(r#"{"_meta":{"a":[{"k":1,"K":2}]}}"#));
        refused(&params(r#"{"context":{"arguments":{"k":1,"\u212a":2}}}"#));
        let passes = |text: &str| check(&params(text), Ok(("x", "1")));
        passes(r#"{"arguments":{"Name":1,"URI":2,"inner":{"k":1,"K":2}}}"#);
        passes(r#"{"_meta":{"Name":1},"other":{"Id":1}}"#);
        passes(r#"{"notifications":{"resourceSubscriptions":[]},"taskId":"a","cursor":"c"}"#);
    }

    #[test]
    fn headers_equal_the_body() {
        let call = |meta: &str| {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t"{meta}}}}}"#);
            Message::parse(body.as_bytes(), 1000).unwrap()
        };
        let modern = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let check = |meta: &str, given: &[(&'static str, &'static str)], expected: Result<Era, &str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let got = call(meta).check_headers(&headers);
            let got = got.map_err(|mismatch| match mismatch {
                Mismatch::Header(name) => name,
                Mismatch::NoRevision => "no revision",
            });
            assert_eq!(got, expected, "{meta} {given:?}");
        };
        let all = [
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", "t"),
        ];
        check(modern, &all, Ok(Era::Modern));
        check(
            modern,
            &[all[0], all[1], ("mcp-name", "=?base64?dA==?=")],
            Ok(Era::Modern),
        );
        check(modern, &all[1..], Err("MCP-Protocol-Version"));
        check(modern, &[all[0], all[2]], Err("Mcp-Method"));
        check(modern, &all[..2], Err("Mcp-Name"));
        check(modern, &[all[0], all[1], ("mcp-name", "u")], Err("Mcp-Name"));
        check(
            modern,
            &[all[0], ("mcp-method", "ping"), all[2]],
            Err("Mcp-Method"),
        );
        check(
            modern,
            &[("mcp-protocol-version", "2025-11-25"), all[1], all[2]],
            Err("MCP-Protocol-Version"),
        );
        check(modern, &[all[0], all[1], all[2], all[2]], Err("Mcp-Name"));
        check("", &all, Err("no revision"));
        check("", &[], Ok(Era::Legacy));
        check("", &[("mcp-protocol-version", "2025-11-25")], Ok(Era::Legacy));
        check("", &[("mcp-method", "ping")], Err("Mcp-Method"));
        check("", &[("mcp-name", "u")], Err("Mcp-Name"));
    }
}
