//! What the configuration says about an upstream's tokens, checked.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use http::HeaderValue;
use taper_dpop::PrivateKey;
use taper_oauth::client_auth::{self, MAX_CREDENTIAL};
use taper_oauth::{Secret, uri};
use taper_service::clock::SharedClock;
use taper_service::config::{SecretSource, resolve};
use taper_service::fetch::{FetchError, FetchRules, Fetcher};
use taper_service::secret::{self, SecretError};
use taper_service::shutdown::Shutdown;

use super::ask::{ClientProof, Exchange, Source};
use super::endpoint::Endpoint;
use super::{State, Tokens};
use crate::config::{ClientAuth, ClientCertificate, Oauth, OauthGrant};

/// What a server's settings are read in.
pub(crate) struct Environment<'a> {
    /// Relative paths start there.
    pub(crate) folder: &'a Path,
    pub(crate) public_url: &'a str,
    pub(crate) rules: &'a FetchRules,
    pub(crate) clock: &'a SharedClock,
}

/// Why the settings cannot be used. Nothing of a secret is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("`oauth.{key}`: {reason}")]
    Key { key: &'static str, reason: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

fn wrong(key: &'static str, reason: impl ToString) -> SettingsError {
    SettingsError::Key {
        key,
        reason: reason.to_string(),
    }
}

impl Tokens {
    /// The tokens of `server`, of which none is there yet. It reads files: not for a runtime thread.
    pub(crate) fn new(server: &str, oauth: &Oauth, around: &Environment<'_>) -> Result<Self, SettingsError> {
        let loopback = around.rules.allow_loopback_http;
        let shows_certificate = oauth.client_auth == ClientAuth::TlsClientAuth;
        let endpoint = match (&oauth.issuer, &oauth.token_endpoint) {
            (Some(issuer), None) => {
                uri::issuer(issuer, loopback).map_err(|e| wrong("issuer", e))?;
                Endpoint::of(issuer, shows_certificate, loopback)
            }
            (None, Some(endpoint)) => {
                // Without TLS nobody sees a certificate.
                let loopback = loopback && !shows_certificate;
                uri::secure(endpoint, loopback).map_err(|e| wrong("token_endpoint", e))?;
                Endpoint::Fixed(endpoint.clone())
            }
            _ => return Err(wrong("issuer", "one of `issuer` and `token_endpoint` is needed")),
        };
        check_text("client_id", &oauth.client_id)?;
        let proof = proof_of(oauth, around.folder)?;
        let exchange = exchange_of(oauth, around)?;
        if let (ClientProof::Key(client), Some(exchange)) = (&proof, &exchange)
            && client.public() == exchange.key.public()
        {
            // What proves the client could be passed off as what names a subject.
            return Err(wrong(
                "assertion_key",
                "it is the key of `client_key`; another one is needed",
            ));
        }
        Ok(Self {
            server: server.to_owned(),
            source: Source {
                endpoint,
                client_id: oauth.client_id.clone(),
                proof,
                wanted: wanted_of(oauth)?,
                audience: oauth.assertion_audience.clone().or_else(|| oauth.issuer.clone()),
                exchange,
                fetcher: fetcher_of(oauth, around)?,
            },
            // One more than for grants: the proxy's own.
            max: oauth.max_tokens.saturating_add(1),
            clock: Arc::clone(around.clock),
            state: Mutex::new(State::default()),
            counted: OnceLock::new(),
            tasks: Shutdown::new(),
        })
    }
}

fn proof_of(oauth: &Oauth, folder: &Path) -> Result<ClientProof, SettingsError> {
    use ClientAuth::{ClientSecretBasic, ClientSecretPost, PrivateKeyJwt, TlsClientAuth};
    let method = oauth.client_auth;
    let given = [
        (
            "client_secret",
            oauth.client_secret.is_some(),
            matches!(method, ClientSecretBasic | ClientSecretPost),
        ),
        ("client_key", oauth.client_key.is_some(), method == PrivateKeyJwt),
        (
            "client_certificate",
            oauth.client_certificate.is_some(),
            method == TlsClientAuth,
        ),
    ];
    for (key, is_there, is_needed) in given {
        if is_there != is_needed {
            let not = if is_needed { "needs it" } else { "does not use it" };
            return Err(wrong(key, format!("`{}` {not}", method.as_str())));
        }
    }
    let secret = |source: &SecretSource| -> Result<Secret, SettingsError> {
        let secret = source.read(folder)?;
        let text = secret.expose_str()?;
        check_text("client_secret", text)?;
        Ok(Secret::new(text))
    };
    match (method, &oauth.client_secret, &oauth.client_key) {
        (ClientSecretBasic, Some(source), _) => {
            let header = client_auth::basic_header(&oauth.client_id, &secret(source)?);
            let mut header = HeaderValue::from_str(header.expose()).map_err(|e| wrong("client_secret", e))?;
            header.set_sensitive(true);
            Ok(ClientProof::Basic(header))
        }
        (ClientSecretPost, Some(source), _) => secret(source).map(ClientProof::Post),
        (PrivateKeyJwt, _, Some(source)) => key_of("client_key", source, folder).map(ClientProof::Key),
        _ => Ok(ClientProof::Certificate),
    }
}

fn exchange_of(oauth: &Oauth, around: &Environment<'_>) -> Result<Option<Exchange>, SettingsError> {
    let exchanges = oauth.grant == OauthGrant::TokenExchange;
    let given = [
        ("subject_issuer", oauth.subject_issuer.is_some()),
        ("assertion_key", oauth.assertion_key.is_some()),
    ];
    for (key, is_there) in given {
        if is_there != exchanges {
            let not = if exchanges { "needs it" } else { "does not use it" };
            return Err(wrong(key, format!("the grant {not}")));
        }
    }
    if !exchanges && oauth.assertion_issuer.is_some() {
        return Err(wrong("assertion_issuer", "the grant does not use it"));
    }
    if oauth.max_tokens == 0 {
        return Err(wrong("max_tokens", "it is nothing"));
    }
    let (Some(subject_issuer), Some(key)) = (&oauth.subject_issuer, &oauth.assertion_key) else {
        return Ok(None);
    };
    Ok(Some(Exchange {
        issuer: oauth
            .assertion_issuer
            .clone()
            .unwrap_or_else(|| around.public_url.to_owned()),
        key: key_of("assertion_key", key, around.folder)?,
        subject_issuer: subject_issuer.clone(),
    }))
}

fn wanted_of(oauth: &Oauth) -> Result<Vec<(&'static str, String)>, SettingsError> {
    let mut wanted = Vec::new();
    if let Some(scope) = &oauth.scope {
        // RFC 6749 §3.3.
        let known = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
        let is_token = |token: &str| !token.is_empty() && token.bytes().all(known);
        if !scope.split(' ').all(is_token) {
            return Err(wrong(
                "scope",
                "it is not a list of scopes with single spaces between",
            ));
        }
        wanted.push(("scope", scope.clone()));
    }
    if let Some(resource) = &oauth.resource {
        uri::absolute(resource).map_err(|e| wrong("resource", e))?;
        wanted.push(("resource", resource.clone()));
    }
    if let Some(audience) = &oauth.audience {
        check_text("audience", audience)?;
        wanted.push(("audience", audience.clone()));
    }
    Ok(wanted)
}

fn fetcher_of(oauth: &Oauth, around: &Environment<'_>) -> Result<Fetcher, SettingsError> {
    let mut rules = around.rules.clone();
    if let Some(ClientCertificate { certificate, key }) = &oauth.client_certificate {
        let path = resolve(around.folder, certificate);
        let chain = std::fs::read(&path)
            .map_err(|e| wrong("client_certificate", format!("`{}`: {e}", path.display())))?;
        let key = key.read(around.folder)?;
        // One allocation: a buffer that grows would leave copies of the key behind.
        let mut pem = Vec::with_capacity(chain.len() + key.expose().len() + 1);
        pem.extend_from_slice(&chain);
        pem.push(b'\n');
        pem.extend_from_slice(key.expose());
        rules.identity = Some(secret::Secret::new(pem));
    }
    Ok(Fetcher::new(&rules)?)
}

fn key_of(name: &'static str, source: &SecretSource, folder: &Path) -> Result<PrivateKey, SettingsError> {
    let text = source.read(folder)?;
    // What the parser says could quote the key.
    PrivateKey::from_jwk_str(text.expose_str()?)
        .map_err(|_| wrong(name, "it is not a private key as a JWK (Ed25519 or P-256)"))
}

/// RFC 6749 appendix A.1 and A.2.
fn check_text(key: &'static str, text: &str) -> Result<(), SettingsError> {
    let fits = !text.is_empty() && text.len() <= MAX_CREDENTIAL;
    if fits && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Ok(())
    } else {
        Err(wrong(
            key,
            format!("it is not 1 to {MAX_CREDENTIAL} printable ASCII characters"),
        ))
    }
}
