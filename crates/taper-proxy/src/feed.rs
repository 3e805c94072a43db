//! Following the issuers: root keys, and the revocation feed by long poll (RULES 29).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use taper_service::clock::SharedClock;
use taper_service::fetch::{Fetcher, Request};
use taper_service::shutdown::Shutdown;
use taper_store::{NO_HISTORY, Revocation, RevocationPage, StoreError, persist_head};

use crate::issuers::{Issuers, MAX_KEY_SET};

/// How long the issuer is asked to wait for news, in seconds.
const LONGEST_WAIT: u64 = 25;
/// What an answer may take beyond that.
const GRACE: Duration = Duration::from_secs(10);
/// The largest page, in bytes.
const MAX_PAGE: usize = 8 * 1024 * 1024;
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often root keys are fetched without a reason.
const KEYS_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The least time between two fetches of root keys, whoever asks (RULES 26 has the same for JWTs).
const KEYS_FLOOR: Duration = Duration::from_secs(10);

/// One issuer's feed.
pub(crate) struct Follower {
    pub(crate) issuer: String,
    pub(crate) uri: String,
    /// `Basic …`, marked sensitive.
    pub(crate) authorization: HeaderValue,
    pub(crate) max_staleness: Duration,
    /// Where the highest number is remembered.
    pub(crate) head_file: PathBuf,
}

/// A page as the issuer sends it.
#[derive(Deserialize)]
struct Page {
    entries: Vec<Revocation>,
    head: u64,
    upto: u64,
    /// Seconds since the Unix epoch, by the issuer's clock.
    time: i64,
}

/// Why a poll brought nothing.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("{0}")]
    Fetch(#[from] taper_service::fetch::FetchError),
    #[error("the feed answered {0}")]
    Status(StatusCode),
    #[error("the page cannot be read: {0}")]
    Page(String),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Follower {
    /// Polls until `shutdown`. Failures are retried; that the view grows stale is what denies.
    pub(crate) async fn run(
        self,
        issuers: Arc<Issuers>,
        fetcher: Fetcher,
        clock: SharedClock,
        shutdown: Shutdown,
    ) {
        let mut pause = FIRST_PAUSE;
        // The first answer must not wait for news.
        let mut wait = 0;
        loop {
            let polled = tokio::select! {
                () = shutdown.cancelled() => return,
                polled = self.poll(&issuers, &fetcher, &clock, wait) => polled,
            };
            match polled {
                Ok(complete) => {
                    pause = FIRST_PAUSE;
                    wait = if complete { self.wait() } else { 0 };
                }
                Err(error @ PollError::Store(StoreError::Regression { .. })) => {
                    tracing::error!(issuer = self.issuer, %error, "the revocation feed lost entries, calls will be denied");
                    wait = 0;
                }
                Err(error) => {
                    tracing::warn!(issuer = self.issuer, %error, "cannot follow the revocation feed");
                    wait = 0;
                }
            }
            if wait == 0 {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Less than the allowed staleness, so that a quiet feed is never stale.
    fn wait(&self) -> u64 {
        self.max_staleness
            .as_secs()
            .saturating_sub(5)
            .clamp(1, LONGEST_WAIT)
    }

    /// Whether the view is complete after the page.
    async fn poll(
        &self,
        issuers: &Issuers,
        fetcher: &Fetcher,
        clock: &SharedClock,
        wait: u64,
    ) -> Result<bool, PollError> {
        let before = issuers.get(&self.issuer).map_or(0, |state| state.head());
        let request = Request::get(format!("{}?after={before}&wait={wait}", self.uri))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .max_bytes(MAX_PAGE)
            .timeout(Duration::from_secs(wait).saturating_add(GRACE));
        let answer = fetcher.send(request).await?;
        if answer.status != StatusCode::OK {
            return Err(PollError::Status(answer.status));
        }
        let page: Page = serde_json::from_slice(&answer.body).map_err(|e| PollError::Page(e.to_string()))?;
        // An issuer whose clock is ahead does not make its feed fresh for longer.
        let as_of = page.time.min(clock.unix());
        let page = RevocationPage {
            entries: page.entries,
            head: page.head,
            upto: page.upto,
            history: NO_HISTORY,
        };
        issuers.take_page(&self.issuer, &page, as_of)?;
        let after = issuers.get(&self.issuer).map_or(0, |state| state.head());
        if after > before {
            let (path, issuer) = (self.head_file.clone(), self.issuer.clone());
            tokio::task::spawn_blocking(move || persist_head(&path, &issuer, after))
                .await
                .map_err(|e| PollError::Page(e.to_string()))??;
        }
        Ok(after == page.head)
    }
}

/// Keeps an issuer's root keys up to date until `shutdown`: at the start with retries, then by age, and
/// when a token names a key that is not known.
pub(crate) async fn follow_keys(
    issuer: String,
    uri: String,
    issuers: Arc<Issuers>,
    fetcher: Fetcher,
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
                    tokio::time::sleep(KEYS_FLOOR).await;
                    let Some(state) = issuers.get(&issuer) else { return };
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
