//! Event streams on their way back: each event is read before the client can see it, where something is
//! to be learned of it or hidden in it, and passes as it came.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::BodyExt as _;
use taper_capability::json::{self, JsonLimits, Value};
use taper_service::edge::BoxError;
use taper_service::pool::CpuPool;

use crate::body::Body;
use crate::catalogue::Catalogue;
use crate::lists::{ListError, ListFilter};
use crate::message::is_id;
use crate::outstanding::Sessions;
use crate::session::Owner;
use crate::sse::{Event, Piece, Splitter, plain_between};
use crate::tasks::TaskWatch;

/// How large an event is held that nobody reads, so that a stream can be cut between events.
const HELD_UNREAD: usize = 64 * 1024;
/// From this size on an event is read on the pool.
pub(crate) const LARGE: usize = 16 * 1024;

/// A stream in pieces.
pub(crate) type Events = BoxStream<'static, Result<Passed, BoxError>>;

/// Bytes for the client.
pub(crate) struct Passed {
    pub(crate) bytes: Bytes,
    /// Whether the stream could end after them.
    pub(crate) boundary: bool,
}

/// Who reads the events of a stream.
#[derive(Default)]
pub(crate) struct Readers {
    /// Remembers the requests of the server.
    pub(crate) watch: Option<Watch>,
    /// Remembers tasks.
    pub(crate) tasks: Option<TaskWatch>,
    /// Hides entries of lists.
    pub(crate) lists: Option<ListFilter>,
    /// Hears that the server's tools changed.
    pub(crate) catalogue: Option<Arc<Catalogue>>,
    /// The largest event that is read, in bytes.
    pub(crate) max: usize,
}

/// Remembers which requests of the server a session was shown (M-20).
pub(crate) struct Watch {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) session: String,
    pub(crate) owner: Owner,
    pub(crate) pool: CpuPool,
    /// The largest event that is read, in bytes.
    pub(crate) max: usize,
}

/// What messages of an upstream may be like.
pub(crate) const fn answer_limits(bytes: usize) -> JsonLimits {
    JsonLimits {
        bytes,
        depth: 64,
        nodes: 1 << 20,
        elements: 1 << 16,
    }
}

/// An event stream, read by `readers`. Nothing is asked of the upstream before its last piece was taken.
pub(crate) fn events(body: Body, readers: Readers) -> Events {
    let read = readers.watch.is_some() || readers.tasks.is_some() || readers.lists.is_some();
    let held = if read { readers.max } else { HELD_UNREAD };
    let reading = Reading {
        body: Some(body),
        splitter: Splitter::new(held),
        pieces: VecDeque::new(),
        readers,
    };
    stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await? {
            Ok(passed) => Some((Ok(passed), Some(reading))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Reading {
    /// `None` when it has ended.
    body: Option<Body>,
    splitter: Splitter,
    pieces: VecDeque<Piece>,
    readers: Readers,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Passed, BoxError>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                match self.readers.read(piece).await {
                    Ok(None) => continue,
                    Ok(Some(passed)) => return Some(Ok(passed)),
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.body.as_mut()?.frame().await {
                None => {
                    self.body = None;
                    // Without its empty line it is no event; where entries are hidden, nobody shall take
                    // it for one.
                    let rest = self.splitter.finish()?;
                    let bytes = self.readers.lists.is_none().then_some(rest)?;
                    let boundary = false;
                    return Some(Ok(Passed { bytes, boundary }));
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pieces.extend(self.splitter.push(data));
                    }
                }
            }
        }
    }
}

impl Readers {
    /// What passes of a piece; `None` if nothing does.
    async fn read(&self, piece: Piece) -> Result<Option<Passed>, BoxError> {
        let (bytes, boundary) = match piece {
            Piece::Between(bytes) if self.lists.is_some() => (plain_between(bytes), true),
            Piece::Between(bytes) => (bytes, true),
            Piece::Part { .. } if self.lists.is_some() => return Err(ListError::TooLarge.into()),
            Piece::Part { bytes, last } => (bytes, last),
            Piece::Event(event) => {
                if let Some(watch) = &self.watch {
                    watch.look(&event).await;
                }
                if let Some(catalogue) = &self.catalogue
                    && says_tools_changed(&event)
                {
                    catalogue.changed_upstream();
                }
                if let Some(tasks) = &self.tasks
                    && event.contains(b"\"taskId\"")
                    && let Some(message) = event.data()
                {
                    tasks.look(message.into(), self.max).await;
                }
                let bytes = match &self.lists {
                    Some(lists) => lists.event(event).await?,
                    None => Some(event.into_bytes()),
                };
                return Ok(bytes.map(|bytes| Passed {
                    bytes,
                    boundary: true,
                }));
            }
        };
        Ok(Some(Passed { bytes, boundary }))
    }
}

impl Watch {
    /// Learns of a request, of which nothing is learned otherwise: its answer will be refused.
    async fn look(&self, event: &Event) {
        // A request has both keys, and nobody writes them with escapes.
        if !event.contains(b"\"method\"") || !event.contains(b"\"id\"") {
            return;
        }
        let Some(data) = event.data() else { return };
        let limits = answer_limits(self.max);
        let read = move |message: &[u8]| requested(message, &limits);
        if let Some(id) = parsed(&self.pool, data.into(), read).await {
            self.sessions
                .with(&self.session, &self.owner, |requests| requests.show(&id));
        }
    }
}

/// Whether an event is the notification that the server's tools changed. A large one is not.
fn says_tools_changed(event: &Event) -> bool {
    if !event.contains(b"list_changed") {
        return false;
    }
    let data = event.data().filter(|data| data.len() < LARGE);
    let message = data.and_then(|data| json::parse(&data, &answer_limits(LARGE)).ok());
    let method = message
        .as_ref()
        .and_then(|message| message.get("method")?.as_str());
    method == Some("notifications/tools/list_changed")
}

/// What `read` finds in a message; the pool reads larger ones. Where it has no place, nothing is found.
pub(crate) async fn parsed<T, F>(pool: &CpuPool, message: Bytes, read: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce(&[u8]) -> Option<T> + Send + 'static,
{
    if message.len() < LARGE {
        return read(&message);
    }
    let found = pool.run(move || read(&message)).await;
    found.unwrap_or_else(|error| {
        tracing::debug!(%error, "a message of an upstream was not read");
        None
    })
}

/// The id of a message that is a request.
fn requested(message: &[u8], limits: &JsonLimits) -> Option<Value> {
    let message = json::parse(message, limits).ok()?;
    message.get("method")?.as_str()?;
    message.get("id").filter(|id| is_id(id)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_method_and_id() {
        let check = |text: &str, expected: Option<&str>| {
            let id = requested(text.as_bytes(), &answer_limits(200));
            assert_eq!(id.map(|id| id.to_string()).as_deref(), expected, "{text}");
        };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Some("1"));
        check(
            r#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#,
            Some("\"a\""),
        );
        check(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#, None);
        check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None);
        check(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, None);
        check(r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#, None);
        check(r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, None);
        check(r#"{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}"#, None);
        check(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, None);
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, None);
        let long = format!(r#"{{"id":1,"method":"{}"}}"#, "x".repeat(200));
        check(&long, None);
    }
}
