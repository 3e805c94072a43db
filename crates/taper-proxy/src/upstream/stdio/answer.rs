//! Answers as HTTP bodies: one JSON text, or an event stream. Events have no ids: nothing is kept to be
//! read again, so there is nothing to resume.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use taper_service::edge::BoxError;

use super::outlet::{End, Item};
use super::program::Reading;
use crate::body::Body;
use crate::rules;

/// Why a stream broke off.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read its stream")]
struct NotRead;

/// An answer that came first.
pub(super) fn json(answer: Item, reading: Reading) -> Response<Body> {
    // Both are held until the body is sent: they are what bounds the answers that wait.
    let held = (answer.room, reading);
    let body = Full::new(answer.line).map_err(move |never: Infallible| {
        let _ = &held;
        match never {}
    });
    let mut response = Response::new(body.boxed_unsync());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// A stream that begins with `first`.
pub(super) fn stream(first: Option<Item>, reading: Reading) -> Response<Body> {
    let events = stream::unfold(Some((first, reading)), |state| async move {
        let (first, reading) = state?;
        let next = match first {
            Some(first) => Ok(first),
            None => reading.next().await,
        };
        let frame = |bytes| Ok::<_, BoxError>(Frame::data(bytes));
        match next {
            Ok(item) => {
                let after = (!item.last).then_some((None, reading));
                Some((frame(event(&item.line)), after))
            }
            Err(End::Done) => None,
            Err(End::Cut) => Some((Err(NotRead.into()), None)),
            Err(End::Gone) => {
                let id = reading.id()?;
                let error = format!(
                    r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32603,"message":"the server behind this proxy ended","data":{{"rule":"{}"}}}}}}"#,
                    id.as_str(),
                    rules::UPSTREAM
                );
                Some((frame(event(error.as_bytes())), None))
            }
        }
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A line has no line ends.
fn event(line: &[u8]) -> Bytes {
    const BEFORE: &[u8] = b"event: message\ndata: ";
    const AFTER: &[u8] = b"\n\n";
    let mut event = BytesMut::with_capacity(BEFORE.len() + line.len() + AFTER.len());
    event.put_slice(BEFORE);
    event.put_slice(line);
    event.put_slice(AFTER);
    event.freeze()
}
