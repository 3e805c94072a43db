//! What goes over a program's pipes: one message a line, of bounded length, read only as far as it has
//! to be known where it belongs.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use taper_capability::json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::message::is_id;

/// The longest id or progress token that is taken, in bytes of its JSON text: they are remembered.
const MAX_ID: usize = 1024;

/// A request id, progress token or subscription id, as JSON with one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(String);

impl Id {
    /// An id of a message that was judged; `None` for what is no id, or too long.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let text = is_id(value).then(|| value.to_string())?;
        (text.len() <= MAX_ID).then_some(Self(text))
    }

    fn read(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let value = if text.starts_with('"') {
            Value::String(serde_json::from_str(text).ok()?)
        } else if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            Value::Number(text.to_owned())
        } else {
            return None;
        };
        Self::of(&value)
    }

    /// As JSON.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A message of a program.
#[derive(Debug)]
pub(super) struct Message {
    /// The line, without line ends.
    pub(super) line: Bytes,
    pub(super) kind: Kind,
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer to the request with this id.
    Answer(Id),
    /// A request of the program.
    Request { id: Id, method: String },
    /// A notification of the program.
    Notification(Notification),
}

/// What a notification says about where it belongs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) method: String,
    /// `params.progressToken`
    pub(super) progress: Option<Id>,
    /// `params.requestId`
    pub(super) request: Option<Id>,
    /// `io.modelcontextprotocol/subscriptionId` of `params._meta`
    pub(super) subscription: Option<Id>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    request: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

impl Message {
    /// Reads a line; `None` for one that is no JSON object, or no message.
    pub(super) fn read(mut line: Vec<u8>) -> Option<Self> {
        on_one_line(&mut line);
        let text = std::str::from_utf8(&line).ok()?;
        // An array would pass for the members in their order.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        let wire: Wire<'_> = serde_json::from_str(text).ok()?;
        let id = wire.id.map(|id| Id::read(id).ok_or(()));
        let kind = match (wire.method, id) {
            (None, Some(Ok(id))) => Kind::Answer(id),
            (Some(method), Some(Ok(id))) => Kind::Request {
                id,
                method: method.into_owned(),
            },
            (Some(method), None) => {
                let params = wire.params.map(RawValue::get);
                let params: Params<'_> = params
                    .and_then(|params| serde_json::from_str(params).ok())
                    .unwrap_or_default();
                Kind::Notification(Notification {
                    method: method.into_owned(),
                    progress: params.progress.and_then(Id::read),
                    request: params.request.and_then(Id::read),
                    subscription: params.meta.and_then(|meta| meta.subscription).and_then(Id::read),
                })
            }
            (_, Some(Err(()))) | (None, None) => return None,
        };
        Some(Self {
            line: Bytes::from(line),
            kind,
        })
    }
}

/// Line ends outside of strings are whitespace in JSON, and inside they are no JSON.
fn on_one_line(text: &mut [u8]) {
    for byte in text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

/// A body as a line.
pub(super) fn line_of(body: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(body.len() + 1);
    line.extend_from_slice(body);
    on_one_line(&mut line);
    line.push(b'\n');
    line
}

/// The next line without its end; `None` at the end of the output.
///
/// # Errors
/// When the pipe fails, or the line has more than `max` bytes.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |at| at + 1);
        line.extend_from_slice(available.get(..end.unwrap_or(used)).unwrap_or_default());
        reader.consume(used);
        if line.len() > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Kind> {
        Message::read(line.as_bytes().to_vec()).map(|message| message.kind)
    }

    fn id(text: &str) -> Id {
        Id(text.to_owned())
    }

    #[test]
    fn messages_are_told_apart() {
        assert_eq!(read(r#"{"id":1,"result":{}}"#), Some(Kind::Answer(id("1"))));
        assert_eq!(
            read(r#"{"id":"a\u0062","error":{}}"#),
            Some(Kind::Answer(id("\"ab\"")))
        );
        let asks = Kind::Request {
            id: id("7"),
            method: "ping".into(),
        };
        assert_eq!(read(r#" {"method":"p\u0069ng","id":7}"#), Some(asks));
        let line = r#"{"method":"notifications/x","params":{"progressToken":"t","requestId":2,
            "_meta":{"io.modelcontextprotocol/subscriptionId":"s","other":[]}}}"#;
        let told = Kind::Notification(Notification {
            method: "notifications/x".into(),
            progress: Some(id("\"t\"")),
            request: Some(id("2")),
            subscription: Some(id("\"s\"")),
        });
        assert_eq!(read(line), Some(told));
        for none in [
            "",
            "banner",
            "7",
            r#"[1,"ping",{}]"#,
            "{}",
            r#"{"id":null}"#,
            r#"{"id":[1],"result":{}}"#,
            r#"{"id":1,"id":2,"result":{}}"#,
            r#"{"id":1,"method":7}"#,
            "{\"id\":1,\"result\":\"\u{1}\"}",
            r#"{"id":1,"result":{}} {}"#,
        ] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(
            Message::read(b"{\"id\":1,\"result\":\"\xff\"}".to_vec()).map(|m| m.kind),
            None
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        let message = Message::read(b"{\"id\":1,\r\"result\":{}}\r".to_vec()).unwrap();
        assert_eq!(&message.line[..], b"{\"id\":1, \"result\":{}} ");
        assert_eq!(line_of(b"{\r\n\"id\":1}"), b"{  \"id\":1}\n");
        let inside = b"{\"id\":1,\"result\":\"a\rb\"}".to_vec();
        assert!(Message::read(inside).is_some_and(|message| !message.line.contains(&b'\r')));
    }

    #[test]
    fn ids_have_one_spelling_and_a_bounded_length() {
        assert_eq!(Id::of(&Value::Number("12".into())), Some(id("12")));
        assert_eq!(Id::of(&Value::String("1".into())), Some(id("\"1\"")));
        assert_eq!(Id::of(&Value::Null), None);
        for other in ["-0", "1.0", "1e0", "9007199254740993"] {
            assert_eq!(Id::of(&Value::Number(other.into())), None, "{other}");
            let asks = format!(r#"{{"id":{other},"method":"ping"}}"#);
            assert_eq!(read(&asks), None, "{asks}");
        }
        assert_eq!(Id::of(&Value::String("x".repeat(MAX_ID))), None);
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let text = b"one\r\n\nthree\nrest";
        let mut reader = &text[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader, 5).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one\r"[..], b"", b"three"]);
        assert!(read_line(&mut &b"toolong\n"[..], 5).await.is_err());
        assert!(read_line(&mut &b"toolong"[..], 5).await.is_err());
    }
}
