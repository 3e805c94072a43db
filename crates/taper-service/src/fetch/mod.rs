//! Guarded outbound HTTP: key sets, provider metadata, the issuer's feed.
//!
//! TLS only (loopback may be excepted for development), no redirects, no proxy from the environment,
//! no retries, bounded time and size, and no address of the machine's own network unless the operator
//! trusts the host.

mod address;
mod request;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Certificate, Client, Identity, Response, redirect, retry};
use serde::Serialize;
use url::{Host, Url};

use self::address::{GuardedResolver, Hosts, Refused};
pub use self::request::{DEFAULT_MAX_BYTES, Fetched, Request};
pub use self::stream::{Streamed, Streaming};
use crate::secret::Secret;

/// How long a connection without a request is kept: shorter than the edge of our own daemons waits for
/// the next head, so that no request meets a connection that is being closed.
const POOL_IDLE: Duration = Duration::from_secs(5);

/// What outbound requests may do.
#[derive(Clone, Debug)]
pub struct FetchRules {
    /// Permits calls to `localhost`, `127.0.0.0/8` and `::1`, also without TLS. Default no.
    pub allow_loopback_http: bool,
    /// Hosts (names or addresses, without a port) that may have private addresses. Default none.
    pub trusted_hosts: Vec<String>,
    /// For a connection including name resolution and TLS. Default 5 s.
    pub connect_timeout: Duration,
    /// For the whole exchange, unless the request states its own. Default 10 s.
    pub total_timeout: Duration,
    /// Certificate authorities beside the platform's, as PEM bundles. Default none.
    pub extra_roots: Vec<Vec<u8>>,
    /// What the client shows to servers that ask for a certificate: its chain and its private key, in PEM.
    /// Default none.
    pub identity: Option<Secret>,
}

impl Default for FetchRules {
    fn default() -> Self {
        Self {
            allow_loopback_http: false,
            trusted_hosts: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(10),
            extra_roots: Vec::new(),
            identity: None,
        }
    }
}

/// Why there is no answer. No message carries a URL's query or any body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL may not be called, whatever it would answer.
    #[error("the url is refused: {0}")]
    Url(&'static str),
    /// The host has no address that may be called.
    #[error("no address of `{host}` may be called; an operator can list it as a trusted host")]
    Address {
        /// Which host.
        host: String,
    },
    /// The answer is a redirect; none is followed.
    #[error("`{host}` answered with the redirect {status}, which is not followed")]
    Redirect {
        /// Which host.
        host: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The body is larger than the caller allows.
    #[error("the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// There was no complete answer in time.
    #[error("`{host}` did not answer in time")]
    TimedOut {
        /// Which host.
        host: String,
    },
    /// There is no connection: nothing was sent.
    #[error("cannot connect to `{host}`: {cause}")]
    Connect {
        /// Which host.
        host: String,
        /// The chain of causes.
        cause: String,
    },
    /// TLS or framing, at any point of an exchange that had begun.
    #[error("the exchange with `{host}` failed: {cause}")]
    Failed {
        /// Which host.
        host: String,
        /// The chain of causes.
        cause: String,
    },
    /// The body to be sent is no JSON.
    #[error("the request cannot be written as json: {0}")]
    Json(String),
    /// The client cannot be built: no usable certificate authorities, for example.
    #[error("cannot set up outbound requests: {0}")]
    Setup(String),
}

/// Sends guarded requests. Clones share connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    hosts: Arc<Hosts>,
    total_timeout: Duration,
}

impl Fetcher {
    /// A fetcher under `rules`.
    ///
    /// # Errors
    /// [`FetchError::Setup`] when a root certificate cannot be read or there is none at all. (With
    /// `allow_loopback_http` the latter is only a warning: every TLS call will fail.)
    pub fn new(rules: &FetchRules) -> Result<Self, FetchError> {
        let setup = |e: reqwest::Error| FetchError::Setup(causes(&e));
        let mut roots = Vec::new();
        for bundle in &rules.extra_roots {
            roots.extend(Certificate::from_pem_bundle(bundle).map_err(setup)?);
        }
        let identity = match &rules.identity {
            None => None,
            // What the parser says could quote a line of the key.
            Some(pem) => Some(Identity::from_pem(pem.expose()).map_err(|_| {
                FetchError::Setup("the client's certificate and key are not a pair in PEM".to_owned())
            })?),
        };
        let hosts = Arc::new(Hosts::new(&rules.trusted_hosts, rules.allow_loopback_http));
        let builder = || {
            let builder = Client::builder();
            let builder = match &identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            };
            builder
                .https_only(!rules.allow_loopback_http)
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .referer(false)
                .no_proxy()
                .connect_timeout(rules.connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .timeout(rules.total_timeout)
                .dns_resolver(GuardedResolver(Arc::clone(&hosts)))
                .user_agent(concat!("taper/", env!("CARGO_PKG_VERSION")))
        };
        let client = match builder().tls_certs_merge(roots).build() {
            Err(error) if rules.allow_loopback_http && rules.extra_roots.is_empty() => {
                tracing::warn!(
                    cause = causes(&error),
                    "no certificate authorities, calls over TLS will fail"
                );
                builder().tls_certs_only([]).build()
            }
            built => built,
        };
        Ok(Self {
            client: client.map_err(setup)?,
            hosts,
            total_timeout: rules.total_timeout,
        })
    }

    /// Gets `url`.
    ///
    /// # Errors
    /// [`FetchError`]; a status of 400 and above is an answer, not an error.
    pub async fn get(&self, url: impl AsRef<str>, max_bytes: usize) -> Result<Fetched, FetchError> {
        self.send(Request::get(url).max_bytes(max_bytes)).await
    }

    /// Posts `fields` as a form.
    ///
    /// # Errors
    /// [`FetchError`]; a status of 400 and above is an answer, not an error.
    pub async fn post_form(
        &self,
        url: impl AsRef<str>,
        fields: &[(&str, &str)],
        headers: HeaderMap,
        max_bytes: usize,
    ) -> Result<Fetched, FetchError> {
        self.send(Request::form(url, fields).headers(headers).max_bytes(max_bytes))
            .await
    }

    /// Posts `value` as JSON.
    ///
    /// # Errors
    /// [`FetchError`]; a status of 400 and above is an answer, not an error.
    pub async fn post_json<T: Serialize + ?Sized>(
        &self,
        url: impl AsRef<str>,
        value: &T,
        headers: HeaderMap,
        max_bytes: usize,
    ) -> Result<Fetched, FetchError> {
        let body = serde_json::to_vec(value).map_err(|e| FetchError::Json(e.to_string()))?;
        let request = Request::post(url, HeaderValue::from_static("application/json"), body);
        self.send(request.headers(headers).max_bytes(max_bytes)).await
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// [`FetchError`]; a status of 400 and above is an answer, not an error.
    pub async fn send(&self, request: Request) -> Result<Fetched, FetchError> {
        let url = permitted(&request.url, &self.hosts)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut call = self
            .client
            .request(request.method, url)
            .headers(request.headers)
            .body(request.body);
        if let Some(timeout) = request.timeout {
            call = call.timeout(timeout);
        }
        let mut response = call.send().await.map_err(|e| explain(&host, &e))?;
        let status = response.status();
        if is_redirect(status) && !request.return_redirects {
            return Err(FetchError::Redirect { host, status });
        }
        let headers = std::mem::take(response.headers_mut());
        let body = read(response, &host, request.max_bytes).await?;
        Ok(Fetched {
            status,
            headers,
            body,
        })
    }
}

/// The URL that may be called, or why not.
fn permitted(text: &str, hosts: &Hosts) -> Result<Url, FetchError> {
    const LONGEST: usize = 8 * 1024;
    if text.len() > LONGEST {
        return Err(FetchError::Url("it is too long"));
    }
    // The URL standard drops or rewrites these, so two readers could see two URLs.
    if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
        return Err(FetchError::Url(
            "it has white space, a control character or a backslash",
        ));
    }
    let url = Url::parse(text).map_err(|_| FetchError::Url("it is not an absolute url"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Url("it has user information"));
    }
    let host = url.host().ok_or(FetchError::Url("it has no host"))?;
    match url.scheme() {
        "https" => {}
        "http" if hosts.allows_clear_text(&host) => {}
        _ => return Err(FetchError::Url("only https is allowed")),
    }
    // Addresses written out are never resolved, so the resolver does not see them.
    let literal = match &host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
    };
    if literal.is_some_and(|address| !hosts.reach(&host).covers(address)) {
        return Err(FetchError::Address {
            host: host.to_string(),
        });
    }
    Ok(url)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 300..=303 | 305..=308)
}

async fn read(mut response: Response, host: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
    let too_large = FetchError::TooLarge { max_bytes };
    if response
        .content_length()
        .is_some_and(|announced| announced > max_bytes as u64)
    {
        return Err(too_large);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| explain(host, &e))? {
        if chunk.len() > max_bytes.saturating_sub(body.len()) {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn explain(host: &str, error: &reqwest::Error) -> FetchError {
    let host = host.to_owned();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if link.is::<Refused>() {
            return FetchError::Address { host };
        }
        cause = link.source();
    }
    if error.is_connect() {
        let cause = causes(error);
        return FetchError::Connect { host, cause };
    }
    if error.is_timeout() {
        return FetchError::TimedOut { host };
    }
    FetchError::Failed {
        host,
        cause: causes(error),
    }
}

/// The chain of causes below `error`; its own text would carry the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(link) = cause {
        texts.push(link.to_string());
        cause = link.source();
    }
    if texts.is_empty() {
        "no further cause".to_owned()
    } else {
        texts.join(": ")
    }
}

#[cfg(test)]
mod tests;
