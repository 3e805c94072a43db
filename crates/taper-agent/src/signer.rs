//! Signs the requests that another library sends: to one URL, with one credential, over the bytes that
//! go out (`spec/presentation.md`).
//!
//! The adapters for `reqwest-middleware` and rmcp share this.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Client, redirect, retry};
use taper_dpop::ProofClaims;
use taper_service::clock::SharedClock;
use taper_service::rng;
use url::Url;

use crate::proven::{self, DPOP, MAX_NONCE};
use crate::{Credential, Error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Signs requests to one URL. It keeps the server's newest nonce, so one signer for all requests to a
/// server saves round trips.
pub struct Signer {
    url: Url,
    credential: RwLock<Arc<Credential>>,
    clock: SharedClock,
    nonce: Mutex<Option<String>>,
}

impl Signer {
    /// A signer of requests to the URL `text`. TLS, or plain HTTP on loopback.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(text: &str, credential: Credential, clock: SharedClock) -> Result<Arc<Self>, Error> {
        let refused = |reason: &str| Error::Url {
            url: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (url, loopback) = proven::callable(text)?;
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(refused("only https is allowed, and http on loopback")),
        }
        Ok(Arc::new(Self {
            url,
            credential: RwLock::new(Arc::new(credential)),
            clock,
            nonce: Mutex::new(None),
        }))
    }

    /// The URL that is signed for.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// From now on signs with `credential`: a capability ends, its server does not.
    pub fn replace(&self, credential: Credential) {
        *self.credential.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credential);
    }

    /// What is signed with at the moment.
    pub fn credential(&self) -> Arc<Credential> {
        Arc::clone(&self.credential.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An HTTP client that suits [`Self::sign`]: it follows no redirects, since a proof is for one URL,
    /// and repeats nothing, since a proof is good once. It reads no proxy from the environment and sets
    /// no limit on the whole exchange: an event stream has none.
    ///
    /// # Errors
    /// [`Error::Request`] when there are no usable certificate authorities.
    pub fn http_client(&self) -> Result<Client, Error> {
        let plain = self.url.scheme() == "http";
        let builder = Client::builder()
            .https_only(!plain)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT);
        // Nothing that goes over loopback needs a certificate authority.
        let builder = if plain {
            builder.tls_certs_only([])
        } else {
            builder
        };
        builder
            .build()
            .map_err(|e| Error::Request(format!("there is no HTTP client: {e}")))
    }

    /// Whether `url` is the one that this signer signs for: same origin, same path. Its query is not
    /// compared, since a proof does not name it (RFC 9449 section 4.2).
    pub fn covers(&self, url: &Url) -> bool {
        url.origin() == self.url.origin() && url.path() == self.url.path()
    }

    /// Puts capability and proof into `headers`, in place of what was there. `body` is what goes out,
    /// to the byte; none where the method has no body.
    ///
    /// # Errors
    /// [`Error::Key`] when the key cannot sign.
    pub async fn sign(
        &self,
        method: &Method,
        body: Option<&[u8]>,
        headers: &mut HeaderMap,
    ) -> Result<(), Error> {
        let credential = self.credential();
        let nonce = self.nonce().clone();
        let mut claims = ProofClaims::new(
            method.as_str(),
            self.url.as_str(),
            self.clock.unix(),
            &mut rng::os(),
        )
        .nonce(nonce.as_deref())
        .token(credential.token());
        if let Some(body) = body {
            claims = claims.body(body);
        }
        let proof = credential.key().prove(&claims).await?;
        headers.insert(DPOP, proven::secret_value(&proof)?);
        let presented = format!("DPoP {}", credential.token());
        headers.insert(AUTHORIZATION, proven::secret_value(&presented)?);
        Ok(())
    }

    /// Reads the head of an answer: whether the same request, signed anew, would now be heard because
    /// the server asked for a nonce and sent it along. A caller repeats a request at most once.
    pub fn asks_again(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let fresh = headers
            .get(proven::DPOP_NONCE)
            .map(HeaderValue::to_str)
            .and_then(Result::ok)
            .filter(|nonce| nonce.len() <= MAX_NONCE);
        if let Some(fresh) = fresh {
            *self.nonce() = Some(fresh.to_owned());
        }
        fresh.is_some() && proven::challenges_nonce(status, headers)
    }

    fn nonce(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {:?})", self.url, self.credential())
    }
}
