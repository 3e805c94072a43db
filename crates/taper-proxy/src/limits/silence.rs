//! An answer that falls silent before its end is cut (M-30), so that a dead upstream holds no place.
//!
//! Time counts while the upstream is waited for, not while the caller does not read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use taper_service::edge::BoxError;
use tokio::time::{Instant, Sleep};

use crate::body::Body;
use crate::config::Limits;
use crate::rules;

#[derive(Debug, thiserror::Error)]
#[error("the upstream fell silent")]
struct Silent;

/// The answer, cut when it is silent for longer than `limits` say of its kind.
pub(crate) fn bounded(response: Response<Body>, limits: &Limits, server: &str) -> Response<Body> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let longest = if kind.eq_ignore_ascii_case("text/event-stream") {
        limits.stream_idle
    } else {
        Some(limits.answer_idle)
    };
    let Some(longest) = longest else {
        return response;
    };
    let server = server.to_owned();
    response.map(|body| {
        let silence = None;
        Listened {
            body,
            longest,
            silence,
            server,
        }
        .boxed_unsync()
    })
}

struct Listened {
    body: Body,
    longest: Duration,
    /// Runs while the upstream is waited for.
    silence: Option<Pin<Box<Sleep>>>,
    server: String,
}

impl http_body::Body for Listened {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.silence = None;
            return Poll::Ready(frame);
        }
        let longest = self.longest;
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + longest)));
        ready!(silence.as_mut().poll(context));
        self.silence = None;
        tracing::warn!(rule = %rules::UPSTREAM, mcp.server = self.server, "the upstream fell silent in its answer");
        Poll::Ready(Some(Err(BoxError::from(Silent))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;

    /// A frame every `every`.
    fn answer(kind: &str, every: Duration) -> Response<Body> {
        let frames = stream::unfold(0_u8, move |n| async move {
            tokio::time::sleep(every).await;
            (n < 3).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        let response = Response::builder().header("content-type", kind);
        response
            .body(StreamBody::new(frames.boxed()).boxed_unsync())
            .unwrap()
    }

    async fn length(kind: &str, every: u64, limits: &Limits) -> Option<usize> {
        let answer = bounded(answer(kind, Duration::from_secs(every)), limits, "git");
        let whole = answer.into_body().collect().await;
        whole.ok().map(|whole| whole.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn what_falls_silent_is_cut_and_event_streams_have_their_own_limit() {
        let second = Duration::from_secs(1);
        let limits = Limits {
            answer_idle: second * 10,
            stream_idle: None,
            ..Limits::default()
        };
        assert_eq!(length("application/json", 9, &limits).await, Some(3));
        assert_eq!(length("application/json", 11, &limits).await, None);
        assert_eq!(length("text/event-stream", 3_600, &limits).await, Some(3));
        let limits = Limits {
            stream_idle: Some(second * 20),
            ..limits
        };
        assert_eq!(
            length("text/event-stream; charset=utf-8", 19, &limits).await,
            Some(3)
        );
        assert_eq!(
            length("text/event-stream; charset=utf-8", 21, &limits).await,
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_read_is_not_the_upstreams_silence() {
        let limits = Limits {
            answer_idle: Duration::from_secs(10),
            ..Limits::default()
        };
        let mut body =
            bounded(answer("application/json", Duration::from_secs(9)), &limits, "git").into_body();
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
    }
}
