//! Counts the running requests of one connection, so that a connection without any can be closed.

use std::time::Duration;

use bytes::Buf;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    begun: u64,
    running: usize,
}

/// The requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Traffic(watch::Sender<Count>);

/// One request, running until this is dropped.
#[derive(Debug)]
pub(super) struct Running(watch::Sender<Count>);

/// How a connection without a running request ended its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// No request came at all.
    Never,
    /// None came after the last one.
    Idle,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Count::default()))
    }

    /// Counts a request from now on.
    pub(super) fn begin(&self) -> Running {
        self.0.send_modify(|count| {
            count.begun = count.begun.saturating_add(1);
            count.running = count.running.saturating_add(1);
        });
        Running(self.0.clone())
    }

    /// Whether there was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.0.borrow().begun > 0
    }

    /// Completes when there was no first request for `first`, or no running one for `idle`.
    pub(super) async fn quiet(&self, first: Duration, idle: Duration) -> Quiet {
        let mut changes = self.0.subscribe();
        loop {
            let count = *changes.borrow_and_update();
            let changed = changes.changed();
            let (quiet, patience) = match count {
                Count { begun: 0, .. } => (Quiet::Never, first),
                Count { running: 0, .. } => (Quiet::Idle, idle),
                _ => {
                    // An error is impossible while `self` holds a sender.
                    let _ = changed.await;
                    continue;
                }
            };
            if tokio::time::timeout(patience, changed).await.is_err() {
                return quiet;
            }
        }
    }
}

impl Running {
    /// Keeps the request running until the body of its response is sent or given up.
    pub(super) fn until_sent<B>(
        self,
        response: Response<B>,
    ) -> Response<impl Body<Data = B::Data, Error = B::Error>>
    where
        B: Body,
        B::Data: Buf,
    {
        response.map(|body| {
            body.map_frame(move |frame| {
                let Self(_held) = &self;
                frame
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0
            .send_modify(|count| count.running = count.running.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    async fn quiet_after(traffic: &Traffic) -> (Quiet, Duration) {
        let start = tokio::time::Instant::now();
        let quiet = traffic.quiet(FIRST, IDLE).await;
        (quiet, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_only_without_requests() {
        let traffic = Traffic::new();
        assert_eq!(quiet_after(&traffic).await, (Quiet::Never, FIRST));

        let running = traffic.begin();
        let long = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(long, quiet_after(&traffic)).await.is_err());

        let response = running.until_sent(Response::new(Full::new(Bytes::from_static(b"x"))));
        assert!(
            tokio::time::timeout(long, quiet_after(&traffic)).await.is_err(),
            "its body is not sent yet"
        );
        drop(response);
        assert_eq!(quiet_after(&traffic).await, (Quiet::Idle, IDLE));
    }
}
