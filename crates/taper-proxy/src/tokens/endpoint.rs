//! Where tokens are asked for: at a configured place, or where the authorization server's metadata says
//! (RFC 8414, else OpenID Connect Discovery; RFC 8705 §5 for who shows a certificate). The metadata is read
//! once for all who wait for it, and a failure is told to all of them.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::StatusCode;
use taper_oauth::{AuthorizationServerMetadata, WireError, metadata, uri};
use taper_service::fetch::{Fetcher, Request};

use super::Cause;
use super::ask::{Failed, TIMEOUT};

/// How long metadata counts, in seconds.
const LIFE: i64 = 3600;

/// The token endpoint.
pub(super) enum Endpoint {
    /// As configured.
    Fixed(String),
    /// As metadata says.
    Told(Told),
}

/// The token endpoint that the metadata of an issuer names.
pub(super) struct Told {
    by: By,
    state: Mutex<State>,
}

/// Whose metadata is read, and for which client.
#[derive(Clone)]
struct By {
    issuer: String,
    /// Whether the client shows a certificate.
    shows_certificate: bool,
    /// Whether the endpoint may be on loopback without TLS.
    allow_loopback_http: bool,
}

/// A reading that is under way.
type Reading = Shared<BoxFuture<'static, Result<String, Failed>>>;

#[derive(Default)]
struct State {
    /// What it says, and when that was read, in seconds since the Unix epoch.
    known: Option<(String, i64)>,
    reading: Option<Reading>,
}

impl Endpoint {
    /// The one that the metadata of `issuer` names.
    pub(super) fn of(issuer: &str, shows_certificate: bool, allow_loopback_http: bool) -> Self {
        Self::Told(Told {
            by: By {
                issuer: issuer.to_owned(),
                shows_certificate,
                allow_loopback_http,
            },
            state: Mutex::default(),
        })
    }

    /// Where it is. `now` is in seconds since the Unix epoch.
    pub(super) async fn get(&self, fetcher: &Fetcher, now: i64) -> Result<String, Failed> {
        match self {
            Self::Fixed(endpoint) => Ok(endpoint.clone()),
            Self::Told(told) => told.get(fetcher, now).await,
        }
    }

    /// What is known of it holds no more.
    pub(super) fn forget(&self) {
        if let Self::Told(told) = self {
            told.lock().known = None;
        }
    }
}

impl Told {
    async fn get(&self, fetcher: &Fetcher, now: i64) -> Result<String, Failed> {
        let reading = {
            let mut state = self.lock();
            if let Some((endpoint, read)) = &state.known
                && (0..LIFE).contains(&now.saturating_sub(*read))
            {
                return Ok(endpoint.clone());
            }
            // A panic would stay here for all who come later.
            let begin = || {
                let reading = AssertUnwindSafe(read(self.by.clone(), fetcher.clone())).catch_unwind();
                let broken = || Failed::new(Cause::Malformed, true, "the reading of its metadata broke");
                let outcome = reading.map(move |outcome| outcome.unwrap_or_else(|_| Err(broken())));
                outcome.boxed().shared()
            };
            state.reading.get_or_insert_with(begin).clone()
        };
        let outcome = reading.clone().await;
        let mut state = self.lock();
        // The first of those who waited; another reading may have begun since.
        if state.reading.as_ref().is_some_and(|other| other.ptr_eq(&reading)) {
            state.reading = None;
            if let Ok(endpoint) = &outcome {
                state.known = Some((endpoint.clone(), now));
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the metadata once.
async fn read(by: By, fetcher: Fetcher) -> Result<String, Failed> {
    // What a parser says could quote the document.
    let malformed = |reason: &str| Failed::new(Cause::Malformed, true, reason);
    let places = [
        uri::authorization_server_metadata(&by.issuer).map_err(|_| malformed("the issuer is no url"))?,
        uri::openid_configuration(&by.issuer).map_err(|_| malformed("the issuer is no url"))?,
    ];
    let mut document = None;
    for place in places {
        let request = Request::get(place.as_str())
            .timeout(TIMEOUT)
            .max_bytes(metadata::MAX_DOCUMENT);
        let answer = fetcher
            .send(request)
            .await
            .map_err(|error| Failed::unanswered(&error))?;
        if answer.status == StatusCode::OK {
            document = Some(answer.body);
            break;
        }
        if answer.status.is_server_error() {
            let reason = format!("its metadata: status {}", answer.status.as_u16());
            return Err(Failed::new(Cause::Unreachable, true, reason));
        }
    }
    let document = document.ok_or_else(|| malformed("it has no metadata"))?;
    let document =
        AuthorizationServerMetadata::parse(&document, &by.issuer).map_err(|error| match error {
            WireError::Identity { .. } => malformed("its metadata names another issuer"),
            _ => malformed("its metadata cannot be read"),
        })?;
    let endpoint = document
        .token_endpoint_for(by.shows_certificate)
        .ok_or_else(|| malformed("its metadata names no token endpoint"))?;
    // Without TLS nobody sees a certificate.
    uri::secure(endpoint, by.allow_loopback_http && !by.shows_certificate)
        .map_err(|_| malformed("its metadata names a token endpoint that is not called"))?;
    Ok(endpoint.to_owned())
}
