//! The side of the socket that wants something signed.

use std::fmt;
use std::path::{Path, PathBuf};

use taper_capability::Token;
use taper_dpop::{ProofClaims, PublicKey, Thumbprint};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::wire::{Answer, Ask, Listed, MAX_LINE, PrivateText};
use super::{Added, PATIENCE, SOCKET_VARIABLE, is_own};
use crate::{Error, KeySource, Step};

/// An agent, by its socket. Each request has a connection of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentSocket {
    path: PathBuf,
}

impl AgentSocket {
    /// The agent whose socket is at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The agent that the environment names.
    ///
    /// # Errors
    /// [`Error::Agent`] when it names none.
    pub fn of_environment() -> Result<Self, Error> {
        match std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self::at(path)),
            None => Err(Error::Agent(format!(
                "`{SOCKET_VARIABLE}` is not set; `taper agent -- COMMAND` starts one for a command"
            ))),
        }
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that it holds.
    ///
    /// # Errors
    /// [`Error::Agent`].
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        match self.ask(&Ask::List {}).await? {
            Answer::Keys(keys) => Ok(keys),
            _ => Err(self.unusable()),
        }
    }

    /// Hands over the key that `source` names.
    ///
    /// # Errors
    /// As [`KeySource::open`], and [`Error::Agent`].
    pub async fn add(&self, source: &KeySource, added: Added) -> Result<Listed, Error> {
        let key = source.private().await?;
        let ask = Ask::Add {
            private: PrivateText::new(key.to_jwk_string().as_str()),
            name: source.to_string(),
            lifetime: added.lifetime,
            delegate: added.delegate,
        };
        match self.ask(&ask).await? {
            Answer::Key(listed) => Ok(listed),
            _ => Err(self.unusable()),
        }
    }

    /// Asks for anything else: adding, making and forgetting keys.
    ///
    /// # Errors
    /// [`Error::Agent`] when it is not there, is another user's, or refuses.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(ask));
        let answer = match exchange.await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.failed("it does not answer")),
        };
        match answer {
            Answer::Error(reason) => Err(self.failed(&taper_capability::escaped(&reason))),
            answer => Ok(answer),
        }
    }

    /// The public key with this thumbprint, or the only one there is.
    pub(crate) async fn choose(&self, thumbprint: Option<Thumbprint>) -> Result<PublicKey, Error> {
        let keys = self.list().await?;
        let wanted = thumbprint.map(|thumbprint| thumbprint.to_string());
        let mut fitting = keys
            .iter()
            .filter(|key| wanted.as_ref().is_none_or(|wanted| *wanted == key.thumbprint));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => {
                let public = PublicKey::from_jwk(&key.jwk)?;
                if public.thumbprint().to_string() == key.thumbprint {
                    Ok(public)
                } else {
                    Err(self.unusable())
                }
            }
            (Some(_), Some(_)) => Err(self.failed(&format!(
                "it holds {} keys; say which with `agent:THUMBPRINT`",
                keys.len()
            ))),
            (None, _) if wanted.is_some() => Err(self.failed("it has no such key")),
            (None, _) => Err(self.failed("it holds no key")),
        }
    }

    pub(crate) async fn prove(&self, key: &PublicKey, claims: &ProofClaims) -> Result<String, Error> {
        match self.ask(&Ask::prove(key, claims)).await? {
            Answer::Proof(proof) => Ok(proof),
            _ => Err(self.unusable()),
        }
    }

    pub(crate) async fn append(&self, key: &PublicKey, token: &Token, step: &Step) -> Result<Token, Error> {
        match self.ask(&Ask::append(key, token, step)).await? {
            Answer::Token(text) => Ok(Token::parse(&text)?),
            _ => Err(self.unusable()),
        }
    }

    async fn exchange(&self, ask: &Ask) -> Result<Answer, Error> {
        let cannot = |e: std::io::Error| self.failed(&e.to_string());
        let mut stream = UnixStream::connect(&self.path).await.map_err(cannot)?;
        // A capability that is not sealed goes to nobody else.
        if !is_own(&stream) {
            return Err(self.failed("it is another user's"));
        }
        let mut line = Zeroizing::new(serde_json::to_vec(ask).map_err(|e| self.failed(&e.to_string()))?);
        if line.len() > MAX_LINE {
            return Err(self.failed("the request is too long"));
        }
        line.push(b'\n');
        stream.write_all(&line).await.map_err(cannot)?;
        let mut answer = Zeroizing::new(Vec::new());
        let mut limited = BufReader::new(stream).take(MAX_LINE as u64 + 1);
        limited.read_until(b'\n', &mut answer).await.map_err(cannot)?;
        let line = answer
            .strip_suffix(b"\n")
            .ok_or_else(|| self.failed("it hangs up"))?;
        Answer::parse(line).map_err(|reason| self.failed(reason))
    }

    fn unusable(&self) -> Error {
        self.failed("it answers another question")
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Agent(format!("the agent at `{}`: {reason}", self.path.display()))
    }
}

impl Ask {
    /// The request for a proof of these claims, less what the agent makes itself.
    fn prove(key: &PublicKey, claims: &ProofClaims) -> Self {
        Self::Prove {
            key: key.thumbprint().to_string(),
            htm: claims.htm.clone(),
            htu: claims.htu.clone(),
            ath: claims.ath.clone(),
            nonce: claims.nonce.clone(),
            content_digest: claims.content_digest.clone(),
        }
    }

    /// The request for one more link.
    fn append(key: &PublicKey, token: &Token, step: &Step) -> Self {
        Self::Append {
            key: key.thumbprint().to_string(),
            token: token.as_str().to_owned(),
            to: step.to.as_ref().map(PublicKey::to_jwk),
            until: step.until,
            caveats: step.caveats.clone(),
            max_depth: step.max_depth,
            note: step.note.clone(),
        }
    }
}

impl fmt::Debug for AgentSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentSocket({})", self.path.display())
    }
}
