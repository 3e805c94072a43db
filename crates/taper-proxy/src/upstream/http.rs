//! An upstream over HTTP: the same bytes, listed headers, its own credentials, nothing of the caller's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::answer::admit;
use crate::body::Body;
use crate::config::Limits;
use crate::permitted::Outbound;
use crate::refusal::Refusal;

const POOL_IDLE: Duration = Duration::from_secs(30);

/// The settings of a client that believes the authorities in `pem` and no others.
///
/// # Errors
/// What is wrong with `pem`.
pub(crate) fn believing(pem: &[u8]) -> Result<ClientConfig, &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "it is not PEM throughout")?;
        roots
            .add(certificate)
            .map_err(|_| "it has a certificate that cannot be read")?;
    }
    if roots.is_empty() {
        return Err("it has no certificate in PEM");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|_| "no version of TLS can be spoken")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One URL and the headers that it needs.
pub(crate) struct HttpUpstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    answer_timeout: Duration,
}

impl HttpUpstream {
    /// A client for `uri` that adds `headers` to every request. A certificate is one of `authorities`;
    /// without them, one that the public knows.
    pub(crate) fn new(
        uri: Uri,
        headers: Vec<(HeaderName, HeaderValue)>,
        authorities: Option<ClientConfig>,
        limits: &Limits,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(limits.connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = match authorities {
            Some(config) => HttpsConnectorBuilder::new().with_tls_config(config),
            None => HttpsConnectorBuilder::new().with_webpki_roots(),
        };
        let connector = connector
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
            answer_timeout: limits.answer_timeout,
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
        let method = request.method().clone();
        let until = Instant::now() + self.answer_timeout;
        let answer = match tokio::time::timeout_at(until, self.client.request(request)).await {
            Err(_) => return Err(Refusal::Upstream("it did not answer in time")),
            Ok(Err(error)) => {
                let causes = causes(&error);
                if is_certificate(&error) {
                    tracing::error!(uri = %self.uri, causes, "the upstream's certificate is not accepted");
                    return Err(Refusal::Upstream("its certificate is not accepted"));
                }
                tracing::warn!(uri = %self.uri, causes, "the upstream cannot be reached");
                return Err(Refusal::Upstream("it cannot be reached"));
            }
            Ok(Ok(answer)) => answer,
        };
        admit(&method, answer, until).await
    }
}

/// What went wrong, from the outside in.
fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(link) = cause {
        texts.push(link.to_string());
        cause = link.source();
    }
    texts.join(": ")
}

/// Whether TLS failed for the certificate.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(link) = cause {
        // An IO error shows the source of what it wraps as its own.
        let wrapped = link
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let tls = match wrapped {
            Some(wrapped) => wrapped.downcast_ref::<rustls::Error>(),
            None => link.downcast_ref::<rustls::Error>(),
        };
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = link.source();
    }
    false
}

impl std::fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpUpstream")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}
