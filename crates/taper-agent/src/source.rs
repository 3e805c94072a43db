//! Where the capability that an agent presents comes from, and what is done when it nears its end or is
//! refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use taper_capability::{Token, UnverifiedToken};
use taper_service::secret::{MAX_SECRET_BYTES, SecretError};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::{Error, HolderKey, KeySource, Wallet, blocking};

/// A capability, unsealed, and the key of its last holder.
#[derive(Clone, Debug)]
pub struct Held {
    /// The capability.
    pub token: Token,
    /// The key.
    pub key: HolderKey,
    /// When the capability ends, in seconds since the Unix epoch, as it says itself.
    pub expires_at: i64,
}

/// Where a capability comes from.
#[derive(Debug)]
pub enum Source {
    /// It is obtained at the issuer and renewed in time.
    Wallet(Box<Wallet>),
    /// Somebody else puts it there.
    Fixed(Box<Fixed>),
}

impl From<Wallet> for Source {
    fn from(wallet: Wallet) -> Self {
        Self::Wallet(Box::new(wallet))
    }
}

impl From<Fixed> for Source {
    fn from(fixed: Fixed) -> Self {
        Self::Fixed(Box::new(fixed))
    }
}

impl Source {
    /// The capability to present at `now`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Wallet::capability`] and [`Fixed::capability`].
    pub async fn current(&self, now: i64) -> Result<Held, Error> {
        match self {
            Self::Wallet(wallet) => wallet.capability(now).await,
            Self::Fixed(fixed) => fixed.capability().await,
        }
    }

    /// Another capability than `refused`, which the proxy did not accept (401 `invalid_token`).
    ///
    /// # Errors
    /// As [`Self::current`]; [`Error::NoOther`] when there is no other to be had.
    pub async fn renew(&self, refused: &Token, now: i64) -> Result<Held, Error> {
        match self {
            Self::Wallet(wallet) => wallet.renew(refused, now).await,
            Self::Fixed(fixed) => fixed.another(refused).await,
        }
    }
}

/// A capability that somebody else puts there: in a file, which is read again when it changed, or in
/// memory.
#[derive(Debug)]
pub struct Fixed {
    key: KeySource,
    opened: OnceCell<HolderKey>,
    file: Option<PathBuf>,
    read: Mutex<Option<(Stamp, Held)>>,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    changed: Option<SystemTime>,
    #[cfg(unix)]
    inode: u64,
}

impl Fixed {
    /// The capability in `file`, and its holder's key.
    pub fn file(file: impl Into<PathBuf>, key: KeySource) -> Self {
        Self {
            key,
            opened: OnceCell::new(),
            file: Some(file.into()),
            read: Mutex::new(None),
        }
    }

    /// A capability in memory.
    ///
    /// # Errors
    /// [`Error::Capability`] when it does not decode, [`Error::Request`] when it is another key's.
    pub fn held(token: Token, key: impl Into<HolderKey>) -> Result<Self, Error> {
        let held = pair(token, key.into())?;
        let stamp = Stamp {
            len: 0,
            changed: None,
            #[cfg(unix)]
            inode: 0,
        };
        Ok(Self {
            key: KeySource::File(PathBuf::new()),
            opened: OnceCell::new(),
            file: None,
            read: Mutex::new(Some((stamp, held))),
        })
    }

    /// The capability as it is there now; whether it has ended is not looked at.
    ///
    /// # Errors
    /// [`Error::Secret`] when the file cannot be read, [`Error::Capability`] when it holds none,
    /// [`Error::Request`] when it is another key's; and as [`KeySource::open`].
    pub async fn capability(&self) -> Result<Held, Error> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(path) = &self.file else {
            let held = known.map(|(_, held)| held);
            return held.ok_or_else(|| Error::Request("there is no capability".to_owned()));
        };
        let path = path.clone();
        let stamped = known.as_ref().map(|(stamp, _)| stamp.clone());
        let read = blocking(move || read_if_changed(&path, stamped.as_ref())).await?;
        let Some((stamp, token)) = read else {
            return known
                .map(|(_, held)| held)
                .ok_or_else(|| Error::Request("there is no capability".to_owned()));
        };
        let key = self.opened.get_or_try_init(|| self.key.open()).await?;
        let held = pair(token, key.clone())?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read = Some((stamp, held.clone()));
        Ok(held)
    }

    async fn another(&self, refused: &Token) -> Result<Held, Error> {
        let held = self.capability().await?;
        if held.token != *refused {
            return Ok(held);
        }
        let place = self.file.as_ref().map(|file| format!(" in `{}`", file.display()));
        Err(Error::NoOther(format!(
            "the capability{} is refused, and there is no other; `taper exchange` gets one",
            place.unwrap_or_default()
        )))
    }
}

/// Pairs a capability with the key of its last holder.
pub(crate) fn pair(token: Token, key: HolderKey) -> Result<Held, Error> {
    let chain = UnverifiedToken::decode(token.as_str())?;
    if chain.last_holder() != key.public() {
        return Err(Error::Request(format!(
            "the capability is held by the key {}, not by {}",
            chain.last_holder().thumbprint(),
            key.thumbprint()
        )));
    }
    Ok(Held {
        expires_at: chain.expires_at(),
        token,
        key,
    })
}

/// Reads the file unless it is as `known` says.
fn read_if_changed(path: &Path, known: Option<&Stamp>) -> Result<Option<(Stamp, Token)>, Error> {
    let failed = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    let stamp = Stamp::of(&fs::metadata(path).map_err(failed)?);
    if known == Some(&stamp) {
        return Ok(None);
    }
    let text = read_text(path)?;
    Ok(Some((stamp, Token::parse(text.trim())?)))
}

/// Reads a small text file, which may be anybody's: what it holds is worth nothing without a key, or was
/// put there by somebody else.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, Error> {
    use std::io::Read as _;
    let failed = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile {
            path: path.to_owned(),
        }
        .into());
    }
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge {
            path: path.to_owned(),
        }
        .into());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            len: metadata.len(),
            changed: metadata.modified().ok(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(metadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyfile;
    use crate::testing::Chain;
    use taper_service::secret::write_private_file;

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (folder.path().join("key"), folder.path().join("token"));
        let chain = Chain::new();
        keyfile::create(&key, &chain.key).unwrap();
        let source = Source::from(Fixed::file(&file, KeySource::File(key)));
        assert!(matches!(source.current(0).await, Err(Error::Secret(_))));
        write_private_file(&file, format!("{}\n", chain.token.as_str()).as_bytes()).unwrap();
        let first = source.current(0).await.unwrap();
        assert_eq!(first.token, chain.token);
        let refused = source.renew(&first.token, 0).await;
        assert!(matches!(refused, Err(Error::NoOther(_))));
        let step = crate::Step::narrow().note("another");
        let other = first.key.append(&first.token, &step).await.unwrap();
        write_private_file(&file, other.as_str().as_bytes()).unwrap();
        assert_eq!(source.current(0).await.unwrap().token, other);
        assert_eq!(source.renew(&first.token, 0).await.unwrap().token, other);
        write_private_file(&file, Chain::new().token.as_str().as_bytes()).unwrap();
        assert!(matches!(source.current(0).await, Err(Error::Request(_))));
    }

    #[tokio::test]
    async fn one_in_memory_stays() {
        let chain = Chain::new();
        let source = Source::from(Fixed::held(chain.token.clone(), chain.key.clone()).unwrap());
        let held = source.current(0).await.unwrap();
        assert_eq!(
            (held.token, held.expires_at),
            (chain.token.clone(), crate::testing::NOW + 3_600)
        );
        assert!(matches!(
            source.renew(&chain.token, 0).await,
            Err(Error::NoOther(_))
        ));
        assert!(Fixed::held(chain.token, Chain::new().key).is_err());
    }
}
