//! Certificates of callers: whose authorities count, taken anew when their file changes, and what a service
//! learns of a caller's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::certificate::{TlsError, read_chain};
use crate::shutdown::Shutdown;

/// Whether callers need a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallerCertificates {
    /// Who shows none gets no connection.
    #[default]
    Required,
    /// One that is shown is verified; who shows none is answered as well.
    Optional,
}

/// The SHA-256 of a caller's verified certificate (DER), in the extensions of every request over its
/// connection. It shows as lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerCertificate(pub [u8; 32]);

impl CallerCertificate {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for CallerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Verifies callers' certificates by the authorities of a file. Clones share those that are in use.
#[derive(Clone, Debug)]
pub(super) struct Callers {
    file: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    loaded: Stamp,
}

/// By what a change of the file is seen: when it was written last, and its length.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug)]
struct Current {
    needed: bool,
    verifier: RwLock<Arc<dyn ClientCertVerifier>>,
}

impl Callers {
    pub(super) fn load(
        file: PathBuf,
        needed: CallerCertificates,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let loaded = stamp(&file);
        let verifier = read(&file, provider)?;
        Ok(Self {
            file,
            provider: Arc::clone(provider),
            current: Arc::new(Current {
                needed: needed == CallerCertificates::Required,
                verifier: RwLock::new(verifier),
            }),
            loaded,
        })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current) as _
    }

    /// Takes changed authorities for new connections, until `shutdown`. A file that cannot be used is reported
    /// once; the authorities before it stay.
    pub(super) async fn follow(self, every: Duration, shutdown: Shutdown) {
        let mut seen = (self.loaded, false);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.look(seen)).await {
                Ok(next) => seen = next,
                Err(error) => tracing::error!(%error, "the authorities of callers could not be looked at"),
            }
        }
    }

    /// Looks at the file once and takes what has changed. `seen` is what it was, and whether that could not
    /// be used: it may have been written half, so it is read again.
    pub(super) fn look(&self, (before, refused): (Stamp, bool)) -> (Stamp, bool) {
        let now = stamp(&self.file);
        if now == before && !refused {
            return (now, false);
        }
        match read(&self.file, &self.provider) {
            Ok(verifier) => {
                *self
                    .current
                    .verifier
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = verifier;
                tracing::info!(tls.client_ca = %self.file.display(), "new authorities of callers are in use");
                (now, false)
            }
            Err(error) => {
                if now != before {
                    tracing::warn!(%error, "new authorities of callers cannot be used, those before them stay");
                }
                (now, true)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> (Stamp, bool) {
        (self.loaded, false)
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let refused = |reason: String| TlsError::Authorities {
        path: file.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(file).map_err(refused)? {
        let added = roots.add(certificate);
        added.map_err(|_| refused("it has a certificate that cannot be read".to_owned()))?;
    }
    // Whether one is needed is asked here, so that it cannot change with the file.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build();
    verifier.map_err(|error| refused(error.to_string()))
}

impl Current {
    fn get(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        self.needed
    }

    /// None: they change, and whoever has a certificate for this listener knows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.get().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.get().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.get().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().supported_verify_schemes()
    }
}
