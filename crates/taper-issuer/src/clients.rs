//! The configured clients and their authentication (RFC 6749 §2.3).

use std::collections::BTreeMap;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use taper_oauth::{ClientAuthentication, ErrorCode, Form};
use taper_service::rng;
use taper_service::secret::Secret;

use crate::config::ClientConfig;
use crate::error::{OpenError, Refusal};
use crate::rules;

/// An authenticated client: obtainable only from [`Clients::authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    id: String,
    confidential: bool,
    feed: bool,
    introspect: bool,
}

impl Client {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has proven a secret, rather than only named itself.
    pub(crate) fn is_confidential(&self) -> bool {
        self.confidential
    }

    pub(crate) fn may_read_feed(&self) -> bool {
        self.confidential && self.feed
    }

    pub(crate) fn may_introspect(&self) -> bool {
        self.confidential && self.introspect
    }
}

/// Every configured client.
pub(crate) struct Clients {
    by_id: BTreeMap<String, (Client, Option<Secret>)>,
    /// Compared when there is no secret, so that an unknown client costs as much as a known one.
    decoy: Secret,
}

impl Clients {
    pub(crate) fn load(folder: &Path, configured: &[ClientConfig]) -> Result<Self, OpenError> {
        let mut by_id = BTreeMap::new();
        for client in configured {
            let secret = client.secret.as_ref().map(|source| source.read(folder));
            let secret = secret.transpose().map_err(|source| OpenError::Secret {
                key: format!("clients.{}.secret", client.id),
                source,
            })?;
            let known = Client {
                id: client.id.clone(),
                confidential: secret.is_some(),
                feed: client.feed,
                introspect: client.introspect,
            };
            by_id.insert(client.id.clone(), (known, secret));
        }
        Ok(Self {
            by_id,
            decoy: rng::random_secret_256(&mut rng::os()),
        })
    }

    /// Every client, in the order of the ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values().map(|(client, _)| client)
    }

    /// Who asks. Whatever is wrong, the answer is the same.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, form: &Form) -> Result<Client, Refusal> {
        let claimed = ClientAuthentication::from_request(authorization(headers)?, form)
            .map_err(|answer| Refusal::answered(rules::CLIENT, answer))?;
        let known = self.by_id.get(claimed.client_id());
        let sent = claimed.secret().map(|secret| secret.expose().as_bytes());
        let authentic = match (known, sent) {
            (Some((_, None)), None) => true,
            (Some((_, Some(secret))), Some(sent)) => secret.matches(sent),
            (_, sent) => {
                let _ = self.decoy.matches(sent.unwrap_or_default());
                false
            }
        };
        match known {
            Some((client, _)) if rules::CLIENT.holds(authentic) => Ok(client.clone()),
            _ => Err(failed("client authentication failed")),
        }
    }
}

fn authorization(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(failed("there are two `Authorization` headers"));
    }
    first
        .map(|value| {
            value
                .to_str()
                .map_err(|_| failed("malformed `Authorization` header"))
        })
        .transpose()
}

fn failed(description: &str) -> Refusal {
    Refusal::new(rules::CLIENT, ErrorCode::InvalidClient, description)
}
