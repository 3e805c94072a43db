//! A reverse proxy of one URL for programs of this machine: the same bytes in both directions, as they
//! arrive; listed headers; credentials of its own.
//!
//! A page in a browser must not reach it (Host and Origin are checked), and neither must other users'
//! programs: on loopback each client has a secret, and a Unix socket is its owner's alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use taper_service::edge::{BodyError, Bound, BoxError, read_body};
use taper_service::secret::Secret;
use taper_service::shutdown::Shutdown;
use tower::service_fn;

use super::channel::{Channel, Place, Upward};
use super::clients::Client;
use super::headers;
use super::trouble::{Trouble, id_of};

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Who may use a listener.
#[derive(Debug)]
pub enum Admission {
    /// Programs that present one of these secrets, each with its own conversation.
    Secrets(Vec<(Client, Arc<Channel>)>),
    /// Whoever can connect, in one conversation.
    Anyone(Arc<Channel>),
}

/// What a listener answers.
#[derive(Debug)]
struct Front {
    /// The authorities that name this listener; without any, no name is wrong (a Unix socket).
    hosts: Vec<String>,
    path: String,
    by_secret: Vec<(Secret, Arc<Channel>)>,
    anyone: Option<Arc<Channel>>,
}

/// Answers requests over loopback until `shutdown` is triggered.
///
/// # Errors
/// None while it runs; what is wrong with one connection ends that.
pub async fn serve(bound: Bound, admission: Admission, shutdown: Shutdown) {
    let front = Arc::new(Front::new(authorities(bound.local_addr()), admission));
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    });
    bound.serve(service, shutdown).await;
}

/// Answers requests of this user's programs over a Unix socket until `shutdown` is triggered.
#[cfg(unix)]
pub async fn serve_unix(bound: taper_service::edge::UnixBound, channel: Arc<Channel>, shutdown: Shutdown) {
    let front = Arc::new(Front::new(Vec::new(), Admission::Anyone(channel)));
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    });
    bound.serve(service, shutdown).await;
}

impl Front {
    fn new(hosts: Vec<String>, admission: Admission) -> Self {
        let (by_secret, anyone) = match admission {
            Admission::Anyone(channel) => (Vec::new(), Some(channel)),
            Admission::Secrets(clients) => {
                let clients = clients.into_iter();
                let by_secret = clients.map(|(client, channel)| (client.secret, channel));
                (by_secret.collect(), None)
            }
        };
        let first = anyone.as_ref().or(by_secret.first().map(|(_, channel)| channel));
        Self {
            hosts,
            path: first.map(|channel| channel.path().to_owned()).unwrap_or_default(),
            by_secret,
            anyone,
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let channel = match self.admit(&request) {
            Ok(channel) => Arc::clone(channel),
            Err(refused) => return *refused,
        };
        let (parts, body) = request.into_parts();
        let (place, body) = match take(&channel, &parts.method, body).await {
            Ok(taken) => taken,
            Err(trouble) => return refusal(&trouble, &[]),
        };
        let upward = Upward {
            method: parts.method,
            headers: headers::up(&parts.headers),
            body,
        };
        match channel.send(&upward).await {
            Ok(answer) => {
                let chunks = stream::try_unfold((answer.body, place), async |(mut body, place)| {
                    let chunk = body.chunk().await?;
                    Ok::<_, BoxError>(chunk.map(|chunk| (Frame::data(chunk), (body, place))))
                });
                let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
                *response.status_mut() = answer.status;
                *response.headers_mut() = headers::down(&answer.headers);
                response
            }
            Err(trouble) => refusal(&trouble, &upward.body),
        }
    }

    /// Whose request it is, by its head alone.
    fn admit<B>(&self, request: &Request<B>) -> Result<&Arc<Channel>, Box<Response<Body>>> {
        let headers = request.headers();
        let stranger = |why| Err(Box::new(refusal(&Trouble::Stranger(why), &[])));
        if !self.is_named(request) {
            return stranger("the request's Host is not this listener; use the URL that the bridge printed");
        }
        if !self.is_own_origin(headers) {
            return stranger("the request comes from a page of another origin");
        }
        let Some(channel) = self.channel(headers) else {
            return stranger(
                "the client's secret is missing or wrong: send the header `Authorization: Bearer SECRET` \
                 with the contents of the client's secret file (`taper bridge --print-config` shows where)",
            );
        };
        if request.uri().path() != self.path || request.uri().query().is_some() {
            return Err(Box::new(bare(StatusCode::NOT_FOUND)));
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = HeaderValue::from_static("POST, GET, DELETE");
            response.headers_mut().insert(ALLOW, allowed);
            return Err(Box::new(response));
        }
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(Box::new(bare(StatusCode::UNSUPPORTED_MEDIA_TYPE)));
        }
        Ok(channel)
    }

    /// Against names of others that lead to this address (DNS rebinding).
    fn is_named<B>(&self, request: &Request<B>) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let is_own = |name: &str| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        let written = single(request.headers(), &HOST);
        let in_target = request.uri().authority().map(|authority| authority.as_str());
        match (in_target, written) {
            (None, Ok(Some(host))) => is_own(host),
            (Some(authority), Ok(host)) => is_own(authority) && host.is_none_or(is_own),
            _ => false,
        }
    }

    fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        match single(headers, &ORIGIN) {
            Ok(None) => true,
            Ok(Some(origin)) => origin
                .strip_prefix("http://")
                .is_some_and(|name| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))),
            Err(()) => false,
        }
    }

    /// All secrets are compared, each in constant time.
    fn channel(&self, headers: &HeaderMap) -> Option<&Arc<Channel>> {
        if self.anyone.is_some() {
            return self.anyone.as_ref();
        }
        let (scheme, given) = single(headers, &AUTHORIZATION).ok()??.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let given = given.trim().as_bytes();
        // No early end: all of them are compared.
        self.by_secret
            .iter()
            .fold(None, |found, (secret, channel)| match secret.matches(given) {
                true => Some(channel),
                false => found,
            })
    }
}

/// A place, and the body of a POST.
async fn take(channel: &Channel, method: &Method, body: Incoming) -> Result<(Place, Bytes), Trouble> {
    let place = channel.place()?;
    if method != Method::POST {
        return Ok((place, Bytes::new()));
    }
    let limits = channel.limits();
    let read = read_body(body, limits.max_body, limits.body_timeout).await;
    let body = read.map_err(|error| match error {
        BodyError::TooLarge { max_bytes } => Trouble::TooLarge(max_bytes),
        BodyError::TimedOut | BodyError::Broken => Trouble::Incomplete,
    })?;
    Ok((place, body))
}

/// The names of a listener: its address, and `localhost`.
fn authorities(address: SocketAddr) -> Vec<String> {
    vec![address.to_string(), format!("localhost:{}", address.port())]
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// What the bridge says itself, as the answer to the request in `body`.
fn refusal(trouble: &Trouble, body: &[u8]) -> Response<Body> {
    let message = trouble.to_message(&id_of(body)).to_string();
    let length = message.len();
    let mut response = bare(trouble.status());
    *response.body_mut() = Full::from(message).map_err(|never| match never {}).boxed_unsync();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
