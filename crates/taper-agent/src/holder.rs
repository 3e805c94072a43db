//! What signs for a holder: a private key in this process, or somebody who has it.
//!
//! There are two operations, a proof and a block of a chain, and no third that signs given bytes: whoever
//! may use a key cannot make it sign something else (RULES 31).

use std::fmt;
use std::sync::Arc;

use taper_capability::{Caveat, Delegation, Narrowing, Token};
use taper_dpop::{PrivateKey, ProofClaims, PublicKey, Thumbprint};
use taper_service::rng;

#[cfg(unix)]
use crate::AgentSocket;
use crate::Error;

/// A key that a capability is or may be bound to, of which this process has the use. Copies are cheap.
#[derive(Clone)]
pub struct HolderKey {
    public: PublicKey,
    signer: Signer,
}

#[derive(Clone)]
enum Signer {
    Held(Arc<PrivateKey>),
    #[cfg(unix)]
    Agent(AgentSocket),
}

/// One link that a holder adds to a chain: a hand-over to another key, or a narrowing for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub(crate) to: Option<PublicKey>,
    pub(crate) until: Option<i64>,
    pub(crate) caveats: Vec<Caveat>,
    pub(crate) max_depth: Option<u32>,
    pub(crate) note: Option<String>,
}

impl HolderKey {
    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The RFC 7638 thumbprint of the public key.
    pub fn thumbprint(&self) -> Thumbprint {
        self.public.thumbprint()
    }

    /// The use of a key that an agent holds: the one with this thumbprint, or the only one.
    ///
    /// # Errors
    /// [`Error::Agent`].
    #[cfg(unix)]
    pub async fn of_agent(agent: AgentSocket, key: Option<Thumbprint>) -> Result<Self, Error> {
        let public = agent.choose(key).await?;
        Ok(Self {
            public,
            signer: Signer::Agent(agent),
        })
    }

    /// Signs a proof (RFC 9449): the value of a `DPoP` header. An agent takes its own time and a new id
    /// in place of the claims' `iat` and `jti`.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Agent`].
    pub async fn prove(&self, claims: &ProofClaims) -> Result<String, Error> {
        match &self.signer {
            Signer::Held(key) => Ok(claims.sign(key)?),
            #[cfg(unix)]
            Signer::Agent(agent) => agent.prove(&self.public, claims).await,
        }
    }

    /// Adds `step` to the chain of `token`, whose last holder this key is.
    ///
    /// # Errors
    /// [`Error::Capability`] when the token is another key's or sealed, the chain may not become so
    /// deep, or a caveat cannot be written; [`Error::Agent`] when the agent refuses.
    pub async fn append(&self, token: &Token, step: &Step) -> Result<Token, Error> {
        match &self.signer {
            Signer::Held(key) => Ok(step.sign(token, key)?),
            #[cfg(unix)]
            Signer::Agent(agent) => agent.append(&self.public, token, step).await,
        }
    }
}

impl From<PrivateKey> for HolderKey {
    fn from(key: PrivateKey) -> Self {
        Self::from(Arc::new(key))
    }
}

impl From<Arc<PrivateKey>> for HolderKey {
    fn from(key: Arc<PrivateKey>) -> Self {
        Self {
            public: key.public(),
            signer: Signer::Held(key),
        }
    }
}

impl fmt::Debug for HolderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderKey({})", self.thumbprint())
    }
}

impl Step {
    /// A hand-over to `holder` until then, in seconds since the Unix epoch. Later than the end of the
    /// chain is cut to that.
    #[must_use]
    pub fn hand_over(holder: PublicKey, until: i64) -> Self {
        Self {
            to: Some(holder),
            until: Some(until),
            ..Self::narrow()
        }
    }

    /// A narrowing by the holder for itself, which says nothing yet. Without [`Self::until`] the end of
    /// the chain stays.
    #[must_use]
    pub fn narrow() -> Self {
        Self {
            to: None,
            until: None,
            caveats: Vec::new(),
            max_depth: None,
            note: None,
        }
    }

    /// Until when, in seconds since the Unix epoch. Later than the end of the chain is cut to that.
    #[must_use]
    pub fn until(mut self, unix: i64) -> Self {
        self.until = Some(unix);
        self
    }

    /// Adds a caveat.
    #[must_use]
    pub fn only(mut self, caveat: Caveat) -> Self {
        self.caveats.push(caveat);
        self
    }

    /// Limits how deep the chain may become, counted from the grant.
    #[must_use]
    pub fn max_depth(mut self, depth: u32) -> Self {
        self.max_depth = Some(depth);
        self
    }

    /// Leaves a note for whoever reads the chain.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.note = Some(note.to_owned());
        self
    }

    /// The chain with this step, signed with `key`.
    pub(crate) fn sign(&self, token: &Token, key: &PrivateKey) -> Result<Token, taper_capability::Error> {
        let rng = &mut rng::os();
        let caveats = self.caveats.iter().cloned();
        match (&self.to, self.until) {
            (Some(to), Some(until)) => {
                let mut step = caveats.fold(Delegation::to(to.clone()).until(until), |s, c| s.only(c));
                if let Some(depth) = self.max_depth {
                    step = step.max_depth(depth);
                }
                if let Some(note) = &self.note {
                    step = step.note(note);
                }
                step.sign(token, key, rng)
            }
            (Some(_), None) => Err(taper_capability::Error::Builder("a hand-over has an end")),
            (None, until) => {
                let mut step = caveats.fold(Narrowing::new(), |s, c| s.only(c));
                if let Some(until) = until {
                    step = step.until(until);
                }
                if let Some(depth) = self.max_depth {
                    step = step.max_depth(depth);
                }
                if let Some(note) = &self.note {
                    step = step.note(note);
                }
                step.sign(token, key, rng)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chain, NOW};
    use taper_capability::UnverifiedToken;
    use taper_dpop::Algorithm;

    fn key() -> PrivateKey {
        PrivateKey::generate(Algorithm::Es256, &mut rng::os())
    }

    #[tokio::test]
    async fn a_step_says_what_was_asked_for() {
        let chain = Chain::new();
        let (token, own, child) = (&chain.token, chain.holder(), key().public());
        let caveat = Caveat::Server {
            servers: vec!["git".into()],
        };
        for (step, holder, depth) in [
            (Step::hand_over(child.clone(), NOW + 60), &child, 1),
            (Step::narrow().until(NOW + 60), own.public(), 0),
        ] {
            let step = step.only(caveat.clone()).max_depth(2).note("why");
            let added = own.append(token, &step).await.unwrap();
            let chain = UnverifiedToken::decode(added.as_str()).unwrap();
            let link = chain.links().last().unwrap();
            assert_eq!((chain.last_holder(), chain.depth()), (holder, depth));
            assert_eq!((chain.expires_at(), chain.max_depth()), (NOW + 60, 2));
            assert_eq!(link.caveats().0, std::slice::from_ref(&caveat));
            assert_eq!(link.note.as_deref(), Some("why"));
        }
        let kept = own.append(token, &Step::narrow()).await.unwrap();
        let end = |token: &Token| UnverifiedToken::decode(token.as_str()).unwrap().expires_at();
        assert_eq!(end(&kept), end(token));
    }

    #[tokio::test]
    async fn another_key_adds_nothing() {
        let chain = Chain::new();
        let refused = HolderKey::from(key()).append(&chain.token, &Step::narrow()).await;
        assert!(matches!(
            refused,
            Err(Error::Capability(taper_capability::Error::Signer { .. }))
        ));
        let own = chain.holder();
        let mut endless = Step::hand_over(key().public(), NOW + 60);
        endless.until = None;
        assert!(own.append(&chain.token, &endless).await.is_err());
    }

    #[test]
    fn a_key_does_not_print() {
        let key = key();
        let shown = format!("HolderKey({})", key.public().thumbprint());
        assert_eq!(format!("{:?}", HolderKey::from(key)), shown);
    }
}
