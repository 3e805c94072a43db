//! An outbound request and its answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// The size limit of an answer when the caller states none, in bytes.
pub const DEFAULT_MAX_BYTES: usize = 1024 * 1024;

/// One outbound request. Debug shows neither query, header values nor body.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) max_bytes: usize,
    pub(super) timeout: Option<Duration>,
    pub(super) return_redirects: bool,
}

/// A complete answer, whatever its status.
#[derive(Clone)]
pub struct Fetched {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Request {
    /// A request without a body. The URL is checked when the request is sent.
    pub fn new(method: Method, url: impl AsRef<str>) -> Self {
        Self {
            method,
            url: url.as_ref().to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            max_bytes: DEFAULT_MAX_BYTES,
            timeout: None,
            return_redirects: false,
        }
    }

    /// A GET.
    pub fn get(url: impl AsRef<str>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST of `body` as it is.
    pub fn post(url: impl AsRef<str>, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        let mut request = Self::new(Method::POST, url);
        request.body = body.into();
        request.headers.insert(CONTENT_TYPE, content_type);
        request
    }

    /// A POST of `fields` as `application/x-www-form-urlencoded`.
    pub fn form(url: impl AsRef<str>, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        Self::post(
            url,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
            body,
        )
    }

    /// Sets the body. Its content type is the caller's to say.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header, replacing one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets several headers, replacing those of the same names.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Bounds the body of the answer, in bytes; [`DEFAULT_MAX_BYTES`] otherwise.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Bounds the whole exchange in place of the fetcher's total timeout (a long poll needs more).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Hands a redirect back as an answer instead of as an error. It is not followed in either case.
    #[must_use]
    pub fn returning_redirects(mut self) -> Self {
        self.return_redirects = true;
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Bodies and headers may carry tokens.
impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_does_not_print() {
        let request = Request::form("https://a.example/?token=hunter2", &[("token", "hunter2 &")])
            .header(http::header::AUTHORIZATION, HeaderValue::from_static("hunter2"));
        assert_eq!(request.body, "token=hunter2+%26");
        assert_eq!(
            format!("{request:?}"),
            "Request { method: POST, body_bytes: 17, .. }"
        );
        let fetched = Fetched {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from("hunter2"),
        };
        assert_eq!(
            format!("{fetched:?}"),
            "Fetched { status: 200, body_bytes: 7, .. }"
        );
    }
}
