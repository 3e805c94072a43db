//! The HTTP service: routes, and one request from its head to its answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use taper_oauth::ProtectedResourceMetadata;
use taper_service::clock::SharedClock;
use taper_service::edge::{BodyError, CallerCertificate, PeerAddr, read_body};
use taper_service::health::Health;
use taper_service::pool::{CpuPool, PoolError};
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use taper_store::{Audit, EmbeddedStore, Outcome, Record, RecordKind};
use tokio::time::Instant;

use crate::account::{Account, Kind, Worked, worked};
use crate::before_login;
use crate::body::{Body, full};
use crate::catalogue::Catalogue;
use crate::error::{AnswerContext, respond};
use crate::forward::Leaving;
use crate::gate::{Asked, Gate, Judgement};
use crate::headers::{self, Credentials, Names};
use crate::limits::{Addresses, Limiter};
use crate::measured::Measured;
use crate::outstanding::Sessions;
use crate::permitted::{Outbound, Permitted};
use crate::profile::Profile;
use crate::refusal::Refusal;
use crate::rules;
use crate::tasks::Tasks;
use crate::traced::Traces;
use crate::upstream::Upstream;

const METADATA_PREFIX: &str = "/.well-known/oauth-protected-resource";
const METRICS: &str = "/metrics";
/// Where the keys lie by which the proxy's assertions are verified.
const KEYS: &str = "/.well-known/jwks.json";
const ALLOW: &str = "POST, GET, DELETE";

/// The largest body, in bytes, that is read where the request is.
const SHORT_BODY: usize = 8 * 1024;

/// Everything that requests share.
pub(crate) struct Shared {
    pub(crate) servers: BTreeMap<String, Arc<Server>>,
    /// The JWK set of what the proxy signs for authorization servers of upstreams.
    pub(crate) keys: Option<Bytes>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) names: Names,
    pub(crate) trusted_hops: usize,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) measured: Arc<Measured>,
    /// Where spans go, if they do.
    pub(crate) traces: Option<Traces>,
    /// Whether the lines of the request log name the subject.
    pub(crate) log_subject: bool,
}

/// One server.
pub(crate) struct Server {
    pub(crate) profile: Arc<Profile>,
    pub(crate) upstream: Upstream,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) limiter: Arc<Limiter>,
    /// Where callers without a token are told anything.
    pub(crate) addresses: Option<Addresses>,
    pub(crate) catalogue: Arc<Catalogue>,
}

/// Answers one request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    shutdown: Shutdown,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut context = AnswerContext {
        decision_id: rng::random_id_128(&mut rng::os()),
        ..AnswerContext::default()
    };
    let mut account = Account::open(&shared.measured, &context.decision_id, shared.log_subject);
    account.certificate(request.extensions().get::<CallerCertificate>());
    account.within(&mut request, shared.traces.as_ref(), shared.clock.unix_millis());
    let response = answer_in(&shared, &shutdown, request, &mut context, &mut account).await;
    Ok(account.follow(response))
}

async fn answer_in(
    shared: &Shared,
    shutdown: &Shutdown,
    request: Request<Incoming>,
    context: &mut AnswerContext,
    account: &mut Account,
) -> Response<Body> {
    let path = request.uri().path();
    if let Some(answered) = shared.health(&request, false) {
        account.page(Kind::Health);
        return own(answered, account);
    }
    if let Some(id) = path.strip_prefix(METADATA_PREFIX).and_then(server_id)
        && let Some(server) = shared.servers.get(id)
    {
        account.server(id);
        account.page(Kind::Metadata);
        return own(shared.metadata(request.method(), &server.profile), account);
    }
    if let (KEYS, Some(keys)) = (path, &shared.keys) {
        account.page(Kind::Metadata);
        return own(document(request.method(), keys.clone()), account);
    }
    let server = server_id(path).and_then(|id| shared.servers.get(id)).cloned();
    let Some(server) = server else {
        return own(Err(Refusal::Path), account);
    };
    account.server(&server.profile.id);
    context.deny_style = server.profile.deny_style;
    match shared.pass(&server, request, context, account, shutdown).await {
        Ok(response) => response,
        Err(refusal) => {
            account.refused(&refusal);
            context.metadata_url = Some(server.profile.metadata_url.clone());
            if context.scopes.is_empty() {
                context.scopes.clone_from(&server.profile.scopes);
            }
            context.nonce = Some(shared.gate.nonce(shared.clock.unix()));
            respond(&refusal, context)
        }
    }
}

/// A page of the proxy's own, or that there is none.
fn own(page: Result<Response<Body>, Refusal>, account: &mut Account) -> Response<Body> {
    page.unwrap_or_else(|refusal| {
        account.refused(&refusal);
        respond(&refusal, &AnswerContext::default())
    })
}

/// Answers one request of an operator.
pub(crate) fn answer_admin<B>(shared: &Shared, request: &Request<B>) -> Response<Body> {
    let page = match request.uri().path() {
        METRICS => shared.metrics(request.method()),
        _ => shared.health(request, true).unwrap_or(Err(Refusal::Path)),
    };
    page.unwrap_or_else(|refusal| respond(&refusal, &AnswerContext::default()))
}

/// A JSON document for everybody.
fn document(method: &Method, text: impl Into<Bytes>) -> Result<Response<Body>, Refusal> {
    only_read(method)?;
    let mut response = Response::new(full(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// The id in `/{id}/mcp`.
fn server_id(path: &str) -> Option<&str> {
    let id = path.strip_prefix('/')?.strip_suffix("/mcp")?;
    (!id.contains('/')).then_some(id)
}

/// Refuses methods that change something.
fn only_read(method: &Method) -> Result<(), Refusal> {
    if [Method::GET, Method::HEAD].contains(method) {
        Ok(())
    } else {
        Err(Refusal::Method { allow: "GET, HEAD" })
    }
}

impl Shared {
    /// `/healthz` and `/readyz`. The latter says what is missing, in lines or, to who asks for it with
    /// `?format=json` or `Accept`, in JSON; it tells names and reasons, no secrets, since anybody may ask.
    /// It also says which tools are not as they were approved; by name to operators.
    pub(crate) fn health<B>(
        &self,
        request: &Request<B>,
        for_operator: bool,
    ) -> Option<Result<Response<Body>, Refusal>> {
        let health = match request.uri().path() {
            "/healthz" => Health::default(),
            "/readyz" => Health {
                missing: self.missing(),
                notes: self.notes(for_operator),
            },
            _ => return None,
        };
        let answer = || health.answer(request).map(full);
        Some(only_read(request.method()).map(|()| answer()))
    }

    /// `/metrics`, on the admin listener alone: it tells how much is going on, and of what kind.
    fn metrics(&self, method: &Method) -> Result<Response<Body>, Refusal> {
        only_read(method)?;
        let mut response = Response::new(full(self.measured.render(self)));
        let headers = response.headers_mut();
        let text = HeaderValue::from_static(taper_service::metrics::CONTENT_TYPE);
        headers.insert(header::CONTENT_TYPE, text);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = self.gate.issuers.unready(self.clock.unix());
        if self.store.check().is_err() {
            missing.push("the store: it has failed".to_owned());
        }
        missing
    }

    /// What ails one server or tool and leaves the others as they are, so that it takes no proxy out of
    /// service: what is not as it was approved, and credentials that cannot be had.
    fn notes(&self, for_operator: bool) -> Vec<String> {
        let pinned = self
            .servers
            .values()
            .filter_map(|server| server.catalogue.pinned());
        let lame = self.servers.iter().filter_map(|(id, server)| {
            let trouble = server.upstream.tokens()?.trouble()?;
            Some(if for_operator {
                format!("upstream credentials of {id}: {trouble}")
            } else {
                format!("upstream credentials of {id}: there are none now")
            })
        });
        pinned
            .flat_map(|pinned| pinned.notes(for_operator))
            .chain(lame)
            .collect()
    }

    /// RFC 9728.
    fn metadata(&self, method: &Method, profile: &Profile) -> Result<Response<Body>, Refusal> {
        let scopes: Vec<&str> = profile.scopes.iter().map(String::as_str).collect();
        let metadata = ProtectedResourceMetadata::for_resource(
            &profile.resource,
            &self.gate.issuers.names(),
            &scopes,
            profile.name.as_deref(),
        );
        document(method, serde_json::to_vec(&metadata).unwrap_or_default())
    }

    async fn pass(
        &self,
        server: &Server,
        request: Request<Incoming>,
        context: &mut AnswerContext,
        account: &mut Account,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        let profile = &server.profile;
        if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
            return Err(Refusal::Method { allow: ALLOW });
        }
        headers::check_head(&request, &self.names)?;
        let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0);
        let client_ip = headers::client_ip(peer, request.headers(), self.trusted_hops);
        if before_login::is_anonymous(request.headers()) {
            let told = before_login::answer(server, request, client_ip, context).await?;
            account.page(Kind::Catalogue);
            return Ok(told);
        }
        let credentials = Credentials::of(request.headers())?;
        if request.body().size_hint().lower() > profile.limits.max_body as u64 {
            return Err(Refusal::BodyTooLarge);
        }

        let presentation = {
            let (gate, clock) = (Arc::clone(&self.gate), Arc::clone(&self.clock));
            let (method, url) = (request.method().clone(), profile.resource.clone());
            let at_once = request.version() <= Version::HTTP_11;
            let submitted = Instant::now();
            let short = move || {
                let (now, began) = (clock.unix(), Instant::now());
                let short = gate.authenticate_short(&credentials, method.as_str(), &url, now);
                let looked_up = short.map(|presentation| Ok(gate.looked_up(presentation?, now)));
                let ready = (gate, credentials, method, url);
                looked_up.map(|done| Worked::since(began, done)).ok_or(ready)
            };
            // Of a connection that has one request at a time, no more than that one waits (M-29).
            let short = match at_once {
                true => self.pool.run_now(short),
                false => self.pool.run_short(short).await,
            };
            let worked = match short.map_err(|error| self.busy(error))? {
                Ok(worked) => worked,
                Err((gate, credentials, method, url)) => {
                    let clock = Arc::clone(&self.clock);
                    let long = move || {
                        let now = clock.unix();
                        let presentation = gate.authenticate(&credentials, method.as_str(), &url, now)?;
                        Ok(gate.looked_up(presentation, now))
                    };
                    let worked = self.pool.run(|| worked(long)).await;
                    worked.map_err(|error| self.busy(error))?
                }
            };
            let (presentation, unused) = account.verified::<_, Refusal>(submitted, worked)?;
            // Whose proof is used again is known, if not by whom.
            account.presented(&presentation);
            unused?;
            presentation
        };

        let (parts, body) = request.into_parts();
        let body = {
            let _reading = match parts.method {
                Method::POST => Some(server.limiter.read_body(&presentation, &profile.resource)?),
                _ => None,
            };
            body_of(&parts, body, profile).await?
        };
        account.received(&body);
        let asked = Asked {
            presentation: Arc::clone(&presentation),
            profile: Arc::clone(profile),
            sessions: Arc::clone(&server.sessions),
            tasks: Arc::clone(&server.tasks),
            limiter: Arc::clone(&server.limiter),
            catalogue: Arc::clone(&server.catalogue),
            method: parts.method,
            headers: parts.headers,
            body,
            client_ip,
            decision_id: context.decision_id.clone(),
        };
        let mut judgement = {
            let submitted = Instant::now();
            let worked = self.judge(asked).await;
            let worked = worked.map_err(|error| self.busy(error))?;
            account.judged(submitted, worked)
        };
        let place = judgement.place.take();
        let began = Instant::now();
        let settled = self.settle(judgement, profile, context).await;
        account.journaled(began, !matches!(settled, Err(Refusal::Audit)));
        let leaving = Leaving {
            permitted: settled?,
            decision_id: &context.decision_id,
            place,
        };
        self.forward(server, presentation, leaving, account, shutdown)
            .await
    }

    /// Judges on the spot what is judged in microseconds, and on a thread of its own what takes longer: a large body, an
    /// evaluation.
    async fn judge(&self, asked: Asked) -> Result<Worked<Judgement>, PoolError> {
        let (gate, clock) = (Arc::clone(&self.gate), Arc::clone(&self.clock));
        // Before anything is used up by what would be refused for want of a place.
        let place = self.pool.place()?;
        let is_short = asked.body.len() <= SHORT_BODY;
        let turn = if is_short { self.pool.turn().await } else { None };
        let Some(turn) = turn else {
            let judge = move || worked(|| gate.judge(asked, clock.unix()));
            return self.pool.run_at(place, judge).await;
        };
        let began = Instant::now();
        let judge = || gate.judge_short(asked, clock.unix());
        let judged = self.pool.run_now_at(&place, judge)?;
        drop(turn);
        match judged {
            Ok(judgement) => Ok(Worked::since(began, judgement)),
            Err(begun) => {
                let before = Worked::since(began, ());
                let finish = move || worked(|| gate.finish(*begun, clock.unix()));
                let finished = self.pool.run_at(place, finish).await?;
                Ok(finished.after(&before))
            }
        }
    }

    /// Why there is no judgement.
    fn busy(&self, error: PoolError) -> Refusal {
        if error == PoolError::Failed {
            self.measured.panics.add();
            tracing::error!("a judgement ended without an answer");
        }
        Refusal::Busy
    }

    /// Journals the decision, then gives out what it permits (M-27).
    pub(crate) async fn settle(
        &self,
        judgement: Judgement,
        profile: &Profile,
        context: &mut AnswerContext,
    ) -> Result<Permitted<Outbound>, Refusal> {
        if let Some(message) = &judgement.message {
            context.is_tool_call = message.method == "tools/call";
            context.message_id = message
                .id
                .as_ref()
                .and_then(|id| serde_json::from_str(&id.to_string()).ok());
        }
        let Some(decision) = judgement.record else {
            return judgement.verdict;
        };
        let allowed = decision.outcome == Outcome::Allow;
        let record = Record {
            at_ms: self.clock.unix_millis(),
            kind: RecordKind::Decision(decision),
        };
        let later = judgement.verdict.as_ref().is_ok_and(|permitted| {
            let may_wait = profile.may_record_later(permitted.permit().access());
            may_wait || rules::AUDIT.holds(false)
        });
        let appended = match judgement.calls {
            Some(calls) => self.store.append_counted(record, calls).await.map(drop),
            // When the disk is behind, the decision waits for it rather than be refused.
            None if later && self.store.takes_later() => self.store.append_later(record),
            None => self.store.append(record).await.map(drop),
        };
        match appended {
            Ok(()) => judgement.verdict,
            Err(error) => {
                tracing::error!(%error, allowed, "a decision could not be recorded");
                Err(Refusal::Audit)
            }
        }
    }
}

/// The body of a POST; a GET or DELETE has none.
async fn body_of(parts: &http::request::Parts, body: Incoming, profile: &Profile) -> Result<Bytes, Refusal> {
    if parts.method != Method::POST {
        return if body.is_end_stream() {
            Ok(Bytes::new())
        } else {
            Err(Refusal::BodyUnwanted)
        };
    }
    if !headers::is_json(&parts.headers) {
        return Err(Refusal::MediaType);
    }
    let limits = &profile.limits;
    read_body(body, limits.max_body, limits.body_timeout)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge { .. } => Refusal::BodyTooLarge,
            BodyError::TimedOut => Refusal::BodyTimedOut,
            BodyError::Broken => Refusal::BodyBroken,
        })
}
