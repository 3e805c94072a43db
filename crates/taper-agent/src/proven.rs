//! Requests that carry a DPoP proof (RFC 9449): signed, sent, and sent once more when the server
//! asks for a nonce.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use taper_dpop::ProofClaims;
use taper_oauth::{Challenge, ErrorBody, ErrorCode};
use taper_service::clock::Clock;
use taper_service::fetch::{DEFAULT_MAX_BYTES, FetchRules, Fetched, Fetcher, Request};
use taper_service::rng;
use url::{Host, Url};

use crate::{Error, HolderKey};

pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The longest nonce that is sent back, in bytes: with more, a proof would be over its own limit.
pub(crate) const MAX_NONCE: usize = 512;

/// A fetcher for calls to `url`: TLS only, or plain HTTP when the URL's own host is loopback.
///
/// # Errors
/// [`Error::Url`], [`Error::Fetch`].
pub fn fetcher_for(url: &str) -> Result<Fetcher, Error> {
    let (url, allow_loopback_http) = callable(url)?;
    Ok(Fetcher::new(&FetchRules {
        allow_loopback_http,
        // The user named this host, so its address may be of the user's own network.
        trusted_hosts: url.host_str().map(str::to_owned).into_iter().collect(),
        ..FetchRules::default()
    })?)
}

/// A URL that a user named, and whether its host is loopback.
pub(crate) fn callable(text: &str) -> Result<(Url, bool), Error> {
    let refused = |reason: &str| Error::Url {
        url: text.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|_| refused("it is not an absolute URL"))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(refused("it has no host")),
    };
    Ok((url, loopback))
}

/// Who signs, and over which token.
#[derive(Clone, Copy)]
pub(crate) struct Prover<'a> {
    pub(crate) key: &'a HolderKey,
    /// The token that `ath` names.
    pub(crate) token: Option<&'a str>,
    /// Whether the token is also the request's credential.
    pub(crate) presents: bool,
}

/// One request to be signed: a POST of `body`, or a method without one.
pub(crate) struct Outgoing {
    method: Method,
    url: String,
    content_type: Option<&'static str>,
    body: Bytes,
    pub(crate) headers: HeaderMap,
    /// The limit of the answer, in bytes.
    pub(crate) max_bytes: usize,
    /// For the whole exchange, in place of the fetcher's own.
    pub(crate) timeout: Option<Duration>,
}

impl Outgoing {
    pub(crate) fn post(url: &str, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: Some(content_type),
            body: body.into(),
            ..Self::bare(Method::POST, url)
        }
    }

    pub(crate) fn bare(method: Method, url: &str) -> Self {
        Self {
            method,
            url: url.to_owned(),
            content_type: None,
            body: Bytes::new(),
            headers: HeaderMap::new(),
            max_bytes: DEFAULT_MAX_BYTES,
            timeout: None,
        }
    }
}

/// Signs and sends; a demand for a nonce is met once. The server's newest nonce is left in `nonce`.
pub(crate) async fn send(
    fetcher: &Fetcher,
    clock: &dyn Clock,
    prover: Prover<'_>,
    outgoing: Outgoing,
    nonce: &mut Option<String>,
) -> Result<Fetched, Error> {
    let first = send_once(fetcher, clock, prover, &outgoing, nonce).await?;
    if !demands_nonce(&first) || !first.headers.contains_key(DPOP_NONCE) {
        return Ok(first);
    }
    send_once(fetcher, clock, prover, &outgoing, nonce).await
}

async fn send_once(
    fetcher: &Fetcher,
    clock: &dyn Clock,
    prover: Prover<'_>,
    outgoing: &Outgoing,
    nonce: &mut Option<String>,
) -> Result<Fetched, Error> {
    let mut claims = ProofClaims::new(
        outgoing.method.as_str(),
        &outgoing.url,
        clock.unix(),
        &mut rng::os(),
    )
    .nonce(nonce.as_deref());
    if outgoing.content_type.is_some() {
        claims = claims.body(&outgoing.body);
    }
    if let Some(token) = prover.token {
        claims = claims.token(token);
    }
    let request = match outgoing.content_type {
        Some(kind) => Request::post(
            &outgoing.url,
            HeaderValue::from_static(kind),
            outgoing.body.clone(),
        ),
        None => Request::new(outgoing.method.clone(), &outgoing.url),
    };
    let mut request = request
        .headers(outgoing.headers.clone())
        .header(DPOP, secret_value(&prover.key.prove(&claims).await?)?)
        .max_bytes(outgoing.max_bytes);
    if let Some(token) = prover.token.filter(|_| prover.presents) {
        request = request.header(AUTHORIZATION, secret_value(&format!("DPoP {token}"))?);
    }
    if let Some(timeout) = outgoing.timeout {
        request = request.timeout(timeout);
    }
    let answer = fetcher.send(request).await?;
    let fresh = answer.headers.get(DPOP_NONCE).and_then(|v| v.to_str().ok());
    if let Some(fresh) = fresh.filter(|fresh| fresh.len() <= MAX_NONCE) {
        *nonce = Some(fresh.to_owned());
    }
    Ok(answer)
}

/// A header value that HTTP libraries neither print nor index.
pub(crate) fn secret_value(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Error::Request("a credential holds characters that no header may".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The DPoP challenge of an answer, the first that there is.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| Challenge::parse_all(value).ok())
        .flatten()
        .find(Challenge::is_dpop)
}

/// An authorization server says so in its body (RFC 9449 section 8), a resource server in its
/// challenge (section 9).
fn demands_nonce(answer: &Fetched) -> bool {
    match answer.status.as_u16() {
        400 => ErrorBody::parse(&answer.body).is_ok_and(|body| body.code() == Some(ErrorCode::UseDpopNonce)),
        _ => challenges_nonce(answer.status, &answer.headers),
    }
}

/// Whether a resource server asks for a nonce.
pub(crate) fn challenges_nonce(status: StatusCode, headers: &HeaderMap) -> bool {
    let code = ErrorCode::UseDpopNonce.as_str();
    status == StatusCode::UNAUTHORIZED && challenge(headers).is_some_and(|c| c.param("error") == Some(code))
}
