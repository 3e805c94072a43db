//! Tokens that an upstream wants from the proxy (`spec/proxy.md`, "To the upstream"; M-50 to M-53).
//!
//! They come from the upstream's own authorization server and are issued to the proxy, or to the proxy on
//! behalf of a grant's subject. A caller's capability is never sent there. Each is kept until it ends, and
//! asked for once however many requests wait for it; after a failure nobody is asked for a while.

mod ask;
mod endpoint;
mod settings;
mod slot;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use taper_capability::VerifiedChain;
use taper_dpop::PublicKey;
use taper_oauth::assertion::Behalf;
use taper_service::clock::SharedClock;
use taper_service::metrics::Table;
use taper_service::shutdown::Shutdown;
use taper_store::RevocationKeys;
use tokio::sync::watch;

use self::ask::{Failed, Source};
pub(crate) use self::settings::{Environment, SettingsError};
pub(crate) use self::slot::Token;
use self::slot::{Age, Flight, Outcome, Pause, Slot};
use crate::issuers::Issuers;
use crate::refusal::Refusal;
use crate::rules;

/// Requests for tokens of one upstream that may be under way.
const MAX_FLIGHTS: usize = 64;
/// How often tokens that have ended are forgotten, in seconds.
const SWEEP_EVERY: i64 = 60;

/// For whom a token is. Two requests share one only if everything that is said of them at the
/// authorization server is the same (M-51).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// The proxy's own.
    Own,
    /// On behalf of a grant's subject.
    Of(Box<Principal>),
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Principal {
    issuer: String,
    grant: String,
    subject: (String, String),
    client: String,
    actor: Option<(String, String)>,
}

impl Principal {
    fn of(chain: &VerifiedChain) -> Self {
        let subject = chain.subject();
        Self {
            issuer: chain.issuer().to_owned(),
            grant: chain.grant_id().to_owned(),
            subject: (subject.iss.clone(), subject.sub.clone()),
            client: chain.client().to_owned(),
            actor: chain.actor().map(|actor| (actor.iss.clone(), actor.sub.clone())),
        }
    }

    /// As the authorization server is told. Who acts is the grant's actor; without one, its client.
    fn behalf(&self) -> Behalf<'_> {
        let actor = match &self.actor {
            Some((iss, sub)) => (iss.as_str(), sub.as_str()),
            None => (self.issuer.as_str(), self.client.as_str()),
        };
        Behalf {
            subject_issuer: &self.subject.0,
            subject: &self.subject.1,
            actor,
            grant: &self.grant,
        }
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Cause {
    #[error("its authorization server cannot be reached")]
    Unreachable,
    #[error("its authorization server did not answer as it should")]
    Malformed,
    #[error("its authorization server refuses the proxy")]
    Refused,
    #[error("its authorization server refuses the subject")]
    RefusedSubject,
    #[error("too many tokens are being asked for")]
    Crowded,
    #[error("its authorization server does not know the subjects of this identity provider")]
    Foreign,
}

/// What comes of a request for a token, as a metric's label says it: [`Cause::as_str`], or that one came.
pub(crate) const TOKEN_OUTCOMES: [&str; 5] =
    ["issued", "unreachable", "malformed", "refused", "refused_subject"];

impl Cause {
    /// Its word in the log.
    fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::RefusedSubject => "refused_subject",
            Self::Crowded => "crowded",
            Self::Foreign => "foreign",
        }
    }
}

/// That there is no token, and when it may be worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// Whether nobody was asked, since the last failure is not long ago (M-53).
    pub(crate) paused: bool,
    pub(crate) wait: Duration,
}

impl Failure {
    fn now(cause: Cause) -> Self {
        Self {
            cause,
            paused: false,
            wait: Duration::from_secs(1),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::UpstreamToken(failure)
    }
}

/// The tokens of one upstream.
pub(crate) struct Tokens {
    server: String,
    source: Source,
    max: usize,
    clock: SharedClock,
    state: Mutex<State>,
    /// Where requests are counted, and the place of the server there.
    counted: OnceLock<(Table<2>, usize)>,
    /// Requests for tokens outlive the callers that wait for them, by the time-out of one at most.
    tasks: Shutdown,
}

/// What is known, and what is under way.
#[derive(Debug, Default)]
struct State {
    slots: HashMap<Whose, Slot>,
    /// After a failure that concerns everybody.
    pause: Pause,
    flights: usize,
    uses: u64,
    swept: i64,
}

/// What a look at the tokens yields.
enum Looked {
    Token(Arc<Token>),
    Wait(Flight),
}

impl Tokens {
    /// Counts requests for tokens there from now on, by [`TOKEN_OUTCOMES`].
    pub(crate) fn count_in(&self, table: &Table<2>, server: usize) {
        // A server has one proxy; the first one counts.
        let _ = self.counted.set((table.clone(), server));
    }

    /// For whom the token of a request is.
    ///
    /// # Errors
    /// [`Cause::Foreign`] when the authorization server does not know the subject by its name (M-51).
    pub(crate) fn whose(&self, chain: &VerifiedChain) -> Result<Whose, Failure> {
        let Some(exchange) = self.source.exchange() else {
            return Ok(Whose::Own);
        };
        if rules::TOKEN_SUBJECT.holds(chain.subject().iss == exchange.subject_issuer) {
            Ok(Whose::Of(Box::new(Principal::of(chain))))
        } else {
            Err(Failure::now(Cause::Foreign))
        }
    }

    /// A token for `whose`, which is asked for if there is none.
    ///
    /// # Errors
    /// [`Failure`]; then there is nothing to send (M-50).
    pub(crate) async fn get(self: &Arc<Self>, whose: &Whose) -> Outcome {
        match self.look(whose)? {
            Looked::Token(token) => Ok(token),
            Looked::Wait(flight) => landed(flight).await,
        }
    }

    /// Another token instead of `refused`, which the upstream did not take; `refused` stays until that is
    /// there, for an upstream may say so of one request only. `None` when nobody is asked: `refused` was
    /// issued a moment ago, so another one would fare no better, or a pause runs.
    pub(crate) async fn instead_of(
        self: &Arc<Self>,
        whose: &Whose,
        refused: &Arc<Token>,
    ) -> Option<Arc<Token>> {
        let flight = match self.look_beyond(whose, refused)? {
            Looked::Token(token) => return Some(token),
            Looked::Wait(flight) => flight,
        };
        landed(flight).await.ok()
    }

    fn look_beyond(self: &Arc<Self>, whose: &Whose, refused: &Arc<Token>) -> Option<Looked> {
        let now = self.clock.unix();
        let mut state = self.lock();
        let slot = state.slots.get(whose);
        let token = slot.and_then(|slot| slot.token.as_ref());
        if let Some(token) =
            token.filter(|token| !Arc::ptr_eq(token, refused) && token.age(now) != Age::Ended)
        {
            return Some(Looked::Token(Arc::clone(token)));
        }
        if refused.is_new(now) {
            return None;
        }
        if let Some(slot) = slot.filter(|slot| slot.is_asked()) {
            return slot.flight.clone().map(Looked::Wait);
        }
        self.may_ask(&mut state, whose, now).ok()?;
        Some(Looked::Wait(self.begin(&mut state, whose)))
    }

    /// Forgets the tokens of grants of which something is revoked.
    pub(crate) fn forget_revoked(&self, issuers: &Issuers) {
        self.lock().slots.retain(|whose, _| match whose {
            Whose::Own => true,
            Whose::Of(of) => {
                let parties: Vec<(&str, &str)> = std::iter::once(&of.subject)
                    .chain(&of.actor)
                    .map(|party| (party.0.as_str(), party.1.as_str()))
                    .collect();
                !issuers.is_revoked(&RevocationKeys {
                    issuer: &of.issuer,
                    grant: &of.grant,
                    branches: &[],
                    holders: &[],
                    client: &of.client,
                    subjects: &parties,
                })
            }
        });
    }

    /// The keys by which what the proxy signs is verified.
    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        self.source.public_keys()
    }

    /// Why the last request that concerns every caller failed, if it did.
    pub(crate) fn trouble(&self) -> Option<Cause> {
        let state = self.lock();
        let own = state.slots.get(&Whose::Own).filter(|slot| slot.token.is_none());
        state.pause.cause().or(own.and_then(|slot| slot.pause.cause()))
    }

    /// How many tokens are kept.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.slots.values().filter(|slot| slot.token.is_some()).count()
    }

    fn look(self: &Arc<Self>, whose: &Whose) -> Result<Looked, Failure> {
        let now = self.clock.unix();
        let mut state = self.lock();
        state.uses = state.uses.wrapping_add(1);
        let uses = state.uses;
        let mut old = None;
        if let Some(slot) = state.slots.get_mut(whose) {
            slot.used = uses;
            let token = slot.token.clone();
            match (token.as_ref().map(|token| token.age(now)), token) {
                (Some(Age::Good), Some(token)) => return Ok(Looked::Token(token)),
                (Some(Age::Old), Some(token)) if slot.is_asked() => return Ok(Looked::Token(token)),
                (Some(Age::Old), token) => old = token,
                _ => slot.token = None,
            }
            if let (None, true, Some(flight)) = (&old, slot.is_asked(), &slot.flight) {
                return Ok(Looked::Wait(flight.clone()));
            }
        }
        let begun = self
            .may_ask(&mut state, whose, now)
            .map(|()| self.begin(&mut state, whose));
        match (old, begun) {
            (Some(token), _) => Ok(Looked::Token(token)),
            (None, begun) => begun.map(Looked::Wait),
        }
    }

    /// Whether the authorization server may be asked now: no pause runs (M-53), and there is room.
    fn may_ask(&self, state: &mut State, whose: &Whose, now: i64) -> Result<(), Failure> {
        let own = state.slots.get(whose).and_then(|slot| slot.pause.left(now));
        if let Some((cause, left)) = state.pause.left(now).or(own)
            && !rules::TOKEN_PAUSE.holds(false)
        {
            return Err(Failure {
                cause,
                paused: true,
                wait: Duration::from_secs(left),
            });
        }
        if state.flights >= MAX_FLIGHTS {
            return Err(Failure::now(Cause::Crowded));
        }
        if now.saturating_sub(state.swept).saturating_abs() >= SWEEP_EVERY {
            state.swept = now;
            state.slots.retain(|_, slot| !slot.is_idle(now));
        }
        if !state.slots.contains_key(whose) && state.slots.len() >= self.max {
            let unasked = state
                .slots
                .iter()
                .filter(|(whose, slot)| **whose != Whose::Own && !slot.is_asked());
            let least = unasked
                .min_by_key(|(_, slot)| slot.used)
                .map(|(whose, _)| whose.clone());
            let Some(least) = least else {
                return Err(Failure::now(Cause::Crowded));
            };
            state.slots.remove(&least);
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, state: &mut State, whose: &Whose) -> Flight {
        let (tell, flight) = watch::channel(None);
        state.flights += 1;
        let slot = state.slots.entry(whose.clone()).or_default();
        slot.flight = Some(flight.clone());
        slot.used = state.uses;
        let (this, whose) = (Arc::clone(self), whose.clone());
        self.tasks.spawn("upstream-token", async move {
            let begun = this.clock.unix();
            // What is under way is counted: a panic must not leave it so.
            let asked = AssertUnwindSafe(this.source.ask(&whose, begun)).catch_unwind();
            let broken = || Failed::new(Cause::Malformed, true, "the request for it broke");
            let asked = asked.await.unwrap_or_else(|_| Err(broken()));
            let outcome = this.settle(&whose, begun, asked);
            tell.send_replace(Some(outcome));
        });
        flight
    }

    /// Takes in what came of a request that was begun at `begun`.
    fn settle(&self, whose: &Whose, begun: i64, asked: Result<Token, Failed>) -> Outcome {
        let now = self.clock.unix();
        if let Some((table, server)) = self.counted.get() {
            let word = asked
                .as_ref()
                .map_or_else(|failed| failed.cause.as_str(), |_| "issued");
            let outcome = TOKEN_OUTCOMES.iter().position(|outcome| *outcome == word);
            table.add([*server, outcome.unwrap_or(usize::MAX)]);
        }
        let mut state = self.lock();
        let state = &mut *state;
        state.flights = state.flights.saturating_sub(1);
        let slot = state.slots.get_mut(whose);
        match asked {
            Ok(token) => {
                let token = Arc::new(token);
                // Without its place the grant was revoked meanwhile: nothing is kept.
                if let Some(slot) = slot {
                    (slot.token, slot.flight) = (Some(Arc::clone(&token)), None);
                    slot.pause = Pause::default();
                }
                state.pause = Pause::default();
                tracing::debug!(mcp.server = self.server, "a token for an upstream was issued");
                Ok(token)
            }
            Err(failed) => {
                let cause = failed.cause;
                tracing::warn!(
                    mcp.server = self.server,
                    cause = cause.as_str(),
                    reason = failed.reason,
                    "there is no token for an upstream"
                );
                let mut own = Pause::default();
                let pause = match slot {
                    Some(slot) => {
                        slot.flight = None;
                        &mut slot.pause
                    }
                    // The grant was revoked meanwhile: nobody waits for its pause.
                    None => &mut own,
                };
                let pause = if failed.concerns_all {
                    &mut state.pause
                } else {
                    pause
                };
                pause.begin(cause, failed.retry_after, begun, now);
                let wait = pause.left(now).map_or(1, |(_, left)| left);
                Err(Failure {
                    cause,
                    paused: false,
                    wait: Duration::from_secs(wait),
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a request for a token.
async fn landed(mut flight: Flight) -> Outcome {
    let lost = Err(Failure::now(Cause::Unreachable));
    match flight.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(lost),
        // Its task ended without an outcome.
        Err(_) => lost,
    }
}

/// Forgets tokens of what is revoked as soon as a feed says so, until `shutdown`. None of them would be used
/// any more: their requests are refused before (M-12).
pub(crate) async fn follow(tokens: Arc<Tokens>, issuers: Arc<Issuers>, shutdown: Shutdown) {
    let mut changes = issuers.changes();
    while tokens.source.exchange().is_some() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
        tokens.forget_revoked(&issuers);
    }
}

/// The keys of all `tokens` as a JWK set (RFC 7517 §5), if there are any.
pub(crate) fn key_set<'a>(tokens: impl Iterator<Item = &'a Arc<Tokens>>) -> Option<Bytes> {
    let mut keys: Vec<serde_json::Value> = Vec::new();
    for key in tokens.flat_map(|tokens| tokens.public_keys()) {
        let mut jwk = serde_json::to_value(key.to_jwk()).ok()?;
        let members = jwk.as_object_mut()?;
        members.insert("kid".to_owned(), key.thumbprint().to_string().into());
        members.insert("alg".to_owned(), key.algorithm().as_str().into());
        members.insert("use".to_owned(), "sig".into());
        if !keys.contains(&jwk) {
            keys.push(jwk);
        }
    }
    (!keys.is_empty()).then(|| serde_json::json!({ "keys": keys }).to_string().into())
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
