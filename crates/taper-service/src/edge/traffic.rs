//! Counts the running requests of one connection, so that a connection without any can be closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Buf;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

/// A request wakes nobody: who waits for quiet looks when it could be there.
#[derive(Debug)]
struct Counts {
    opened: Instant,
    begun: AtomicU64,
    running: AtomicUsize,
    /// When the last one ended, in nanoseconds since `opened`.
    ended: AtomicU64,
}

/// The requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Arc<Counts>);

/// One request, running until this is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Counts>);

/// How a connection without a running request ended its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// No request came at all.
    Never,
    /// None came after the last one.
    Idle,
}

impl Counts {
    fn since_opened(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self(Arc::new(Counts {
            opened: Instant::now(),
            begun: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }))
    }

    /// Counts a request from now on.
    pub(super) fn begin(&self) -> Running {
        // In this order: who sees that there was one sees that it runs, or that it has ended.
        self.0.running.fetch_add(1, Ordering::Release);
        self.0.begun.fetch_add(1, Ordering::Release);
        Running(Arc::clone(&self.0))
    }

    /// Whether there was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire) > 0
    }

    /// Completes when there was no first request for `first`, or no running one for `idle`. What looks no later than
    /// `idle` after each look finds the end of a quiet time when it comes.
    pub(super) async fn quiet(&self, first: Duration, idle: Duration) -> Quiet {
        const LEAST: Duration = Duration::from_millis(1);
        let (until, idle) = (Instant::now() + first, idle.max(LEAST));
        loop {
            let left = if self.has_begun() {
                let Some(left) = idle.checked_sub(self.quiet_for()).filter(|left| !left.is_zero()) else {
                    return Quiet::Idle;
                };
                left
            } else {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Quiet::Never;
                }
                left.min(idle)
            };
            tokio::time::sleep(left).await;
        }
    }

    /// Since when there is no running request, at least.
    fn quiet_for(&self) -> Duration {
        if self.0.running.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        let ended = Duration::from_nanos(self.0.ended.load(Ordering::Acquire));
        self.0.opened.elapsed().saturating_sub(ended)
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
        self.0.ended.fetch_max(self.0.since_opened(), Ordering::Release);
        self.0.running.fetch_sub(1, Ordering::Release);
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

    #[tokio::test(start_paused = true)]
    async fn quiet_begins_when_the_last_request_ended() {
        let check = async |first: u64, idle: u64, requests: &[(u64, u64)], expected: u64| {
            let traffic = Traffic::new();
            let secs = Duration::from_secs;
            let start = Instant::now();
            let calls = async {
                for (begin, end) in requests {
                    tokio::time::sleep_until(start + secs(*begin)).await;
                    let running = traffic.begin();
                    tokio::time::sleep_until(start + secs(*end)).await;
                    drop(running);
                }
                std::future::pending::<()>().await;
            };
            let quiet = tokio::select! {
                quiet = traffic.quiet(secs(first), secs(idle)) => quiet,
                () = calls => unreachable!("it has no end"),
            };
            assert_eq!(
                (quiet, start.elapsed().as_secs()),
                (Quiet::Idle, expected),
                "{requests:?}"
            );
        };
        check(10, 60, &[(1, 2)], 62).await;
        check(10, 60, &[(9, 9)], 69).await;
        check(10, 3, &[(1, 2)], 5).await;
        check(10, 3, &[(1, 20)], 23).await;
        check(10, 3, &[(1, 2), (4, 5), (7, 9)], 12).await;
        check(3, 60, &[(1, 200), (259, 300)], 360).await;
    }
}
