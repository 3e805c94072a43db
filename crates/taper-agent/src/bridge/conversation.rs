//! One client's own capability: handed over from the user's to a key that was made for this
//! conversation, and that is nowhere but in memory.
//!
//! The proxy's log then tells conversations apart, one can be revoked alone, and what `--tool`, `--repo`
//! and `--for` said holds for all that the client does.

use std::fmt;
use std::sync::Arc;

use taper_capability::{Caveat, Error as CapabilityError, Token, UnverifiedToken};
use taper_dpop::{Algorithm, PrivateKey, Thumbprint};
use taper_service::clock::rfc3339;
use taper_service::rng;
use tokio::sync::Mutex;

use super::trouble::Trouble;
use crate::{Credential, Error, Held, HolderKey, Source, Step};

/// How far the proxy's clock may be ahead, in seconds.
const SKEW: i64 = 30;

/// What a conversation is restricted to. Everything said holds at once.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The caveats of its link.
    pub caveats: Vec<Caveat>,
    /// When it ends, in seconds since the Unix epoch. Without an end it lasts as long as there is a
    /// capability to hand over.
    pub until: Option<i64>,
    /// How deep the chain may become below it, counted from the grant.
    pub max_depth: Option<u32>,
    /// A note for whoever reads the chain.
    pub note: Option<String>,
    /// Narrow the user's capability for its own key instead of handing it over to a fresh one.
    pub own_key: bool,
}

/// One client's key and capability. It ends with the process.
pub struct Conversation {
    source: Arc<Source>,
    /// Unless the user's own key is used.
    key: Option<HolderKey>,
    terms: Terms,
    made: Mutex<Option<Made>>,
}

struct Made {
    from: Token,
    credential: Arc<Credential>,
}

impl Conversation {
    /// A conversation under `terms` over what `source` has.
    pub fn new(source: Arc<Source>, terms: Terms) -> Self {
        let fresh = || HolderKey::from(PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()));
        Self {
            source,
            key: (!terms.own_key).then(fresh),
            terms,
            made: Mutex::new(None),
        }
    }

    /// The thumbprint of its own key, if it has one.
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        self.key.as_ref().map(HolderKey::thumbprint)
    }

    /// What requests are signed with at this time. When the user's capability was renewed, the new one is
    /// handed over to the same key under the same terms.
    ///
    /// # Errors
    /// [`Trouble::Credential`] says what to do; [`Trouble::Unreachable`] when the issuer does not answer.
    pub async fn credential(&self, now: i64) -> Result<Arc<Credential>, Trouble> {
        self.check_end(now)?;
        if self.is_counted()
            && let Some(made) = &*self.made.lock().await
        {
            return check_expiry(&made.credential, now);
        }
        let held = self.source.current(now).await?;
        let mut made = self.made.lock().await;
        match &*made {
            Some(made) if made.from.as_str() == held.token.as_str() => check_expiry(&made.credential, now),
            _ => self.make(&mut made, held, now).await,
        }
    }

    /// Another credential than `refused`, which the proxy did not accept.
    ///
    /// # Errors
    /// As [`Self::credential`]; also when there is no other.
    pub async fn renewed(&self, refused: &Arc<Credential>, now: i64) -> Result<Arc<Credential>, Trouble> {
        self.check_end(now)?;
        let mut made = self.made.lock().await;
        let from = match &*made {
            Some(made) if Arc::ptr_eq(&made.credential, refused) => made.from.clone(),
            // Another request was refused before this one.
            Some(made) => return check_expiry(&made.credential, now),
            None => return Err(Trouble::Credential("it is not there any more".to_owned())),
        };
        if self.is_counted() {
            return Err(Trouble::Credential(
                "its number of calls is limited, and would be counted anew with another; start the bridge \
                 anew for another conversation"
                    .to_owned(),
            ));
        }
        // What ended before its own date was revoked, and another grant in its place would undo that. Only
        // what somebody else put there meanwhile counts.
        let held = match refused.expires_at() <= now.saturating_add(SKEW) {
            true => self.source.renew(&from, now).await?,
            false => self.source.current(now).await?,
        };
        if held.token.as_str() == from.as_str() {
            return Err(Trouble::Credential(
                "there is no other; exchange one with `taper exchange`, or see `taper doctor`".to_owned(),
            ));
        }
        self.make(&mut made, held, now).await
    }

    /// Whether its calls are counted: a counter belongs to one link, so another hand-over would begin again.
    fn is_counted(&self) -> bool {
        let counts = |caveat: &Caveat| matches!(caveat, Caveat::MaxCalls { .. });
        self.terms.caveats.iter().any(counts)
    }

    fn check_end(&self, now: i64) -> Result<(), Trouble> {
        match self.terms.until {
            Some(until) if until <= now => Err(Trouble::Credential(format!(
                "this conversation ended at {}; start the bridge anew for another",
                rfc3339(until)
            ))),
            _ => Ok(()),
        }
    }

    async fn make(&self, made: &mut Option<Made>, held: Held, now: i64) -> Result<Arc<Credential>, Trouble> {
        let credential = Arc::new(self.hand_over(&held).await.map_err(explain)?);
        *made = Some(Made {
            from: held.token,
            credential: Arc::clone(&credential),
        });
        check_expiry(&credential, now)
    }

    async fn hand_over(&self, held: &Held) -> Result<Credential, Error> {
        let end = UnverifiedToken::decode(held.token.as_str())?.expires_at();
        let Some(key) = &self.key else {
            let token = held
                .key
                .append(&held.token, &self.with_terms(Step::narrow()))
                .await?;
            return Credential::new(&token, held.key.clone());
        };
        let until = self.terms.until.unwrap_or(end);
        let step = Step::hand_over(key.public().clone(), until);
        let token = held.key.append(&held.token, &self.with_terms(step)).await?;
        Credential::new(&token, key.clone())
    }

    fn with_terms(&self, mut step: Step) -> Step {
        for caveat in &self.terms.caveats {
            step = step.only(caveat.clone());
        }
        if let Some(until) = self.terms.until {
            step = step.until(until);
        }
        if let Some(depth) = self.terms.max_depth {
            step = step.max_depth(depth);
        }
        if let Some(note) = &self.terms.note {
            step = step.note(note);
        }
        step
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn check_expiry(credential: &Arc<Credential>, now: i64) -> Result<Arc<Credential>, Trouble> {
    if credential.expires_at() > now {
        return Ok(Arc::clone(credential));
    }
    Err(Trouble::Credential(format!(
        "it expired at {}; exchange a new one with `taper exchange`, or let the bridge renew it with \
         `--wallet`",
        rfc3339(credential.expires_at())
    )))
}

fn explain(error: Error) -> Trouble {
    match error {
        Error::Capability(error @ CapabilityError::Depth { .. }) => Trouble::Credential(format!(
            "it cannot be handed over to the conversation's key: {error}; `--own-key` narrows it for its \
             own key instead"
        )),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chain, NOW};
    use crate::{Fixed, KeySource, keyfile};
    use taper_service::secret::write_private_file;

    fn over(chain: &Chain, terms: Terms) -> Conversation {
        let held = Fixed::held(chain.token.clone(), chain.holder()).unwrap();
        Conversation::new(Arc::new(Source::Fixed(Box::new(held))), terms)
    }

    fn told(trouble: Result<Arc<Credential>, Trouble>) -> String {
        trouble.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn each_conversation_has_its_own_key_and_keeps_its_capability() {
        let chain = Chain::new();
        let caveat = Caveat::Server {
            servers: vec!["git".into()],
        };
        let terms = Terms {
            caveats: vec![caveat.clone()],
            until: Some(NOW + 60),
            note: Some("why".into()),
            max_depth: Some(2),
            own_key: false,
        };
        let (one, other) = (over(&chain, terms.clone()), over(&chain, terms));
        let credential = one.credential(NOW).await.unwrap();
        assert!(Arc::ptr_eq(&credential, &one.credential(NOW + 1).await.unwrap()));
        assert_eq!(Some(credential.thumbprint()), one.thumbprint());
        assert_ne!(one.thumbprint(), other.thumbprint());
        let token = UnverifiedToken::decode(credential.token()).unwrap();
        assert_eq!((token.depth(), token.expires_at()), (1, NOW + 60));
        assert_eq!(token.max_depth(), 2);
        let link = token.links().last().unwrap();
        assert_eq!(link.caveats().0, [caveat]);
        assert_eq!(link.note.as_deref(), Some("why"));
        assert!(told(one.credential(NOW + 60).await).contains("conversation ended"));
    }

    #[tokio::test]
    async fn what_cannot_be_handed_over_can_be_narrowed() {
        let chain = Chain::new();
        let own = chain.holder();
        let flat = own
            .append(&chain.token, &Step::narrow().max_depth(0))
            .await
            .unwrap();
        let conversation = |own_key| {
            let held = Fixed::held(flat.clone(), own.clone()).unwrap();
            let terms = Terms {
                own_key,
                until: Some(NOW + 60),
                ..Terms::default()
            };
            Conversation::new(Arc::new(Source::Fixed(Box::new(held))), terms)
        };
        assert!(told(conversation(false).credential(NOW).await).contains("--own-key"));
        let credential = conversation(true).credential(NOW).await.unwrap();
        assert_eq!(credential.thumbprint(), own.thumbprint());
        assert_eq!(credential.expires_at(), NOW + 60);
    }

    #[tokio::test]
    async fn the_end_of_the_parent_is_the_end() {
        let chain = Chain::new();
        let conversation = over(&chain, Terms::default());
        let credential = conversation.credential(NOW).await.unwrap();
        assert_eq!(credential.expires_at(), NOW + 3_600);
        assert!(told(conversation.credential(NOW + 3_600).await).contains("it expired at"));
        assert!(told(conversation.renewed(&credential, NOW).await).contains("there is no other"));
    }

    #[tokio::test]
    async fn what_was_renewed_is_handed_over_again_unless_its_calls_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (folder.path().join("key"), folder.path().join("token"));
        let chain = Chain::new();
        keyfile::create(&key, &chain.key).unwrap();
        let put = |token: &Token| write_private_file(&file, token.as_str().as_bytes()).unwrap();
        put(&chain.token);
        let source = || {
            Arc::new(Source::Fixed(Box::new(Fixed::file(
                &file,
                KeySource::File(key.clone()),
            ))))
        };
        let counted = Terms {
            caveats: vec![Caveat::MaxCalls {
                counter: "c".into(),
                calls: 5,
            }],
            ..Terms::default()
        };
        let plain = Conversation::new(source(), Terms::default());
        let counted = Conversation::new(source(), counted);
        let (before, kept) = (
            plain.credential(NOW).await.unwrap(),
            counted.credential(NOW).await.unwrap(),
        );
        let newer = chain
            .holder()
            .append(&chain.token, &Step::narrow().note("n"))
            .await;
        put(&newer.unwrap());
        let after = plain.credential(NOW).await.unwrap();
        assert_ne!(before.token(), after.token());
        assert_eq!(before.thumbprint(), after.thumbprint(), "the same key");
        // Of two that were refused at once, the second finds what the first got.
        assert!(Arc::ptr_eq(&plain.renewed(&before, NOW).await.unwrap(), &after));
        assert!(Arc::ptr_eq(&counted.credential(NOW).await.unwrap(), &kept));
        assert!(told(counted.renewed(&kept, NOW).await).contains("counted anew"));
        assert!(told(plain.renewed(&after, NOW).await).contains("there is no other"));
    }
}
