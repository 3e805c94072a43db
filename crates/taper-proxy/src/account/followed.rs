//! An answer on its way, with the account of its request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use taper_service::edge::BoxError;

use super::{Account, End};
use crate::body::Body;

/// A body with the account of its request.
pub(super) struct Followed {
    body: Body,
    account: Account,
}

impl Followed {
    pub(super) fn new(body: Body, account: Account) -> Self {
        Self { body, account }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.account.sent = self.account.sent.saturating_add(sent);
                if self.body.is_end_stream() {
                    self.account.end = Some(End::Complete);
                }
            }
            Some(Err(_)) => self.account.end = Some(End::Broken),
            None => self.account.end = Some(End::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
