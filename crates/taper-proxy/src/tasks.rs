//! Who owns a task (M-34): the one whose request made it. The id is remembered before the client can see
//! it, and only answers of requests that can make a task are looked at.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use taper_capability::json::{self, Value};
use taper_service::pool::CpuPool;

use crate::body::Body;
use crate::events::{answer_limits, parsed};
use crate::message::{Era, Message};
use crate::session::{Owner, Owners};

/// The largest JSON answer that is held to be looked at. One that makes a task has only the task in it.
const MAX_ANSWER: usize = 64 * 1024;
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// The tasks of one server, by id.
pub(crate) type Tasks = Owners<()>;

/// Whether the answer to a message may be a task: the client asks for one (2025-11-25), or says that it
/// takes one (the extension of the modern era).
pub(crate) fn may_make_one(message: &Message, era: Era) -> bool {
    match era {
        Era::Legacy => message.params.get("task").is_some(),
        Era::Modern => {
            let meta = message.params.get("_meta");
            let capabilities = meta.and_then(|meta| meta.get(CAPABILITIES));
            let extensions = capabilities.and_then(|capabilities| capabilities.get("extensions"));
            extensions.is_some_and(|extensions| extensions.get(EXTENSION).is_some())
        }
    }
}

/// Remembers the tasks that answers name.
#[derive(Clone)]
pub(crate) struct TaskWatch {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) owner: Owner,
    pub(crate) era: Era,
    /// The id of the request; `None` for a stream that is resumed, which may repeat any answer.
    pub(crate) request: Option<Value>,
    pub(crate) pool: CpuPool,
}

impl TaskWatch {
    /// Looks at one message, of which nothing is learned when it is larger than `max`, or not to be read.
    pub(crate) async fn look(&self, message: Bytes, max: usize) {
        let (era, request) = (self.era, self.request.clone());
        let read = move |message: &[u8]| task(message, era, request.as_ref(), max);
        let Some(task) = parsed(&self.pool, message, read).await else {
            return;
        };
        if !self.tasks.claim(&task, &self.owner, ()) {
            tracing::warn!(
                "an upstream names a task that belongs to another holder, or one without a usable id"
            );
        }
    }

    /// A JSON answer, which passes when it was looked at, or as soon as it is too large to be a task.
    pub(crate) fn json(self, body: Body) -> Body {
        let state = Some((body, Some(self)));
        let frames = stream::unfold(state, |state| async move {
            let (mut body, watch) = state?;
            let Some(watch) = watch else {
                let frame = body.frame().await?;
                return Some((frame, Some((body, None))));
            };
            let mut held = BytesMut::new();
            loop {
                match body.frame().await {
                    Some(Err(error)) => return Some((Err(error), None)),
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        held.extend_from_slice(&data);
                        if held.len() > MAX_ANSWER {
                            return Some((Ok(Frame::data(held.freeze())), Some((body, None))));
                        }
                    }
                    None => {
                        let held = held.freeze();
                        watch.look(held.clone(), MAX_ANSWER).await;
                        return (!held.is_empty()).then_some((Ok(Frame::data(held)), None));
                    }
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// The id of the task that a message says was made.
fn task(message: &[u8], era: Era, request: Option<&Value>, max: usize) -> Option<String> {
    let message = json::parse(message, &answer_limits(max)).ok()?;
    if request.is_some_and(|request| message.get("id") != Some(request)) {
        return None;
    }
    let result = message.get("result")?;
    let task = match era {
        Era::Legacy => result.get("task")?,
        Era::Modern => {
            Some(result).filter(|result| result.get("resultType").and_then(Value::as_str) == Some("task"))?
        }
    };
    task.get("taskId")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_what_its_era_calls_one() {
        let one = Value::Number("1".into());
        let check = |text: &str, era: Era, expected: Option<&str>| {
            let got = task(text.as_bytes(), era, Some(&one), 200);
            assert_eq!(got.as_deref(), expected, "{text}");
        };
        let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let (old, new) = (
            result(r#"{"task":{"taskId":"t","status":"working"}}"#),
            result(r#"{"resultType":"task","taskId":"t"}"#),
        );
        check(&old, Era::Legacy, Some("t"));
        check(&old, Era::Modern, None);
        check(&new, Era::Modern, Some("t"));
        check(&new, Era::Legacy, None);
        check(&new.replace("\"id\":1", "\"id\":\"1\""), Era::Modern, None);
        check(
            &result(r#"{"resultType":"complete","taskId":"t"}"#),
            Era::Modern,
            None,
        );
        check(&result(r#"{"task":{"taskId":7}}"#), Era::Legacy, None);
        check(
            &result(r#"{"task":{"taskId":"t","taskId":"u"}}"#),
            Era::Legacy,
            None,
        );
        check(&format!("[{old}]"), Era::Legacy, None);
        check(&format!("{old}{}", " ".repeat(200)), Era::Legacy, None);
        assert_eq!(task(old.as_bytes(), Era::Legacy, None, 200).as_deref(), Some("t"));
    }

    #[test]
    fn only_a_request_that_says_so_makes_a_task() {
        let check = |params: &str, era: Era, expected: bool| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            let message = Message::parse(body.as_bytes(), 1000).unwrap();
            assert_eq!(may_make_one(&message, era), expected, "{params}");
        };
        let extension = r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}}"#;
        check(r#"{"task":{"ttl":1}}"#, Era::Legacy, true);
        check(r#"{"task":{"ttl":1}}"#, Era::Modern, false);
        check(extension, Era::Modern, true);
        check(extension, Era::Legacy, false);
        check("{}", Era::Legacy, false);
        check(
            r#"{"_meta":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#,
            Era::Modern,
            false,
        );
    }
}
