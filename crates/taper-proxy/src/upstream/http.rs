//! An upstream over HTTP: the same bytes, listed headers, its own credentials, nothing of the caller's.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::Body;
use crate::permitted::Outbound;
use crate::refusal::Refusal;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const POOL_IDLE: Duration = Duration::from_secs(30);

/// One URL and the headers that it needs.
pub(crate) struct HttpUpstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    answer_timeout: Duration,
}

impl HttpUpstream {
    /// A client for `uri` that adds `headers` to every request.
    pub(crate) fn new(uri: Uri, headers: Vec<(HeaderName, HeaderValue)>, answer_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self {
            client,
            uri,
            headers,
            answer_timeout,
        }
    }

    pub(super) async fn send(&self, outbound: Outbound) -> Result<Response<Body>, Refusal> {
        let mut request = Request::new(Full::new(outbound.body));
        *request.method_mut() = outbound.method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = outbound.headers;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let answer = tokio::time::timeout(self.answer_timeout, self.client.request(request)).await;
        let answer = match answer {
            Err(_) => return Err(Refusal::Upstream("it did not answer in time")),
            Ok(Err(error)) => {
                tracing::warn!(%error, cause = cause(&error), "the upstream cannot be reached");
                return Err(Refusal::Upstream("it cannot be reached"));
            }
            Ok(Ok(answer)) => answer,
        };
        let status = answer.status();
        // The caller cannot do anything about the proxy's own credentials (RULES 20).
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            tracing::error!(
                status = status.as_u16(),
                "the upstream refuses the proxy's credentials"
            );
            return Err(Refusal::Upstream("it refuses the proxy's credentials"));
        }
        if status.is_redirection() || status.is_informational() {
            return Err(Refusal::Upstream("it redirects"));
        }
        let encoded = answer.headers().contains_key(http::header::CONTENT_ENCODING);
        if encoded {
            return Err(Refusal::Upstream(
                "its answer is encoded, which was not asked for",
            ));
        }
        let (parts, body) = answer.into_parts();
        let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
        *response.status_mut() = status;
        *response.headers_mut() = to_caller(&parts.headers);
        Ok(response)
    }
}

fn to_caller(headers: &HeaderMap) -> HeaderMap {
    crate::headers::to_caller(headers, true)
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

impl std::fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpUpstream")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}
