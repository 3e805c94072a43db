//! A permitted request on its way to its upstream, and the answer on its way back: bound to its session,
//! read where something is to be learned or hidden, and leased.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, header};
use taper_capability::VerifiedPresentation;
use taper_service::edge::read_body;
use taper_service::shutdown::Shutdown;
use tokio::time::Instant;

use crate::account::{Account, Cause};
use crate::body::{Body, empty, full};
use crate::events::{Readers, Watch, events};
use crate::headers::{self, SESSION};
use crate::limits::{self, Place};
use crate::lists::{FILTER_TIME, ListFilter};
use crate::message::Era;
use crate::methods::List;
use crate::outstanding::{Requests, Sessions};
use crate::permitted::{Call, Outbound, Permitted};
use crate::refusal::Refusal;
use crate::service::{Server, Shared};
use crate::session::Owner;
use crate::stream::{Ending, Flow, Lease, Way, leased, short};
use crate::tasks::TaskWatch;
use crate::unanswered::Asking;
use crate::upstream::Upstream;

/// What may go to the upstream now.
pub(crate) struct Leaving<'a> {
    pub(crate) permitted: Permitted<Outbound>,
    /// As the journal and the caller know it.
    pub(crate) decision_id: &'a str,
    /// Given back when the answer has ended.
    pub(crate) place: Option<Place>,
}

impl Shared {
    /// Forwards what is permitted, unless it was revoked or has expired while the journal took it, or while
    /// it waited for the upstream's token. The answer is refused when that happened while the upstream worked
    /// on it.
    pub(crate) async fn forward(
        &self,
        server: &Server,
        presentation: Arc<VerifiedPresentation>,
        leaving: Leaving<'_>,
        account: &mut Account,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        let Leaving {
            permitted,
            decision_id,
            place,
        } = leaving;
        let chain = Arc::clone(presentation.chain());
        let credential = server.upstream.credential(&chain).await?;
        let again = || {
            self.gate.recheck(&chain, self.clock.unix()).inspect_err(|refusal| {
                let (rule, server) = (refusal.rule(), server.profile.id.as_str());
                tracing::info!(%rule, mcp.server = server, grant.id = chain.grant_id(), reason = %refusal, "recorded as allowed, but not forwarded");
            })
        };
        again()?;
        let lease = self.lease(
            server,
            Arc::clone(&presentation),
            &permitted,
            decision_id,
            shutdown,
        );
        account.cut_by(&lease.ending.cut);
        let sent = Sent::of(&permitted);
        let asking = sent.asking(server)?;
        if let Some(answers) = &permitted.inner().answers {
            answers.sent();
        }
        let began = Instant::now();
        let answered = server
            .upstream
            .forward(permitted, &credential, &again, shutdown)
            .await;
        account.returned(began);
        let answered = answered.inspect_err(|refusal| {
            if let (Refusal::UpstreamStatus(StatusCode::NOT_FOUND), Some(session)) = (refusal, &sent.session)
            {
                server.sessions.release(session);
            }
        });
        let (response, asking) = match (answered, asking) {
            (Err(refusal), Some(asking)) if is_refused_outright(&refusal) => {
                asking.answered();
                return Err(refusal);
            }
            (answered, asking) => (answered?, asking),
        };
        let limits = &server.profile.limits;
        let response = limits::bounded(response, limits, &server.profile.id);
        let mut response = match asking {
            Some(asking) => asking.until_read(response),
            None => response,
        };
        let session = bind_session(&server.sessions, &sent, &mut response)?;
        let (parts, flow) = self.read(server, presentation, &sent, session, response).await?;
        let flow = short(flow, limits.answer_timeout).await?;
        lease.check_before().await?;
        let body = match flow {
            Ok(whole) if whole.is_empty() => empty(),
            Ok(whole) => full(whole),
            Err(flow) => {
                let caller_idle = limits.caller_idle;
                leased(flow, lease, Way { place, caller_idle })
            }
        };
        Ok(Response::from_parts(parts, body))
    }

    /// What the answer to a permitted request depends on.
    pub(crate) fn lease(
        &self,
        server: &Server,
        presentation: Arc<VerifiedPresentation>,
        permitted: &Permitted<Outbound>,
        decision_id: &str,
        shutdown: &Shutdown,
    ) -> Lease {
        let (permit, outbound) = (permitted.permit(), permitted.inner());
        let mut accesses: Vec<_> = outbound.subscribed.iter().cloned().map(Arc::new).collect();
        accesses.push(permit.shared_access());
        let call = outbound.call.as_ref();
        Lease {
            gate: Arc::clone(&self.gate),
            pool: self.pool.clone(),
            clock: Arc::clone(&self.clock),
            presentation,
            accesses,
            expires_at: permit.expires_at(),
            decided_at: self.clock.unix(),
            ending: Ending {
                server: server.profile.id.clone(),
                decision_id: decision_id.to_owned(),
                cut: Cause::default(),
                id: call.and_then(|call| call.id.clone()),
                standing: call.map_or(outbound.method == Method::GET, |call| {
                    call.method == "subscriptions/listen"
                }),
            },
            shutdown: shutdown.clone(),
        }
    }

    /// Reads of an answer what has to be read, and shows of a list what may be shown.
    async fn read(
        &self,
        server: &Server,
        presentation: Arc<VerifiedPresentation>,
        sent: &Sent,
        session: Option<String>,
        response: Response<Body>,
    ) -> Result<(http::response::Parts, Flow), Refusal> {
        let limits = &server.profile.limits;
        let (parts, body) = response.into_parts();
        let lists = sent
            .lists(server.catalogue.pinned().is_some())
            .filter(|_| parts.status.is_success());
        let lists = lists.map(|lists| ListFilter {
            gate: Arc::clone(&self.gate),
            pool: self.pool.clone(),
            clock: Arc::clone(&self.clock),
            presentation,
            profile: Arc::clone(&server.profile),
            tasks: Arc::clone(&server.tasks),
            limiter: Arc::clone(&server.limiter),
            catalogue: Arc::clone(&server.catalogue),
            era: sent.era,
            lists,
            time: FILTER_TIME,
        });
        let resumed = sent.method == Method::GET && session.is_some();
        let tasks = (sent.call.as_ref().is_some_and(|call| call.makes_task) || resumed).then(|| TaskWatch {
            tasks: Arc::clone(&server.tasks),
            owner: sent.owner.clone(),
            era: sent.era,
            request: sent.call.as_ref().and_then(|call| call.id.clone()),
            pool: self.pool.clone(),
        });
        if is_event_stream(&parts.headers) {
            let watch = session.map(|session| Watch {
                sessions: Arc::clone(&server.sessions),
                session,
                owner: sent.owner.clone(),
                pool: self.pool.clone(),
                max: limits.max_list,
            });
            let readers = Readers {
                watch,
                tasks,
                lists,
                catalogue: Some(Arc::clone(&server.catalogue)),
                max: limits.max_list,
            };
            return Ok((parts, Flow::Events(events(body, readers))));
        }
        let body = match tasks {
            Some(tasks) => tasks.json(body),
            None => body,
        };
        let Some(filter) = lists else {
            return Ok((parts, Flow::Plain(body)));
        };
        let whole = read_body(body, limits.max_list, limits.answer_timeout)
            .await
            .map_err(|_| Refusal::Upstream("its answer, which has to be read, is too large or broke off"))?;
        if whole.is_empty() {
            return Ok((parts, Flow::Plain(empty())));
        }
        // Only a list that was asked for is worth a worker of its own.
        let is_list = sent.call.as_ref().is_none_or(|call| call.list.is_some());
        let filtered = if is_list {
            filter.message(whole).await
        } else {
            filter.in_turn(whole).await
        };
        let filtered = filtered.map_err(|error| {
            tracing::warn!(%error, mcp.server = server.profile.id, "a list cannot be shown");
            error.refusal()
        })?;
        Ok((parts, Flow::Plain(full(filtered))))
    }
}

/// Whether the upstream did not take a request, so that nothing comes of it later.
fn is_refused_outright(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::UpstreamStatus(status)
        if status.is_client_error() && *status != StatusCode::REQUEST_TIMEOUT)
        || matches!(refusal, Refusal::UpstreamToken(_))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("text/event-stream")
}

/// What has to be known of a request when its answer comes.
struct Sent {
    method: Method,
    era: Era,
    owner: Owner,
    session: Option<String>,
    call: Option<Call>,
}

impl Sent {
    fn of(permitted: &Permitted<Outbound>) -> Self {
        let outbound = permitted.inner();
        Self {
            method: outbound.method.clone(),
            era: outbound.era,
            owner: outbound.owner.clone(),
            session: outbound.session.clone(),
            call: outbound.call.clone(),
        }
    }

    /// Takes the id of a request in a session.
    fn asking(&self, server: &Server) -> Result<Option<Asking>, Refusal> {
        let (Upstream::Http(_), Some(session), Some(call)) = (&server.upstream, &self.session, &self.call)
        else {
            return Ok(None);
        };
        match &call.id {
            Some(id) => server.sessions.ask(session, &self.owner, id, call.list.is_some()),
            None => Ok(None),
        }
    }

    /// The lists that the answer may hold. A stream that is resumed may repeat any answer. Where tools are
    /// `pinned`, every answer is read: clients take an answer by its id, in whatever stream it comes, so a
    /// server could show a list in the answer to another request.
    fn lists(&self, pinned: bool) -> Option<&'static [List]> {
        match &self.call {
            _ if pinned => Some(&List::ALL),
            Some(call) => match call.list? {
                List::Tools => Some(&[List::Tools]),
                List::Resources => Some(&[List::Resources]),
                List::Templates => Some(&[List::Templates]),
                List::Prompts => Some(&[List::Prompts]),
                List::Tasks => Some(&[List::Tasks]),
            },
            None => (self.method == Method::GET).then_some(&List::ALL),
        }
    }
}

/// Gives a new session to the one who opened it, and forgets one that ended (M-24). The session of the
/// answer, if it is in one.
fn bind_session(
    sessions: &Sessions,
    sent: &Sent,
    response: &mut Response<Body>,
) -> Result<Option<String>, Refusal> {
    let ended = response.status() == StatusCode::NOT_FOUND
        || (sent.method == Method::DELETE && response.status().is_success());
    if let Some(session) = sent.session.as_ref().filter(|_| ended) {
        sessions.release(session);
    }
    if ended || sent.era == Era::Modern {
        response.headers_mut().remove(SESSION);
        return Ok(None);
    }
    match headers::single(response.headers(), &SESSION) {
        Ok(None) => Ok(sent.session.clone()),
        Ok(Some(session)) if sessions.claim(session, &sent.owner, Requests::default()) => {
            Ok(Some(sent.session.as_deref().unwrap_or(session).to_owned()))
        }
        _ => Err(Refusal::Upstream("its session belongs to another holder")),
    }
}
