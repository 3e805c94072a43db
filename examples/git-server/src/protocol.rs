//! The messages: JSON-RPC 2.0 in, JSON-RPC 2.0 out, for both eras. No transport in here.

use serde_json::{Map, Value, json};

use crate::Config;
use crate::git::Git;
use crate::tools::{self, Outcome};

/// The revision of the modern, stateless era.
pub const MODERN_VERSION: &str = "2026-07-28";

/// The revisions of the legacy era, newest first.
pub const LEGACY_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// Members of `_meta` (MCP 2026-07-28).
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// How long a client may keep a list, in milliseconds. The tools never change while a server runs.
const LIST_TTL_MS: u32 = 300_000;

/// Error codes: JSON-RPC 2.0, and MCP 2026-07-28.
pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const HEADER_MISMATCH: i64 = -32020;
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// One message of a client.
#[derive(Debug)]
pub(crate) enum Message {
    Request(Request),
    /// A notification, or the answer to a request; this server waits for neither.
    Other,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Map<String, Value>,
}

impl Request {
    /// The revision that the message itself claims: modern messages carry one.
    pub(crate) fn claimed_version(&self) -> Option<&str> {
        self.meta()?.get(META_VERSION)?.as_str()
    }

    /// What the header `Mcp-Name` must equal, for the methods that have one.
    pub(crate) fn header_name(&self) -> Option<&str> {
        let member = match self.method.as_str() {
            "tools/call" | "prompts/get" => "name",
            "resources/read" => "uri",
            _ => return None,
        };
        self.params.get(member)?.as_str()
    }

    pub(crate) fn has_capabilities(&self) -> bool {
        self.meta()
            .and_then(|meta| meta.get(META_CAPABILITIES))
            .is_some_and(Value::is_object)
    }

    fn meta(&self) -> Option<&Map<String, Value>> {
        self.params.get("_meta")?.as_object()
    }
}

/// An error of JSON-RPC; the text is meant for the caller.
#[derive(Debug, PartialEq)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Box<Value>>,
}

impl RpcError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// -32022 with the revisions that are supported.
    pub(crate) fn unsupported_version(requested: &str) -> Self {
        let message = format!("unsupported protocol version `{requested}`");
        Self {
            code: UNSUPPORTED_VERSION,
            message,
            data: Some(Box::new(
                json!({"supported": supported_versions(), "requested": requested}),
            )),
        }
    }

    fn method_not_found(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("unknown method `{method}`"))
    }
}

/// Reads one message. Batches are refused: the newer revisions have none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Message, RpcError> {
    let invalid = |why: &str| RpcError::new(INVALID_REQUEST, why);
    let message: Value =
        serde_json::from_slice(bytes).map_err(|_| RpcError::new(PARSE_ERROR, "the body is not JSON"))?;
    let Value::Object(mut message) = message else {
        return Err(invalid("the message is not an object"));
    };
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid("`jsonrpc` is not \"2.0\""));
    }
    let method = match message.remove("method") {
        Some(Value::String(method)) => method,
        Some(_) => return Err(invalid("`method` is not a string")),
        None if message.contains_key("result") || message.contains_key("error") => {
            return Ok(Message::Other);
        }
        None => return Err(invalid("`method` is missing")),
    };
    let id = match message.remove("id") {
        None => return Ok(Message::Other),
        Some(id) if id.is_string() || id.is_i64() || id.is_u64() => id,
        Some(_) => return Err(invalid("`id` is neither a string nor an integer")),
    };
    let params = match message.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid("`params` is not an object")),
    };
    Ok(Message::Request(Request { id, method, params }))
}

/// The answer as it goes on the wire. `id` is null when the message could not be read.
pub(crate) fn answer(id: Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => {
            let mut object = json!({"code": error.code, "message": error.message});
            if let (Some(object), Some(data)) = (object.as_object_mut(), error.data) {
                object.insert("data".to_owned(), *data);
            }
            json!({"jsonrpc": "2.0", "id": id, "error": object})
        }
    }
}

/// Answers requests, whatever transport they came by.
pub(crate) struct Responder {
    config: Config,
    git: Git,
}

impl Responder {
    pub(crate) fn new(config: Config) -> Self {
        let git = Git::new(config.root.clone());
        Self { config, git }
    }

    /// A request of the legacy era.
    pub(crate) async fn legacy(&self, method: &str, params: Map<String, Value>) -> Result<Value, RpcError> {
        match method {
            "initialize" => Ok(self.initialize(&params)),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(json!({"tools": tools::definitions()})),
            "tools/call" => self.call(params).await,
            _ => Err(RpcError::method_not_found(method)),
        }
    }

    /// A request of the modern era, whose version and headers have been checked.
    pub(crate) async fn modern(&self, method: &str, params: Map<String, Value>) -> Result<Value, RpcError> {
        let mut result = match method {
            "server/discover" => json!({
                "supportedVersions": supported_versions(),
                "capabilities": {"tools": {}},
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "public",
            }),
            "tools/list" => json!({
                "tools": tools::definitions(),
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "public",
            }),
            "tools/call" => self.call(params).await?,
            _ => return Err(RpcError::method_not_found(method)),
        };
        if let Some(result) = result.as_object_mut() {
            result.insert("resultType".to_owned(), json!("complete"));
            result.insert("_meta".to_owned(), json!({META_SERVER: self.server_info()}));
        }
        Ok(result)
    }

    /// A revision that is not supported is answered with the newest that is (MCP 2025-11-25,
    /// lifecycle, version negotiation).
    fn initialize(&self, params: &Map<String, Value>) -> Value {
        let requested = params.get("protocolVersion").and_then(Value::as_str);
        let [newest, ..] = LEGACY_VERSIONS;
        let version = requested
            .filter(|version| LEGACY_VERSIONS.contains(version))
            .unwrap_or(newest);
        json!({
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": self.server_info(),
        })
    }

    async fn call(&self, mut params: Map<String, Value>) -> Result<Value, RpcError> {
        let Some(Value::String(name)) = params.remove("name") else {
            return Err(RpcError::new(INVALID_PARAMS, "`name` is not a string"));
        };
        self.config.calls.record(&name);
        let arguments = params.remove("arguments").unwrap_or_else(|| json!({}));
        let (text, is_error) = match tools::call(&self.git, &name, arguments).await {
            Some(Outcome::Text(text)) => (text, false),
            Some(Outcome::Failure(text)) => (text, true),
            None => return Err(RpcError::new(INVALID_PARAMS, format!("unknown tool `{name}`"))),
        };
        Ok(json!({"content": [{"type": "text", "text": text}], "isError": is_error}))
    }

    fn server_info(&self) -> Value {
        json!({"name": self.config.name, "version": env!("CARGO_PKG_VERSION")})
    }
}

fn supported_versions() -> Vec<&'static str> {
    std::iter::once(MODERN_VERSION).chain(LEGACY_VERSIONS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_well_formed_message_is_read() {
        let check = |text: &str, code: i64| match parse(text.as_bytes()) {
            Err(error) => assert_eq!(error.code, code, "{text}"),
            Ok(message) => panic!("{text}: {message:?}"),
        };
        check("", PARSE_ERROR);
        check("{", PARSE_ERROR);
        check("\u{feff}{}", PARSE_ERROR);
        check(&"[".repeat(1000), PARSE_ERROR);
        check("[]", INVALID_REQUEST);
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, INVALID_REQUEST);
        check(r#"{"id":1,"method":"ping"}"#, INVALID_REQUEST);
        check(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, INVALID_REQUEST);
        check(r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST);
        check(r#"{"jsonrpc":"2.0","id":1,"method":2}"#, INVALID_REQUEST);
        check(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST);
        check(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, INVALID_REQUEST);
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            INVALID_REQUEST,
        );
    }

    #[test]
    fn requests_are_told_from_the_rest() {
        let request = parse(br#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#);
        assert!(matches!(request, Ok(Message::Request(r)) if r.id == "a" && r.method == "ping"));
        for other in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
        ] {
            assert!(matches!(parse(other.as_bytes()), Ok(Message::Other)), "{other}");
        }
    }
}
