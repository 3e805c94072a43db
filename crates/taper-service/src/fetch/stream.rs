//! Answers that are handed on as they arrive.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Response;

use super::{FetchError, Fetcher, Request, explain, is_redirect, permitted};

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Streamed {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// What follows them.
    pub body: Streaming,
}

/// A body that is read as it arrives. When it is dropped the exchange ends, and the server learns that
/// at once.
pub struct Streaming {
    response: Response,
    host: String,
}

impl Fetcher {
    /// Sends `request` and returns when the head of the answer is there. The request's timeout, or the
    /// fetcher's, bounds the time until then; the body may take as long as it likes and be of any size,
    /// so its reader bounds it.
    ///
    /// # Errors
    /// [`FetchError`]; a status of 400 and above is an answer, not an error.
    pub async fn open(&self, request: Request) -> Result<Streamed, FetchError> {
        let url = permitted(&request.url, &self.hosts)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let patience = request.timeout.unwrap_or(self.total_timeout);
        let call = self
            .client
            .request(request.method, url)
            .headers(request.headers)
            .body(request.body)
            // The library's own would cut the body too.
            .timeout(Duration::MAX)
            .send();
        let mut response = match tokio::time::timeout(patience, call).await {
            Err(_) => return Err(FetchError::TimedOut { host }),
            Ok(sent) => sent.map_err(|e| explain(&host, &e))?,
        };
        let status = response.status();
        if is_redirect(status) && !request.return_redirects {
            return Err(FetchError::Redirect { host, status });
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Streamed {
            status,
            headers,
            body: Streaming { response, host },
        })
    }
}

impl Streaming {
    /// The next bytes, as soon as there are some; nothing at the end.
    ///
    /// # Errors
    /// [`FetchError::Failed`] when the body breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        self.response.chunk().await.map_err(|e| explain(&self.host, &e))
    }
}

/// What comes may be anybody's secret.
impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streaming(…)")
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::sync::{mpsc, oneshot};

    use super::super::FetchRules;
    use super::*;
    use crate::edge::{Bound, EdgeLimits};
    use crate::shutdown::Shutdown;

    /// Far beyond what a passing test takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn start(router: Router) -> (String, Shutdown) {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
        shutdown.spawn("edge", bound.serve(router, shutdown.clone()));
        (format!("http://{addr}"), shutdown)
    }

    fn fetcher(total_timeout: Duration) -> Fetcher {
        Fetcher::new(&FetchRules {
            allow_loopback_http: true,
            total_timeout,
            ..FetchRules::default()
        })
        .unwrap()
    }

    #[tokio::test]
    async fn what_arrives_is_handed_on_and_a_dropped_body_ends_the_exchange() {
        let (pieces, received) = mpsc::channel::<Bytes>(1);
        let (ended, end) = oneshot::channel::<()>();
        let body = stream::unfold((received, ended), async |(mut received, ended)| {
            let piece = received.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), (received, ended)))
        });
        let body = std::sync::Mutex::new(Some(Body::from_stream(body)));
        let body = std::sync::Arc::new(body);
        let router = Router::new().route(
            "/",
            get(move || std::future::ready(body.lock().unwrap().take().unwrap())),
        );
        let (url, shutdown) = start(router).await;
        let answer = fetcher(PATIENCE).open(Request::get(&url)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let mut body = answer.body;
        for piece in ["a", "b"] {
            pieces.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
            let chunk = tokio::time::timeout(PATIENCE, body.chunk()).await.unwrap();
            assert_eq!(chunk.unwrap().unwrap(), piece);
        }
        drop(body);
        // The server drops the rest of its answer, and with it the sender.
        assert!(tokio::time::timeout(PATIENCE, end).await.unwrap().is_err());
        shutdown.trigger();
    }

    #[tokio::test]
    async fn only_the_head_has_to_come_in_time() {
        let never = get(std::future::pending::<()>);
        let (url, shutdown) = start(Router::new().route("/", never)).await;
        let late = fetcher(Duration::from_millis(1))
            .open(Request::get(&url))
            .await
            .unwrap_err();
        assert!(matches!(late, FetchError::TimedOut { .. }), "{late}");
        let refused = fetcher(PATIENCE).open(Request::get("http://10.0.0.1/")).await;
        assert_eq!(refused.unwrap_err(), FetchError::Url("only https is allowed"));
        shutdown.trigger();
    }
}
