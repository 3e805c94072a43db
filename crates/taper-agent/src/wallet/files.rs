//! The files of a wallet: the folder, the lock, and what is written down about a capability.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::mem::take;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use taper_capability::Token;
use taper_oauth::{Secret, details, json, scope};
use taper_service::secret::{self, MAX_SECRET_BYTES, SecretError};
use tokio::sync::oneshot;
use zeroize::{Zeroize, Zeroizing};

use super::Purpose;
use crate::{Error, KeySource};

/// The file of a wallet's own key.
pub const KEY_FILE: &str = "key.jwk";
pub(crate) const CAPABILITY_FILE: &str = "capability.json";
const LOCK_FILE: &str = "lock";
/// How long another process may hold the lock: an exchange takes less.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// What is written down about a wallet's capability.
#[derive(Debug)]
pub struct Contents {
    /// The issuer's URL.
    pub issuer: String,
    /// The client's id.
    pub client_id: String,
    /// What was asked for, as a scope of OAuth.
    pub scope: String,
    /// What was asked for, as `authorization_details`.
    pub details: String,
    /// Where it is to be used.
    pub resources: Vec<String>,
    /// Where the key is; without it the wallet has its own.
    pub key: Option<String>,
    /// The capability.
    pub token: Secret,
    /// When it was obtained, in seconds since the Unix epoch.
    pub obtained_at: i64,
    /// The issuer says that the grant is revoked; nothing else is asked for until somebody removes the file.
    pub revoked: bool,
}

/// [`Contents`] as JSON.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    client_id: String,
    scope: String,
    authorization_details: String,
    resource: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    obtained_at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    token: String,
}

impl Contents {
    /// What the wallet in `dir` holds, if it ever held a capability.
    ///
    /// # Errors
    /// [`Error::Secret`] when the file cannot be read or others may read it, [`Error::Wallet`] when it is
    /// not one that was written by a wallet.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        read(dir)
    }

    pub(super) fn new(
        purpose: &Purpose,
        key: Option<&KeySource>,
        token: &Token,
        obtained_at: i64,
    ) -> Result<Self, Error> {
        Ok(Self {
            issuer: purpose.issuer.clone(),
            client_id: purpose.client.id.clone(),
            scope: scope::format_list(&purpose.scope),
            details: told(purpose)?,
            resources: purpose.resources.clone(),
            key: key.map(KeySource::absolute),
            token: Secret::new(token.as_str()),
            obtained_at,
            revoked: false,
        })
    }

    pub(super) fn is_for(&self, purpose: &Purpose) -> bool {
        self.issuer == purpose.issuer
            && self.client_id == purpose.client.id
            && self.scope == scope::format_list(&purpose.scope)
            && told(purpose).is_ok_and(|told| told == self.details)
            && self.resources == purpose.resources
    }
}

fn told(purpose: &Purpose) -> Result<String, Error> {
    details::format_list(&purpose.details).map_err(|e| Error::Request(e.to_string()))
}

pub(super) fn read(dir: &Path) -> Result<Option<Contents>, Error> {
    let path = dir.join(CAPABILITY_FILE);
    let bytes = match secret::read_private_file(&path) {
        Err(error) if super::is_absent(&error) => return Ok(None),
        read => read?,
    };
    // What the parser says could show a part of the capability.
    let limit = usize::try_from(MAX_SECRET_BYTES).unwrap_or(usize::MAX);
    let mut written: Written = json::read(bytes.expose(), limit).map_err(|_| Error::Wallet { path })?;
    Ok(Some(Contents {
        issuer: take(&mut written.issuer),
        client_id: take(&mut written.client_id),
        scope: take(&mut written.scope),
        details: take(&mut written.authorization_details),
        resources: take(&mut written.resource),
        key: take(&mut written.key),
        token: Secret::new(take(&mut written.token)),
        obtained_at: written.obtained_at,
        revoked: written.revoked,
    }))
}

/// Replaces what is written down, in one step; it is on the disk when this returns.
pub(super) fn write(dir: &Path, contents: &Contents) -> Result<(), Error> {
    let written = Written {
        issuer: contents.issuer.clone(),
        client_id: contents.client_id.clone(),
        scope: contents.scope.clone(),
        authorization_details: contents.details.clone(),
        resource: contents.resources.clone(),
        key: contents.key.clone(),
        obtained_at: contents.obtained_at,
        revoked: contents.revoked,
        token: contents.token.expose().to_owned(),
    };
    let text = serde_json::to_vec(&written).map_err(|e| Error::Request(e.to_string()))?;
    let text = Zeroizing::new(text);
    Ok(secret::write_private_file(&dir.join(CAPABILITY_FILE), &text)?)
}

/// The right to obtain; given up when dropped, and when its process ends however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock, unless another process has it.
pub(super) fn try_lock(dir: &Path) -> Result<Option<Lock>, Error> {
    let file = lock_file(dir)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(locking(dir, source)),
    }
}

/// Waits until no other process has the lock.
pub(super) async fn wait_for_lock(dir: &Path) -> Result<Lock, Error> {
    let (send, locked) = oneshot::channel();
    let folder = dir.to_owned();
    // A thread of its own: one of the runtime's could not be given up, and would hold up the process's end.
    let waiting = std::thread::Builder::new().name("wallet-lock".to_owned());
    waiting
        .spawn(move || {
            let locked = lock_file(&folder).and_then(|file| match file.lock() {
                Ok(()) => Ok(Lock { _file: file }),
                Err(source) => Err(locking(&folder, source)),
            });
            // Whoever waited may have gone; the lock is then given up here.
            drop(send.send(locked));
        })
        .map_err(|source| locking(dir, source))?;
    match tokio::time::timeout(LONGEST_WAIT, locked).await {
        Ok(Ok(locked)) => locked,
        Ok(Err(_)) | Err(_) => Err(Error::Busy {
            path: dir.join(LOCK_FILE),
        }),
    }
}

fn lock_file(dir: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(dir.join(LOCK_FILE));
    file.map_err(|source| locking(dir, source))
}

fn locking(dir: &Path, source: io::Error) -> Error {
    Error::Secret(SecretError::Write {
        path: dir.join(LOCK_FILE),
        source,
    })
}
