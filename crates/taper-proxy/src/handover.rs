//! One piece at a time, from the task that has an answer to the connection of its caller.
//!
//! A connection asks for nothing while its caller does not read. The task does not depend on that: it
//! learns when a piece was taken and when nobody is there any more, and can take back what was not taken.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use taper_service::edge::BoxError;
use tokio::sync::Notify;

/// The task's side. The body ends after the last piece when this is dropped.
#[derive(Debug)]
pub(crate) struct Giver(Arc<Shared>);

/// The body that the connection has. Dropping it tells the task.
#[derive(Debug)]
pub(crate) struct Taker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    /// Told when a piece was taken, and when the taker has gone.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    piece: Option<Result<Bytes, BoxError>>,
    /// No further piece will come.
    ended: bool,
    /// The taker has gone.
    left: bool,
    waker: Option<Waker>,
}

/// The two ends.
pub(crate) fn handover() -> (Giver, Taker) {
    let shared = Arc::<Shared>::default();
    (Giver(Arc::clone(&shared)), Taker(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(mut slot: MutexGuard<'_, Slot>) {
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Giver {
    /// Offers the next piece, in place of one that was not taken.
    pub(crate) fn offer(&self, piece: Result<Bytes, BoxError>) {
        let mut slot = self.0.lock();
        slot.piece = Some(piece);
        Shared::wake(slot);
    }

    /// Takes back what is offered. Whether it was still there.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.lock().piece.take().is_some()
    }

    /// Completes when nothing is on offer.
    pub(crate) async fn taken(&self) {
        self.until(|slot| slot.piece.is_none()).await;
    }

    /// Completes when the taker has gone.
    pub(crate) async fn left(&self) {
        self.until(|slot| slot.left).await;
    }

    async fn until(&self, holds: impl Fn(&Slot) -> bool) {
        loop {
            let moved = self.0.moved.notified();
            tokio::pin!(moved);
            // From here on no move is missed, whoever else waits.
            moved.as_mut().enable();
            if holds(&self.0.lock()) {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.ended = true;
        Shared::wake(slot);
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.left = true;
        // Nobody will take it.
        let piece = slot.piece.take();
        drop(slot);
        drop(piece);
        self.0.moved.notify_waiters();
    }
}

impl http_body::Body for Taker {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut slot = self.0.lock();
        match slot.piece.take() {
            Some(piece) => {
                drop(slot);
                self.0.moved.notify_waiters();
                Poll::Ready(Some(piece.map(Frame::data)))
            }
            None if slot.ended => Poll::Ready(None),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn text(frame: Option<Result<Frame<Bytes>, BoxError>>) -> Option<Bytes> {
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn one_piece_waits_and_can_be_taken_back() {
        let (giver, mut taker) = handover();
        assert!(taker.frame().now_or_never().is_none());
        giver.offer(Ok("a".into()));
        assert!(giver.taken().now_or_never().is_none());
        assert_eq!(text(taker.frame().await).unwrap(), "a");
        assert!(giver.taken().now_or_never().is_some());
        assert!(!giver.withdraw(), "it was taken");
        giver.offer(Ok("b".into()));
        assert!(giver.withdraw());
        assert!(taker.frame().now_or_never().is_none(), "and is not seen");
        giver.offer(Ok("c".into()));
        drop(giver);
        assert_eq!(text(taker.frame().await).unwrap(), "c");
        assert_eq!(text(taker.frame().await), None);
    }

    #[tokio::test]
    async fn both_sides_are_woken() {
        let (giver, mut taker) = handover();
        let (got, ()) = tokio::join!(taker.frame(), async {
            tokio::task::yield_now().await;
            giver.offer(Ok("a".into()));
        });
        assert_eq!(text(got).unwrap(), "a");
        giver.offer(Ok("b".into()));
        let ((), got) = tokio::join!(giver.taken(), async {
            tokio::task::yield_now().await;
            taker.frame().await
        });
        assert_eq!(text(got).unwrap(), "b");
        tokio::join!(giver.left(), async {
            tokio::task::yield_now().await;
            drop(taker);
        });
        giver.left().await;
    }
}
