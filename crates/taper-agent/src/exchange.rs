//! The client of the token exchange (RFC 8693): a subject token goes in, a capability bound to our
//! key comes out; or a capability goes in, and comes out as the same grant with a later end.

use http::StatusCode;
use serde::Deserialize;
use taper_capability::{Token, UnverifiedToken};
use taper_dpop::base64url_decode;
use taper_oauth::{ExchangeRequest, Secret, TokenResponse, TokenType, response};
use taper_service::clock::Clock;

use crate::issuer::{self, Client, Issuer};
use crate::proven::{self, Outgoing, Prover};
use crate::{Error, HolderKey};

const FORM: &str = "application/x-www-form-urlencoded";

/// What an exchange gave.
#[derive(Debug)]
pub struct Exchanged {
    /// The capability, held by the key of the exchange.
    pub token: Token,
    /// The whole answer.
    pub response: TokenResponse,
}

/// Exchanges the subject token of `request` at `issuer` for a capability bound to `key`. Client and
/// requested token type are filled in.
///
/// A subject token that is itself bound to a key must be bound to this one; the proof then names it
/// in `ath`, so that one proof covers both.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses; [`Error::Answer`] when the answer is not a capability
/// of this issuer for this key; [`Error::Fetch`] when there is none.
pub async fn exchange(
    issuer: &Issuer,
    client: &Client,
    request: ExchangeRequest,
    key: &HolderKey,
    clock: &dyn Clock,
) -> Result<Exchanged, Error> {
    ask(issuer, client, request, key, clock).await
}

/// Renews the grant of `token`: the same grant, with a later end. Only a capability as it was
/// granted is renewed, neither handed on nor narrowed, held by `key`, and until it ends.
///
/// # Errors
/// As [`exchange()`]; [`Error::Issuer`] with `invalid_grant` says that the grant is revoked, and another one must
/// not be asked for in its place. With `invalid_request` and `invalid_scope` the subject's token can be exchanged.
pub async fn renew(
    issuer: &Issuer,
    client: &Client,
    token: &Token,
    key: &HolderKey,
    clock: &dyn Clock,
) -> Result<Exchanged, Error> {
    let request = ExchangeRequest::new(Secret::new(token.as_str()), TokenType::Capability);
    let renewed = ask(issuer, client, request, key, clock).await?;
    let grant =
        |token: &Token| Ok::<_, Error>(UnverifiedToken::decode(token.as_str())?.grant_id().to_owned());
    if grant(&renewed.token)? != grant(token)? {
        return Err(issuer::unusable(
            issuer.id(),
            "the renewal is of another grant".to_owned(),
        ));
    }
    Ok(renewed)
}

async fn ask(
    issuer: &Issuer,
    client: &Client,
    mut request: ExchangeRequest,
    key: &HolderKey,
    clock: &dyn Clock,
) -> Result<Exchanged, Error> {
    let url = issuer.endpoint("token_endpoint", &issuer.metadata().token_endpoint)?;
    request.requested_token_type = Some(TokenType::Capability);
    request.client_id = Some(client.id.clone());
    request.client_secret = None;
    let form = request.to_form().map_err(|e| Error::Request(e.to_string()))?;
    let subject = request.subject_token.expose();
    let prover = Prover {
        key,
        token: (request.subject_token_type == TokenType::Capability || is_bound(subject)).then_some(subject),
        presents: false,
    };
    let mut outgoing = Outgoing::post(url, FORM, form.expose().to_owned());
    outgoing.headers = client.headers()?;
    outgoing.max_bytes = response::MAX_ANSWER;
    let answer = proven::send(issuer.fetcher(), clock, prover, outgoing, &mut None).await?;
    if answer.status != StatusCode::OK {
        return Err(issuer::refusal(url, &answer));
    }
    let unusable = |reason: String| issuer::unusable(url, reason);
    let response = TokenResponse::parse(&answer.body).map_err(|e| unusable(e.to_string()))?;
    let token = Token::parse(response.access_token.expose()).map_err(|e| unusable(e.to_string()))?;
    check(&token, issuer.id(), key).map_err(unusable)?;
    Ok(Exchanged { token, response })
}

/// A capability that we cannot prove possession of, or of another issuer, is not what was asked for.
fn check(token: &Token, issuer: &str, key: &HolderKey) -> Result<(), String> {
    let chain = UnverifiedToken::decode(token.as_str()).map_err(|e| e.to_string())?;
    if chain.last_holder() != key.public() {
        return Err("the capability is held by another key".to_owned());
    }
    if chain.issuer() != issuer {
        return Err("the capability names another issuer".to_owned());
    }
    Ok(())
}

/// Whether a JWT says that it is bound to a key. Nothing is believed: a wrong guess only makes the issuer
/// refuse.
fn is_bound(jwt: &str) -> bool {
    bound_to(jwt).is_some()
}

/// The thumbprint of the key that a JWT says it is bound to (RFC 9449 section 6.1), unverified.
pub(crate) fn bound_to(jwt: &str) -> Option<String> {
    Claims::of(jwt).cnf?.jkt
}

/// What a JWT says of itself, unverified; nothing of what is none.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Claims {
    /// When it ends, in seconds since the Unix epoch.
    pub(crate) exp: Option<i64>,
    cnf: Option<Confirmation>,
}

#[derive(Debug, Deserialize)]
struct Confirmation {
    jkt: Option<String>,
}

impl Claims {
    pub(crate) fn of(jwt: &str) -> Self {
        let payload = jwt
            .split('.')
            .nth(1)
            .and_then(|payload| base64url_decode(payload).ok());
        let claims = payload.and_then(|payload| serde_json::from_slice(&payload).ok());
        claims.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
