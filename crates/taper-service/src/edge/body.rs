//! Reading a body whole, bounded in size and in time.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is larger than allowed, or announces so; 413.
    #[error("the body is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// It did not end in time; 408.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection broke, or the framing is wrong.
    #[error("the body broke off")]
    Broken,
}

/// Reads `body` to its end. `deadline` counts from now and covers all of it, so that a peer who sends
/// a byte at a time gains nothing. Trailers are dropped.
///
/// # Errors
/// [`BodyError`]; a body that announces more than `max_bytes` is refused before any of it is read.
pub async fn read_body<B>(body: B, max_bytes: usize, deadline: Duration) -> Result<Bytes, BodyError>
where
    B: Body,
{
    let too_large = BodyError::TooLarge { max_bytes };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large);
    }
    let mut body = pin!(body);
    let whole = async {
        // Copied out of the frames: a frame of one byte may hold on to a buffer of many.
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
                continue;
            };
            if data.remaining() > max_bytes.saturating_sub(whole.len()) {
                return Err(too_large);
            }
            bytes::BufMut::put(&mut whole, data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(deadline, whole)
        .await
        .unwrap_or(Err(BodyError::TimedOut))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use futures_util::stream::{self, StreamExt as _};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frames(parts: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        StreamBody::new(stream::iter(parts).map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
    }

    #[tokio::test]
    async fn size() {
        let check = async |parts: &'static [&'static str], max: usize, expected: Option<&str>| {
            let answer = read_body(frames(parts), max, SECOND).await;
            let expected = expected.map(|text| Bytes::copy_from_slice(text.as_bytes()));
            assert_eq!(
                answer,
                expected.ok_or(BodyError::TooLarge { max_bytes: max }),
                "{parts:?}"
            );
        };
        check(&[], 0, Some("")).await;
        check(&["abc", "de"], 5, Some("abcde")).await;
        check(&["abc", "def"], 5, None).await;
        check(&["abcdef"], 5, None).await;
        check(&["", "", "a"], 0, None).await;
    }

    #[tokio::test]
    async fn an_announced_size_is_refused_unread() {
        let body = Full::new(Bytes::from_static(b"abcdef"));
        assert_eq!(
            read_body(body, 5, Duration::ZERO).await,
            Err(BodyError::TooLarge { max_bytes: 5 })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_covers_the_whole_body() {
        let drip = stream::unfold((), async |()| {
            tokio::time::sleep(SECOND / 2).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let body = StreamBody::new(drip);
        assert_eq!(read_body(body, 1_000, SECOND * 3).await, Err(BodyError::TimedOut));
    }

    #[tokio::test]
    async fn a_broken_body_is_not_a_short_one() {
        let parts = [
            Ok(Frame::data(Bytes::from_static(b"x"))),
            Err(io::Error::other("reset")),
        ];
        let body = StreamBody::new(stream::iter(parts));
        assert_eq!(read_body(body, 10, SECOND).await, Err(BodyError::Broken));
    }
}
