//! Following the issuers: root keys, and the revocation feed by long poll (RULES 29,
//! `spec/revocation.md`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use taper_dpop::RuleId;
use taper_oauth::json;
use taper_service::clock::SharedClock;
use taper_service::fetch::{Fetched, Fetcher, Request};
use taper_service::shutdown::Shutdown;
use taper_store::{FEED_PAGE_BYTES, FEED_SIGNATURE, FeedPage, StoreError, persist_position};

use crate::followed::{Followed, Trouble};
use crate::issuers::{IssuerState, Issuers, MAX_KEY_SET, Unsigned};
use crate::rules;

/// How long the issuer is asked to wait for news, in seconds.
const LONGEST_WAIT: u64 = 25;
/// What an answer may take beyond that.
const GRACE: Duration = Duration::from_secs(10);
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause after an answer without news: an issuer that does not wait is not asked in a tight circle.
const QUIET_PAUSE: Duration = Duration::from_millis(50);
/// How often root keys are fetched without a reason.
const KEYS_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The least time between two fetches of root keys, whoever asks (RULES 26 has the same for JWTs).
const KEYS_FLOOR: Duration = Duration::from_secs(10);

/// One issuer's feed.
#[derive(Clone)]
pub(crate) struct Follower {
    pub(crate) issuer: String,
    pub(crate) uri: String,
    /// `Basic …`, marked sensitive.
    pub(crate) authorization: HeaderValue,
    pub(crate) max_staleness: Duration,
    /// Where the position is remembered.
    pub(crate) position_file: PathBuf,
}

/// What an answer of the feed was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// There is more behind it.
    Part,
    /// It reached the head.
    All,
    /// It reached the head, which was known.
    Nothing,
}

/// Why a poll brought nothing.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("{0}")]
    Fetch(#[from] taper_service::fetch::FetchError),
    #[error("the feed answered {0}")]
    Status(StatusCode),
    #[error("the page is not believed: {0}")]
    Unsigned(#[from] Unsigned),
    #[error("the page cannot be read: {0}")]
    Page(#[from] taper_oauth::WireError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the page could not be taken")]
    Broken,
}

impl PollError {
    /// The rule that the answer broke, where it is one of the proxy's own.
    fn rule(&self) -> Option<RuleId> {
        match self {
            Self::Unsigned(_) => Some(rules::FEED_SIGNATURE),
            Self::Store(StoreError::Regression { .. } | StoreError::Forked { .. }) => {
                Some(rules::FEED_HISTORY)
            }
            _ => None,
        }
    }

    fn trouble(&self) -> Trouble {
        match self {
            Self::Fetch(_) | Self::Status(_) => Trouble::Unreachable,
            Self::Unsigned(_) => Trouble::Unsigned,
            Self::Page(_) | Self::Broken => Trouble::Malformed,
            Self::Store(error) => Trouble::of(error),
        }
    }
}

impl Follower {
    /// Polls until `shutdown`. Failures are retried; that the view grows stale is what denies. An issuer
    /// without a feed is not followed.
    pub(crate) async fn run(
        self,
        issuers: Arc<Issuers>,
        fetcher: Fetcher,
        clock: SharedClock,
        shutdown: Shutdown,
    ) {
        let Some((state, feed)) = state_of(&issuers, &self.issuer) else {
            return;
        };
        let mut keys = state.key_changes();
        let mut pause = FIRST_PAUSE;
        // The first answer must not wait for news.
        let mut wait = 0;
        loop {
            let polled = tokio::select! {
                () = shutdown.cancelled() => return,
                polled = self.poll(&issuers, &fetcher, &clock, wait) => polled,
            };
            let rest = match polled {
                Ok(taken) => {
                    pause = FIRST_PAUSE;
                    // What is left behind a page is asked for at once.
                    wait = if taken == Taken::Part { 0 } else { self.wait() };
                    if taken == Taken::Nothing {
                        QUIET_PAUSE
                    } else {
                        Duration::ZERO
                    }
                }
                Err(error) => {
                    feed.note(error.trouble());
                    self.report(&error);
                    let rest = pause;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    wait = 0;
                    rest
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
                // What a page lacked may be what came.
                _ = keys.changed(), if !rest.is_zero() => pause = FIRST_PAUSE,
            }
        }
    }

    fn report(&self, error: &PollError) {
        let (issuer, file) = (&self.issuer, self.position_file.display());
        match error.rule() {
            Some(rule) if rule == rules::FEED_HISTORY => tracing::error!(
                issuer, %rule, %error,
                "the issuer lost revocations: everything of it is denied. If they cannot be brought back, revoke \
                 again what is missing, then remove `{file}` and start this proxy again"
            ),
            Some(rule) => {
                tracing::warn!(issuer, %rule, %error, "a page of the revocation feed is not believed")
            }
            None => tracing::warn!(issuer, %error, "cannot follow the revocation feed"),
        }
    }

    /// Less than the allowed staleness, so that a quiet feed is never stale.
    fn wait(&self) -> u64 {
        self.max_staleness
            .as_secs()
            .saturating_sub(5)
            .clamp(1, LONGEST_WAIT)
    }

    async fn poll(
        &self,
        issuers: &Arc<Issuers>,
        fetcher: &Fetcher,
        clock: &SharedClock,
        wait: u64,
    ) -> Result<Taken, PollError> {
        let (_, feed) = state_of(issuers, &self.issuer).ok_or(PollError::Broken)?;
        let (after, known) = (feed.reached().seq, feed.known().seq);
        let request = Request::get(format!("{}?after={after}&wait={wait}&known={known}", self.uri))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .max_bytes(FEED_PAGE_BYTES)
            .timeout(Duration::from_secs(wait).saturating_add(GRACE));
        let answer = fetcher.send(request).await?;
        if answer.status != StatusCode::OK {
            return Err(PollError::Status(answer.status));
        }
        // A page may have thousands of entries, and its position goes to the disk.
        let (this, issuers, now) = (self.clone(), Arc::clone(issuers), clock.unix());
        tokio::task::spawn_blocking(move || this.take(&issuers, &answer, now))
            .await
            .map_err(|_| PollError::Broken)?
    }

    /// Blocks on the disk.
    fn take(&self, issuers: &Issuers, answer: &Fetched, now: i64) -> Result<Taken, PollError> {
        let (state, feed) = state_of(issuers, &self.issuer).ok_or(PollError::Broken)?;
        let mut signatures = answer.headers.get_all(FEED_SIGNATURE).iter();
        let signature = match (signatures.next(), signatures.next()) {
            (Some(one), None) => one.to_str().ok(),
            _ => None,
        };
        match state.verify_page(signature, &answer.body) {
            Err(error) if !rules::FEED_SIGNATURE.holds(false) => return Err(error.into()),
            _ => {}
        }
        let page: FeedPage = json::read(&answer.body, FEED_PAGE_BYTES)?;
        let keep = |position| persist_position(&self.position_file, &self.issuer, position);
        let before = feed.reached().seq;
        issuers.take_page(&self.issuer, &page, now, keep)?;
        if page.upto < page.head {
            return Ok(Taken::Part);
        }
        feed.sweep();
        Ok(if page.upto > before {
            Taken::All
        } else {
            Taken::Nothing
        })
    }
}

fn state_of<'a>(issuers: &'a Issuers, issuer: &str) -> Option<(&'a IssuerState, &'a Followed)> {
    let state = issuers.get(issuer)?;
    Some((state, state.feed()?))
}

/// Keeps an issuer's root keys up to date until `shutdown`: at the start with retries, then by age, and
/// when a token names a key that is not known.
pub(crate) async fn follow_keys(
    issuer: String,
    uri: String,
    issuers: Arc<Issuers>,
    fetcher: Fetcher,
    clock: SharedClock,
    shutdown: Shutdown,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let fetched = tokio::select! {
            () = shutdown.cancelled() => return,
            fetched = fetcher.get(&uri, MAX_KEY_SET) => fetched,
        };
        let taken = match fetched {
            Ok(answer) if answer.status == StatusCode::OK => {
                issuers.set_keys(&issuer, &answer.body).map_err(|e| e.to_string())
            }
            Ok(answer) => Err(format!("the answer is {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        let rest = async {
            match taken {
                Ok(keys) => {
                    tracing::debug!(issuer, keys, "root keys fetched");
                    pause = FIRST_PAUSE;
                    let Some(state) = issuers.get(&issuer) else { return };
                    state.keys_taken(clock.unix());
                    tokio::time::sleep(KEYS_FLOOR).await;
                    let _ = tokio::time::timeout(KEYS_MAX_AGE, state.keys_wanted.notified()).await;
                }
                Err(error) => {
                    tracing::warn!(issuer, error, "cannot fetch the root keys");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rest => {}
        }
    }
}
