//! A folder with a key and the capability that is bound to it, obtained and renewed for any number of
//! processes at once.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked by the process that obtains; the others wait for it, or use what they have |
//! | `key.jwk` | the key, unless it is elsewhere; made on first use |
//! | `capability.json` | the capability, and what it was obtained for |
//!
//! The folder has mode 0700, the files 0600, and each is replaced in one step. See `spec/keys.md`.

mod files;
mod subject;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use taper_capability::Token;
use taper_dpop::{Algorithm, PrivateKey};
use taper_oauth::{ExchangeRequest, McpDetail, Scope, Secret, TokenType};
use taper_service::clock::SharedClock;
use taper_service::rng;
use tokio::sync::OnceCell;

pub use self::files::{Contents, KEY_FILE};
pub use self::subject::SubjectToken;
use crate::source::{Held, pair};
use crate::{Client, Error, HolderKey, Issuer, KeySource, blocking, exchange, keyfile, private_folder};

/// For so long before its end a capability is renewed at the latest, in seconds; a fifth of its life when
/// that is more, and half of it when that is less.
pub const RENEW_BEFORE: i64 = 30;
/// For so long a capability that cannot be renewed yet is used without another attempt, in seconds; and a
/// capability younger than this is not renewed because it was refused.
pub const PAUSE: i64 = 10;
/// With less than this left, in seconds, a capability is not presented while another may be had.
const SPARE: i64 = 5;

/// What a wallet's capability is for: where it is obtained, in whose name, and what is asked for.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// The issuer's URL.
    pub issuer: String,
    /// The client.
    pub client: Client,
    /// Where the access token to exchange comes from.
    pub subject: SubjectToken,
    /// What is wanted.
    pub scope: Vec<Scope>,
    /// What is wanted, where a scope cannot say it (RFC 9396).
    pub details: Vec<McpDetail>,
    /// Where it is to be used (RFC 8707).
    pub resources: Vec<String>,
}

/// A folder with a key and a capability.
#[derive(Debug)]
pub struct Wallet {
    dir: PathBuf,
    key: Option<KeySource>,
    opened: OnceCell<HolderKey>,
    purpose: Purpose,
    clock: SharedClock,
    known: Mutex<Known>,
    obtaining: tokio::sync::Mutex<()>,
}

/// What this process knows without looking.
#[derive(Debug, Default)]
struct Known {
    kept: Option<Kept>,
    /// Before this time a capability that could not be renewed is used as it is.
    pause_until: i64,
}

/// A capability and when it was obtained.
#[derive(Clone, Debug)]
struct Kept {
    held: Held,
    obtained_at: i64,
}

impl Wallet {
    /// The wallet in the folder `dir`, which is made when it is not there. Without `key` the wallet has a
    /// key of its own. Nothing is obtained yet.
    ///
    /// # Errors
    /// [`Error::Folder`] when the folder cannot be made or is open to others, [`Error::Secret`] when a
    /// file in it cannot be read, and [`Error::Request`] when it was used for another purpose.
    pub async fn open(
        dir: &Path,
        key: Option<KeySource>,
        purpose: Purpose,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        let wallet = Self {
            dir: dir.to_owned(),
            key,
            opened: OnceCell::new(),
            purpose,
            clock,
            known: Mutex::default(),
            obtaining: tokio::sync::Mutex::default(),
        };
        let dir = wallet.dir.clone();
        blocking(move || private_folder(&dir)).await?;
        wallet.read().await?;
        Ok(wallet)
    }

    /// The capability to present at `now`, in seconds since the Unix epoch: the one that is there, or,
    /// with less than [`RENEW_BEFORE`] left, a new one. Of many processes that need one at once, one asks
    /// the issuer. While a renewal fails, the old capability is used to its end.
    ///
    /// # Errors
    /// As [`exchange()`], [`SubjectToken::read`] and [`KeySource::open`]; [`Error::Busy`] when another
    /// process obtains one and does not come to an end.
    pub async fn capability(&self, now: i64) -> Result<Held, Error> {
        let old = match self.usable(now) {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        let _one = match (self.obtaining.try_lock(), old) {
            (Ok(guard), _) => guard,
            (Err(_), Some(held)) => return Ok(held),
            (Err(_), None) => self.obtaining.lock().await,
        };
        // Another task, or another process, may have been faster.
        self.read().await?;
        let old = match self.usable(now) {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        let lock = match (self.try_lock().await?, &old) {
            (Some(lock), _) => lock,
            (None, Some(held)) => return Ok(held.clone()),
            (None, None) => files::wait_for_lock(&self.dir).await?,
        };
        self.read().await?;
        let old = match self.usable(now) {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        let obtained = self.obtain(lock).await;
        match (obtained, old) {
            (Ok(held), _) => Ok(held),
            (Err(_), Some(held)) => {
                self.known().pause_until = now.saturating_add(PAUSE);
                Ok(held)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Another capability than `refused`, which the proxy did not accept (401 `invalid_token`): the one
    /// that another process obtained meanwhile, or a new one.
    ///
    /// # Errors
    /// As [`Self::capability`]; [`Error::NoOther`] when `refused` is younger than [`PAUSE`]: another one
    /// would fare no better.
    pub async fn renew(&self, refused: &Token, now: i64) -> Result<Held, Error> {
        let _one = self.obtaining.lock().await;
        let other = |kept: &Kept| kept.held.token != *refused && kept.held.expires_at > now;
        if let Some(kept) = self.known().kept.as_ref().filter(|kept| other(kept)) {
            return Ok(kept.held.clone());
        }
        let lock = files::wait_for_lock(&self.dir).await?;
        self.read().await?;
        let kept = self.known().kept.clone();
        match kept {
            Some(kept) if other(&kept) => Ok(kept.held),
            Some(kept) if now.saturating_sub(kept.obtained_at) < PAUSE => Err(Error::NoOther(format!(
                "a capability that is {} seconds old is refused, so a new one would be as well; `taper \
                 doctor` finds out why",
                now.saturating_sub(kept.obtained_at).max(0)
            ))),
            _ => self.obtain(lock).await,
        }
    }

    /// The key, which is made first where the wallet's own is not there yet.
    ///
    /// # Errors
    /// As [`KeySource::open`].
    pub async fn key(&self) -> Result<HolderKey, Error> {
        let open = || async {
            match &self.key {
                Some(source) => source.open().await,
                None => {
                    let path = self.dir.join(KEY_FILE);
                    let key = blocking(move || match keyfile::load(&path) {
                        Err(Error::Secret(error)) if is_absent(&error) => {
                            let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
                            match keyfile::create(&path, &key) {
                                Ok(()) => Ok(key),
                                Err(Error::Exists { .. }) => keyfile::load(&path),
                                Err(error) => Err(error),
                            }
                        }
                        read => read,
                    });
                    Ok(key.await?.into())
                }
            }
        };
        self.opened.get_or_try_init(open).await.cloned()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, now: i64) -> Usable {
        let known = self.known();
        match &known.kept {
            Some(Kept { held, obtained_at }) if now < held.expires_at => {
                let (left, life) = (
                    held.expires_at - now,
                    held.expires_at.saturating_sub(*obtained_at),
                );
                let early = (life / 5).max(RENEW_BEFORE).min(life / 2);
                if left > early || (now < known.pause_until && left > SPARE) {
                    Usable::Fresh(held.clone())
                } else if left > SPARE {
                    Usable::Old(held.clone())
                } else {
                    Usable::No
                }
            }
            _ => Usable::No,
        }
    }

    async fn try_lock(&self) -> Result<Option<files::Lock>, Error> {
        let dir = self.dir.clone();
        blocking(move || files::try_lock(&dir)).await
    }

    /// Takes over what is on the disk.
    async fn read(&self) -> Result<(), Error> {
        let dir = self.dir.clone();
        let Some(contents) = blocking(move || files::read(&dir)).await? else {
            return Ok(());
        };
        if !contents.is_for(&self.purpose) {
            return Err(Error::Request(format!(
                "the wallet `{0}` is used for another issuer, client or request; give this one a folder of \
                 its own, or remove `{0}/{1}`",
                self.dir.display(),
                files::CAPABILITY_FILE
            )));
        }
        let token = Token::parse(contents.token.expose())?;
        // A capability of another key is of no use: a new one is obtained.
        let held = match pair(token, self.key().await?) {
            Ok(held) => Some(held),
            Err(Error::Request(_)) => None,
            Err(error) => return Err(error),
        };
        self.known().kept = held.map(|held| Kept {
            held,
            obtained_at: contents.obtained_at,
        });
        Ok(())
    }

    /// Asks the issuer, and writes down what it gives before `lock` is given up.
    async fn obtain(&self, lock: files::Lock) -> Result<Held, Error> {
        let key = self.key().await?;
        let subject = self.purpose.subject.read().await?;
        let mut request = ExchangeRequest::new(Secret::new(subject.as_str()), TokenType::AccessToken);
        request.scope = self.purpose.scope.clone();
        request.authorization_details = self.purpose.details.clone();
        request.resources = self.purpose.resources.clone();
        let issuer = Issuer::discover(&self.purpose.issuer).await?;
        let clock = self.clock.as_ref();
        let exchanged = exchange(&issuer, &self.purpose.client, request, &key, clock).await?;
        let held = pair(exchanged.token, key)?;
        let obtained_at = clock.unix();
        let contents = Contents::new(&self.purpose, self.key.as_ref(), &held.token, obtained_at)?;
        let dir = self.dir.clone();
        blocking(move || {
            let written = files::write(&dir, &contents);
            drop(lock);
            written
        })
        .await?;
        let mut known = self.known();
        known.pause_until = 0;
        known.kept = Some(Kept {
            held: held.clone(),
            obtained_at,
        });
        Ok(held)
    }
}

/// How good what this process knows is.
enum Usable {
    Fresh(Held),
    /// It is to be renewed, and may be presented meanwhile.
    Old(Held),
    No,
}

fn is_absent(error: &taper_service::secret::SecretError) -> bool {
    use taper_service::secret::SecretError;
    matches!(error, SecretError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
