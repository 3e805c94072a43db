//! A certificate and its key in files: checked before they are used, and taken anew when the files change.
//! A pair that cannot be used never replaces one that can.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, SignatureScheme};
use serde::Deserialize;

use crate::clock::{SharedClock, rfc3339};
use crate::config::{SecretSource, duration, path_or_source, resolve};
use crate::secret::SecretError;
use crate::shutdown::Shutdown;

/// The largest file of certificates that is read, in bytes.
const MAX_CERTIFICATES: u64 = 256 * 1024;
const NO_CERTIFICATE: &str = "it is not a certificate (X.509 version 3)";
pub(super) const SHORTEST_RELOAD: Duration = Duration::from_secs(1);
/// How long before its end a certificate is spoken of, and how often then, in seconds.
const NOTICE: i64 = 14 * 24 * 3600;
const NOTICE_EVERY: i64 = 24 * 3600;
/// The year 10000, after the end of every certificate (RFC 5280 section 4.1.2.5), in seconds since the Unix epoch.
const FAR: i64 = 253_402_300_800;

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain in PEM, the own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM (PKCS #8, PKCS #1 or SEC1): a file that only its owner can read, or an
    /// environment variable.
    #[serde(deserialize_with = "path_or_source")]
    pub key: SecretSource,
    /// How often the files are looked at for a new pair. Default 60 s, at least 1 s.
    #[serde(default = "default_reload", with = "duration")]
    pub reload: Duration,
}

pub(super) const fn default_reload() -> Duration {
    Duration::from_secs(60)
}

/// Why a certificate and its key cannot be used. No message carries anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of certificates.
    #[error("the certificate `{}`: {reason}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is absent, or open to others.
    #[error("the key of the certificate: {0}")]
    Secret(#[from] SecretError),
    /// The key is no private key in PEM, or of a kind that is not supported.
    #[error("the key of the certificate: {0}")]
    Key(&'static str),
    /// The authorities of callers' certificates.
    #[error("`client_ca`, `{}`: {reason}", path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is said whether callers need a certificate, and not whose authorities count.
    #[error("`client_auth` needs `client_ca`: the authorities of callers' certificates")]
    NoAuthorities,
    /// The key is another one's.
    #[error("the key does not belong to the first certificate of `{}`", .0.display())]
    Mismatch(PathBuf),
}

/// The certificate that a client shows to servers. Clones share the pair that is in use.
#[derive(Clone, Debug)]
pub struct ClientIdentity(Pair);

/// A certificate and its key, followed. Clones share the pair that is in use.
#[derive(Clone)]
pub(super) struct Pair {
    current: Arc<Current>,
    files: Files,
    /// What the files were when they were read first.
    loaded: Stamp,
}

/// The pair that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

/// Where the pair lies.
#[derive(Clone)]
struct Files {
    config: CertificateFiles,
    folder: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// By what a change of the two files is seen: when each was written last, and its length.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// What is known of the files from one look to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    stamp: Stamp,
    /// Whether what was there could not be used: it may have been written half, so it is read again.
    pub(super) refused: bool,
    /// Before this time, the end of the certificate is not spoken of again.
    pub(super) notice_at: i64,
}

impl ClientIdentity {
    /// Reads and checks the pair; relative paths start at `folder`. It reads files: not for a runtime
    /// thread. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TlsError`], also when the certificate is not valid at `now`: no server would accept it.
    pub fn load(config: &CertificateFiles, folder: &Path, now: i64) -> Result<Self, TlsError> {
        Pair::load(config, folder, now).map(Self)
    }

    /// For the settings of a TLS client. New connections show the pair that is in use then.
    pub fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.0.current) as _
    }

    /// When the certificate ends, in seconds since the Unix epoch; `None` when it does not say so.
    pub fn ends(&self) -> Option<i64> {
        self.0.ends()
    }

    /// Takes a changed pair without a restart, and warns of the certificate's end, until `shutdown`. A
    /// pair that cannot be used is reported once; the one before it stays.
    pub async fn follow(self, clock: SharedClock, shutdown: Shutdown) {
        self.0.follow(clock, shutdown).await;
    }
}

impl Pair {
    pub(super) fn load(config: &CertificateFiles, folder: &Path, now: i64) -> Result<Self, TlsError> {
        let files = Files {
            config: config.clone(),
            folder: folder.to_owned(),
            provider: Arc::new(aws_lc_rs::default_provider()),
        };
        let loaded = files.stamp();
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read(now)?))));
        Ok(Self {
            current,
            files,
            loaded,
        })
    }

    /// For the settings of a TLS server.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.current) as _
    }

    /// What is in use.
    pub(super) fn in_use(&self) -> Arc<CertifiedKey> {
        self.current.pair()
    }

    /// Takes a changed pair without a restart, and warns of the certificate's end, until `shutdown`. A
    /// pair that cannot be used is reported once; the one before it stays.
    pub(super) async fn follow(self, clock: SharedClock, shutdown: Shutdown) {
        let mut known = self.known();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.files.config.reload.max(SHORTEST_RELOAD)) => {}
            }
            let (this, now) = (self.clone(), clock.unix());
            match tokio::task::spawn_blocking(move || this.look(known, now)).await {
                Ok(next) => known = next,
                Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
            }
        }
    }

    /// When the certificate in use ends, in seconds since the Unix epoch.
    pub(super) fn ends(&self) -> Option<i64> {
        let pair = self.in_use();
        match at(&pair.cert, &self.files.provider, FAR) {
            Ok(Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            }))) => i64::try_from(not_after.as_secs()).ok(),
            _ => None,
        }
    }

    pub(super) fn known(&self) -> Known {
        Known {
            stamp: self.loaded,
            refused: false,
            notice_at: i64::MIN,
        }
    }

    /// Looks at the files once and takes what has changed.
    pub(super) fn look(&self, known: Known, now: i64) -> Known {
        let file = self.files.config.certificate.display();
        let stamp = self.files.stamp();
        let changed = stamp != known.stamp;
        let mut next = Known { stamp, ..known };
        if changed || known.refused {
            match self.files.read(now) {
                Ok(pair) => {
                    self.current.replace(pair);
                    tracing::info!(tls.certificate = %file, "a new certificate is in use");
                    (next.refused, next.notice_at) = (false, i64::MIN);
                }
                Err(error) => {
                    if changed {
                        tracing::warn!(%error, "a new certificate cannot be used, the one before it stays");
                    }
                    next.refused = true;
                }
            }
        }
        if now >= next.notice_at {
            let pair = self.current.pair();
            if let Err(reason) = valid_at(&pair.cert, &self.files.provider, now.saturating_add(NOTICE)) {
                tracing::warn!(tls.certificate = %file, reason, "the certificate in use ends soon or has ended");
                next.notice_at = now.saturating_add(NOTICE_EVERY);
            }
        }
        next
    }
}

/// Nothing of the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.files.config.certificate)
            .finish_non_exhaustive()
    }
}

impl Current {
    fn pair(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, pair: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair();
        pair.key.choose_scheme(schemes).is_some().then_some(pair)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Files {
    fn certificate(&self) -> PathBuf {
        resolve(&self.folder, &self.config.certificate)
    }

    fn stamp(&self) -> Stamp {
        let of = |path: PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let key = match &self.config.key {
            SecretSource::File(path) => of(resolve(&self.folder, path)),
            SecretSource::Env(_) => None,
        };
        [of(self.certificate()), key]
    }

    fn read(&self, now: i64) -> Result<CertifiedKey, TlsError> {
        let path = self.certificate();
        let refused = |reason: String| TlsError::Certificate {
            path: path.clone(),
            reason,
        };
        let chain = read_chain(&path).map_err(refused)?;
        let key = self.config.key.read(&self.folder)?;
        // What the parser says could quote a line of the key.
        let key = PrivateKeyDer::from_pem_slice(key.expose())
            .map_err(|_| TlsError::Key("it is no private key in PEM (PKCS #8, PKCS #1 or SEC1)"))?;
        let key = self.provider.key_provider.load_private_key(key);
        let key = key.map_err(|_| TlsError::Key("it is damaged or of a kind that TLS does not know"))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(TlsError::Mismatch(path));
            }
            Err(_) => return Err(refused(NO_CERTIFICATE.to_owned())),
        }
        valid_at(&pair.cert, &self.provider, now).map_err(refused)?;
        Ok(pair)
    }
}

pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_CERTIFICATES + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_CERTIFICATES {
        return Err(format!("it is larger than {MAX_CERTIFICATES} bytes"));
    }
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err("it has no certificate in PEM".to_owned()),
        Ok(chain) => Ok(chain),
        Err(_) => Err("it is not PEM throughout".to_owned()),
    }
}

/// What a client says of a certificate.
type Verdict = Result<(), rustls::Error>;

/// What clients say of the chain's first certificate at `now`. Whom they trust is not known here: the certificate
/// stands in for its own root, and only what is said of time counts.
fn at(chain: &[CertificateDer<'_>], provider: &Arc<CryptoProvider>, now: i64) -> Result<Verdict, String> {
    let Some(own) = chain.first() else {
        return Err("it has no certificate in PEM".to_owned());
    };
    let mut roots = RootCertStore::empty();
    roots
        .add(own.clone().into_owned())
        .map_err(|_| NO_CERTIFICATE.to_owned())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    let any_name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    Ok(verifier
        .verify_server_cert(own, &[], &any_name, &[], now)
        .map(drop))
}

/// Whether the chain's first certificate is valid at `now`, as far as time goes.
fn valid_at(chain: &[CertificateDer<'_>], provider: &Arc<CryptoProvider>, now: i64) -> Result<(), String> {
    let date = |time: UnixTime| rfc3339(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    match at(chain, provider, now)? {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Err(format!("it is valid until {} only", date(not_after)))
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Err(format!("it is not valid before {}", date(not_before))),
        _ => Ok(()),
    }
}
