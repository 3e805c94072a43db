//! The gate: from credentials and bytes to a permitted request, in the order of RULES 9.
//!
//! ```text
//! sizes → proof claims → unverified decode → holder, expiry, issuer → proof signature
//!       → chain signatures, walk, admission (once for a text) → revocation → replay look-up
//!       → (body arrives) digest → strict JSON → headers → session → revocation, replay look-up → limits
//!       → replay insert → resources → calls reserved → decide
//!       → (the journal has it) revocation, expiry
//! ```
//!
//! No IO but the one `write(2)` of the replay insert and the look-up of counters, both in
//! [`Gate::judge`]; `now` is an argument. What is short runs where the request is, the rest in the CPU pool.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use taper_capability::rules::NOT_EXPIRED;
use taper_capability::{Access, AccessKind, UnverifiedToken, VerifiedChain, VerifiedPresentation};
use taper_dpop::rule::r;
use taper_dpop::{
    Algorithm, CheckedProof, Expectation, Known, NonceKey, NonceRule, Proof, PublicKey, TokenHash, head_of,
};
use taper_policy::Denial;
use taper_policy::boundary::BoundaryPolicy;
use taper_service::rng;
use taper_store::{CallCounters, DecisionRecord, ReplayGuard, Reservation, SeenProofs, Untaken};

use crate::account::{self, Kind};
use crate::catalogue::Catalogue;
use crate::chains::{Chains, Found};
use crate::config::NonceMode;
use crate::decide::Wanted;
use crate::headers::{self, Credentials, SESSION};
use crate::issuers::Issuers;
use crate::limits::{Limiter, Place, Work};
use crate::message::{ClientAnswer, Era, Message, MessageError, Mismatch, Received};
use crate::methods::{self, Class, PLUMBING};
use crate::outstanding::{Answering, Sessions};
use crate::permitted::{Call, Outbound, Permitted};
use crate::profile::Profile;
use crate::refusal::{Denied, Refusal};
use crate::rules;
use crate::session::Owner;
use crate::tasks::{self, Tasks};

/// Everything that a judgement needs beside the request.
pub(crate) struct Gate {
    pub(crate) issuers: Arc<Issuers>,
    /// What verified before.
    pub(crate) chains: Chains,
    pub(crate) policy: BoundaryPolicy,
    pub(crate) proofs: ReplayGuard,
    /// `None` where nobody can count all calls: several proxies that share no store.
    pub(crate) counters: Option<Arc<dyn CallCounters>>,
}

/// A request whose presentation is verified.
pub(crate) struct Asked {
    pub(crate) presentation: Arc<VerifiedPresentation>,
    pub(crate) profile: Arc<Profile>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) decision_id: String,
}

/// What came of a request.
pub(crate) struct Judgement {
    /// The message, as soon as it could be read.
    pub(crate) message: Option<Message>,
    /// For the journal, when there was a decision.
    pub(crate) record: Option<DecisionRecord>,
    /// The call that counts once `record` is in the journal.
    pub(crate) calls: Option<Reservation>,
    /// What the request turned out to be.
    pub(crate) read_as: (account::Era, Kind),
    /// The request's place, until its answer has ended.
    pub(crate) place: Option<Place>,
    /// The permitted request, to be forwarded only after `record` is in the journal.
    pub(crate) verdict: Result<Permitted<Outbound>, Refusal>,
}

/// A request whose proof was taken, to be decided.
pub(crate) struct Begun {
    asked: Asked,
    read: Read,
    place: Place,
    wanted: Wanted,
}

impl Gate {
    /// Verifies a presentation for one request to `url`, without its body.
    ///
    /// # Errors
    /// The first rule that is broken; one signature check for a bad proof.
    pub(crate) fn authenticate(
        &self,
        credentials: &Credentials,
        method: &str,
        url: &str,
        now: i64,
    ) -> Result<VerifiedPresentation, Refusal> {
        let text = TokenHash::of(credentials.token());
        if let Some(found) = self.chains.find(&text, self.issuers.roots_version()) {
            return self.with_known(found, credentials, method, url, now);
        }
        let proof = self.check_proof(credentials, text, None, method, url, now)?;
        let token = UnverifiedToken::decode(credentials.token())?;
        is_holder(&proof, token.last_holder())?;
        token.check_expiry(now)?;
        self.issuers.precheck(&token)?;
        let proof = proof.verify()?;
        let (chain, roots) = self.issuers.verify(token, now)?;
        self.issuers.check_revocation(&chain, now)?;
        let presentation = VerifiedPresentation::new(Arc::new(chain), proof)?;
        let (length, head) = (credentials.token().len(), head_of(credentials.proof()));
        self.chains.keep(presentation.chain(), length, head, roots);
        Ok(presentation)
    }

    /// As [`Self::authenticate`] if that takes one signature check and a short one: the chain is known, and
    /// its holder's key is Ed25519. A check on P-256 takes several times as long.
    pub(crate) fn authenticate_short(
        &self,
        credentials: &Credentials,
        method: &str,
        url: &str,
        now: i64,
    ) -> Option<Result<VerifiedPresentation, Refusal>> {
        let text = TokenHash::of(credentials.token());
        let is_short = |chain: &VerifiedChain| chain.last_holder().algorithm() == Algorithm::EdDsa;
        let found = self
            .chains
            .find_if(&text, self.issuers.roots_version(), is_short)?;
        Some(self.with_known(found, credentials, method, url, now))
    }

    fn with_known(
        &self,
        found: Found,
        credentials: &Credentials,
        method: &str,
        url: &str,
        now: i64,
    ) -> Result<VerifiedPresentation, Refusal> {
        let Found { chain, head } = found;
        let known = Known {
            holder: chain.last_holder(),
            head: head.as_deref(),
        };
        let proof = self.check_proof(credentials, chain.token_hash(), Some(known), method, url, now)?;
        is_holder(&proof, chain.last_holder())?;
        check_expiry(&chain, now)?;
        let proof = proof.verify()?;
        self.issuers.check_revocation(&chain, now)?;
        Ok(VerifiedPresentation::new(chain, proof)?)
    }

    fn check_proof<'a>(
        &self,
        credentials: &'a Credentials,
        text: TokenHash,
        known: Option<Known<'_>>,
        method: &str,
        url: &str,
        now: i64,
    ) -> Result<CheckedProof<'a>, Refusal> {
        let expected = Expectation {
            method,
            url,
            token: Some(text),
            nonce: NonceRule::Unused,
            now,
        };
        let proof = Proof::parse_by(credentials.proof(), known)?;
        let fitting = self.proofs.check(proof, &expected)?;
        if rules::RESTART.holds(!fitting.in_doubt) {
            Ok(fitting.proof)
        } else {
            Err(Refusal::Restart)
        }
    }

    /// A nonce for whoever is refused at `now`.
    pub(crate) fn nonce(&self, now: i64) -> String {
        self.proofs.nonce(now)
    }

    /// Judges a request over a verified presentation.
    pub(crate) fn judge(&self, asked: Asked, now: i64) -> Judgement {
        match self.begin(asked, now) {
            Ok(begun) => self.finish(*begun, now),
            Err(ended) => *ended,
        }
    }

    /// As [`Self::judge`], if the decision is a short one; otherwise what [`Self::finish`] has to do.
    pub(crate) fn judge_short(&self, asked: Asked, now: i64) -> Result<Judgement, Box<Begun>> {
        match self.begin(asked, now) {
            Ok(begun) if !self.is_short(&begun.asked, &begun.wanted, now) => Err(begun),
            Ok(begun) => Ok(self.finish(*begun, now)),
            Err(ended) => Ok(*ended),
        }
    }

    /// Everything up to the decision: then the proof is taken. Or the judgement, without one.
    fn begin(&self, asked: Asked, now: i64) -> Result<Box<Begun>, Box<Judgement>> {
        let read = match self.read(&asked) {
            Ok(read) => read,
            Err(unread) => {
                let (message, refusal) = *unread;
                let kind = message.as_ref().map_or(Kind::Unread, |message| {
                    let class = methods::classify(&message.method, &asked.profile.extra_methods);
                    Kind::of(&message.method, class)
                });
                return Err(Box::new(Judgement {
                    read_as: (account::Era::Unread, kind),
                    message,
                    record: None,
                    calls: None,
                    place: None,
                    verdict: Err(refusal),
                }));
            }
        };
        let chain = asked.presentation.chain();
        // Who is over a limit does not use up the table of proofs, and who repeats a proof does not use up
        // the limits of its holder.
        let admitted = self
            .check_again(&asked, now)
            .and_then(|()| asked.limiter.admit(chain, read.work()))
            .and_then(|place| self.take_once(&asked.presentation, now).map(|()| place));
        let place = match admitted {
            Ok(place) => place,
            Err(refusal) => {
                return Err(Box::new(Judgement {
                    read_as: (read.era.into(), read.kind()),
                    message: read.message,
                    record: None,
                    calls: None,
                    place: None,
                    verdict: Err(refusal),
                }));
            }
        };
        let wanted = Self::wanted(&asked, &read);
        Ok(Box::new(Begun {
            asked,
            read,
            place,
            wanted,
        }))
    }

    /// The decision, and what is said of it.
    pub(crate) fn finish(&self, begun: Begun, now: i64) -> Judgement {
        let Begun {
            asked,
            read,
            place,
            wanted,
        } = begun;
        let read_as = (read.era.into(), read.kind());
        let (access, decided) = self.decide(&asked, &read, wanted, now);
        if let Err(Refusal::Indeterminate(_)) = &decided {
            asked.limiter.undecided(asked.presentation.chain());
        }
        let record = self.record(&asked, &access, decided.as_ref().err());
        let (calls, verdict) = match decided {
            Ok(allowed) => {
                let outbound = outbound(asked, &read, allowed.subscribed, allowed.answers, &allowed.params);
                (allowed.calls, Ok(Permitted::new(allowed.permit, outbound)))
            }
            Err(refusal) => (None, Err(refusal)),
        };
        Judgement {
            read_as,
            message: read.message,
            record: Some(record),
            calls,
            place: Some(place),
            verdict,
        }
    }

    /// Body, message and headers, as far as they speak for themselves.
    fn read(&self, asked: &Asked) -> Result<Read, Box<(Option<Message>, Refusal)>> {
        let bare = |refusal: Refusal| Box::new((None, refusal));
        let bound = asked
            .presentation
            .proof()
            .binds(&asked.body)
            .map_err(|e| bare(e.into()))?;
        let session = headers::single(&asked.headers, &SESSION).map_err(|_| bare(Refusal::Session))?;
        if asked.method != Method::POST {
            let owned = self.owned_session(asked, session, Era::Legacy).map_err(bare)?;
            return Ok(Read {
                message: None,
                answer: None,
                class: Some(PLUMBING),
                bound,
                is_get: asked.method == Method::GET,
                era: Era::Legacy,
                session: owned,
            });
        }
        let received = Received::parse(&asked.body, asked.profile.limits.max_body);
        let message = match received.map_err(|e| bare(e.into()))? {
            Received::Message(message) => message,
            Received::Answer(answer) => return self.answer(asked, answer, bound, session).map_err(bare),
        };
        match self.classified(asked, &message, bound, session) {
            Ok((class, era, session)) => Ok(Read {
                message: Some(message),
                answer: None,
                class,
                bound,
                is_get: false,
                era,
                session,
            }),
            Err(refusal) => Err(Box::new((Some(message), refusal))),
        }
    }

    fn classified(
        &self,
        asked: &Asked,
        message: &Message,
        bound: bool,
        session: Option<&str>,
    ) -> Result<(Option<Class>, Era, Option<String>), Refusal> {
        let known = methods::classify(&message.method, &asked.profile.extra_methods);
        let kind = known.map_or(AccessKind::Plumbing, |class| class.kind);
        let demanded = asked.profile.demands_binding(kind, message);
        if !rules::BINDING.holds(bound || !demanded) {
            return Err(Refusal::Unbound);
        }
        let era = match message.check_headers(&asked.headers) {
            Ok(era) => era,
            Err(_) if rules::HEADERS.holds(false) => Era::Legacy,
            Err(mismatch) => return Err(mismatch.into()),
        };
        let known = known.filter(|_| methods::exists_in(&message.method, era));
        let session = self.owned_session(asked, session, era)?;
        Ok((known, era, session))
    }

    /// An answer of the client to a request of the server. Whether it is one is decided later.
    fn answer(
        &self,
        asked: &Asked,
        answer: ClientAnswer,
        bound: bool,
        session: Option<&str>,
    ) -> Result<Read, Refusal> {
        // It carries content, so no list of read-only tools exempts it.
        if !rules::BINDING.holds(bound || !asked.profile.demands_binding_of_content()) {
            return Err(Refusal::Unbound);
        }
        let era = match answer.check_headers(&asked.headers) {
            Ok(era) => era,
            Err(_) if rules::HEADERS.holds(false) => Era::Legacy,
            Err(header) => return Err(Refusal::HeaderMismatch(header)),
        };
        let session = self.owned_session(asked, session, era)?;
        Ok(Read {
            message: None,
            answer: Some(answer),
            class: Some(PLUMBING),
            bound,
            is_get: false,
            era,
            session,
        })
    }

    /// A session is its owner's; modern messages have none (RULES 21).
    fn owned_session(&self, asked: &Asked, given: Option<&str>, era: Era) -> Result<Option<String>, Refusal> {
        let Some(session) = given.filter(|_| era == Era::Legacy) else {
            return Ok(None);
        };
        let owner = Owner::of(asked.presentation.chain());
        if rules::SESSION.holds(asked.sessions.is_owned(session, &owner)) {
            Ok(Some(session.to_owned()))
        } else {
            Err(Refusal::Session)
        }
    }

    /// Checks once more, when the journal has the decision, what may have changed while it waited for the
    /// disk: a revocation that came meanwhile, an end that passed.
    ///
    /// # Errors
    /// M-12, M-13, M-37, or P-15 for a chain that has expired.
    pub(crate) fn recheck(&self, chain: &VerifiedChain, now: i64) -> Result<(), Refusal> {
        check_expiry(chain, now)?;
        self.issuers.check_revocation(chain, now)
    }

    /// Refuses a proof that was used before, or became too old, and uses up nothing (R-13, R-07).
    ///
    /// # Errors
    /// [`Refusal::Replay`], or R-07.
    pub(crate) fn check_unused(&self, presentation: &VerifiedPresentation, now: i64) -> Result<(), Refusal> {
        unless_left_out(self.proofs.look_up(presentation.proof(), now))
    }

    /// A presentation that was just verified, and whether its proof was used before.
    pub(crate) fn looked_up(
        &self,
        presentation: VerifiedPresentation,
        now: i64,
    ) -> (Arc<VerifiedPresentation>, Result<(), Refusal>) {
        let unused = self.check_unused(&presentation, now);
        (Arc::new(presentation), unused)
    }

    /// Checks again what may have changed while the body arrived.
    fn check_again(&self, asked: &Asked, now: i64) -> Result<(), Refusal> {
        self.issuers.check_revocation(asked.presentation.chain(), now)?;
        self.check_unused(&asked.presentation, now)
    }

    /// Takes the proof once (R-13, M-26), unless it may have been forgotten since its claims were checked (M-28).
    fn take_once(&self, presentation: &VerifiedPresentation, now: i64) -> Result<(), Refusal> {
        let (chain, proof) = (presentation.chain(), presentation.proof());
        let account = format!("{} {}", chain.issuer(), chain.grant_id());
        unless_left_out(self.proofs.take(proof, &account, now))
    }
}

/// The guard of the proofs that are seen here.
pub(crate) fn guard(seen: Arc<dyn SeenProofs>, mode: NonceMode) -> ReplayGuard {
    let first = NonceKey::generate(&mut rng::os());
    let guard = ReplayGuard::new(seen, first, || {
        tracing::warn!(rule = %rules::RESTART, "the clock was set back, proofs that may be forgotten need a new nonce");
        NonceKey::generate(&mut rng::os())
    });
    guard.demanding(mode == NonceMode::Demand)
}

/// What the guard of proofs says, by the rules of this page.
fn unless_left_out(taken: Result<(), Untaken>) -> Result<(), Refusal> {
    match taken {
        Ok(()) => Ok(()),
        Err(Untaken::TooOld) => Err(taper_dpop::Error::Iat("too old").into()),
        Err(Untaken::Replay) if r::REPLAY.holds(false) => Ok(()),
        Err(Untaken::Replay) => Err(Refusal::Replay),
        Err(Untaken::Quota) => Err(Refusal::Quota),
        Err(Untaken::InDoubt) if rules::RESTART.holds(false) => Ok(()),
        Err(Untaken::InDoubt) => Err(Refusal::Restart),
        Err(Untaken::Failed(error)) => {
            tracing::error!(%error, "a proof cannot be remembered");
            Err(Refusal::SeenFailed)
        }
    }
}

/// Refuses a proof by another key than the holder's (R-14), before any signature is looked at.
fn is_holder(proof: &CheckedProof<'_>, holder: &PublicKey) -> Result<(), taper_capability::Error> {
    let is_holder = r::HOLDER.holds(holder == proof.key());
    is_holder.then_some(()).ok_or(taper_capability::Error::ProofKey)
}

/// Refuses a chain that has expired since it was verified (P-15).
fn check_expiry(chain: &VerifiedChain, now: i64) -> Result<(), taper_capability::Error> {
    let earliest = chain.links().iter().min_by_key(|link| link.expires_at);
    match earliest {
        Some(link) if !NOT_EXPIRED.holds(now < link.expires_at) => Err(taper_capability::Error::Expired {
            block: link.index,
            at: link.expires_at,
        }),
        _ => Ok(()),
    }
}

/// A request of which body, message and headers are in order.
pub(crate) struct Read {
    pub(crate) message: Option<Message>,
    /// Instead of a message.
    pub(crate) answer: Option<ClientAnswer>,
    /// `None` for a method that nobody knows.
    pub(crate) class: Option<Class>,
    pub(crate) bound: bool,
    is_get: bool,
    pub(crate) era: Era,
    /// One of the caller's.
    pub(crate) session: Option<String>,
}

impl Read {
    fn kind(&self) -> Kind {
        match (&self.message, &self.answer) {
            (Some(message), _) => Kind::of(&message.method, self.class),
            (None, Some(_)) => Kind::Reply,
            (None, None) if self.is_get => Kind::Stream,
            (None, None) => Kind::End,
        }
    }

    fn work(&self) -> Work {
        let ends_work = match &self.message {
            Some(message) => message.id.is_none() && message.method == "notifications/cancelled",
            None => !self.is_get,
        };
        if ends_work {
            return Work::Reply;
        }
        let method = self.message.as_ref().map(|message| message.method.as_str());
        match method {
            Some("subscriptions/listen") => Work::Stream,
            None if self.is_get => Work::Stream,
            _ => Work::Request,
        }
    }
}

fn outbound(
    asked: Asked,
    read: &Read,
    subscribed: Vec<Access>,
    answers: Option<Answering>,
    params: &[HeaderName],
) -> Outbound {
    let mut headers = headers::to_upstream(
        &asked.method,
        &asked.headers,
        &asked.profile.forward_headers,
        params,
        read.session.is_some(),
    );
    if asked.method == Method::POST {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let call = read.message.as_ref().map(|message| Call {
        method: message.method.clone(),
        id: message.id.clone(),
        list: read.class.and_then(|class| class.list),
        makes_task: tasks::may_make_one(message, read.era),
        progress: message.progress_token().cloned(),
        cancels: message.cancels().cloned(),
        revision: message.claimed_revision().map(str::to_owned),
    });
    Outbound {
        method: asked.method,
        headers,
        body: asked.body,
        era: read.era,
        owner: Owner::of(asked.presentation.chain()),
        session: read.session.clone(),
        call,
        subscribed,
        answers,
    }
}

/// A denial as a refusal. `obtainable` are the scopes that would help.
pub(crate) fn refused(denial: Denial, obtainable: Vec<String>) -> Refusal {
    Refusal::Denied(Box::new(Denied {
        rule: denial.rule,
        kind: denial.kind,
        link: denial.link,
        caveat: denial.caveat,
        obtainable,
        reason: denial.reason,
    }))
}

impl From<Mismatch> for Refusal {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Header(name) => Self::HeaderMismatch(name),
            Mismatch::NoRevision => Self::NoRevision,
        }
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Json(error) => Self::Json(error.to_string()),
            MessageError::Shape(reason) => Self::Message(reason),
            MessageError::FoldedKeys => Self::FoldedKeys,
        }
    }
}
