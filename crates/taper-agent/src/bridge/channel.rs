//! Sends what the core says: signed, over the streaming fetcher.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use taper_dpop::ProofClaims;
use taper_service::fetch::{Request, Streamed};
use taper_service::rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::conversation::Conversation;
use super::core::{Exchange, Head, Input, Output};
use super::trouble::Trouble;
use super::{Limits, Target};
use crate::Credential;
use crate::proven::{DPOP, DPOP_NONCE, MAX_NONCE, secret_value};

/// A request of a client, to be signed. Its headers are those that pass.
#[derive(Clone, Debug)]
pub(super) struct Upward {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// What a POST carries, as it came.
    pub(super) body: Bytes,
}

/// One conversation's way to the proxy.
#[derive(Debug)]
pub struct Channel {
    target: Target,
    conversation: Conversation,
    /// The newest that the proxy gave.
    nonce: Mutex<Option<String>>,
    places: Arc<Semaphore>,
}

/// A place among the requests that are under way.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Channel {
    /// A way to `target` for `conversation`.
    pub fn new(target: Target, conversation: Conversation) -> Self {
        let places = target.limits.max_running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            target,
            conversation,
            nonce: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The conversation.
    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.target.limits
    }

    pub(super) fn path(&self) -> &str {
        &self.target.path
    }

    /// Takes a place until it is dropped.
    pub(super) fn place(&self) -> Result<Place, Trouble> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place
            .map(Place)
            .map_err(|_| Trouble::Busy(self.limits().max_running))
    }

    /// Sends a request, at most once for each cause to send it again. When this or the answer is
    /// dropped, the proxy learns it at once.
    pub(super) async fn send(&self, upward: &Upward) -> Result<Streamed, Trouble> {
        let mut exchange = Exchange::default();
        let mut credential: Option<Arc<Credential>> = None;
        let mut answer: Option<Streamed> = None;
        let mut output = Exchange::FIRST;
        loop {
            let input = match output {
                Output::Obtain | Output::Renew => {
                    let now = self.target.clock.unix();
                    let got = match &credential {
                        None => self.conversation.credential(now).await,
                        Some(refused) => self.conversation.renewed(refused, now).await,
                    };
                    match got {
                        Ok(got) => {
                            credential = Some(got);
                            Input::Ready
                        }
                        Err(trouble) => Input::Unavailable(trouble),
                    }
                }
                Output::Send => match &credential {
                    Some(credential) => match self.send_once(upward, credential).await {
                        Ok(arrived) => {
                            let head = Head::read(arrived.status, &arrived.headers);
                            answer = Some(arrived);
                            Input::Head(head)
                        }
                        Err(trouble) => Input::Failed(trouble),
                    },
                    None => Input::Unavailable(none()),
                },
                Output::Pass => return answer.ok_or_else(none),
                Output::Refuse(trouble) => return Err(trouble),
            };
            output = exchange.step(input);
        }
    }

    async fn send_once(&self, upward: &Upward, credential: &Credential) -> Result<Streamed, Trouble> {
        let (url, token) = (&self.target.url, credential.token());
        let now = self.target.clock.unix();
        let nonce = self.nonce().clone();
        let mut claims = ProofClaims::new(upward.method.as_str(), url, now, &mut rng::os())
            .token(token)
            .nonce(nonce.as_deref());
        if upward.method == Method::POST {
            claims = claims.body(&upward.body);
        }
        let proof = credential.key().prove(&claims).await?;
        let mut request = Request::new(upward.method.clone(), url)
            .headers(upward.headers.clone())
            .header(DPOP, secret_value(&proof)?)
            .header(AUTHORIZATION, secret_value(&format!("DPoP {token}"))?)
            .timeout(self.limits().answer_timeout);
        if upward.method == Method::POST {
            request = request.body(upward.body.clone());
        }
        let answer = self.target.fetcher.open(request).await?;
        let fresh = answer.headers.get(DPOP_NONCE).map(HeaderValue::to_str);
        if let Some(Ok(fresh)) = fresh.filter(|fresh| fresh.as_ref().is_ok_and(|f| f.len() <= MAX_NONCE)) {
            *self.nonce() = Some(fresh.to_owned());
        }
        Ok(answer)
    }

    fn nonce(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn none() -> Trouble {
    Trouble::Credential("there is none yet".to_owned())
}
