//! An answer lasts no longer than its permit (RULES 18, M-33): it is cut when the capability expires,
//! when something of it is revoked, and when the decision, asked again every 10 s, is no longer yes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use taper_capability::{Access, VerifiedPresentation};
use taper_policy::boundary::{self, Decision};
use taper_service::clock::SharedClock;
use taper_service::edge::BoxError;
use taper_service::pool::{CpuPool, PoolError};
use taper_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use crate::body::Body;
use crate::gate::Gate;
use crate::rules;

const AGAIN: Duration = Duration::from_secs(10);
/// How often in a row it may be undecided whether a stream goes on.
const MAX_UNDECIDED: u8 = 3;

/// What a stream depends on.
pub(crate) struct Lease {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: CpuPool,
    pub(crate) clock: SharedClock,
    pub(crate) presentation: Arc<VerifiedPresentation>,
    pub(crate) access: Access,
    /// The reads that a subscription amounts to.
    pub(crate) subscribed: Vec<Access>,
    pub(crate) expires_at: i64,
    pub(crate) shutdown: Shutdown,
}

/// Why a stream was cut.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended: {0}")]
pub(crate) struct Cut(&'static str);

struct State {
    lease: Lease,
    body: Body,
    expiry: Pin<Box<Sleep>>,
    again: Interval,
    changes: watch::Receiver<u64>,
    /// Whether nothing of the body was passed on yet.
    fresh: bool,
    /// How often in a row it was undecided.
    undecided: u8,
}

/// The body, as long as its lease holds.
pub(crate) fn leased(body: Body, lease: Lease) -> Body {
    let left = lease.expires_at.saturating_sub(lease.clock.unix());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.reset();
    let changes = lease.gate.issuers.changes();
    let state = State {
        expiry: Box::pin(tokio::time::sleep(left)),
        lease,
        body,
        again,
        changes,
        fresh: true,
        undecided: 0,
    };
    let frames = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        // What was revoked while the upstream worked on its answer is not in `changes`.
        if std::mem::take(&mut state.fresh)
            && let Err(cut) = state.lease.check_revocation()
        {
            return Some((Err(BoxError::from(cut)), None));
        }
        loop {
            let ask = tokio::select! {
                biased;
                () = state.expiry.as_mut() => {
                    // The wall clock decides; the timer only wakes.
                    state.expiry.as_mut().reset(tokio::time::Instant::now() + AGAIN);
                    true
                }
                _ = state.again.tick() => true,
                // Every stream hears of every revocation: only that is looked at, which needs no place in
                // the pool.
                Ok(()) = state.changes.changed() => false,
                () = state.lease.shutdown.cancelled() => {
                    return Some((Err(BoxError::from(Cut("the proxy is shutting down"))), None));
                }
                frame = state.body.frame() => match frame {
                    None => return None,
                    Some(Ok(frame)) => return Some((Ok(frame), Some(state))),
                    Some(Err(error)) => return Some((Err(error), None)),
                },
            };
            let checked = if ask {
                state.lease.check(&mut state.undecided).await
            } else {
                state.lease.check_revocation()
            };
            if let Err(cut) = checked {
                let chain = state.lease.presentation.chain();
                tracing::info!(rule = %rules::STREAM, grant.id = chain.grant_id(), reason = cut.0, "a stream was cut");
                return Some((Err(BoxError::from(cut)), None));
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Lease {
    fn check_revocation(&self) -> Result<(), Cut> {
        let checked = self
            .gate
            .issuers
            .check_revocation(self.presentation.chain(), self.clock.unix());
        checked.map_err(|_| Cut("the capability is revoked, or that cannot be known"))
    }

    /// Asks again; `undecided` counts how often in a row there was no answer.
    pub(crate) async fn check(&self, undecided: &mut u8) -> Result<(), Cut> {
        let now = self.clock.unix();
        if !rules::STREAM.holds(now < self.expires_at) {
            return Err(Cut("the capability has expired"));
        }
        self.check_revocation()?;
        let (gate, presentation) = (Arc::clone(&self.gate), Arc::clone(&self.presentation));
        let mut accesses = self.subscribed.clone();
        accesses.push(self.access.clone());
        let decided = self
            .pool
            .run(move || again(&gate, &presentation, accesses, now))
            .await;
        match decided {
            Ok(Again::Yes) => {
                *undecided = 0;
                Ok(())
            }
            Ok(Again::No) => Err(Cut("it is no longer allowed")),
            // A limit is not a denial; the next time is 10 s away. Lasting doubt ends the stream.
            Ok(Again::Undecided) | Err(PoolError::Busy) => {
                *undecided = undecided.saturating_add(1);
                if *undecided < MAX_UNDECIDED {
                    Ok(())
                } else {
                    Err(Cut("it could not be decided"))
                }
            }
            Err(PoolError::Failed) => Err(Cut("it could not be decided")),
        }
    }
}

/// What came of asking again.
enum Again {
    Yes,
    No,
    Undecided,
}

/// Asks for every access of a stream. Each carries the calls that were counted at the beginning, so
/// none is counted again or denied by its own count (RULES 16).
fn again(gate: &Gate, presentation: &VerifiedPresentation, accesses: Vec<Access>, now: i64) -> Again {
    for access in accesses {
        match boundary::decide(&gate.policy, presentation, access, now) {
            Decision::Allow(_) => {}
            Decision::Deny(_) => return Again::No,
            Decision::Indeterminate(_) => return Again::Undecided,
        }
    }
    Again::Yes
}
