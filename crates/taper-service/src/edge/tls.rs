//! TLS on a listener.
//!
//! TLS 1.3 and 1.2; HTTP/2 and HTTP/1.1 by ALPN (RFC 7301); no early data (RFC 8446 §8: it could be
//! replayed). Callers are asked for certificates where `client_ca` says whose count. The certificate and its key are checked before a port is opened, see [`super::certificate`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::callers::{CallerCertificates, Callers};
use super::certificate::{CertificateFiles, Pair, SHORTEST_RELOAD, TlsError, default_reload};
use crate::clock::SharedClock;
use crate::config::{SecretSource, duration, path_or_source, resolve};
use crate::shutdown::Shutdown;

/// ALPN's name of HTTP/2.
pub(super) const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The table `[tls]` of a daemon's file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain in PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM (PKCS #8, PKCS #1 or SEC1): a file that only its owner can read, or an
    /// environment variable.
    #[serde(deserialize_with = "path_or_source")]
    pub key: SecretSource,
    /// How often the files are looked at for a new pair. Default 60 s, at least 1 s.
    #[serde(default = "default_reload", with = "duration")]
    pub reload: Duration,
    /// Whether the operators' listener speaks TLS too, with the same certificate. Default no.
    #[serde(default)]
    pub admin: bool,
    /// The authorities of callers' certificates, a PEM file. Default: callers are asked for none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a caller needs one: `required`, the default where `client_ca` is set, or `optional`. It
    /// replaces nothing of what a request has to prove.
    #[serde(default)]
    pub client_auth: Option<CallerCertificates>,
}

/// A certificate and its key, ready for listeners. Clones share the pair that is in use.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    pair: Pair,
    callers: Option<Callers>,
    admin: bool,
    reload: Duration,
}

impl Tls {
    /// Reads and checks the pair; relative paths start at `folder`. It reads files: not for a runtime
    /// thread. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TlsError`], also when the certificate is not valid at `now`: no client would accept it.
    pub fn load(config: &TlsConfig, folder: &Path, now: i64) -> Result<Self, TlsError> {
        let files = CertificateFiles {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            reload: config.reload,
        };
        let pair = Pair::load(&files, folder, now)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let callers = match (&config.client_ca, config.client_auth) {
            (None, None) => None,
            (None, Some(_)) => return Err(TlsError::NoAuthorities),
            (Some(file), needed) => {
                let file = resolve(folder, file);
                Some(Callers::load(file, needed.unwrap_or_default(), &provider)?)
            }
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| TlsError::Key("no version of TLS can be spoken"))?;
        let builder = match &callers {
            None => builder.with_no_client_auth(),
            Some(callers) => builder.with_client_cert_verifier(callers.verifier()),
        };
        let mut server = builder.with_cert_resolver(pair.resolver());
        if callers.is_some() {
            // A session that goes on would not ask for the certificate again.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        server.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        Ok(Self {
            server: Arc::new(server),
            pair,
            callers,
            admin: config.admin,
            reload: config.reload.max(SHORTEST_RELOAD),
        })
    }

    /// Whether the operators' listener gets it too.
    pub fn for_admin(&self) -> bool {
        self.admin
    }

    /// When the certificate in use ends, in seconds since the Unix epoch; `None` when it does not say so.
    pub fn ends(&self) -> Option<i64> {
        self.pair.ends()
    }

    /// Whether the certificate names `host`, a DNS name or an address.
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let pair = self.pair.in_use();
        let certificate = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
        match (certificate, ServerName::try_from(host)) {
            (Ok(certificate), Ok(name)) => verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }

    /// Takes a changed pair and changed authorities without a restart, and warns of the certificate's end, until `shutdown`. A
    /// pair that cannot be used is reported once; the one before it stays.
    pub async fn follow(self, clock: SharedClock, shutdown: Shutdown) {
        let callers = async {
            if let Some(callers) = self.callers {
                callers.follow(self.reload, shutdown.clone()).await;
            }
        };
        tokio::join!(self.pair.follow(clock, shutdown.clone()), callers);
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.server).into()
    }
}

/// Nothing of the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("pair", &self.pair)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
