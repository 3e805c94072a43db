//! What callers may use up of one server: requests in a time, places at once, decisions that run into
//! limits (`spec/proxy.md`, "Limits"; M-39 to M-41).
//!
//! Nothing here is asked before the caller's presentation is verified and its proof was looked up: who
//! sends a captured request again uses up nothing of the holder's. Every table is bounded, and what finds one full is refused sooner, never later.

mod addresses;
mod places;
mod rate;
mod silence;
mod table;
mod undecided;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as _;
use taper_capability::{VerifiedChain, VerifiedPresentation};
use taper_dpop::RuleId;
use taper_service::clock::SharedClock;

use self::places::{Full, Places};
use self::rate::{Buckets, Pace};
use self::table::{Caller, Key};
use self::undecided::Undecided;
use crate::config::{Limits, Rate, Rates};
use crate::refusal::Refusal;
use crate::rules;

pub(crate) use self::addresses::Addresses;
pub(crate) use self::places::Place;
pub(crate) use self::silence::bounded;

/// At most one line of the log in this time for each rule (RULES 30).
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Requests with a capability for other servers are refused, but not before they are read and can be
/// recorded. They have this part of the number of places for bodies, beside it.
const FOREIGN: usize = 16;

/// What one server has to give, and who uses how much of it.
#[derive(Debug)]
pub(crate) struct Limiter {
    server: String,
    pace: Pace,
    /// From the narrowest to the widest, with whose it is.
    rates: Vec<(Whose, Buckets)>,
    undecided: Undecided,
    running: Arc<Places>,
    streams: Arc<Places>,
    replies: Arc<Places>,
    bodies: Arc<Places>,
    /// For those whose capability is for other servers.
    foreign_bodies: Arc<Places>,
    reading: Arc<Mutex<HashSet<Key>>>,
    told: Mutex<Vec<Told>>,
}

/// What a request is to the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It ends by itself.
    Request,
    /// It lasts until somebody ends it: an answer to GET or to `subscriptions/listen`.
    Stream,
    /// Work that runs may wait for it, so it does not wait for that work's places: a client's answer to the
    /// server, a cancellation, the end of a session.
    Reply,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    Holder,
    Grant,
    Subject,
}

impl Whose {
    fn key(self, caller: &Caller) -> &Key {
        match self {
            Self::Holder => &caller.holder,
            Self::Grant => &caller.grant,
            Self::Subject => &caller.subject,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Grant => "grant",
            Self::Subject => "subject",
        }
    }
}

/// When a rule was last told of, and how often it refused since.
#[derive(Debug)]
struct Told {
    rule: RuleId,
    at: Option<Duration>,
    since: u64,
}

/// A place for reading one body, and the proof that no other request may use meanwhile.
#[derive(Debug)]
pub(crate) struct Reading {
    _place: Place,
    proof: Key,
    reading: Arc<Mutex<HashSet<Key>>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.remove(&self.proof);
    }
}

impl Limiter {
    /// The limits of `server`, of which nothing is used yet.
    ///
    /// # Errors
    /// The key of a rate that means nothing, and why.
    pub(crate) fn new(
        server: &str,
        limits: &Limits,
        rates: &Rates,
        clock: SharedClock,
    ) -> Result<Self, (&'static str, &'static str)> {
        let pace = Pace::new(clock);
        let mut buckets = Vec::new();
        for (key, whose, rate) in named(rates) {
            if let Some(rate) = rate {
                let quota = rate::quota(rate).map_err(|reason| (key, reason))?;
                buckets.push((whose, Buckets::new(quota, pace.clone())));
            }
        }
        let half = limits.max_bodies.div_ceil(2);
        let foreign = limits.max_bodies.div_ceil(FOREIGN);
        let max_streams = limits.max_streams;
        let told = [rules::RATE, rules::PLACES, rules::COSTLY];
        Ok(Self {
            server: server.to_owned(),
            pace,
            rates: buckets,
            undecided: Undecided::new(limits.max_undecided_per_holder, limits.max_undecided_per_grant),
            running: Places::new(
                limits.max_running,
                limits.max_running_per_grant,
                limits.max_running_per_holder,
            ),
            streams: Places::new(
                max_streams,
                limits.max_streams_per_grant,
                limits.max_streams_per_holder,
            ),
            replies: Places::new(limits.max_bodies, half, half),
            bodies: Places::new(limits.max_bodies, half, half),
            foreign_bodies: Places::new(foreign, foreign, foreign),
            reading: Arc::default(),
            told: Mutex::new(told.map(Told::never).into()),
        })
    }

    /// A place for reading the body of a request to `resource` whose presentation is verified. Its proof
    /// was not taken yet, so a captured head could be sent many times: one body at a time for each proof.
    ///
    /// # Errors
    /// M-40, or R-13 when a body comes under the same proof.
    pub(crate) fn read_body(
        &self,
        presentation: &VerifiedPresentation,
        resource: &str,
    ) -> Result<Reading, Refusal> {
        let (chain, proof) = (presentation.chain(), presentation.proof());
        let is_foreign = !chain.audiences().iter().any(|audience| audience == resource);
        let bodies = if is_foreign {
            &self.foreign_bodies
        } else {
            &self.bodies
        };
        let place = self.place(bodies, "request bodies", chain, &Caller::of(chain))?;
        let proof = Key::of(&[proof.thumbprint().as_bytes(), proof.jti_hash()]);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if !reading.insert(proof) {
            return Err(Refusal::Replay);
        }
        Ok(Reading {
            _place: place,
            proof,
            reading: Arc::clone(&self.reading),
        })
    }

    /// A place for a request whose proof was not used before, until it is decided and answered.
    ///
    /// # Errors
    /// M-41, M-39 or M-40.
    pub(crate) fn admit(&self, chain: &VerifiedChain, work: Work) -> Result<Place, Refusal> {
        let caller = Caller::of(chain);
        let now = self.pace.now();
        if let Err((whose, wait)) = self.undecided.check(&caller, now)
            && !rules::COSTLY.holds(false)
        {
            return Err(self.tell(chain, Refusal::Costly { whose, wait }));
        }
        // A wider bound that refuses leaves no entry in the tables of narrower ones, and a narrower one
        // takes nothing from a wider one.
        for (whose, buckets) in self.rates.iter().rev() {
            if let Err(wait) = buckets.ask(whose.key(&caller))
                && !rules::RATE.holds(false)
            {
                let whose = whose.name();
                return Err(self.tell(chain, Refusal::Rate { whose, wait }));
            }
        }
        for (whose, buckets) in &self.rates {
            if let Err(wait) = buckets.take(whose.key(&caller))
                && !rules::RATE.holds(false)
            {
                let whose = whose.name();
                return Err(self.tell(chain, Refusal::Rate { whose, wait }));
            }
        }
        match work {
            Work::Request => self.place(&self.running, "requests", chain, &caller),
            Work::Stream => self.place(&self.streams, "streams", chain, &caller),
            Work::Reply => self.place(&self.replies, "answers", chain, &caller),
        }
    }

    /// Counts a decision that ran into an evaluation limit.
    pub(crate) fn undecided(&self, chain: &VerifiedChain) {
        let n = self.undecided.add(&Caller::of(chain), self.pace.now());
        let server = self.server.as_str();
        // The number of a grant is bounded by `max_undecided_per_grant`, a minute.
        tracing::warn!(
            mcp.server = server,
            grant.id = chain.grant_id(),
            undecided = n,
            "a decision ran into a limit"
        );
    }

    /// How many places are taken: for requests, streams, answers of clients, and bodies.
    pub(crate) fn taken(&self) -> [usize; 4] {
        let bodies = self.bodies.in_use().saturating_add(self.foreign_bodies.in_use());
        let [running, streams, replies] =
            [&self.running, &self.streams, &self.replies].map(|places| places.in_use());
        [running, streams, replies, bodies]
    }

    /// How many places for requests, streams and bodies are taken, each by how many grants and holders.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> [(usize, usize, usize); 3] {
        [&self.running, &self.streams, &self.bodies].map(|places| places.taken())
    }

    /// How many callers have a bucket of their own, for each rate.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> Vec<usize> {
        self.rates.iter().map(|(_, buckets)| buckets.len()).collect()
    }

    /// How many bodies are read of those whose capability is for other servers.
    #[cfg(test)]
    pub(crate) fn foreign_in_use(&self) -> usize {
        self.foreign_bodies.taken().0
    }

    fn place(
        &self,
        places: &Arc<Places>,
        what: &'static str,
        chain: &VerifiedChain,
        caller: &Caller,
    ) -> Result<Place, Refusal> {
        let whose = match places.take(caller) {
            Ok(place) => return Ok(place),
            Err(Full::Holder) => Some(Whose::Holder.name()),
            Err(Full::Grant) => Some(Whose::Grant.name()),
            Err(Full::Server) => None,
        };
        Err(self.tell(chain, Refusal::Crowded { what, whose }))
    }

    /// Says in the log what was refused, and for how many others since it was last said.
    fn tell(&self, chain: &VerifiedChain, refusal: Refusal) -> Refusal {
        let (now, rule) = (self.pace.now(), refusal.rule());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = told.iter_mut().find(|told| told.rule == rule) else {
            return refusal;
        };
        if let Some(refused) = told.count(now) {
            let server = self.server.as_str();
            tracing::warn!(%rule, mcp.server = server, grant.id = chain.grant_id(), refused, reason = %refusal, "requests are refused by a limit");
        }
        refusal
    }
}

impl Told {
    fn never(rule: RuleId) -> Self {
        Self {
            rule,
            at: None,
            since: 0,
        }
    }

    /// Counts a refusal. How many there were, when it is time to say so.
    fn count(&mut self, now: Duration) -> Option<u64> {
        self.since = self.since.saturating_add(1);
        if self.at.is_some_and(|at| now.saturating_sub(at) < TELL_EVERY) {
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

/// The rates by their keys, from the narrowest to the widest.
fn named(rates: &Rates) -> [(&'static str, Whose, Option<&Rate>); 3] {
    [
        ("per_holder", Whose::Holder, rates.per_holder.as_ref()),
        ("per_grant", Whose::Grant, rates.per_grant.as_ref()),
        ("per_subject", Whose::Subject, rates.per_subject.as_ref()),
    ]
}

/// What of a server's rates and limits means nothing: the key, and why.
///
/// # Errors
/// The first such key.
pub(crate) fn check(limits: &Limits, rates: &Rates) -> Result<(), (String, &'static str)> {
    for (key, value) in limits.counts() {
        if value == 0 {
            return Err((format!("limits.{key}"), "it is at least 1"));
        }
    }
    let of_callers = named(rates).map(|(key, _, rate)| (key, rate));
    let of_addresses = ("per_address", rates.per_address.as_ref());
    for (key, rate) in of_callers.into_iter().chain([of_addresses]) {
        if let Some(Err(reason)) = rate.map(rate::quota) {
            return Err((format!("rate.{key}"), reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_now_and_then() {
        let mut told = Told::never(rules::RATE);
        let at = Duration::from_secs;
        assert_eq!(told.count(at(0)), Some(1));
        for _ in 0..1_000 {
            assert_eq!(told.count(at(9)), None);
        }
        assert_eq!(told.count(at(10)), Some(1_001));
        assert_eq!(told.count(at(11)), None);
    }
}
