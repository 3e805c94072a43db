//! Taking a capability back: the holder's way (RFC 7009) and the administrator's.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use taper_capability::Token;
use taper_dpop::PrivateKey;
use taper_service::clock::Clock;
use taper_service::secret::Secret;

use crate::issuer::{self, Client, Issuer};
use crate::proven::{self, Outgoing, Prover, secret_value};
use crate::{Credential, Error};

const FORM: &str = "application/x-www-form-urlencoded";
const MAX_ANSWER: usize = 16 * 1024;

/// What an administrator revokes (RULES 28), in the form of the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A grant, by its id.
    Grant(String),
    /// A branch: 64 lower-case hex digits.
    Branch(String),
    /// A holder key, by its RFC 7638 thumbprint.
    Holder(String),
    /// Everything granted to a client.
    Client(String),
}

/// Revokes the grant of `token`, of which `key` is the holder (RFC 7009 with a DPoP proof whose `ath`
/// is the token's). It is in force when this returns.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses, [`Error::Request`] when `key` is not the holder.
pub async fn revoke(
    issuer: &Issuer,
    client: &Client,
    token: &Token,
    key: PrivateKey,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let url = issuer.endpoint("revocation_endpoint", &issuer.metadata().revocation_endpoint)?;
    let credential = Credential::new(token, key)?;
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("token", credential.token())
        .append_pair("client_id", &client.id)
        .finish();
    let prover = Prover {
        key: credential.key(),
        token: Some(credential.token()),
        presents: false,
    };
    let mut outgoing = Outgoing::post(url, FORM, form);
    outgoing.headers = client.headers()?;
    outgoing.max_bytes = MAX_ANSWER;
    let answer = proven::send(issuer.fetcher(), clock, prover, outgoing, &mut None).await?;
    if answer.status == StatusCode::OK {
        Ok(())
    } else {
        Err(issuer::refusal(url, &answer))
    }
}

/// Revokes `target` through the admin listener at `admin_url`. It is in force when this returns.
///
/// # Errors
/// [`Error::Issuer`] when it is refused, [`Error::Url`], [`Error::Fetch`].
pub async fn revoke_as_admin(admin_url: &str, admin_token: &Secret, target: &Target) -> Result<(), Error> {
    let fetcher = proven::fetcher_for(admin_url)?;
    let url = format!("{}/admin/v1/revocations", admin_url.trim_end_matches('/'));
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", admin_token.expose_str()?);
    headers.insert(AUTHORIZATION, secret_value(&bearer)?);
    let answer = fetcher.post_json(&url, target, headers, MAX_ANSWER).await?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(issuer::refusal(&url, &answer))
    }
}
