//! The login of a wallet: the access token to exchange, and the refresh token that gets the next one.
//!
//! A refresh token may be worth nothing once it was used (RFC 9700 section 4.14.2). So it is used only by who
//! holds the wallet's lock, what it got is on the disk before it is used, and whether the disk takes it is tried
//! before the server is asked.

use std::fs;
use std::io;
use std::mem::take;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taper_oauth::{Secret, json};
use taper_service::clock::{Clock, SharedClock};
use taper_service::secret::{self, MAX_SECRET_BYTES};
use zeroize::{Zeroize, Zeroizing};

use super::files::{self, CAPABILITY_FILE, Lock};
use super::is_absent;
use crate::folder::{Named, private_folder};
use crate::login::{LoggedIn, Login};
use crate::{Client, Error, HolderKey, KeySource, blocking};

const LOGIN_FILE: &str = "login.json";
/// With less than this left, in seconds, an access token is not exchanged while another may be had.
const SPARE: i64 = 30;

/// What a login gave, and what it takes to go on with it. Nothing of it prints.
pub struct KeptLogin {
    /// The authorization server.
    pub issuer: String,
    /// The client that logged in.
    pub client: Client,
    /// Where the token is used.
    pub resource: Option<String>,
    /// Where the key is that the tokens are bound to; without it the wallet has its own.
    pub key: Option<String>,
    pub(super) access_token: Secret,
    pub(super) expires_at: Option<i64>,
    pub(super) refresh_token: Option<Secret>,
}

/// [`KeptLogin`] as JSON.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    access_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl KeptLogin {
    /// What `token` is kept as; `key` where the wallet has none of its own.
    pub fn new(login: &Login, client: Client, key: Option<&KeySource>, token: LoggedIn) -> Self {
        Self {
            issuer: login.issuer().to_owned(),
            client,
            resource: login.resource().map(str::to_owned),
            key: key.map(KeySource::absolute),
            access_token: token.access_token,
            expires_at: token.expires_at,
            refresh_token: token.refresh_token,
        }
    }

    /// The login of the wallet in `dir`, if it has one.
    ///
    /// # Errors
    /// [`Error::Secret`] when the file cannot be read or others may read it, [`Error::Wallet`] when it is not one
    /// that a login wrote.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(LOGIN_FILE);
        let bytes = match secret::read_private_file(&path) {
            Err(error) if is_absent(&error) => return Ok(None),
            read => read?,
        };
        // What the parser says could show a part of a token.
        let limit = usize::try_from(MAX_SECRET_BYTES).unwrap_or(usize::MAX);
        let mut written: Written = json::read(bytes.expose(), limit).map_err(|_| Error::Wallet { path })?;
        Ok(Some(Self {
            issuer: take(&mut written.issuer),
            client: Client {
                id: take(&mut written.client_id),
                secret: take(&mut written.client_secret).map(Secret::new),
            },
            resource: take(&mut written.resource),
            key: take(&mut written.key),
            access_token: Secret::new(take(&mut written.access_token)),
            expires_at: written.expires_at,
            refresh_token: take(&mut written.refresh_token).map(Secret::new),
        }))
    }

    /// When the access token ends, in seconds since the Unix epoch, if the server said so.
    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// Whether another access token can be had without a browser.
    pub fn refreshes(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// Keeps it in the wallet in `dir`, which is made when it is not there, in place of an earlier one. It is on
    /// the disk when this returns. Who renews at the same time has the wallet's lock, which is waited for. What was
    /// granted before, perhaps for somebody else, is forgotten, so that the next use exchanges the new token.
    ///
    /// # Errors
    /// [`Error::Folder`], [`Error::Secret`], [`Error::Busy`].
    pub async fn keep(self, dir: &Path) -> Result<PathBuf, Error> {
        let folder = dir.to_owned();
        blocking(move || private_folder(&folder, Named::Itself)).await?;
        let lock = files::wait_for_lock(dir).await?;
        let folder = dir.to_owned();
        blocking(move || {
            let written = self.write(&folder).and_then(|()| forget(&folder));
            drop(lock);
            written
        })
        .await?;
        Ok(dir.join(LOGIN_FILE))
    }

    async fn written(self, dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        blocking(move || self.write(&dir).map(|()| self)).await
    }

    fn write(&self, dir: &Path) -> Result<(), Error> {
        let text = |secret: &Secret| secret.expose().to_owned();
        let written = Written {
            issuer: self.issuer.clone(),
            client_id: self.client.id.clone(),
            client_secret: self.client.secret.as_ref().map(text),
            resource: self.resource.clone(),
            key: self.key.clone(),
            access_token: text(&self.access_token),
            expires_at: self.expires_at,
            refresh_token: self.refresh_token.as_ref().map(text),
        };
        let bytes = serde_json::to_vec(&written).map_err(|e| Error::Request(e.to_string()))?;
        let bytes = Zeroizing::new(bytes);
        Ok(secret::write_private_file(&dir.join(LOGIN_FILE), &bytes)?)
    }
}

fn forget(dir: &Path) -> Result<(), Error> {
    let path = dir.join(CAPABILITY_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Folder { path, source: error }),
        _ => Ok(()),
    }
}

/// Whether the wallet in `dir` has a login.
pub fn is_logged_in(dir: &Path) -> bool {
    fs::exists(dir.join(LOGIN_FILE)).unwrap_or(false)
}

/// The access token to exchange, another one where the login's has ended, and the wallet's lock, which the caller
/// holds. It goes on when nobody waits for it any more: what the server gave in place of a used refresh token is
/// written down all the same, and the lock is held so long.
pub(super) async fn access_token(
    dir: &Path,
    key: &HolderKey,
    clock: &SharedClock,
    lock: Lock,
) -> Result<(Zeroizing<String>, Lock), Error> {
    let (dir, key, clock) = (dir.to_owned(), key.clone(), clock.clone());
    #[expect(
        clippy::disallowed_methods,
        reason = "it must outlive who waits for it, and is waited for here"
    )]
    let renewing = tokio::spawn(async move {
        let token = renewed(&dir, &key, clock.as_ref()).await?;
        Ok((token, lock))
    });
    match renewing.await {
        Ok(renewed) => renewed,
        Err(_) => Err(Error::Request("the process is shutting down".to_owned())),
    }
}

async fn renewed(dir: &Path, key: &HolderKey, clock: &dyn Clock) -> Result<Zeroizing<String>, Error> {
    let again = |reason: &str| {
        Error::Subject(format!(
            "{reason}; `taper login --wallet {}` logs in again",
            dir.display()
        ))
    };
    let folder = dir.to_owned();
    let kept = blocking(move || KeptLogin::read(&folder)).await?;
    let kept = kept.ok_or_else(|| again("nobody is logged in"))?;
    let lasts = |end: i64| end.saturating_sub(clock.unix()) > SPARE;
    if kept.expires_at.is_none_or(lasts) {
        return Ok(Zeroizing::new(kept.access_token.expose().to_owned()));
    }
    let Some(refresh_token) = &kept.refresh_token else {
        return Err(again("the access token has ended, and there is no refresh token"));
    };
    let refresh_token = Secret::new(refresh_token.expose());
    let mut kept = kept.written(dir).await?;
    let login = Login::at_server(&kept.issuer, kept.resource.as_deref()).await?;
    let refreshed = match login.refresh(&kept.client, &refresh_token, key, clock).await {
        Err(Error::Issuer { body, .. }) if body.error == "invalid_grant" => {
            // Shown again it would be taken for a thief's.
            kept.refresh_token = None;
            kept.written(dir).await?;
            return Err(again("the login has ended"));
        }
        refreshed => refreshed?,
    };
    let token = Zeroizing::new(refreshed.access_token.expose().to_owned());
    kept.access_token = refreshed.access_token;
    kept.expires_at = refreshed.expires_at;
    kept.refresh_token = refreshed.refresh_token;
    kept.written(dir).await?;
    Ok(token)
}
