//! What callers without a token are told (`spec/proxy.md`, "Before login"; M-47).
//!
//! Clients list a server's tools before their user logs in. With `discovery = "catalogue"` they get what
//! the operator approved, from the file of pins: the same bytes for everybody, and the server hears
//! nothing of it. Whoever sends any credentials is judged as always; there is no way back to this from
//! refused ones. No session begins here: the id that is given belongs to nobody, so that it is answered
//! as an unknown one after login, and the client begins anew.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use taper_capability::json::Value;
use taper_oauth::{Scope, ScopeTool};
use taper_service::edge::{BoxError, read_body};
use taper_service::rng;

use crate::body::{Body, empty};
use crate::error::AnswerContext;
use crate::headers::{self, SESSION};
use crate::message::{Era, MODERN, Message, Received};
use crate::methods::{self, List};
use crate::pins::Shown;
use crate::profile::Profile;
use crate::refusal::Refusal;
use crate::rules;
use crate::service::Server;

/// The largest body that is read of a caller without a token, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// How long it may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);
/// The longest id of a request that is repeated in an answer, in bytes.
const MAX_ID: usize = 128;

/// Whether a request could be answered here: it has no credentials at all.
pub(crate) fn is_anonymous(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::AUTHORIZATION) && !headers.contains_key(headers::DPOP)
}

/// Answers a request without credentials, of which the head is in order.
///
/// # Errors
/// M-47 for all that is not shown, with the scope that it needs in `context`; M-48, M-40. All of them are
/// a challenge: who is refused for others' sake can still log in.
pub(crate) async fn answer(
    server: &Server,
    request: Request<Incoming>,
    address: Option<IpAddr>,
    context: &mut AnswerContext,
) -> Result<Response<Body>, Refusal> {
    let Some(addresses) = &server.addresses else {
        return Err(Refusal::NoCredentials);
    };
    let _place = addresses.admit(address)?;
    match *request.method() {
        Method::POST => {}
        // What a server without such a stream says: a client goes on without it, and not to the login.
        Method::GET => return Err(Refusal::Method { allow: "POST" }),
        _ => return Err(Refusal::LoginNeeded),
    }
    if !headers::is_json(request.headers()) {
        return Err(Refusal::LoginNeeded);
    }
    let (parts, body) = request.into_parts();
    let max = MAX_BODY.min(server.profile.limits.max_body);
    let time = BODY_TIME.min(server.profile.limits.body_timeout);
    let body = read_body(body, max, time)
        .await
        .map_err(|_| Refusal::LoginNeeded)?;
    let shown = server.catalogue.pinned().and_then(|pinned| pinned.shown());
    let shown = shown.ok_or(Refusal::LoginNeeded)?;
    told(&shown, &server.profile, &parts.headers, &body, context)
}

/// The answer to one message. What is wrong with a message is not told to who proves nothing.
fn told(
    shown: &Shown,
    profile: &Profile,
    headers: &HeaderMap,
    body: &[u8],
    context: &mut AnswerContext,
) -> Result<Response<Body>, Refusal> {
    let Ok(Received::Message(message)) = Received::parse(body, MAX_BODY) else {
        return Err(Refusal::LoginNeeded);
    };
    let Ok(era) = message.check_headers(headers) else {
        return Err(Refusal::LoginNeeded);
    };
    if message.method == "tools/call" {
        if let Some(scope) = scope_of(shown, profile, &message) {
            context.scopes = vec![scope];
        }
        return Err(Refusal::LoginNeeded);
    }
    if !methods::exists_in(&message.method, era) {
        return Err(Refusal::LoginNeeded);
    }
    // Each list is whole, and a cursor is a server's own.
    if !rules::LOGIN.holds(message.params.get("cursor").is_none()) {
        return Err(Refusal::LoginNeeded);
    }
    let Some(id) = &message.id else {
        let begins = message.method == "notifications/initialized";
        return if begins && shown.initialize.is_some() {
            Ok(with_status(StatusCode::ACCEPTED, empty()))
        } else {
            Err(Refusal::LoginNeeded)
        };
    };
    let id = id.to_string();
    if id.len() > MAX_ID {
        return Err(Refusal::LoginNeeded);
    }
    let result = result_of(shown, &message, era).ok_or(Refusal::LoginNeeded)?;
    // The result is the same memory for all, also for those who do not read it.
    let head = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#));
    let parts = [head, result, Bytes::from_static(b"}")];
    let frames = parts.map(|part| Ok::<_, BoxError>(Frame::data(part)));
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    let mut response = with_status(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if message.method == "initialize" && shown.sessions {
        // Nobody owns it and nobody ever will: nothing remembers it.
        let session = rng::random_id_128(&mut rng::os());
        if let Ok(session) = HeaderValue::try_from(session) {
            headers.insert(SESSION, session);
        }
    }
    Ok(response)
}

fn result_of(shown: &Shown, message: &Message, era: Era) -> Option<Bytes> {
    let list = |list: List| Some(shown.list(list, era));
    match era {
        Era::Legacy => shown.initialize.as_ref()?,
        // A revision that is not this one may mean something else by the same words.
        Era::Modern if message.claimed_revision() == Some(MODERN) => shown.discover.as_ref()?,
        Era::Modern => return None,
    };
    match message.method.as_str() {
        "initialize" => shown.initialize.clone(),
        "server/discover" if era == Era::Modern => shown.discover.clone(),
        "ping" => Some(Bytes::from_static(b"{}")),
        "tools/list" => list(List::Tools),
        "prompts/list" => list(List::Prompts),
        "resources/list" => list(List::Resources),
        "resources/templates/list" => list(List::Templates),
        _ => None,
    }
}

/// The scope for a call, of a tool that everybody is shown.
fn scope_of(shown: &Shown, profile: &Profile, message: &Message) -> Option<String> {
    let tool = message.params.get("name").and_then(Value::as_str)?;
    let tool = shown.tools.contains(tool).then(|| tool.to_owned())?;
    let scope = Scope::new(&profile.id, ScopeTool::Tool(tool)).ok()?;
    Some(scope.to_string())
}

fn with_status(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // An answer to a caller with a token is another one.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
