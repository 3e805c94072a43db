//! A folder with a key and the capability that is bound to it, obtained and renewed for any number of
//! processes at once.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked by the process that obtains; the others wait for it, or use what they have |
//! | `key.jwk` | the key, unless it is elsewhere; made on first use |
//! | `capability.json` | the capability, and what it was obtained for |
//! | `login.json` | what a login gave, where the access token comes from one |
//!
//! The folder has mode 0700, the files 0600, and each is replaced in one step. See `spec/keys.md`.

mod files;
mod login;
mod subject;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use taper_capability::{Token, UnverifiedToken, escaped};
use taper_dpop::{Algorithm, PrivateKey};
use taper_oauth::{ExchangeRequest, McpDetail, Scope, Secret, TokenType};
use taper_service::clock::SharedClock;
use taper_service::rng;
use tokio::sync::OnceCell;

pub(crate) use self::files::CAPABILITY_FILE;
pub use self::files::{Contents, KEY_FILE};
pub use self::login::{KeptLogin, is_logged_in};
pub use self::subject::SubjectToken;
use crate::folder::{Named, private_folder};
use crate::source::{Held, pair};
use crate::{Client, Error, HolderKey, Issuer, KeySource, blocking, exchange, keyfile};

/// For so long before its end a capability is renewed, in seconds; half of its life when that is less. Not
/// earlier: once the grant has reached its end there is another grant, and what belongs to a grant, such as a
/// session, ends with it.
pub const RENEW_BEFORE: i64 = 30;
/// For so long the issuer is not asked again after an attempt that failed, in seconds; and a capability
/// younger than this is not renewed because it was refused.
pub const PAUSE: i64 = 10;
/// By so much, in seconds, the proxy's clock may be ahead when it says that a capability has ended.
const SKEW: i64 = 60;
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
    /// When an attempt failed last, and why.
    failed: Option<(i64, String)>,
}

/// A capability and when it was obtained.
#[derive(Clone, Debug)]
struct Kept {
    held: Held,
    obtained_at: i64,
}

impl Wallet {
    /// The wallet in the folder `dir`, which is made when it is not there. Without `key` it is the one that
    /// the wallet was used with before, or else a key of its own. Nothing is obtained yet.
    ///
    /// # Errors
    /// [`Error::Folder`] when the folder cannot be made or is open to others, [`Error::Secret`] when a
    /// file in it cannot be read, and [`Error::Request`] when it was used for another purpose or with another key.
    pub async fn open(
        dir: &Path,
        key: Option<KeySource>,
        purpose: Purpose,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        let folder = dir.to_owned();
        let kept_with = blocking(move || {
            private_folder(&folder, Named::Itself)?;
            key_named_in(&folder)
        })
        .await?;
        let key = key.or(kept_with);
        let wallet = Self {
            dir: dir.to_owned(),
            key,
            opened: OnceCell::new(),
            purpose,
            clock,
            known: Mutex::default(),
            obtaining: tokio::sync::Mutex::default(),
        };
        wallet.read().await?;
        Ok(wallet)
    }

    /// The capability to present at `now`, in seconds since the Unix epoch: the one that is there, or,
    /// with less than [`RENEW_BEFORE`] left, a new one: of the same grant as long as that lasts, then of another.
    /// Of many processes that need one at once, one asks the issuer. While a renewal fails, the old capability is
    /// used to its end.
    ///
    /// # Errors
    /// [`Error::Revoked`] once the issuer says that the grant is revoked;
    /// As [`exchange()`], [`SubjectToken::read`] and [`KeySource::open`]; [`Error::Busy`] when another
    /// process obtains one and does not come to an end.
    pub async fn capability(&self, now: i64) -> Result<Held, Error> {
        let old = match self.usable(now) {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        let _one = match (self.obtaining.try_lock(), &old) {
            (Ok(guard), _) => guard,
            (Err(_), Some(held)) => return Ok(held.clone()),
            (Err(_), None) => self.obtaining.lock().await,
        };
        // Another task, or another process, may have been faster.
        let old = match self.look_again(now, old).await? {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        let paused = self.known().failed.clone();
        if let Some((since, reason)) = paused.filter(|(since, _)| is_within(PAUSE, now, *since)) {
            return old.ok_or_else(|| {
                Error::NoOther(format!("{reason} (asked {} s ago)", now.saturating_sub(since)))
            });
        }
        let lock = match (self.try_lock().await?, &old) {
            (Some(lock), _) => lock,
            (None, Some(held)) => return Ok(held.clone()),
            (None, None) => files::wait_for_lock(&self.dir).await?,
        };
        let old = match self.look_again(now, old).await? {
            Usable::Fresh(held) => return Ok(held),
            Usable::Old(held) => Some(held),
            Usable::No => None,
        };
        match self.obtain(lock).await {
            Ok(held) => Ok(held),
            Err(error) => {
                self.known().failed = Some((now, error.to_string()));
                match error {
                    Error::Revoked { .. } => Err(error),
                    error => old.ok_or(error),
                }
            }
        }
    }

    /// Another capability than `refused`, which the proxy did not accept (401 `invalid_token`): the one
    /// that another process obtained meanwhile, or a new one where `refused` has ended by its own date.
    ///
    /// # Errors
    /// As [`Self::capability`]; [`Error::NoOther`] when `refused` has not ended by its own date: it may be
    /// revoked, and a new grant would undo that; or when it is younger than [`PAUSE`]: another one would
    /// fare no better.
    pub async fn renew(&self, refused: &Token, now: i64) -> Result<Held, Error> {
        let _one = self.obtaining.lock().await;
        let other = |kept: &Kept| kept.held.token != *refused && kept.held.expires_at > now;
        if let Some(kept) = self.known().kept.as_ref().filter(|kept| other(kept)) {
            return Ok(kept.held.clone());
        }
        let lock = files::wait_for_lock(&self.dir).await?;
        self.read().await?;
        let kept = self.known().kept.clone();
        if let Some(kept) = kept.as_ref().filter(|kept| other(kept)) {
            return Ok(kept.held.clone());
        }
        let end = UnverifiedToken::decode(refused.as_str())?.expires_at();
        if end.saturating_sub(now) > SKEW {
            return Err(Error::NoOther(
                "the capability is refused before its end: it may be revoked, so no new one is asked for; \
                 `taper doctor` finds out why"
                    .to_owned(),
            ));
        }
        match kept {
            Some(kept) if is_within(PAUSE, now, kept.obtained_at) => Err(Error::NoOther(format!(
                "a capability that is {} s old is refused, so a new one would be as well; `taper doctor` \
                 finds out why",
                now.saturating_sub(kept.obtained_at)
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
                None => own_key(&self.dir).await,
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
                if left > RENEW_BEFORE.min(life / 2) {
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

    /// What is known after another look at the disk; `old` is good enough while that fails.
    async fn look_again(&self, now: i64, old: Option<Held>) -> Result<Usable, Error> {
        match (self.read().await, old) {
            (Ok(()), _) => Ok(self.usable(now)),
            (Err(error @ Error::Revoked { .. }), _) => Err(error),
            (Err(_), Some(held)) => Ok(Usable::Old(held)),
            (Err(error), None) => Err(error),
        }
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
        let named = |key: Option<String>| key.unwrap_or_else(|| "its own".to_owned());
        let own = self.key.as_ref().map(KeySource::absolute);
        if contents.key != own {
            return Err(Error::Request(format!(
                "the wallet `{}` is used with the key {}, not with {}; leave out `--key` (and \
                 `TAPER_KEY_FILE`), or give this one a folder of its own",
                self.dir.display(),
                named(contents.key),
                named(own)
            )));
        }
        let token = Token::parse(contents.token.expose())?;
        if contents.revoked {
            self.known().kept = None;
            return Err(self.revoked(&token)?);
        }
        // A capability of a key that is gone is of no use, and what is known may be of some.
        match pair(token, self.key().await?) {
            Ok(held) => {
                self.known().kept = Some(Kept {
                    held,
                    obtained_at: contents.obtained_at,
                });
                Ok(())
            }
            Err(Error::Request(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the issuer, and writes down what it gives before `lock` is given up.
    async fn obtain(&self, mut lock: files::Lock) -> Result<Held, Error> {
        let key = self.key().await?;
        let issuer = Issuer::discover(&self.purpose.issuer).await?;
        let kept = self.known().kept.clone();
        let renewed = match &kept {
            Some(kept) => self.renewed(&issuer, kept, &key).await,
            None => Ok(None),
        };
        let token = match renewed {
            Ok(Some(token)) => token,
            Ok(None) => {
                let (token, kept_lock) = self.exchanged(&issuer, &key, lock).await?;
                lock = kept_lock;
                token
            }
            Err(error) => {
                if let (Error::Revoked { .. }, Some(kept)) = (&error, &kept) {
                    self.known().kept = None;
                    self.write_down(&kept.held.token, kept.obtained_at, true, lock)
                        .await?;
                }
                return Err(error);
            }
        };
        let held = pair(token, key)?;
        let obtained_at = self.clock.unix();
        *self.known() = Known {
            kept: Some(Kept {
                held: held.clone(),
                obtained_at,
            }),
            failed: None,
        };
        self.write_down(&held.token, obtained_at, false, lock).await?;
        Ok(held)
    }

    /// What is there as the same grant with a later end; nothing where the subject's token is to be exchanged.
    async fn renewed(&self, issuer: &Issuer, kept: &Kept, key: &HolderKey) -> Result<Option<Token>, Error> {
        let (client, token) = (&self.purpose.client, &kept.held.token);
        match exchange::renew(issuer, client, token, key, self.clock.as_ref()).await {
            Ok(renewed) => Ok(Some(renewed.token)),
            Err(Error::Issuer { body, .. }) if body.error == "invalid_grant" => Err(self.revoked(token)?),
            Err(Error::Issuer { body, .. })
                if matches!(body.error.as_str(), "invalid_request" | "invalid_scope") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Another grant.
    async fn exchanged(
        &self,
        issuer: &Issuer,
        key: &HolderKey,
        lock: files::Lock,
    ) -> Result<(Token, files::Lock), Error> {
        let (subject, lock) = match &self.purpose.subject {
            SubjectToken::Login => login::access_token(&self.dir, key, &self.clock, lock).await?,
            other => (other.read().await?, lock),
        };
        let mut request = ExchangeRequest::new(Secret::new(subject.as_str()), TokenType::AccessToken);
        request.scope = self.purpose.scope.clone();
        request.authorization_details = self.purpose.details.clone();
        request.resources = self.purpose.resources.clone();
        let clock = self.clock.as_ref();
        let exchanged = exchange(issuer, &self.purpose.client, request, key, clock).await?;
        Ok((exchanged.token, lock))
    }

    /// What cannot be written down can be used all the same, by this process.
    async fn write_down(
        &self,
        token: &Token,
        obtained_at: i64,
        revoked: bool,
        lock: files::Lock,
    ) -> Result<(), Error> {
        let mut contents = Contents::new(&self.purpose, self.key.as_ref(), token, obtained_at)?;
        contents.revoked = revoked;
        let dir = self.dir.clone();
        let _ = blocking(move || {
            let written = files::write(&dir, &contents);
            drop(lock);
            written
        })
        .await;
        Ok(())
    }

    fn revoked(&self, token: &Token) -> Result<Error, Error> {
        Ok(Error::Revoked {
            grant: escaped(UnverifiedToken::decode(token.as_str())?.grant_id()),
            path: self.dir.join(files::CAPABILITY_FILE),
        })
    }
}

/// The key that the wallet in the folder `dir` is used with, and where it is unless the wallet has its own. Folder
/// and key are made first where they are not there yet.
///
/// # Errors
/// As [`KeySource::open`]; [`Error::Folder`].
pub async fn key_in(dir: &Path) -> Result<(Option<KeySource>, HolderKey), Error> {
    let folder = dir.to_owned();
    let named = blocking(move || {
        private_folder(&folder, Named::Itself)?;
        key_named_in(&folder)
    });
    match named.await? {
        Some(source) => {
            let key = source.open().await?;
            Ok((Some(source), key))
        }
        None => Ok((None, own_key(dir).await?)),
    }
}

/// Where the key is that the wallet in `dir` was used with, unless that is its own or it never was.
fn key_named_in(dir: &Path) -> Result<Option<KeySource>, Error> {
    let named = match files::read(dir)? {
        Some(contents) => contents.key,
        None => KeptLogin::read(dir)?.and_then(|login| login.key),
    };
    let parsed = named.map(|text| text.parse().map_err(|e| Error::Request(format!("{e}"))));
    parsed.transpose()
}

/// The wallet's own key, which is made first where it is not there yet.
async fn own_key(dir: &Path) -> Result<HolderKey, Error> {
    let path = dir.join(KEY_FILE);
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

/// How good what this process knows is.
enum Usable {
    Fresh(Held),
    /// It is to be renewed, and may be presented meanwhile.
    Old(Held),
    No,
}

/// Whether it is less than `seconds` since then. A time that is still to come was written by another clock.
fn is_within(seconds: i64, now: i64, since: i64) -> bool {
    (0..seconds).contains(&now.saturating_sub(since))
}

pub(crate) fn is_absent(error: &taper_service::secret::SecretError) -> bool {
    use taper_service::secret::SecretError;
    matches!(error, SecretError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
