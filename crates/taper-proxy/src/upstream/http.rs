//! An upstream over HTTP: the same bytes, listed headers, its own credentials, nothing of the caller's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use taper_capability::VerifiedChain;
use taper_service::edge::{BoxError, ClientIdentity};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use zeroize::Zeroizing;

use super::answer::admit;
use super::own::OwnRequest;
use crate::body::Body;
use crate::config::Limits;
use crate::permitted::Outbound;
use crate::refusal::Refusal;
use crate::rules;
use crate::tokens::{Token, Tokens, Whose};

const POOL_IDLE: Duration = Duration::from_secs(30);
/// What a connection reads ahead, in bytes, and so the largest head of an answer.
const READ_AHEAD: usize = 64 * 1024;
/// How many interim answers (1xx) come before an answer. None is passed on.
const MAX_INTERIM: u32 = 64;

/// The settings of a TLS client: it believes the authorities in `pem` and no others, or those that the
/// public knows, and shows the certificate of `identity`.
///
/// # Errors
/// What is wrong with `pem`.
pub(crate) fn client_config(
    pem: Option<&[u8]>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, &'static str> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|_| "no version of TLS can be spoken")?;
    let builder = match pem {
        Some(pem) => builder.with_root_certificates(roots_of(pem)?),
        None => builder.with_webpki_roots(),
    };
    Ok(match identity {
        Some(identity) => {
            let mut config = builder.with_client_cert_resolver(identity.resolver());
            // A session that goes on would speak for the certificate that it began with.
            config.resumption = Resumption::disabled();
            config
        }
        None => builder.with_no_client_auth(),
    })
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, &'static str> {
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
    Ok(roots)
}

/// Opens connections in time.
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// What an upstream is reached by.
pub(crate) struct HttpSettings {
    /// Its one URL.
    pub(crate) uri: Uri,
    /// Headers that every request has.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// How TLS is spoken.
    pub(crate) tls: ClientConfig,
    /// What is renewed of `tls`.
    pub(crate) identity: Option<ClientIdentity>,
    /// The tokens that every request has one of.
    pub(crate) tokens: Option<Arc<Tokens>>,
}

/// One URL and the credentials that it needs.
pub(crate) struct HttpUpstream {
    client: Client<Connector, Full<Bytes>>,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    identity: Option<ClientIdentity>,
    tokens: Option<Arc<Tokens>>,
    answer_timeout: Duration,
}

/// What one request is sent with, beside the headers that all have: a token, for an upstream that takes some.
#[derive(Debug, Default)]
pub(crate) struct Credential(Option<(Whose, Arc<Token>)>);

/// Whether a request is still permitted.
pub(crate) type Again<'a> = &'a (dyn Fn() -> Result<(), Refusal> + Send + Sync);

impl HttpUpstream {
    /// A client for one URL.
    pub(crate) fn new(settings: HttpSettings, limits: &Limits) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(limits.connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(settings.tls);
        // A connection for each request that runs. On HTTP/2 all callers would share one: its number of
        // streams and its window are the server's and the slowest reader's, and a dead one holds up all.
        let connector = connector.https_or_http().enable_http1().wrap_connector(tcp);
        // The handshake of TLS counts too: a connection that is begun is not given up otherwise.
        let connector = Connector::new(Timeout::new(connector, limits.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .http1_max_buf_size(READ_AHEAD)
            .build(connector);
        Self {
            client,
            uri: settings.uri,
            headers: settings.headers,
            identity: settings.identity,
            tokens: settings.tokens,
            answer_timeout: limits.answer_timeout,
        }
    }

    /// The certificate that it is shown.
    pub(super) fn identity(&self) -> Option<&ClientIdentity> {
        self.identity.as_ref()
    }

    /// The tokens that it takes.
    pub(super) fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// What a request of `chain` is sent with; without one, a request of the proxy's own.
    pub(super) async fn credential(&self, chain: Option<&VerifiedChain>) -> Result<Credential, Refusal> {
        let Some(tokens) = &self.tokens else {
            return Ok(Credential::default());
        };
        let whose = match chain {
            None => Whose::Own,
            Some(chain) => tokens.whose(chain)?,
        };
        match tokens.get(&whose).await {
            Ok(token) => Ok(Credential(Some((whose, token)))),
            Err(failure) => {
                let refusal = Refusal::from(failure);
                if refusal.rule() == rules::TOKEN && rules::TOKEN.holds(false) {
                    return Ok(Credential::default());
                }
                Err(refusal)
            }
        }
    }

    pub(super) async fn send(
        &self,
        outbound: Outbound,
        credential: &Credential,
        again: Again<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let (method, headers) = (outbound.method, outbound.headers);
        self.exchange(method, headers, outbound.body, credential, again)
            .await
    }

    /// Sends a request of the proxy's own.
    pub(super) async fn ask(&self, own: OwnRequest) -> Result<Response<Body>, Refusal> {
        let (method, headers, body) = own.into_parts();
        let credential = self.credential(None).await?;
        self.exchange(method, headers, body, &credential, &|| Ok(()))
            .await
    }

    async fn exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        credential: &Credential,
        again: Again<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let mut until = Instant::now() + self.answer_timeout;
        let (Some(tokens), Some((whose, token))) = (&self.tokens, &credential.0) else {
            let answer = self.request(method.clone(), headers, body, until).await?;
            return admit(&method, answer, until).await;
        };
        let with = bearing(&headers, token)?;
        let mut answer = self.request(method.clone(), with, body.clone(), until).await?;
        // Its token was not taken, so nothing was done: the same may be asked with another one, once.
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(other) = tokens.instead_of(whose, token).await
        {
            again()?;
            drop(answer);
            until = Instant::now() + self.answer_timeout;
            let with = bearing(&headers, &other)?;
            answer = self.request(method.clone(), with, body, until).await?;
        }
        admit(&method, answer, until).await
    }

    /// Sends one request, and waits for the head of its answer until `until`.
    async fn request(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        until: Instant,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        for (name, value) in &self.headers {
            crate::headers::set(request.headers_mut(), name, value);
        }
        let flooded = flooded(&mut request);
        let answered = tokio::select! {
            answered = tokio::time::timeout_at(until, self.client.request(request)) => answered,
            // Reading on would keep a thread busy for as long as the answer may take.
            () = flooded.notified() => return Err(Refusal::Upstream("it sends interim answers without end")),
        };
        match answered {
            Err(_) => Err(Refusal::Upstream("it did not answer in time")),
            Ok(Err(error)) => {
                let causes = causes(&error);
                if is_certificate(&error) {
                    tracing::error!(uri = %self.uri, causes, "the upstream's certificate is not accepted");
                    return Err(Refusal::Upstream("its certificate is not accepted"));
                }
                tracing::warn!(uri = %self.uri, causes, "the upstream cannot be reached");
                Err(Refusal::Upstream("it cannot be reached"))
            }
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

/// The headers together with a token. What a caller may have sent in its place is not there any more.
fn bearing(headers: &HeaderMap, token: &Token) -> Result<HeaderMap, Refusal> {
    let text = Zeroizing::new(format!("Bearer {}", token.value().expose()));
    let value = HeaderValue::from_str(&text);
    let mut value = value.map_err(|_| Refusal::Upstream("its token does not fit into a header"))?;
    value.set_sensitive(true);
    let mut headers = headers.clone();
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

/// Tells when a request got more interim answers than anybody needs.
fn flooded(request: &mut Request<Full<Bytes>>) -> Arc<Notify> {
    let (flooded, count) = (Arc::new(Notify::new()), AtomicU32::new(0));
    let tell = Arc::clone(&flooded);
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == MAX_INTERIM {
            tell.notify_one();
        }
    });
    flooded
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
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    // An IO error shows the source of what it wraps as its own.
    let wrapped = error.downcast_ref::<std::io::Error>();
    match wrapped.and_then(std::io::Error::get_ref) {
        Some(wrapped) => is_certificate(wrapped),
        None => error.source().is_some_and(is_certificate),
    }
}

impl std::fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpUpstream")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use taper_service::edge::{Bound, EdgeLimits, Tls};
    use taper_service::shutdown::Shutdown;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn a_certificate_that_is_not_accepted_is_told_from_other_troubles() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("c.pem"), pair.cert.pem()).unwrap();
        let key = pair.signing_key.serialize_pem();
        taper_service::secret::write_private_file(&folder.path().join("k.pem"), key.as_bytes()).unwrap();
        let config = taper_service::config::parse("certificate = 'c.pem'\nkey = 'k.pem'", "x").unwrap();
        let tls = Tls::load(&config, folder.path(), 1_800_000_000).unwrap();
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
        let service = service_fn(|_: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(crate::body::empty())))
        });
        shutdown.spawn("up", bound.over(Some(&tls)).serve(service, shutdown.clone()));
        let ask = async |uri: String, pem: Option<&[u8]>| {
            let uri: Uri = uri.parse().unwrap();
            let settings = HttpSettings {
                uri: uri.clone(),
                headers: Vec::new(),
                tls: client_config(pem, None).unwrap(),
                identity: None,
                tokens: None,
            };
            let upstream = HttpUpstream::new(settings, &Limits::default());
            let mut request = Request::new(Full::default());
            *request.uri_mut() = uri;
            upstream.client.request(request).await.map(drop)
        };
        let pem = pair.cert.pem();
        let believed = || Some(pem.as_bytes());
        ask(format!("https://{addr}/"), believed()).await.unwrap();
        let stranger = ask(format!("https://{addr}/"), None).await.unwrap_err();
        assert!(is_certificate(&stranger), "{}", causes(&stranger));
        assert!(
            causes(&stranger).contains("UnknownIssuer"),
            "{}",
            causes(&stranger)
        );
        let clear = ask(format!("http://{addr}/"), None).await.unwrap_err();
        assert!(!is_certificate(&clear), "{}", causes(&clear));
        shutdown.trigger();
        shutdown.drain(Duration::from_secs(20)).await.unwrap();
        let nobody = ask(format!("https://{addr}/"), believed()).await.unwrap_err();
        assert!(!is_certificate(&nobody), "{}", causes(&nobody));
    }
}
