//! The issuer as an agent sees it: its metadata (RFC 8414), and how a client names itself to it.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use taper_oauth::client_auth::basic_header;
use taper_oauth::{AuthorizationServerMetadata, ErrorBody, Secret, metadata, uri};
use taper_service::fetch::{Fetched, Fetcher};

use crate::Error;
use crate::proven::{self, secret_value};

/// An issuer whose metadata was fetched.
#[derive(Clone, Debug)]
pub struct Issuer {
    metadata: AuthorizationServerMetadata,
    fetcher: Fetcher,
}

/// The client in whose name an agent asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its secret; none for a public client.
    pub secret: Option<Secret>,
}

impl Issuer {
    /// Fetches the metadata of `issuer` (RFC 8414 section 3). Plain HTTP is accepted on loopback.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Fetch`], or [`Error::Answer`] when there is no document or it names
    /// another issuer.
    pub async fn discover(issuer: &str) -> Result<Self, Error> {
        let refused = |reason: String| Error::Url {
            url: issuer.to_owned(),
            reason,
        };
        uri::issuer(issuer, true).map_err(|e| refused(e.to_string()))?;
        let url = uri::authorization_server_metadata(issuer).map_err(|e| refused(e.to_string()))?;
        let fetcher = proven::fetcher_for(issuer)?;
        let answer = fetcher.get(url.as_str(), metadata::MAX_DOCUMENT).await?;
        if answer.status != http::StatusCode::OK {
            return Err(unusable(url.as_str(), format!("status {}", answer.status)));
        }
        let metadata = AuthorizationServerMetadata::parse(&answer.body, issuer)
            .map_err(|e| unusable(url.as_str(), e.to_string()))?;
        Ok(Self { metadata, fetcher })
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.metadata.issuer
    }

    /// The whole document.
    pub fn metadata(&self) -> &AuthorizationServerMetadata {
        &self.metadata
    }

    /// Fetches the issuer's public keys, a JWK set of at most `taper_oauth::jwk::MAX_SET` bytes.
    ///
    /// # Errors
    /// [`Error::Fetch`], [`Error::Answer`].
    pub async fn keys(&self) -> Result<bytes::Bytes, Error> {
        let url = self.endpoint("jwks_uri", &self.metadata.jwks_uri)?;
        let answer = self.fetcher.get(url, taper_oauth::jwk::MAX_SET).await?;
        if answer.status != http::StatusCode::OK {
            return Err(unusable(url, format!("status {}", answer.status)));
        }
        Ok(answer.body)
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// An endpoint of the metadata, which must be as safe to call as the issuer itself.
    pub(crate) fn endpoint<'a>(&self, name: &str, url: &'a Option<String>) -> Result<&'a str, Error> {
        let url = url
            .as_deref()
            .ok_or_else(|| unusable(self.id(), format!("its metadata has no `{name}`")))?;
        let plain = self.id().starts_with("http:");
        uri::secure(url, plain).map_err(|e| unusable(self.id(), format!("`{name}`: {e}")))?;
        Ok(url)
    }
}

impl Client {
    /// The header of `client_secret_basic`, or none for a public client, which is named in the form.
    pub(crate) fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        if let Some(secret) = &self.secret {
            let value = basic_header(&self.id, secret);
            headers.insert(AUTHORIZATION, secret_value(value.expose())?);
        }
        Ok(headers)
    }
}

/// The refusal that an answer of the issuer is.
pub(crate) fn refusal(url: &str, answer: &Fetched) -> Error {
    match ErrorBody::parse(&answer.body) {
        Ok(body) => Error::Issuer {
            status: answer.status.as_u16(),
            body,
        },
        Err(_) => unusable(url, format!("status {}", answer.status)),
    }
}

pub(crate) fn unusable(url: &str, reason: String) -> Error {
    let host = url::Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_else(|| url.to_owned());
    Error::Answer { host, reason }
}
